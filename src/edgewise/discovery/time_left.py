"""How much of a search is left: which edges it has still to test, and how long that takes.

What is left depends on the circuit that a search has yet to find. An input is tested if a node that reads it is alive:
if some edge leads from it to what was kept. So some tests are certain to come (nodes that kept edges start from), and
others are likely: every input still to be tested keeps some more edges, at the rate of those tested so far, and these
bring nodes of earlier layers to life. A test costs the more the more nodes lie between its input and the logits.
"""

from __future__ import annotations

from edgewise.graph import Graph

RECENT = 0.25
"""Share of the time so far from which the present cost of a test is taken."""


class ToCome:
    """The tests that a search has still to make; told of every test as it is made."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shared = 1 + 2 * graph.n_kv_heads / graph.n_heads  # inputs per head
        self.nodes = [[0, 0] for _ in range(graph.n_layers)]  # alive: heads, MLP
        # Tests certain to come, by layer and last of the logits: of edges, port edges, and edges behind port edges.
        self.edges, self.ports, self.behind = ([0] * (graph.n_layers + 1) for _ in range(3))
        self.edges[-1] = len(graph.sources)
        self._known: set[int] = set()
        self._alive: set[int] = set()
        self.tested = [0, 0]  # edges, port edges
        self.kept = [0, 0]

    def test(self, column: int, row: int | None, kept: bool) -> None:
        """An edge (a port edge if `row` is None) has been tested."""
        place, port = self.graph.inputs[column], row is None
        (self.ports if port else self.edges)[place.layer] -= 1
        self.tested[port] += 1
        self.kept[port] += kept
        if row is None:
            senders = self.graph.n_senders(place)
            self.behind[place.layer] -= senders
            self.edges[place.layer] += senders * kept
        elif kept and row not in self._alive:
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
            senders = self.graph.n_senders(self.graph.inputs[column])
            if self.graph.port_edges[column]:
                self.ports[node.layer] += 1
                self.behind[node.layer] += senders
            else:
                self.edges[node.layer] += senders

    def expected(self) -> tuple[float, float, float]:
        """Tests to come into nodes that are alive, tests to come in all, and by how much live nodes will multiply."""
        graph, (heads, mlps) = self.graph, (self.graph.n_heads, int(self.graph.mlps))
        # Twice what was kept so far: edges from the nearest layers are kept most, and those bring the next tests.
        rate = min(0.95, 2 * (self.kept[0] + 0.5) / (self.tested[0] + 25))
        stays = (self.kept[1] + 0.5) / (self.tested[1] + 1) if graph.ports else 1.0
        alive = 1 + sum(map(sum, self.nodes))
        known, every, nodes = float(self.edges[-1]), float(self.edges[-1]), float(alive)
        reading = self.edges[-1] / len(graph.sources)  # inputs that are tested above
        for layer in reversed(range(graph.n_layers)):
            senders = graph.n_embeddings + layer * (heads + mlps)
            certain = self.edges[layer] + self.ports[layer] + stays * self.behind[layer]
            new_mlp = (mlps - self.nodes[layer][1]) * (1 - (1 - rate) ** reading)
            reading += new_mlp
            new_heads = (heads - self.nodes[layer][0]) * (1 - (1 - rate) ** reading)
            inputs = new_heads * self.shared
            known += certain
            every += certain + new_mlp * (senders + heads) + inputs * (graph.ports + stays * senders)
            nodes += new_mlp + new_heads
            reading += stays * inputs + (self.edges[layer] + stays * self.behind[layer]) / max(1, senders)
        return known, every, nodes / alive


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
        dearer = (1 + growth) / 2  # half of what a test costs is the nodes after it, and they come one by one
        middle = every * each * (1 + dearer) / 2
        surplus = max(every - known, 0.0) / max(every, 1.0)
        return middle * (1 - surplus / 2), middle * (1 + surplus / 2)
