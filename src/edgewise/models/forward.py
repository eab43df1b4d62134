"""An ordinary forward pass through a Decoder, keeping what every node wrote."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.decoder import Decoder, positions_of
from edgewise.models.recorded import Recorded
from edgewise.models.walk import Walk


@dataclass(frozen=True)
class Activations:
    """What each node wrote in one run, heads as z rather than in the residual stream (d_head wide, not d_model).

    Attributes:
        embedding: `[parts, batch, pos, d_model]`: one part, or two (`tok`, `pos`) if asked to split.
        codes: per component, `[batch, pos, nodes, d_head or d_model]`.
        streams: the residual stream before each component and, last, the final one, each `[batch, pos, d_model]`.
            A component that stands beside another reads an earlier one (`Decoder.reads`).
        projections: per component, if asked for; an MLP's, which is its stream, is left out.

    Codes, streams and projections are kept in the CPU's memory where the model says so and the run is to be kept.
    """

    embedding: Tensor
    codes: Recorded[Tensor]
    streams: Recorded[Tensor]
    projections: Recorded[Projections] = field(default_factory=list)


def forward(
    decoder: Decoder,
    tokens: Tensor,
    mask: Tensor,
    positions: Tensor | None = None,
    *,
    split_embedding: bool = False,
    keep_projections: bool = False,
    embedding: Tensor | None = None,
    to_keep: bool = False,
) -> Activations:
    """Run the Decoder on prompts, no circuit involved.

    Args:
        tokens: `[batch, pos]`, padded on the right.
        mask: `[batch, pos]`, True where a token is real.
        positions: `[batch or 1, pos]`; 0, 1, 2, … by default.
        keep_projections: keep queries, keys and values too.
        embedding: `[parts, batch, pos, d_model]`, instead of the tokens' own.
        to_keep: the run is kept for long, so that it goes where the model's recorded activations go.
    """
    at = positions_of(tokens) if positions is None else positions
    if embedding is None:
        embedding = decoder.embed(tokens, at, split=split_embedding)
    stream = embedding.sum(dim=0).to(stream_dtype(decoder.dtype))
    walk = _Recorded(decoder, stream, mask, at, keep_projections, to_keep)
    walk.run()
    return Activations(embedding, walk.codes, walk.streams, walk.projected)


def entering(decoder: Decoder, tokens: Tensor) -> Tensor:
    """The stream that enters the first component, `[batch, pos, d_model]`."""
    return decoder.embed(tokens)[0].to(stream_dtype(decoder.dtype))


def final_stream(decoder: Decoder, tokens: Tensor, mask: Tensor) -> Tensor:
    """The final residual stream of a forward pass `[batch, pos, d_model]`, of which nothing else is kept."""
    return Walk(decoder, entering(decoder, tokens), mask).run()


def apart(projections: Projections) -> Projections:
    """Queries, keys and values: the projections that are not the stream itself."""
    return {kind: one for kind, one in projections.items() if kind != "mlp"}


class _Recorded(Walk):
    def __init__(
        self, decoder: Decoder, stream: Tensor, mask: Tensor, positions: Tensor, projections: bool, to_keep: bool
    ) -> None:
        super().__init__(decoder, stream, mask, positions)
        self.keep_projections = projections
        self.codes: Recorded[Tensor] = decoder.recording() if to_keep else []
        self.streams: Recorded[Tensor] = decoder.recording() if to_keep else []
        self.projected: Recorded[Projections] = decoder.recording() if to_keep else []
        self.streams.append(stream)

    def projections(self, index: int, component: Component) -> Projections:
        found = super().projections(index, component)
        if self.keep_projections:
            self.projected.append(apart(found))
        return found

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        super().wrote(index, component, code)
        self.codes.append(code)
        self.streams.append(self.stream)
