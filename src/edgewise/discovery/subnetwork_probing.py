"""Subnetwork probing (SP; Cao et al. 2021, as the ACDC paper's appendix D.1 changes it).

Every query, key, value and MLP output (units.py) has a mask Z between 0 and 1, and its activation becomes
Z C(x) + (1 - Z) C(x'), with C(x') the corrupted run's (under zero ablation Z C(x)). Masks are drawn from a hard
concrete distribution with one parameter theta each (hard_concrete.py).

Adam lowers metric + lambda R, where R is the mean over mask tensors of the mean probability that a mask is not zero.
A unit is kept if its mask without noise is at least one half, that is, if theta >= 0; `variant="published"` samples the
masks once and keeps those of at least one half, as the paper's code does.

The paper's constants are the defaults, except for the time: 3,000 steps at a rate of 0.001 as its code's default, where
its sweeps took 10,000.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.discovery.edge_attribution import require_gradient
from edgewise.discovery.hard_concrete import GAMMA, ZETA, alive, sample
from edgewise.discovery.units import Units, masked, scored_by_units
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit
from edgewise.models.decoder import positions_of, stream_dtype
from edgewise.models.matmul import fast_matmul
from edgewise.patching import Experiment
from edgewise.patching.gradients import Rows, place_weights, rows_of

FIRST_MASK = 0.9
FIRST_THETA = math.log((FIRST_MASK - GAMMA) / (ZETA - FIRST_MASK))  # log 5
PAPER_LAMBDAS = (*(10 ** (-2 + 0.2 * step) for step in range(11)), *range(2, 11), *range(30, 251, 20))
"""The paper's sweep for IOI, Greater-Than, docstring and induction (its KL runs): 32 weights of the regulariser."""
LAMBDA, STEPS, LEARNING_RATE = 50.0, 3000, 0.001
VARIANTS = ("default", "published")


@dataclass(frozen=True)
class Probe:
    """What subnetwork probing learned.

    Attributes:
        circuit: the rounded circuit, dangling edges included; scores follow from theta.
        theta: each unit's parameter.
        loss: metric and regulariser at the last step.
    """

    circuit: Circuit
    theta: Units
    loss: tuple[float, float]


def subnetwork_probing(
    experiment: Experiment,
    *,
    regularisation: float = LAMBDA,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    variant: str = "default",
    progress: Callable[[int, int], None] | None = None,
) -> Probe:
    """Learn which units a task needs.

    Args:
        regularisation: lambda; higher keeps less.
        seed: of the masks' noise.
        progress: called with steps done and all steps.

    Raises:
        EdgewiseError: options out of range, a metric without a gradient, or a loss that is no number; the message gives
            the step.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    require_gradient(experiment)
    if steps < 1 or not (0 <= regularisation < math.inf and math.isfinite(learning_rate) and learning_rate > 0):
        raise EdgewiseError(
            f"subnetwork probing needs at least 1 step, a lambda of 0 or more and a learning rate above 0, not "
            f"{steps}, {regularisation} and {learning_rate}"
        )
    device = experiment.decoder.device
    theta = Units.full(experiment.decoder.config, FIRST_THETA, device)
    for tensor in theta.tensors():
        tensor.requires_grad_()
    parts = [tensor for tensor in theta.tensors() if tensor.numel()]
    # The paper's code has masks for MLPs in models without any too, which only share in the mean.
    kinds = 4 if variant == "published" else len(parts)
    optimizer = torch.optim.Adam(parts, lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    pieces = list(rows_of(experiment))
    metric, regulariser = math.nan, math.nan
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        masks = Units(*(sample(tensor, generator) for tensor in theta.tensors()))
        penalty = torch.stack([alive(tensor).mean() for tensor in parts]).sum() / kinds
        metric = 0.0
        # One graph of the masks serves all pieces of the prompts; each piece's own graph is freed as it goes.
        leaves = Units(*(mask.detach().requires_grad_() for mask in masks.tensors()))
        for rows in pieces:
            value = masked_metric(experiment, rows, leaves)
            value.backward()
            metric += value.item()
        regulariser = penalty.item()
        if not math.isfinite(metric):
            raise EdgewiseError(f"subnetwork probing diverged: at step {step} the metric came out as {metric}")
        given = [mask for mask in masks.tensors() if mask.numel()]
        gradients = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves.tensors()]
        torch.autograd.backward(
            [*given, regularisation * penalty], [gradient for gradient in gradients if gradient.numel()] + [None]
        )
        optimizer.step()
        if not all(bool(tensor.isfinite().all()) for tensor in parts):
            raise EdgewiseError(f"subnetwork probing diverged: after step {step} a mask is no number")
        if progress is not None:
            progress(step, steps)
    learned = Units(*(tensor.detach() for tensor in theta.tensors()))
    if variant == "published":
        keep = Units(*(sample(tensor, generator) - 0.5 for tensor in learned.tensors()))
        return Probe(masked(scored_by_units(experiment.graph, keep), 0.0), learned, (metric, regulariser))
    return Probe(masked(scored_by_units(experiment.graph, learned), 0.0), learned, (metric, regulariser))


def masked_metric(experiment: Experiment, rows: Rows, masks: Units) -> Tensor:
    """The metric's share of some rows when every unit's activation is as far ablated as its mask says."""
    decoder, prompts = experiment.decoder, rows.prompts
    config, zero = decoder.config, experiment.ablation == "zero"
    at, allowed = positions_of(prompts.clean), decoder.allowed(prompts.mask)

    def mix(clean: Tensor, ablated: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(clean.dtype)
        return mask * clean if zero else mask * clean + (1 - mask) * ablated

    with torch.enable_grad(), fast_matmul():
        stream = rows.clean.embedding.sum(dim=0).to(stream_dtype(decoder.dtype))
        for index, layer in enumerate(decoder.layers):
            x = stream.to(decoder.dtype)[:, :, None]
            q = mix(layer.query(x, at), rows.ablated.q[index], masks.q[index][:, None])
            k = mix(layer.key(x, at), rows.ablated.k[index], masks.k[index][:, None])
            v = mix(layer.value(x), rows.ablated.v[index], masks.v[index][:, None])
            k, v = (one.repeat_interleave(config.share, dim=2) for one in (k, v))
            after = stream + layer.write(layer.attend(q, k, v, allowed)).sum(dim=2) + layer.bias
            if layer.mlp is not None:
                output = layer.mlp((stream if config.parallel else after).to(decoder.dtype))
                after = after + mix(output, rows.ablated.mlp[index], masks.mlp[index])
            stream = after
        logits = decoder.logits(stream[prompts.scored_rows, prompts.scored_positions])
        return (experiment.metric(logits, rows.reference) * place_weights(experiment, rows)).sum()
