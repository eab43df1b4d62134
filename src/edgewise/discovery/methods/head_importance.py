"""Head importance score for pruning (HISP; Michel et al. 2019, as the ACDC paper's appendix D.2 uses it).

A unit is a head's query, key or value, or an MLP's output. Its importance is

    I = mean over examples of | sum over positions of (C(x) - C(x')) . dF(x)/dC |

with C its activation, x' the corrupted prompt and F the metric; under zero ablation C(x') is left out. In each layer
all importances are divided by their joint L2 norm. Units are masked from the least important to the most, and masks
turned into edges (units.py), so the scores give the whole sweep of circuits.

`variant="published"` gives what the published numbers did. Their code set no corrupted activation, so their scores are
those of zero ablation whatever was ablated. Where F is at its minimum on the clean run by definition (KL divergence or
the squared distance from the model itself), the gradient is zero and what they ranked was rounding noise: here the
scores are zero then. The default takes the gradient's mean along a path instead, as edge attribution does.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from edgewise.discovery.attribution import (
    Points,
    clean_or_path,
    flat_at_clean,
    gradients_of,
    mean_gradients,
    require_gradient,
)
from edgewise.discovery.method import Method, Option, Scored, StepProgress
from edgewise.discovery.units import KINDS, Units, scored_by_units
from edgewise.errors import EdgewiseWarning, unknown
from edgewise.models.precision import widened
from edgewise.patching import Experiment
from edgewise.patching.gradients import Rows, rows_of

VARIANTS = ("default", "published")
SMALLEST_NORM = 1e-6


def head_importance(
    experiment: Experiment, *, variant: str = "default", progress: StepProgress | None = None
) -> Scored:
    """Importances of all units, and the full circuit with the scores that follow for edges.

    Raises:
        EdgewiseError: an unknown variant, or a metric without a gradient.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    config = experiment.decoder.config
    require_gradient(experiment)
    flat = flat_at_clean(experiment)
    units = Units.full(config, 0.0, experiment.decoder.device)
    if not (flat and variant == "published"):
        against = variant == "default" and experiment.ablation != "zero"
        points = clean_or_path(experiment)
        for rows in rows_of(experiment):
            for kind, importance in _importance(experiment, rows, points, against, units, progress).items():
                getattr(units, kind).add_(importance.to(units.q.dtype) / len(experiment.task))
    if flat and variant == "published":
        warnings.warn(
            f"metric {experiment.metric.name!r} has no gradient at the clean run, so every importance is zero",
            EdgewiseWarning,
            stacklevel=2,
        )
    for layer in range(config.n_layers):
        parts = [getattr(units, kind)[layer] for kind in KINDS[: 4 if config.mlps else 3]]
        norm = torch.cat([part.reshape(-1) for part in parts]).norm().clamp_min(SMALLEST_NORM)
        for part in parts:
            part.div_(norm)
    return Scored(scored_by_units(experiment.graph, units), {"variant": variant}, units=units)


def _importance(
    experiment: Experiment,
    rows: Rows,
    points: Points,
    against: bool,
    units: Units,
    progress: StepProgress | None,
) -> dict[str, Tensor]:
    """Each unit's importance summed over some rows, before it is normalised."""
    # F of an example is its mean over the example's scored places.
    counts = torch.bincount(rows.prompts.scored_rows, minlength=len(rows.prompts))
    weights = 1 / counts[rows.prompts.scored_rows].to(experiment.reference.logits.dtype)
    gradients = mean_gradients(gradients_of(experiment, rows, weights, points, progress), points.count)
    found: dict[str, list[Tensor]] = {}
    for index, component in enumerate(experiment.decoder.components):
        for kind in component.kinds:
            if kind == "mlp":
                clean, ablated, gradient = rows.clean.codes[index], rows.ablated.codes[index], gradients.codes[index]
            else:
                clean, ablated = rows.clean.projections[index][kind], rows.ablated.projections[index][kind]
                gradient = gradients.projections[index][kind]
            if gradient.shape[2] != clean.shape[2]:  # one per query head: they ask the same key or value
                gradient = gradient.unflatten(2, (clean.shape[2], -1)).sum(dim=3)
            change = clean - ablated if against else clean
            found.setdefault(kind, []).append(widened(change * gradient).sum(dim=(1, 3)).abs().sum(dim=0))
    return {kind: torch.stack(layers).view_as(getattr(units, kind)) for kind, layers in found.items()}


METHOD = Method(
    name="head-importance",
    short="hisp",
    summary="importance of each query, key, value and MLP, normalised by layer (HISP)",
    cost="2 forward, 1 backward (KL and l2: 5 of each)",
    paper="Michel et al. 2019; ACDC paper, appendix D.2",
    when="to compare with the paper",
    takes=(Option("variant", "default", "`published`: as the published numbers came about", choices=VARIANTS),),
    score=head_importance,
    metric_units=False,
    units=True,
    sized=False,
)
