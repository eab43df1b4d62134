"""Optimal ablation (Li and Janson 2024, "Optimal ablation for interpretability"): a learned constant for every node.

An ablated component carries the constant that keeps the expected loss of the ablated model lowest, the loss being the
divergence from the model's own output; a node has one constant, whichever of its edges are absent (the paper's section
on circuit discovery, and its code). Such an optimum belongs to one circuit. A search compares circuits, and is exact
because what absent edges carry does not change under it; so here the constants are settled before it starts, for
circuits of all sizes at once, as the paper learns them together with masks that are drawn at random:

    c* = argmin over c of  E over prompts x and sets S of nodes:  loss(model(x), model(x) with each u in S writing c_u)

where each node is in S with a chance that is drawn evenly from 0 to 1, for each prompt anew. The loss is `kl_div`, as
in the paper, or `l2` where that is the metric of the search. Constants start from the means over the clean prompts, as
the paper's do, and Adam moves them in units of each node's own standard deviation.

What differs from the paper: whole nodes are ablated while constants are learned, so that a step is one pass through the
model, where the paper masks edges; constants are not fitted anew to the circuit that is found (its figures for finished
circuits are); and the first position is ablated like any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.matmul import fast_matmul
from edgewise.models.walk import Walk
from edgewise.patching.constants import Constants, moments
from edgewise.patching.wiring import Wiring
from edgewise.tasks import METRICS, Metric, Prompts

if TYPE_CHECKING:
    from edgewise.graph import Graph
    from edgewise.patching.experiment import Experiment

STEPS, LEARNING_RATE = 300, 0.02
ROWS = 16
"""Most prompts in a step; of more, so many are drawn for each."""
LOSSES = ("kl_div", "l2")
"""Metrics that are a divergence from the model."""


def learn_constants(
    experiment: Experiment,
    seed: int,
    *,
    rows_at_once: int | None = None,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Constants:
    """The constants for an experiment's model and prompts; its ablated activations need not be there.

    Args:
        seed: of the sets of nodes, and of the prompts where there are more than a step takes.
        rows_at_once: how many prompts are run together; by default all of a step.
        steps: by default `STEPS`.
        progress: called with steps done and all steps.

    Raises:
        EdgewiseError: the loss comes out as no number; the message gives the step.
    """
    decoder, graph, prompts = experiment.decoder, experiment.graph, experiment.task.prompts
    loss = METRICS[experiment.metric.name if experiment.metric.name in LOSSES else LOSSES[0]]
    means, deviations = moments(
        decoder, prompts.clean, prompts.mask, split_embedding=graph.split_embedding, rows=rows_at_once
    )
    steps = steps or STEPS
    shifts = [torch.zeros_like(mean).requires_grad_() for mean in means]
    optimizer, generator = torch.optim.Adam(shifts, lr=LEARNING_RATE), torch.Generator().manual_seed(seed)

    def constants() -> Constants:
        parts = zip(means, deviations, shifts, strict=True)
        embedding, *codes = ((mean + deviation * shift).to(decoder.dtype) for mean, deviation, shift in parts)
        return Constants(embedding, tuple(codes))

    for step in range(1, steps + 1):
        drawn = torch.arange(len(prompts))
        if len(prompts) > ROWS:
            drawn = torch.randperm(len(prompts), generator=generator)[:ROWS]
        chance = torch.rand(len(drawn), 1, generator=generator)
        kept = torch.rand(len(drawn), len(graph.sources), generator=generator) >= chance
        places = max(1, sum(int((prompts.scored_rows == row).sum()) for row in drawn))
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - (step - 1) / steps)
        total = 0.0
        at_once = rows_at_once or len(drawn)
        for some, present in zip(drawn.split(at_once), kept.split(at_once), strict=True):
            with torch.enable_grad(), fast_matmul():
                value = _loss(experiment, loss, some, constants(), present.to(decoder.device)) / places
                value.backward(inputs=shifts)  # and not the weights, whose gradients would stay
            total += value.item()
            del value  # before the next is made
        if not math.isfinite(total):
            raise EdgewiseError(f"ablation 'optimal' diverged: at step {step} the loss of its constants is {total}")
        optimizer.step()
        if progress is not None:
            progress(step, steps)
    with torch.no_grad():
        return constants()


def _loss(experiment: Experiment, loss: Metric, some: Tensor, constants: Constants, present: Tensor) -> Tensor:
    """The loss summed over the scored places of some rows of prompts, by number."""
    decoder, prompts = experiment.decoder, experiment.task.prompts
    rows, at = prompts.take(some), torch.cat([(prompts.scored_rows == row).nonzero()[:, 0] for row in some])
    final = without_nodes(decoder, experiment.graph, rows, constants, present)
    logits = decoder.logits(final[rows.scored_rows, rows.scored_positions])
    return loss(logits, experiment.reference.at(at)).sum()


def seconds_to_learn(experiment: Experiment) -> float:
    """About how long `learn_constants` takes, from two steps of it."""
    learn_constants(experiment, 0, steps=1)
    started = time.perf_counter()
    learn_constants(experiment, 0, steps=1)
    return STEPS * (time.perf_counter() - started)


def without_nodes(decoder: Decoder, graph: Graph, prompts: Prompts, constants: Constants, present: Tensor) -> Tensor:
    """The final stream `[batch, pos, d_model]` of the model on clean prompts when some nodes write their constants.

    It is that of the circuit without any of these nodes' edges.

    Args:
        present: `[batch, sources]`, False where a node writes its constant.
    """
    return _WithoutNodes(decoder, graph, prompts, constants, present).run()


class _WithoutNodes(Walk):
    """The walk in which some nodes, other ones on each prompt, write their constants."""

    def __init__(self, decoder: Decoder, graph: Graph, prompts: Prompts, constants: Constants, present: Tensor) -> None:
        own = decoder.embed(prompts.clean, split=graph.split_embedding)
        kept = present[:, : len(own)].T[:, :, None, None]
        embedding = torch.where(kept, own, constants.embedding[:, None, None])
        super().__init__(decoder, embedding.to(stream_dtype(decoder.dtype)).sum(dim=0), prompts.mask)
        self.constants, self.present, self.rows = constants, present, Wiring.of(decoder, graph).rows

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        code = super().code(index, component, projections)
        return torch.where(self.present[:, None, self.rows[index], None], code, self.constants.codes[index])
