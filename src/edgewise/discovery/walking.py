"""What searches by edges (search.py), nodes and neurons or features have in common: one decision after another.

Each is a walk over columns, in passes: what is present at rows of a column is tried row after row, every decision is
taken down, and a journal gives back those of a search that was stopped. What the rows and columns are, in which order
they come and what else there is to count is the walk's own. Where no decision changes that order (node_search.py,
neuron_search.py), it is a `SettledWalk` (settled.py).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from edgewise.discovery.foresight import Foresight
from edgewise.discovery.found import Discovery, Interrupted, Progress, ProgressCallback
from edgewise.discovery.guess import decide
from edgewise.discovery.journal import Journal, not_this_search
from edgewise.discovery.rule import Rule
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Decision
from edgewise.graph.circuit import Floats
from edgewise.patching import Engine, Experiment, OutOfMemoryError


def finite(value: float, experiment: Experiment, where: str) -> float:
    """The value of a metric; an EdgewiseError that says `where` it came out as no number."""
    if math.isfinite(value):
        return value
    raise EdgewiseError(f"metric {experiment.metric.name!r} came out as {value} {where}, so nothing can be compared")


class SearchWalk(ABC):
    """A search over one graph, with what it has decided.

    Attributes:
        trace: every decision, pass after pass.
        ended: of each pass that came to its end, how many it tested and how many were left.
        past: the decisions that the journal holds of this search; they are taken over before anything is measured.
        metric: of what is present now.
        decided, kept, absent, at: of this pass, as in `Progress`; `first` is its first decision in the trace.
    """

    unit = "edges"

    def __init__(
        self,
        experiment: Experiment,
        rule: Rule,
        passes: int,
        progress: ProgressCallback | None,
        journal: Journal | None,
    ) -> None:
        self.experiment, self.graph, self.rule, self.passes = experiment, experiment.graph, rule, passes
        self.progress, self.journal = progress, journal
        self.trace: list[Decision] = []
        self.ended: list[tuple[int, int]] = []
        self.past: list[Decision] = []
        self.resumed = 0

    @property
    @abstractmethod
    def count(self) -> int:
        """How many there are in the graph of what the search decides about."""

    @abstractmethod
    def left(self) -> int:
        """How many of them are present now."""

    @abstractmethod
    def circuit(self) -> Circuit:
        """What is present now, with the effects measured."""

    @abstractmethod
    def _make_engine(self) -> Engine:
        """An engine in the state that this pass has come to."""

    @abstractmethod
    def _walk(self) -> None:
        """One pass: `_try` what is present, column after column."""

    @abstractmethod
    def _name(self, row: int | None, column: int) -> str:
        """What stands there."""

    @abstractmethod
    def _locate(self, name: str) -> tuple[int | None, int]:
        """Where it stands: a name's row and column."""

    def _hints(self) -> Floats | None:
        """Scores by row and column by which this pass foresees what stays; None if there are none."""
        return None

    def _write(self, row: int | None, column: int) -> None:
        """Do what the trace's last line says."""
        decision = self.trace[-1]
        self.metric = decision.before if decision.kept else decision.after

    def begin(self, column: int) -> None:
        """Begin the first pass. The metric comes from asking the engine about a column, if no journal has it."""
        if self.journal is not None:
            self.past = list(self.journal.search(self.rule.threshold))
        self._begin_pass()
        self.metric = self.past[0].before if self.past else self.engine.measure(column, [()])[0]

    def _begin_pass(self) -> None:
        self._engine: Engine | None = None
        self.foresight = Foresight(self.rule.threshold, self._hints())
        self.first = len(self.trace)
        self.kept = 0
        self.decided = self.absent = self.count - self.left()

    @property
    def engine(self) -> Engine:
        """The engine, in the state that this pass has come to."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def run(self) -> None:
        """Make all passes.

        Raises:
            EdgewiseError: the journal holds other decisions than those of this search, or the metric is no number.
        """
        for number in range(self.passes):
            if number:
                self._begin_pass()
            self._walk()
            self.ended.append((len(self.trace) - self.first, self.left()))
            if number and self.ended[-1][1] == self.ended[-2][1]:
                break
        if len(self.past) > len(self.trace):
            raise not_this_search(self.past[len(self.trace)].edge)

    def _try(self, rows: Sequence[int | None], column: int, at: str | None = None) -> None:
        """Try what is present at rows of a column, one after another; progress is told to be `at` there, or at each."""
        if not rows or self._taken_before(rows, column):
            return
        for row, before, after, gone in decide(
            self.engine, column, rows, self.metric, self.rule.removes, self.foresight
        ):
            name = self._name(row, column)
            finite(after, self.experiment, f"after removing {name}")
            self._take(Decision(name, before, after, kept=not gone), row, column)
            if self.journal is not None:
                self.journal.add(self.trace[-1])
            self._report(at or name)
        if self.journal is not None:
            self.journal.flush(self.progress_at(self.at))

    def _taken_before(self, rows: Sequence[int | None], column: int) -> bool:
        """Take the decisions about a column that are known, if all of them are; else none, and no more after it."""
        known = self.past[len(self.trace) : len(self.trace) + len(rows)]
        if len(known) < len(rows):
            if self.past:
                assert self.journal is not None
                self.journal.cut(len(self.trace))
                self.past = []
            return False
        for row, decision in zip(rows, known, strict=True):
            right = not self.rule.removes(decision.before, decision.after)
            if (decision.edge, decision.before, decision.kept) != (self._name(row, column), self.metric, right):
                raise not_this_search(decision.edge)
            self._take(decision, row, column)
        self.resumed = len(self.trace)
        return True

    def _take(self, decision: Decision, row: int | None, column: int) -> None:
        self.trace.append(decision)
        self._write(row, column)
        if row is not None:
            self.foresight.see(row, column, kept=decision.kept)
        self.decided += 1
        self.kept += decision.kept

    def settle(self) -> None:
        """After an interruption in the middle of a step: what the trace says, and nothing beyond it."""
        if self.trace:
            self._write(*self._locate(self.trace[-1].edge))
        self.kept = sum(decision.kept for decision in self.trace[self.first :])
        self.decided = self.count - self.left() + self.kept

    def progress_at(self, name: str) -> Progress:
        """How far the search has got, at the input or node called `name`."""
        return Progress(
            self.decided,
            self.count,
            self.kept,
            len(self.trace),
            self.metric,
            name,
            self.rule.threshold,
            passes=1 + len(self.ended),
            resumed=self.resumed,
            absent=self.absent,
            unit=self.unit,
        )

    def _report(self, at: str) -> None:
        self.at = at
        if self.progress is not None and len(self.trace) >= len(self.past):
            self.progress(self.progress_at(at))


def search(walk: SearchWalk, column: int, start: Circuit | None) -> Discovery:
    """Make a search to its end.

    Args:
        column: the one that the engine is asked about first.
        start: what the search chooses from, if that is not the whole graph.

    Raises:
        EdgewiseError: as `acdc`.
        Interrupted: as `acdc`.
    """
    started = time.perf_counter()
    experiment = walk.experiment
    metric_ablated = finite(experiment.ablated(), experiment, f"with every {walk.unit.removesuffix('s')} ablated")
    walk.begin(column)
    metric_start = finite(walk.metric, experiment, "of what the search starts from" if start else "of the whole model")
    metric_full = metric_start if start is None else finite(experiment.full(), experiment, "of the whole model")
    walk.rule.check_start(metric_start)

    def found() -> Discovery:
        return Discovery(
            circuit=walk.circuit(),
            trace=tuple(walk.trace),
            metric=walk.metric,
            metric_full=metric_full,
            metric_ablated=metric_ablated,
            threshold=walk.rule.threshold,
            seconds=time.perf_counter() - started,
            tests=len(walk.trace),
            passes=tuple(walk.ended),
            metric_start=metric_start,
        )

    try:
        walk.run()
    except (KeyboardInterrupt, SystemExit, OutOfMemoryError) as cause:
        walk.settle()
        raise Interrupted(found(), walk.progress_at(walk.at)) from cause
    return found()
