"""Faster matrix products on CPU, in full precision.

PyTorch sends float32 products on CPU to MKL, which on processors of other makers than its own runs at less than half
of what they can do. oneDNN, which comes with the same PyTorch, does the same sums, in float32, with the processor's
widest instructions. Inside `fast_matmul()`, products with a weight matrix go there, those of the source model's own
modules too. On a GPU, in other dtypes, where gradients are wanted, and in a PyTorch without oneDNN, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _onednn() -> Callable[..., Tensor] | None:
    """oneDNN's linear map, as PyTorch's own compiler calls it; None where this PyTorch has none."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        linear = torch.ops.mkldnn._linear_pointwise
        x, weight = torch.ones(2, 3), torch.ones(4, 3)
        wanted = torch.full((2, 4), 3.0)
        same = torch.equal(linear(x, weight, None, "none", [], ""), wanted)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None
    return linear if same else None


_LINEAR = _onednn()
_SMALLEST = 1 << 18
"""Multiplications below which a product is not worth the detour."""


def _suits(x: Any, weight: Any, inner: int, outer: int) -> bool:
    """Whether oneDNN should multiply `x` `[..., inner]` by a weight with `outer` columns."""
    return (
        isinstance(x, Tensor)
        and isinstance(weight, Tensor)
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.dim() >= 2
        and weight.dim() == 2
        and x.shape[-1] == inner
        and x.numel() * outer >= _SMALLEST
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    assert _LINEAR is not None
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # a head's part of a larger matrix; oneDNN is a thousand times slower on those
    x = x.contiguous()
    return _LINEAR(x, weight.detach(), None if bias is None else bias.detach(), "none", [], "")


def _by_linear(x: Any, weight: Any, bias: Any = None, **rest: Any) -> Tensor | None:
    if rest or not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    return _linear(x, weight, bias) if _suits(x, weight, weight.shape[1], weight.shape[0]) else None


def _by_matmul(x: Any, weight: Any, **rest: Any) -> Tensor | None:
    if rest or not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    return _linear(x, weight.T) if _suits(x, weight, weight.shape[0], weight.shape[1]) else None


def _by_addmm(bias: Any, x: Any, weight: Any, **rest: Any) -> Tensor | None:
    if rest or not isinstance(bias, Tensor) or bias.dim() != 1 or not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    return _linear(x, weight.T, bias) if _suits(x, weight, weight.shape[0], weight.shape[1]) else None


_DETOURS: dict[Any, Callable[..., Tensor | None]] = {
    torch.nn.functional.linear: _by_linear,
    torch.matmul: _by_matmul,
    Tensor.matmul: _by_matmul,
    Tensor.__matmul__: _by_matmul,
    torch.mm: _by_matmul,
    torch.addmm: _by_addmm,
}


class fast_matmul(TorchFunctionMode):  # noqa: N801 - used as a function: with fast_matmul()
    """While entered, products of float32 matrices on CPU are done by oneDNN."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        detour = _DETOURS.get(func) if _LINEAR is not None else None
        if detour is not None:
            found = detour(*args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))
