"""Scores of neurons: estimates by the gradient of a mask, exact ones by circuit runs; circuits cut from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from family_models import InFloat64, family

from edgewise.discovery import METHODS, acdc_by_neuron, choose_neurons
from edgewise.discovery.methods.exact import exact_neuron_effects
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, NeuronCircuit, node_scores, of_neuron_names, of_neurons
from edgewise.patching import Experiment
from edgewise.patching.neuron_running import neuron_run


def experiment(name: str, metric: str = "logit_diff", **choices) -> Experiment:
    model = family(name, torch.float64) if name == "gemma2" else tiny.FAMILIES[name](dtype=torch.float64, layers=2)
    return Experiment(model, choices.pop("task", tiny.task()), metric=metric, neurons=True, **choices)


def score(case: Experiment, method: str, **options) -> np.ndarray:
    found = METHODS[method].scores(case, level="neuron", **options).circuit
    assert isinstance(found, NeuronCircuit)
    assert found == NeuronCircuit.full(case.graph)
    return found.neuron_scores


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "parallel", "gemma2"])
def test_a_neurons_score_is_the_gradient_of_a_mask_on_it(name, ablation):
    with InFloat64():
        case = experiment(name, ablation=ablation)
        prompts = case.task.prompts
        mask = torch.ones(case.graph.n_layers, case.graph.neurons, dtype=torch.float64, requires_grad=True)
        final = neuron_run(case.decoder, prompts.clean, prompts.mask, case.ablated_activations, mask)
        logits = case.decoder.logits(final[prompts.scored_rows, prompts.scored_positions])
        (gradient,) = torch.autograd.grad(case.metric(logits, case.reference).mean(), mask)
        found = score(case, "edge-attribution")
    assert np.abs(found + gradient.numpy()).max() < 1e-9  # ablating it takes the mask from 1 to 0
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("edge-attribution", {}),
        ("edge-attribution-ig", {"path": "inputs", "steps": 3}),
        ("edge-attribution-ig", {"path": "activations", "steps": 2}),
        ("clean-corrupted", {}),
        ("relp", {}),
    ],
)
def test_the_scores_of_an_mlps_neurons_add_up_to_the_score_of_the_mlp(method, options):
    """An MLP's output changes by what its neurons' changes write, and the gradient there is one."""
    for metric in ("kl_div", "logit_diff"):
        case = experiment("llama", metric)
        found, whole = (score(case, method, **options), METHODS[method].scores(of_nodes(case), level="node", **options))
        rows = [case.graph.source_index[f"m{layer}"] for layer in range(case.graph.n_layers)]
        assert found.sum(axis=1) == pytest.approx(node_scores(whole.circuit)[rows], abs=1e-9)
        assert np.abs(found).max() > 1e-4


def of_nodes(case: Experiment) -> Experiment:
    """The same question about whole nodes."""
    model = tiny.llama(dtype=torch.float64, layers=2)
    return Experiment(model, case.task, metric=case.metric, ports=False)


@pytest.mark.parametrize(("name", "ablation"), [("gpt2", "resample"), ("parallel", "zero"), ("gemma2", "mean")])
def test_a_neurons_exact_effect_is_that_of_a_circuit_run_without_it(name, ablation):
    with InFloat64():
        case = experiment(name, "kl_div", ablation=ablation)
        some = of_neurons(case.graph, np.arange(case.graph.n_neurons).reshape(case.graph.n_layers, -1) % 5 == 1)
        found = exact_neuron_effects(case, within=some)
        wanted = [case.value(NeuronCircuit.full(case.graph).remove(one)) - case.full() for one in some.names()]
    assert found.circuit == some
    assert found.details == {"shortlist": some.size}
    assert found.circuit.neuron_scores[some.neurons] == pytest.approx(wanted, abs=1e-9)
    assert not found.circuit.neuron_scores[~some.neurons].any()
    assert np.abs(wanted).max() > 1e-4


def test_exact_effects_do_not_depend_on_the_memory_allowed():
    case = experiment("gpt2", task=tiny.task(rows=5))
    told = []
    found = METHODS["exact"].scores(case, level="neuron", progress=lambda done, of: told.append((done, of)))
    tight = METHODS["exact"].scores(case, level="neuron", max_memory=400_000)
    assert tight.circuit.neuron_scores == pytest.approx(found.circuit.neuron_scores, abs=1e-9)
    assert told[-1] == (256, 256)
    with pytest.raises(EdgewiseError, match="The smallest setting that does is --max-memory"):
        METHODS["exact"].scores(case, level="neuron", max_memory=1000)


def test_the_best_neurons_are_taken_whatever_their_layer():
    graph = Graph(2, 1, neurons=3)
    scored = of_neurons(graph, np.ones((2, 3), dtype=bool), np.array([[-3.0, 0.5, 0.0], [0.5, 1.0, -2.0]]))

    def names(circuit=scored, **choice):
        return choose_neurons(circuit, **choice).circuit.names()

    assert names(count=2) == ["m0.n1", "m1.n1"]  # of equal ones the earlier
    assert names(count=9) == ["m0.n1", "m1.n0", "m1.n1"]  # nothing at or below zero is needed
    assert names(count=2, absolute=True) == ["m0.n0", "m1.n2"]
    assert names(count=9, above=-math.inf) == NeuronCircuit.full(graph).names()
    assert names(threshold=0.75) == ["m1.n1"]
    assert names(threshold=-2.5, absolute=True) == NeuronCircuit.full(graph).names()
    assert names(scored.remove("m1.n1"), count=1) == ["m0.n1"]  # of those that were scored
    assert (choose_neurons(scored, count=2).cut, choose_neurons(scored, threshold=9).cut) == (0.5, math.inf)
    with pytest.raises(EdgewiseError, match="not nan"):
        choose_neurons(scored, threshold=math.nan)
    for other in (Circuit.full(graph), NeuronCircuit.full(graph)):
        with pytest.raises(EdgewiseError, match="no scores of neurons"):
            choose_neurons(other, count=2)


def test_what_cannot_score_neurons_says_so():
    able = [name for name, method in METHODS.items() if method.finds("neuron")]
    assert able == ["acdc", "exact", "edge-attribution", "edge-attribution-ig", "clean-corrupted", "relp"]
    case = experiment("gpt2")
    with pytest.raises(EdgewiseError, match="'information-flow' does not score neurons"):
        METHODS["information-flow"].scores(case, level="neuron")
    plain = Experiment(case.decoder.original or tiny.gpt2(layers=2), tiny.task(), ports=False)
    for name in able:
        with pytest.raises(EdgewiseError, match="tells no neurons apart; make it with neurons=True"):
            acdc_by_neuron(plain, 0.1) if name == "acdc" else METHODS[name].scores(plain, level="neuron")
    with pytest.raises(EdgewiseError, match="has edges, where one of neurons is wanted"):
        exact_neuron_effects(case, within=Circuit.full(case.graph))
    assert of_neuron_names(case.graph, ["m1.n7"]).size == 1
