"""The circuit run of whole nodes: an ordinary forward pass in which absent nodes write their ablated activations.

In a circuit of whole nodes all readers of a sender get the same from it, its own activation or the ablated one, so
every input reads the one residual stream and none needs one of its own. `circuit_run` with the same circuit's edges is
the definition, and the slow twin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.recorded import Recorded
from edgewise.models.walk import Walk
from edgewise.patching.ablation import Ablated
from edgewise.patching.wiring import Wiring


def node_run(decoder: Decoder, graph: Graph, tokens: Tensor, mask: Tensor, ablated: Ablated, present: Tensor) -> Tensor:
    """Run circuits of whole nodes on clean prompts.

    Args:
        tokens, mask: `[batch, pos]`, the clean prompts and which of their tokens are real.
        ablated: what absent nodes write, for the same rows.
        present: `[candidates, sources]`, how much of each node is present: bool, or float from 0 to 1.

    Returns:
        The final residual streams, `[candidates, batch, pos, d_model]`. Differentiable in `present`.
    """
    embedding = decoder.embed(tokens, split=graph.split_embedding)
    walk = NodeWalk(decoder, graph, mask, ablated, present)
    walk.stream = walk.embedded(embedding)
    return walk.run().unflatten(0, (len(present), -1))


class NodeWalk(Walk):
    """The walk in which each node writes what it holds as far as it is present, for several circuits at once.

    Circuits and rows of prompts share the first dimension, circuit by circuit.
    """

    def __init__(self, decoder: Decoder, graph: Graph, mask: Tensor, ablated: Ablated, present: Tensor) -> None:
        self.ablated, self.wiring, self.present = ablated, Wiring.of(decoder, graph), present
        super().__init__(decoder, ablated.streams[0], mask.repeat(len(present), 1))

    def embedded(self, embedding: Tensor) -> Tensor:
        """What enters the first component, of the clean embedding's parts `[parts, batch, pos, d_model]`."""
        parts = [
            self.mixed(part[None], gone[None], self.present[:, row])
            for row, (part, gone) in enumerate(zip(embedding, self.ablated.embedding, strict=True))
        ]
        total = torch.stack(parts).to(stream_dtype(self.decoder.dtype)).sum(dim=0)
        return total.expand(len(self.present), *total.shape[1:]).flatten(0, 1)

    def settled(self, index: int, code: Tensor) -> Tensor:
        """What nodes of a component hold `[circuits or 1, batch, pos, nodes, width]`, as far as they are present."""
        return self.mixed(code, self.ablated.codes[index][None], self.present[:, self.wiring.rows[index]])

    def mixed(self, own: Tensor, ablated: Tensor, present: Tensor) -> Tensor:
        """`own` where a node is present, `ablated` where not; `present` is `[circuits]` or `[circuits, nodes]`."""
        if present.dtype == torch.bool and bool(present.all()):
            return own
        present = present.view(len(present), 1, 1, -1, *[1] * (present.dim() > 1))
        if present.dtype == torch.bool:
            return torch.where(present, own, ablated)
        return (present * own + (1 - present) * ablated).to(own.dtype)

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        own = super().code(index, component, projections).unflatten(0, (len(self.present), -1))
        return self.settled(index, own).flatten(0, 1)


class RecordedWalk(NodeWalk):
    """The walk of one circuit that keeps what another one, which differs from some component on, starts from.

    Attributes:
        streams: before each component, `[batch, pos, d_model]`.
        own: per component, what its nodes hold before absent ones are replaced, `[batch, pos, nodes, width]`.
    """

    def run(self, first: int = 0, read: Tensor | None = None) -> Tensor:
        self.streams: Recorded[Tensor] = self.decoder.recording()
        self.own: Recorded[Tensor] = self.decoder.recording()
        return super().run(first, read)

    def settled(self, index: int, code: Tensor) -> Tensor:
        self.streams.append(self.stream)
        self.own.append(code[0])
        return super().settled(index, code)


def removed_from(present: Tensor, removed: Sequence[Sequence[int]]) -> Tensor:
    """`[candidates, sources]`: what is `present` `[sources]` without some rows, for each candidate."""
    every = present.repeat(len(removed), 1)
    for candidate, rows in enumerate(removed):
        every[candidate, list(rows)] = False
    return every
