"""Confidence intervals by resampling examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how often examples are drawn anew; 0 for no intervals.
        confidence: how often an interval should hold the true figure.
        seed: of the draws.
    """

    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise EdgewiseError(f"a confidence is between 0 and 1, not {self.confidence}")
        if self.resamples < 0 or self.resamples == 1:
            raise EdgewiseError(f"an interval needs at least 2 resamples, not {self.resamples}")


def interval_of(statistic: Callable[..., Floats], columns: tuple[Floats, ...], bootstrap: Bootstrap) -> Interval | None:
    """The bias-corrected and accelerated (BCa) bootstrap interval of a figure (Efron 1987), by scipy.

    Args:
        statistic: called with the columns `[..., examples]`, resampled together, and `axis=-1`; gives the figure
        `[...]`.
        columns: `[examples]` each, what every example gives.

    Returns:
        None with fewer than 2 examples, or where the figure is no number in most resamples. Where all examples agree,
        the interval is the figure itself.
    """
    from scipy import stats  # 0.5 s to import, which only this takes

    if len(columns[0]) < 2 or not bootstrap.resamples:
        return None
    value = float(statistic(*columns, axis=-1))
    if not np.isfinite(value):
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of degenerate distributions, which are looked at below
        found = stats.bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=bootstrap.resamples,
            confidence_level=bootstrap.confidence,
            method="BCa",
            rng=np.random.default_rng(bootstrap.seed),
        )
    low, high = float(found.confidence_interval.low), float(found.confidence_interval.high)
    if np.isfinite(low) and np.isfinite(high):
        return Interval(low, high)
    finite = found.bootstrap_distribution[np.isfinite(found.bootstrap_distribution)]
    if len(finite) * 2 < bootstrap.resamples:
        return None
    tail = (1 - bootstrap.confidence) / 2
    return Interval(*(float(one) for one in np.quantile(finite, (tail, 1 - tail))))


def mean_jaccard(sets: list[Bools]) -> float | None:
    """The mean over pairs of |A and B| / |A or B|, two empty sets counting as equal; None with fewer than two sets."""
    shares = [jaccard(one, other) for index, one in enumerate(sets) for other in sets[index + 1 :]]
    return float(np.mean(shares)) if shares else None


def jaccard(one: Bools, other: Bools) -> float:
    """|A and B| / |A or B|; 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
