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

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

import numpy as np

from edgewise.discovery.engines import DEFAULT_ENGINE
from edgewise.discovery.found import Discovery, Progress, ProgressCallback
from edgewise.discovery.journal import Journal
from edgewise.discovery.order import Order
from edgewise.discovery.rule import Rule, check_budget
from edgewise.discovery.search import check_options
from edgewise.discovery.walking import SearchWalk, search
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, Decision, Graph, of_nodes
from edgewise.graph.by_node import locate_node
from edgewise.graph.graph import Bools
from edgewise.patching import Engine, Experiment
from edgewise.patching.node_engine import NodeEngine, PlainNodeEngine
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
    return [(column, list(some)) for column, some in groupby(rows, wiring.component_of)]


def acdc_by_node(
    experiment: Experiment,
    threshold: float,
    *,
    order: Order | None = None,
    absolute: bool = False,
    budget: float | None = None,
    passes: int = 1,
    start: Circuit | None = None,
    engine: str | NodeEngineFactory = DEFAULT_ENGINE,
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
    if isinstance(engine, str) and engine not in NODE_ENGINES:
        raise unknown("engine", engine, NODE_ENGINES)
    if start is not None:
        start.require_graph(experiment.graph)
        if not start.whole_nodes:
            raise EdgewiseError("a search of nodes chooses among whole nodes, and what it was to start from has edges")
    rule = Rule(threshold, absolute, budget)
    walk = _Search(experiment, rule, order or Order(), passes, start, engine, max_memory, progress, journal)
    return search(walk, walk.walk[0][0], start)


class _Search(SearchWalk):
    """The walk over one graph's nodes, with what is still present of them."""

    unit = "nodes"

    def __init__(
        self,
        experiment: Experiment,
        rule: Rule,
        order: Order,
        passes: int,
        start: Circuit | None,
        engine: str | NodeEngineFactory,
        max_memory: int | None,
        progress: ProgressCallback | None,
        journal: Journal | None,
    ) -> None:
        super().__init__(experiment, rule, passes, progress, journal)
        self.wiring = Wiring.of(experiment.decoder, self.graph)
        self.walk = walk_of(self.graph, self.wiring, order)
        make = NODE_ENGINES[engine] if isinstance(engine, str) else engine
        self._make = lambda present: make(experiment, present, max_memory)
        self.present = np.ones(self.count, dtype=bool) if start is None else start.rows.copy()
        self.scores = np.zeros(self.count)

    @property
    def count(self) -> int:
        return len(self.graph.sources)

    def left(self) -> int:
        return int(self.present.sum())

    def circuit(self) -> Circuit:
        return of_nodes(self.graph, self.present, self.scores)

    def _begin_pass(self) -> None:
        super()._begin_pass()
        self.at = self.graph.sources[self.walk[0][1][0]].name

    def _make_engine(self) -> Engine:
        return self._make(self.present)

    def _walk(self) -> None:
        for column, rows in self.walk:
            self._try([row for row in rows if self.present[row]], column)

    def _name(self, row: int | None, column: int) -> str:
        assert row is not None
        return self.graph.sources[row].name

    def _locate(self, name: str) -> tuple[int | None, int]:
        row = locate_node(self.graph, name)
        return row, self.wiring.component_of(row)

    def _take(self, decision: Decision, row: int | None, column: int) -> None:
        super()._take(decision, row, column)
        self.at = decision.edge

    def _write(self, row: int | None, column: int) -> None:
        super()._write(row, column)
        decision = self.trace[-1]
        self.present[row], self.scores[row] = decision.kept, decision.effect

    def progress_at(self, name: str) -> Progress:
        left = float(self.count - self.decided)
        return replace(super().progress_at(name), to_come=(left, left, 1.0))
