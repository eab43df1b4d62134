"""How likely an edge is to stay, before it is tested: what guess.py makes its blocks by. It decides nothing.

Edges whose scores are of about the same size stay about as often. Scores come from attribution where a search has a
shortlist by it, and from the pass before in a later pass; sizes count in powers of two of the threshold. Edges without
one are all alike, and go by what the last few hundred came to.
"""

from __future__ import annotations

import math

from edgewise.graph.circuit import Floats

LEAST, MOST = -8, 8
"""Powers of two of the threshold between which sizes are told apart."""
WEIGHT = 4.0
"""Tests that what is expected at first counts as."""
RECENT = 512
"""Tests after which, without scores, one counts a third of what the last one does."""
AT_FIRST = 0.1
"""How often an edge without a score stays, as far as nothing is known."""


class Foresight:
    """Told of every decision of a pass, in order."""

    def __init__(self, threshold: float, scores: Floats | None = None) -> None:
        """
        Args:
            scores: `[sources, inputs]`, in the metric's units; those of size zero say nothing.
        """
        self.scores, self.unit = scores, abs(threshold) or 1.0
        self.seen: dict[int | None, tuple[float, float]] = {}  # by size: tests, and how many of those stayed

    def chance(self, row: int | None, column: int) -> float:
        """How likely an edge is to stay."""
        size = self._size(row, column)
        # Attribution's sizes of edges that stay half of the time were about twice the threshold.
        expected = AT_FIRST if size is None else 1 / (1 + math.exp(0.5 - size))
        tests, kept = self.seen.get(size, (0.0, 0.0))
        return (kept + WEIGHT * expected) / (tests + WEIGHT)

    def see(self, row: int | None, column: int, *, kept: bool) -> None:
        """An edge has been tested."""
        size = self._size(row, column)
        tests, stayed = self.seen.get(size, (0.0, 0.0))
        lasts = 1 - 1 / RECENT if size is None else 1.0
        self.seen[size] = (lasts * tests + 1, lasts * stayed + kept)

    def _size(self, row: int | None, column: int) -> int | None:
        score = 0.0 if row is None or self.scores is None else abs(float(self.scores[row, column]))
        if not 0 < score < math.inf:
            return None
        return min(MOST, max(LEAST, math.floor(math.log2(score / self.unit))))
