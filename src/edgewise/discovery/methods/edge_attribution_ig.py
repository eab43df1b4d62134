"""EAP-IG (Hanna et al. 2024): edge attribution with gradients averaged along a path (attribution.py)."""

from __future__ import annotations

from edgewise.discovery.attribution import (
    PATHS,
    STEPS,
    Path,
    Points,
    along,
    attribute,
    attribute_neurons,
    attribute_nodes,
    flat_at_clean,
)
from edgewise.discovery.method import MOST_STEPS, Method, Option, Scored, StepProgress
from edgewise.errors import EdgewiseError, unknown
from edgewise.patching import Experiment


def edge_attribution_ig(
    experiment: Experiment, *, path: Path = "inputs", steps: int = STEPS, progress: StepProgress | None = None
) -> Scored:
    """EAP-IG (Hanna et al. 2024): the gradient's mean along a path from the ablated to the clean run.

    Args:
        path: what moves: the `inputs` or, one group of nodes after another, the `activations`.
        steps: how many points of the path, the clean end included.

    Raises:
        EdgewiseError: as `edge_attribution`; an unknown path, or fewer than one step.
    """
    return attribute(experiment, _points(experiment, path, steps), progress)


def node_attribution_ig(
    experiment: Experiment, *, path: Path = "inputs", steps: int = STEPS, progress: StepProgress | None = None
) -> Scored:
    """NAP-IG: the same of whole nodes.

    Raises:
        EdgewiseError: as `edge_attribution_ig`.
    """
    return attribute_nodes(experiment, _points(experiment, path, steps), progress)


def neuron_attribution_ig(
    experiment: Experiment, *, path: Path = "inputs", steps: int = STEPS, progress: StepProgress | None = None
) -> Scored:
    """The same of neurons.

    Raises:
        EdgewiseError: as `edge_attribution_ig`, or the experiment's graph tells no neurons apart.
    """
    return attribute_neurons(experiment, _points(experiment, path, steps), progress)


def _points(experiment: Experiment, path: Path, steps: int) -> Points:
    if path not in PATHS:
        raise unknown("path", path, PATHS)
    if steps < 1:
        raise EdgewiseError(f"a path needs at least 1 step, not {steps}")
    if steps == 1 and flat_at_clean(experiment):
        raise EdgewiseError(
            f"1 step is the clean run, where metric {experiment.metric.name!r} has no gradient; take more than 1 step"
        )
    return along(experiment, path, steps)


METHOD = Method(
    name="edge-attribution-ig",
    short="eap-ig",
    summary="the same with gradients averaged along a path (EAP-IG)",
    cost="1 forward and, for each step, a forward and a backward; path activations: 1 + 2 layers times that",
    paper="Hanna et al. 2024",
    when="scores of all edges of a large model",
    takes=(
        Option("path", "inputs", "what moves from the ablated to the clean run", choices=PATHS),
        Option("steps", STEPS, "points of the path, the clean end included", least=1, most=MOST_STEPS),
    ),
    score=edge_attribution_ig,
    score_nodes=node_attribution_ig,
    score_neurons=neuron_attribution_ig,
)
