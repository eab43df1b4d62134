"""RelP (Jafari et al. 2025): edge attribution by the rules of relevance propagation (patching/relevance.py)."""

from __future__ import annotations

from edgewise.discovery.attribution import attribute, attribute_neurons, attribute_nodes, clean_or_path
from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.patching import Experiment


def relp(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """RelP (Jafari et al. 2025): EAP with a backward pass by LRP's rules (patching/relevance.py).

    For a metric that has no gradient at the clean run, the mean of the same along the path of inputs.

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    return attribute(experiment, clean_or_path(experiment), progress, relevance=True)


def relp_nodes(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """The same of whole nodes.

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    return attribute_nodes(experiment, clean_or_path(experiment), progress, relevance=True)


def relp_neurons(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """The same of neurons.

    Raises:
        EdgewiseError: as `relp`, or the experiment's graph tells no neurons apart.
    """
    return attribute_neurons(experiment, clean_or_path(experiment), progress, relevance=True)


METHOD = Method(
    name="relp",
    summary="edge attribution with a backward pass by the rules of relevance propagation",
    cost="as edge-attribution",
    paper="Jafari et al. 2025",
    when="a first look at a large model with MLPs",
    score=relp,
    score_nodes=relp_nodes,
    score_neurons=relp_neurons,
)
