"""The live part of a model in a search: the nodes that the logits still depend on, and what they hold now.

Everything else is as it was recorded once: the clean run, and how far each node's ablated output is from its clean one.
`flow.py` carries changes through the live part; `incremental.py` asks for them.

Shapes: c candidates, b rows of prompts, p positions, n places (the live positions, see `places.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewise.graph.names import Input, InputKind, Node
from edgewise.models.components import stream_dtype
from edgewise.models.decoder import positions_of
from edgewise.patching.experiment import Experiment
from edgewise.patching.places import Places
from edgewise.patching.wiring import Wiring

STAGES = ("senders", "attention", "mlps", "vocabulary")


class Stopwatch:
    """Time spent in each of `STAGES`, in seconds (on a GPU, where its results are waited for: in the vocabulary)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._inner = 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started, outer, self._inner = time.perf_counter(), self._inner, 0.0
        yield
        elapsed = time.perf_counter() - started
        self.seconds[stage] += elapsed - self._inner  # what stages inside this one took is theirs
        self._inner = outer + elapsed


@dataclass
class LiveNode:
    """A node that the logits depend on: where its output is needed, what it is there now, and who reads it.

    Attributes:
        component, number: which of the model's components it belongs to, and which node of that it is.
        code: what is kept of it, a head's z `[b, n, d_head]`, an MLP's output `[b, n, d_model]`.
        activation: where heads are coupled, what the node has made by itself, from which codes are settled, if known.
        readers: by column of the inputs that read it, their places among this node's.
    """

    node: Node
    component: int
    number: int
    places: Places
    code: Tensor
    readers: dict[int, Tensor | None]
    activation: Tensor | None = None


@dataclass
class Reading:
    """An input of a live node: where it is needed, its stream now, and a head's query, key or value made of that.

    Attributes:
        stream: `[b, n, d_model]`; shared with other inputs until it changes.
        value: a query `[b, n, d_head]`; a key or value at all positions, `[b, p, d_head]`; None for an MLP.
        attached: False once the port edge has gone, so that the value no longer depends on the stream.
    """

    column: int
    place: Input
    places: Places
    stream: Tensor
    value: Tensor | None
    attached: bool = True


