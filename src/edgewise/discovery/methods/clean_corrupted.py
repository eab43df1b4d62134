"""Edge attribution with gradients at the clean and the corrupted run (Hanna et al. 2024; attribution.py)."""

from __future__ import annotations

from edgewise.discovery.attribution import STEPS, Points, along, attribute, moves, with_embeddings
from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.patching import Experiment


def clean_corrupted(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """EAP with the mean of the gradients on the clean and on the ablated embedding (EAP-IG's `clean-corrupted`).

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    if not moves(experiment):
        return attribute(experiment, along(experiment, "activations", STEPS), progress)
    both = Points("clean-corrupted", 2, lambda rows: with_embeddings(rows, [0.0, 1.0]))
    return attribute(experiment, both, progress)


METHOD = Method(
    name="clean-corrupted",
    summary="the same with gradients at the clean and the corrupted run",
    cost="3 forward, 2 backward",
    paper="Hanna et al. 2024",
    when="cheaper than a path",
    score=clean_corrupted,
)
