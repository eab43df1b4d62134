"""Confidence intervals by resampling examples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.graph.circuit import Floats
from edgewise.graph.graph import Bools

RESAMPLES, CONFIDENCE = 2000, 0.95
MOST_RESAMPLES = 1_000_000
FEWEST_EXAMPLES = 8
"""Intervals from fewer examples hold the true figure far less often than they say, so there are none."""


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
        confidence: how often an interval holds the true figure, in many examples; in few, less often.
        seed: of the draws, 0 or more.
    """

    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise EdgewiseError(f"a confidence is between 0 and 1, not {self.confidence}")
        fewest = math.ceil(10 / (1 - self.confidence) - 1e-9)
        if self.resamples and not fewest <= self.resamples <= MOST_RESAMPLES:
            raise EdgewiseError(
                f"a {self.confidence:.4g} interval needs {fewest:,} to {MOST_RESAMPLES:,} resamples, not "
                f"{self.resamples:,} (0 for no intervals)"
            )
        if self.seed < 0:
            raise EdgewiseError(f"a seed is a whole number of 0 or more, not {self.seed}")


def interval_of(statistic: Callable[..., Floats], columns: tuple[Floats, ...], bootstrap: Bootstrap) -> Interval | None:
    """The bias-corrected and accelerated (BCa) bootstrap interval of a figure (Efron 1987), by scipy.

    Args:
        statistic: called with the columns `[..., examples]`, resampled together, and `axis=-1`; gives the figure
        `[...]`.
        columns: `[examples]` each, what every example gives.

    Returns:
        None with fewer than 8 examples, or where the figure is no number in most resamples. Where all examples agree,
        the interval is the figure itself.
    """
    from scipy import stats  # 0.5 s to import, which only this takes

    if len(columns[0]) < FEWEST_EXAMPLES or not bootstrap.resamples:
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
            batch=max(1, 4_000_000 // len(columns[0])),
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


def share_interval(share: float, examples: int, bootstrap: Bootstrap) -> Interval | None:
    """Wilson's interval of a share of examples, which holds where all or none of few are right; a bootstrap's does not.

    Where an example has several scored places they are not independent, so examples are counted, not places.
    """
    from scipy.stats import norm

    if examples < FEWEST_EXAMPLES or not bootstrap.resamples:
        return None
    z = float(norm.ppf((1 + bootstrap.confidence) / 2))
    middle = share + z * z / (2 * examples)
    half = z * math.sqrt(share * (1 - share) / examples + (z / (2 * examples)) ** 2)
    scale = 1 + z * z / examples
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def mean_jaccard(sets: list[Bools]) -> float | None:
    """The mean over pairs of |A and B| / |A or B|, two empty sets counting as equal; None with fewer than two sets."""
    shares = [jaccard(one, other) for index, one in enumerate(sets) for other in sets[index + 1 :]]
    return float(np.mean(shares)) if shares else None


def jaccard(one: Bools, other: Bools) -> float:
    """|A and B| / |A or B|; 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
