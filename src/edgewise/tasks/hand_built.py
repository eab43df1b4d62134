"""Tasks of the models built by hand: tracr's two programs and the OR gate.

Their circuits are known exactly, so they tell whether a method works. None has a text: prompts are token ids.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.models.hand_built import (
    OR_GATE_TOKENS,
    TRACR_REVERSE_TOKENS,
    TRACR_XPROPORTION_TOKENS,
    XPROPORTION_LETTERS,
)
from edgewise.tasks.task import Prompts, PromptText, Split, Task

METRICS = ("l2",)
POSITION_SEED = 49
"""Seed of the one permutation of positions that corrupted prompts have."""


def build_tracr_reverse(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The 6 orders of 1, 2, 3 after BOS; corrupted: another order, and positions permuted.

    `variant="published"` leaves positions alone, as the published runs did. Validation and test are alike.
    """
    ids = {name: index for index, name in enumerate(TRACR_REVERSE_TOKENS)}
    _require_tokens(model, TRACR_REVERSE_TOKENS, "tracr-reverse")
    rows = [[ids["BOS"], *(ids[letter] for letter in order)] for order in itertools.permutations("123")]
    clean = torch.tensor(rows[:examples])
    corrupt = clean[_derangement(clean, seed)]
    scored = torch.ones_like(clean, dtype=torch.bool)
    scored[:, 0] = False
    prompts = _prompts(clean, corrupt, scored, permute_positions=variant != "published")
    return _task("tracr-reverse", prompts, TRACR_REVERSE_TOKENS, lambda row: row[:0:-1], outputs=None)


def build_tracr_xproportion(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """Strings of 1 to 4 letters after BOS, padded; corrupted: another row, and positions permuted.

    Strings are drawn with replacement (there are only 4 of one letter), so validation and test may share some. They
    differ in length so that the token input of the key matters: BOS is always first, so with strings of one
    length it would be the same in every prompt. `variant="paper"` has the original's prompts: strings of length 4
    without BOS, whose ids come out as BOS, pad, w and x, and a permutation that may leave a row in place.
    `variant="published"` further leaves positions alone, as the published runs did.
    """
    _require_tokens(model, TRACR_XPROPORTION_TOKENS, "tracr-xproportion")
    generator = random.Random(seed)
    if variant == "default":
        rows, letters = _padded_strings(generator, 2 * examples)
    else:
        drawn = generator.sample(list(itertools.product(range(4), repeat=4)), 2 * examples)
        rows, letters = [list(row) for row in drawn], [3] * len(drawn)
    half = slice(examples, None) if split == "test" else slice(0, examples)
    clean, letters = torch.tensor(rows[half]), letters[half]
    order = _derangement(clean, seed) if variant == "default" else _permutation(len(clean), generator)
    corrupt = clean[order]
    # Positions 1 to the number of letters: the first position is BOS, or in the original's prompts simply left out.
    scored = (torch.arange(clean.shape[1])[None] >= 1) & (
        torch.arange(clean.shape[1])[None] <= torch.tensor(letters)[:, None]
    )
    prompts = _prompts(clean, corrupt, scored, permute_positions=variant != "published")

    def shares(row: list[str]) -> list[str]:
        # The share of x among all that stands after the first position, up to each scored one.
        so_far = [row[1 : place + 1] for place in range(1, len(row)) if row[place] != "pad" or variant != "default"]
        return [f"{letters.count('x') / len(letters):.2f}" for letters in so_far]

    return _task("tracr-xproportion", prompts, TRACR_XPROPORTION_TOKENS, shares, outputs=(0,))


def build_or_gate(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """One prompt of one token. There is nothing to corrupt it with, so only zero ablation makes sense."""
    _require_tokens(model, OR_GATE_TOKENS, "or-gate")
    token = torch.zeros(1, 1, dtype=torch.long)
    prompts = _prompts(token, token, torch.ones(1, 1, dtype=torch.bool), permute_positions=False)
    return _task("or-gate", prompts, OR_GATE_TOKENS, lambda row: ["1"], outputs=None, split_embedding=False)


def _padded_strings(generator: random.Random, count: int) -> tuple[list[list[int]], list[int]]:
    ids = {name: index for index, name in enumerate(TRACR_XPROPORTION_TOKENS)}
    # Every length as often as any other: of the 340 strings, three quarters would have four letters.
    chosen = [generator.choices(XPROPORTION_LETTERS, k=generator.randint(1, 4)) for _ in range(count)]
    rows = [[ids["BOS"], *(ids[letter] for letter in string)] for string in chosen]
    return [row + [ids["pad"]] * (5 - len(row)) for row in rows], [len(string) for string in chosen]


def _permutation(count: int, generator: random.Random) -> Tensor:
    order = list(range(count))
    generator.shuffle(order)
    return torch.tensor(order)


def _derangement(rows: Tensor, seed: int) -> Tensor:
    """A permutation of `rows` that puts another row in the place of each; the rows as they are if there is only one."""
    generator = random.Random(seed)
    order = list(range(len(rows)))
    for _ in range(10_000 if len(rows) > 1 else 0):
        generator.shuffle(order)
        if not (rows == rows[order]).all(dim=1).any():
            return torch.tensor(order)
    if len(rows) > 1:
        raise EdgewiseError(f"{len(rows)} prompts with seed {seed} cannot be paired with different ones; take more")
    return torch.tensor(order)


def _prompts(clean: Tensor, corrupt: Tensor, scored: Tensor, *, permute_positions: bool) -> Prompts:
    everything = torch.ones_like(clean, dtype=torch.bool)
    rows, positions = scored.nonzero(as_tuple=True)
    permuted = torch.randperm(clean.shape[1], generator=torch.Generator().manual_seed(POSITION_SEED))
    return Prompts(
        clean=clean,
        corrupt=corrupt,
        mask=everything,
        corrupt_mask=everything,
        scored_rows=rows,
        scored_positions=positions,
        corrupt_positions=permuted[None] if permute_positions else None,
    )


def _task(
    name: str,
    prompts: Prompts,
    tokens: tuple[str, ...],
    answers: Callable[[list[str]], list[str]],
    *,
    outputs: tuple[int, ...] | None,
    split_embedding: bool = True,
) -> Task:
    """The task; `answers` says in words what should come out at a row's scored places."""

    def words(row: Tensor) -> list[str]:
        return [tokens[index] for index in row.tolist()]

    return Task(
        name=name,
        prompts=prompts,
        text=tuple(
            PromptText(" ".join(words(clean)), " ".join(words(other)), tuple(answers(words(clean))))
            for clean, other in zip(prompts.clean, prompts.corrupt, strict=True)
        ),
        metric="l2",
        metrics=METRICS,
        split_embedding=split_embedding,
        outputs=outputs,
    )


def _require_tokens(model: Decoder, tokens: tuple[str, ...], task: str) -> None:
    if model.config.architecture != "transformer-lens":
        raise EdgewiseError(f"task {task!r} is made of the tokens of its own model and does not run on {model.name!r}")
    vocabulary = model.config.n_tokens
    if vocabulary != len(tokens):
        raise EdgewiseError(
            f"task {task!r} needs a model with the {len(tokens)} tokens {', '.join(tokens)}; "
            f"{model.name!r} has {vocabulary}"
        )
