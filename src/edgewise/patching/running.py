"""The circuit run: any set of edges, or a soft mask on them, in one forward pass.

For input r with possible senders P(r), present edges E and ablated activations ã,

    x_r = constants(r) + sum over u in P(r) of ( a_u if u->r in E else ã_u )
        = (the ablated run's stream at r) + sum over u in P(r) of m_ur (a_u - ã_u)

where a_u is u's output in this same run and m_ur is 1 for a present edge, 0 for an absent one, or anything between.
Norms, attention patterns and MLPs are always recomputed from x_r; an absent port edge replaces a head's whole query
(key, value) by the ablated run's. Where a graph splits positions by spans, all this holds at every position with the
edges of its span. This is the definition that every other engine is checked against.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.walk import Walk
from edgewise.patching.ablation import Ablated
from edgewise.patching.wiring import Wiring


def circuit_run(
    decoder: Decoder,
    graph: Graph,
    tokens: Tensor,
    mask: Tensor,
    ablated: Ablated,
    edges: Tensor,
    ports: Tensor,
    spans: Tensor | None = None,
) -> Tensor:
    """Run a circuit on clean prompts.

    Args:
        tokens, mask: `[batch, pos]`, the clean prompts and which of their tokens are real.
        ablated: what absent edges carry, for the same rows.
        edges: `[sources, inputs]`, how much of each edge is present: bool, or float from 0 to 1; or for each prompt by
            itself, `[sources, inputs, batch]`.
        ports: `[inputs]`, the same for port edges (`[inputs, batch]`); ignored where the graph has none.
        spans: `[batch, pos]`, the number of each position's span, in a graph that has spans.

    Returns:
        The final residual stream, `[batch, pos, d_model]`. Differentiable in `edges` and `ports`.
    """
    return CircuitRun(decoder, graph, tokens, mask, ablated, edges, ports, spans).run()


class CircuitRun(Walk):
    """The walk in which every input reads a stream of its own, made of what leads there.

    It keeps how far each node's output is from its ablated one, in blocks of rows of the edge matrix.
    """

    def __init__(
        self,
        decoder: Decoder,
        graph: Graph,
        tokens: Tensor,
        mask: Tensor,
        ablated: Ablated,
        edges: Tensor,
        ports: Tensor,
        spans: Tensor | None,
    ) -> None:
        super().__init__(decoder, ablated.streams[0], mask)
        self.graph, self.ablated, self.wiring = graph, ablated, Wiring.of(decoder, graph)
        self.dtype = stream_dtype(decoder.dtype)
        self.edges, self.ports = edges.to(self.dtype), ports.to(self.dtype)
        # Of each span its positions, in prompts laid end to end; what stands in none is padding.
        self.spans = spans if graph.spans else None
        self.places = [] if self.spans is None else places_of(self.spans, graph)
        embedded = decoder.embed(tokens, split=graph.split_embedding) - ablated.embedding
        self.deltas = [embedded.to(self.dtype)]  # each [nodes, batch, pos, d_model]

    def run(self, first: int = 0, read: Tensor | None = None) -> Tensor:
        super().run(first, read)
        return self.streams(self.graph.columns("logits"), self.ablated.streams[-1])[:, :, 0]

    def streams(self, columns: slice, base: Tensor) -> Tensor:
        """The residual streams at some inputs, `[batch, pos, inputs, d_model]`, from the ablated one there."""
        weights = self.edges[:, columns]
        if self.spans is not None:
            return self._streams_by_span(weights.unflatten(1, (-1, self.graph.n_spans)), base)
        total = base[None].expand(weights.shape[1], *base.shape)
        for weight, delta in self._present_blocks(weights):
            if weight.dim() == 3:
                total = total + torch.einsum("rib,rbpd->ibpd", weight, delta)
            else:
                total = total + (weight.T @ delta.flatten(1)).view(-1, *base.shape)
        return total.permute(1, 2, 0, 3)

    def _present_blocks(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Each block of differences with its rows of the weights `[rows, ...]`, without those of which nothing is."""
        row = 0
        for delta in self.deltas:
            block = weights[row : row + len(delta)]
            row += len(delta)
            if block.requires_grad or block.any():
                yield block, delta

    def _streams_by_span(self, weights: Tensor, base: Tensor) -> Tensor:
        """The same from weights by span, `[rows, inputs, spans]`, or by span and prompt."""
        total = base.flatten(0, 1)[None].repeat(weights.shape[1], 1, 1)  # [inputs, batch * pos, d_model]
        for block, delta in self._present_blocks(weights):
            for weight, places in zip(block.unbind(dim=2), self.places, strict=True):
                part = delta.flatten(1, 2)[:, places]
                if weight.dim() == 3:
                    read = torch.einsum("rip,rpd->ipd", weight[..., places // base.shape[1]], part)
                else:
                    read = (weight.T @ part.flatten(1)).view(-1, *part.shape[1:])
                total = total.index_add(1, places, read)
        return total.unflatten(1, base.shape[:2]).permute(1, 2, 0, 3)

    def _present(self, columns: slice) -> Tensor:
        """How far port edges are present: `[inputs, 1]`, or by prompt and position `[batch, pos or 1, inputs, 1]`."""
        present = self.ports[columns]
        if self.spans is None:
            return present[:, None] if present.dim() == 1 else present.T[:, None, :, None]
        by_span, at = present.unflatten(0, (-1, self.graph.n_spans)), self.spans.clamp_min(0)
        if present.dim() == 1:
            return by_span.T[at][..., None]
        return by_span.permute(2, 1, 0)[torch.arange(len(at), device=at.device)[:, None], at][..., None]

    def projections(self, index: int, component: Component) -> Projections:
        base, found = self.ablated.streams[self.decoder.reads[index]], Projections()
        for kind, columns in self.wiring.columns[index].items():
            which = self.wiring.asked[index][kind]
            stream = self.streams(columns, base).to(self.decoder.dtype)
            computed = component.project(kind, stream, self.at, which)
            ablated = self.ablated.projections[index].get(kind)
            if ablated is not None and self.graph.ports:
                computed = _port(computed, ablated if which is None else ablated[:, :, which], self._present(columns))
            found[kind] = computed
        return found

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        delta = component.write(code - self.ablated.codes[index])
        self.deltas.append(delta.permute(2, 0, 1, 3).to(self.dtype))


def _port(computed: Tensor, ablated: Tensor, present: Tensor) -> Tensor:
    """Queries (keys, values) `[batch, pos, heads, d_head]`, each as far as its port edge is present."""
    if present.requires_grad or not bool(((present == 0) | (present == 1)).all()):
        return (present * computed + (1 - present) * ablated).to(computed.dtype)
    return torch.where(present.bool(), computed, ablated)


def places_of(spans: Tensor, graph: Graph) -> list[Tensor]:
    """The positions of each span, in prompts `[batch, pos]` laid end to end."""
    return [(spans.flatten() == number).nonzero()[:, 0] for number in range(graph.n_spans)]
