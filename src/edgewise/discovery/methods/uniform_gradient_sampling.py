"""Uniform gradient sampling (UGS; Li and Janson 2024, "Optimal ablation for interpretability", section 4).

Every edge and port edge is present with a probability p = sigmoid(theta) of its own. A step draws a mask for each edge
in each prompt, between 0 and 1 with probability w = p (1 - p) and otherwise one of them, so that it is p on average:

    m = clamp((p - u) / w + 1/2, 0, 1),  u uniform

Where m is between 0 and 1, u is uniform too, so the mean of dM/dm there is an unbiased estimate of what the metric M
changes by when the edge goes from absent to present, given all other masks. Adam lowers

    M + lambda sum of p

by that estimate of dM/dp: an edge that lowers the metric by less than lambda goes. An edge's score is its p, and those
of at least one half are the method's own circuit.

It differs from the paper in that prompts are all taken in every step, and in that the paper learns the constants that
absent edges carry along with the masks (ablation `optimal` learns them before); its penalty on whole nodes is left out.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from edgewise.discovery.attribution import require_gradient
from edgewise.discovery.method import MOST_STEPS, SEED, STEPS_HELP, Method, Option, Scored, StepProgress
from edgewise.discovery.soft_masks import existing, metric_under, run_of_edges, scores_of_masks
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment

FIRST_THETA = 1.0
LAMBDA, STEPS, LEARNING_RATE = 1e-3, 300, 0.1


def uniform_gradient_sampling(
    experiment: Experiment,
    *,
    regularisation: float = LAMBDA,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: StepProgress | None = None,
) -> Scored:
    """Learn how probable each edge should be.

    Args:
        regularisation: lambda, in the metric's units: what an edge has to be worth.
        seed: of the masks.

    Raises:
        EdgewiseError: options out of range, a metric without a gradient, or a loss that is no number; the message
            gives the step.
    """
    graph, device = experiment.graph, experiment.decoder.device
    require_gradient(experiment)
    if steps < 1 or not 0 <= regularisation < math.inf or not 0 < learning_rate < math.inf:
        raise EdgewiseError(
            "uniform gradient sampling needs at least 1 step, a lambda of 0 or more and a learning rate above 0, not "
            f"{steps}, {regularisation} and {learning_rate}"
        )
    exists = existing(graph).to(device)
    run = run_of_edges(experiment, exists)
    theta = torch.full((graph.n_edges,), FIRST_THETA, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    metric = math.nan
    for step in range(1, steps + 1):
        with torch.no_grad():
            p = torch.sigmoid(theta)
            window = (p * (1 - p))[:, None]
            # Drawn on the CPU, so that a seed gives the same masks on every device.
            uniform = torch.stack([torch.rand(len(p), generator=generator) for _ in range(len(experiment.task))], dim=1)
            mask = ((p[:, None] - uniform.to(device)) / window + 0.5).clamp(0, 1)
        mask.requires_grad_()
        metric = metric_under(experiment, mask, run)
        if not math.isfinite(metric):
            raise EdgewiseError(f"uniform gradient sampling diverged: at step {step} the metric came out as {metric}")
        assert mask.grad is not None
        with torch.no_grad():
            between = (mask > 0) & (mask < 1)
            # The metric is a mean over prompts, each of which has a mask of its own.
            worth = (mask.grad * between).sum(dim=1) * (len(experiment.task) / between.sum(dim=1).clamp_min(1))
            theta.grad = (worth + regularisation) * window[:, 0]
        optimizer.step()
        if not bool(theta.isfinite().all()):
            raise EdgewiseError(f"uniform gradient sampling diverged: after step {step} a mask is no number")
        if progress is not None:
            progress(step, steps)
    probability = torch.sigmoid(theta.detach().cpu().double())
    found = scores_of_masks(graph, probability)
    assert found.scores is not None
    assert found.port_scores is not None
    own = replace(found, edges=found.edges & (found.scores >= 0.5), ports=found.ports & (found.port_scores >= 0.5))
    expected = round(float(probability.sum()), 1)
    details = {"regularisation": regularisation, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    return Scored(found, {**details, "loss_metric": metric, "expected_edges": expected}, above=-math.inf, own=own)


METHOD = Method(
    name="uniform-gradient-sampling",
    short="ugs",
    summary="learn a probability for every edge (UGS)",
    cost="a circuit run and its backward per step: 300 by default",
    paper="Li and Janson 2024",
    when="circuits as small as the metric allows, at a price per edge rather than a size",
    takes=(
        Option("regularisation", LAMBDA, "lambda: what an edge has to be worth", least=0, shell="--lambda"),
        Option("steps", STEPS, STEPS_HELP, least=1, most=MOST_STEPS),
        Option("learning_rate", LEARNING_RATE, "Adam's, of the masks' parameters", least=0),
        SEED,
    ),
    counts="steps",
    score=uniform_gradient_sampling,
    memory="masks",
    metric_units=False,
    sized=False,
    rounds=True,
)
