"""The hard concrete distribution (Louizos et al. 2018): masks between 0 and 1 that can be learned.

    s = sigmoid((log u - log(1 - u) + theta) / beta),  Z = clamp(s (zeta - gamma) + gamma, 0, 1),  u uniform

with the constants of subnetwork probing and edge pruning.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
EDGE_OF_UNIFORM = 1e-4


def sample(theta: Tensor, generator: torch.Generator, *, shared: bool = False) -> Tensor:
    """One mask for each parameter, in the same shape; if `shared`, all entries of the first dimension get one noise."""
    # Drawn on the CPU, so that a seed gives the same masks on every device.
    uniform = (
        torch.rand(theta.shape[shared:], generator=generator)
        .clamp(EDGE_OF_UNIFORM, 1 - EDGE_OF_UNIFORM)
        .to(theta.device)
    )
    s = torch.sigmoid((uniform.log() - (1 - uniform).log() + theta) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def alive(theta: Tensor) -> Tensor:
    """The probability that a mask is not zero."""
    return torch.sigmoid(theta - BETA * math.log(-GAMMA / ZETA))
