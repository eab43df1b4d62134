"""Edge pruning (Bhaskar et al. 2024): a learned mask on every edge, pressed to a wanted size.

Every edge and port edge has a hard concrete mask (as in subnetwork_probing.py) with a parameter theta of its own, and a
circuit run with soft masks says what the metric becomes. The loss is

    metric + lambda1 (n - t) + lambda2 (n - t)^2

with n the expected share of edges whose mask is not zero and t the wanted share, which goes from all edges down to the
target over the first part of the steps. Adam lowers the loss in theta and raises it in both lambdas, so that they grow
until the target is met (the paper's Lagrangian). Afterwards edges are ranked by theta.

Masks start from attribution scores if asked for: edges with the higher scores start higher. That, and leaving out the
paper's masks on whole nodes beside those on edges, is what differs from it.

By nodes there is one mask for each node, on all that it writes, and none on edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgewise.discovery.attribution import require_gradient
from edgewise.discovery.hard_concrete import alive, sample
from edgewise.discovery.method import MOST_STEPS, SEED, STEPS_HELP, Method, Option, Scored, StepProgress
from edgewise.discovery.methods.edge_attribution_ig import edge_attribution_ig, node_attribution_ig
from edgewise.discovery.soft_masks import existing, metric_under, run_of_edges, scores_of_masks
from edgewise.errors import EdgewiseError
from edgewise.graph import node_scores, of_nodes
from edgewise.graph.circuit import Floats
from edgewise.patching import Experiment
from edgewise.patching.ablation import Ablated
from edgewise.patching.node_running import node_run
from edgewise.tasks import Prompts

FIRST_THETA = 2.0
STEPS, LEARNING_RATE, LAMBDA_RATE = 300, 0.1, 0.5
SHRINKING = 0.6
"""The share of the steps over which the wanted size goes down to the target."""


def edge_pruning(
    experiment: Experiment,
    target: int,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    warm_start: bool = True,
    seed: int = 0,
    progress: StepProgress | None = None,
) -> Scored:
    """Learn which `target` edges (port edges counted) a task needs.

    Args:
        warm_start: start from integrated-gradients attribution instead of all alike.
        seed: of the masks' noise.

    Raises:
        EdgewiseError: a target or options out of range, a metric without a gradient, or a loss that is no number; the
            message gives the step.
    """
    graph, device = experiment.graph, experiment.decoder.device
    require_gradient(experiment)
    if not 1 <= target <= graph.n_edges:
        raise EdgewiseError(f"cannot prune to {target:,} edges: the graph has {graph.n_edges:,}")
    exists = existing(graph).to(device)
    run = run_of_edges(experiment, exists)
    theta, loss = _learned(
        lambda: _first_theta(experiment, warm_start).to(device)[exists],
        lambda mask: metric_under(experiment, mask, run),
        target,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
    )
    options = {"target": target, "steps": steps, "learning_rate": learning_rate, "warm_start": warm_start, "seed": seed}
    details = {**options, "loss_metric": loss.metric, "expected_edges": loss.expected}
    return Scored(scores_of_masks(graph, theta), details, above=-math.inf)


def node_pruning(
    experiment: Experiment,
    target: int,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    warm_start: bool = True,
    seed: int = 0,
    progress: StepProgress | None = None,
) -> Scored:
    """The same with one mask for each node: learn which `target` nodes a task needs.

    The embedding counts among them and has no mask: it is always there. Arguments as of `edge_pruning`.

    Raises:
        EdgewiseError: as `edge_pruning`.
    """
    graph, device = experiment.graph, experiment.decoder.device
    require_gradient(experiment)
    always, count = graph.n_embeddings, len(graph.sources)
    if not always < target <= count:
        raise EdgewiseError(
            f"cannot prune to {target:,} nodes: the graph has {count:,}, and the embedding is always there"
        )

    def first() -> Tensor:
        theta = np.full(count, FIRST_THETA)
        if warm_start:
            found = node_scores(node_attribution_ig(experiment).circuit)
            assert found is not None
            theta[always:] += _spread(found[always:])
        return torch.from_numpy(theta[always:]).float().to(device)

    def run(rows: Prompts, ablated: Ablated, mask: Tensor) -> Tensor:
        present = torch.cat([mask.new_ones(always), mask])[None]
        return node_run(experiment.decoder, graph, rows.clean, rows.mask, ablated, present)[0]

    theta, loss = _learned(
        first,
        lambda mask: metric_under(experiment, mask, run),
        target - always,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
    )
    scores = torch.cat([theta.max().expand(always) + 1, theta]).numpy()
    options = {"target": target, "steps": steps, "learning_rate": learning_rate, "warm_start": warm_start, "seed": seed}
    details = {**options, "loss_metric": loss.metric, "expected_nodes": always + loss.expected}
    return Scored(of_nodes(graph, np.ones(count, dtype=bool), scores), details, above=-math.inf)


@dataclass(frozen=True)
class _Loss:
    """The metric at the last step, and how many masks were expected not to be zero."""

    metric: float
    expected: float


def _learned(
    first: Callable[[], Tensor],
    metric_of: Callable[[Tensor], float],
    target: int,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    progress: StepProgress | None,
) -> tuple[Tensor, _Loss]:
    """Learn masks of which `target` are to be left: their parameters as float64 on CPU.

    Args:
        first: gives the parameters to start from.
        metric_of: the metric under masks, whose gradient it adds to theirs.
    """
    if steps < 2 or not (math.isfinite(learning_rate) and learning_rate > 0):
        raise EdgewiseError(
            f"edge pruning needs at least 2 steps and a learning rate above 0, not {steps} and {learning_rate}"
        )
    theta = first().requires_grad_()
    lambdas = torch.zeros(2, device=theta.device, requires_grad=True)
    optimizer = torch.optim.Adam(
        [{"params": [theta], "lr": learning_rate}, {"params": [lambdas], "lr": LAMBDA_RATE, "maximize": True}]
    )
    generator = torch.Generator().manual_seed(seed)
    metric = expected = math.nan
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        wanted = 1 - (1 - target / len(theta)) * min(1.0, step / (SHRINKING * steps))
        mask = sample(theta, generator)
        leaf = mask.detach().requires_grad_()
        metric = metric_of(leaf)
        share = alive(theta).mean()
        expected = share.item() * len(theta)
        if not math.isfinite(metric):
            raise EdgewiseError(f"edge pruning diverged: at step {step} the metric came out as {metric}")
        excess = share - wanted
        penalty = lambdas[0] * excess + lambdas[1] * excess**2
        assert leaf.grad is not None
        torch.autograd.backward([mask, penalty], [leaf.grad, None])
        optimizer.step()
        if not bool(theta.isfinite().all()):
            raise EdgewiseError(f"edge pruning diverged: after step {step} a mask is no number")
        if progress is not None:
            progress(step, steps)
    return theta.detach().cpu().double(), _Loss(metric, round(expected, 1))


def _first_theta(experiment: Experiment, warm_start: bool) -> Tensor:
    """Where every edge's parameter starts, `[sources * inputs + inputs]`."""
    graph = experiment.graph
    first = np.full(graph.edges.size + len(graph.inputs), FIRST_THETA)
    if warm_start:
        scored = edge_attribution_ig(experiment).circuit
        assert scored.scores is not None
        assert scored.port_scores is not None
        for start, scores, exists in (
            (0, scored.scores.ravel(), graph.edges.ravel()),
            (graph.edges.size, scored.port_scores, graph.port_edges),
        ):
            first[start : start + len(exists)][exists] += _spread(scores[exists])
    return torch.from_numpy(first).float()


