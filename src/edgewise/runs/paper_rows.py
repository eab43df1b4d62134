"""What each row of the ACDC paper's Tables 2 and 3 takes, and what is swept on edgewise's own models beside them.

Every row stands for one task, ablation and metric. tracr's programs are run in two readings: `as published`, with the
data, scores and roundings that the published points came from, flaws included, and `put right`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgewise.discovery import Order
from edgewise.discovery.methods.subnetwork_probing import PAPER_LAMBDAS
from edgewise.errors import unknown
from edgewise.runs.published import METHODS_IN_PAPER, TASK_METRICS
from edgewise.runs.sweep import PAPER_THRESHOLDS, SweepPlan, grid
from edgewise.tasks import KNOWN_CIRCUITS

PUBLISHED, RIGHT = "as published", "put right"

TASK_LAMBDAS, TRACR_LAMBDAS = grid(-4, 2, 21), grid(-3, 0, 11)


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's tables, or one of its task's curves where the true circuit is not known.

    Attributes:
        reading: `as published` or `put right` where they differ, else empty.
        model, variant, examples: what is loaded.
        fold: fold value biases, as the paper's code does, so that zero ablation means the same.
        offline: the model comes with edgewise.
        thresholds, lambdas, steps: the sweeps of ACDC and SP.
        flawed: HISP and SP with the flaws of the paper's code (`variant="published"`).
    """

    task: str
    ablation: str
    metric: str
    model: str
    thresholds: tuple[float, ...]
    lambdas: tuple[float, ...]
    reading: str = ""
    variant: str = "default"
    examples: int | None = None
    fold: bool = False
    offline: bool = False
    steps: int = 10_000
    flawed: bool = True
    order: Order = Order()  # noqa: RUF009 - frozen

    @property
    def key(self) -> str:
        """The row's folder."""
        return "-".join([self.task, self.ablation, self.metric, *self.reading.split()])

    @property
    def seconds(self) -> float:
        """What it takes, roughly: only the ratio between rows matters."""
        return 0.003 * self.steps if self.offline else 36_000.0

    def plans(self, methods: Sequence[str]) -> list[SweepPlan]:
        """The row's sweeps."""
        variant = {"variant": "published" if self.flawed else "default"}
        every = {
            "acdc": SweepPlan("acdc", self.thresholds, order=self.order),
            "head-importance": SweepPlan("head-importance", options=variant, by_unit=True),
            "subnetwork-probing": SweepPlan("subnetwork-probing", self.lambdas, {**variant, "steps": self.steps}),
        }
        found = [every[method] for method in METHODS_IN_PAPER if method in methods]
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
            lambdas = tuple(map(float, PAPER_LAMBDAS)) if metric == "kl_div" or task == "docstring" else TASK_LAMBDAS
            for ablation in ("resample", "zero"):
                steps = thresholds.get((task, metric), PAPER_THRESHOLDS)
                yield PaperRow(task, ablation, metric, model, steps, lambdas, fold=True)
    for metric in ("kl_div", "nll"):  # no known circuit: edges against the metric (the paper's figures 4 and 6)
        for ablation in ("resample", "zero"):
            yield PaperRow(
                "induction",
                ablation,
                metric,
                "redwood_attn_2l",
                PAPER_THRESHOLDS,
                tuple(map(float, PAPER_LAMBDAS)),
                variant="paper",
                order=Order(heads="reverse"),
            )


ROWS: tuple[PaperRow, ...] = (*_language(), *_tracr())
SHIPPED = ("ioi", "greater-than", "docstring", "induction", "gender-pronoun")
"""Tasks with a small trained model of edgewise's own, on which nobody knows the true circuit."""

SECONDS = {"ioi": 110, "greater-than": 27, "docstring": 40, "induction": 30, "gender-pronoun": 25}
"""What each of them takes, roughly."""

SHIPPED_STEPS, SHIPPED_RATE, SHIPPED_LAMBDAS = 400, 0.01, (0.01, 0.1, 1.0, 10.0)
SIZES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Sizes of circuits, as shares of the graph's edges, that methods which score edges are cut at."""


def rows_for(tasks: Sequence[str] | None, offline: bool) -> list[PaperRow]:
    """The rows to run.

    Raises:
        EdgewiseError: a task that is not in the paper's evaluation.
    """
    known = list(dict.fromkeys([*(row.task for row in ROWS), *SHIPPED]))
    for task in tasks or ():
        if task not in known:
            raise unknown("task of the paper", task, known)
    return [row for row in ROWS if (tasks is None or row.task in tasks) and (row.offline or not offline)]


def shipped_plans(methods: Sequence[str], n_edges: int) -> list[SweepPlan]:
    """How methods are swept on a model of edgewise's own with so many edges; random circuits for comparison."""
    sizes = tuple(float(size) for size in dict.fromkeys(max(2, round(share * n_edges)) for share in SIZES))
    plans = []
    for method in (*methods, "random"):
        if method == "acdc":
            plans.append(SweepPlan("acdc", PAPER_THRESHOLDS))
        elif method == "subnetwork-probing":
            options = {"steps": SHIPPED_STEPS, "learning_rate": SHIPPED_RATE}
            plans.append(SweepPlan(method, SHIPPED_LAMBDAS, options))
        elif method == "head-importance":
            plans.append(SweepPlan(method, by_unit=True))
        else:
            plans.append(SweepPlan(method, sizes))
    return plans
