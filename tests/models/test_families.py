"""Every family: the model's own logits, and circuits as its own modules say, in every engine and method."""

import contextlib
from itertools import product

import numpy as np
import oracle
import pytest
import tiny
import torch
from family_models import CONFIGS, InFloat64, family

from edgewise.discovery import acdc, edge_attribution, exact_effects
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models import check, permuted
from edgewise.models.control import fold_value_biases
from edgewise.models.decoder import positions_of
from edgewise.models.forward import forward
from edgewise.patching import Experiment

LOGITS = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 0.15, torch.float16: 0.02}
EACH_PART = [
    "gpt_neo",
    "bloom",
    "falcon",
    "gptj",
    "mistral",
    "gemma2",
    "olmo2",
    "cohere2",
    "granite",
    "deepseek_v2",
    "gpt_oss",
]
"""Families that have, between them, every part that families are made of."""
COUPLED = {"gemma2", "gemma3_text", "olmo2", "olmo3", "olmoe"}


def in_dtype(dtype):
    """Float64 throughout, where that is asked for."""
    return InFloat64() if dtype == torch.float64 else contextlib.nullcontext()


@pytest.fixture(params=CONFIGS)
def model(request):
    """In float64, and what runs it there."""
    with InFloat64():
        yield family(request.param, torch.float64)


