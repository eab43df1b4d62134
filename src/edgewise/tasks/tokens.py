"""Text to token ids, with the refusals that a task owes its user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder


def encode(model: Decoder, text: str) -> list[int]:
    """Token ids of a prompt, with the special tokens (such as a BOS) that the model's own tokenizer puts before it.

    What a tokenizer puts after it (an EOS) is left out: the model has to go on from the prompt's own last token.
    """
    return encode_all(model, [text])[0]


def encode_all(model: Decoder, texts: Sequence[str]) -> list[list[int]]:
    """`encode` for many texts at once, which is several times as fast."""
    if not texts:
        return []
    tokenizer = _tokenizer(model)
    whole = tokenizer(list(texts))["input_ids"]
    if tokenizer.num_special_tokens_to_add() == 0:
        return [list(ids) for ids in whole]
    bare = _bare(model, texts)
    return [_without_end(list(ids), own) for ids, own in zip(whole, bare, strict=True)]


def _bare(model: Decoder, texts: Sequence[str]) -> list[list[int]]:
    return [list(ids) for ids in _tokenizer(model)(list(texts), add_special_tokens=False)["input_ids"]]


def _without_end(ids: list[int], bare: list[int]) -> list[int]:
    for start in range(len(ids) - len(bare) + 1):
        if ids[start : start + len(bare)] == bare:
            return ids[: start + len(bare)]
    return ids


def continuation(model: Decoder, prompt: str, answer: str) -> list[int]:
    """Token ids of `answer` as it stands after `prompt`.

    Where prompt and answer would merge into other tokens than the prompt's, the answer is taken by itself.
    """
    return continuations(model, [(encode(model, prompt), prompt, answer)])[0]


def continuations(model: Decoder, asked: Sequence[tuple[list[int], str, str]]) -> list[list[int]]:
    """`continuation` for many: the ids of a prompt, the prompt, and an answer after it."""
    joined = encode_all(model, [prompt + answer for _, prompt, answer in asked])
    found = [
        both[len(before) :] if len(both) > len(before) and both[: len(before)] == before else None
        for (before, _, _), both in zip(asked, joined, strict=True)
    ]
    alone = iter(
        _bare(model, [answer for (_, _, answer), ids in zip(asked, found, strict=True) if ids is None] or [""])
    )
    return [next(alone) if ids is None else ids for ids in found]


def show(model: Decoder, ids: list[int]) -> str:
    """Tokens for an error message: `['Mar', 'cus']`."""
    return str([_tokenizer(model).decode([token]) for token in ids])


def unknown_words(model: Decoder, ids: list[int]) -> bool:
    """Whether the tokenizer had no token for part of the text."""
    unknown = getattr(_tokenizer(model), "unk_token_id", None)
    return unknown is not None and unknown != getattr(_tokenizer(model), "eos_token_id", None) and unknown in ids


def check_length(model: Decoder, ids: list[int], what: str) -> None:
    """Raise an EdgewiseError if a prompt has no tokens, or more than the model can read, or some it does not know."""
    if not ids:
        raise EdgewiseError(f"{what} has no tokens")
    if max(ids) >= model.config.n_tokens:
        raise EdgewiseError(
            f"{what} has the token id {max(ids)}, but model {model.name!r} has only {model.config.n_tokens} tokens: "
            "its tokenizer is another model's"
        )
    limit = model.config.n_context
    if limit is not None and len(ids) > limit:
        raise EdgewiseError(f"{what} has {len(ids)} tokens; model {model.name!r} reads at most {limit}")


def encode_prompt(model: Decoder, text: str, task: str, bos: bool = False) -> list[int]:
    """Token ids of a built-in task's prompt.

    Args:
        bos: put the tokenizer's BOS first, if it has one and encoding did not put it there already.

    Raises:
        EdgewiseError: the model cannot read that many tokens, or its tokenizer has no word for part of the prompt.
    """
    ids = encode(model, text)
    first = getattr(model.tokenizer, "bos_token_id", None)
    if bos and first is not None and ids[:1] != [first]:
        ids = [first, *ids]
    check_length(model, ids, f"the prompt {text!r}")
    if unknown_words(model, ids):
        raise EdgewiseError(
            f"task {task!r} cannot run on {model.name!r}: its tokenizer has no word for part of {text!r}"
        )
    return ids


def one_token(model: Decoder, ids: list[int], word: str, task: str, needs: str) -> int:
    """The one token of `word`, whose ids these are; `needs` is what the task needs, as in "every name to be one token".

    Raises:
        EdgewiseError: it is several tokens, or unknown.
    """
    if len(ids) != 1 or unknown_words(model, ids):
        pieces = show(model, ids) if len(ids) > 1 else "none"
        raise EdgewiseError(
            f"task {task!r} needs {needs}, and {word!r} is not one for the tokenizer of {model.name!r} "
            f"(its tokens: {pieces})"
        )
    return ids[0]


def _tokenizer(model: Decoder) -> Any:  # whatever transformers returns
    if model.tokenizer is None:
        raise EdgewiseError(
            f"model {model.name!r} has no tokenizer{model.why_no_tokenizer}, and this task is made of text"
        )
    return model.tokenizer
