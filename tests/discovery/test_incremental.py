"""The incremental engine takes the decisions of its slow twin, the plain engine, on every edge.

Rounding is the only excuse for another decision: the effect of the edge, as the twin measured it, must be the threshold
but for rounding (`near_tie`). From there on the two searches are about different circuits, so comparing stops.
"""

import dataclasses
import functools
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgewise.discovery import ENGINES, Decision, Discovery, Interrupted, Order, acdc, acdc_with_edges
from edgewise.models import load_model
from edgewise.patching import ABLATIONS, Experiment, IncrementalEngine, OutOfMemoryError, memory
from edgewise.tasks import METRICS, TASKS, load_task
from edgewise.tasks.task import NO_TOKEN

VALUES_AGREE = {torch.float64: 1e-9, torch.float32: 1e-5}


def scale(decision: Decision) -> float:
    return max(abs(decision.before), abs(decision.after), 1.0)


def near_tie(decision: Decision, threshold: float, absolute: bool, dtype: torch.dtype) -> bool:
    """Whether rounding may decide: the effect is within 1e-5 of the threshold, relative to what has been rounded.

    In float64 that is the threshold itself: the metric's own rounding, 1e-15, is nothing beside any threshold here. In
    float32 an effect is the difference of two metrics, each of which has its own rounding: logits of order 1 to 10 are
    sums of some hundred terms rounded to 6e-8 of their size, so a metric made of them is right to about 1e-6 of its
    size, or of 1 if it is smaller than the logits that it is made of. A threshold far below that cannot be met to
    1e-5 of itself.
    """
    change = abs(decision.effect) if absolute else decision.effect
    return abs(change - threshold) <= 1e-5 * (abs(threshold) if dtype == torch.float64 else scale(decision))


def same_decisions(
    fast: Discovery, slow: Discovery, dtype: torch.dtype, *, absolute: bool = False, says: Any = ""
) -> bool:
    """Compare two searches edge by edge; False if they part at a near tie, an AssertionError if they do elsewhere."""
    tolerance = VALUES_AGREE[dtype]
    for name in ("metric_full", "metric_ablated"):
        assert getattr(fast, name) == pytest.approx(getattr(slow, name), rel=tolerance, abs=tolerance), says
    for ours, theirs in zip(fast.trace, slow.trace, strict=False):
        assert ours.edge == theirs.edge, says
        for one, other in ((ours.before, theirs.before), (ours.after, theirs.after)):
            assert abs(one - other) <= tolerance * scale(theirs), (says, ours, theirs)
        if ours.kept != theirs.kept:
            assert near_tie(theirs, slow.threshold, absolute, dtype), (says, slow.threshold, ours, theirs)
            return False
    assert fast.tests == len(fast.trace) == len(slow.trace) == slow.tests, says
    assert fast.circuit == slow.circuit, says
    assert fast.metric == pytest.approx(slow.metric, rel=tolerance, abs=tolerance), says
    for ours, theirs in (
        (fast.circuit.scores, slow.circuit.scores),
        (fast.circuit.port_scores, slow.circuit.port_scores),
    ):
        assert ours is not None
        assert np.allclose(ours, theirs, rtol=0, atol=2 * tolerance * max(map(scale, slow.trace))), says
    return True


def both(experiment: Experiment, threshold: float, **options: Any) -> tuple[Discovery, Discovery]:
    fast = acdc(experiment, threshold, engine="incremental", **options)
    again = experiment.score(fast.circuit)
    assert fast.metric == pytest.approx(again, rel=1e-5, abs=1e-5), "recomputed from scratch by a circuit run"
    return fast, acdc(experiment, threshold, engine="plain", **options)


# -- random cases ------------------------------------------------------------------------------------------------------


def parallel(**kwargs):
    """GPT-2's parts with attention and MLP of a layer side by side, as in GPT-J; no adapter makes such a model yet."""
    model = tiny.gpt2(heads=3, **kwargs)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, parallel=True))


def exact(model):
    """The same model in float64 throughout: Llama's norm rounds to float32, whatever goes in."""
    for module in model.source.modules():
        if model.dtype == torch.float64 and type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(
                torch.nn.functional.rms_norm,
                normalized_shape=module.weight.shape,
                weight=module.weight,
                eps=module.variance_epsilon,
            )
    return model


MODELS = {**tiny.FAMILIES, "llama-ungrouped": tiny.llama, "gpt2-parallel": parallel}


def largest_shift(logits, reference):
    """A user's own metric."""
    return (logits - reference.logits).abs().amax(dim=-1)


