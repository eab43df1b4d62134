"""Gradients by the rules of layer-wise relevance propagation, for RelP (Jafari et al. 2025).

Inside `relevance_rules()` a forward pass computes what it always does, but its backward pass follows LRP where plain
gradients of a transformer are poor guides:

* norms: the scale they divide by counts as a constant (LN rule);
* activation functions: f(x) counts as x times the constant f(x) / x (identity rule);
* products of two activations, as in gated MLPs: half of the relevance goes to each (half rule).

Attention's softmax is differentiated as it stands: LRP's rules take the pattern for a constant, which would leave
queries and keys, and every edge into them, with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ELEMENTWISE = (functional.gelu, functional.silu, functional.relu, torch.relu)
_ROOTS = (torch.rsqrt, torch.sqrt, Tensor.rsqrt, Tensor.sqrt)
_PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__)


class relevance_rules(TorchFunctionMode):  # noqa: N801 - used like a function
    """Within it, backward passes follow the rules above; forward values stay as they are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (functional.layer_norm, torch.layer_norm):
            return _layer_norm(*args, **kwargs)
        if func in _ROOTS:
            return func(args[0].detach(), *args[1:], **kwargs)
        if func in _ELEMENTWISE:
            x = args[0]
            with torch.no_grad():
                # At 0 the ratio is the slope there, which for GELU and SiLU is one half.
                ratio = torch.where(x == 0, 0.5, func(x, *args[1:], **kwargs) / torch.where(x == 0, 1.0, x))
            return x * ratio
        if func in _PRODUCTS and _both_activations(args):
            one, other = args
            return (one * other.detach() + one.detach() * other) / 2
        return func(*args, **kwargs)


def _both_activations(args: Sequence[Any]) -> bool:
    return (
        len(args) == 2
        and all(isinstance(one, Tensor) and one.requires_grad and not one.is_leaf for one in args)
        and args[0].shape == args[1].shape
    )


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *more: Any,
) -> Tensor:
    assert len(normalized_shape) == 1, "transformers norm their last dimension"
    centred = x - x.mean(dim=-1, keepdim=True)
    with torch.no_grad():
        scale = (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    y = centred / scale
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
