"""Edge attribution patching: what removing each edge would do to the metric, by gradients instead of runs.

The score of edge u->r is the first-order estimate of how much the metric rises when the edge is ablated,

    score(u->r) = mean over scored places of  sum over positions of (ã_u - a_u) . g_r

with a_u what u writes on the clean prompt, ã_u what it carries when ablated, and g_r the metric's gradient at r's
input. A positive score means that the edge is needed, in the metric's own units, as for ACDC's effects. Port edges get
the same: (q̃ - q) . dM/dq for a head's query, likewise its key and value.

A node's score is the same with the gradient at its own output, which is the sum of the scores of all its edges: node
attribution patching (NAP), and along a path NAP-IG, as in EAP-IG's code and the MIB benchmark.
A neuron's is the change of its activation, before the output projection, times the gradient there.

What differs is where g_r is taken:

* `edge_attribution`: at the clean run (Syed et al. 2023). One forward and one backward pass.
* `edge_attribution_ig` with path `inputs`: the mean over runs whose embedding is moved from the ablated to the clean
  one in equal steps 1/steps, 2/steps, …, 1 (Hanna et al. 2024, EAP-IG).
* with path `activations`: the mean over runs in which one group of nodes (the embedding, one layer's heads, one MLP) is
  moved in these steps, for every group in turn (EAP-IG's `ig-activations`). As in its code, nothing flows back through
  the group that is moved, so that early edges come out somewhat low.
* `clean_corrupted`: the mean of the clean run and of the one whose embedding is ablated.

`relp` takes it at the clean run too, but goes backward by other rules.

A metric that is at its minimum on the clean run by definition (`kl_div`, `l2`) has no gradient there. Ranking rounding
noise is refused: the first takes the path of five steps then, and the record says so. Where the embedding does not
change when it is ablated, a path of inputs leads nowhere, and all of them take the path of activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgewise.discovery.method import Scored, StepProgress
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, of_neurons, of_nodes
from edgewise.graph.circuit import Floats
from edgewise.models.precision import sum_dtype
from edgewise.patching import Experiment
from edgewise.patching.gradients import (
    Changed,
    Gradients,
    Rows,
    add_edge_effects,
    add_neuron_effects,
    add_node_effects,
    changes_when_ablated,
    gradients_at,
    place_weights,
    rows_of,
)
from edgewise.tasks import mean_over_places

Path = Literal["inputs", "activations"]
PATHS = ("inputs", "activations")
FLAT_AT_CLEAN = ("kl_div", "l2")
"""Metrics whose gradient is zero at the clean run, whatever the model."""
NOT_SMOOTH = ("frac_correct",)
"""Metrics that have no gradient anywhere."""
ROUNDING = 1e-6
"""Scores that are smaller than this share of what ablating everything does to the metric are rounding."""
STEPS = 5


@dataclass(frozen=True)
class Points:
    """Where gradients are taken: what that is called, in how many runs, and what each of them changes."""

    name: str
    count: int
    of: Callable[[Rows], Iterator[Changed]]


def clean_or_path(experiment: Experiment) -> Points:
    """The clean run; for a metric that has no gradient there, the path of inputs in `STEPS` steps."""
    if flat_at_clean(experiment):
        return along(experiment, "inputs", STEPS)
    return Points("clean", 1, lambda rows: iter([Changed()]))


def along(experiment: Experiment, path: Path, steps: int) -> Points:
    """The points of a path; of activations too where the embedding does not move, so that inputs lead nowhere."""
    if path == "inputs" and moves(experiment):
        fractions = [step / steps for step in range(1, steps + 1)]
        return Points(path, steps, lambda rows: with_embeddings(rows, fractions))
    groups = 1 + len(experiment.decoder.components)
    return Points("activations", steps * groups, lambda rows: _along_activations(rows, steps))


def require_gradient(experiment: Experiment) -> None:
    """Raise an EdgewiseError if the metric has no gradient anywhere."""
    if experiment.metric.name in NOT_SMOOTH:
        raise EdgewiseError(f"metric {experiment.metric.name!r} has no gradient; choose another for this method")


def flat_at_clean(experiment: Experiment) -> bool:
    """Whether the metric has no gradient at the clean run, whatever the model."""
    return experiment.metric.name in FLAT_AT_CLEAN and experiment.decoder.original is None


def moves(experiment: Experiment) -> bool:
    """Whether the embedding changes anywhere when it is ablated."""
    prompts = experiment.task.prompts
    with torch.no_grad():
        clean = experiment.decoder.embed(prompts.clean, split=experiment.graph.split_embedding)
    return bool((clean != experiment.ablated_activations.embedding).any())


def with_embeddings(rows: Rows, along: list[float]) -> Iterator[Changed]:
    clean, ablated = rows.clean.embedding.sum(dim=0), rows.ablated.embedding.sum(dim=0)
    for alpha in along:
        yield Changed(embedding=torch.lerp(ablated, clean, alpha), errors=alpha)


def _along_activations(rows: Rows, steps: int) -> Iterator[Changed]:
    along = [step / steps for step in range(1, steps + 1)]
    yield from with_embeddings(rows, along)
    for index, (clean, ablated) in enumerate(zip(rows.clean.codes, rows.ablated.codes, strict=True)):
        for alpha in along:
            yield Changed(codes={index: torch.lerp(ablated, clean, alpha)})


def attribute(
    experiment: Experiment,
    points: Points,
    progress: StepProgress | None,
    *,
    relevance: bool = False,
    each: list[Tensor] | None = None,
) -> Scored:
    """Every edge's score.

    Args:
        each: gets what each prompt adds to all scores, one after another: the edge matrix, row by row, and then port
            edges, in float32 on CPU.
    """
    require_gradient(experiment)
    graph, device = experiment.graph, experiment.decoder.device
    scores = torch.zeros(len(graph.sources), len(graph.inputs), dtype=sum_dtype(device), device=device)
    ports = torch.zeros(len(graph.inputs), dtype=sum_dtype(device), device=device)
    before: Tensor | float = 0.0  # what the prompts so far have added, where each is asked for
    for rows in rows_of(experiment, None if each is None else 1):
        changes, weights = changes_when_ablated(experiment, rows), place_weights(experiment, rows)
        for gradients in gradients_of(experiment, rows, weights, points, progress, relevance=relevance):
            add_edge_effects(scores, experiment, gradients, rows, changes, 1 / points.count)
            _add_port_effects(ports, experiment, gradients, rows, 1 / points.count)
            del gradients  # before the next are made
        if each is not None:
            total = torch.cat([scores.flatten(), ports])
            each.append((total - before).float().cpu())
            before = total
    found = _checked(scores, experiment, lambda row, column: f"{graph.sources[row].name}->{graph.inputs[column].name}")
    every = Circuit.full(graph).with_scores(found, ports.cpu().numpy())
    return Scored(every, {"gradient_at": points.name, "passes": points.count})


def attribute_nodes(
    experiment: Experiment, points: Points, progress: StepProgress | None, *, relevance: bool = False
) -> Scored:
    """Every node's score, as that of all its edges together."""
    graph = experiment.graph
    scores = _summed(experiment, points, progress, relevance, (len(graph.sources),), add_node_effects)
    found = _checked(scores, experiment, lambda row: graph.sources[row].name)
    every = of_nodes(graph, np.ones(len(graph.sources), dtype=bool), found)
    return Scored(every, {"gradient_at": points.name, "passes": points.count})


