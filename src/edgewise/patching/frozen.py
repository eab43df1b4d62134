"""Norms with the scale of one run: what a function of a stream is then made of, sender by sender.

A norm divides by a scale that depends on all of a stream. With the scale held at what it is in one run, norm and what
is linear behind it (projection, rotation, norms of queries and keys) are one affine map, so that a stream's parts have
parts in what comes out, and those add up (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgewise.patching.norms import NormScales


class Frozen:
    """A function whose norms keep the scale that they have at one point.

    Attributes:
        value: what it is at that point.
        offset: what it is at 0, of the shape of `value`: biases.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor) -> None:
        self._function, self._scales = function, _Scales()
        with torch.no_grad(), self._scales:
            self.value = function(point)
        self.offset = self(torch.zeros_like(point))

    def __call__(self, x: Tensor) -> Tensor:
        """The function at `x`, of the point's shape, with the point's scales."""
        with torch.no_grad(), self._scales.again():
            return self._function(x)

    def part(self, x: Tensor) -> Tensor:
        """What a part `x` of the point brings to the value: linear in `x`."""
        return self(x) - self.offset


class _Scales(NormScales):
    """Keeps, in their order, the scales that norms divide or multiply by; afterwards gives them again."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.next: int | None = None

    def again(self) -> _Scales:
        self.next = 0
        return self

    def scale(self, make: Callable[[], Tensor]) -> Tensor:
        if self.next is None:
            self.kept.append(make())
            return self.kept[-1]
        self.next += 1
        return self.kept[self.next - 1]
