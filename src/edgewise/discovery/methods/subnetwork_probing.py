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
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewise.discovery.attribution import require_gradient
from edgewise.discovery.hard_concrete import GAMMA, ZETA, alive, sample
from edgewise.discovery.method import MOST_STEPS, SEED, STEPS_HELP, Found, Method, Option, Scored, StepProgress
from edgewise.discovery.units import Units, masked, scored_by_units
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit
from edgewise.graph.names import InputKind
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.matmul import fast_matmul
from edgewise.models.walk import Walk
from edgewise.patching import Experiment
from edgewise.patching.gradients import Rows, place_weights, rows_of

FIRST_MASK = 0.9
FIRST_THETA = math.log((FIRST_MASK - GAMMA) / (ZETA - FIRST_MASK))  # log 5
PAPER_LAMBDAS = (*(10 ** (-2 + 0.2 * step) for step in range(11)), *range(2, 11), *range(30, 251, 20))
"""The paper's sweep for IOI, Greater-Than, docstring and induction (its KL runs): 32 weights of the regulariser."""
LAMBDA, STEPS, LEARNING_RATE = 50.0, 3000, 0.001
AT_ONCE, ACTIVATIONS_AT_ONCE = 16, 2**20
"""How many lambdas are learned together, if all prompts fit at once."""
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
    progress: StepProgress | None = None,
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
    options = dict(steps=steps, learning_rate=learning_rate, seed=seed, variant=variant, progress=progress)
    (probe,) = probe_sweep(experiment, [regularisation], **options)  # type: ignore[arg-type]
    return probe


