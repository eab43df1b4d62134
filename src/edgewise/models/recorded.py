"""What is recorded of a run, an entry per component: where it is made, or kept in the CPU's memory until it is needed.

Whoever reads it need not know which: an entry that is asked for comes to the device on which the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar, overload

import torch
from torch import Tensor

T = TypeVar("T", Tensor, dict[Any, Tensor])


class Offloaded(Sequence[T], Generic[T]):
    """Entries (a tensor, or tensors by name) that are kept in the CPU's memory.

    The one that was asked for last stays on the device: heads of a component are asked for one after another.
    """

    def __init__(self, device: torch.device) -> None:
        """
        Args:
            device: where entries are needed.
        """
        # A tensor rather than its device: where it is unpickled, that may be called otherwise.
        self._there = torch.empty(0, device=device)
        self._kept: list[T] = []
        self._last: tuple[int, Any] = -1, None

    def append(self, entry: T) -> None:
        self._kept.append(moved(entry, torch.device("cpu")))

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return self.holding(self._kept[at])
        number = range(len(self._kept))[at]
        if self._last[0] != number:
            self._last = -1, None  # its memory is free before another is brought
            self._last = number, moved(self._kept[number], self._there.device)
        return self._last[1]

    def rows(self, first: int, stop: int) -> Self:
        """The same of rows `first` to `stop` of the prompts, in the same memory."""
        return self.holding([_cut(entry, first, stop) for entry in self._kept])

    def holding(self, kept: list[T]) -> Self:
        """Other entries, which are in the CPU's memory, for the same device."""
        found = type(self)(self._there.device)
        found._kept = kept
        return found

    def pop(self, at: int) -> T:
        """An entry as it is kept, which goes."""
        self._last = -1, None
        return self._kept.pop(at)


Recorded = list[T] | Offloaded[T]
"""Where entries of a run are recorded."""


def moved(given: Any, device: torch.device) -> Any:
    """A tensor, or tensors by name, on a device; anything else as it is."""
    if isinstance(given, Tensor):
        return given.to(device)
    return {name: one.to(device) for name, one in given.items()} if isinstance(given, dict) else given


def cut(entries: Sequence[Any], first: int, stop: int) -> Sequence[Any]:
    """Rows `first` to `stop` of the prompts, of every entry."""
    if isinstance(entries, Offloaded):
        return entries.rows(first, stop)
    return tuple(_cut(entry, first, stop) for entry in entries)


def _cut(entry: Any, first: int, stop: int) -> Any:
    if isinstance(entry, Tensor):
        return entry[first:stop]
    return {name: one[first:stop] for name, one in entry.items()}


def joined(pieces: Sequence[Recorded[Tensor]]) -> Recorded[Tensor]:
    """Tensors of several pieces of the prompts' rows as those of all; each is given up as soon as it is copied."""
    if len(pieces) == 1:
        return pieces[0]
    found = [torch.cat([one.pop(0) for one in pieces]) for _ in range(len(pieces[0]))]
    return pieces[0].holding(found) if isinstance(pieces[0], Offloaded) else found
