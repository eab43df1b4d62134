"""The incremental evaluator: what the metric becomes if edges into one input go.

ACDC asks that question at every input, walking from the logits back to the embedding. A circuit run answers it with a
whole pass of the model per edge. This engine gives the same answers with the arithmetic that can change them:

* *Nothing upstream moves.* All senders of the input under test still hold their clean values, which were recorded once;
  without the edges removed so far, the input holds its clean stream plus what those senders' ablated values differ by.
* *Only the circuit moves.* A removed edge changes the node that reads the input and, from there on, only nodes that
  edges of the circuit lead to (`live.py`, `flow.py`).
* *Only live positions move.* A node is computed where something downstream can see it: at the scored positions if only
  the logits read it, at the positions before them if keys and values do; and nowhere before the first token at which
  clean and ablated runs differ.
* *Candidates are a batch.* Each is a set of edges that go together; one that goes on from the one before it costs one
  sender more.

`scoring.py` has the way from final streams to the metric. `PlainEngine` answers the same question by circuit runs and
shares no code with this file beyond `Decoder` and the recorded ablated activations.

Shapes: c candidates, b rows of prompts, p positions, n places (the live positions, see `places.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgewise.models.precision import in_float64
from edgewise.patching.blocks import InBlocks, computing
from edgewise.patching.engine import Removed, means
from edgewise.patching.experiment import Experiment
from edgewise.patching.flow import FEW, Flow
from edgewise.patching.live import LivePart, Reading
from edgewise.patching.memory import MOST_CANDIDATES, plan_memory
from edgewise.patching.scoring import scorer_for


class IncrementalEngine(InBlocks):
    """Measures circuits by recomputing only what an edge can change (see `patching.Engine`).

    Attributes:
        plan: how it fits into memory.
        live: the live part of the model; `live.watch.seconds` has the time spent in each of `STAGES`.
        blocks, computed: batches of edges tried, and edges in them; port edges stand alone and do not count.
        block_costs: what a block takes beside its candidates, in candidates.
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
        self.plan = plan_memory(experiment.decoder, experiment.task, experiment.graph, max_memory)
        self.blocks = self.computed = 0
        self.most = MOST_CANDIDATES
        prompts = experiment.task.prompts
        # On CPU mostly what it takes to bring the weights in, the vocabulary's above all, whatever their number.
        self.block_costs = 32.0 if self.decoder.device.type == "cuda" else 0.5 + 14 / len(prompts.scored_rows)
        with computing():
            self.live = LivePart(experiment)
            places = self.live.scored.find(prompts.scored_rows, prompts.scored_positions)
            self._scored = prompts.scored_rows, places
            final = self.live.clean.streams[-1][prompts.scored_rows, prompts.scored_positions]
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, final, self.plan.chunk)
        self._pending: int | None = None  # the input whose stream has changed, but not yet what follows from that
        self._block = _Block(-1, [], torch.empty(0))

    def at_once(self, column: int) -> int:
        """How many candidates of an input to ask about at once."""
        with computing():
            self._settle(column)
            reading = self.live.open(column)
        share = reading.places.width / self.live.moves.shape[1]
        return min(self.most, self.plan.candidates(share, self.live.waiting(), self.live.held()))

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        """See `patching.Engine`."""
        return means(self.values(column, candidates))

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `patching.engine.PlaceEngine`."""
        with computing():
            self._settle(column)
            reading = self.live.open(column)
        return self.in_blocks(candidates, lambda block: self._measure(reading, block))

    def _measure(self, reading: Reading, candidates: Sequence[Removed]) -> Tensor:
        if self.live.spans is not None and reading.places.nowhere:  # nothing reads what it would change
            return self.metrics(self.live.values[self.live.final][None]).expand(len(candidates), -1)
        if (None,) in candidates:  # the port edge, by itself
            final = Flow(self.live).run(reading.column, self.live.ablated_value(reading)[None], port=True)
        else:
            self._block = self._streams(reading, candidates)
            final = Flow(self.live).run(reading.column, self._block.streams)
            if candidates[0]:  # what is there now is no candidate
                self.blocks, self.computed = self.blocks + 1, self.computed + len(candidates)
        return self.metrics(final)

    def commit(self, column: int, removed: Removed) -> None:
        """See `patching.Engine`."""
        if not removed:
            return
        rows = [row for row in removed if row is not None]
        if not self.live.alive(column) or (column in self.live.readings and not self.live.readings[column].attached):
            self.live.edges[rows, column] = False  # nothing depends on it
            return
        with computing():
            self._settle(column)
            reading = self.live.open(column)
            if None in removed:
                seed = self.live.ablated_value(reading)[None]
                Flow(self.live, keep=True).run(column, seed, port=True)
            if rows:
                stream = self._block.stream(column, tuple(rows))
                reading.stream = self._streams(reading, [tuple(rows)]).streams[0] if stream is None else stream
                self._pending = column
                self.live.edges[rows, column] = False
        self._block = _Block(-1, [], torch.empty(0))

    def _settle(self, column: int) -> None:
        """Carry what has gone at the input before this one through the circuit."""
        if self._pending is not None and self._pending != column:
            before, self._pending = self._pending, None
            Flow(self.live, keep=True).run(before, self.live.readings[before].stream[None].clone())

    def _streams(self, reading: Reading, candidates: Sequence[Removed]) -> _Block:
        """The streams of an input without some edges, `[c, b, n, d_model]`.

        A candidate that goes on from the one before it, or from what that one goes on from, starts there.
        """
        live, known = self.live, {}  # differences of the last few senders

        def summed_up(rows: set[int], out: Tensor) -> None:
            out.copy_(live.floor(reading))
            for row in sorted(rows):
                if row not in known:
                    known[row] = live.delta(row, reading)
                out -= known[row]

        with live.watch.timed("senders"):
            streams = reading.stream.new_empty(len(candidates), *reading.stream.shape)
            present = set(live.edges[:, reading.column].nonzero()[0].tolist())
            gone: Removed = ()
            stream = reading.stream
            if (last := self._block).column == reading.column and last.candidates:  # it may go on from there
                gone, stream = last.candidates[-1], last.streams[-1]
            for index, removed in enumerate(candidates):
                if removed[: len(gone)] != gone:
                    gone, stream = (), reading.stream
                rest = [row for row in removed[len(gone) :] if row is not None]
                if not rest:
                    streams[index] = stream
                elif len(present) - len(removed) <= FEW:
                    summed_up(present.difference(removed), streams[index])
                else:
                    first, *others = rest
                    torch.add(stream, live.delta(first, reading), out=streams[index])
                    for row in others:
                        streams[index] += live.delta(row, reading)
                following = candidates[index + 1] if index + 1 < len(candidates) else ()
                if following[: len(removed)] == removed:
                    gone, stream = removed, streams[index]
            return _Block(reading.column, list(candidates), streams)

    def metrics(self, final: Tensor) -> Tensor:
        """The metric of each candidate at each scored place, from its final streams `[c, b, n, d_model]`."""
        with self.live.watch.timed("vocabulary"):
            return in_float64(self._score(final[:, self._scored[0], self._scored[1]]))


class _Block:
    """The candidates measured last, and their streams: one of them is most often what is then committed."""

    def __init__(self, column: int, candidates: list[Removed], streams: Tensor) -> None:
        self.column, self.candidates, self.streams = column, candidates, streams

    def stream(self, column: int, removed: Removed) -> Tensor | None:
        if column != self.column or removed not in self.candidates:
            return None
        return self.streams[self.candidates.index(removed)]
