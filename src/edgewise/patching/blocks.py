"""Candidates measured many at a time, and fewer at a time after a GPU has been full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from edgewise.models import Decoder
from edgewise.models.matmul import fast_matmul
from edgewise.patching.engine import Removed
from edgewise.patching.memory import MOST_CANDIDATES, MemoryPlan, OutOfMemoryError

_NO_ROOM = (
    "the GPU has no room left for even one candidate at a time. Use fewer prompts with --examples, a higher threshold, "
    "or --dtype bfloat16"
)


@contextmanager
def computing() -> Iterator[None]:
    """Without gradients, with fast matrix products; a GPU that is full becomes an error that a search can end with."""
    try:
        with torch.no_grad(), fast_matmul():
            yield
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(_NO_ROOM) from None


def whole_runs(plan: MemoryPlan, rows: int) -> tuple[int, int]:
    """How many of `rows` prompts go at once through runs from the middle of the model on, and how many candidates."""
    kept = plan.held + plan.clean + 2 * plan.logits
    room = plan.rows_at_once(plan.node_row, kept)
    at_once = room if plan.limit is None else (plan.limit - kept) // plan.node_row
    block = max(1, plan.block // max(1, plan.stream))
    together = min(rows, room)
    return together, max(1, min(MOST_CANDIDATES, block, at_once // rows if together == rows else 1))


class InBlocks:
    """An engine that measures candidates in blocks.

    Attributes:
        most: candidates at once; fewer after a GPU has been full.
    """

    decoder: Decoder
    most: int

    def in_blocks(self, candidates: Sequence[Removed], measure: Callable[[Sequence[Removed]], Tensor]) -> Tensor:
        """What `measure` says of candidates, block after block: `[candidates, scored]`.

        Raises:
            OutOfMemoryError: a GPU has no room for one by itself.
        """
        values: list[Tensor] = []
        done = 0
        while done < len(candidates):
            block = candidates[done : done + self.most]
            try:
                with computing():
                    values.append(measure(block))
                done += len(block)
            except OutOfMemoryError:
                if len(block) == 1:
                    raise
                if self.decoder.device.type == "cuda":
                    torch.cuda.empty_cache()
                self.most = len(block) // 2
        return values[0] if len(values) == 1 else torch.cat(values)
