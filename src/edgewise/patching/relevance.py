"""Gradients by the rules of layer-wise relevance propagation, for RelP (Jafari et al. 2025).

Inside `relevance_rules()` a forward pass computes what it always does, but its backward pass follows LRP where plain
gradients of a transformer are poor guides:

* norms: the scale they divide by counts as a constant (LN rule);
* activation functions: f(x) counts as x times the constant f(x) / x (identity rule), however f is written out: the
  rule stands on the whole activation module. One that is not 0 at 0 (a sigmoid) is no such product, and refused;
* products of two activations, as in gated MLPs: half of the relevance goes to each (half rule).

Attention's softmax is differentiated as it stands: LRP's rules take the pattern for a constant, which would leave
queries and keys, and every edge into them, with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

from edgewise.errors import EdgewiseError
from edgewise.models.plain_transformer import PlainActivation
from edgewise.patching.norms import NormScales

_ELEMENTWISE = (functional.gelu, functional.silu, functional.relu, torch.relu)
_PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__)


class relevance_rules(NormScales):  # noqa: N801 - used like a function
    """Within it, backward passes follow the rules above; forward values stay as they are.

    Raises:
        EdgewiseError: an activation function that is not 0 at 0 is met; the message names it.
    """

    def __enter__(self) -> relevance_rules:
        self._hook = register_module_forward_hook(_of_activation_module)  # type: ignore - may give an output
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()
        super().__exit__(*error)

    def scale(self, make: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad():
            return make()

    def other(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if func in _ELEMENTWISE:
            return _identity_rule(lambda x: func(x, *args[1:], **kwargs), args[0])
        if func in _PRODUCTS and _both_activations(args):
            one, other = args
            return (one * other.detach() + one.detach() * other) / 2
        return func(*args, **kwargs)


def _of_activation_module(module: nn.Module, given: tuple[Any, ...], out: Any) -> Tensor | None:
    kind = type(module)
    known = kind.__module__ in ("torch.nn.modules.activation", "transformers.activations")
    if not (known or kind is PlainActivation) or len(given) != 1 or not isinstance(out, Tensor):
        return None
    (x,) = given
    with torch.no_grad():
        if module.forward(torch.zeros_like(x[..., :1])).abs().max() > 1e-3:  # xIELU's is not quite 0
            raise EdgewiseError(
                f"RelP has no rule for the activation function {kind.__name__}: it is not 0 where its input is 0, so "
                "it is no multiple of its input"
            )
    return _identity_rule(module.forward, x)


def _identity_rule(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        value, zero = function(x).detach(), x == 0
        ratio = value / torch.where(zero, 1.0, x)
        if zero.any():  # the ratio there is the slope, which for GELU and SiLU is one half
            step = torch.where(zero, 1e-3, 0.0).to(x.dtype)
            slope = (function(x + step) - function(x - step)) / 2e-3
            ratio = torch.where(zero, slope, ratio)
    return x * ratio + torch.where(zero, value, 0.0)


def _both_activations(args: Sequence[Any]) -> bool:
    return (
        len(args) == 2
        and all(isinstance(one, Tensor) and one.requires_grad and not one.is_leaf for one in args)
        and args[0].shape == args[1].shape
    )
