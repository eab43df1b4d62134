"""Induction: "A B … A" -> "B", on random tokens of which a part is repeated.

Scored are the places before every second B: those whose next token has followed the same token before. Corrupted
prompts are those of other rows. `variant="once"` has one pattern in a row, the last B of which is scored, so that its
places are spans. `variant="paper"` has the ACDC paper's data instead, web text that comes as files.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, first_line
from edgewise.models import Decoder
from edgewise.tasks.spans import spanned
from edgewise.tasks.task import Prompts, PromptText, Split, Task
from edgewise.tasks.tokens import added_tokens, check_length, document_start

LENGTH = 32
ONCE_LENGTH = 16
Drawn = TypeVar("Drawn")
METRICS = ("kl_div", "nll", "match_nll")
PAPER_REPOSITORY = "ArthurConmy/redwood_attn_2l"
PAPER_TOKENS, PAPER_MASK = "validation_data.pt", "mask_repeat_candidates.pkl"
PAPER_LENGTH = 300
PAPER_SEED = 42


def induction_mask(tokens: Tensor) -> Tensor:
    """Where the next token is the second B of a pattern A B … A B, `[rows, pos]` -> bool `[rows, pos]`.

    True at position i if some j < i has `tokens[j] == tokens[i]` and `tokens[j + 1] == tokens[i + 1]`; never at the
    last position, whose next token is not there.
    """
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    same = tokens[:, :, None] == tokens[:, None, :]
    again = same[:, :-1, :-1] & same[:, 1:, 1:]
    mask[:, :-1] = again.tril(diagonal=-1).any(dim=2)
    return mask


def _allowed(n_tokens: int, forbidden: Collection[int], first: int | None) -> Tensor:
    """The ids that may be drawn."""
    return torch.tensor([token for token in range(n_tokens) if token not in {*forbidden, first}], dtype=torch.long)


def repeated_tokens(
    rows: int,
    length: int,
    n_tokens: int,
    generator: torch.Generator,
    forbidden: Collection[int] = (),
    first: int | None = None,
) -> Tensor:
    """Rows of random tokens that repeat themselves, int64 `[rows, length]`; more rows leave the first ones as they are.

    A row is a string of different tokens again and again. How long that string is (from a quarter to half of `length`)
    differs from row to row, so that looking back by a fixed number of places does not help.

    Args:
        n_tokens: ids are drawn from 0 to `n_tokens` - 1.
        forbidden: ids that are never drawn.
        first: an id that every row begins with; it is not drawn either.

    Raises:
        EdgewiseError: the rows are too short to repeat anything, or there are too few ids for a string of different
            ones.
    """
    body = length - (first is not None)
    if body < 4:
        raise EdgewiseError(f"prompts of length {length} are too short to repeat a part (A B A B is the shortest)")
    allowed = _allowed(n_tokens, forbidden, first)
    shortest, longest = max(2, length // 4), min(length // 2, body - 2, len(allowed))
    if longest < shortest:
        raise EdgewiseError(
            f"prompts of length {length} that repeat a part need at least {shortest} different tokens to draw from, "
            f"and there are {len(allowed)}"
        )
    drawn = []
    for _ in range(rows):
        period = int(torch.randint(shortest, longest + 1, (), generator=generator))
        string = allowed[torch.randperm(len(allowed), generator=generator)[:period]]
        row = string.repeat(body // period + 1)[:body]
        drawn.append(row if first is None else torch.cat((torch.tensor([first]), row)))
    return torch.stack(drawn)


def once_repeated(
    rows: int,
    length: int,
    n_tokens: int,
    generator: torch.Generator,
    forbidden: Collection[int] = (),
    first: int | None = None,
) -> tuple[Tensor, Tensor, list[int]]:
    """Rows of different tokens of which only the last was there before, corrupted rows, and where it was.

    Both are int64 `[rows, length]`; a corrupted row has no token of its clean one, nor any twice. Arguments are those
    of `repeated_tokens`.

    Raises:
        EdgewiseError: the rows are too short, or there are too few ids.
    """
    before = int(first is not None)
    body = length - before
    if body < 4:
        raise EdgewiseError(f"prompts of length {length} are too short to repeat a token (A B C A is the shortest)")
    allowed = _allowed(n_tokens, forbidden, first)
    if len(allowed) < 2 * body - 1:
        raise EdgewiseError(
            f"prompts of length {length} that repeat one token, and others without any of theirs, need {2 * body - 1} "
            f"different tokens to draw from, and there are {len(allowed)}"
        )
    start = torch.full((before,), first or 0)
    clean, corrupt, places = [], [], []
    for _ in range(rows):
        drawn = allowed[torch.randperm(len(allowed), generator=generator)[: 2 * body - 1]]
        place = int(torch.randint(0, body - 2, (), generator=generator))
        clean.append(torch.cat((start, drawn[: body - 1], drawn[place : place + 1])))
        corrupt.append(torch.cat((start, drawn[body - 1 :])))
        places.append(before + place)
    return torch.stack(clean), torch.stack(corrupt), places


def build_induction(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The induction task: `examples` rows, the first ones for validation, the next for test.

    The corrupted prompts are the same rows in another order, in which none stays in its place. Rows are drawn by a
    seed, from all tokens of text (none that are special, were added or stand for a byte), and begin with BOS if the
    model's tokenizer has one. More examples leave
    the first clean rows as they are, but not which row corrupts which.

    `variant="paper"` reads the original's rows and mask from the hub, or from the model's folder if they lie there;
    seed 0 takes its rows in its order, which may leave rows in their place.

    `variant="once"` has shorter rows, "… A B … A", whose corrupted prompts have none of their tokens and repeat
    nothing; its spans are A and B, where they are first, and END.

    Raises:
        EdgewiseError: fewer than two examples, a model that looks ahead, reads too few tokens or has too few, or, for
            the paper's data, files that cannot be had, hold something else, or do not fit the model.
    """
    if not model.causal:
        raise EdgewiseError(
            f"task 'induction' asks for the next token, and {model.name!r} has seen it: its attention looks ahead"
        )
    if model.config.architecture == "transformer-lens" and model.config.d_vocab != model.config.n_tokens:
        raise EdgewiseError(
            f"task 'induction' asks for the next token, and the {model.config.d_vocab} outputs of {model.name!r} are "
            f"not its {model.config.n_tokens} tokens"
        )
    places: list[int] | None = None
    if variant == "once":
        clean, corrupt, places = _once_rows(model, examples, seed, split)
        mask = torch.zeros_like(clean, dtype=torch.bool)
        mask[:, -1] = True
        answers = clean.roll(-1, dims=1)
        answers[:, -1] = clean[range(len(clean)), [place + 1 for place in places]]
    elif variant == "paper":
        clean, corrupt, mask, answers = _paper_rows(model, examples, seed, split)
    else:
        clean, corrupt = _drawn_rows(model, examples, seed, split)
        mask = induction_mask(clean)
        answers = clean.roll(-1, dims=1)
    rows, positions = mask.nonzero(as_tuple=True)
    everything = torch.ones_like(clean, dtype=torch.bool)
    task = Task(
        name="induction",
        prompts=Prompts(
            clean=clean,
            corrupt=corrupt,
            mask=everything,
            corrupt_mask=everything,
            scored_rows=rows,
            scored_positions=positions,
            answers=answers[rows, positions][:, None],
        ),
        text=tuple(
            PromptText(_text(model, row), _text(model, other), tuple(_text(model, answer) for answer in right[:, None]))
            for row, other, right in zip(clean, corrupt, _by_row(answers, mask), strict=True)
        ),
        metric="kl_div",
        metrics=METRICS,
        why_no_answers="task 'induction' has a right answer, the token that came before, and no particular wrong one",
    )
    if places is None:
        return task
    last = clean.shape[1] - 1
    spans = [(one, one + 1, last) for one in places]
    return spanned(
        task, [{name: range(at, at + 1) for name, at in zip(("A", "B", "END"), row, strict=True)} for row in spans]
    )


