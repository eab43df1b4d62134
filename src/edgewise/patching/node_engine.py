"""Engines that measure circuits of whole nodes: one that starts where a node stands, and its slow twin.

A search by nodes asks about nodes that write together: an embedding, the heads of a layer, an MLP. What lies before
them does not change when they go, so `NodeEngine` keeps the streams of the circuit as it is now and runs on from there,
for several candidates at once. `PlainNodeEngine` makes one whole circuit run per candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgewise.graph import Circuit, of_nodes
from edgewise.graph.graph import Bools
from edgewise.models.precision import in_float64
from edgewise.models.recorded import joined
from edgewise.patching.ablation import Ablated, cut_rows
from edgewise.patching.blocks import InBlocks, computing, whole_runs
from edgewise.patching.engine import Removed, means
from edgewise.patching.experiment import Experiment
from edgewise.patching.memory import plan_memory
from edgewise.patching.node_running import NodeWalk, RecordedWalk, removed_from
from edgewise.patching.scoring import scorer_for
from edgewise.patching.wiring import EMBEDDING
from edgewise.tasks import Prompts


class NodeEngine(InBlocks):
    """Measures circuits of whole nodes from the component on in which they differ (see `patching.Engine`).

    Its columns are components, `EMBEDDING` first; what goes is rows of senders.
    """

    def __init__(self, experiment: Experiment, start: Bools, max_memory: int | None = None) -> None:
        """
        Args:
            start: `[sources]`, which nodes are present.
            max_memory: bytes that may be used beyond the model's weights (see `plan_memory`).

        Raises:
            EdgewiseError: it cannot be done in so little.
        """
        self.experiment, self.decoder, self.graph = experiment, experiment.decoder, experiment.graph
        plan = plan_memory(self.decoder, experiment.task, self.graph, max_memory, "nodes")
        self.rows, self.most = whole_runs(plan, len(experiment.task))
        self.present = torch.from_numpy(start.copy()).to(self.decoder.device)
        self.reads = (*self.decoder.reads, len(self.decoder.components))
        with computing():
            clean = self._recorded(torch.ones_like(self.present), keep=False)
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, clean, plan.chunk)
            self._recorded(self.present)
        self.fresh = len(self.decoder.components)  # the streams up to the one before this component are as they are now

    def at_once(self, column: int) -> int:
        """How many candidates of a component to ask about at once."""
        return self.most

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        """The metric of what is present now without some nodes of one component, for each candidate by itself."""
        return means(self.values(column, candidates))

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `patching.engine.PlaceEngine`."""
        if column > self.fresh:
            with computing():
                self._recorded(self.present)
            self.fresh = len(self.decoder.components)
        return self.in_blocks(candidates, lambda block: self._measure(column, block))

    def _measure(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        present = removed_from(self.present, [[row for row in one if row is not None] for one in candidates])
        final = torch.cat([self._final(column, present, piece) for piece in self._pieces()], dim=1)
        return in_float64(self._score(final))

    def commit(self, column: int, removed: Removed) -> None:
        """Remove nodes of one component for good."""
        if removed:
            self.present[[row for row in removed if row is not None]] = False
            self.fresh = min(self.fresh, column)

    def _pieces(self) -> Iterator[tuple[slice, Prompts, Ablated]]:
        prompts = self.experiment.task.prompts
        for first in range(0, len(prompts), self.rows):
            stop = min(first + self.rows, len(prompts))
            yield (
                slice(first, stop),
                prompts.rows(first, stop),
                cut_rows(self.experiment.ablated_activations, first, stop),
            )

    def _embed(self, prompts: Prompts) -> Tensor:
        return self.decoder.embed(prompts.clean, split=self.graph.split_embedding)

    def _recorded(self, present: Tensor, *, keep: bool = True) -> Tensor:
        """Run one circuit, keep its streams and codes, and give its final streams `[scored, d_model]`."""
        walks, finals = list[RecordedWalk](), []
        for _, prompts, ablated in self._pieces():
            walk = RecordedWalk(self.decoder, self.graph, prompts.mask, ablated, present[None])
            walk.stream = walk.embedded(self._embed(prompts))
            final = walk.run()
            finals.append(final[prompts.scored_rows, prompts.scored_positions])
            if keep:
                walks.append(walk)
        if keep:
            self.streams, self.own = joined([one.streams for one in walks]), joined([one.own for one in walks])
        return torch.cat(finals)

    def _final(self, column: int, present: Tensor, piece: tuple[slice, Prompts, Ablated]) -> Tensor:
        """Final streams `[candidates, scored, d_model]` of circuits that differ from component `column` on."""
        rows, prompts, ablated = piece
        walk = NodeWalk(self.decoder, self.graph, prompts.mask, ablated, present)
        if column == EMBEDDING:
            walk.stream = walk.embedded(self._embed(prompts))
            final = walk.run()
        else:
            count = len(present)
            code = walk.settled(column, self.own[column][None, rows])
            written = self.decoder.components[column].write_total(code.flatten(0, 1)).unflatten(0, (len(code), -1))
            stream = self.streams[column][None, rows] + written
            walk.stream = stream.expand(count, *stream.shape[1:]).flatten(0, 1)
            read = self.streams[self.reads[column]][rows].repeat(count, 1, 1)
            final = walk.run(column + 1, read)
        return final.unflatten(0, (len(present), -1))[:, prompts.scored_rows, prompts.scored_positions]


class PlainNodeEngine:
    """One whole circuit run, edge by edge, per candidate: slow, simple, and the judge of the other one."""

    def __init__(self, experiment: Experiment, start: Bools, max_memory: int | None = None) -> None:
        self.experiment, self.present = experiment.within(max_memory), start.copy()

    def at_once(self, column: int) -> int:
        return 1

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        return [self.experiment.value(self._without(removed)) for removed in candidates]

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `patching.engine.PlaceEngine`."""
        return torch.stack([in_float64(self.experiment.values(self._without(removed))) for removed in candidates])

    def _without(self, removed: Removed) -> Circuit:
        present = self.present.copy()
        present[[row for row in removed if row is not None]] = False
        return of_nodes(self.experiment.graph, present)

    def commit(self, column: int, removed: Removed) -> None:
        self.present[[row for row in removed if row is not None]] = False
