"""A change on its way through the live part of a model, node by node, from one input to the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from edgewise.graph.names import InputKind
from edgewise.patching.live import LiveNode, LivePart, Reading, Slot
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
        self.changes: dict[int, list[tuple[int, Tensor | None]]] = {}  # by column: units that changed, where to find it
        self.moved: dict[int, tuple[Tensor, Tensor]] = {}  # by unit: a node's new code and its present one
        self.gains: dict[int, Tensor] = {}  # by unit: what its readers gain on what they have
        self.levels: dict[int, Tensor] = {}  # by unit: what they gain on the ablated run
        self.values: dict[Slot, Tensor] = {}  # new queries, keys, values, streams of MLPs
        self.waiting: set[int] = set()  # units to compute

    def run(self, column: int, seed: Tensor, *, port: bool = False) -> Tensor:
        """Final streams `[c, b, scored places, d_model]` if an input held the streams `seed` `[c, b, n, d_model]`.

        With `port`, `seed` is the query, key or value itself.
        """
        live, reading = self.live, self.live.readings[column]
        if self.keep and not port:
            reading.stream = seed[0]
        if port:
            (kind,) = live.wiring.asks[column]
            self._hold(live.slot(column, kind), seed)
            reading.attached = reading.attached and not self.keep
        else:
            self._valued(reading, seed)
        self._wake(column)
        while self.waiting:
            unit = min(self.waiting)  # rows are in topological order
            self.waiting.remove(unit)
            self._move(unit)
        for last in live.logits:
            if last in self.changes:
                self._valued(live.readings[last], self._stream(last))
        final = self.values.get(live.final)
        return live.values[live.final].expand(len(seed), -1, -1, -1) if final is None else final

    def _wake(self, column: int) -> None:
        self.waiting.update(self.live.units_moved_by(column))

    def _move(self, unit: int) -> None:
        row, span = divmod(unit, self.live.n_spans)
        if self.live.coupled(row):
            rows = self.live.together(row)
            self._move_together([self.live.unit(one, span) for one in range(rows.start, rows.stop)])
            return
        live = self.live.nodes[unit]
        with self.live.watch.timed("mlps" if live.node.kind == "mlp" else "attention"):
            (new,) = self.live.settle(live.component, self.live.act([live], [self._projections(live)]))
        self._moved(unit, new)

    def _move_together(self, units: Sequence[int]) -> None:
        """Coupled nodes: those that read something else act anew, or all of them if need be; all are settled anew."""
        self.waiting.difference_update(units)
        lives = [self.live.nodes[unit] for unit in units]
        with self.live.watch.timed("attention"):
            projections = [self._projections(live) for live in lives]
            if self.live.decoder.components[lives[0].component].acts_together:
                made = self.live.act(lives, projections)
            else:
                made = [self._made(live, each) for live, each in zip(lives, projections, strict=True)]
            codes = self.live.settle(lives[0].component, made)
        for unit, code in zip(units, codes, strict=True):
            self._moved(unit, code)

    def _made(self, live: LiveNode, projections: Mapping[InputKind, Tensor]) -> Tensor:
        """What a coupled node makes by itself, `[c or 1, b, n, width]`: what it has, if it reads nothing else."""
        reads_else = any(slot in self.values for _, slots in live.reads for slot in slots)
        if live.activation is not None and not reads_else:
            return live.activation[None]
        (made,) = self.live.act([live], [projections])
        if self.keep or not reads_else:
            live.activation = made[0]
        return made

    def _moved(self, unit: int, new: Tensor) -> None:
        """A node writes something else: what follows from that."""
        live = self.live.nodes[unit]
        self.moved[unit] = (new, live.code)
        if self.keep:
            live.code = new[0]
        for column, index in live.readers.items():
            if self.live.readings[column].attached:
                self.changes.setdefault(column, []).append((unit, index))
                self._wake(column)

    def _projections(self, live: LiveNode) -> dict[InputKind, Tensor]:
        found: dict[InputKind, Tensor] = {}
        for column, slots in live.reads:
            reading = self.live.open(column)
            if column in self.changes:
                self._valued(reading, self._stream(column))
            for slot in slots:
                value = self.values.get(slot)
                value = self.live.values[slot][None] if value is None else value
                found[slot[1]] = value.to(self.live.decoder.dtype) if slot[1] == "mlp" else value
        return found

    def _valued(self, reading: Reading, stream: Tensor) -> None:
        """An input reads other streams `[c, b, n, d_model]`: what is made of them."""
        live, column = self.live, reading.column
        if column in live.logits:
            places = reading.places
            self._hold(live.final, places.put(self._now(live.final), stream, places.within(live.scored)))
            return
        for kind in live.wiring.asks[column]:
            slot = live.slot(column, kind)
            if kind == "mlp":  # reads the stream itself
                self._hold(slot, stream)
                continue
            with live.watch.timed("attention"):
                places, at_places = reading.places, stream
                if kind == "q":
                    assert reading.queries is not None
                    places = reading.queries
                    at_places = narrow(stream, places.within(reading.places))
                value = live.value(column, kind, at_places, places)
                self._hold(slot, value if kind == "q" else places.put(self._now(slot), value, places.index))

    def _hold(self, slot: Slot, value: Tensor) -> None:
        self.values[slot] = value
        if self.keep:
            self.live.values[slot] = value[0]

    def _now(self, slot: Slot) -> Tensor:
        """What is there so far, `[c or 1, b, ...]`: another span's change may have come before."""
        value = self.values.get(slot)
        return self.live.values[slot][None] if value is None else value

    def _stream(self, column: int) -> Tensor:
        """An input's stream now, `[c, b, n, d_model]`."""
        live = self.live
        reading, changes = live.readings[column], self.changes.pop(column)
        present = set(live.edges[:, column].nonzero()[0].tolist())
        others = sorted(present - {unit // live.n_spans for unit, _ in changes})
        if not others or len(present) <= FEW:
            stream, parts = live.floor(reading), self._level
            for row in others:
                stream = stream + self._still(row, column)
        else:
            stream, parts = reading.stream, self._gain
        (unit, index), *rest = changes
        stream = stream + narrow(parts(unit), index)
        for unit, index in rest:
            stream += narrow(parts(unit), index)
        if self.keep:
            reading.stream = stream[0]
        return stream

    def _gain(self, unit: int) -> Tensor:
        if unit not in self.gains:
            self.gains[unit] = self._difference(unit, *self.moved[unit])
        return self.gains[unit]

    def _level(self, unit: int) -> Tensor:
        if unit not in self.levels:
            live = self.live.nodes[unit]
            old = live.places.take(self.live.ablated.codes[live.component][:, :, live.number])
            self.levels[unit] = self._difference(unit, self.moved[unit][0], old)
        return self.levels[unit]

    def _still(self, row: int, column: int) -> Tensor:
        """What a sender that does not change adds to the ablated run's stream at an input, `[b, n, d_model]`."""
        unit = self.live.unit(row, column)
        live = self.live.nodes.get(unit)
        if live is None:
            return -self.live.delta(row, self.live.readings[column])
        self.moved.setdefault(unit, (live.code[None], live.code))
        return narrow(self._level(unit), live.readers[column])[0]

    def _difference(self, unit: int, new: Tensor, old: Tensor) -> Tensor:
        live = self.live.nodes[unit]
        with self.live.watch.timed("mlps" if live.node.kind == "mlp" else "attention"):
            return self.live.difference(live, new, old)
