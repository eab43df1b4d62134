"""The incremental engine takes the decisions of its slow twin, the plain engine, on every edge.

Rounding is the only excuse for another decision: the effect of the edge, as the twin measured it, has to be the
threshold but for rounding (`near_tie`). After that the two searches are about different circuits, so comparing stops.
"""

from typing import Any

import numpy as np
import tiny
import torch

from edgewise.discovery import Decision, Discovery, acdc
from edgewise.patching import Experiment
from edgewise.runs import Run

VALUES_AGREE = {torch.float64: 1e-9, torch.float32: 1e-5}


def size(decision: Decision) -> float:
    return max(abs(decision.before), abs(decision.after), 1.0)


def near_tie(decision: Decision, threshold: float, absolute: bool, dtype: torch.dtype) -> bool:
    """Whether rounding may decide: the effect is within 1e-5 of the threshold, relative to what has been rounded.

    In float64 that is the threshold itself: the metric's own rounding, 1e-15, is nothing beside any threshold here. In
    float32 an effect is the difference of two metrics, each with its own rounding: logits of order 1 to 10 are sums of
    some hundred terms rounded to 6e-8 of their size, so a metric made of them is right to a few 1e-6 of its size, or
    of 1 where it is smaller than the logits it is made of. A threshold far below that cannot be met to 1e-5 of itself.
    """
    change = abs(decision.effect) if absolute else decision.effect
    return abs(change - threshold) <= 1e-5 * (abs(threshold) if dtype == torch.float64 else size(decision))


def same_decisions(
    fast: Discovery, slow: Discovery, dtype: torch.dtype, absolute: bool = False, says: Any = ""
) -> bool:
    """Compare two searches edge by edge; False if they part at a near tie, an AssertionError if they do elsewhere."""
    tolerance = VALUES_AGREE[dtype]

    def alike(one: float, other: float, of: float = 1.0) -> bool:
        return abs(one - other) <= tolerance * max(abs(other), of)

    assert alike(fast.metric_full, slow.metric_full), says
    assert fast.metric_ablated == slow.metric_ablated, says
    for ours, theirs in zip(fast.trace, slow.trace, strict=False):
        assert ours.edge == theirs.edge, says
        assert alike(ours.before, theirs.before, size(theirs)), (ours, theirs, says)
        assert alike(ours.after, theirs.after, size(theirs)), (ours, theirs, says)
        if ours.kept != theirs.kept:
            assert near_tie(theirs, slow.threshold, absolute, dtype), (ours, theirs, slow.threshold, says)
            return False
    assert fast.tests == len(fast.trace) == len(slow.trace) == slow.tests, says
    assert fast.circuit == slow.circuit, says
    assert alike(fast.metric, slow.metric), says
    largest = 2 * tolerance * max(map(size, slow.trace))
    assert np.allclose(fast.circuit.scores, slow.circuit.scores, rtol=0, atol=largest), says
    assert np.allclose(fast.circuit.port_scores, slow.circuit.port_scores, rtol=0, atol=largest), says
    return True


def both(experiment: Experiment, threshold: float, **options: Any) -> tuple[Discovery, Discovery]:
    """The same search with either engine; the metric of what the fast one found is right, recomputed from scratch."""
    fast, slow = (acdc(experiment, threshold, engine=engine, **options) for engine in ("incremental", "plain"))
    assert fast.metric == tiny.near(experiment.value(fast.circuit))
    return fast, slow


def decisions(found: Discovery) -> list[tuple[str, bool]]:
    return [(one.edge, one.kept) for one in found.trace]


def same_found(ours: Run, theirs: Run) -> None:
    """Two runs of one search on one model, which lies in two places."""
    assert (ours.circuit.edges == theirs.circuit.edges).all()
    assert [(one.edge, one.kept) for one in ours.trace] == [(one.edge, one.kept) for one in theirs.trace]
    if ours.scores is not None and ours.scores.scores is not None:
        assert theirs.scores is not None
        assert theirs.scores.scores is not None
        assert np.allclose(ours.scores.scores, theirs.scores.scores, rtol=1e-3, atol=1e-6)
