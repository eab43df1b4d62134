"""ACDC at many thresholds, or for a wanted size, without searching twice where two thresholds decide alike.

A search at threshold t removes an edge if the metric's change is below t. Its trace therefore decides the same at every
threshold above the largest change of a removed edge, and up to the smallest change of a kept one: a search at such a
threshold would test the same edges in the same order with the same outcome, so its result is known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgewise.discovery.found import Discovery, Interrupted, Progress, ProgressCallback
from edgewise.discovery.journal import Journal
from edgewise.discovery.search import acdc, check_options
from edgewise.errors import EdgewiseError
from edgewise.graph import Decision
from edgewise.patching import Experiment

Search = Callable[..., Discovery]
"""`acdc`, or what is called like it."""


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
    search: Search | None = None,
    **options: Any,
) -> Iterator[AtThreshold]:
    """ACDC at each threshold in turn, as `acdc` (or another `search`) would find it; options are `acdc`'s.

    Raises:
        EdgewiseError: there is no threshold, or whatever `acdc` raises.
        Interrupted: as `acdc`; what came before has been given out.
    """
    if not thresholds:
        raise EdgewiseError("a sweep needs at least one threshold")
    searches = _Searches(experiment, search or acdc, absolute, progress, options)
    journal: Journal | None = options.get("journal")
    for threshold in [] if journal is None else journal.thresholds():
        if threshold not in thresholds:  # its circuit has been given out, and others may be the same
            searches.at(threshold)
    for threshold in thresholds:
        yield searches.at(threshold)


class _Searches:
    """Searches of one experiment, none of which is made twice."""

    def __init__(
        self,
        experiment: Experiment,
        search: Search,
        absolute: bool,
        progress: ProgressCallback | None,
        options: dict[str, Any],
    ) -> None:
        self.search = search
        self.experiment, self.absolute, self.progress, self.options = experiment, absolute, progress, options
        self.searched: list[tuple[float, float, Discovery]] = []
        self.asked = 0

    def at(self, threshold: float) -> AtThreshold:
        """What ACDC finds there, from a search or from one that would have decided alike."""
        self.asked += 1
        known = next((one for low, high, one in self.searched if low < threshold <= high), None)
        if known is not None:
            return AtThreshold(threshold, replace(known, threshold=threshold, seconds=0.0, tests=0), known.threshold)

        def report(one: Progress) -> None:
            if self.progress is not None:
                self.progress(replace(one, attempt=self.asked))

        found = self.search(self.experiment, threshold, absolute=self.absolute, progress=report, **self.options)
        self.searched.append((*decides_alike(found, absolute=self.absolute), found))
        return AtThreshold(threshold, found, None)


def acdc_with_edges(
    experiment: Experiment,
    edges: int,
    *,
    absolute: bool = False,
    progress: ProgressCallback | None = None,
    tries: int = 16,
    search: Search | None = None,
    **options: Any,
) -> Discovery:
    """The largest circuit of at most `edges` edges that ACDC finds, by a search over thresholds.

    With `search=acdc_by_node`, `edges` counts nodes, with `acdc_by_neuron` neurons or features.

    The threshold is halved on a logarithmic scale between bounds that give more and at most `edges` edges. Sizes do not
    fall strictly as thresholds rise, so this is the largest among the circuits tried, the smaller threshold if two are
    alike. `tried` lists every threshold and its size. Other options are `acdc`'s.

    Raises:
        EdgewiseError: `edges` is less than 1, and whatever `acdc` raises.
        Interrupted: as `acdc`; it holds the largest circuit so far of at most `edges` edges, if there is one.
    """
    check_options(edges=edges)
    started = time.perf_counter()
    searches = _Searches(experiment, search or acdc, absolute, progress, options)
    found: list[Discovery] = []

    def at(threshold: float) -> Discovery:
        found.append(searches.at(threshold).discovery)
        return found[-1]

    def best(otherwise: Discovery | None = None) -> Discovery | None:
        """The largest that fits, with the record of all searches."""
        fitting = [one for one in found if one.circuit.size <= edges]
        chosen = max(fitting, key=lambda one: (one.circuit.size, -one.threshold), default=otherwise)
        return chosen and replace(
            chosen,
            seconds=time.perf_counter() - started,
            tests=sum(one.tests for one in found) + (0 if otherwise is None else otherwise.tests),
            tried=tuple((one.threshold, one.circuit.size) for one in found),
        )

    try:
        _halve(at, edges, tries, experiment)
    except Interrupted as stop:
        chosen = best(stop.discovery)
        assert chosen is not None
        whole = any(one.circuit.size <= edges for one in found)
        raise Interrupted(chosen, stop.progress, whole=whole) from stop.__cause__
    chosen = best()
    if chosen is None:
        raise EdgewiseError(
            f"no threshold tried gives a circuit of at most {edges} {found[0].circuit.unit}; the smallest has "
            f"{min(one.circuit.size for one in found)}"
        )
    return chosen


def _halve(search: Callable[[float], Discovery], edges: int, tries: int, experiment: Experiment) -> None:
    """Search at thresholds nearer and nearer to the one whose circuit has `edges` edges, at most `tries` times."""
    # The metric's whole range; a threshold above it keeps nothing in all but odd cases.
    high = span = abs(experiment.ablated() - experiment.full()) or 1.0
    low, size, left = 0.0, -1, tries  # low: once above 0, a threshold that keeps too many edges

    def too_many(threshold: float) -> bool:
        nonlocal size, left
        left -= 1
        size = search(threshold).circuit.size
        return size > edges

    while left and too_many(high):
        low, high = high, 4 * high
    while low == 0 and left and size != edges and high > span * 1e-9:
        if too_many(high / 4):
            low = high / 4
        else:
            high /= 4
    while low > 0 and left and size != edges and high / low > 1.01:
        middle = math.sqrt(low * high)
        if too_many(middle):
            low = middle
        else:
            high = middle


def decides_alike(found: Discovery, *, absolute: bool = False) -> tuple[float, float]:
    """The thresholds (above the first, up to the second) at which a search would take all of this one's decisions."""
    return alike(found.trace, found.threshold, absolute=absolute)


def alike(trace: Iterable[Decision], threshold: float, *, absolute: bool = False) -> tuple[float, float]:
    """The same of a search's decisions."""
    low, high = -math.inf, math.inf
    for decision in trace:
        effect = abs(decision.effect) if absolute else decision.effect
        if decision.kept and effect >= threshold:
            high = min(high, effect)
        elif not decision.kept:  # the others were kept for a budget, and would be at any threshold
            low = max(low, effect)
    return low, high