def _spread(scores: Floats) -> Floats:
    """From -1 to 1, evenly by rank: scores differ by orders of magnitude."""
    offsets = np.empty(len(scores))
    offsets[np.argsort(np.abs(scores), kind="stable")] = np.linspace(-1, 1, len(scores))
    return offsets


def _score(experiment: Experiment, *, target: int | None, **options: Any) -> Scored:
    if target is None:
        raise EdgewiseError("edge pruning needs a target: the number of edges that its masks are pressed to")
    return edge_pruning(experiment, min(target, experiment.graph.n_edges), **options)


def _score_nodes(experiment: Experiment, *, target: int | None, **options: Any) -> Scored:
    if target is None:
        raise EdgewiseError("edge pruning needs a target: the number of nodes that its masks are pressed to")
    return node_pruning(experiment, min(target, len(experiment.graph.sources)), **options)


METHOD = Method(
    name="edge-pruning",
    summary="learn a mask for every edge, pressed to a wanted number of edges",
    cost="a circuit run and its backward per step: 300 by default",
    paper="Bhaskar et al. 2024",
    when="the most faithful circuit of a given size, on models that a soft circuit run fits",
    takes=(
        Option("target", None, "how many edges masks are pressed to; by default as many as the circuit may have", 1),
        Option("steps", STEPS, STEPS_HELP, least=2, most=MOST_STEPS),
        Option("learning_rate", LEARNING_RATE, "Adam's, of the masks' parameters", least=0),
        Option("warm_start", True, "start from attribution scores"),
        SEED,
    ),
    counts="steps",
    score=_score,
    score_nodes=_score_nodes,
    memory="masks",
    metric_units=False,
    sized=False,
)
