"""What a search decided, edge by edge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """One tested edge: the metric with it and without it, and whether it stayed."""

    edge: str
    before: float
    after: float
    kept: bool

    @property
    def effect(self) -> float:
        """How much the metric rises when the edge goes."""
        return self.after - self.before
