"""The incremental engine takes its twin's decisions (`twins.py`) in random models, whatever is asked of them."""

import dataclasses
import functools
import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import torch
from twins import both, same_decisions

from edgewise.discovery import Order, acdc
from edgewise.patching import ABLATIONS, Experiment
from edgewise.tasks import METRICS
from edgewise.tasks.task import NO_TOKEN


def parallel(**kwargs):
    """GPT-2's parts with attention and MLP of a layer side by side, which no adapter makes yet."""
    model = tiny.gpt2(**{"heads": 3, **kwargs})
    components = (dataclasses.replace(one, beside=one.kinds == ("mlp",)) for one in model.components)
    return dataclasses.replace(model, components=tuple(components))


def in_one_dtype(model):
    """The same model, in float64 throughout if it is a float64 one: Llama's norm always rounds to float32."""
    for module in model.source.modules():
        if model.dtype == torch.float64 and type(module).__name__ == "LlamaRMSNorm":
            shape, weight, eps = module.weight.shape, module.weight, module.variance_epsilon
            module.forward = functools.partial(
                torch.nn.functional.rms_norm, normalized_shape=shape, weight=weight, eps=eps
            )
    return model


MODELS = {**tiny.FAMILIES, "llama-ungrouped": tiny.llama, "gpt2-parallel": parallel}
FEWER_HEADS: dict[str, dict[str, int]] = {
    "gpt2": {"heads": 2},
    "gpt2-parallel": {"heads": 2},
    "llama-ungrouped": {"heads": 2, "kv_heads": 1},
    "llama-with-biases": {"heads": 2},
    "parallel": {"n_heads": 2, "n_kv_heads": 1},
}
"""A twin takes a run for every edge, so where heads come in any number the cases of every run have few."""


def largest_shift(logits, reference):
    """A user's own metric."""
    return (logits - reference.logits).abs().amax(dim=-1)


PROMPTS = ("last-place", "several-places", "late-change", "one-pair-alike", "unpaired")


def random_prompts(kind: str, seed: int, one_length: bool):
    generator = torch.Generator().manual_seed(seed)
    made = tiny.prompts(seed, ragged=not one_length, paired=kind != "unpaired")
    rows, last = torch.arange(len(made)), made.mask.sum(dim=1) - 1
    if kind == "late-change":  # the last token alone differs, in one row the one before it alone
        corrupt, changed = made.clean.clone(), last - torch.tensor([0, 1, 0])
        corrupt[rows, changed] = corrupt[rows, changed] % 30 + 1
        return dataclasses.replace(made, corrupt=corrupt)
    if kind == "one-pair-alike":
        corrupt = made.corrupt.clone()
        corrupt[0] = made.clean[0]
        return dataclasses.replace(made, corrupt=corrupt)
    if kind == "several-places":  # none in the middle row
        scored = (torch.rand(made.mask.shape, generator=generator) < 0.5) & made.mask
        scored[rows, last] = True
        scored[1] = False
        at_rows, at_positions = scored.nonzero(as_tuple=True)
        answers = torch.randint(1, 30, (len(at_rows), 2), generator=generator)
        wrong = torch.randint(1, 30, (len(at_rows), 3), generator=generator)
        answers[::2, 1], wrong[1::2, 1:] = NO_TOKEN, NO_TOKEN
        return dataclasses.replace(
            made, scored_rows=at_rows, scored_positions=at_positions, answers=answers, wrong=wrong
        )
    return made


OPTIONS: dict[str, list[Any]] = {
    "dtype": [torch.float64] * 4 + [torch.float32],
    "layers": [2] * 7 + [3],
    "prompts": list(PROMPTS),
    "ablation": list(ABLATIONS),
    # log_prob_diff is logit_diff where a place has both answers; tests/tasks/test_own_answers.py has the others.
    "metric": [*(name for name in METRICS if name != "log_prob_diff"), largest_shift],
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
    # The threshold, as a share of what the metric moves from the whole model to no edge at all.
    "share": [-0.3, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.3, 1.3],
}
FEW, MANY = 12, 40
"""Cases for each model: in every run of the tests, and in the slow ones."""


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

    def experiment(self, heads: dict[str, int]) -> Experiment:
        model = MODELS[self.model](seed=self.seed % 3, dtype=self.dtype, layers=self.layers, **heads)
        model = in_one_dtype(model)
        split = self.split_embedding
        prompts = random_prompts(self.prompts, self.seed, one_length=self.ablation == "mean-positional")
        task = dataclasses.replace(tiny.task(self.seed, split_embedding=split), prompts=prompts)
        graph = model.graph(ports=self.ports, split_embedding=split, ungroup=self.model == "llama-ungrouped")
        return Experiment(model, task, ablation=self.ablation, metric=self.metric, graph=graph)


def adds_no_positions(model: str) -> bool:
    return "llama" in model or model in ("shortformer", "parallel")


def random_cases(model: str, count: int) -> list[Case]:
    """Cases in which every value of an option comes up equally often, unless it makes no sense with the others."""
    generator = random.Random(model)
    columns = []
    for values in OPTIONS.values():
        column = (values * count)[:count]
        generator.shuffle(column)
        columns.append(column)
    cases = []
    for seed, values in enumerate(zip(*columns, strict=True)):
        case = Case(model, seed, **dict(zip(OPTIONS, values, strict=True)))
        if adds_no_positions(model):  # so the embedding cannot be split
            case = dataclasses.replace(case, split_embedding=False)
        if case.prompts == "unpaired" and case.ablation in ("resample", "mean-positional"):
            case = dataclasses.replace(case, prompts="last-place")
        cases.append(case)
    return cases


