"""Attribution patching of nodes (AtP; Nanda 2023), with AtP*'s way through attention (Kramar et al. 2024).

A unit is a head's query, key or value, or an MLP's output (units.py). Its score is the first-order estimate of how much
the metric rises when the unit is ablated: its change times the metric's gradient at it. For queries and keys that is a
poor estimate where the softmax is saturated, so the attention pattern is computed anew with the ablated query (or key),
and the first-order estimate starts at what the head then reads (AtP*'s QK fix). `qk_fix=False` is plain AtP.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgewise.discovery.edge_attribution import clean_or_path, gradients_of, mean_gradients, require_gradient
from edgewise.discovery.units import Units, scored_by_units
from edgewise.graph import Circuit
from edgewise.patching import Experiment
from edgewise.patching.gradients import Gradients, Rows, place_weights, rows_of


def attribution_patching(
    experiment: Experiment, *, qk_fix: bool = True, progress: Callable[[int, int], None] | None = None
) -> tuple[Circuit, Units]:
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
        for layer in range(experiment.decoder.config.n_layers):
            _add_layer(units, experiment, rows, gradients, layer, qk_fix)
    return scored_by_units(experiment.graph, units), units


def _add_layer(
    units: Units, experiment: Experiment, rows: Rows, gradients: Gradients, index: int, qk_fix: bool
) -> None:
    """Add one layer's effects on some rows, in place."""
    config, layer, ablated = experiment.decoder.config, experiment.decoder.layers[index], rows.ablated
    share, clean = config.share, {kind: getattr(rows, kind)[index] for kind in ("q", "k", "v")}
    changed = {kind: getattr(ablated, kind)[index] for kind in ("q", "k", "v")}

    def at(kind: str) -> Tensor:
        return getattr(gradients, kind)[index]

    def many(x: Tensor) -> Tensor:
        return x.repeat_interleave(share, dim=2)

    def first_order(change: Tensor, gradient: Tensor, heads: int) -> Tensor:
        # A graph may ask for the gradient at a key or value once per query head that reads it.
        change = change.repeat_interleave(gradient.shape[2] // change.shape[2], dim=2)
        effect = (change * gradient).double().sum(dim=(0, 1, 3))
        return effect.unflatten(0, (heads, -1)).sum(dim=1)  # query heads of one key/value head together

    with torch.no_grad():
        at_z, allowed = at("z"), experiment.decoder.allowed(rows.prompts.mask)
        k, v, z = many(clean["k"]), many(clean["v"]), rows.clean.z[index]
        for kind, heads in (("q", config.n_heads), ("k", config.n_kv_heads)):
            if qk_fix:
                q_now = changed["q"] if kind == "q" else clean["q"]
                k_now = many(changed["k"]) if kind == "k" else k
                effect = first_order(layer.attend(q_now, k_now, v, allowed) - z, at_z, heads)
            else:
                gradient = at(kind)
                change = changed[kind] - clean[kind]
                effect = first_order(
                    change.repeat_interleave(gradient.shape[2] // change.shape[2], dim=2), gradient, heads
                )
            getattr(units, kind)[index] += effect.to(units.q.dtype)
        units.v[index] += first_order(changed["v"] - clean["v"], at("v"), config.n_kv_heads).to(units.v.dtype)
        if layer.mlp is not None:
            change = ablated.mlp[index] - rows.clean.mlp[index]
            units.mlp[index] += (change * at("mlp_outputs")).double().sum().to(units.mlp.dtype)
