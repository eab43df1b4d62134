"""How far a metric has come on the way from one value to another."""

from __future__ import annotations

import math

SMALLEST_WAY = 1e-12
"""A shorter way is none."""


def share_of_way(value: float, start: float, end: float) -> float | None:
    """(value - start) / (end - start): 0 at the start, 1 at the end; None where there is no way or no number."""
    way = end - start
    return None if not abs(way) > SMALLEST_WAY or math.isnan(value) else (value - start) / way + 0.0  # no minus zero
