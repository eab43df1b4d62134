"""The incremental evaluator: what the metric becomes if edges into one input go, one after another.

ACDC asks that question at every input, walking from the logits back to the embedding. A circuit run answers it with a
whole pass of the model per edge. This engine gives the same answers with the arithmetic that can change them:

* *Nothing upstream moves.* All senders of the input under test still hold their clean values, which were recorded once;
  without the edges removed so far, the input holds its clean stream plus what those senders' ablated values differ by.
* *Only the circuit moves.* A removed edge changes the node that reads the input and, from there on, only nodes that
  edges of the circuit lead to. Each of those keeps its present input and output, so that a change is a difference.
* *Only live positions move.* A node is computed where something downstream can see it: at the scored positions if only
  the logits read it, at the positions before them if keys and values do; and nowhere before the first token at which
  clean and ablated runs differ.
* *Guess, then check.* A block of candidates is computed at once, each as if the guesses before it were right; answers
  are taken in order, until the first wrong guess. Most edges go, so that is the guess, unless a block that was cut
  short has shown what the edge will do.

Heads are kept as z, d_head wide, and go through W_O where their differences are needed. A stream to which few edges
lead, or only ones that change, is summed up anew from the ablated run's, as a circuit run does, so that rounding leaves
nothing of what has gone: a norm would make it large where little else is left.

`scoring.py` has the way from final streams to the metric. `discovery.PlainEngine` answers the same question by circuit
runs and shares no code with this file beyond `Decoder` and the recorded ablated activations.

Shapes: c candidates, b rows of prompts, p positions, n places (the live positions, see `places.py`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.graph.names import Input, Node
from edgewise.models.decoder import positions_of, stream_dtype
from edgewise.models.forward import Activations
from edgewise.models.matmul import fast_matmul
from edgewise.patching.ablation import Ablated
from edgewise.patching.experiment import Experiment
from edgewise.patching.memory import MOST_CANDIDATES, OutOfMemoryError, plan_memory
from edgewise.patching.places import Places, narrow
from edgewise.patching.scoring import scorer_for

_NO_ROOM = (
    "the GPU has no room left for even one candidate at a time. Use fewer prompts with --examples, a higher threshold, "
    "or --dtype bfloat16"
)

FEW = 8
"""Edges into an input up to which its stream is summed up anew."""

STAGES = ("senders", "attention", "mlps", "vocabulary")

Removable = Callable[[float, float], bool]


@contextmanager
def _computing() -> Iterator[None]:
    """Without gradients, with fast matrix products; a GPU that is full becomes an error that a search can end with."""
    try:
        with torch.no_grad(), fast_matmul():
            yield
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(_NO_ROOM) from None


def _never(before: float, after: float) -> bool:
    return False


def _written(node: Node, run: Activations | Ablated) -> Tensor:
    """What a head (as z) or an MLP writes in a run, `[b, p, d_head or d_model]`."""
    return run.z[node.layer][:, :, node.head] if node.kind == "head" else run.mlp[node.layer]


@dataclass
class _Live:
    """A node that the logits depend on: where its output is needed, what it is there now, and who reads it.

    Attributes:
        out: a head's z `[b, n, d_head]`, an MLP's output `[b, n, d_model]`.
        readers: by column of the inputs that read it, their places among this node's.
    """

    node: Node
    places: Places
    out: Tensor
    readers: dict[int, Tensor | None]


@dataclass
class _Reading:
    """An input of a live node: where it is needed, its stream now, and a head's query, key or value made of that.

    Attributes:
        stream: `[b, n, d_model]`; shared with other inputs until it changes.
        value: a query `[b, n, d_head]`; a key or value at all positions, `[b, p, d_head]`; None for an MLP.
        attached: False once the port edge has gone, so that the value no longer depends on the stream.
    """

    place: Input
    places: Places
    stream: Tensor
    value: Tensor | None
    attached: bool = True


@dataclass(frozen=True)
class Costs:
    """What one candidate costs on this machine, in seconds, computed at all positions.

    Attributes:
        sender: the difference that one edge makes to a stream.
        head: one head, from three streams to what it writes.
        mlp: one MLP; 0 in a model without.
        vocabulary: from final streams to the metric.
    """

    sender: float
    head: float
    mlp: float
    vocabulary: float


class IncrementalEngine:
    """Answers a search's questions by recomputing only what an edge can change (see `discovery.Engine`).

    Attributes:
        current: the metric of the circuit as it is now.
        plan: how it fits into memory; `most`: candidates at once, fewer after a GPU has been full.
        seconds: time spent in each of `STAGES` (on a GPU, where its results are waited for: in the vocabulary).
        blocks, computed: batches of candidates made, and candidates in them.
    """

    def __init__(self, experiment: Experiment, max_memory: int | None = None) -> None:
        """
        Args:
            max_memory: bytes that may be used beyond the model's weights (see `plan_memory`).

        Raises:
            EdgewiseError: it cannot be done in so little.
        """
        self.experiment = experiment
        self.decoder, self.graph = experiment.decoder, experiment.graph
        self.config = self.decoder.config
        self.dtype = stream_dtype(self.decoder.dtype)
        self.plan = plan_memory(experiment.decoder, experiment.task, experiment.graph, max_memory)
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._inner = 0.0
        self.blocks = self.computed = 0
        self.most = MOST_CANDIDATES
        prompts = experiment.task.prompts
        self._edges = self.graph.edges.copy()
        with _computing():
            self._record(prompts.clean, prompts.mask)
            self._scored = Places.of(self._mask_of_scored(), self._fallback)
            self._scored_rows = prompts.scored_rows
            self._scored_at = self._scored.find(prompts.scored_rows, prompts.scored_positions)
            final = self._clean.streams[-1][prompts.scored_rows, prompts.scored_positions]
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, final, self.plan.chunk)
            self._live: dict[int, _Live] = {}
            self._readings: dict[int, _Reading] = {}
            self._streams: list[tuple[int, str, Places, Tensor]] = []
            self._open_logits()
            self.current = self._metric(self._readings[self._logits].stream[None])[0]

    # -- what is recorded once ----------------------------------------------------------------------------------------

    def _record(self, tokens: Tensor, mask: Tensor) -> None:
        ablated = self.experiment.ablated_activations
        self._allowed = self.decoder.allowed(mask)
        self._positions = positions_of(tokens)
        self._clean = clean = self.experiment.clean()
        self._embedding_deltas = (ablated.embedding - clean.embedding).to(self.dtype)
        self._z_deltas = [there - here for there, here in zip(ablated.z, clean.z, strict=True)]
        self._mlp_deltas = [there - here for there, here in zip(ablated.mlp, clean.mlp, strict=True)]
        self._fallback = mask.sum(dim=1) - 1
        moves = (self._embedding_deltas != 0).any(dim=-1).any(dim=0)
        for delta in self._z_deltas:
            moves = moves | (delta != 0).flatten(2).any(dim=-1)
        for delta in self._mlp_deltas:
            moves = moves | (delta != 0).any(dim=-1)
        # What moves at one position moves everything that may look at it.
        self._moves = (self._allowed & moves[:, None]).any(dim=-1) | moves
        self._moves &= mask

    def _mask_of_scored(self) -> Tensor:
        prompts = self.experiment.task.prompts
        mask = torch.zeros_like(prompts.mask)
        mask[prompts.scored_rows, prompts.scored_positions] = True
        return mask

    @property
    def _logits(self) -> int:
        return len(self.graph.inputs) - 1

    # -- the live part of the model -----------------------------------------------------------------------------------

    def _open_logits(self) -> None:
        place = self.graph.inputs[self._logits]
        stream = self._scored.take(self._clean.streams[-1])
        self._readings[self._logits] = _Reading(place, self._scored, stream, None)

    def _open(self, column: int) -> _Reading:
        """The reading of an input, made when the search first comes to it: what it feeds is settled by then."""
        if column in self._readings:
            return self._readings[column]
        place = self.graph.inputs[column]
        alive = [self._open_node(row) for row in self.graph.nodes_reading(place) if self._edges[row].any()]
        needed = alive[0].places.mask
        for live in alive[1:]:
            needed = needed | live.places.mask
        if place.kind in ("k", "v"):
            needed = (self._allowed & needed[..., None]).any(dim=1) & self._moves
        reading = _Reading(place, *self._clean_stream(place, Places.of(needed, self._fallback)), None)
        self._readings[column] = reading
        if place.kind != "mlp":
            # At every position, since a query may look at keys that never change.
            stream = reading.stream if place.kind == "q" else self._clean.streams[place.layer]
            where = reading.places if place.kind == "q" else None
            reading.value = self._value(place, stream[None], where)[0]
        return reading

    def _open_node(self, row: int) -> _Live:
        if row in self._live:
            return self._live[row]
        node = self.graph.sources[row]
        columns = [int(column) for column in self._edges[row].nonzero()[0]]
        needed = torch.zeros_like(self._moves)
        for column in columns:
            needed = needed | self._readings[column].places.mask
        places = Places.of(needed, self._fallback)
        whole = _written(node, self._clean)
        readers = {column: self._readings[column].places.within(places) for column in columns}
        live = _Live(node, places, places.take(whole), readers)
        self._live[row] = live
        return live

    def _clean_stream(self, place: Input, places: Places) -> tuple[Places, Tensor]:
        """The clean stream at an input, one tensor for all inputs of a layer that need the same places."""
        kind = "mlp" if place.kind == "mlp" else "attention"
        for layer, known, same, stream in self._streams:
            if (layer, known) == (place.layer, kind) and same == places:
                return same, stream
        stream = self._clean.streams[place.layer]
        layer = self.decoder.layers[place.layer]
        if kind == "mlp" and not self.config.parallel:
            stream = stream + layer.write(self._clean.z[place.layer]).sum(dim=2) + layer.bias
        self._streams = [known for known in self._streams if known[0] <= place.layer]
        self._streams.append((place.layer, kind, places, places.take(stream)))
        return self._streams[-1][2:]

    # -- computing ----------------------------------------------------------------------------------------------------

    def _value(self, place: Input, stream: Tensor, places: Places | None) -> Tensor:
        """A query, key or value `[c, b, n, d_head]` from its streams `[c, b, n, d_model]`."""
        layer, (count, rows) = self.decoder.layers[place.layer], stream.shape[:2]
        heads = [self._asked(place)]
        x = stream.to(self.decoder.dtype).flatten(0, 1)[:, :, None]
        if place.kind == "v":
            value = layer.value(x, heads)
        else:
            at = self._positions
            if places is not None and places.index is not None:
                at = places.index.repeat(count, 1)
            value = (layer.query if place.kind == "q" else layer.key)(x, at, heads)
        return value[:, :, 0].unflatten(0, (count, rows))

    def _asked(self, place: Input) -> int:
        """The model's query head, or key/value head, that an input asks.

        In a graph that gives every query head its own key and value input, several of them ask one key/value head.
        """
        ungrouped = place.kind != "q" and self.graph.n_kv_heads != self.config.n_kv_heads
        return place.head // self.config.share if ungrouped else place.head

    def _attend(self, live: _Live, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A head's z `[c, b, n, d_head]`; `q`, `k` and `v` have c candidates or one."""
        count = max(q.shape[0], k.shape[0], v.shape[0])
        rows = self._allowed.shape[0]

        def merged(x: Tensor) -> Tensor:
            return x.expand(count, *x.shape[1:]).reshape(count * rows, *x.shape[2:])

        allowed = merged(live.places.take(self._allowed)[None])
        layer = self.decoder.layers[live.node.layer]
        z = layer.attend(merged(q)[:, :, None], merged(k)[:, :, None], merged(v)[:, :, None], allowed)
        return z[:, :, 0].unflatten(0, (count, rows))

    def _write(self, node: Node, z: Tensor) -> Tensor:
        """What z `[..., d_head]` of a head adds to the residual stream, `[..., d_model]`."""
        weight = self.decoder.layers[node.layer].output.weight[node.head]
        return (z @ weight).to(self.dtype)

    def _floor(self, reading: _Reading) -> Tensor:
        """The ablated run's stream at an input, `[b, n, d_model]`: what it holds if no edge leads there."""
        place, ablated = reading.place, self.experiment.ablated_activations
        if place.kind == "logits":
            return reading.places.take(ablated.final_stream)
        streams = ablated.mlp_streams if place.kind == "mlp" else ablated.attention_streams
        return reading.places.take(streams[place.layer])

    def _delta(self, row: int, places: Places) -> Tensor:
        """What a stream gains when a sender's clean value gives way to its ablated one, `[b, n, d_model]`."""
        node = self.graph.sources[row]
        if node.kind == "head":
            return self._write(node, places.take(self._z_deltas[node.layer][:, :, node.head]))
        if node.kind == "mlp":
            return places.take(self._mlp_deltas[node.layer]).to(self.dtype)
        return places.take(self._embedding_deltas[row])

    def _run(self, column: int, seed: Tensor, *, port: bool = False, keep: bool = False) -> Tensor:
        """Final streams `[c, b, n, d_model]` if an input held the streams `seed` `[c, b, n, d_model]`.

        With `port`, `seed` is the query, key or value itself. With `keep` (and one candidate) that is how things are
        from now on.
        """
        if column == self._logits:
            if keep:
                self._readings[column].stream = seed[0]
            return seed
        flow = _Flow(self, keep)
        flow.start(column, seed, port)
        return flow.run()

    def _metric(self, final: Tensor) -> list[float]:
        """The metric of each candidate, from its final streams `[c, b, n, d_model]`."""
        with self._timed("vocabulary"):
            values = self._score(final[:, self._scored_rows, self._scored_at])
            return values.to(torch.float64).mean(dim=1).tolist()

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started, outer, self._inner = time.perf_counter(), self._inner, 0.0
        yield
        elapsed = time.perf_counter() - started
        self.seconds[stage] += elapsed - self._inner  # what stages inside this one took is theirs
        self._inner = outer + elapsed

    def calibrate(self, repeats: int = 3) -> Costs:
        """Measure what a candidate costs, in the middle of the model."""
        middle = self.config.n_layers // 2
        layer, node = self.decoder.layers[middle], Node("head", middle, 0)
        with _computing():
            everywhere = Places(torch.ones_like(self._moves), None)
            stream = self._clean.streams[middle]
            count = self.plan.candidates(1, 0, 0)
            streams = stream[None].repeat(count, 1, 1, 1)
            final = self._readings[self._logits].stream[None].repeat(min(4 * count, MOST_CANDIDATES), 1, 1, 1)
            live = _Live(node, everywhere, self._clean.z[middle][:, :, 0], {})
            places = (Input("q", middle, 0), Input("k", middle, 0), Input("v", middle, 0))

            def sender() -> object:
                return [stream + self._write(node, self._z_deltas[middle][:, :, 0]) for _ in range(count)]

            def head() -> object:
                z = self._attend(live, *(self._value(place, streams, None) for place in places))
                return self._write(node, z - live.out)

            def mlp() -> object:
                return layer.mlp and layer.mlp(streams.to(self.decoder.dtype))

            def seconds(work: Callable[[], object]) -> float:
                taken = []
                for _ in range(repeats + 1):  # the first one warms up
                    started = time.perf_counter()
                    work()
                    if self.decoder.device.type == "cuda":
                        torch.cuda.synchronize(self.decoder.device)
                    taken.append(time.perf_counter() - started)
                return statistics.median(taken[1:])

            return Costs(
                sender=seconds(sender) / count,
                head=seconds(head) / count,
                mlp=seconds(mlp) / count if self.config.mlps else 0.0,
                vocabulary=seconds(lambda: self._metric(final)) / final.shape[0],
            )

    # -- what a search asks -------------------------------------------------------------------------------------------

    def prune(
        self, column: int, rows: Sequence[int | None], removable: Removable
    ) -> Iterator[tuple[int | None, float, float, bool]]:
        """See `discovery.Engine`."""
        if list(rows) == [None]:
            yield self._prune_port(column, removable)
            return
        question = _Question(self, column, [row for row in rows if row is not None], removable)
        yield from question.answers()

    def one_by_one(self, column: int, rows: Sequence[int | None]) -> Iterator[tuple[int | None, float]]:
        """The metric with one edge into an input removed and every other one present, for each of some in turn.

        Rows are as in `prune`; nothing is removed for good. Inputs have to be asked about in a search's order.
        """
        for row in rows:
            if row is None:
                yield row, self._prune_port(column, _never)[2]
        plain = [row for row in rows if row is not None]
        question = _Question(self, column, plain, _never)
        question.stays.update(plain)  # no guess that anything goes, so no block is ever cut short
        for row, _, after, _ in question.answers():
            yield row, after

    def _prune_port(self, column: int, removable: Removable) -> tuple[None, float, float, bool]:
        with _computing():
            reading = self._open(column)
            seed = self._ablated_value(reading)[None]
            before, after = self.current, self._metric(self._run(column, seed, port=True))[0]
            gone = removable(before, after)
            if gone:
                self._run(column, seed, port=True, keep=True)
                self.current = after
            return None, before, after, gone

    def _candidates(self, reading: _Reading) -> int:
        """How many candidates of an input to compute at once."""
        length = self._allowed.shape[1]
        # What a head or MLP adds waits for its readers, and an MLP's output beside it.
        waiting = sum((1 + (live.node.kind == "mlp")) * live.places.width for live in self._live.values()) / length
        return min(self.most, self.plan.candidates(reading.places.width / length, waiting, self._held()))

    def _held(self) -> int:
        """Bytes that the live part of the circuit holds, streams that are still shared counted once."""
        tensors = [live.out for live in self._live.values()]
        for reading in self._readings.values():
            tensors += [reading.stream] if reading.value is None else [reading.stream, reading.value]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())

    def _ablated_value(self, reading: _Reading) -> Tensor:
        place, ablated = reading.place, self.experiment.ablated_activations
        values = {"q": ablated.q, "k": ablated.k, "v": ablated.v}[place.kind][place.layer]
        value = values[:, :, self._asked(place)]
        return reading.places.take(value) if place.kind == "q" else value

    def drop(self, column: int) -> None:
        """See `discovery.Engine`."""
        self._edges[:, column] = False


