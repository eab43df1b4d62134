"""ACDC: Automatic Circuit DisCovery (Conmy et al., NeurIPS 2023, algorithm 1).

Walk from the logits back to the embedding. At each input, try its edges one after another: remove the edge, and if
the metric rises by less than the threshold, leave it out for good. Every test compares with the graph as pruned so
far. What the paper leaves open is as in its code:

* the comparison is strict and signed: an edge whose removal lowers the metric always goes;
* within a layer the MLP comes first, then the heads' port edges (v, k, q), then their v, k and q inputs, heads from
  high to low; parents are tried from late to early, heads from high to low, the embedding last;
* a node that nothing present reads any more is dead: its edges go without a test, which changes no metric.

Beyond the paper, and off by default, a search can start from a circuit instead of the whole graph, bound the metric as
a whole (rule.py), and try what it kept in further passes. One that was stopped goes on from its journal (journal.py).

The search asks an engine what the metric is without some edges into one input, and tells it which are gone; what to
remove is decided here and in guess.py. `IncrementalEngine` (patching/incremental.py) answers by recomputing what the
edges can change; `PlainEngine`, the judge, with one whole circuit run per edge. Both give the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgewise.discovery.engines import DEFAULT_ENGINE, ENGINES, EngineFactory, make_engine
from edgewise.discovery.found import Discovery, Progress, ProgressCallback
from edgewise.discovery.journal import Journal
from edgewise.discovery.order import Order, Visit, visits
from edgewise.discovery.rule import Rule, check_budget
from edgewise.discovery.time_left import ToCome
from edgewise.discovery.walking import SearchWalk, search
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, Decision, Graph, Input
from edgewise.graph.circuit import Floats
from edgewise.graph.graph import Bools
from edgewise.graph.names import Edge, PortEdge
from edgewise.patching import Engine, Experiment, Removed

RECKON_EVERY, EDGES_PER_TEST = 20, 1000
"""Tests after which it is worked out anew what is left of a search: more where many edges are searched, since it takes
long in large graphs (6 ms with 71,101 edges)."""
STAY_FIRST, STAY_LATER = 0.02, 0.9
"""How often edges are taken to stay in the first pass, and in later ones, as far as nothing is known."""


def acdc(
    experiment: Experiment,
    threshold: float,
    *,
    order: Order | None = None,
    absolute: bool = False,
    budget: float | None = None,
    passes: int = 1,
    start: Circuit | None = None,
    engine: str | EngineFactory = DEFAULT_ENGINE,
    max_memory: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> Discovery:
    """Find a circuit with ACDC.

    Args:
        threshold: an edge stays if the metric rises by at least this much without it.
        order: in which parents are tried; by default late to early, heads from high to low.
        absolute: compare the size of the change with the threshold, not the signed change.
        budget: an edge stays, too, if the metric is not below this without it.
        passes: how often the edges that are left are tried, from the logits back each time; a pass after the first that
            removes nothing is the last.
        start: the edges to choose from; all others are ablated from the start. By default all of the graph's. Scores
            that it has, in the metric's units, make for better guesses and the same decisions.
        engine: `incremental`, `plain` (one whole circuit run per tested edge), or what makes an engine of one's own.
        max_memory: bytes that the incremental engine may use beyond the model's weights (see `plan_memory`).
        progress: called after every tested edge and every input.
        journal: keeps every decision as it is taken. One that holds decisions of this search lets it go on from there.

    Raises:
        EdgewiseError: the threshold or budget is not a number, the budget is spent at the start, the engine is unknown,
            the search does not fit into `max_memory`, the journal holds another search, or the metric of some circuit
            is not a finite number; the message names the edge whose removal made it so.
        Interrupted: Ctrl-C (`KeyboardInterrupt`), or no memory left half-way; it holds what was decided.
    """
    check_options(threshold=threshold, engine=engine)
    check_budget(budget, passes)
    if start is not None:
        start = without_dead_ends(experiment.graph, start)
    rule = Rule(threshold, absolute, budget)
    walk = _Search(experiment, rule, order or Order(), passes, start, engine, max_memory, progress, journal)
    return search(walk, len(experiment.graph.inputs) - 1, start)


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


def without_dead_ends(graph: Graph, circuit: Circuit) -> Circuit:
    """A circuit of a graph without edges into inputs that nothing reads, which change no metric.

    Raises:
        EdgewiseError: the circuit is over another graph.
    """
    circuit.require_graph(graph)
    edges, ports = circuit.edges.copy(), circuit.ports.copy()
    for visit in visits(graph):
        if visit.kind != "node" and not _alive(graph, edges, ports, visit):
            (ports if visit.kind == "port" else edges)[..., visit.column] = False
    return replace(circuit, edges=edges, ports=ports, whole_nodes=False)


def _alive(graph: Graph, edges: Bools, ports: Bools, visit: Visit) -> bool:
    """Whether anything present still depends on a port edge, or on what flows into an input."""
    if visit.kind == "input" and graph.port_edges[visit.column]:
        return bool(ports[visit.column])
    return graph.shows(edges, visit.column)


class _Search(SearchWalk):
    """The walk over one graph's edges, with what is still present of them."""

    def __init__(
        self,
        experiment: Experiment,
        rule: Rule,
        order: Order,
        passes: int,
        start: Circuit | None,
        engine: str | EngineFactory,
        max_memory: int | None,
        progress: ProgressCallback | None,
        journal: Journal | None,
    ) -> None:
        super().__init__(experiment, rule, passes, progress, journal)
        self._make = lambda present: make_engine(engine, experiment, max_memory, present)
        self.parents = order.parents(self.graph)
        begun = Circuit.full(self.graph) if start is None else start
        self.edges, self.ports = begun.edges.copy(), begun.ports.copy()
        self.scores, self.given = np.zeros(self.edges.shape), begun.scores
        self.port_scores = np.zeros(self.ports.shape)

    @property
    def count(self) -> int:
        return self.graph.n_edges

    def left(self) -> int:
        return int(self.edges.sum() + self.ports.sum())

    def circuit(self) -> Circuit:
        return Circuit(self.graph, self.edges, self.ports, self.scores, self.port_scores)

    def _hints(self) -> Floats | None:
        return self.scores.copy() if self.ended else self.given

    def _begin_pass(self) -> None:
        super()._begin_pass()
        self.start = self.circuit()
        self._told: list[tuple[int, Removed, bool]] = []  # what an engine has to be told before it is asked anything
        # Of each layer, and last of the logits: edges kept, dropped and to come, of those that are left.
        self.layers = [[0, 0, 0] for _ in range(self.graph.n_layers + 1)]
        left = self.edges.sum(axis=0) + self.ports
        for place, to_come in zip(self.graph.inputs, left.tolist(), strict=True):
            self.layers[place.layer][2] += to_come
        self.at = "logits"
        self.coming = ToCome(self.graph, self.start, STAY_LATER if self.ended else STAY_FIRST)
        self.to_come = (0.0, 0.0, 1.0)
        self.every = max(RECKON_EVERY, self.left() // EDGES_PER_TEST)
        self.reckoned = len(self.trace) - self.every

    def _make_engine(self) -> Engine:
        """It is told of every input what went there, as the search that took those decisions told its own.

        What it answers from here on is then the same in every bit.
        """
        engine = self._make(self.start)
        for column, removed, asked in self._told:
            if asked:
                engine.at_once(column)
            engine.commit(column, removed)
        return engine

    def _walk(self) -> None:
        for visit in visits(self.graph):
            if visit.kind == "node":
                continue
            if not _alive(self.graph, self.edges, self.ports, visit):
                self._drop(visit)
            elif visit.kind == "port":
                self._try([None] if self.ports[visit.column] else [], visit.column, visit.name)
            else:
                rows = [row for row in self.parents if self.edges[row, visit.column]]
                self._try(rows, visit.column, visit.name)
            self._report(visit.name)

    def _drop(self, visit: Visit) -> None:
        if visit.kind == "port":
            gone = int(self.ports[visit.column])
            self.ports[visit.column] = False
        else:
            rows = tuple(self.edges[:, visit.column].nonzero()[0].tolist())
            gone = len(rows)
            self.edges[:, visit.column] = False
            if self._engine is None:
                self._told.append((visit.column, rows, False))
            else:
                self._engine.commit(visit.column, rows)
        self.decided += gone
        self._count(self.graph.inputs[visit.column], kept=0, dropped=gone)

    def _count(self, place: Input, kept: int, dropped: int) -> None:
        layer = self.layers[place.layer]  # the logits' is -1, the last
        layer[0] += kept
        layer[1] += dropped
        layer[2] -= kept + dropped

    def _name(self, row: int | None, column: int) -> str:
        place = self.graph.inputs[column]
        return PortEdge(place).name if row is None else Edge(self.graph.sources[row], place).name

    def _locate(self, name: str) -> tuple[int | None, int]:
        return self.graph.locate(name)

    def _taken_before(self, rows: Sequence[int | None], column: int) -> bool:
        taken = super()._taken_before(rows, column)
        if taken:
            decisions = zip(rows, self.trace[-len(rows) :], strict=True)
            self._told.append((column, tuple(row for row, one in decisions if not one.kept), True))
        return taken

    def _take(self, decision: Decision, row: int | None, column: int) -> None:
        super()._take(decision, row, column)
        self.coming.test(column, row, decision.kept)
        self._count(self.graph.inputs[column], kept=int(decision.kept), dropped=int(not decision.kept))

    def _write(self, row: int | None, column: int) -> None:
        super()._write(row, column)
        decision = self.trace[-1]
        if row is None:
            self.ports[column], self.port_scores[column] = decision.kept, decision.effect
        else:
            self.edges[row, column], self.scores[row, column] = decision.kept, decision.effect

    def progress_at(self, name: str) -> Progress:
        if len(self.trace) - self.reckoned >= self.every:
            self.to_come, self.reckoned = self.coming.expected(), len(self.trace)
        made = len(self.trace) - self.reckoned
        certain, likely, growth = self.to_come
        return replace(
            super().progress_at(name),
            layers=tuple((kept, dropped, left) for kept, dropped, left in self.layers),
            to_come=(max(0.0, certain - made), max(0.0, likely - made), growth),
        )