def random_prompts(kind: str, seed: int, one_length: bool):
    """Prompts of several kinds; all but `unpaired` in pairs of one length."""
    generator = torch.Generator().manual_seed(seed)
    made = tiny.prompts(seed, ragged=not one_length, paired=kind != "unpaired")
    rows, last = torch.arange(len(made)), made.mask.sum(dim=1) - 1
    if kind == "late-change":  # nothing differs before the last two tokens, or the last one
        corrupt, changed = made.clean.clone(), last - torch.tensor([0, 1, 0])
        corrupt[rows, changed] = corrupt[rows, changed] % 30 + 1
        return dataclasses.replace(made, corrupt=corrupt)
    if kind == "one-pair-alike":
        corrupt = made.corrupt.clone()
        corrupt[0] = made.clean[0]
        return dataclasses.replace(made, corrupt=corrupt)
    if kind == "several-places":  # the middle row has none
        scored = (torch.rand(made.mask.shape, generator=generator) < 0.5) & made.mask
        scored[rows, last] = True
        scored[1] = False
        at_rows, at_positions = scored.nonzero(as_tuple=True)
        answers = torch.randint(1, 30, (len(at_rows), 2), generator=generator)
        answers[::2, 1] = NO_TOKEN
        wrong = torch.randint(1, 30, (len(at_rows), 3), generator=generator)
        wrong[1::2, 1:] = NO_TOKEN
        return dataclasses.replace(
            made, scored_rows=at_rows, scored_positions=at_positions, answers=answers, wrong=wrong
        )
    return made


PROMPTS = ("last-place", "several-places", "late-change", "one-pair-alike", "unpaired")

OPTIONS: dict[str, list[Any]] = {
    "dtype": [torch.float64] * 4 + [torch.float32],
    "layers": [2, 2, 2, 3],
    "prompts": list(PROMPTS),
    "ablation": list(ABLATIONS),
    "metric": [*METRICS, largest_shift],
    "order": [
        Order(),
        Order("reverse", "normal"),
        Order("normal", "reverse"),
        Order("shuffle", "shuffle", 1),
        Order("shuffle", "normal", 2),
        Order("normal", "shuffle", 3),
    ],
    "ports": [True, False],
    "split_embedding": [True, False],
    "absolute": [False, False, True],
    # The threshold, as a share of what the metric moves between the whole model and no edge at all.
    "share": [-0.3, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.3, 1.3],
}
CASES_EACH = 40


@dataclass(frozen=True)
class Case:
    model: str
    seed: int
    dtype: torch.dtype
    layers: int
    prompts: str
    ablation: str
    metric: Any
    order: Order
    ports: bool
    split_embedding: bool
    absolute: bool
    share: float

    def experiment(self) -> Experiment:
        model = exact(MODELS[self.model](seed=self.seed % 3, dtype=self.dtype, layers=self.layers))
        prompts = random_prompts(self.prompts, self.seed, self.ablation == "mean-positional")
        split = self.split_embedding
        task = dataclasses.replace(tiny.task(self.seed, split_embedding=split), prompts=prompts)
        graph = model.config.graph(ports=self.ports, split_embedding=split, ungroup=self.model == "llama-ungrouped")
        return Experiment(model, task, ablation=self.ablation, metric=self.metric, graph=graph)


def cases(model: str) -> list[Case]:
    """Random cases in which every value of every option comes up equally often, where it makes sense."""
    generator = random.Random(model)
    chosen = []
    for values in OPTIONS.values():
        column = (values * CASES_EACH)[:CASES_EACH]
        generator.shuffle(column)
        chosen.append(column)
    made = []
    for seed, values in enumerate(zip(*chosen, strict=True)):
        case = Case(model, seed, **dict(zip(OPTIONS, values, strict=True)))
        if "llama" in model:  # no positions in its embedding
            case = dataclasses.replace(case, split_embedding=False)
        if case.prompts == "unpaired" and case.ablation in ("resample", "mean-positional"):
            case = dataclasses.replace(case, prompts="last-place")
        if case.metric == "frac_correct" and case.ablation == "zero" and model in ("llama", "llama-ungrouped"):
            case = dataclasses.replace(case, metric="l2")
        made.append(case)
    return made


def test_the_sweep_has_more_than_three_hundred_cases_and_every_value_of_every_option_with_every_model():
    everything = [case for model in MODELS for case in cases(model)]
    assert len(set(everything)) == len(everything) == 320
    for model in MODELS:
        for option, values in OPTIONS.items():
            wanted = {False} if option == "split_embedding" and "llama" in model else set(values)
            assert {getattr(case, option) for case in cases(model)} == wanted, (model, option)
    pairs = {(case.metric, case.ablation) for case in everything}
    assert len(pairs) == 8 * 4
    assert {case.dtype for case in everything if case.absolute} == {torch.float64, torch.float32}
    assert {(case.prompts, case.ablation) for case in everything if case.prompts == "unpaired"} == {
        ("unpaired", "zero"),
        ("unpaired", "mean"),
    }
    assert sum(case.dtype == torch.float64 for case in everything) == 256


@pytest.mark.parametrize("model", MODELS)
def test_random_searches_take_the_decisions_of_the_twin(model):
    parted, kept, untested, inputs_lost = [], [], [], 0
    for case in cases(model):
        experiment = case.experiment()
        span = abs(experiment.full() - experiment.ablated()) or 1.0
        fast, slow = both(experiment, case.share * span, order=case.order, absolute=case.absolute)
        if not same_decisions(fast, slow, case.dtype, absolute=case.absolute, says=case):
            parted.append(case)
        kept.append(slow.circuit.n_edges / experiment.graph.n_edges)
        untested.append(experiment.graph.n_edges - slow.tests)
    print(model, len(parted), [c.share for c in parted], min(kept), max(kept), sum(u > 0 for u in untested))
