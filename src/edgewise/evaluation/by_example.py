"""From a number per scored place to one per example."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgewise.graph.circuit import Floats
from edgewise.tasks import Task


class ByExample:
    """Sums over each example's scored places, from which any mean over resampled examples follows.

    Attributes:
        examples: how many there are.
        counts: `[examples]`, scored places of each.
    """

    def __init__(self, task: Task) -> None:
        self.rows, self.examples = task.prompts.scored_rows.cpu(), len(task)
        self.counts = torch.bincount(self.rows, minlength=self.examples).double().numpy()

    def sums(self, values: Tensor) -> Floats:
        """`[scored]` -> `[examples]`."""
        total = torch.zeros(self.examples, dtype=torch.float64)
        return total.index_add_(0, self.rows, values.detach().cpu().double()).numpy()

    def means(self, values: Tensor) -> Floats:
        """`[scored]` -> `[examples]`; NaN for an example without a scored place."""
        with np.errstate(all="ignore"):
            return self.sums(values) / self.counts
