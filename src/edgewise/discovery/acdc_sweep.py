"""ACDC at many thresholds, without searching twice where two thresholds decide alike.

A search at threshold t removes an edge if the metric's change is below t. Its trace therefore decides the same at every
threshold above the largest change of a removed edge, and up to the smallest change of a kept one: a search at such a
threshold would test the same edges in the same order with the same outcome, so its result is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgewise.discovery.acdc import Discovery, Progress, ProgressCallback, acdc
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment


@dataclass(frozen=True)
class AtThreshold:
    """ACDC's result at one threshold of a sweep.

    Attributes:
        same_as: the threshold whose search gave it, where that is another one; None if it was searched for.
    """

    threshold: float
    discovery: Discovery
    same_as: float | None


def acdc_sweep(
    experiment: Experiment,
    thresholds: Sequence[float],
    *,
    absolute: bool = False,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Iterator[AtThreshold]:
    """ACDC at each threshold in turn, as `acdc` would find it; options are `acdc`'s.

    Raises:
        EdgewiseError: there is no threshold, or whatever `acdc` raises.
        Interrupted: as `acdc`; what came before has been given out.
    """
    if not thresholds:
        raise EdgewiseError("a sweep needs at least one threshold")
    searched: list[tuple[float, float, Discovery]] = []
    for index, threshold in enumerate(thresholds):
        known = next((one for low, high, one in searched if low < threshold <= high), None)
        if known is not None:
            yield AtThreshold(threshold, replace(known, threshold=threshold, seconds=0.0, tests=0), known.threshold)
            continue

        def report(one: Progress, attempt: int = index + 1) -> None:
            if progress is not None:
                progress(replace(one, attempt=attempt))

        found = acdc(experiment, threshold, absolute=absolute, progress=report, **options)
        searched.append((*decides_alike(found, absolute=absolute), found))
        yield AtThreshold(threshold, found, None)


def decides_alike(found: Discovery, *, absolute: bool = False) -> tuple[float, float]:
    """The thresholds (above the first, up to the second) at which a search would take all of this one's decisions."""
    low, high = -math.inf, math.inf
    for decision in found.trace:
        effect = abs(decision.effect) if absolute else decision.effect
        if decision.kept:
            high = min(high, effect)
        else:
            low = max(low, effect)
    return low, high
