"""The one way through a model: component after component, projections, code, write.

A forward pass, a recorded ablated run, a circuit run, a pass with gradients or with learned masks are all this walk,
each with another answer to one or two of its three questions.
"""

from __future__ import annotations

from torch import Tensor

from edgewise.models.components import Component, Projections
from edgewise.models.decoder import Decoder, positions_of


class Walk:
    """A pass through a Decoder in which every input reads the one residual stream: the model's own forward pass.

    Attributes:
        stream: the residual stream as it stands, `[batch, pos, d_model]`.
        at, allowed: positions `[batch or 1, pos]`, and per component which tokens see which.
    """

    def __init__(self, decoder: Decoder, stream: Tensor, mask: Tensor, positions: Tensor | None = None) -> None:
        """
        Args:
            stream: `[batch, pos, d_model]`, what enters the first component of the walk.
            mask: `[batch, pos]`, True where a token is real.
            positions: `[batch or 1, pos]`; 0, 1, 2, … by default.
        """
        self.decoder, self.stream, self._read = decoder, stream, stream
        self.at = positions_of(mask) if positions is None else positions
        self.allowed = decoder.allowed(mask)

    def run(self, first: int = 0, read: Tensor | None = None) -> Tensor:
        """Go from component `first` to the last; the final stream.

        `read` is what the component before `first` reads, for one that stands beside it.
        """
        if read is not None:
            self._read = read
        for index in range(first, len(self.decoder.components)):
            component = self.decoder.components[index]
            code = self.code(index, component, self.projections(index, component))
            self.wrote(index, component, code)
        return self.stream

    def projections(self, index: int, component: Component) -> Projections:
        """What a component's inputs make of what they read."""
        if not component.beside:
            self._read = self.stream
        return component.projections(self._read.to(self.decoder.dtype)[:, :, None], self.at)

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        """What a component's nodes hold."""
        return component.code(projections, self.allowed[index])

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        """What becomes of it."""
        self.stream = self.stream + component.write_total(code)
