"""A change on its way through the live part of a model, node by node, from one input to the logits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgewise.graph.names import InputKind
from edgewise.patching.live import LiveNode, LivePart, Reading
from edgewise.patching.places import narrow

FEW = 8
"""Edges into an input up to which its stream is summed up anew."""


class Flow:
    """One change of one input, for c candidates.

    Every node that the logits depend on keeps its present input and output, so that a change is a difference. A stream
    to which few edges lead, or only ones that change, is summed up anew from the ablated run's, as a circuit run does,
    so that rounding leaves nothing of what has gone: a norm would make it large where little else is left.

    With `keep` (and one candidate) that is how things are from now on.
    """

    def __init__(self, live: LivePart, keep: bool = False) -> None:
        self.live, self.keep = live, keep
        self.changes: dict[int, list[tuple[int, Tensor | None]]] = {}  # by column: rows that changed, where to find it
        self.moved: dict[int, tuple[Tensor, Tensor]] = {}  # by row: a node's new code and its present one
        self.gains: dict[int, Tensor] = {}  # by row: what its readers gain on what they have
        self.levels: dict[int, Tensor] = {}  # by row: what they gain on the ablated run
        self.values: dict[int, Tensor] = {}  # by column: new queries, keys, values
        self.waiting: set[int] = set()  # rows of nodes to compute

    def run(self, column: int, seed: Tensor, *, port: bool = False) -> Tensor:
        """Final streams `[c, b, n, d_model]` if an input held the streams `seed` `[c, b, n, d_model]`.

        With `port`, `seed` is the query, key or value itself.
        """
        reading = self.live.readings[column]
        if self.keep and not port:
            reading.stream = seed[0]
        if column == self.live.logits:
            return seed
        if reading.value is None:
            self.values[column] = seed
        elif port:
            self.values[column] = seed
            if self.keep:
                reading.value, reading.attached = seed[0], False
        else:
            with self.live.watch.timed("attention"):
                self.values[column] = self._valued(reading, seed)
        self._wake(column)
        while self.waiting:
            row = min(self.waiting)  # rows are in topological order
            self.waiting.remove(row)
            self._move(row)
        return self._stream(self.live.logits)

    def _wake(self, column: int) -> None:
        graph = self.live.graph
        self.waiting.update(row for row in graph.nodes_moved_by(graph.inputs[column]) if row in self.live.nodes)

    def _move(self, row: int) -> None:
        if self.live.coupled(row):
            self._move_together(self.live.together(row))
            return
        live = self.live.nodes[row]
        with self.live.watch.timed("mlps" if live.node.kind == "mlp" else "attention"):
            (new,) = self.live.settle(live.component, self.live.act([live], [self._projections(live)]))
        self._moved(row, new)

    def _move_together(self, rows: slice) -> None:
        """Coupled nodes: those that read something else act anew, or all of them if need be; all are settled anew."""
        self.waiting.difference_update(range(rows.start, rows.stop))
        lives = [self.live.nodes[row] for row in range(rows.start, rows.stop)]
        with self.live.watch.timed("attention"):
            projections = [self._projections(live) for live in lives]
            if self.live.decoder.components[lives[0].component].acts_together:
                made = self.live.act(lives, projections)
            else:
                made = [self._made(live, each) for live, each in zip(lives, projections, strict=True)]
            codes = self.live.settle(lives[0].component, made)
        for row, code in zip(range(rows.start, rows.stop), codes, strict=True):
            self._moved(row, code)

    def _made(self, live: LiveNode, projections: Mapping[InputKind, Tensor]) -> Tensor:
        """What a coupled node makes by itself, `[c or 1, b, n, width]`: what it has, if it reads nothing else."""
        reads_else = any(column in self.values for column in self.live.graph.inputs_of(live.node))
        if live.activation is not None and not reads_else:
            return live.activation[None]
        (made,) = self.live.act([live], [projections])
        if self.keep or not reads_else:
            live.activation = made[0]
        return made

    def _moved(self, row: int, new: Tensor) -> None:
        """A node writes something else: what follows from that."""
        live = self.live.nodes[row]
        self.moved[row] = (new, live.code)
        if self.keep:
            live.code = new[0]
        for column, index in live.readers.items():
            if self.live.readings[column].attached:
                self.changes.setdefault(column, []).append((row, index))
                self._wake(column)

    def _projections(self, live: LiveNode) -> dict[InputKind, Tensor]:
        found: dict[InputKind, Tensor] = {}
        for column in self.live.graph.inputs_of(live.node):
            reading = self.live.open(column)
            if column in self.changes:
                self.values[column] = self._valued(reading, self._stream(column))
            value = self.values.get(column)
            if value is None:
                assert reading.value is not None
                value = reading.value[None]
            found[reading.place.kind] = value if reading.value is not None else value.to(self.live.decoder.dtype)
        return found

    def _valued(self, reading: Reading, stream: Tensor) -> Tensor:
        if reading.value is None:  # an MLP reads the stream itself
            return stream
        value = self.live.value(reading.column, stream, reading.places)
        if reading.place.kind != "q":
            value = reading.places.put(reading.value, value)
        if self.keep:
            reading.value = value[0]
        return value

    def _stream(self, column: int) -> Tensor:
        """An input's stream now, `[c, b, n, d_model]`."""
        live = self.live
        reading, changes = live.readings[column], self.changes.pop(column)
        present = set(live.edges[:, column].nonzero()[0].tolist())
        others = sorted(present - {row for row, _ in changes})
        if not others or len(present) <= FEW:
            stream, parts = live.floor(reading), self._level
            for row in others:
                stream = stream + self._still(row, column)
        else:
            stream, parts = reading.stream, self._gain
        (row, index), *rest = changes
        stream = stream + narrow(parts(row), index)
        for row, index in rest:
            stream += narrow(parts(row), index)
        if self.keep:
            reading.stream = stream[0]
        return stream

    def _gain(self, row: int) -> Tensor:
        if row not in self.gains:
            self.gains[row] = self._difference(row, *self.moved[row])
        return self.gains[row]

    def _level(self, row: int) -> Tensor:
        if row not in self.levels:
            live = self.live.nodes[row]
            old = live.places.take(self.live.ablated.codes[live.component][:, :, live.number])
            self.levels[row] = self._difference(row, self.moved[row][0], old)
        return self.levels[row]

    def _still(self, row: int, column: int) -> Tensor:
        """What a sender that does not change adds to the ablated run's stream at an input, `[b, n, d_model]`."""
        live = self.live.nodes.get(row)
        if live is None:
            return -self.live.delta(row, self.live.readings[column].places)
        self.moved.setdefault(row, (live.code[None], live.code))
        return narrow(self._level(row), live.readers[column])[0]

    def _difference(self, row: int, new: Tensor, old: Tensor) -> Tensor:
        live = self.live.nodes[row]
        with self.live.watch.timed("mlps" if live.node.kind == "mlp" else "attention"):
            return self.live.difference(live, new, old)
