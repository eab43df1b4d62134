"""The live part of a model in a search: the nodes that the logits still depend on, and what they hold now.

Everything else is as it was recorded once: the clean run, and how far each node's ablated output is from its clean one.
`flow.py` carries changes through the live part; `incremental.py` asks for them.

Shapes: c candidates, b rows of prompts, p positions, n places (the live positions, see `places.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewise.graph.graph import Bools
from edgewise.graph.names import Input, InputKind, Node
from edgewise.models.components import stream_dtype
from edgewise.models.decoder import positions_of
from edgewise.models.recorded import Recorded
from edgewise.patching.experiment import Experiment
from edgewise.patching.places import Places, narrow
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


Slot = tuple[int, InputKind]
"""What a node is made of: a query at the positions of one column, a key or value at all positions (the first column of
its input), an MLP's stream, the final stream."""


@dataclass
class LiveNode:
    """A node that the logits depend on: where its output is needed, what it is there now, and who reads it.

    Where a graph splits positions by spans, a node is one of these for each span, its unit.

    Attributes:
        reads: the columns that it reads, and what it is made of of each.
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
    reads: tuple[tuple[int, tuple[Slot, ...]], ...] = ()


@dataclass
class Reading:
    """An input of a live node: where it is needed, and its stream now.

    Attributes:
        stream: `[b, n, d_model]`; shared with other inputs until it changes.
        queries: of a head's input from which a query is made, the places of that; None of others.
        attached: False once the port edge has gone, so that nothing depends on the stream any more.
    """

    column: int
    place: Input
    places: Places
    stream: Tensor
    queries: Places | None = None
    attached: bool = True


class LivePart:
    """What is recorded once, and what is live of the model.

    Attributes:
        edges: `[sources, inputs]`, which edges are present.
        n_spans, spans: columns per input, and `[spans, b, p]`, the positions of each; None if there is one.
        nodes, readings: by unit (`row * n_spans + span`) and by column, those that have been opened.
        values: what nodes are made of now: queries `[b, n, d_head]`, keys and values `[b, p, d_head]`, the streams of
            MLPs, and the final one at all scored places, `[b, n, d_model]`.
        moves: `[b, p]`, where anything can differ between the clean and the ablated run.
        scored: the places at which the metric reads the final stream.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.decoder, self.graph = experiment.decoder, experiment.graph
        self.ablated = ablated = experiment.ablated_activations
        self.wiring, self.dtype = Wiring.of(self.decoder, self.graph), stream_dtype(self.decoder.dtype)
        self.watch = Stopwatch()
        self.edges, self.n_spans = self.graph.edges.copy(), self.graph.n_spans
        self.nodes: dict[int, LiveNode] = {}
        self.readings: dict[int, Reading] = {}
        self.values: dict[Slot, Tensor] = {}
        prompts = experiment.task.prompts
        self.spans = experiment.span_masks(prompts)
        self.allowed = self.decoder.allowed(prompts.mask)
        self.positions = positions_of(prompts.clean)
        self.clean = clean = experiment.clean()
        self._embedding_deltas = (ablated.embedding - clean.embedding).to(self.dtype)
        self.deltas: Recorded[Tensor] = self.decoder.recording()
        for there, here in zip(ablated.codes, clean.codes, strict=True):
            self.deltas.append(there - here)
        self._fallback = prompts.mask.sum(dim=1) - 1
        self._streams: list[tuple[int, Places, Tensor]] = []
        at_same = prompts.alignment is None and prompts.corrupt_positions is None
        self.moves = self._where_it_moves(follows=experiment.ablation == "resample" and at_same) & prompts.mask
        scored = torch.zeros_like(prompts.mask)
        scored[prompts.scored_rows, prompts.scored_positions] = True
        self._sees: dict[int, list[list[int]]] = {}
        logits = self.graph.columns("logits")
        self.logits, self.scored = range(logits.start, logits.stop), Places.of(scored, self._fallback)
        self.final: Slot = (logits.start, "logits")
        self.values[self.final] = self._read(logits.start, self.scored).stream
        for column in self.logits:
            self.readings[column] = self._read(column, self._places(scored, column))

    def _where_it_moves(self, *, follows: bool) -> Tensor:
        """`follows`: whether the ablated run differs from the clean one by what it reads alone."""
        moves = (self._embedding_deltas != 0).any(dim=-1).any(dim=0)
        # Of a run on other prompts all follows from the tokens; before the first that differs, deltas are rounding.
        for delta in [] if follows else self.deltas:
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
        place, component = self.graph.inputs[column], self.wiring.component[column]
        assert component is not None
        rows, span = self.graph.nodes_moved_by(place), column % self.n_spans
        own = [self._open_node(unit) for unit in self._alive(rows, [span])]
        at_queries, needed = self._needed(live.places for live in own), torch.zeros_like(self.moves)
        if place.kind not in ("k", "v"):
            needed = needed | at_queries
        if place.kind not in ("q", "mlp"):
            seen = [self._open_node(unit) for unit in self._alive(rows, range(self.n_spans))]
            allowed = self.allowed[component]
            assert allowed is not None
            queries = self._needed(live.places for live in seen)
            needed = needed | ((allowed & queries[..., None]).any(dim=1) & self.moves)
        reading = self._read(column, self._places(needed, column))
        if place.kind in ("q", "head"):
            reading.queries = reading.places if place.kind == "q" else Places.of(at_queries, self._fallback)
        self.readings[column] = reading
        for kind in self.wiring.asks[column]:
            slot = self.slot(column, kind)
            if kind == "mlp":
                self.values[slot] = reading.stream
            elif kind == "q":
                assert reading.queries is not None
                stream = narrow(reading.stream[None], reading.queries.within(reading.places))
                self.values[slot] = self.value(column, kind, stream, reading.queries)[0]
            elif slot not in self.values:
                # At every position, since a query may look at keys that never change.
                self.values[slot] = self.value(column, kind, self.clean.streams[self._reads(column)][None], None)[0]
        return reading

    def _places(self, needed: Tensor, column: int) -> Places:
        """The places of an input, of those at which its node is needed."""
        inside = needed if self.spans is None else needed & self.spans[column % self.n_spans]
        return Places.of(inside, self._fallback)

    def _needed(self, places: Iterable[Places]) -> Tensor:
        """`[b, p]`: all of some places, without those that stand in rows which need none."""
        needed = torch.zeros_like(self.moves)
        for one in places:
            if one.meant is None:
                needed = needed | one.mask
            else:
                needed[one.meant] |= one.mask[one.meant]
        return needed

    def slot(self, column: int, kind: InputKind) -> Slot:
        """Where that is which a column's node makes of it (see `Slot`)."""
        return (column - column % self.n_spans if kind in ("k", "v") else column), kind

    def sees(self, component: int, span: int) -> list[int]:
        """The spans from whose positions a component sees those of one span."""
        if self.spans is None:
            return [0]
        if component not in self._sees:
            allowed, at = self.allowed[component], self.spans.to(torch.float32)
            assert allowed is not None
            seen = torch.einsum("sbq,bqk,tbk->ts", at, allowed.to(at.dtype), at) > 0
            self._sees[component] = [row.nonzero()[:, 0].tolist() for row in seen]
        return self._sees[component][span]

    def units_moved_by(self, column: int) -> list[int]:
        """The units of the live nodes that write something else when an input reads something else."""
        place, component, span = self.graph.inputs[column], self.wiring.component[column], column % self.n_spans
        if component is None:
            return []
        spans = [span] if place.kind in ("q", "mlp") else self.sees(component, span)
        rows = self.graph.nodes_moved_by(place)
        return [unit for row in rows for one in spans if (unit := self.unit(row, one)) in self.nodes]

    def unit(self, row: int, column: int) -> int:
        """The unit of a sender at the positions of a column, or of a span by its number."""
        return row * self.n_spans + column % self.n_spans

    def _alive(self, rows: Sequence[int], spans: Sequence[int]) -> list[int]:
        """The units of some nodes that something reads; of coupled ones all, if something reads one of them."""
        units: list[int] = []
        for row in rows:
            together = self.together(row) if self.coupled(row) else slice(row, row + 1)
            for span in spans:
                if self.read_at(together, span).any():
                    units.append(self.unit(row, span))
        return units

    def alive(self, column: int) -> bool:
        """Whether what an input reads can still reach the logits."""
        return self.graph.shows(self.edges, column)

    def together(self, row: int) -> slice:
        """The rows of all nodes of a node's component, which is what moves with it where nodes are coupled."""
        found = self.wiring.node[row]
        assert found is not None
        return self.wiring.rows[found[0]]

    def coupled(self, row: int) -> bool:
        """Whether a node shares a scale with others of its component."""
        found = self.wiring.node[row]
        return found is not None and self.decoder.components[found[0]].coupled

    def _open_node(self, unit: int) -> LiveNode:
        if unit in self.nodes:
            return self.nodes[unit]
        row, span = divmod(unit, self.n_spans)
        found = self.wiring.node[row]
        assert found is not None
        component, number = found
        # Coupled nodes are needed wherever one of them is, those that nobody reads too.
        rows = self.together(row) if self.coupled(row) else slice(row, row + 1)
        read = [int(one) * self.n_spans + span for one in np.flatnonzero(self.read_at(rows, span).any(axis=0))]
        places = Places.of(self._needed(self.readings[column].places for column in read), self._fallback)
        code = places.take(self.clean.codes[component][:, :, number])
        own = [int(one) * self.n_spans + span for one in np.flatnonzero(self.read_at(row, span))]
        readers = {column: self.readings[column].places.within(places) for column in own}
        node, reads = self.graph.sources[row], self._reads_of(row, span)
        self.nodes[unit] = LiveNode(node, component, number, places, code, readers, reads=reads)
        return self.nodes[unit]

    def read_at(self, rows: int | slice, column: int) -> Bools:
        """Which inputs read a node, or each of some, at the positions of a column, or of a span by its number."""
        return self.edges[rows, column % self.n_spans :: self.n_spans]

    def _reads_of(self, row: int, span: int) -> tuple[tuple[int, tuple[Slot, ...]], ...]:
        """The columns that a unit reads, and what it is made of of each: keys and values of those of every span."""
        reads = []
        for column in self.graph.inputs_of(self.graph.sources[row]):
            own, asks = column % self.n_spans == span, self.wiring.asks[column]
            kinds: list[InputKind] = [kind for kind in asks if own or kind in ("k", "v")]
            if kinds:
                reads.append((column, tuple(self.slot(column, kind) for kind in kinds)))
        return tuple(reads)

    def _read(self, column: int, places: Places) -> Reading:
        """A reading of the clean stream, one tensor for all inputs that read it at the same places."""
        at, place = self._reads(column), self.graph.inputs[column]
        for known, same, stream in self._streams:
            if known == at and same == places:
                return Reading(column, place, same, stream)
        self._streams = [known for known in self._streams if known[0] <= at]
        self._streams.append((at, places, places.take(self.clean.streams[at])))
        return Reading(column, place, places, self._streams[-1][2])

    def _reads(self, column: int) -> int:
        """Which of the recorded streams an input reads; the last one is the logits'."""
        component = self.wiring.component[column]
        return len(self.decoder.components) if component is None else self.decoder.reads[component]

    # -- computing ----------------------------------------------------------------------------------------------------

    def value(self, column: int, kind: InputKind, stream: Tensor, places: Places | None) -> Tensor:
        """A query, key or value `[c, b, n, d_head]` from its streams `[c, b, n, d_model]`."""
        component, number = self.wiring.component[column], self.wiring.asks[column][kind]
        assert component is not None
        count, rows = stream.shape[:2]
        at = self.positions
        if places is not None and places.index is not None:
            at = places.index.repeat(count, 1)
        x = stream.to(self.decoder.dtype).flatten(0, 1)[:, :, None]
        value = self.decoder.components[component].project(kind, x, at, [number])
        return value[:, :, 0].unflatten(0, (count, rows))

    def ablated_value(self, reading: Reading) -> Tensor:
        """A query `[b, n, d_head]`, or a key or value `[b, p, d_head]`, as the ablated run computes it."""
        component, ((kind, number),) = self.wiring.component[reading.column], self.wiring.asks[reading.column].items()
        assert component is not None
        value = self.ablated.projections[component][kind][:, :, number]
        if kind == "q":
            return reading.places.take(value)
        if self.spans is None:
            return value
        now, places = self.values[self.slot(reading.column, kind)], reading.places
        return places.put(now[None], places.take(value)[None], places.index)[0]

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

    def delta(self, row: int, reading: Reading) -> Tensor:
        """What a stream gains when a sender's clean value gives way to its ablated one, `[b, n, d_model]`."""
        found = self.wiring.node[row]
        if found is None:
            return reading.places.take(self._embedding_deltas[row])
        component, number = found
        return self.write(component, number, reading.places.take(self.deltas[component][:, :, number]))

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
        tensors += [reading.stream for reading in self.readings.values()] + list(self.values.values())
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
