"""In what sums are added up: float64, on devices that have it. Apple's GPUs have not."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of devices that have no float64."""


def sum_dtype(device: torch.device) -> torch.dtype:
    """What sums of many terms are kept in on a device: float64, or float32 where it has none."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def widened(x: Tensor) -> Tensor:
    """The same on its device, for a sum of many terms."""
    return x.to(sum_dtype(x.device))


def in_float64(x: Tensor) -> Tensor:
    """The same in float64: on its device, or on the CPU where that has none."""
    return x.double() if sum_dtype(x.device) == torch.float64 else x.cpu().double()
