"""A task: what behaviour is looked for, as prompts in pairs, the positions that count and what should come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from edgewise.attached import attach
from edgewise.errors import EdgewiseError, quoted
from edgewise.graph import Circuit, Graph
from edgewise.graph.groups import GivenGroups, Groups, read_groups
from edgewise.tasks.known import GivenCircuit, Truth

Split = Literal["validation", "test"]
NO_TOKEN = -1
"""Fills rows of `answers` and `wrong` that are shorter than the longest."""


@dataclass(frozen=True)
class Prompts:
    """Token ids of clean and corrupted prompts, paired row by row and padded on the right.

    Attributes:
        clean, corrupt: `[rows, pos]`.
        mask, corrupt_mask: `[rows, pos]`, True where a token is real.
        corrupt_positions: `[1, pos]` positions of the corrupted tokens where they are not 0, 1, 2, …, or None.
        alignment: `[rows, pos]`, for each position of a clean prompt the one of its corrupted prompt that stands for
            it; None where that is the same one.
        scored_rows, scored_positions: `[scored]`: the places whose logits count, row by row.
        answers: `[scored, k]` ids of right answers, filled up with NO_TOKEN; None where the task has none.
        wrong: `[scored, k]` ids of wrong answers, likewise.
        sequences: `[scored]` the pair that each place belongs to, where answers are sequences: a pair's right answer
            has a row, each place of which has the next of its tokens for the answer, and its wrong answer another.
        spans: `[rows, pos]` the number of the span that each position of a clean prompt belongs to, -1 at padding; None
            where positions are not told apart.
    """

    clean: Tensor
    corrupt: Tensor
    mask: Tensor
    corrupt_mask: Tensor
    scored_rows: Tensor
    scored_positions: Tensor
    answers: Tensor | None = None
    wrong: Tensor | None = None
    corrupt_positions: Tensor | None = None
    alignment: Tensor | None = None
    sequences: Tensor | None = None
    spans: Tensor | None = None

    def __len__(self) -> int:
        return self.clean.shape[0]

    @property
    def paired(self) -> bool:
        """Whether every position of a clean prompt has one of its corrupted prompt that stands for it."""
        return self.alignment is not None or bool(torch.equal(self.mask, self.corrupt_mask))

    def to(self, device: torch.device) -> Prompts:
        """The same on another device."""
        tensors = {key: value.to(device) for key, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def take(self, rows: Tensor) -> Prompts:
        """Some rows in a new order, any of them as often as it is named, with the places scored in each.

        Args:
            rows: `[chosen]` row numbers.
        """
        rows = rows.to(self.scored_rows.device)
        places = [(self.scored_rows == row).nonzero()[:, 0] for row in rows]
        chosen = torch.cat(places)
        counts = torch.tensor([len(one) for one in places], device=rows.device)
        return self._of(rows, chosen, torch.arange(len(rows), device=rows.device).repeat_interleave(counts))

    def rows(self, first: int, stop: int) -> Prompts:
        """Rows `first` to `stop` with the places scored in them."""
        inside = (self.scored_rows >= first) & (self.scored_rows < stop)
        return self._of(slice(first, stop), inside, self.scored_rows[inside] - first)

    def _of(self, rows: Tensor | slice, places: Tensor, scored_rows: Tensor) -> Prompts:
        """Some rows and some scored places, whose rows are now `scored_rows`."""
        return Prompts(
            clean=self.clean[rows],
            corrupt=self.corrupt[rows],
            mask=self.mask[rows],
            corrupt_mask=self.corrupt_mask[rows],
            scored_rows=scored_rows,
            scored_positions=self.scored_positions[places],
            answers=None if self.answers is None else self.answers[places],
            wrong=None if self.wrong is None else self.wrong[places],
            corrupt_positions=self.corrupt_positions,
            alignment=None if self.alignment is None else self.alignment[rows],
            sequences=None if self.sequences is None else self.sequences[places],
            spans=None if self.spans is None else self.spans[rows],
        )


@dataclass(frozen=True)
class PromptText:
    """One pair as a person reads it.

    `row` is what a user's file says about it, where that is more than the rest; empty where the pair before says it.
    """

    clean: str
    corrupt: str
    answers: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    row: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Task:
    """A behaviour on one model's tokens.

    Attributes:
        name: as in `ioi`, or the file's name for a user's own.
        prompts: the tokens.
        text: the same prompts as text, row by row.
        metric: the metric that is searched with unless told otherwise.
        metrics: the metrics that make sense here.
        ablation: what an absent edge carries unless told otherwise.
        threshold: ACDC's threshold unless told otherwise; None where nobody has worked one out.
        split_embedding: whether the graph tells tokens from positions.
        outputs: the columns of the logits that mean something (for `l2`); None for all.
        settings: what makes the same task again: name, examples, seed, variant, split, or file.
        n_tokens: how many tokens the model has that it was made for; None for any.
        why_no_answers: why `answers` or `wrong` are missing, for errors.
        known_circuit: the circuit that people worked out for this task in this model, or one that a user gave, or None.
        groups: a user's own groups of nodes, by name, which stand for those of the known circuit.
        left_out: what the model's tokenizer leaves of the task's words, as in "97 of 100 names are one token".
        span_names: names of the parts that its prompts have in common, from early to late, whose numbers are in
            `prompts.spans`; empty where it knows none.
    """

    name: str
    prompts: Prompts
    text: tuple[PromptText, ...]
    metric: str
    metrics: tuple[str, ...]
    ablation: str = "resample"
    threshold: float | None = None
    split_embedding: bool = False
    outputs: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_tokens: int | None = None
    why_no_answers: str = "the task has no answers"
    known_circuit: Truth | None = None
    groups: Groups = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    span_names: tuple[str, ...] = ()
    _repr_html_: ClassVar[Callable[..., str]]
    """What notebooks show: `edgewise.reports.notebook`, set where that is defined."""

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        """`<Task ioi: 32 prompt pairs of 15 tokens; metric kl_div, ablation resample>`"""
        return f"<Task {self.describe()}; metric {self.metric}, ablation {self.ablation}>"

    @property
    def named_groups(self) -> Groups:
        """The user's own groups of nodes; without any, those of the known circuit."""
        return self.groups or ({} if self.known_circuit is None else self.known_circuit.groups)

    def beside(self, graph: Graph, *, known: Circuit | Truth | None = None, groups: GivenGroups | None = None) -> Task:
        """The same task with a true circuit or groups of the user's own, where they are given.

        Args:
            graph: the one that they have to fit.
            known: instead of the circuit that people worked out.
            groups: names and nodes, or a JSON or TOML file of them.

        Raises:
            EdgewiseError: the circuit is empty or over another model's graph, or as `read_groups`.
        """
        truth, own = self.known_circuit, self.groups
        if known is not None:
            known = getattr(known, "circuit", known) if not isinstance(known, Truth) else known  # a run's
            if not isinstance(known, Circuit | Truth):
                raise EdgewiseError(
                    "a known circuit is a circuit or a run, as load_circuit and load_run read them, not "
                    f"{quoted(known)}"
                )
            truth = GivenCircuit("a circuit of one's own", known) if isinstance(known, Circuit) else known
            truth.on(graph)
        if groups is not None:
            own = read_groups(groups, graph)
        return replace(self, known_circuit=truth, groups=own)

    def of_rows(self, first: int, stop: int) -> Task:
        """The same task with rows `first` to `stop` of its prompts alone."""
        return replace(self, prompts=self.prompts.rows(first, stop), text=self.text[first:stop])

    def first(self, count: int) -> Task:
        """The same task with its first `count` pairs alone."""
        rows = sum(len(rows) for rows in self._pairs()[:count])
        return replace(
            self,
            prompts=self.prompts.rows(0, rows),
            text=self.text[:rows],
            settings={**self.settings, "examples": min(count, len(self._pairs()))},
        )

    def resampled(self, seed: int) -> Task:
        """As many pairs drawn from this task's with replacement: a bootstrap sample of its examples."""
        pairs = self._pairs()
        draws = torch.randint(len(pairs), (len(pairs),), generator=torch.Generator().manual_seed(seed))
        drawn = torch.tensor([row for pair in draws.tolist() for row in pairs[pair]])
        return replace(
            self,
            prompts=self.prompts.take(drawn),
            text=tuple(self.text[row] for row in drawn.tolist()),
            settings={**self.settings, "resampled_seed": seed},
        )

    def _pairs(self) -> list[list[int]]:
        """The rows of each pair: one, or one for each of its answers where these are sequences."""
        if self.prompts.sequences is None:
            return [[row] for row in range(len(self))]
        rows: dict[int, list[int]] = {}
        for row, pair in zip(self.prompts.scored_rows.tolist(), self.prompts.sequences.tolist(), strict=True):
            if row not in (known := rows.setdefault(pair, [])):
                known.append(row)
        return [rows[pair] for pair in sorted(rows)]

    def describe(self) -> str:
        """`ioi: 32 prompt pairs of 15 tokens (97 of 100 names are one token)`."""
        lengths = self.prompts.mask.sum(dim=1)
        low, high = int(lengths.min()), int(lengths.max())
        tokens = f"{low}" if low == high else f"{low} to {high}"
        plural = "s" if len(self) != 1 else ""
        left_out = f" ({'; '.join(self.left_out)})" if self.left_out else ""
        return f"{self.name}: {len(self)} prompt pair{plural} of {tokens} token{'s' if high != 1 else ''}{left_out}"


