"""Attribution patching of nodes (AtP; Nanda 2023), with AtP*'s way through attention (Kramar et al. 2024).

A unit is a head's query, key or value, or an MLP's output (units.py). Its score is the first-order estimate of how much
the metric rises when the unit is ablated: its change times the metric's gradient at it. For queries and keys that is a
poor estimate where the softmax is saturated, so the attention pattern is computed anew with the ablated query (or key),
and the first-order estimate starts at what the head then reads (AtP*'s QK fix). `qk_fix=False` is plain AtP.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.discovery.attribution import clean_or_path, gradients_of, mean_gradients, require_gradient
from edgewise.discovery.method import Method, Option, Scored, StepProgress
from edgewise.discovery.units import Units, scored_by_units
from edgewise.graph.names import InputKind
from edgewise.models.precision import widened
from edgewise.patching import Experiment
from edgewise.patching.gradients import Gradients, Rows, place_weights, rows_of


def attribution_patching(
    experiment: Experiment, *, qk_fix: bool = True, progress: StepProgress | None = None
) -> Scored:
    """Scores of all units, and the full circuit with the scores that follow for edges.

    A metric that has no gradient at the clean run takes the gradient's mean along a path, as edge attribution does.

    Raises:
        EdgewiseError: the metric has no gradient.
    """
    require_gradient(experiment)
    units = Units.full(experiment.decoder.config, 0.0, experiment.decoder.device)
    points = clean_or_path(experiment)
    for rows in rows_of(experiment):
        weights = place_weights(experiment, rows)
        gradients = mean_gradients(gradients_of(experiment, rows, weights, points, progress), points.count)
        for index in range(len(experiment.decoder.components)):
            _add_component(units, experiment, rows, gradients, index, qk_fix)
    return Scored(scored_by_units(experiment.graph, units), {"qk_fix": qk_fix}, units=units)


def _add_component(
    units: Units, experiment: Experiment, rows: Rows, gradients: Gradients, index: int, qk_fix: bool
) -> None:
    """Add the effects of one component's units on some rows, in place."""
    component = experiment.decoder.components[index]
    clean, ablated = rows.clean.projections[index], rows.ablated.projections[index]

    def add(kind: InputKind, change: Tensor, gradient: Tensor) -> None:
        # A graph may ask for the gradient at a key or value once per query head that reads it.
        change = change.repeat_interleave(gradient.shape[2] // change.shape[2], dim=2)
        effect = widened(change * gradient).sum(dim=(0, 1, 3))
        unit = getattr(units, kind)[component.layer]
        effect = effect.view(*unit.shape, -1).sum(dim=-1)  # query heads of one key/value head together
        unit += effect.to(unit.dtype)

    with torch.no_grad():
        code, at_code = rows.clean.codes[index], gradients.codes[index]
        if component.kinds == ("mlp",):
            add("mlp", rows.ablated.codes[index] - code, at_code)
            return
        allowed = experiment.decoder.allowed(rows.prompts.mask)[index]
        for kind in component.kinds:
            if qk_fix and kind != "v":
                add(kind, component.code({**clean, kind: ablated[kind]}, allowed) - code, at_code)
            else:
                add(kind, ablated[kind] - clean[kind], gradients.projections[index][kind])


METHOD = Method(
    name="attribution-patching",
    short="atp",
    summary="estimate the effect of each query, key, value and MLP by gradients (AtP)",
    cost="2 forward, 1 backward (KL and l2: 5 of each)",
    paper="Nanda 2023; Kramar et al. 2024",
    when="which heads and MLPs matter, in a large model",
    takes=(Option("qk_fix", True, "compute attention anew for queries and keys (AtP*'s fix)"),),
    score=attribution_patching,
    units=True,
    sized=False,
)
