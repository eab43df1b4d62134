"""What a search would take, foretold from estimated effects of edges.

Attribution scores say roughly which edges a search will keep. Walked as the search walks, with those edges kept, the
graph shows which inputs will be read at all, so which edges will be tested, and what lies between each of them and the
logits, so what its tests have to compute.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from edgewise.discovery.order import visits
from edgewise.graph import Circuit, Graph
from edgewise.graph.graph import Bools
from edgewise.patching import Costs

DEARER = 1.5
"""How much longer a search takes than the sum of its tests' parts.

Candidates are measured that stood on a wrong guess, and a search that has drifted keeps more edges than their effects
in the whole model foretell. Measured on SmolLM2 and IOI: 1.7 (16 pairs, threshold 0.03), 2.1 and 2.4 (4 pairs, 0.05 and
0.2).
"""


class Forecast:
    """A search in which the edges of `stays` are kept, of those of `start`.

    Attributes:
        tests: edges that are tested.
        seconds: that it takes; where costs are of another unit, as FLOPs, so many of these.
        tests_into: how many of the tests are of edges into inputs of each layer; -1 for the logits.
    """

    def __init__(
        self, graph: Graph, start: Circuit, stays: Circuit, costs: Costs, positions: int, known: tuple[int, float]
    ) -> None:
        """
        Args:
            positions: of a prompt; where a node is needed at the last of them only, it costs a share of one.
            known: tests and seconds of it that are behind already.
        """
        self.graph, self.costs = graph, costs
        self.edges, self.ports = start.edges.copy(), start.ports.copy()
        self.narrow = 1 / max(positions, 1)
        self._onward: dict[int, tuple[Bools, bool]] = {}
        self.tests, sums = 0, 0.0
        self.tests_into = Counter[int]()
        for visit in visits(graph):
            if visit.kind == "node":
                continue
            present = self.ports if visit.kind == "port" else self.edges
            if not self._read(visit.column, port=visit.kind == "port"):
                present[..., visit.column] = False
                continue
            tests = int(present[..., visit.column].sum())
            self.tests += tests
            self.tests_into[graph.inputs[visit.column].layer] += tests
            sums += tests * self._test(visit.column)
            present[..., visit.column] &= (stays.ports if visit.kind == "port" else stays.edges)[..., visit.column]
        tried, seconds = known
        self.tests = max(self.tests, tried)
        self.seconds = max(DEARER * sums, seconds)

    def _read(self, column: int, *, port: bool) -> bool:
        if not port and self.graph.port_edges[column]:
            return bool(self.ports[column])
        return self.graph.shows(self.edges, column)

    def _test(self, column: int) -> float:
        """Seconds of one test of an edge into an input."""
        place, costs = self.graph.inputs[column], self.costs
        seconds = costs.sender + costs.vocabulary
        moved = np.zeros(len(self.graph.sources), dtype=bool)
        for row in self.graph.nodes_moved_by(place):
            moved |= self._moved_with(row)[0]
            moved[row] = True
        for row in np.flatnonzero(moved).tolist():
            each = costs.mlp if self.graph.sources[row].kind == "mlp" else costs.head
            seconds += each * (1 / self.graph.n_spans if self._moved_with(row)[1] else self.narrow)
        return seconds

    def _moved_with(self, row: int) -> tuple[Bools, bool]:
        """The nodes `[sources]` that move if `row` does, and whether it is needed at more than the last position.

        Of a node whose readers have all been visited.
        """
        if row in self._onward:
            return self._onward[row]
        moved, everywhere = np.zeros(len(self.graph.sources), dtype=bool), False
        for column in np.flatnonzero(self.edges[row]).tolist():
            place = self.graph.inputs[column]
            if place.kind == "logits" or (self.graph.port_edges[column] and not self.ports[column]):
                continue
            everywhere |= place.kind in ("k", "v", "head")
            for reader in self.graph.nodes_moved_by(place):
                onward, wide = self._moved_with(reader)
                moved |= onward
                moved[reader] = True
                everywhere |= wide
        self._onward[row] = moved, everywhere
        return self._onward[row]