attach(Task, "edgewise.reports.notebook", "_repr_html_")


def pad(rows: Sequence[Sequence[int]], width: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask `[rows, width]`, padded on the right."""
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = True
    return tokens, mask


@dataclass(frozen=True)
class Placed:
    """A pair of prompts with the places scored in it.

    Attributes:
        clean, corrupt: token ids.
        places: positions of the clean prompt whose logits count.
        answers, wrong: ids of right and wrong answers at each of them.
        alignment: for each position of the clean prompt the one of the corrupted prompt that stands for it; None where
            both are as long as each other.
        pair: the number of the pair whose answer this is, where answers are sequences.
    """

    clean: Sequence[int]
    corrupt: Sequence[int]
    places: Sequence[int]
    answers: Sequence[Sequence[int]] | None = None
    wrong: Sequence[Sequence[int]] | None = None
    alignment: Sequence[int] | None = None
    pair: int | None = None


def placed_prompts(rows: Sequence[Placed]) -> Prompts:
    """Prompts of rows with the places scored in each; the task has answers, or wrong ones, if all rows have.

    Raises:
        EdgewiseError: there are no rows, or a prompt has no token.
    """
    if not rows:
        raise EdgewiseError("the task has no prompts")
    for number, row in enumerate(rows, start=1):
        for side, ids in (("clean", row.clean), ("corrupted", row.corrupt)):
            if not ids:
                raise EdgewiseError(f"the {side} prompt of pair {number} has no tokens")
    width = max(len(ids) for row in rows for ids in (row.clean, row.corrupt))
    clean, mask = pad([row.clean for row in rows], width)
    corrupt, corrupt_mask = pad([row.corrupt for row in rows], width)
    answers = [ids for row in rows for ids in row.answers or ()]
    wrong = [ids for row in rows for ids in row.wrong or ()]
    return Prompts(
        clean=clean,
        corrupt=corrupt,
        mask=mask,
        corrupt_mask=corrupt_mask,
        scored_rows=torch.tensor([number for number, row in enumerate(rows) for _ in row.places]),
        scored_positions=torch.tensor([place for row in rows for place in row.places]),
        answers=None if any(row.answers is None for row in rows) else _ids(answers),
        wrong=None if any(row.wrong is None for row in rows) else _ids(wrong),
        alignment=_alignment(rows, width),
        sequences=None
        if any(row.pair is None for row in rows)
        else torch.tensor([row.pair for row in rows for _ in row.places]),
    )


def _alignment(rows: Sequence[Placed], width: int) -> Tensor | None:
    if all(row.alignment is None for row in rows):
        return None
    aligned = torch.arange(width).repeat(len(rows), 1)
    for number, row in enumerate(rows):
        if row.alignment is not None:
            aligned[number, : len(row.alignment)] = torch.tensor(row.alignment)
    return aligned


def last_token_prompts(
    clean: Sequence[Sequence[int]],
    corrupt: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]] | None = None,
    wrong: Sequence[Sequence[int]] | None = None,
) -> Prompts:
    """Prompts of which only the last token of each clean one is scored.

    Args:
        clean, corrupt: token ids, row by row; rows may differ in length.
        answers, wrong: ids of right and wrong answers for each row.

    Raises:
        EdgewiseError: as `placed_prompts`.
    """
    return placed_prompts(
        [
            Placed(
                one,
                other,
                [len(one) - 1],
                None if answers is None else [answers[row]],
                None if wrong is None else [wrong[row]],
            )
            for row, (one, other) in enumerate(zip(clean, corrupt, strict=True))
        ]
    )


def _ids(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [NO_TOKEN] * (width - len(row)) for row in rows], dtype=torch.long)
