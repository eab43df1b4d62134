"""What keeps the decisions of searches as they are taken, and gives them back to a search that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgewise.discovery.found import Progress
from edgewise.errors import EdgewiseError
from edgewise.graph import Decision


class Journal(Protocol):
    """Keeps decisions, search after search; on disk in `runs/journal.py`."""

    def thresholds(self) -> Sequence[float]:
        """Those of the searches that it holds, in their order, where searches follow one another."""
        ...

    def search(self, threshold: float) -> Sequence[Decision]:
        """A search begins: what it decided already, if it was stopped in the middle or has been made before."""
        ...

    def cut(self, count: int) -> None:
        """Of the search that has begun, only the first so many decisions stand."""
        ...

    def add(self, decision: Decision) -> None:
        """Keep one more decision of the search that has begun."""
        ...

    def flush(self, progress: Progress) -> None:
        """All edges into an input have been decided: what was added must not be lost any more."""
        ...


def not_this_search(edge: str) -> EdgewiseError:
    """The error for decisions that the search would not have taken."""
    return EdgewiseError(
        f"the trace that is there is not this search's (at {edge!r}): its settings, or the file, have been changed"
    )
