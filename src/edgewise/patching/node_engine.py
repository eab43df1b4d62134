"""Engines that measure circuits of whole nodes: one that starts where a node stands, and its slow twin.

A search by nodes asks about nodes that write together: an embedding, the heads of a layer, an MLP. What lies before
them does not change when they go, so `NodeEngine` keeps the streams of the circuit as it is now and runs on from there,
for several candidates at once. `PlainNodeEngine` makes one whole circuit run per candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgewise.graph import Circuit, of_nodes
from edgewise.graph.graph import Bools
from edgewise.models.precision import in_float64
from edgewise.models.recorded import joined
from edgewise.patching.ablation import Ablated
from edgewise.patching.blocks import RunsOn, computing
from edgewise.patching.engine import PlainRuns, Removed
from edgewise.patching.experiment import Experiment
from edgewise.patching.node_running import NodeWalk, RecordedWalk, removed_from
from edgewise.patching.scoring import scorer_for
from edgewise.patching.wiring import EMBEDDING
from edgewise.tasks import Prompts


class NodeEngine(RunsOn):
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
        super().__init__(experiment, max_memory)
        self.graph = experiment.graph
        self.present = torch.from_numpy(start.copy()).to(self.decoder.device)
        self.reads = (*self.decoder.reads, len(self.decoder.components))
        with computing():
            clean = self._recorded(torch.ones_like(self.present), keep=False)
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, clean, self.plan.chunk)
            self.record()

    def component(self, column: int) -> int:
        return column

    def record(self) -> None:
        self._recorded(self.present)

    def _measure(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        present = removed_from(self.present, [[row for row in one if row is not None] for one in candidates])
        final = torch.cat([self._final(column, present, piece) for piece in self.pieces()], dim=1)
        return in_float64(self._score(final))

    def commit(self, column: int, removed: Removed) -> None:
        """Remove nodes of one component for good."""
        if removed:
            self.present[[row for row in removed if row is not None]] = False
            self.fresh = min(self.fresh, column)

    def _embed(self, prompts: Prompts) -> Tensor:
        return self.decoder.embed(prompts.clean, split=self.graph.split_embedding)

    def _recorded(self, present: Tensor, *, keep: bool = True) -> Tensor:
        """Run one circuit, keep its streams and codes, and give its final streams `[scored, d_model]`."""
        walks, finals = list[RecordedWalk](), []
        for _, prompts, ablated in self.pieces():
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


class PlainNodeEngine(PlainRuns):
    """Plain runs of circuits of whole nodes, edge by edge."""

    def __init__(self, experiment: Experiment, start: Bools, max_memory: int | None = None) -> None:
        self.experiment, self.present = experiment.within(max_memory), start.copy()

    def without(self, column: int, removed: Removed) -> Circuit:
        present = self.present.copy()
        present[[row for row in removed if row is not None]] = False
        return of_nodes(self.experiment.graph, present)

    def commit(self, column: int, removed: Removed) -> None:
        self.present[[row for row in removed if row is not None]] = False