@pytest.mark.parametrize("count", [FEW, MANY])
def test_the_random_cases_leave_nothing_out(count):
    everything = [case for model in MODELS for case in random_cases(model, count)]
    assert len(set(everything)) == len(everything) == count * len(MODELS)
    assert 0.75 <= sum(case.dtype == torch.float64 for case in everything) / len(everything) <= 0.85
    for model, (option, values) in itertools.product(MODELS, OPTIONS.items()):
        wanted = {False} if option == "split_embedding" and adds_no_positions(model) else set(values)
        missing = wanted ^ {getattr(case, option) for case in random_cases(model, count)}
        assert missing <= ({"unpaired"} if count == FEW else set()), (model, option)
    pairs = {(case.metric, case.ablation) for case in everything}
    assert len(pairs) == 9 * len(ABLATIONS) or (count == FEW and len(pairs) > 6 * len(ABLATIONS))
    unpaired = {case.ablation for case in everything if case.prompts == "unpaired"}
    assert unpaired == set(ABLATIONS) - {"resample", "mean-positional"}
    assert {case.dtype for case in everything if case.absolute} == {torch.float64, torch.float32}


LIKE_OTHERS = ("llama", "plain", "gpt2-parallel")
"""Whose parts are all in one of the other models."""


@pytest.mark.parametrize(
    ("model", "count"),
    tiny.slow_unless(
        lambda model, count: count == FEW and model not in LIKE_OTHERS, itertools.product(MODELS, (FEW, MANY))
    ),
)
def test_random_searches_take_the_decisions_of_the_twin(model, count):
    parted, kept, fell_untested = [], [], 0
    for case in random_cases(model, count):
        experiment = case.experiment(FEWER_HEADS.get(model, {}) if count == FEW else {})
        span = abs(experiment.full() - experiment.ablated()) or 1.0
        fast, slow = both(experiment, case.share * span, order=case.order, absolute=case.absolute)
        if not same_decisions(fast, slow, case.dtype, case.absolute, case):
            parted.append(case)
        kept.append(slow.circuit.n_edges / experiment.graph.n_edges)
        fell_untested += slow.tests < experiment.graph.n_edges
    assert len(parted) <= 1, "near ties are rare"
    assert all(case.dtype == torch.float32 for case in parted)
    assert min(kept) == 0 or count == FEW
    assert max(kept) > 0.98
    assert sum(0.05 < share < 0.95 for share in kept) >= 0.3 * count
    assert fell_untested >= 0.35 * count


def test_what_zero_ablation_empties_is_empty():
    """In a model without biases nothing at all reaches the logits of an empty circuit, so they are exactly 0."""
    task = tiny.task(11, metric="logit_diff")
    experiment = Experiment(tiny.llama(seed=1, layers=2), task, ablation="zero", ports=False)
    assert experiment.ablated() == 0
    fast, slow = both(experiment, 0.98369205608833)
    assert same_decisions(fast, slow, torch.float32)


def test_no_answer_is_right_where_zero_ablation_leaves_all_logits_alike():
    for seed in range(8):
        model, task = tiny.llama(seed, torch.float64), tiny.task(seed, metric="frac_correct")
        experiment = Experiment(model, task, ablation="zero")
        assert acdc(experiment, 10.0).metric == experiment.ablated() == 0


@pytest.mark.parametrize(
    ("seed", "metric", "share"),
    [(0, "frac_correct", 0.3), (36, "frac_correct", 1.0), (1, "logit_diff", 0.3), (21, "logit_diff", 0.05)],
)
def test_nodes_that_zero_ablation_silences_leave_nothing_behind(seed, metric, share):
    """Edges are kept from several nodes, which come to write exactly 0 one after another."""
    task = tiny.task(seed, metric=metric)
    experiment = Experiment(tiny.llama(seed % 4, layers=2), task, ablation="zero", ports=False)
    threshold = share * abs(experiment.full() - experiment.ablated())
    fast, slow = (acdc(experiment, threshold, engine=engine) for engine in ("incremental", "plain"))
    assert any(one.after == 0 for one in slow.trace[-20:])
    assert same_decisions(fast, slow, torch.float32)


def test_two_searches_with_different_thresholds_are_told_apart():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64, layers=2), tiny.task())
    one, other = acdc(experiment, 0.001), acdc(experiment, 0.002)
    with pytest.raises(AssertionError):
        same_decisions(one, other, torch.float64)
    moved = dataclasses.replace(one.trace[9], after=one.trace[9].after + 1e-6)
    with pytest.raises(AssertionError):
        same_decisions(dataclasses.replace(one, trace=(*one.trace[:9], moved)), one, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_threshold_within_rounding_of_an_effect_may_be_decided_either_way(dtype):
    """The one exception does happen: the threshold is the larger of the two engines' values for the first effect."""
    parted = 0
    for seed in range(6):
        experiment = Experiment(tiny.gpt2(seed, dtype, layers=2), tiny.task(seed))
        fast, slow = both(experiment, 1.0)
        fast, slow = both(experiment, max(fast.trace[0].effect, slow.trace[0].effect))
        parted += not same_decisions(fast, slow, dtype)
        assert (fast.trace[0].kept != slow.trace[0].kept) == (fast.trace[0].effect != slow.trace[0].effect)
    assert parted > 0
