"""Whether a search found the behaviour: what its circuit recovers, how often it is right, what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from edgewise.evaluation.share import share_of_way
from edgewise.patching import Experiment
from edgewise.tasks import mean_over_places, right_answers

ENOUGH = 0.5
"""A circuit that recovers less, or is right less than so many times as often as the model, has failed."""


@dataclass(frozen=True)
class Outcome:
    """A circuit's worth, from one circuit run.

    Attributes:
        metric: lower is better.
        recovered: the share of the way from the ablated run to the model (for a permuted network, to the one it was
            made from); None where that is no way, or nothing was measured.
        accuracy: the share of scored places where the circuit is right; None on a task without answers.
    """

    metric: float
    recovered: float | None = None
    accuracy: float | None = None


def outcome_of(experiment: Experiment, logits: Tensor, full: float, ablated: float) -> Outcome:
    """What a circuit's logits `[scored, d_vocab]` are worth.

    Args:
        full, ablated: the experiment's metric with every edge present, and with none.
    """
    reference = experiment.reference
    metric = mean_over_places(experiment.metric(logits, reference))
    permuted = experiment.decoder.original is not None
    target = mean_over_places(experiment.metric(reference.logits, reference)) if permuted else full
    right = right_answers(logits, reference)
    return Outcome(
        metric, share_of_way(metric, ablated, target), None if right is None else float(right.double().mean())
    )


def advice(outcome: Outcome, accuracy_full: float | None, settings: Mapping[str, Any]) -> str | None:
    """In which way the circuit fails and what to try, or None if it does not.

    Args:
        accuracy_full: the model's own.
        settings: of the search, as in a run's record.
    """
    recovered, accuracy = outcome.recovered, outcome.accuracy
    if recovered is not None and recovered < 0:
        fails = f"does worse than the ablated run (it recovers {recovered:z.1%})"
    elif recovered is not None and recovered < ENOUGH:
        fails = f"recovers {recovered:z.1%}, less than half of the way from the ablated run to the model"
    elif accuracy is not None and accuracy_full is not None and accuracy < ENOUGH * accuracy_full:
        fails = f"is right {accuracy:.1%} of the time, less than half as often as the model ({accuracy_full:.1%})"
    else:
        return None
    sized = settings["edges"] is not None or settings.get("neurons") is not None
    larger = f"more {settings.get('level', 'edge')}s" if sized else "a lower threshold"
    other = "" if settings["method"] == "acdc" else ", another method"
    return f"the circuit {fails}. Try {larger}{other} or another ablation than {settings['ablation']!r}"
