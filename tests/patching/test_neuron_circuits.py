"""What a circuit of neurons means, against the source model's own modules taken apart, and against whole runs."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import tiny
import torch
from family_models import InFloat64, family

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, NeuronCircuit, of_neuron_names, of_neurons
from edgewise.models.decoder import positions_of
from edgewise.patching import ABLATIONS, Experiment
from edgewise.patching.ablation import Ablation
from edgewise.patching.constants import Constants

# Dense and gated MLPs; parallel blocks; a norm behind the MLP; a multiplier; a bias behind it.
NAMES = ["gpt2", "llama", "gptj", "phi", "gemma2", "olmo2", "granite", "opt", "bloom"]


@pytest.fixture(autouse=True)
def in_float64():
    """Without the detours through float32 that norms of transformers take."""
    with InFloat64():
        yield


def experiment(name: str, ablation: str, task=None) -> Experiment:
    model = family(name, torch.float64)
    return Experiment(model, task or tiny.task(rows=2), ablation=ablation, metric="logit_diff", neurons=True)


def random_neurons(case: Experiment, seed: int = 0) -> NeuronCircuit:
    shape = (case.graph.n_layers, case.graph.neurons)
    return of_neurons(case.graph, np.random.default_rng(seed).random(shape) < 0.5)


@pytest.mark.parametrize(
    ("name", "ablation"),
    [
        *((name, "resample") for name in NAMES),
        *(("gpt2", name) for name in ("zero", "mean-positional")),
        *(("llama", name) for name in ("mean", "noise")),
        *(("gemma2", name) for name in ("mean-clean", "zero")),
    ],
)
def test_a_circuit_of_neurons_is_what_the_source_models_own_parts_make_of_it(name, ablation):
    task = tiny.task(rows=2, ragged=ablation != "mean-positional")
    case = experiment(name, ablation, task)
    found = [case.logits(one) for one in (random_neurons(case), NeuronCircuit.empty(case.graph))]
    for logits, circuit in zip(found, (random_neurons(case), NeuronCircuit.empty(case.graph)), strict=True):
        assert torch.allclose(logits, oracle.neuron_logits(case, circuit), atol=1e-9)
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_learned_constants_are_a_number_for_each_neuron():
    given = experiment("llama", "mean")
    embedding, *codes = (
        given.ablated_activations.embedding[:, 0, 0],
        *(code[0, 0] for code in given.ablated_activations.codes),
    )
    constants = Constants(embedding, tuple(codes))
    assert [tuple(code.shape) for code in codes[1::2]] == [(1, 24), (1, 24)]
    case = Experiment(given.decoder, given.task, ablation=Ablation("optimal", constants=constants), neurons=True)
    circuit = random_neurons(case)
    assert torch.allclose(case.logits(circuit), oracle.neuron_logits(case, circuit), atol=1e-9)
    learned = Experiment(given.decoder, given.task, ablation="optimal", metric="kl_div", neurons=True)
    assert [one.shape for one in learned.carried.constants.codes] == [one.shape for one in codes]


@pytest.mark.parametrize(
    ("name", "ablation"),
    [
        *(("gpt2", name) for name in ABLATIONS if name not in ("mean-positional", "optimal")),
        *((name, "resample") for name in ("llama-with-biases", "plain", "parallel", "gemma2")),
        *((name, "zero") for name in ("parallel", "gemma2")),
    ],
)
def test_every_neuron_present_is_the_model_and_none_is_every_mlp_ablated(name, ablation):
    model = family(name, torch.float64) if name == "gemma2" else tiny.FAMILIES[name](dtype=torch.float64, layers=2)
    task = tiny.task()
    case, prompts = Experiment(model, task, ablation=ablation, neurons=True), task.prompts
    whole = model.run_source(prompts.clean, prompts.mask, positions_of(prompts.clean))
    whole = whole[prompts.scored_rows, prompts.scored_positions]
    assert torch.allclose(case.logits(NeuronCircuit.full(case.graph)), whole, atol=1e-9)
    assert torch.allclose(case.logits(Circuit.full(case.graph)), whole, atol=1e-9)
    # An ablated MLP writes what its ablated neurons make. Under zero ablation its bias, which no neuron owns, stays;
    # under all others that is what the MLP itself carries where its edges are ablated.
    of_edges = Experiment(model, task, ablation=ablation, ports=False)
    edges = of_edges.graph.edges.copy()
    edges[[row for row, node in enumerate(of_edges.graph.sources) if node.kind == "mlp"]] = False
    none = case.logits(NeuronCircuit.empty(case.graph))
    without = of_edges.logits(Circuit(of_edges.graph, edges, of_edges.graph.port_edges))
    biased = name in ("gpt2", "llama-with-biases", "plain", "parallel")
    assert torch.allclose(none, without, atol=1e-9) == (not (ablation == "zero" and biased))
    assert (none - whole).abs().max() > 1e-2
    assert case.ablated() == pytest.approx(case.value(NeuronCircuit.empty(case.graph)))


def test_resampled_neurons_write_what_their_mlp_does_in_the_corrupted_run():
    case, prompts = experiment("gpt2", "resample"), tiny.task(rows=2).prompts
    corrupt, written = oracle.Source(case.decoder, prompts.corrupt, prompts.corrupt_mask), []
    block = corrupt.mlps[1].source.block
    corrupt.run((block, False, lambda x: written.append(x)))
    mlp = case.decoder.components[3]
    assert torch.allclose(mlp.write_total(case.ablated_activations.codes[3]), written[0], atol=1e-9)


def test_circuits_of_edges_mean_the_same_where_neurons_are_told_apart():
    case = experiment("llama", "resample")
    plain = Experiment(family("llama", torch.float64), case.task, metric="logit_diff", ports=False)
    circuit = oracle.random_circuit(plain.graph, 1, 0.5)
    same = Circuit(case.graph, circuit.edges, circuit.ports)
    assert torch.allclose(case.logits(same), plain.logits(circuit), atol=1e-9)
    with pytest.raises(EdgewiseError, match="over another graph"):
        plain.logits(random_neurons(case))


def test_memory_that_is_short_changes_nothing_but_the_number_of_pieces():
    model, task = tiny.gpt2(layers=2), tiny.task(rows=6)
    case = Experiment(model, task, neurons=True)
    pieces = Experiment(model, task, neurons=True, max_memory=100_000)
    assert pieces.rows_at_once() < len(task)
    circuit = of_neuron_names(case.graph, ["m0.n3", "m1.n100"])
    assert torch.allclose(pieces.logits(circuit), case.logits(circuit), atol=1e-5)
