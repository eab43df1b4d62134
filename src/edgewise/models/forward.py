"""An ordinary forward pass through a Decoder, keeping what every node wrote."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgewise.models.decoder import Decoder, positions_of, stream_dtype


@dataclass(frozen=True)
class Activations:
    """What each node wrote in one run, heads as z rather than in the residual stream (d_head wide, not d_model).

    Attributes:
        embedding: `[parts, batch, pos, d_model]`: one part, or two (`tok`, `pos`) if asked to split.
        z: per layer, `[batch, pos, heads, d_head]`.
        mlp: per layer, `[batch, pos, d_model]`; empty in a model without MLPs.
        streams: the residual stream entering each layer and the final one, each `[batch, pos, d_model]`.
    """

    embedding: Tensor
    z: list[Tensor]
    mlp: list[Tensor]
    streams: list[Tensor]


def forward(
    decoder: Decoder, tokens: Tensor, mask: Tensor, positions: Tensor | None = None, *, split_embedding: bool = False
) -> Activations:
    """Run the Decoder on prompts, no circuit involved.

    Args:
        tokens: `[batch, pos]`, padded on the right.
        mask: `[batch, pos]`, True where a token is real.
        positions: `[batch or 1, pos]`; 0, 1, 2, … by default.
    """
    at = positions_of(tokens) if positions is None else positions
    embedding = decoder.embed(tokens, at, split=split_embedding)
    stream = embedding.sum(dim=0).to(stream_dtype(decoder.dtype))
    allowed = decoder.allowed(mask)
    share = decoder.config.share
    streams, zs, mlps = [stream], [], []
    for layer in decoder.layers:
        x = stream.to(decoder.dtype)[:, :, None]
        k = layer.key(x, at).repeat_interleave(share, dim=2)
        v = layer.value(x).repeat_interleave(share, dim=2)
        z = layer.attend(layer.query(x, at), k, v, allowed)
        zs.append(z)
        after = stream + layer.write(z).sum(dim=2) + layer.bias
        if layer.mlp is not None:
            mlps.append(layer.mlp((stream if decoder.config.parallel else after).to(decoder.dtype)))
            after = after + mlps[-1]
        stream = after
        streams.append(stream)
    return Activations(embedding, zs, mlps, streams)
