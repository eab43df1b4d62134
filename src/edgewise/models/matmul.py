"""Faster matrix products on CPU, in full precision.

PyTorch sends float32 products on CPU to MKL, which on some processors of other makers than its own runs at less than
half of what they can do. oneDNN, which comes with the same PyTorch, does the same sums, in float32, with the
processor's widest instructions. Inside `fast_matmul()`, products with a weight matrix go there, those of the source
model's own modules too; those with large ones unless the other way was measured to be faster here (products.py). On a
GPU, in other dtypes, where gradients are wanted, and in a PyTorch without oneDNN, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from edgewise.models.products import DEFAULT, LARGE, chosen

if TYPE_CHECKING:
    from edgewise.models.decoder import Decoder


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


def _linear(input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    """`input` `[..., in]` times `weight` `[out, in]`, plus `bias` `[out]`, by oneDNN; None where it should not."""
    x = input
    given = [x, weight] if bias is None else [x, weight, bias]
    if not all(isinstance(one, Tensor) and one.dtype == torch.float32 and one.device.type == "cpu" for one in given):
        return None
    if x.dim() < 2 or weight.dim() != 2 or x.shape[-1] != weight.shape[1] or x.numel() * weight.shape[0] < _SMALLEST:
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return None
    if weight.numel() >= LARGE and chosen(_onednn_linear) == DEFAULT:
        return None
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # a head's part of a larger matrix; oneDNN is a thousand times slower on those
    bias = None if bias is None else bias.detach().contiguous()
    return _onednn_linear(x.contiguous(), weight.detach(), bias)


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    assert _LINEAR is not None
    return _LINEAR(x, weight, bias, "none", [], "")


def products_of(decoder: Decoder) -> str | None:
    """How a model's large products are done, `oneDNN` or `default`; None where none of them has a choice."""
    weight = decoder.unembedding.weight
    if _LINEAR is None or weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.numel() < LARGE:
        return None
    return chosen(_onednn_linear)


def _matmul(x: Any, weight: Any) -> Tensor | None:
    return _linear(x, weight.T) if isinstance(weight, Tensor) and weight.dim() == 2 else None


def _addmm(bias: Any, x: Any, weight: Any) -> Tensor | None:
    return _linear(x, weight.T, bias) if isinstance(weight, Tensor) and weight.dim() == 2 else None


_DETOURS: dict[Any, Callable[..., Tensor | None]] = {
    torch.nn.functional.linear: _linear,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    torch.mm: _matmul,
    torch.addmm: _addmm,
}


class fast_matmul(TorchFunctionMode):  # noqa: N801 - used as a function: with fast_matmul()
    """While entered, products of float32 matrices on CPU are done by oneDNN, or by what is faster here."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        detour = _DETOURS.get(func) if _LINEAR is not None else None
        if named and func is not torch.nn.functional.linear:
            detour = None  # the others are not called by name in any model known
        if detour is not None and (found := detour(*args, **named)) is not None:
            return found
        return func(*args, **named)
