"""ACDC by nodes: the algorithm of search.py over whole components, each with all that it writes.

Walk from the last node to the first: in each layer the MLP, then its heads from high to low; the embedding comes last,
and is tried like any other. A node goes for good if the metric rises by less than the threshold when everything that it
writes is ablated, wherever it is read. Every test compares with the circuit as pruned so far, under the same rule as
edges (rule.py): strict and signed, or by size, with a budget if there is one, in as many passes as are asked for.

Every node that is present writes to the logits, so none is dead, and all nodes of a pass are tested.

The engine is asked as in the search of edges, with components in place of inputs (patching/node_engine.py): the default
runs on from where a node stands, the plain one makes a whole circuit run per node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np

from edgewise.discovery.engines import DEFAULT_ENGINE
from edgewise.discovery.found import Discovery, Interrupted, Progress, ProgressCallback
from edgewise.discovery.guess import decide
from edgewise.discovery.journal import Journal, not_this_search
from edgewise.discovery.order import Order
from edgewise.discovery.rule import Rule, check_budget
from edgewise.discovery.search import check_options, finite
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, Decision, Graph, of_nodes
from edgewise.graph.by_node import locate_node
from edgewise.graph.graph import Bools
from edgewise.patching import Engine, Experiment, OutOfMemoryError
from edgewise.patching.node_engine import NodeEngine, PlainNodeEngine, component_of
from edgewise.patching.wiring import Wiring

NodeEngineFactory = Callable[[Experiment, Bools, "int | None"], Engine]

NODE_ENGINES: dict[str, NodeEngineFactory] = {"incremental": NodeEngine, "plain": PlainNodeEngine}
"""Engines by name: what makes one for an experiment, the nodes that are present, and bytes that it may use."""


def require_whole_nodes(graph: Graph) -> None:
    """Raise an EdgewiseError if a graph has port edges, which no circuit of whole nodes is about."""
    if graph.ports:
        raise EdgewiseError("circuits of whole nodes are over a graph without port edges; make it with ports=False")


def walk_of(graph: Graph, wiring: Wiring, order: Order) -> list[tuple[int, list[int]]]:
    """Components (`EMBEDDING` for the embedding) in the order of a search, each with rows that are tried together."""
    rows = order.parents(graph)
    return [(column, list(some)) for column, some in groupby(rows, lambda row: component_of(wiring, row))]


def acdc_by_node(
    experiment: Experiment,
    threshold: float,
    *,
    order: Order | None = None,
    absolute: bool = False,
    budget: float | None = None,
    passes: int = 1,
    start: Circuit | None = None,
    engine: str = DEFAULT_ENGINE,
    max_memory: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> Discovery:
    """Find a circuit of whole nodes with ACDC; arguments as of `acdc`, `start` a circuit of whole nodes.

    A decision of the trace has the node's name where those of other searches have the edge's.

    Raises:
        EdgewiseError: as `acdc`; or the graph has port edges, or `start` is no circuit of whole nodes.
        Interrupted: as `acdc`.
    """
    check_options(threshold=threshold)
    check_budget(budget, passes)
    require_whole_nodes(experiment.graph)
    if engine not in NODE_ENGINES:
        raise unknown("engine", engine, NODE_ENGINES)
    if start is not None:
        start.require_graph(experiment.graph)
        if not start.whole_nodes:
            raise EdgewiseError("a search of nodes chooses among whole nodes, and what it was to start from has edges")
    started = time.perf_counter()
    metric_ablated = finite(experiment.ablated(), experiment, "with every node ablated")
    rule = Rule(threshold, absolute, budget)
    search = _Search(experiment, rule, order or Order(), passes, start, engine, max_memory, progress, journal)
    where = "of what the search starts from" if start else "of the whole model"
    metric_start = finite(search.metric, experiment, where)
    metric_full = metric_start if start is None else finite(experiment.full(), experiment, "of the whole model")
    rule.check_start(metric_start)

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
            passes=tuple(search.ended),
            metric_start=metric_start,
        )

    try:
        search.run()
    except (KeyboardInterrupt, SystemExit, OutOfMemoryError) as cause:
        search.settle()
        raise Interrupted(found(), search.progress_at(search.at)) from cause
    return found()


class _Search:
    """The walk over one graph's nodes, with what is still present of them."""

    def __init__(
        self,
        experiment: Experiment,
        rule: Rule,
        order: Order,
        passes: int,
        start: Circuit | None,
        engine: str,
        max_memory: int | None,
        progress: ProgressCallback | None,
        journal: Journal | None,
    ) -> None:
        self.experiment, self.graph, self.rule, self.passes = experiment, experiment.graph, rule, passes
        self.progress, self.journal = progress, journal
        self.walk = walk_of(self.graph, Wiring.of(experiment.decoder, self.graph), order)
        self._make = lambda present: NODE_ENGINES[engine](experiment, present, max_memory)
        count = len(self.graph.sources)
        self.present = np.ones(count, dtype=bool) if start is None else start.rows.copy()
        self.scores = np.zeros(count)
        self.trace: list[Decision] = []
        self.ended: list[tuple[int, int]] = []  # passes
        self.past = [] if journal is None else list(journal.search(rule.threshold))
        self.resumed = 0
        self._begin_pass()
        self.metric = self.past[0].before if self.past else self.engine.measure(self.walk[0][0], [()])[0]

    def _begin_pass(self) -> None:
        self._engine: Engine | None = None
        self.first = len(self.trace)
        self.kept = 0
        self.absent = self.decided = int((~self.present).sum())
        self.at = self.graph.sources[self.walk[0][1][0]].name

    @property
    def engine(self) -> Engine:
        """The engine, in the state that this pass has come to."""
        if self._engine is None:
            self._engine = self._make(self.present)
        return self._engine

    def circuit(self) -> Circuit:
        return of_nodes(self.graph, self.present, self.scores)

    def run(self) -> None:
        for number in range(self.passes):
            if number:
                self._begin_pass()
            for column, rows in self.walk:
                self._test(column, [row for row in rows if self.present[row]])
            self.ended.append((len(self.trace) - self.first, int(self.present.sum())))
            if number and self.ended[-1][1] == self.ended[-2][1]:
                break
        if len(self.past) > len(self.trace):
            raise not_this_search(self.past[len(self.trace)].edge)

    def _test(self, column: int, rows: Sequence[int]) -> None:
        if not rows or self._taken_before(rows):
            return
        for row, before, after, gone in self._answers(column, rows):
            name = self.graph.sources[row].name
            finite(after, self.experiment, f"after removing {name}")
            self._take(Decision(name, before, after, kept=not gone), row)
            if self.journal is not None:
                self.journal.add(self.trace[-1])
            if self.progress is not None:
                self.progress(self.progress_at(self.at))
        if self.journal is not None:
            self.journal.flush(self.progress_at(self.at))

    def _answers(self, column: int, rows: Sequence[int]) -> Iterator[tuple[int, float, float, bool]]:
        for row, before, after, gone in decide(self.engine, column, rows, self.metric, self.rule.removes):
            assert row is not None
            yield row, before, after, gone

    def _taken_before(self, rows: Sequence[int]) -> bool:
        """Take the decisions about some nodes that are known, if all of them are; else none, and no more after it."""
        known = self.past[len(self.trace) : len(self.trace) + len(rows)]
        if len(known) < len(rows):
            if self.past:
                assert self.journal is not None
                self.journal.cut(len(self.trace))
                self.past = []
            return False
        for row, decision in zip(rows, known, strict=True):
            right = not self.rule.removes(decision.before, decision.after)
            name = self.graph.sources[row].name
            if (decision.edge, decision.before, decision.kept) != (name, self.metric, right):
                raise not_this_search(decision.edge)
            self._take(decision, row)
        self.resumed = len(self.trace)
        return True

    def _take(self, decision: Decision, row: int) -> None:
        self.trace.append(decision)
        self._write(row)
        self.at = decision.edge
        self.decided += 1
        self.kept += decision.kept

    def _write(self, row: int) -> None:
        """Do what the trace's last line says."""
        decision = self.trace[-1]
        self.metric = decision.before if decision.kept else decision.after
        self.present[row], self.scores[row] = decision.kept, decision.effect

    def settle(self) -> None:
        """After an interruption in the middle of a step: what the trace says, and nothing beyond it."""
        if self.trace:
            self._write(locate_node(self.graph, self.trace[-1].edge))
        self.kept = sum(decision.kept for decision in self.trace[self.first :])
        self.decided = self.absent + len(self.trace) - self.first

    def progress_at(self, name: str) -> Progress:
        """How far the search has got, at the node called `name`."""
        count = len(self.graph.sources)
        left = float(count - self.decided)
        return Progress(
            self.decided,
            count,
            self.kept,
            len(self.trace),
            self.metric,
            name,
            self.rule.threshold,
            to_come=(left, left, 1.0),
            passes=1 + len(self.ended),
            resumed=self.resumed,
            absent=self.absent,
            unit="nodes",
        )