def _by_row(answers: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[scored] for row, scored in zip(answers, mask, strict=True)]


def _draw(model: Decoder, draw: Callable[..., Drawn], examples: int, length: int, seed: int) -> Drawn:
    """Rows of random tokens of the model's, for validation and for test."""
    length = min(length, model.config.n_context or length)
    n_tokens = min(model.config.n_tokens, model.config.d_vocab)
    if model.tokenizer is not None:
        n_tokens = min(n_tokens, len(model.tokenizer))  # an embedding is often padded with rows that are no token
    bos = document_start(model)
    special = {*getattr(model.tokenizer, "all_special_ids", ()), *added_tokens(model)}
    generator = torch.Generator().manual_seed(seed % 2**63)
    try:
        return draw(2 * examples, length, n_tokens, generator, special, bos)
    except EdgewiseError as error:
        raise EdgewiseError(f"task 'induction' cannot run on {model.name!r}: {error}") from None


def _once_rows(model: Decoder, examples: int, seed: int, split: Split) -> tuple[Tensor, Tensor, list[int]]:
    clean, corrupt, places = _draw(model, once_repeated, examples, ONCE_LENGTH, seed)
    check_length(model, clean[0].tolist(), "a prompt of task 'induction'")
    half = slice(examples, None) if split == "test" else slice(examples)
    return clean[half], corrupt[half], places[half]