def attribute_neurons(
    experiment: Experiment, points: Points, progress: StepProgress | None, *, relevance: bool = False
) -> Scored:
    """Every neuron's score, in an experiment whose graph tells neurons apart."""
    graph = experiment.graph
    if not graph.neurons:
        raise EdgewiseError("the experiment's graph tells no neurons apart; make it with neurons=True")
    add = partial(add_neuron_effects, components=experiment.decoder.components)
    scores = _summed(experiment, points, progress, relevance, (graph.n_layers, graph.neurons), add)
    every = of_neurons(graph, graph.units, _checked(scores, experiment, graph.unit_name))
    return Scored(every, {"gradient_at": points.name, "passes": points.count})


def _summed(
    experiment: Experiment,
    points: Points,
    progress: StepProgress | None,
    relevance: bool,
    shape: tuple[int, ...],
    add: Callable[..., None],
) -> Tensor:
    """Scores of some shape to which `add` adds every gradient's share (called as `add_node_effects`)."""
    require_gradient(experiment)
    device = experiment.decoder.device
    scores = torch.zeros(shape, dtype=sum_dtype(device), device=device)
    for rows in rows_of(experiment):
        weights = place_weights(experiment, rows)
        for gradients in gradients_of(experiment, rows, weights, points, progress, relevance=relevance):
            add(scores, gradients=gradients, rows=rows, share=1 / points.count)
            del gradients  # before the next are made
    return scores


