"""What a search's circuit is worth: what it recovers, how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgewise.evaluation.share import share_of_way
from edgewise.models.precision import in_float64
from edgewise.patching import Experiment
from edgewise.tasks import mean_over_places, right_answers


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
        metric, share_of_way(metric, ablated, target), None if right is None else float(in_float64(right).mean())
    )
