"""Activation patching of whole nodes and of positions: the heat maps that people start from (the paper's step 2).

Every number is how much the metric rises when that node (everything it writes), or the residual stream at that layer
and position, is replaced by what the ablated run has there, in the model's own run on clean prompts. Everything before
it is computed once; nodes of one layer, and positions, are one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.models.components import stream_dtype
from edgewise.models.matmul import fast_matmul
from edgewise.models.walk import Walk
from edgewise.patching import Experiment
from edgewise.tasks import mean_over_places

CANDIDATE_BYTES = 2**28
"""Candidates are run together as long as their streams take at most this much."""


@dataclass(frozen=True)
class HeatMaps:
    """Effects on the metric; positive means that the metric gets worse without.

    Attributes:
        heads: `[layers, heads]`; mlps: `[layers]`, empty without MLPs.
        embedding: `[parts]`: the embedding, or tokens and positions apart.
        positions: `[layers, pos]`: the stream that enters a layer at a position.
    """

    heads: Tensor
    mlps: Tensor
    embedding: Tensor
    positions: Tensor


@torch.no_grad()
def heat_maps(experiment: Experiment, *, progress: Callable[[int, int], None] | None = None) -> HeatMaps:
    """Patch every node and every position of every layer's input, one at a time.

    Args:
        progress: called with how many patches are done, and of how many.
    """
    return _Patches(experiment, progress).all()


class _Patches:
    def __init__(self, experiment: Experiment, progress: Callable[[int, int], None] | None) -> None:
        self.experiment, self.progress, self.done = experiment, progress, 0
        self.decoder, prompts = experiment.decoder, experiment.task.prompts
        with fast_matmul():
            self.clean = experiment.clean()
        self.whole = self._metrics(self.clean.streams[-1][None])[0]
        nodes = sum(len(component.nodes) for component in self.decoder.components)
        self.layers = [index for index, one in enumerate(self.decoder.components) if one.kinds != ("mlp",)]
        self.of = len(self.clean.embedding) + nodes + len(self.layers) * prompts.clean.shape[1]

    def all(self) -> HeatMaps:
        ablated, clean = self.experiment.ablated_activations, self.clean
        embedding = self._run([ablated.embedding[part] - one for part, one in enumerate(clean.embedding)], 0)
        heads, mlps, positions = [], [], []
        for index, component in enumerate(self.decoder.components):
            changes = component.write(ablated.codes[index] - clean.codes[index]).unbind(dim=2)
            effects = self._run(list(changes), index + 1)
            if index not in self.layers:
                mlps += effects
                continue
            heads.append(effects)
            there = ablated.streams[index] - clean.streams[index]
            places = torch.eye(there.shape[1], dtype=there.dtype, device=there.device)
            positions.append(self._run([there * place[None, :, None] for place in places], index))
        return HeatMaps(*(torch.tensor(one, dtype=torch.float64) for one in (heads, mlps, embedding, positions)))

    def _run(self, changes: list[Tensor], first: int) -> list[float]:
        """The rise of the metric when the stream before component `first` is changed."""
        found: list[float] = []
        components, mask = self.decoder.components, self.experiment.task.prompts.mask
        for part in _pieces(changes):
            streams = self.clean.streams[first] + torch.stack(part).to(stream_dtype(self.decoder.dtype))
            read = None
            if first < len(components) and components[first].beside:
                read = self.clean.streams[self.decoder.reads[first]].repeat(len(part), 1, 1)
            with fast_matmul():
                final = Walk(self.decoder, streams.flatten(0, 1), mask.repeat(len(part), 1)).run(first, read)
            found += [metric - self.whole for metric in self._metrics(final.unflatten(0, (len(part), -1)))]
            self.done += len(part)
            if self.progress is not None:
                self.progress(self.done, self.of)
        return found

    def _metrics(self, final: Tensor) -> list[float]:
        prompts, metric = self.experiment.task.prompts, self.experiment.metric
        scored = final[:, prompts.scored_rows, prompts.scored_positions]
        logits = (self.decoder.logits(one) for one in scored)
        return [mean_over_places(metric(one, self.experiment.reference)) for one in logits]


def _pieces(changes: list[Tensor]) -> Iterator[list[Tensor]]:
    # A layer in hand holds a dozen times its streams.
    at_once = max(1, CANDIDATE_BYTES // (12 * changes[0].nbytes))
    for first in range(0, len(changes), at_once):
        yield changes[first : first + at_once]
