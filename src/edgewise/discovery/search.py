"""ACDC: Automatic Circuit DisCovery (Conmy et al., NeurIPS 2023, algorithm 1).

Walk from the logits back to the embedding. At each input, try its edges one after another: remove the edge, and if
the metric rises by less than the threshold, leave it out for good. Every test compares with the graph as pruned so
far. What the paper leaves open is as in its code:

* the comparison is strict and signed: an edge whose removal lowers the metric always goes;
* within a layer the MLP comes first, then the heads' port edges (v, k, q), then their v, k and q inputs, heads from
  high to low; parents are tried from late to early, heads from high to low, the embedding last;
* a node that nothing present reads any more is dead: its edges go without a test, which changes no metric.

The search asks an engine what the metric is without some edges into one input, and tells it which are gone; what to
remove is decided here and in guess.py. `IncrementalEngine` (patching/incremental.py) answers by recomputing what the
edges can change; `PlainEngine`, the judge, with one whole circuit run per edge. Both give the same decisions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewise.discovery.guess import decide
from edgewise.discovery.order import Order, Visit, visits
from edgewise.discovery.time_left import ToCome
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, Decision, Input
from edgewise.graph.names import Edge, PortEdge
from edgewise.patching import Engine, Experiment, IncrementalEngine, OutOfMemoryError, PlainEngine

RECKON_EVERY = 20
"""Tests after which it is worked out anew what is left of a search."""


@dataclass(frozen=True)
class Progress:
    """How far a search has got: edges decided of all, kept so far, tests made, and the metric now.

    `attempt` counts the thresholds tried when a circuit of a wanted size is searched; everything else is of this one.
    `layers` says of the edges into each layer, and last of those into the logits, how many were kept, how many dropped
    and how many are to come; it is empty for methods that take no edge by itself. `to_come` says of the tests how many
    are certain to come, how many are likely to, and by how much the live nodes, which a test runs through, multiply.
    """

    decided: int
    edges: int
    kept: int
    tests: int
    metric: float
    at: str
    threshold: float
    attempt: int = 1
    layers: tuple[tuple[int, int, int], ...] = ()
    to_come: tuple[float, float, float] = (0.0, 0.0, 1.0)


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Discovery:
    """What a search found.

    Attributes:
        circuit: the edges kept; scores are their effects when tested, 0 for edges that fell without a test.
        trace: every tested edge in order.
        metric, metric_full, metric_ablated: of the circuit, the whole model, and no edge at all.
        threshold: the one that gave this circuit.
        seconds: wall time of the search.
        tests: edges tested, over all thresholds tried.
        tried: where a size was wanted, every threshold tried to its end and the size of its circuit.
    """

    circuit: Circuit
    trace: tuple[Decision, ...]
    metric: float
    metric_full: float
    metric_ablated: float
    threshold: float
    seconds: float
    tests: int
    tried: tuple[tuple[float, int], ...] = field(default=())


EngineFactory = Callable[[Experiment, int | None], Engine]
"""Makes an engine for an experiment that may use so many bytes, or None."""

ENGINES: dict[str, EngineFactory] = {
    "incremental": IncrementalEngine,
    "plain": PlainEngine,
}
"""Engines by name."""

DEFAULT_ENGINE = "incremental"


class Interrupted(KeyboardInterrupt):
    """A search was stopped before its end, by Ctrl-C or because it may use no more memory.

    Attributes:
        discovery: what it decided until then; every edge it had not come to is still in the circuit. Where a size was
            wanted and a search before it had found a circuit that small: the largest of those.
        progress: how far it got.
        whole: whether `discovery` is such a search, which came to its end.
    """

    def __init__(self, discovery: Discovery, progress: Progress, *, whole: bool = False) -> None:
        super().__init__(f"stopped with {progress.decided:,} of {progress.edges:,} edges decided")
        self.discovery, self.progress, self.whole = discovery, progress, whole


def acdc(
    experiment: Experiment,
    threshold: float,
    *,
    order: Order | None = None,
    absolute: bool = False,
    engine: str | EngineFactory = DEFAULT_ENGINE,
    max_memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> Discovery:
    """Find a circuit with ACDC.

    Args:
        threshold: an edge stays if the metric rises by at least this much without it.
        order: in which parents are tried; by default late to early, heads from high to low.
        absolute: compare the size of the change with the threshold, not the signed change.
        engine: `incremental`, `plain` (one whole circuit run per tested edge), or what makes an engine of one's own.
        max_memory: bytes that the incremental engine may use beyond the model's weights (see `plan_memory`).
        progress: called after every tested edge and every input.

    Raises:
        EdgewiseError: the threshold is not a number, the engine is unknown, the search does not fit into
            `max_memory`, or the metric of some circuit is not a finite number; the message names the edge whose removal
            made it so.
        Interrupted: Ctrl-C (`KeyboardInterrupt`), or no memory left half-way; it holds what was decided.
    """
    check_options(threshold=threshold, engine=engine)
    started = time.perf_counter()
    metric_ablated = _finite(experiment.ablated(), experiment, "with every edge ablated")
    factory = ENGINES[engine] if isinstance(engine, str) else engine
    search = _Search(experiment, threshold, order or Order(), absolute, factory(experiment, max_memory), progress)
    metric_full = _finite(search.metric, experiment, "of the whole model")

    def found() -> Discovery:
        return Discovery(
            circuit=search.circuit(),
            trace=tuple(search.trace),
            metric=search.metric,
            metric_full=metric_full,
            metric_ablated=metric_ablated,
            threshold=threshold,
            seconds=time.perf_counter() - started,
            tests=len(search.trace),
        )

    try:
        search.run()
    except (KeyboardInterrupt, SystemExit, OutOfMemoryError) as cause:
        search.settle()
        raise Interrupted(found(), search.progress_at(search.at)) from cause
    return found()


def check_options(
    *, threshold: float | None = None, edges: int | None = None, engine: str | EngineFactory = DEFAULT_ENGINE
) -> None:
    """Refuse what no search could be run with, before anything is loaded or computed.

    Raises:
        EdgewiseError: a threshold that is not a finite number, a size below 1, or an unknown engine.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise EdgewiseError(f"the threshold should be a finite number, not {threshold}")
    if edges is not None and edges < 1:
        raise EdgewiseError(f"--edges should be at least 1, not {edges}")
    if isinstance(engine, str) and engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)