def _drawn_rows(model: Decoder, examples: int, seed: int, split: Split) -> tuple[Tensor, Tensor]:
    if examples < 2:
        raise EdgewiseError("task 'induction' corrupts a prompt with another one, so it needs at least 2 examples")
    rows = _draw(model, repeated_tokens, examples, LENGTH, seed)
    clean = rows[examples:] if split == "test" else rows[:examples]
    check_length(model, clean[0].tolist(), "a prompt of task 'induction'")  # BOS may be unknown to the model
    # In one round trip through all rows none comes back to itself.
    order = list(range(examples))
    random.Random(f"{split} {seed}").shuffle(order)
    corrupt = torch.empty_like(clean)
    corrupt[order] = clean[order[1:] + order[:1]]
    return clean, corrupt


def _text(model: Decoder, row: Tensor) -> str:
    if model.tokenizer is None:
        return " ".join(map(str, row.tolist()))
    return str(model.tokenizer.decode(row.tolist()))


# --- the paper's data -------------------------------------------------------------------------------------------------


def _paper_rows(model: Decoder, examples: int, seed: int, split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean, corrupt, mask and the tokens that follow, `[examples, 300]` each."""
    tokens, mask = _paper_tensor(model, PAPER_TOKENS), _paper_tensor(model, PAPER_MASK)
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise EdgewiseError(f"{PAPER_TOKENS} should hold token ids, not {_dtype(tokens)}")
    if mask.dtype != torch.bool:
        raise EdgewiseError(f"{PAPER_MASK} should hold True and False, not {_dtype(mask)}")
    if tokens.dim() != 2 or tokens.shape != mask.shape or tokens.shape[1] <= PAPER_LENGTH:
        raise EdgewiseError(
            f"{PAPER_TOKENS} and {PAPER_MASK} should both hold rows of more than {PAPER_LENGTH} tokens, and have the "
            f"shapes {list(tokens.shape)} and {list(mask.shape)}"
        )
    if len(tokens) < 2 * examples:
        raise EdgewiseError(
            f"{PAPER_TOKENS} has {len(tokens)} rows; {examples} examples for validation and as many for test need "
            f"{2 * examples}"
        )
    if seed != 0:
        shuffled = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed % 2**63))
        tokens, mask = tokens[shuffled], mask[shuffled]
    half = slice(examples, 2 * examples) if split == "test" else slice(0, examples)
    tokens, mask = tokens[half, : PAPER_LENGTH + 1].long(), mask[half, :PAPER_LENGTH]
    if int(tokens.min()) < 0:
        raise EdgewiseError(f"{PAPER_TOKENS} has the token id {int(tokens.min())}, which cannot be one")
    most = int(tokens.max())
    n_tokens = min(model.config.n_tokens, model.config.d_vocab)
    if most >= n_tokens:
        raise EdgewiseError(
            f"{PAPER_TOKENS} has the token id {most}, but model {model.name!r} has only {n_tokens} tokens: the data "
            f"is made for {PAPER_REPOSITORY}"
        )
    if not mask.any():
        raise EdgewiseError(f"{PAPER_MASK} marks no place in the {split} rows, so nothing can be scored")
    clean = tokens[:, :-1]
    check_length(model, clean[0].tolist(), f"a row of {PAPER_TOKENS}")
    # The original means to seed the test rows otherwise, and does not.
    order = torch.randperm(examples, generator=torch.Generator().manual_seed((PAPER_SEED + seed) % 2**63))
    return clean, clean[order], mask, tokens[:, 1:]


def _paper_tensor(model: Decoder, file: str) -> Tensor:
    path = Path(model.name).expanduser() / file
    if not path.is_file():
        path = _download(file)
    try:
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise EdgewiseError(f"{path} is no file of tensors alone, and edgewise runs no code from a data file") from None
    except Exception as error:  # whatever torch and zipfile raise over a broken file
        raise EdgewiseError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(value, Tensor):
        raise EdgewiseError(f"{path} should hold a tensor, not a {type(value).__name__}")
    return value


def _download(file: str) -> Path:
    import huggingface_hub  # imported here: no other task needs the hub

    try:
        return Path(huggingface_hub.hf_hub_download(repo_id=PAPER_REPOSITORY, filename=file))
    except Exception as error:  # the hub, its cache and the network raise errors of many kinds
        raise EdgewiseError(
            f"variant 'paper' of task 'induction' needs {file} of the hub repository {PAPER_REPOSITORY}, which is not "
            f"in the model's folder and cannot be had from the hub: {first_line(error)}"
        ) from None


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
