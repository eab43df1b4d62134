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

from edgewise.models.decoder import positions_of, stream_dtype
from edgewise.models.forward import Activations, forward
from edgewise.models.matmul import fast_matmul
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
            self.clean: Activations = forward(
                self.decoder, prompts.clean, prompts.mask, split_embedding=experiment.graph.split_embedding
            )
        self.at, self.allowed = positions_of(prompts.clean), self.decoder.allowed(prompts.mask)
        self.whole = self._metrics(self.clean.streams[-1][None])[0]
        config, length = self.decoder.config, prompts.clean.shape[1]
        self.of = len(self.clean.embedding) + config.n_layers * (config.n_heads + config.mlps + length)

    def all(self) -> HeatMaps:
        config, ablated, clean = self.decoder.config, self.experiment.ablated_activations, self.clean
        embedding = self._run([ablated.embedding[part] - one for part, one in enumerate(clean.embedding)], 0)
        heads, mlps, positions = [], [], []
        for index, layer in enumerate(self.decoder.layers):
            change = layer.write(ablated.z[index] - clean.z[index]).unbind(dim=2)
            heads.append(self._run(list(change), index, behind_attention=True))
            if config.mlps:
                mlps += self._run([ablated.mlp[index] - clean.mlp[index]], index + 1)
            there = ablated.attention_streams[index] - clean.streams[index]
            places = torch.eye(there.shape[1], dtype=there.dtype, device=there.device)
            positions.append(self._run([there * place[None, :, None] for place in places], index))
        return HeatMaps(*(torch.tensor(one, dtype=torch.float64) for one in (heads, mlps, embedding, positions)))

    def _run(self, changes: list[Tensor], first: int, *, behind_attention: bool = False) -> list[float]:
        """The rise of the metric when the stream entering layer `first` (or that behind its attention) is changed."""
        found: list[float] = []
        for part in _pieces(changes):
            streams = self.clean.streams[first] + torch.stack(part).to(stream_dtype(self.decoder.dtype))
            with fast_matmul():
                if behind_attention:
                    streams = self._behind_attention(torch.stack(part), first)
                final = self._through(streams, first + behind_attention)
            found += [metric - self.whole for metric in self._metrics(final)]
            self.done += len(part)
            if self.progress is not None:
                self.progress(self.done, self.of)
        return found

    def _behind_attention(self, change: Tensor, index: int) -> Tensor:
        """The stream that leaves a layer when what its heads write is changed, `[candidates, batch, pos, d_model]`."""
        layer, stream = self.decoder.layers[index], self.clean.streams[index]
        after = stream + layer.write(self.clean.z[index]).sum(dim=2) + layer.bias + change
        if layer.mlp is None:
            return after
        parallel = self.decoder.config.parallel
        read = stream.expand_as(after) if parallel else after
        return after + layer.mlp(read.to(self.decoder.dtype))

    def _through(self, streams: Tensor, first: int) -> Tensor:
        """The final streams of candidates `[candidates, batch, pos, d_model]` that enter layer `first`."""
        count, config = len(streams), self.decoder.config
        allowed, stream = self.allowed.repeat(count, 1, 1), streams.flatten(0, 1)
        for layer in self.decoder.layers[first:]:
            x = stream.to(self.decoder.dtype)[:, :, None]
            k, v = (one.repeat_interleave(config.share, dim=2) for one in (layer.key(x, self.at), layer.value(x)))
            z = layer.attend(layer.query(x, self.at), k, v, allowed)
            after = stream + layer.write(z).sum(dim=2) + layer.bias
            if layer.mlp is not None:
                after = after + layer.mlp((stream if config.parallel else after).to(self.decoder.dtype))
            stream = after
        return stream.unflatten(0, (count, -1))

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
