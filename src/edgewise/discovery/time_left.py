"""How much of a search is left: which edges it has still to test, and how long that takes.

What is left depends on the circuit that a search has yet to find. An input is tested if a node that reads it is alive:
if some edge leads from it to what was kept. So some tests are certain to come (nodes that kept edges start from), and
others are likely: each edge still to be tested is taken to stay as often as those tested so far from nodes that nothing
else read, which is what brings an input of an earlier layer to life, and chances are carried along the edges that are
there, as if each were independent of the others. A test costs the more the more nodes lie between its input and the
logits.
"""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np

from edgewise.graph import Circuit, Graph
from edgewise.graph.circuit import Floats

RECENT = 0.25
"""Share of the time so far from which the present cost of a test is taken."""

PRIOR = 25
"""Tests that what is taken of edges at first counts as."""
MORE = 1.4
"""How many times as often edges still to be tested stay as those so far: those of the nearest layers, where tests that
bring the next ones come from, are kept most. Between 1 and 2 on the searches that this was held against."""


class ToCome:
    """The tests that a search has still to make; told of every test as it is made.

    Attributes:
        present, ports: the edges, and port edges, that have not gone; `untested`, `untested_ports`: those of them that
            have not been tried.
    """

    def __init__(self, graph: Graph, start: Circuit | None = None, stay: float = 0.02) -> None:
        """
        Args:
            start: the edges that are there when the search starts, by default all.
            stay: how often edges stay, as far as no test says.
        """
        self.stay = stay
        self.graph, start = graph, Circuit.full(graph) if start is None else start
        self.present, self.ports = start.edges.copy(), start.ports.copy()
        self.untested, self.untested_ports = start.edges.copy(), start.ports.copy()
        # The rows of each component, from late to early, and the columns that they read.
        rows = reversed(range(len(graph.sources)))
        self.components = [list(some) for _, some in groupby(rows, lambda row: graph.sources[row].name.split(".")[0])]
        self.moved = [list(graph.nodes_moved_by(place)) for place in graph.inputs]
        self.read: list[list[int]] = [[] for _ in graph.sources]
        for column, moved in enumerate(self.moved):
            for row in moved:
                self.read[row].append(column)
        # Tested and of those kept: port edges, and edges from nodes that were not alive.
        self.of_ports, self.dormant = [0, 0], [0, 0]
        self._alive: set[int] = set()

    def test(self, column: int, row: int | None, kept: bool) -> None:
        """An edge (a port edge if `row` is None) has been tested."""
        if row is None:
            self.of_ports[0] += 1
            self.of_ports[1] += kept
            self.untested_ports[column], self.ports[column] = False, kept
            if not kept:  # what leads there falls without a test
                self.untested[:, column] = self.present[:, column] = False
            return
        self.untested[row, column], self.present[row, column] = False, kept
        if row not in self._alive:
            self.dormant[0] += 1
            self.dormant[1] += kept
            if kept:
                self._alive.add(row)

    def expected(self) -> tuple[float, float, float]:
        """Tests certain to come, tests likely to come in all, and by how much live nodes will multiply."""
        rate = min(0.95, MORE * (self.dormant[1] + PRIOR * self.stay) / (self.dormant[0] + PRIOR))
        stays = (self.of_ports[1] + 0.5) / (self.of_ports[0] + 1)
        known, now = self._tests(0.0, 0.0)
        every, nodes = self._tests(rate, stays)
        return known, every, (1 + nodes) / (1 + now)

    def _tests(self, rate: float, stays: float) -> tuple[float, float]:
        """Tests to come and nodes alive, if so many of the edges, and of the port edges, that are to be tested stay."""
        graph, spans = self.graph, self.graph.n_spans
        there = np.where(self.untested, rate, self.present)
        attached: Floats = np.where(self.untested_ports, stays, self.ports)
        reads, reader = np.zeros(len(graph.inputs)), np.zeros(len(graph.inputs))  # how likely what is read can be seen
        reads[graph.columns("logits")] = reader[graph.columns("logits")] = 1.0
        alive = np.zeros((len(graph.sources), spans))
        for rows in self.components:
            unread = (1 - there[rows] * reads).reshape(len(rows), -1, spans)
            alive[rows] = 1 - unread.prod(axis=1)
            for column in {column for row in rows for column in self.read[row]}:
                seen = slice(None) if graph.inputs[column].kind in ("k", "v", "head") else column % spans
                reader[column] = 1 - (1 - alive[self.moved[column], seen]).prod()
                reads[column] = reader[column] * (attached[column] if graph.port_edges[column] else 1.0)
        tests = (self.untested.sum(axis=0) * reads).sum() + (self.untested_ports * reader).sum()
        return float(tests), float(alive.max(axis=1).sum())


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
