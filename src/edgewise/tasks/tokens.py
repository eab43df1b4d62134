"""Text to token ids, with the refusals that a task owes its user."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from edgewise.errors import EdgewiseError, first_line
from edgewise.models import Decoder

Drawn = TypeVar("Drawn")

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
END_OF_TEXT = "<|endoftext|>"
TURN_MARKERS = ("<|im_start|>", "<start_of_turn>", "<|start|>")
ANCHOR = "."
"""Stands before a text that must not be read as the beginning of one."""


def encode(model: Decoder, text: str) -> list[int]:
    """Token ids of a prompt, with the special tokens (such as a BOS) that the model's own tokenizer puts before it.

    What a tokenizer puts after it (an EOS) is left out: the model has to go on from the prompt's own last token. A
    Gemma, which reads nothing right without its BOS, gets it from a tokenizer that leaves it out, too.
    """
    return encode_all(model, [text])[0]


def encode_all(model: Decoder, texts: Sequence[str]) -> list[list[int]]:
    """`encode` for many texts at once, which is several times as fast."""
    if not texts:
        return []
    tokenizer = _tokenizer(model)
    found = [list(ids) for ids in tokenizer(list(texts))["input_ids"]]
    if tokenizer.num_special_tokens_to_add() != 0:
        found = [_without_end(ids, own) for ids, own in zip(found, encode_bare(model, texts), strict=True)]
    return [with_bos(model, ids) for ids in found] if model.config.architecture.startswith("gemma") else found


def document_start(model: Decoder) -> int | None:
    """The token that a document begins with: the tokenizer's BOS, or None.

    Some chat models' tokenizers give out the marker of a turn for their BOS. No document of their training began with
    it, but with `<|endoftext|>`.
    """
    tokenizer = model.tokenizer
    if getattr(tokenizer, "bos_token", None) in TURN_MARKERS:
        return tokenizer.get_vocab().get(END_OF_TEXT)  # type: ignore[union-attr] - it has a BOS
    return getattr(tokenizer, "bos_token_id", None)


def with_bos(model: Decoder, ids: list[int]) -> list[int]:
    """`ids` behind `document_start`, if there is one and they do not begin with it already."""
    first = document_start(model)
    return ids if first is None or ids[:1] == [first] else [first, *ids]


def encode_bare(model: Decoder, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, without any special token that they do not have in them."""
    if not texts:
        return []
    return [list(ids) for ids in _tokenizer(model)(list(texts), add_special_tokens=False)["input_ids"]]


def _without_end(ids: list[int], bare: list[int]) -> list[int]:
    for start in range(len(ids) - len(bare) + 1):
        if ids[start : start + len(bare)] == bare:
            return ids[: start + len(bare)]
    return ids


def conversation(model: Decoder, messages: Sequence[Mapping[str, str]]) -> str:
    """What a chat model reads: `messages` in its tokenizer's chat template, and the beginning of its answer.

    If the last message is the assistant's, that is the beginning of its answer.

    Raises:
        EdgewiseError: the tokenizer has no chat template, or its template refuses these messages.
    """
    tokenizer = _tokenizer(model)
    if not getattr(tokenizer, "chat_template", None):
        raise EdgewiseError(f"the tokenizer of {model.name!r} has no chat template, which messages need")
    begun = messages[-1]["role"] == "assistant"
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(one) for one in messages],
                tokenize=False,
                add_generation_prompt=not begun,
                continue_final_message=begun,
            )
        )
    except Exception as error:  # whatever a template raises
        raise EdgewiseError(f"the chat template of {model.name!r} refuses the messages: {first_line(error)}") from None


def continuation(model: Decoder, prompt: str, answer: str) -> list[int]:
    """Token ids of `answer` as it stands after `prompt`.

    Where prompt and answer would merge into other tokens than the prompt's, the answer is taken by itself, without the
    space that some tokenizers put before every text.
    """
    return continuations(model, [(encode(model, prompt), prompt, answer)])[0]


def continuations(model: Decoder, asked: Sequence[tuple[list[int], str, str]]) -> list[list[int]]:
    """`continuation` for many: the ids of a prompt, the prompt, and an answer after it."""
    joined = encode_all(model, [prompt + answer for _, prompt, answer in asked])
    found = [
        both[len(before) :] if len(both) > len(before) and both[: len(before)] == before else None
        for (before, _, _), both in zip(asked, joined, strict=True)
    ]
    merged = [answer for (_, _, answer), ids in zip(asked, found, strict=True) if ids is None]
    alone = iter(_alone(model, merged) if merged else [])
    return [next(alone) if ids is None else ids for ids in found]


def _alone(model: Decoder, texts: Sequence[str]) -> list[list[int]]:
    bare = encode_bare(model, texts)
    if not _begins_with_a_space(model):
        return bare
    (anchor,) = encode_bare(model, [ANCHOR])
    anchored = encode_bare(model, [ANCHOR + text for text in texts])
    return [
        both[len(anchor) :] if len(both) > len(anchor) and both[: len(anchor)] == anchor else ids
        for both, ids in zip(anchored, bare, strict=True)
    ]