def _checked(scores: Tensor, experiment: Experiment, name: Callable[..., str]) -> Floats:
    """Scores as numbers; an EdgewiseError if one is none, or all of them are rounding."""
    found = scores.cpu().numpy()
    if not np.isfinite(found).all():
        at = tuple(np.argwhere(~np.isfinite(found))[0])
        raise EdgewiseError(f"the score of {name(*at)} came out as {found[at]}: the model's gradients overflow")
    whole = mean_over_places(experiment.metric(experiment.reference.logits, experiment.reference))
    if experiment.decoder.original is None and np.abs(found).max() <= ROUNDING * abs(experiment.ablated() - whole):
        raise EdgewiseError(
            f"metric {experiment.metric.name!r} has no gradient at any input of model {experiment.decoder.name!r} on "
            "these prompts, so scores would be nothing but rounding"
        )
    return found


def gradients_of(
    experiment: Experiment,
    rows: Rows,
    weights: Tensor,
    points: Points,
    progress: StepProgress | None,
    *,
    relevance: bool = False,
) -> Iterator[Gradients]:
    """The gradients at every point for some rows; after each, `progress` hears of its share of these prompts."""
    for done, point in enumerate(points.of(rows), start=1):
        yield gradients_at(experiment, rows, weights, point, relevance=relevance)
        if progress is not None:
            progress(rows.first + (rows.stop - rows.first) * done // points.count, len(experiment.task))


def mean_gradients(gradients: Iterator[Gradients], count: int) -> Gradients:
    """The mean of `count` of them, at all projections and codes."""
    total = next(gradients)
    # Never in place: two of autograd's gradients may be one tensor.
    for one in gradients:
        for mine, others in zip(total.projections, one.projections, strict=True):
            mine.update({kind: mine[kind] + others[kind] for kind in mine})
        total.codes[:] = [sum_ + part for sum_, part in zip(total.codes, one.codes, strict=True)]
        del one  # before the next are made
    for mine in total.projections:
        mine.update({kind: sum_ / count for kind, sum_ in mine.items()})
    total.codes[:] = [sum_ / count for sum_ in total.codes]
    return total


def _add_port_effects(ports: Tensor, experiment: Experiment, gradients: Gradients, rows: Rows, share: float) -> None:
    """First-order effect of replacing a head's whole query (key, value) by the ablated run's."""
    graph = experiment.graph
    if not graph.ports:
        return
    for index, changed in enumerate(rows.ablated.projections):
        for kind, ablated in changed.items():
            gradient = gradients.projections[index][kind]
            change = ablated - rows.clean.projections[index][kind]
            # In a graph that gives every query head its own key and value, each asks its key/value head.
            change = change.repeat_interleave(gradient.shape[2] // change.shape[2], dim=2)
            effect = (change * gradient).to(ports.dtype).flatten(0, 1)  # [batch * pos, inputs, width]
            by_span = [(effect if at is None else effect[at]).sum(dim=(0, 2)) for at in rows.places(graph)]
            ports[rows.wiring.columns[index][kind]] += share * torch.stack(by_span, dim=1).flatten()
