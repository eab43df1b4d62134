"""How much of a search is left: which edges it has still to test, and how long that takes.

What is left depends on the circuit that a search has yet to find. An input is tested if a node that reads it is alive:
if some edge leads from it to what was kept. So some tests are certain to come (nodes that kept edges start from), and
others are likely: every input still to be tested keeps some more edges, and some of these bring nodes of earlier layers
to life, at the rate at which edges tested so far did. A test costs the more the more nodes lie between its input and
the logits.
"""

from __future__ import annotations

import math

from edgewise.graph import Circuit, Graph

RECENT = 0.25
"""Share of the time so far from which the present cost of a test is taken."""


class ToCome:
    """The tests that a search has still to make; told of every test as it is made."""

    def __init__(self, graph: Graph, start: Circuit | None = None) -> None:
        """
        Args:
            start: the edges that are there when the search starts, by default all.
        """
        self.graph, self.start = graph, Circuit.full(graph) if start is None else start
        self.into = self.start.edges.sum(axis=0).tolist()
        self.heads, self.mlps, self.senders, self.mlp_senders = ([] for _ in range(4))  # of each layer
        for layer in range(graph.n_layers):
            columns = [column for kind in graph.head_kinds for column in _range(graph.columns(kind, layer))]
            counts = [self.into[column] for column in columns if self.into[column]]
            share = len(counts) / len(columns)
            self.heads.append(graph.n_heads * share)
            self.senders.append(sum(counts) / max(1, len(counts)))
            self.mlp_senders.append(sum(self.into[graph.columns("mlp", layer)]))
            self.mlps.append(int(self.mlp_senders[-1] > 0))
        inputs = sum(graph.n_inputs(kind) for kind in graph.head_kinds) * graph.n_spans
        self.shared = inputs / graph.n_heads  # inputs per head
        self.nodes = [[0, 0] for _ in range(graph.n_layers)]  # alive: heads, MLP
        # Tests certain to come, by layer and last of the logits: of edges, port edges, and edges behind port edges.
        self.edges, self.ports, self.behind = ([0] * (graph.n_layers + 1) for _ in range(3))
        self.into_logits = sum(self.into[graph.columns("logits")])
        self.edges[-1] = self.into_logits
        self._known: set[int] = set()
        self._alive: set[int] = set()
        # Tested and of those kept: port edges, and edges from nodes that were not alive.
        self.of_ports, self.dormant = [0, 0], [0, 0]

    def test(self, column: int, row: int | None, kept: bool) -> None:
        """An edge (a port edge if `row` is None) has been tested."""
        place, port = self.graph.inputs[column], row is None
        (self.ports if port else self.edges)[place.layer] -= 1
        if row is None:
            self.of_ports[0] += 1
            self.of_ports[1] += kept
            senders = self.into[column]
            self.behind[place.layer] -= senders
            self.edges[place.layer] += senders * kept
        elif row not in self._alive:
            self.dormant[0] += 1
            self.dormant[1] += kept
            if kept:
                self._alive.add(row)
                self._open(row)

    def _open(self, row: int) -> None:
        node = self.graph.sources[row]
        columns = self.graph.inputs_of(node)
        if columns:
            self.nodes[node.layer][node.kind == "mlp"] += 1
        for column in columns:
            if column in self._known:
                continue
            self._known.add(column)
            senders = self.into[column]
            if self.graph.port_edges[column]:
                self.ports[node.layer] += int(self.start.ports[column])
                self.behind[node.layer] += senders
            else:
                self.edges[node.layer] += senders

    def expected(self) -> tuple[float, float, float]:
        """Tests certain to come, tests likely to come in all, and by how much live nodes will multiply."""
        graph = self.graph
        # How often an edge brings a node to life: twice as often as so far, since edges of the nearest layers are kept
        # most, and those bring the next tests. Kept edges from nodes that live already say nothing of it.
        rate = min(0.95, 2 * (self.dormant[1] + 0.5) / (self.dormant[0] + 25))
        stays = (self.of_ports[1] + 0.5) / (self.of_ports[0] + 1) if graph.ports else 1.0
        alive = 1 + sum(map(sum, self.nodes))
        known, every, nodes = float(self.edges[-1]), float(self.edges[-1]), float(alive)
        reading = self.edges[-1] / max(1, self.into_logits)  # inputs that are tested above
        for layer in reversed(range(graph.n_layers)):
            heads, mlps, senders = self.heads[layer], self.mlps[layer], self.senders[layer]
            certain, behind = self.edges[layer] + self.ports[layer], stays * self.behind[layer]
            new_mlp = max(0, mlps - self.nodes[layer][1]) * (1 - (1 - rate) ** reading)
            reading += new_mlp
            new_heads = max(0.0, heads - self.nodes[layer][0]) * (1 - (1 - rate) ** reading)
            inputs = new_heads * self.shared
            known += certain
            every += certain + behind + new_mlp * self.mlp_senders[layer] + inputs * (graph.ports + stays * senders)
            nodes += new_mlp + new_heads
            reading += stays * inputs + (self.edges[layer] + behind) / max(1, senders)
        return known, every, nodes / alive


def _range(columns: slice) -> range:
    return range(columns.start, columns.stop)


class TimeLeft:
    """Seconds that a search has left, from how long its tests took."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = [(0.0, 0)]

    def range(self, seconds: float, tests: int, to_come: tuple[float, float, float]) -> tuple[float, float]:
        """The least and the most that may be left after so many seconds and tests."""
        known, every, growth = to_come
        if seconds > 1.02 * self.marks[-1][0] and tests > self.marks[-1][1]:
            self.marks.append((seconds, tests))
        since, before = next(
            (mark for mark in reversed(self.marks) if mark[0] <= (1 - RECENT) * seconds and tests - mark[1] >= 20),
            (0.0, 0),
        )
        each = (seconds - since) / max(1, tests - before)
        dearer = math.sqrt(growth)  # the vocabulary costs the same with many nodes, and nodes near the logits little
        middle = every * each * (1 + dearer) / 2
        surplus = max(every - known, 0.0) / max(every, 1.0)
        return middle * (1 - surplus / 2), middle * (1 + surplus / 2)