class _Flow:
    """A change on its way through the circuit, node by node, from one input to the logits."""

    def __init__(self, engine: IncrementalEngine, keep: bool) -> None:
        self.engine, self.keep = engine, keep
        self.changes: dict[int, list[tuple[int, Tensor | None]]] = {}  # by column: rows that changed, where to find it
        self.moved: dict[int, tuple[Tensor, Tensor]] = {}  # by row: a node's new output and its present one
        self.gains: dict[int, Tensor] = {}  # by row: what its readers gain on what they have
        self.levels: dict[int, Tensor] = {}  # by row: what they gain on the ablated run
        self.values: dict[int, Tensor] = {}  # by column: new queries, keys, values
        self.waiting: set[int] = set()  # rows of nodes to compute

    def start(self, column: int, seed: Tensor, port: bool) -> None:
        engine = self.engine
        reading = engine._readings[column]
        place = reading.place
        if place.kind == "mlp":
            self.seed = seed
        elif port:
            self.values[column] = seed
            if self.keep:
                reading.value, reading.attached = seed[0], False
        else:
            with engine._timed("attention"):
                self.values[column] = self._valued(reading, seed)
        self.seeded = column
        if self.keep and not port:
            reading.stream = seed[0]
        self._wake(column)

    def _wake(self, column: int) -> None:
        engine = self.engine
        place = engine.graph.inputs[column]
        self.waiting.update(row for row in engine.graph.nodes_reading(place) if row in engine._live)

    def _valued(self, reading: _Reading, stream: Tensor) -> Tensor:
        value = self.engine._value(reading.place, stream, reading.places)
        if reading.place.kind != "q":
            assert reading.value is not None
            value = reading.places.put(reading.value, value)
        if self.keep:
            reading.value = value[0]
        return value

    def run(self) -> Tensor:
        engine = self.engine
        while self.waiting:
            row = min(self.waiting)  # rows are in topological order
            self.waiting.remove(row)
            live = engine._live[row]
            if live.node.kind == "mlp":
                with engine._timed("mlps"):
                    new = self._mlp(live)
            else:
                with engine._timed("attention"):
                    new = self._head(live)
            self.moved[row] = (new, live.out)
            if self.keep:
                live.out = new[0]
            for column, index in live.readers.items():
                if engine._readings[column].attached:
                    self.changes.setdefault(column, []).append((row, index))
                    self._wake(column)
        return self._stream(engine._logits)

    def _stream(self, column: int) -> Tensor:
        """An input's stream now, `[c, b, n, d_model]`."""
        engine = self.engine
        reading, changes = engine._readings[column], self.changes.pop(column)
        present = set(engine._edges[:, column].nonzero()[0].tolist())
        others = sorted(present - {row for row, _ in changes})
        if not others or len(present) <= FEW:
            stream, parts = engine._floor(reading), self._level
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
            new, present = self.moved[row]
            self.gains[row] = self._difference(row, new, present)
        return self.gains[row]

    def _level(self, row: int) -> Tensor:
        if row not in self.levels:
            live, ablated = self.engine._live[row], self.engine.experiment.ablated_activations
            old = live.places.take(_written(live.node, ablated))
            self.levels[row] = self._difference(row, self.moved[row][0], old)
        return self.levels[row]

    def _still(self, row: int, column: int) -> Tensor:
        """What a sender that does not change adds to the ablated run's stream at an input, `[b, n, d_model]`."""
        engine = self.engine
        live = engine._live.get(row)
        if live is None:
            return -engine._delta(row, engine._readings[column].places)
        self.moved.setdefault(row, (live.out[None], live.out))
        return narrow(self._level(row), live.readers[column])[0]

    def _difference(self, row: int, new: Tensor, old: Tensor) -> Tensor:
        engine, node = self.engine, self.engine.graph.sources[row]
        if node.kind == "head":
            with engine._timed("attention"):
                return engine._write(node, new - old)
        return new.to(engine.dtype) - old.to(engine.dtype)

    def _mlp(self, live: _Live) -> Tensor:
        engine = self.engine
        column = engine.graph.inputs_of(live.node)[0]
        stream = self.seed if column == self.seeded else self._stream(column)
        mlp = engine.decoder.layers[live.node.layer].mlp
        assert mlp is not None
        return mlp(stream.to(engine.decoder.dtype))

    def _head(self, live: _Live) -> Tensor:
        engine = self.engine
        values = []
        for column in engine.graph.inputs_of(live.node):
            if column in self.changes:
                self.values[column] = self._valued(engine._readings[column], self._stream(column))
            value = self.values.get(column)
            if value is None:
                present = engine._open(column).value
                assert present is not None
                value = present[None]
            values.append(value)
        return engine._attend(live, *values)


