"""Norms with the scale of one run: what a function of a stream is then made of, sender by sender.

A norm divides by a scale that depends on all of a stream. With the scale held at what it is in one run, norm and what
is linear behind it (projection, rotation, norms of queries and keys) are one affine map, so that a stream's parts have
parts in what comes out, and those add up (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ROOTS = (torch.rsqrt, torch.sqrt, Tensor.rsqrt, Tensor.sqrt)
_LAYER_NORMS = (functional.layer_norm, torch.layer_norm)
_ROOT_MEAN_SQUARES = (functional.rms_norm, torch.rms_norm)


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


class _Scales(TorchFunctionMode):
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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ROOTS:
            return self.scale(lambda: func(*args, **kwargs))
        if func in _LAYER_NORMS:
            return self._layer_norm(*args, **kwargs)
        if func in _ROOT_MEAN_SQUARES:
            return self._rms_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _layer_norm(
        self,
        x: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *more: Any,
    ) -> Tensor:
        assert len(normalized_shape) == 1, "transformers norm their last dimension"
        y = self._over_root(x - x.mean(dim=-1, keepdim=True), eps)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def _rms_norm(
        self, x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        assert len(normalized_shape) == 1, "transformers norm their last dimension"
        y = self._over_root(x, torch.finfo(x.dtype).eps if eps is None else eps)
        return y if weight is None else y * weight

    def _over_root(self, x: Tensor, eps: float) -> Tensor:
        return x * self.scale(lambda: (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt())
