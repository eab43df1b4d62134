"""Edge attribution patching (EAP; Syed et al. 2023): gradients at the clean run (attribution.py)."""

from __future__ import annotations

from edgewise.discovery.attribution import attribute, attribute_neurons, attribute_nodes, clean_or_path
from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.patching import Experiment


def edge_attribution(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """EAP (Syed et al. 2023); along the path of inputs where the metric has no gradient at the clean run.

    Raises:
        EdgewiseError: the metric has no gradient at all, or a score is not a finite number, or all are zero.
    """
    return attribute(experiment, clean_or_path(experiment), progress)


def node_attribution(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """NAP: the same of whole nodes.

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    return attribute_nodes(experiment, clean_or_path(experiment), progress)


def neuron_attribution(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """The same of neurons: of each the change of its activation times the gradient there.

    Raises:
        EdgewiseError: as `edge_attribution`, or the experiment's graph tells no neurons apart.
    """
    return attribute_neurons(experiment, clean_or_path(experiment), progress)


METHOD = Method(
    name="edge-attribution",
    short="eap",
    summary="estimate every edge's effect by its gradient at the clean run (EAP)",
    cost="2 forward, 1 backward (KL and l2, flat there: as edge-attribution-ig)",
    paper="Syed et al. 2023",
    when="a first look at a large model",
    score=edge_attribution,
    score_nodes=node_attribution,
    score_neurons=neuron_attribution,
)