EVERY = tiny.slow_unless(lambda name: name in EACH_PART, zip(CONFIGS))
"""Every family; those that are made of the parts of others are among the slow tests."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    tiny.slow_unless(lambda name, dtype: dtype.itemsize > 2 or name in EACH_PART, product(CONFIGS, LOGITS)),
)
def test_logits_are_the_models_on_ragged_prompts(name, dtype):
    with in_dtype(dtype):
        decoder, prompts = family(name, dtype), tiny.prompts(rows=5, longest=9)
        ours = decoder.logits(forward(decoder, prompts.clean, prompts.mask).streams[-1])[prompts.mask].double()
        wanted = decoder.run_source(prompts.clean, prompts.mask, positions_of(prompts.clean))[prompts.mask].double()
        off = (ours - wanted).abs().amax(dim=-1).sort().values
        if "moe" in name or name in ("mixtral", "gpt_oss"):  # two experts of one score in half precision
            off = off[: len(off) - (len(off) // 4 if dtype.itemsize == 2 else 0)]
        assert wanted.std() > 0.1
        assert off[-1] <= LOGITS[dtype] * wanted.abs().max()
        check(decoder, prompts.clean, prompts.mask)


def test_padding_changes_nothing(model):
    prompts = tiny.prompts(rows=3, longest=7)
    length = int(prompts.mask[2].sum())
    assert length < prompts.clean.shape[1]
    alone = forward(model, prompts.clean[2:, :length], prompts.mask[2:, :length])
    together = forward(model, prompts.clean, prompts.mask)
    assert torch.allclose(alone.streams[-1][0], together.streams[-1][2, :length], atol=1e-9)


def test_heads_are_coupled_where_a_norm_couples_them(model):
    name = model.config.architecture
    assert model.graph().coupled == (name in COUPLED)


@pytest.mark.parametrize("model", EVERY, indirect=True)
def test_circuits_run_as_the_source_models_own_modules_say(model):
    for number, ablation in enumerate(("resample", "zero", "mean")):
        split = model.config.position_embedding and number == 1
        task = tiny.task(number, longest=5, split_embedding=split)
        experiment = Experiment(model, task, ablation=ablation, ports=number != 1)
        graph = experiment.graph
        circuits = [oracle.random_circuit(graph, number, (0.3, 0.8, 0.5)[number]), Circuit.empty(graph)]
        if number == 0:
            circuits += [oracle.random_circuit(graph, 3, 0.8), Circuit.full(graph)]
        for circuit in circuits:
            wanted = oracle.oracle_logits(experiment, circuit)
            assert wanted.abs().max() > 0.1 or (ablation == "zero" and not circuit)
            most = max(1.0, float(wanted.detach().abs().max()))
            assert torch.allclose(experiment.logits(circuit), wanted, atol=1e-9 * most)


def searches(name, seeds):
    """The twin on random searches: engines agree on every edge, except where the threshold is all but the effect."""
    decided = between = 0
    for seed in seeds:
        with InFloat64():
            model = family(name, torch.float64, seed)
            task = tiny.task(seed, rows=2, longest=4, metric=("kl_div", "logit_diff")[seed % 2])
            ablation = ("resample", "zero", "mean")[seed % 3]
            experiment = Experiment(model, task, ablation=ablation, ports=seed % 2 == 0)
            values = [experiment.value(make(experiment.graph)) for make in (Circuit.full, Circuit.empty)]
            threshold = abs(values[1] - values[0]) * (0.003, 0.01, 0.03)[seed % 3]
            fast, slow = (acdc(experiment, threshold, engine=engine) for engine in ("incremental", "plain"))
        for ours, theirs in zip(fast.trace, slow.trace, strict=False):
            assert ours.edge == theirs.edge
            assert ours.after == pytest.approx(theirs.after, abs=1e-8, rel=1e-8), (seed, ours, theirs)
            if ours.kept != theirs.kept:
                assert abs(theirs.effect - threshold) < 1e-6 * threshold, (seed, ours, theirs)
                break
            decided += 1
        else:
            assert fast.circuit == slow.circuit
            assert len(fast.trace) == len(slow.trace)
            between += 0 < fast.circuit.n_edges < experiment.graph.n_edges
    assert between > len(seeds) // 2, "most searches should keep some edges and not all"
    return decided


@pytest.mark.parametrize("name", EVERY)
def test_the_engines_take_the_same_decisions(name):
    assert searches(name, [list(CONFIGS).index(name)]) > 30


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_engines_take_the_same_decisions_in_many_searches(name):
    assert searches(name, range(10)) > 300


@pytest.mark.parametrize("name", [*sorted(COUPLED), "gpt2", "mixtral"])
def test_the_engines_agree_inside_a_shortlist_and_in_further_passes(name):
    with InFloat64():
        model = family(name, torch.float64, 1)
        experiment = Experiment(model, tiny.task(3, rows=2, longest=4), ablation="resample", ports=True)
        start = oracle.random_circuit(experiment.graph, 3, 0.7)
        least, most = experiment.value(start), experiment.value(Circuit.empty(experiment.graph))
        threshold = abs(most - least) * 0.01
        fast, slow = (
            acdc(experiment, threshold, start=start, passes=2, engine=one) for one in ("incremental", "plain")
        )
    assert [(one.edge, one.kept) for one in fast.trace] == [(one.edge, one.kept) for one in slow.trace]
    assert [one.after for one in fast.trace] == pytest.approx([one.after for one in slow.trace], abs=1e-8)
    assert fast.circuit == slow.circuit
    assert 0 < fast.circuit.n_edges < start.n_edges


@pytest.mark.parametrize("name", CONFIGS)
def test_controls_are_models_of_the_family(name):
    decoder, prompts = family(name), tiny.prompts(rows=2, longest=5)
    if name == "falcon-groups":
        with pytest.raises(EdgewiseError, match="in groups"):
            permuted(decoder, 0)
        return
    shuffled = permuted(decoder, 0)
    assert shuffled.config.permuted_seed == 0
    check(shuffled, prompts.clean, prompts.mask)
    if name == "gpt_oss":  # with a sink, a pattern does not sum to 1
        with pytest.raises(EdgewiseError, match="sinks"):
            fold_value_biases(decoder)
    else:
        check(fold_value_biases(decoder), prompts.clean, prompts.mask)
    before, after = (forward(one, prompts.clean, prompts.mask).streams[-1] for one in (decoder, shuffled))
    assert (before - after)[prompts.mask].abs().max() > 1e-3


@pytest.mark.parametrize("model", EVERY, indirect=True)
def test_attribution_is_the_gradient_of_a_mask_on_every_edge(model):
    experiment = Experiment(model, tiny.task(longest=5), metric="logit_diff")
    found = edge_attribution(experiment).circuit
    edges, ports = oracle.mask_gradients(experiment)
    assert np.abs(edges).max() > 1e-3
    assert np.abs(found.scores - edges).max() < 1e-8
    assert np.abs(found.port_scores - ports).max() < 1e-8


@pytest.mark.parametrize("name", EACH_PART)
def test_exact_patching_is_a_circuit_run_without_the_edge(name):
    exact_patching_is_a_circuit_run(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in EACH_PART])
def test_exact_patching_is_a_circuit_run_in_every_other_family(name):
    exact_patching_is_a_circuit_run(name)


def exact_patching_is_a_circuit_run(name):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task(rows=2, longest=4), metric="logit_diff")
        found, full = exact_effects(experiment).circuit, Circuit.full(experiment.graph)
        whole, names = experiment.value(full), full.names()
        names = names[:: max(1, len(names) // 25)]
        effects = [experiment.value(full.remove(edge)) - whole for edge in names]
    for edge, wanted in zip(names, effects, strict=True):
        row, column = experiment.graph.locate(edge)
        ours = found.port_scores[column] if row is None else found.scores[row, column]
        assert ours == pytest.approx(wanted, abs=1e-8)