def _begins_with_a_space(model: Decoder) -> bool:
    """Whether the tokenizer reads "a" as " a", as SentencePiece's dummy prefix makes it."""
    ids = encode_bare(model, ["a"])[0]
    return bool(ids) and str(_tokenizer(model).convert_ids_to_tokens(ids[0])).startswith("▁")


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


def encode_prompts(model: Decoder, texts: Sequence[str], task: str, bos: bool = False) -> list[list[int]]:
    """Token ids of a built-in task's prompts.

    Args:
        bos: put the tokenizer's BOS first, if it has one and encoding did not put it there already.

    Raises:
        EdgewiseError: the model cannot read that many tokens, or its tokenizer has no word for part of a prompt.
    """
    found = []
    for text, bare in zip(texts, encode_all(model, texts), strict=True):
        ids = with_bos(model, bare) if bos else bare
        check_length(model, ids, f"the prompt {text!r}")
        if unknown_words(model, bare):
            raise EdgewiseError(
                f"task {task!r} cannot run on {model.name!r}: its tokenizer has no word for part of {text!r}"
            )
        found.append(ids)
    return found


def single_tokens(model: Decoder, before: str, words: Sequence[str]) -> dict[str, int]:
    """The one token of each word after `before` and a space; words of several tokens or none are not in it."""
    first = encode(model, before)
    found: dict[str, int] = {}
    for word, ids in zip(words, encode_all(model, [f"{before} {word}" for word in words]), strict=True):
        rest = ids[len(first) :]
        if ids[: len(first)] == first and len(rest) == 1 and not unknown_words(model, rest):
            found[word] = rest[0]
    return found


def added_tokens(model: Decoder) -> set[int]:
    """Tokens that stand for no text of their own: added to the vocabulary, as markers are, or a byte (`<0x0A>`)."""
    if model.tokenizer is None:
        return set()
    bytes_ = {token for text, token in model.tokenizer.get_vocab().items() if BYTE.fullmatch(text)}
    return {*model.tokenizer.get_added_vocab().values(), *bytes_}


def known_words(model: Decoder, words: Sequence[str]) -> tuple[str, ...]:
    """The words that the tokenizer has tokens for, however many."""
    return tuple(
        word
        for word, ids in zip(words, encode_all(model, [f" {word}" for word in words]), strict=True)
        if ids and not unknown_words(model, ids)
    )


def require_words(model: Decoder, task: str, kept: int, all_words: int, needed: int, what: str, are: str) -> str:
    """ "81 of 99 names are one token", or nothing if all are.

    Args:
        what, are: as in "names" and "one token".

    Raises:
        EdgewiseError: fewer are left than the task needs.
    """
    count = f"{kept} of {all_words} {what} are {are}"
    if kept < needed:
        raise EdgewiseError(
            f"task {task!r} cannot run on {model.name!r}: it needs at least {needed} {what} that are {are}, and for "
            f"this model's tokenizer only {count}"
        )
    return "" if kept == all_words else count


def pairs_of_one_length(
    model: Decoder, draw: Callable[[int], Sequence[tuple[str, str]]], count: int, task: str, bos: bool = False
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """The first `count` pairs whose prompts have as many tokens as each other.

    Args:
        draw: gives so many pairs of a clean and a corrupted prompt; more leave the first ones as they are.

    Returns:
        Their numbers among those drawn, and the token ids of the clean and of the corrupted prompts.

    Raises:
        EdgewiseError: as `encode_prompts`, or hardly any pairs have one length.
    """
    drawn = count
    while True:
        pairs = draw(drawn)
        clean, corrupt = (encode_prompts(model, [pair[side] for pair in pairs], task, bos) for side in (0, 1))
        alike = [row for row in range(drawn) if len(clean[row]) == len(corrupt[row])][:count]
        if len(alike) == count:
            return alike, [clean[row] for row in alike], [corrupt[row] for row in alike]
        if drawn > 8 * count:
            row = next(row for row in range(drawn) if len(clean[row]) != len(corrupt[row]))
            raise EdgewiseError(
                f"task {task!r} needs the prompts of a pair to have the same number of tokens, and for the tokenizer "
                f"of {model.name!r} only {len(alike)} of {drawn} pairs do: it makes {len(clean[row])} and "
                f"{len(corrupt[row])} of {pairs[row][0]!r} and {pairs[row][1]!r}"
            )
        drawn *= 2


def split_of_one_length(
    model: Decoder,
    draw: Callable[[int], Sequence[Drawn]],
    text: Callable[[Drawn], tuple[str, str]],
    examples: int,
    split: str,
    task: str,
    bos: bool = False,
) -> tuple[list[Drawn], list[list[int]], list[list[int]]]:
    """The first `examples` pairs of one length, or as many after them where the split is `test`.

    Args:
        draw: gives so many pairs; more leave the first ones as they are.
        text: a pair's clean and corrupted prompt.

    Returns:
        The pairs, and the token ids of their clean and of their corrupted prompts.

    Raises:
        EdgewiseError: as `pairs_of_one_length`.
    """
    chosen, clean, corrupt = pairs_of_one_length(
        model, lambda count: [text(pair) for pair in draw(count)], 2 * examples, task, bos
    )
    drawn = draw(chosen[-1] + 1)
    half = slice(examples, None) if split == "test" else slice(examples)
    return [drawn[row] for row in chosen[half]], clean[half], corrupt[half]


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
