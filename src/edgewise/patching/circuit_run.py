"""The circuit run: any set of edges, or a soft mask on them, in one forward pass.

For input r with possible senders P(r), present edges E and ablated activations ã,

    x_r = constants(r) + sum over u in P(r) of ( a_u if u->r in E else ã_u )
        = (the ablated run's stream at r) + sum over u in P(r) of m_ur (a_u - ã_u)

where a_u is u's output in this same run and m_ur is 1 for a present edge, 0 for an absent one, or anything between.
Norms, attention patterns and MLPs are always recomputed from x_r; an absent port edge replaces a head's whole query
(key, value) by the ablated run's. This is the definition that every other engine is checked against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.models.decoder import positions_of, stream_dtype
from edgewise.patching.ablation import Ablated


def circuit_run(
    decoder: Decoder, graph: Graph, tokens: Tensor, mask: Tensor, ablated: Ablated, edges: Tensor, ports: Tensor
) -> Tensor:
    """Run a circuit on clean prompts.

    Args:
        tokens, mask: `[batch, pos]`, the clean prompts and which of their tokens are real.
        ablated: what absent edges carry, for the same rows.
        edges: `[sources, inputs]`, how much of each edge is present: bool, or float from 0 to 1.
        ports: `[inputs]`, the same for port edges; ignored where the graph has none.

    Returns:
        The final residual stream, `[batch, pos, d_model]`. Differentiable in `edges` and `ports`.
    """
    run = _CircuitRun(decoder, graph, tokens, ablated, edges, ports)
    allowed = decoder.allowed(mask)
    for index in range(graph.n_layers):
        run.attention(index, allowed)
        run.mlp(index)
    return run.read(slice(len(graph.inputs) - 1, None), ablated.final_stream)[:, :, 0]


class _CircuitRun:
    """One run under way: how far each node's output is from its ablated one, in blocks of rows of the edge matrix."""

    def __init__(
        self, decoder: Decoder, graph: Graph, tokens: Tensor, ablated: Ablated, edges: Tensor, ports: Tensor
    ) -> None:
        self.decoder, self.graph, self.ablated = decoder, graph, ablated
        self.dtype = stream_dtype(decoder.dtype)
        self.edges, self.ports = edges.to(self.dtype), ports.to(self.dtype)
        self.positions = positions_of(tokens)
        self.deltas: list[Tensor] = []  # each [nodes, batch, pos, d_model]
        self._add(decoder.embed(tokens, split=graph.split_embedding) - ablated.embedding)

    def _add(self, delta: Tensor) -> None:
        self.deltas.append(delta.to(self.dtype))

    def read(self, columns: slice, base: Tensor) -> Tensor:
        """The residual streams at some inputs, `[batch, pos, inputs, d_model]`, from the ablated one there."""
        weights = self.edges[:, columns]
        total = base[None].expand(weights.shape[1], *base.shape)
        row = 0
        for delta in self.deltas:
            weight = weights[row : row + len(delta)]
            row += len(delta)
            if weight.requires_grad or weight.any():
                total = total + (weight.T @ delta.flatten(1)).view(-1, *base.shape)
        return total.permute(1, 2, 0, 3).to(self.decoder.dtype if columns.stop is not None else self.dtype)

    def attention(self, index: int, allowed: Tensor) -> None:
        """Run the heads of a layer and keep what they write."""
        layer, ablated, config = self.decoder.layers[index], self.ablated, self.decoder.config
        columns = {kind: self.graph.attention_columns(kind, index) for kind in ("q", "k", "v")}
        streams = {kind: self.read(columns[kind], ablated.attention_streams[index]) for kind in columns}
        share = config.share
        # In a graph that gives every query head its own key and value input, each asks its key/value head again.
        ungrouped = self.graph.n_kv_heads != config.n_kv_heads
        kv_heads = [head // share for head in range(config.n_heads)] if ungrouped else None

        q = self._port(layer.query(streams["q"], self.positions), ablated.q[index], columns["q"])
        k = layer.key(streams["k"], self.positions, kv_heads)
        v = layer.value(streams["v"], kv_heads)
        ablated_k, ablated_v = ablated.k[index], ablated.v[index]
        if ungrouped:
            ablated_k, ablated_v = (kept.repeat_interleave(share, dim=2) for kept in (ablated_k, ablated_v))
        k, v = self._port(k, ablated_k, columns["k"]), self._port(v, ablated_v, columns["v"])
        if not ungrouped:
            k, v = k.repeat_interleave(share, dim=2), v.repeat_interleave(share, dim=2)
        z = layer.attend(q, k, v, allowed)
        self._add(layer.write(z - ablated.z[index]).permute(2, 0, 1, 3))

    def _port(self, computed: Tensor, ablated: Tensor, columns: slice) -> Tensor:
        """Queries (keys, values) `[batch, pos, heads, d_head]`, each as far as its port edge is present."""
        if not self.graph.ports:
            return computed
        present = self.ports[columns][:, None]
        if present.requires_grad or not bool(((present == 0) | (present == 1)).all()):
            return (present * computed + (1 - present) * ablated).to(computed.dtype)
        return torch.where(present.bool(), computed, ablated)

    def mlp(self, index: int) -> None:
        """Run the MLP of a layer, where there is one, and keep what it writes."""
        layer = self.decoder.layers[index]
        if layer.mlp is None:
            return
        column = self.graph.input_index[f"m{index}"]
        x = self.read(slice(column, column + 1), self.ablated.mlp_streams[index])[:, :, 0]
        self._add((layer.mlp(x) - self.ablated.mlp[index])[None])