class LivePart:
    """What is recorded once, and what is live of the model.

    Attributes:
        edges: `[sources, inputs]`, which edges are present.
        nodes, readings: by row and by column, those that have been opened.
        moves: `[b, p]`, where anything can differ between the clean and the ablated run.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.decoder, self.graph = experiment.decoder, experiment.graph
        self.ablated = ablated = experiment.ablated_activations
        self.wiring, self.dtype = Wiring.of(self.decoder, self.graph), stream_dtype(self.decoder.dtype)
        self.watch = Stopwatch()
        self.edges = self.graph.edges.copy()
        self.nodes: dict[int, LiveNode] = {}
        self.readings: dict[int, Reading] = {}
        prompts = experiment.task.prompts
        self.allowed = self.decoder.allowed(prompts.mask)
        self.positions = positions_of(prompts.clean)
        self.clean = clean = experiment.clean()
        self._embedding_deltas = (ablated.embedding - clean.embedding).to(self.dtype)
        self.deltas = [there - here for there, here in zip(ablated.codes, clean.codes, strict=True)]
        self._fallback = prompts.mask.sum(dim=1) - 1
        self._streams: list[tuple[int, Places, Tensor]] = []
        self.moves = self._where_it_moves() & prompts.mask
        scored = torch.zeros_like(prompts.mask)
        scored[prompts.scored_rows, prompts.scored_positions] = True
        self.logits = len(self.graph.inputs) - 1
        self.readings[self.logits] = self._read(self.logits, Places.of(scored, self._fallback))

    def _where_it_moves(self) -> Tensor:
        moves = (self._embedding_deltas != 0).any(dim=-1).any(dim=0)
        for delta in self.deltas:
            moves = moves | (delta != 0).flatten(2).any(dim=-1)
        # What moves at one position moves everything that may look at it.
        for allowed in self.allowed:
            if allowed is not None:
                moves = (allowed & moves[:, None]).any(dim=-1) | moves
        return moves

    # -- opening: nodes and inputs, when a search first comes to them -------------------------------------------------

    def open(self, column: int) -> Reading:
        """The reading of an input, made when the search first comes to it: what it feeds is settled by then."""
        if column in self.readings:
            return self.readings[column]
        place = self.graph.inputs[column]
        moved = self.graph.nodes_moved_by(place)
        alive = [self._open_node(row) for row in moved if self.edges[row].any() or self.coupled(row)]
        needed = alive[0].places.mask
        for live in alive[1:]:
            needed = needed | live.places.mask
        if place.kind in ("k", "v"):
            allowed = self.allowed[alive[0].component]
            assert allowed is not None
            needed = (allowed & needed[..., None]).any(dim=1) & self.moves
        reading = self._read(column, Places.of(needed, self._fallback))
        self.readings[column] = reading
        if place.kind != "mlp":
            # At every position, since a query may look at keys that never change.
            stream = reading.stream if place.kind == "q" else self.clean.streams[self._reads(column)]
            reading.value = self.value(column, stream[None], reading.places if place.kind == "q" else None)[0]
        return reading

    def alive(self, column: int) -> bool:
        """Whether what an input reads can still reach the logits."""
        place = self.graph.inputs[column]
        rows = list(self.graph.nodes_moved_by(place))
        return column == self.logits or bool(self.edges[rows].any())

    def together(self, row: int) -> slice:
        """The rows of all nodes of a node's component, which is what moves with it where nodes are coupled."""
        found = self.wiring.node[row]
        assert found is not None
        return self.wiring.rows[found[0]]

    def coupled(self, row: int) -> bool:
        """Whether a node shares a scale with others of its component."""
        found = self.wiring.node[row]
        return found is not None and self.decoder.components[found[0]].coupled

    def _open_node(self, row: int) -> LiveNode:
        if row in self.nodes:
            return self.nodes[row]
        found = self.wiring.node[row]
        assert found is not None
        component, number = found
        # Coupled nodes are needed wherever one of them is, those that nobody reads too.
        rows = self.together(row) if self.coupled(row) else slice(row, row + 1)
        needed = torch.zeros_like(self.moves)
        for column in np.flatnonzero(self.edges[rows].any(axis=0)).tolist():
            needed = needed | self.readings[column].places.mask
        places = Places.of(needed, self._fallback)
        code = places.take(self.clean.codes[component][:, :, number])
        columns = [int(column) for column in self.edges[row].nonzero()[0]]
        readers = {column: self.readings[column].places.within(places) for column in columns}
        self.nodes[row] = LiveNode(self.graph.sources[row], component, number, places, code, readers)
        return self.nodes[row]

    def _read(self, column: int, places: Places) -> Reading:
        """A reading of the clean stream, one tensor for all inputs that read it at the same places."""
        at, place = self._reads(column), self.graph.inputs[column]
        for known, same, stream in self._streams:
            if known == at and same == places:
                return Reading(column, place, same, stream, None)
        self._streams = [known for known in self._streams if known[0] <= at]
        self._streams.append((at, places, places.take(self.clean.streams[at])))
        return Reading(column, place, places, self._streams[-1][2], None)

    def _reads(self, column: int) -> int:
        """Which of the recorded streams an input reads; the last one is the logits'."""
        found = self.wiring.input[column]
        return len(self.decoder.components) if found is None else self.decoder.reads[found[0]]

    # -- computing ----------------------------------------------------------------------------------------------------

    def value(self, column: int, stream: Tensor, places: Places | None) -> Tensor:
        """A query, key or value `[c, b, n, d_head]` from its streams `[c, b, n, d_model]`."""
        found = self.wiring.input[column]
        assert found is not None
        component, kind, number = found
        count, rows = stream.shape[:2]
        at = self.positions
        if places is not None and places.index is not None:
            at = places.index.repeat(count, 1)
        x = stream.to(self.decoder.dtype).flatten(0, 1)[:, :, None]
        value = self.decoder.components[component].project(kind, x, at, [number])
        return value[:, :, 0].unflatten(0, (count, rows))

    def ablated_value(self, reading: Reading) -> Tensor:
        """A query `[b, n, d_head]`, or a key or value `[b, p, d_head]`, as the ablated run computes it."""
        found = self.wiring.input[reading.column]
        assert found is not None
        component, kind, number = found
        value = self.ablated.projections[component][kind][:, :, number]
        return reading.places.take(value) if kind == "q" else value

    def act(self, lives: Sequence[LiveNode], projections: Sequence[Mapping[InputKind, Tensor]]) -> list[Tensor]:
        """What nodes of one component make of what their inputs read, each `[c, b, n, width]`, of c candidates or 1."""
        count = max(one.shape[0] for each in projections for one in each.values())
        component = lives[0].component
        allowed = self.allowed[component]
        made = self.decoder.components[component].act(
            {kind: self._beside([each[kind] for each in projections], count) for kind in projections[0]},
            None if allowed is None else self._merged(lives[0].places.take(allowed)[None], count),
            [live.number for live in lives],
        )
        return list(made.unflatten(0, (count, -1)).unbind(dim=3))

    def settle(self, component: int, activations: Sequence[Tensor]) -> list[Tensor]:
        """What is kept of nodes, each `[c, b, n, width]`, from what they have made: of all that settle together."""
        count = max(one.shape[0] for one in activations)
        settled = self.decoder.components[component].settle(self._beside(activations, count))
        return list(settled.unflatten(0, (count, -1)).unbind(dim=3))

    def _beside(self, tensors: Sequence[Tensor], count: int) -> Tensor:
        """`[c or 1, b, n, width]` of several nodes as `[c * b, n, nodes, width]`."""
        merged = [self._merged(one, count) for one in tensors]
        return merged[0][:, :, None] if len(merged) == 1 else torch.stack(merged, dim=2)

    def _merged(self, x: Tensor, count: int) -> Tensor:
        """`[c or 1, b, ...]` -> `[c * b, ...]`."""
        return x.expand(count, *x.shape[1:]).reshape(count * len(self.moves), *x.shape[2:])

    def write(self, component: int, number: int, code: Tensor) -> Tensor:
        """What a node's code `[..., width]` adds to the residual stream, `[..., d_model]`."""
        return self.decoder.components[component].write_node(number, code).to(self.dtype)

    def difference(self, live: LiveNode, new: Tensor, old: Tensor) -> Tensor:
        """How far what a node adds to the stream with one code is from what it adds with another, `[..., d_model]`."""
        if live.node.kind == "mlp":  # in the stream's dtype, as it is added there
            return new.to(self.dtype) - old.to(self.dtype)
        return self.write(live.component, live.number, new - old)

    def floor(self, reading: Reading) -> Tensor:
        """The ablated run's stream at an input, `[b, n, d_model]`: what it holds if no edge leads there."""
        return reading.places.take(self.ablated.streams[self._reads(reading.column)])

    def delta(self, row: int, places: Places) -> Tensor:
        """What a stream gains when a sender's clean value gives way to its ablated one, `[b, n, d_model]`."""
        found = self.wiring.node[row]
        if found is None:
            return places.take(self._embedding_deltas[row])
        component, number = found
        return self.write(component, number, places.take(self.deltas[component][:, :, number]))

    # -- how much there is of it --------------------------------------------------------------------------------------

    def waiting(self) -> float:
        """Streams of all positions that one candidate may leave waiting: what a head or MLP adds waits for readers."""
        length = len(self.moves[0])
        # An MLP's output stands beside what it adds.
        return sum((1 + (live.node.kind == "mlp")) * live.places.width for live in self.nodes.values()) / length

    def held(self) -> int:
        """Bytes that the live part of the circuit holds, streams that are still shared counted once."""
        tensors = [live.code for live in self.nodes.values()]
        tensors += [live.activation for live in self.nodes.values() if live.activation is not None]
        for reading in self.readings.values():
            tensors += [reading.stream] if reading.value is None else [reading.stream, reading.value]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
