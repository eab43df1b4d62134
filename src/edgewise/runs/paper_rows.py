"""What each sweep of the ACDC paper takes (Tables 2 and 3, figures 4 and 5, reset networks), and those beside them.

Every row stands for one task, ablation and metric. tracr's programs are run in two readings: `as published`, with the
data, scores and roundings that the published points came from, flaws included, and `put right`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgewise.discovery import RANDOM, Order
from edgewise.discovery.methods.subnetwork_probing import PAPER_LAMBDAS
from edgewise.runs.published import ABSOLUTE, AREAS, INDUCTION, METHODS_IN_PAPER, RESET, TABLES, TASK_METRICS
from edgewise.runs.sweep import PAPER_THRESHOLDS, SweepPlan, grid
from edgewise.tasks import KNOWN_CIRCUITS

PUBLISHED, RIGHT = "as published", "put right"

TASK_LAMBDAS, TRACR_LAMBDAS = grid(-4, 2, 21), grid(-3, 0, 11)
_LAMBDAS = tuple(map(float, PAPER_LAMBDAS))
RESET_SEEDS = {
    "ioi": 1504304416,
    "tracr-reverse": 1666927681,
    "tracr-xproportion": 913070797,
    "induction": 2016630123,
    "docstring": 814220622,
    "greater-than": 1028419464,
}
"""Seeds of the paper's reset networks."""


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's tables, or one of its task's curves where the true circuit is not known.

    Attributes:
        table: what it belongs to.
        reading: `as published` or `put right` where they differ, else empty.
        model, variant, examples: what is loaded.
        fold: fold the biases of norms and values, as the paper's code does, so that zero ablation means the same.
        permuted: the seed of the reset network to search in.
        offline: the model comes with edgewise.
        thresholds, lambdas, steps: the sweeps of ACDC and SP.
        flawed: HISP and SP with the flaws of the paper's code (`variant="published"`).
        order, absolute: ACDC's.
        only: the methods of the paper that are in it.
        cannot: why the row cannot be run, whatever is at hand.
    """

    task: str
    ablation: str
    metric: str
    model: str
    thresholds: tuple[float, ...]
    lambdas: tuple[float, ...]
    table: str = TABLES
    reading: str = ""
    variant: str = "default"
    examples: int | None = None
    fold: bool = False
    permuted: int | None = None
    offline: bool = False
    steps: int = 10_000
    flawed: bool = True
    order: Order = Order()  # noqa: RUF009 - frozen
    absolute: bool = False
    only: tuple[str, ...] = METHODS_IN_PAPER
    cannot: str = ""

    @property
    def key(self) -> str:
        """The row's folder."""
        changed = [
            *(["absolute"] if self.absolute else []),
            *(["reset"] if self.permuted is not None else []),
            *(["heads-normal"] if self.table == INDUCTION and self.order.heads == "normal" else []),
        ]
        return "-".join([self.task, self.ablation, self.metric, *self.reading.split(), *changed])

    @property
    def seconds(self) -> float:
        """What it takes, roughly: only the ratio between rows matters."""
        return 0.003 * self.steps if self.offline else 36_000.0

    def published(self, method: str, counted: str) -> float | None:
        """The paper's area, if it has one."""
        return AREAS.get(self.table, {}).get((self.ablation, self.task, self.metric, method, counted))

    @property
    def has_areas(self) -> bool:
        """Whether the paper has areas of it, against the task's known circuit."""
        return any(self.published(method, "edges") is not None for method in METHODS_IN_PAPER)

    def plans(self, methods: Sequence[str]) -> list[SweepPlan]:
        """The row's sweeps."""
        variant = {"variant": "published" if self.flawed else "default"}
        every = {
            "acdc": SweepPlan("acdc", self.thresholds, order=self.order, absolute=self.absolute),
            "head-importance": SweepPlan("head-importance", options=variant, by_unit=True),
            "subnetwork-probing": SweepPlan("subnetwork-probing", self.lambdas, {**variant, "steps": self.steps}),
        }
        found = [every[method] for method in self.only if method in methods]
        if self.reading == RIGHT:  # methods that the paper had not, where the circuit is known and the model small
            n_edges = KNOWN_CIRCUITS[self.task].graph.n_edges
            sizes = tuple(dict.fromkeys(float(round(size)) for size in grid(0, math.log10(n_edges), 24)))
            found += [SweepPlan(method, sizes) for method in methods if method not in METHODS_IN_PAPER]
        return found


def _tracr() -> Iterator[PaperRow]:
    thresholds = grid(-5, -1, 21)
    for task in ("tracr-xproportion", "tracr-reverse"):
        compiled = "tracr-xproportion-compiled" if task == "tracr-xproportion" else task
        for ablation in ("resample", "zero"):
            own: dict[str, Any] = dict(task=task, ablation=ablation, metric="l2", offline=True)
            own.update(thresholds=thresholds, lambdas=TRACR_LAMBDAS)
            yield PaperRow(**own, reading=PUBLISHED, model=compiled, variant="published")
            yield PaperRow(**own, reading=RIGHT, model=task, steps=3000, flawed=False)