def _finite(value: float, experiment: Experiment, where: str) -> float:
    if math.isfinite(value):
        return value
    raise EdgewiseError(f"metric {experiment.metric.name!r} came out as {value} {where}, so nothing can be compared")


def removable(before: float, after: float, threshold: float, absolute: bool) -> bool:
    """ACDC's rule. A metric that is not a number removes nothing; the search stops there and says so."""
    return (abs(after - before) if absolute else after - before) < threshold


class _Search:
    """The walk over one graph, with what is still present of it."""

    def __init__(
        self,
        experiment: Experiment,
        threshold: float,
        order: Order,
        absolute: bool,
        engine: Engine,
        progress: ProgressCallback | None,
    ) -> None:
        self.experiment, self.graph, self.engine = experiment, experiment.graph, engine
        self.threshold, self.absolute, self.progress = threshold, absolute, progress
        self.parents = order.parents(self.graph)
        self.edges = self.graph.edges.copy()
        self.ports = self.graph.port_edges.copy()
        self.scores = np.zeros(self.edges.shape)
        self.port_scores = np.zeros(self.ports.shape)
        self.trace: list[Decision] = []
        (self.metric,) = engine.measure(len(self.graph.inputs) - 1, [()])
        self.decided = 0
        self.kept = 0
        # Of each layer, and last of the logits: edges kept, dropped and to come.
        self.layers = [[0, 0, 0] for _ in range(self.graph.n_layers + 1)]
        existing = self.graph.edges.sum(axis=0) + self.graph.port_edges
        for place, count in zip(self.graph.inputs, existing.tolist(), strict=True):
            self.layers[place.layer][2] += count
        self.at = "logits"
        self.coming, self.to_come, self.reckoned = ToCome(self.graph), (0.0, 0.0, 1.0), -RECKON_EVERY

    def circuit(self) -> Circuit:
        return Circuit(self.graph, self.edges, self.ports, self.scores, self.port_scores)

    def removable(self, before: float, after: float) -> bool:
        return removable(before, after, self.threshold, self.absolute)

    def run(self) -> None:
        for visit in visits(self.graph):
            if visit.kind == "node":
                continue
            place = self.graph.inputs[visit.column]
            if not self._alive(visit, place):
                self._drop(visit)
            elif visit.kind == "port":
                self._test(visit, [None])
            else:
                senders = self.graph.n_senders(place)
                self._test(visit, [row for row in self.parents if row < senders])
            self._report(visit)

    def _alive(self, visit: Visit, place: Input) -> bool:
        """Whether anything present still depends on this port edge, or on what flows into this input."""
        if visit.kind == "input" and self.graph.port_edges[visit.column]:
            return bool(self.ports[visit.column])
        return place.kind == "logits" or bool(self.edges[list(self.graph.nodes_moved_by(place))].any())

    def _drop(self, visit: Visit) -> None:
        if visit.kind == "port":
            gone = 1
            self.ports[visit.column] = False
        else:
            rows = tuple(self.edges[:, visit.column].nonzero()[0].tolist())
            gone = len(rows)
            self.edges[:, visit.column] = False
            self.engine.commit(visit.column, rows)
        self.decided += gone
        self._count(self.graph.inputs[visit.column], kept=0, dropped=gone)

    def _count(self, place: Input, kept: int, dropped: int) -> None:
        layer = self.layers[place.layer]  # the logits' is -1, the last
        layer[0] += kept
        layer[1] += dropped
        layer[2] -= kept + dropped

    def _test(self, visit: Visit, rows: Sequence[int | None]) -> None:
        place = self.graph.inputs[visit.column]
        for row, before, after, gone in decide(self.engine, visit.column, rows, self.metric, self.removable):
            name = PortEdge(place).name if row is None else Edge(self.graph.sources[row], place).name
            _finite(after, self.experiment, f"after removing {name}")
            self.trace.append(Decision(name, before, after, kept=not gone))
            self._write(row, visit.column)
            self.coming.test(visit.column, row, not gone)
            self.decided += 1
            self.kept += not gone
            self._count(place, kept=int(not gone), dropped=int(gone))
            self._report(visit)

    def _write(self, row: int | None, column: int) -> None:
        """Do what the trace's last line says."""
        decision = self.trace[-1]
        self.metric = decision.before if decision.kept else decision.after
        if row is None:
            self.ports[column], self.port_scores[column] = decision.kept, decision.effect
        else:
            self.edges[row, column], self.scores[row, column] = decision.kept, decision.effect

    def settle(self) -> None:
        """After an interruption in the middle of a step: what the trace says, and nothing beyond it."""
        if self.trace:
            self._write(*self.graph.locate(self.trace[-1].edge))
        self.kept = sum(decision.kept for decision in self.trace)
        present = int(self.edges.sum() + self.ports.sum())
        self.decided = self.graph.n_edges - present + self.kept

    def progress_at(self, name: str) -> Progress:
        """How far the search has got, at the input or node called `name`."""
        if len(self.trace) - self.reckoned >= RECKON_EVERY:
            self.to_come, self.reckoned = self.coming.expected(), len(self.trace)
        made = len(self.trace) - self.reckoned
        certain, likely, growth = self.to_come
        return Progress(
            self.decided,
            self.graph.n_edges,
            self.kept,
            len(self.trace),
            self.metric,
            name,
            self.threshold,
            layers=tuple((kept, dropped, left) for kept, dropped, left in self.layers),
            to_come=(max(0.0, certain - made), max(0.0, likely - made), growth),
        )

    def _report(self, visit: Visit) -> None:
        self.at = visit.name
        if self.progress is not None:
            self.progress(self.progress_at(self.at))