def probe_sweep(
    experiment: Experiment,
    regularisations: Sequence[float],
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    variant: str = "default",
    progress: StepProgress | None = None,
) -> list[Probe]:
    """Probes for several lambdas, learned side by side: those of `subnetwork_probing` one by one, with the same noise.

    What a step costs on a small model hardly depends on how many prompts it runs, so the lambdas share their steps as
    far as memory goes. The one sample that `variant="published"` rounds by is drawn for every lambda anew.

    Args:
        progress: called with steps done and all steps, over all lambdas.

    Raises:
        EdgewiseError: as `subnetwork_probing`, or there is no lambda.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    require_gradient(experiment)
    if not regularisations:
        raise EdgewiseError("subnetwork probing needs a lambda")
    wrong = [one for one in regularisations if not 0 <= one < math.inf]
    if steps < 1 or wrong or not (math.isfinite(learning_rate) and learning_rate > 0):
        raise EdgewiseError(
            f"subnetwork probing needs at least 1 step, a lambda of 0 or more and a learning rate above 0, not "
            f"{steps}, {(wrong or regularisations)[0]} and {learning_rate}"
        )
    pieces = list(rows_of(experiment))
    at_once = lambdas_at_once(experiment)
    probes: list[Probe] = []
    for first in range(0, len(regularisations), at_once):
        lambdas = regularisations[first : first + at_once]

        def report(done: int, of: int, before: int = first, several: int = len(lambdas)) -> None:
            if progress is not None:
                progress(before * of + done * several, len(regularisations) * of)

        probes += _learn(experiment, pieces, lambdas, steps, learning_rate, seed, variant, report)
    return probes


def lambdas_at_once(experiment: Experiment) -> int:
    """How many lambdas learn side by side: where a step is real work, sharing it saves nothing, and one by one each is
    done, and can be kept, as soon as it may."""
    config, tokens = experiment.decoder.config, experiment.task.prompts.clean.numel()
    several = ACTIVATIONS_AT_ONCE // max(1, tokens * config.n_layers * config.d_model)
    return min(max(1, several), AT_ONCE) if len(list(rows_of(experiment))) == 1 else 1


def _learn(
    experiment: Experiment,
    pieces: list[Rows],
    lambdas: Sequence[float],
    steps: int,
    learning_rate: float,
    seed: int,
    variant: str,
    report: Callable[[int, int], None],
) -> list[Probe]:
    device = experiment.decoder.device
    one = Units.full(experiment.decoder.config, FIRST_THETA, device)
    # [lambdas, layers, heads]: parameters of several probes that know nothing of each other.
    theta = Units(*(tensor.expand(len(lambdas), *tensor.shape).clone() for tensor in one.tensors()))
    for tensor in theta.tensors():
        tensor.requires_grad_()
    parts = [tensor for tensor in theta.tensors() if tensor.numel()]
    # The paper's code has masks for MLPs in models without any too, which only share in the mean.
    kinds = 4 if variant == "published" else len(parts)
    weights = torch.tensor(lambdas, dtype=parts[0].dtype, device=device)
    optimizer = torch.optim.Adam(parts, lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    metric = penalty = torch.full((len(lambdas),), math.nan)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        masks = Units(*(sample(tensor, generator, shared=True) for tensor in theta.tensors()))
        penalty = torch.stack([alive(tensor).flatten(1).mean(dim=1) for tensor in parts]).sum(dim=0) / kinds
        metric = torch.zeros(len(lambdas), dtype=torch.float64)
        # One graph of the masks serves all pieces of the prompts; each piece's own graph is freed as it goes.
        leaves = Units(*(mask.detach().requires_grad_() for mask in masks.tensors()))
        for rows in pieces:
            value = masked_metric(experiment, rows, leaves)
            value.sum().backward(inputs=[leaf for leaf in leaves.tensors() if leaf.numel()])  # not the weights'
            metric += value.detach().cpu().double()
        if not bool(metric.isfinite().all()):
            raise EdgewiseError(
                f"subnetwork probing diverged: at step {step} the metric came out as {metric[~metric.isfinite()][0]}"
            )
        given = [mask for mask in masks.tensors() if mask.numel()]
        gradients = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves.tensors()]
        torch.autograd.backward(
            [*given, (weights * penalty).sum()], [gradient for gradient in gradients if gradient.numel()] + [None]
        )
        optimizer.step()
        if not all(bool(tensor.isfinite().all()) for tensor in parts):
            raise EdgewiseError(f"subnetwork probing diverged: after step {step} a mask is no number")
        report(step, steps)
    keep = theta
    if variant == "published":
        # A sample of each lambda's own, whatever others are learned beside it.
        noises = [torch.Generator().manual_seed(_noise_seed(seed, weight)) for weight in lambdas]
        keep = Units(
            *(
                torch.stack([sample(one, noise) for one, noise in zip(tensor, noises, strict=True)]) - 0.5
                for tensor in theta.tensors()
            )
        )
    probes = []
    for index in range(len(lambdas)):
        learned, kept = (Units(*(tensor[index].detach() for tensor in units.tensors())) for units in (theta, keep))
        circuit = masked(scored_by_units(experiment.graph, kept), 0.0)
        probes.append(Probe(circuit, learned, (metric[index].item(), penalty[index].item())))
    return probes


def _noise_seed(seed: int, weight: float) -> int:
    return (seed * 1_000_003 + int.from_bytes(struct.pack(">d", weight), "big")) % 2**63


def masked_metric(experiment: Experiment, rows: Rows, masks: Units) -> Tensor:
    """The metric's share of some rows when every unit's activation is as far ablated as its mask says.

    Masks may have a leading dimension, for several sets of them at once; the result has it too.
    """
    decoder, prompts = experiment.decoder, rows.prompts
    several = masks.q.dim() == 3
    with torch.enable_grad(), fast_matmul():
        final = _Masked(experiment, rows, masks if several else Units(*(one[None] for one in masks.tensors()))).run()
        places = final.unflatten(0, (-1, len(prompts)))[:, prompts.scored_rows, prompts.scored_positions]
        weights = place_weights(experiment, rows)
        values = [(experiment.metric(decoder.logits(one), rows.reference) * weights).sum() for one in places]
        return torch.stack(values) if several else values[0]


class _Masked(Walk):
    """The walk in which every unit is as far ablated as its mask says, for several sets of masks at once."""

    def __init__(self, experiment: Experiment, rows: Rows, masks: Units) -> None:
        decoder, self.rows, self.masks, self.sets = experiment.decoder, rows, masks, len(masks.q)
        embedding = rows.clean.embedding.sum(dim=0).to(stream_dtype(decoder.dtype))
        super().__init__(decoder, embedding.repeat(self.sets, 1, 1), rows.prompts.mask.repeat(self.sets, 1))
        self.zero = experiment.ablation == "zero"

    def projections(self, index: int, component: Component) -> Projections:
        ablated = self.rows.ablated.projections[index]
        found = super().projections(index, component)
        return {kind: self._mix(kind, one, ablated.get(kind), component.layer) for kind, one in found.items()}

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        code = super().code(index, component, projections)
        # A head goes by its query, key and value; an MLP by what it writes.
        return (
            code
            if component.kinds != ("mlp",)
            else self._mix("mlp", code, self.rows.ablated.codes[index], component.layer)
        )

    def _mix(self, kind: InputKind, clean: Tensor, ablated: Tensor | None, layer: int) -> Tensor:
        if ablated is None:
            return clean
        # clean [sets * rows, pos, units, width], ablated [rows, ...], masks [sets, layers, units or none]
        mask = getattr(self.masks, kind)[:, layer].reshape(self.sets, 1, 1, -1, 1).to(clean.dtype)
        clean = clean.unflatten(0, (self.sets, -1))
        return (mask * clean if self.zero else mask * clean + (1 - mask) * ablated).flatten(0, 1)


def _score(experiment: Experiment, *, progress: StepProgress | None = None, **options: Any) -> Scored:
    probe = subnetwork_probing(experiment, progress=progress, **options)
    details = {**options, "loss_metric": probe.loss[0], "loss_regulariser": probe.loss[1]}
    return Scored(probe.circuit, details, above=-math.inf, own=probe.circuit, units=probe.theta)


def _sweep(
    experiment: Experiment,
    lambdas: Sequence[float],
    *,
    regularisation: float,
    order: object,
    absolute: bool,
    progress: object,
    **options: Any,
) -> Iterator[Found]:
    at_once = lambdas_at_once(experiment)  # what is learned together is kept before the next begin
    for first in range(0, len(lambdas), at_once):
        some = lambdas[first : first + at_once]
        for weight, probe in zip(some, probe_sweep(experiment, some, **options), strict=True):
            yield weight, probe.circuit, None


METHOD = Method(
    name="subnetwork-probing",
    short="sp",
    summary="learn a mask for each query, key, value and MLP (SP)",
    cost="a forward and a backward per step: 3,000 by default",
    paper="Cao et al. 2021; ACDC paper, appendix D.1",
    when="to compare with the paper; units that work together",
    takes=(
        Option("regularisation", LAMBDA, "lambda: higher keeps less", least=0, shell="--lambda"),
        Option("steps", STEPS, STEPS_HELP, least=1, most=MOST_STEPS),
        Option("learning_rate", LEARNING_RATE, "Adam's, of the masks' parameters", least=0),
        Option("variant", "default", "`published`: round by one sample, as the paper's code does", choices=VARIANTS),
        SEED,
    ),
    counts="steps",
    score=_score,
    memory="probing",
    metric_units=False,
    units=True,
    sized=False,
    rounds=True,
    by="lambda",
    sweep=_sweep,
)
