"""Candidates measured many at a time, and fewer at a time after a GPU has been full."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from edgewise.models import Decoder
from edgewise.models.matmul import fast_matmul
from edgewise.patching.ablation import Ablated, cut_rows
from edgewise.patching.engine import Removed, means
from edgewise.patching.experiment import Experiment
from edgewise.patching.memory import MOST_CANDIDATES, MemoryPlan, OutOfMemoryError, plan_memory
from edgewise.tasks import Prompts

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


class RunsOn(InBlocks, ABC):
    """An engine that records the circuit as it is now, and runs on from the component in which candidates differ.

    Attributes:
        plan: how it fits into memory.
        rows: rows of prompts at once.
        fresh: what is recorded, up to the stream before this component, is of the circuit as it is now.
    """

    def __init__(self, experiment: Experiment, max_memory: int | None) -> None:
        self.experiment, self.decoder = experiment, experiment.decoder
        self.plan = plan_memory(self.decoder, experiment.task, experiment.graph, max_memory, "nodes")
        self.rows, self.most = whole_runs(self.plan, len(experiment.task))
        self.fresh = len(self.decoder.components)

    @abstractmethod
    def component(self, column: int) -> int:
        """The component that a column of the search is."""

    @abstractmethod
    def record(self) -> None:
        """Record the circuit as it is now."""

    @abstractmethod
    def _measure(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """`values` of so many candidates that they go at once."""

    def at_once(self, column: int) -> int:
        """How many candidates of a column to ask about at once."""
        return self.most

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        """The metric of what is present now without some of one column, for each candidate by itself."""
        return means(self.values(column, candidates))

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `patching.engine.PlaceEngine`."""
        if self.component(column) > self.fresh:
            with computing():
                self.record()
            self.fresh = len(self.decoder.components)
        return self.in_blocks(candidates, lambda block: self._measure(column, block))

    def pieces(self) -> Iterator[tuple[slice, Prompts, Ablated]]:
        """Some rows of the prompts at a time, with what is ablated in them."""
        prompts = self.experiment.task.prompts
        for first in range(0, len(prompts), self.rows):
            stop = min(first + self.rows, len(prompts))
            ablated = cut_rows(self.experiment.ablated_activations, first, stop)
            yield slice(first, stop), prompts.rows(first, stop), ablated
