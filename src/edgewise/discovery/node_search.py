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

from itertools import groupby

import numpy as np

from edgewise.discovery.engines import DEFAULT_ENGINE
from edgewise.discovery.found import Discovery, ProgressCallback
from edgewise.discovery.journal import Journal
from edgewise.discovery.order import Order
from edgewise.discovery.rule import Rule, check_budget
from edgewise.discovery.search import check_options
from edgewise.discovery.settled import SettledWalk, StartedFactory, engine_maker
from edgewise.discovery.walking import search
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, of_nodes
from edgewise.graph.by_node import locate_node
from edgewise.patching import Experiment
from edgewise.patching.node_engine import NodeEngine, PlainNodeEngine
from edgewise.patching.wiring import Wiring

NODE_ENGINES: dict[str, StartedFactory] = {"incremental": NodeEngine, "plain": PlainNodeEngine}
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
    engine: str | StartedFactory = DEFAULT_ENGINE,
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
    make = engine_maker(engine, NODE_ENGINES, experiment, max_memory)
    if start is not None:
        start.require_graph(experiment.graph)
        if not start.whole_nodes:
            raise EdgewiseError("a search of nodes chooses among whole nodes, and what it was to start from has edges")
    rule, wiring = Rule(threshold, absolute, budget), Wiring.of(experiment.decoder, experiment.graph)
    walk = _Search(
        *(experiment, rule, passes, progress, journal),
        unit="nodes",
        walk=walk_of(experiment.graph, wiring, order or Order()),
        present=np.ones(len(experiment.graph.sources), dtype=bool) if start is None else start.rows,
        make=make,
    )
    return search(walk, walk.walk[0][0], start)


class _Search(SettledWalk):
    """The walk over one graph's nodes, with what is still present of them: columns are components."""

    @property
    def count(self) -> int:
        return len(self.graph.sources)

    def circuit(self) -> Circuit:
        return of_nodes(self.graph, self.present, self.scores)

    def _index(self, row: int, column: int) -> int:
        return row

    def _name(self, row: int | None, column: int) -> str:
        assert row is not None
        return self.graph.sources[row].name

    def _locate(self, name: str) -> tuple[int | None, int]:
        row = locate_node(self.graph, name)
        return row, Wiring.of(self.experiment.decoder, self.graph).component_of(row)