def _language() -> Iterator[PaperRow]:
    greater_than = (*grid(-6, -4, 11), *PAPER_THRESHOLDS)
    thresholds = {
        ("ioi", "kl_div"): grid(-6, 0, 31),
        ("greater-than", "kl_div"): greater_than,
        ("greater-than", "prob_diff"): grid(-3, -1, 21),
        ("docstring", "kl_div"): tuple(sorted({*PAPER_THRESHOLDS, *grid(-2, 0.5, 21)})),
    }
    models = {"ioi": "gpt2", "greater-than": "gpt2", "docstring": "attn-only-4l"}
    for task, model in models.items():
        for metric in ("kl_div", TASK_METRICS[task]):
            lambdas = _LAMBDAS if metric == "kl_div" or task == "docstring" else TASK_LAMBDAS
            for ablation in ("resample", "zero"):
                steps = thresholds.get((task, metric), PAPER_THRESHOLDS)
                yield PaperRow(task, ablation, metric, model, steps, lambdas, fold=True)


def _induction() -> Iterator[PaperRow]:
    """No known circuit: edges against the metric. Heads went from low to high here; the other order is beside it."""
    own: dict[str, Any] = dict(task="induction", model="redwood_attn_2l", variant="paper", table=INDUCTION)
    own.update(thresholds=PAPER_THRESHOLDS, lambdas=_LAMBDAS)
    for metric in ("kl_div", "nll"):
        for ablation in ("resample", "zero"):
            yield PaperRow(**own, ablation=ablation, metric=metric, order=Order(heads="reverse"))
    yield PaperRow(**own, ablation="resample", metric="kl_div", only=("acdc",))


def _reset(rows: Sequence[PaperRow]) -> Iterator[PaperRow]:
    """The same in networks whose heads and neurons are shuffled; the sweeps were shorter there."""
    coarse = tuple(sorted({*grid(-2, 1, 21), *grid(-4, 0, 5)}))
    thresholds = {
        ("ioi", "kl_div"): coarse,
        ("greater-than", "kl_div"): coarse,
        ("greater-than", "prob_diff"): grid(-3, -1, 5),
        ("docstring", "kl_div"): PAPER_THRESHOLDS,
    }
    lambdas = {
        ("ioi", "kl_div"): grid(-2, 1.5, 5),
        ("greater-than", "kl_div"): grid(-2, 1.5, 5),
        ("ioi", "logit_diff"): grid(-4, 2, 5),
        ("greater-than", "prob_diff"): grid(-4, 2, 5),
        ("docstring", "logit_diff_max"): TASK_LAMBDAS,
    }
    for row in rows:
        if row.reading == RIGHT or row.only != METHODS_IN_PAPER:
            continue
        where = row.task, row.metric
        nothing = "the program has one head and one neuron in every layer, so nothing can be shuffled"
        yield replace(
            row,
            table=RESET,
            permuted=RESET_SEEDS[row.task],
            thresholds=thresholds.get(where, row.thresholds),
            lambdas=lambdas.get(where, row.lambdas),
            cannot=nothing if row.task == "tracr-xproportion" else "",
        )


_PRINTED = (*_language(), *_induction(), *_tracr())
_ABSOLUTE = PaperRow(
    *("ioi", "resample", "logit_diff", "gpt2", PAPER_THRESHOLDS, (), ABSOLUTE), fold=True, absolute=True, only=("acdc",)
)
ROWS: tuple[PaperRow, ...] = (*_PRINTED, _ABSOLUTE, *_reset(_PRINTED))


@dataclass(frozen=True)
class OwnRow:
    """A task on a model in which nobody knows its circuit: one of edgewise's own, or one that a user gives.

    Attributes:
        model: a name or a path.
        examples: prompt pairs; by default as the task suggests.
        large: the model takes seconds a circuit, so only a few are made.
        folder: where its series are kept.
        seconds: what it takes, roughly.
    """

    task: str
    model: str
    folder: str
    examples: int | None = None
    large: bool = False
    seconds: float = 600.0

    @property
    def key(self) -> str:
        """The row's folder: the task, and of a user's model its name."""
        return f"{self.task}-{Path(self.model).name}" if self.large else self.task

    def plans(self, methods: Sequence[str], n_edges: int) -> list[SweepPlan]:
        """How methods are swept on a graph of so many edges; random circuits for comparison."""
        shares = LARGE_SIZES if self.large else SIZES
        sizes = tuple(float(size) for size in dict.fromkeys(max(2, round(share * n_edges)) for share in shares))
        plans = []
        for method in (*methods, RANDOM):
            if method == "acdc":
                plans.append(SweepPlan("acdc", LARGE_THRESHOLDS if self.large else PAPER_THRESHOLDS))
            elif method == "subnetwork-probing":
                options = {"steps": SHIPPED_STEPS, "learning_rate": SHIPPED_RATE}
                plans.append(SweepPlan(method, SHIPPED_LAMBDAS, options))
            elif method == "head-importance" and not self.large:
                plans.append(SweepPlan(method, by_unit=True))
            else:
                plans.append(SweepPlan(method, sizes))
        return plans


SHIPPED = {"ioi": 110, "greater-than": 27, "docstring": 40, "induction": 30, "gender-pronoun": 25}
"""Tasks with a small trained model of edgewise's own, on which nobody knows the true circuit, and rough seconds."""
SHIPPED_STEPS, SHIPPED_RATE, SHIPPED_LAMBDAS = 400, 0.01, (0.01, 0.1, 1.0, 10.0)
SIZES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Sizes of circuits, as shares of the graph's edges, that methods which score edges are cut at."""

LARGE_METHODS = ("acdc", "head-importance", "edge-attribution", "edge-attribution-ig", "clean-corrupted")
LARGE_THRESHOLDS = (0.3, 0.1)
LARGE_SIZES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
LARGE_EXAMPLES = 8
"""What is swept on a model that a user gives, which may take a second for a circuit."""
