"""Within a function, the scales that its norms divide or multiply by, whoever wrote the norms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ROOTS = (torch.rsqrt, torch.sqrt, Tensor.rsqrt, Tensor.sqrt)
_LAYER_NORMS = (functional.layer_norm, torch.layer_norm)
_ROOT_MEAN_SQUARES = (functional.rms_norm, torch.rms_norm)


class NormScales(TorchFunctionMode):
    """While it is on, every norm takes its scale from `scale`: PyTorch's own, and those written out with a root."""

    @abstractmethod
    def scale(self, make: Callable[[], Tensor]) -> Tensor:
        """The scale to use in place of what `make` computes."""

    def other(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What any other function of PyTorch's gives."""
        return func(*args, **kwargs)

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
        return self.other(func, args, kwargs)

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