class _Question:
    """One input and the edges into it that are tried, one after another."""

    def __init__(self, engine: IncrementalEngine, column: int, rows: list[int], removable: Removable) -> None:
        self.engine, self.column, self.rows, self.removable = engine, column, rows, removable
        self.stays: set[int] = set()  # rows that a block cut short has shown to matter
        self.known: dict[int, Tensor] = {}  # differences of the last few senders

    def answers(self) -> Iterator[tuple[int, float, float, bool]]:
        engine = self.engine
        with _computing():
            reading = engine._open(self.column)
            self.places = reading.places
            stream = reading.stream
            most = engine._candidates(reading)
        remaining, block, moved = list(self.rows), most, False
        while remaining:
            tried = remaining[:block]
            try:
                with torch.no_grad(), fast_matmul():
                    streams = self._streams(stream, tried)
                    metrics = engine._metric(engine._run(self.column, streams))
            except torch.OutOfMemoryError:
                most = block = self._fewer(len(tried))
                continue
            done = 0
            engine.blocks, engine.computed = engine.blocks + 1, engine.computed + len(tried)
            footing = engine.current  # the metric of what the next row of the block was computed on
            guesses = [row not in self.stays for row in tried]
            for done, (row, after, guess) in enumerate(zip(tried, metrics, guesses, strict=True), start=1):
                before = engine.current
                gone = self.removable(before, after)
                if gone:
                    engine.current, stream, moved = after, streams[done - 1], True
                    engine._edges[row, self.column] = False
                footing = after if guess else footing
                yield row, before, after, gone
                if gone != guess:
                    self._learn(footing, tried[done:], metrics[done:])
                    break
            remaining = remaining[done:]
            block = min(most, 2 * block if done == len(tried) else max(4, done))
        if moved:
            with _computing():
                engine._run(self.column, stream[None].clone(), keep=True)

    def _fewer(self, tried: int) -> int:
        """After the GPU had no room for a block: half as many candidates, from now on."""
        engine = self.engine
        if tried == 1:
            raise OutOfMemoryError(_NO_ROOM)
        if engine.decoder.device.type == "cuda":
            torch.cuda.empty_cache()
        engine.most = tried // 2
        return engine.most

    def _streams(self, stream: Tensor, rows: Sequence[int]) -> Tensor:
        """Row j: the stream without the edges guessed gone before it, and without its own, `[c, b, n, d_model]`."""
        engine = self.engine
        with engine._timed("senders"):
            streams = stream.new_empty(len(rows), *stream.shape)
            present = set(engine._edges[:, self.column].nonzero()[0].tolist())
            for index, row in enumerate(rows):
                left = present - {row}
                if len(left) <= FEW:
                    self._sum_up(left, streams[index])
                else:
                    torch.add(stream, engine._delta(row, self.places), out=streams[index])
                if row not in self.stays:
                    stream, present = streams[index], left
            return streams

    def _sum_up(self, rows: set[int], out: Tensor) -> None:
        """The stream to which edges from these rows lead, from the ablated run's."""
        engine = self.engine
        out.copy_(engine._floor(engine._readings[self.column]))
        for row in sorted(rows):
            if row not in self.known:
                self.known[row] = engine._delta(row, self.places)
            out -= self.known[row]

    def _learn(self, footing: float, rows: Sequence[int], metrics: Sequence[float]) -> None:
        """After a wrong guess: what is left of the block stood on a wrong footing, but it makes the best next guess."""
        for row, after in zip(rows, metrics, strict=True):
            guessed_gone = row not in self.stays
            if self.removable(footing, after):
                self.stays.discard(row)
            else:
                self.stays.add(row)
            footing = after if guessed_gone else footing
