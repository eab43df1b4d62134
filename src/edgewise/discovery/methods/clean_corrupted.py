"""Edge attribution with gradients at the clean and the corrupted run (Hanna et al. 2024; attribution.py)."""

from __future__ import annotations

from edgewise.discovery.attribution import (
    STEPS,
    Points,
    along,
    attribute,
    attribute_neurons,
    attribute_nodes,
    moves,
    with_embeddings,
)
from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.patching import Experiment


def clean_corrupted(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """EAP with the mean of the gradients on the clean and on the ablated embedding (EAP-IG's `clean-corrupted`).

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    return attribute(experiment, _points(experiment), progress)


def clean_corrupted_nodes(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """The same of whole nodes.

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    return attribute_nodes(experiment, _points(experiment), progress)


def clean_corrupted_neurons(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """The same of neurons.

    Raises:
        EdgewiseError: as `clean_corrupted`, or the experiment's graph tells no neurons apart.
    """
    return attribute_neurons(experiment, _points(experiment), progress)


def _points(experiment: Experiment) -> Points:
    if not moves(experiment):
        return along(experiment, "activations", STEPS)
    return Points("clean-corrupted", 2, lambda rows: with_embeddings(rows, [0.0, 1.0]))


METHOD = Method(
    name="clean-corrupted",
    summary="the same with gradients at the clean and the corrupted run",
    cost="3 forward, 2 backward",
    paper="Hanna et al. 2024",
    when="cheaper than a path",
    score=clean_corrupted,
    score_nodes=clean_corrupted_nodes,
    score_neurons=clean_corrupted_neurons,
)
