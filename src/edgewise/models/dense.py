"""The dense weights of a linear map, whatever module computes it: quantised, with an adapter in it, or plain."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError

CHUNK = 512
"""Rows of the identity that a module is called with at a time."""


@torch.no_grad()
def dense_weight(linear: nn.Module, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight `[d_out, d_in]` and bias `[d_out]`, or None, of a module that computes a linear map.

    Those of an `nn.Linear` or of `transformers`' `Conv1D` are its own tensors or views of them. Any other module is
    asked for what it makes of the identity, so many rows at a time, and of zero; the answer is a copy, exact where the
    module's products are.

    Args:
        dtype: of what the module is called with, in the model that it is part of; by default the module's own
            `compute_dtype`, or that of its first tensor of floating point.

    Raises:
        EdgewiseError: the module does not say how wide its input is (`in_features`), or cannot be called by itself.
    """
    bias: Any = getattr(linear, "bias", None)
    if type(linear) is nn.Linear or type(linear).__name__ == "FalconLinear":
        return linear.weight, bias  # type: ignore[return-value] - both are linear maps of [d_out, d_in]
    if type(linear).__name__ == "Conv1D" and type(linear).__module__ == "transformers.pytorch_utils":
        return linear.weight.T, bias  # type: ignore[union-attr] - Conv1D's is [d_in, d_out]
    width: Any = getattr(linear, "in_features", None)
    if not isinstance(width, int):
        raise EdgewiseError(
            f"cannot tell the weights of a {type(linear).__name__}: it has no in_features, so it may be no linear map"
        )
    tensors = [*linear.parameters(), *linear.buffers()]
    floating = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())
    own = getattr(linear, "compute_dtype", None)
    dtype = dtype or (own if isinstance(own, torch.dtype) else floating)
    device = tensors[0].device if tensors else torch.device("cpu")

    def of(module: nn.Module, first: int, rows: int) -> Tensor:
        """What a module makes of rows of the identity, or of zero where they lie beyond it."""
        given = torch.zeros(1, rows, width, dtype=dtype, device=device)
        given.diagonal(first, 1, 2).fill_(1)
        try:
            return module(given)[0]
        except Exception as error:  # whatever another library's kernels raise
            raise EdgewiseError(
                f"cannot tell the weights of a {type(linear).__name__}: it cannot be called by itself ({error})"
            ) from None

    offset = of(linear, width, 2)[0]
    bare = _without_bias(linear)
    rest = of(bare, width, 2)[0]  # not zero where the bias is somewhere else
    weight = offset.new_empty(len(offset), width)
    for first in range(0, width, CHUNK):
        rows = min(CHUNK, width - first)
        made = of(bare, first, rows)
        weight[:, first : first + rows] = (made - rest if rest.any() else made).T
    return weight, offset if offset.any() or bias is not None else None


def _without_bias(module: nn.Module) -> nn.Module:
    """The same module with the same tensors, but no bias and no hooks, so that no rounding of a sum hides a weight."""
    bare = copy.copy(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        setattr(bare, hooks, OrderedDict())
    bare._parameters = {name: None if name == "bias" else one for name, one in module._parameters.items()}
    bare._buffers = {name: None if name == "bias" else one for name, one in module._buffers.items()}
    bare._modules = {name: None if one is None else _without_bias(one) for name, one in module._modules.items()}
    return bare
