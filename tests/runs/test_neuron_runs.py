"""Runs at level neuron, from the request to the folder and back: record, scores, shortlists, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
from family_models import family

import edgewise as ew
from edgewise.discovery import METHODS
from edgewise.errors import EdgewiseError
from edgewise.evaluation.effort import Options
from edgewise.evaluation.hypotheses import run_tests
from edgewise.graph import NeuronCircuit, of_neuron_names
from edgewise.patching import Experiment
from edgewise.reports.page import read_sources
from edgewise.runs import SearchRequest, discover, load_run, plan_discovery
from edgewise.runs.scores import load_scores

MODEL = tiny.gpt2(layers=2)
TASK = replace(tiny.task(), settings={"task": "random", "examples": len(tiny.task())})


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.finds("neuron")])
def test_a_run_by_neurons_is_itself_again_from_its_folder(method, tmp_path):
    within = 40 if method in ("exact", "acdc") else None
    run = discover(MODEL, TASK, level="neuron", method=method, neurons=20, within=within)
    assert isinstance(run.circuit, NeuronCircuit)
    assert 1 <= run.circuit.size <= 20
    assert {key: run.record["settings"][key] for key in ("level", "neurons", "edges", "ports")} == {
        **dict(level="neuron", neurons=20, edges=None, ports=False)
    }
    result = run.record["result"]
    assert (result["n_neurons"], result["n_graph_neurons"]) == (run.circuit.size, 256)
    assert result["neurons_by_layer"] == run.circuit.by_layer
    assert run.summary()["neurons"] == run.circuit.names()
    assert f"{run.circuit.size} of 256 neurons" in repr(run)
    case = Experiment(MODEL, TASK, neurons=True)
    assert run.metric == tiny.near(case.value(run.circuit))
    assert result["metric_ablated"] == tiny.near(case.value(NeuronCircuit.empty(case.graph)))
    back = load_run(run.save(tmp_path / "run"))
    assert back.circuit == run.circuit
    assert np.array_equal(back.circuit.neuron_scores, run.circuit.neuron_scores)
    assert back.trace == run.trace
    if method != "acdc":
        assert back.scores == run.circuit
        kept = load_scores(tmp_path / "run" / "scores.safetensors")
        assert np.array_equal(kept.neuron_scores, run.circuit.neuron_scores)
    again = SearchRequest.from_dict(run.record["settings"])
    assert discover(MODEL, TASK, request=again).circuit == run.circuit


def test_the_best_neurons_are_those_of_the_highest_scores():
    run = discover(MODEL, TASK, level="neuron", method="exact", share=0.05)
    scores = run.circuit.neuron_scores
    assert run.circuit.size == 12  # of 256
    assert scores[run.circuit.neurons].min() >= scores[~run.circuit.neurons].max()
    assert run.record["settings"]["neurons"] == 12
    by_size = discover(MODEL, TASK, level="neuron", method="eap", neurons=12, absolute=True)
    sizes = np.abs(by_size.circuit.neuron_scores)
    assert sizes[by_size.circuit.neurons].min() >= sizes[~by_size.circuit.neurons].max()
    least = discover(MODEL, TASK, level="neuron", method="eap", threshold=0.01)
    assert np.array_equal(least.circuit.neurons, least.circuit.neuron_scores >= 0.01)


def test_only_the_shortlist_is_measured():
    graph = Experiment(MODEL, TASK, neurons=True).graph
    given = of_neuron_names(graph, [f"m{layer}.n{number}" for layer in (0, 1) for number in range(0, 128, 3)])
    run = discover(MODEL, TASK, level="neuron", method="exact", within=given, neurons=9)
    everything = discover(MODEL, TASK, level="neuron", method="exact", neurons=9).circuit.neuron_scores
    assert run.circuit <= given
    assert run.circuit.neuron_scores[given.neurons] == pytest.approx(everything[given.neurons], abs=1e-6)
    assert not run.circuit.neuron_scores[~given.neurons].any()
    assert run.record["result"]["scoring"]["shortlist"] == given.size
    by_size = discover(MODEL, TASK, level="neuron", method="exact", within=10, threshold=-9.0).circuit
    best = discover(MODEL, TASK, level="neuron", method="eap-ig", neurons=10, absolute=True).circuit
    assert by_size == best


def test_evaluation_measures_what_neurons_recover_and_tests_them_against_random_ones():
    run = discover(MODEL, TASK, level="neuron", method="exact", neurons=30)
    found = run.evaluate()
    assert found.value == tiny.near(run.metric)
    assert (found.n_neurons, found.n_graph_neurons, found.unit) == (30, 256, "neurons")
    assert "30 of 256 neurons" in repr(found)
    case = Experiment(MODEL, TASK, neurons=True)
    one = found.measured[found.metric]
    assert one.full == tiny.near(0.0)
    assert one.ablated == tiny.near(case.ablated())
    assert one.complement == tiny.near(case.value(~run.circuit))
    tests = run_tests(case, run.circuit, Options(circuits=29))
    assert tests.unit == "neurons"
    assert tests.random_edges == (30, 30)
    assert {effect.edge for effect in tests.effects} == set(run.circuit.names())


def test_families_with_a_norm_behind_their_mlps_are_scored_too():
    run = discover(family("gemma2"), TASK, level="neuron", method="exact", within=12, neurons=6)
    assert run.circuit.size <= 6
    assert run.metric == tiny.near(Experiment(family("gemma2"), TASK, neurons=True).value(run.circuit))


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (dict(method="acdc"), "ACDC tries neurons one by one: say among which, as in --within 200"),
        (dict(method="acdc", within=5, head_order="reverse"), "are of heads and edges, not of neurons"),
        (dict(method="acdc", within=5, workers=2), "a search of neurons is not shared out among workers"),
        (dict(features=5, neurons=None), "--features is for circuits of features"),
        (dict(dictionary=__file__), "give --level feature"),
        (dict(method="sp"), "scores queries, keys, values and MLPs, not neurons"),
        (dict(neurons=0), "--neurons should be at least 1, not 0"),
        (dict(neurons=2.5), "--neurons should be a whole number"),
        (dict(neurons=None), r"say how many neurons the circuit should have \(--neurons\)"),
        (dict(neurons=None, edges=4), "with --level neuron the number is --neurons"),
        (dict(threshold=0.1), "not both"),
        (dict(level="node"), "give --level neuron, or --edges"),
        (dict(level="edge"), "give --level neuron, or --edges"),
        (dict(heads="whole"), "none are chosen"),
        (dict(select="top"), "neurons need no such choice"),
        (dict(within=4), "--within, --budget and --passes are ACDC's"),
        (dict(groups={"mine": ["m0"]}), "all of which a circuit of neurons has"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(choice, why):
    with pytest.raises(EdgewiseError, match=why):
        discover(MODEL, TASK, **{"level": "neuron", "method": "edge-attribution", "neurons": 5, **choice})


def test_verbs_that_are_about_edges_and_nodes_refuse_neurons(tmp_path):
    run = discover(MODEL, TASK, level="neuron", method="eap", neurons=5)
    folder = run.save(tmp_path / "run")
    edges = discover(MODEL, TASK, method="eap", edges=9)
    for refused, why in (
        (lambda: run.circuit.draw(), "there is no picture of a circuit of neurons"),
        (lambda: read_sources([folder]), "there is no page of a circuit of neurons"),
        (
            lambda: discover(MODEL, TASK, known=folder, threshold=0.1),
            "nothing can be held against the edges of a circuit of neurons",
        ),
        (lambda: discover(MODEL, TASK, within=folder, threshold=0.1), "is a circuit of neurons, which has every edge"),
        (lambda: discover(MODEL, TASK, level="neuron", method="exact", within=edges, neurons=2), "not a circuit of 9"),
        (lambda: plan_discovery(MODEL, TASK, level="neuron"), "a plan is of a search of edges or nodes, not neurons"),
        (lambda: ew.evaluate(MODEL, TASK, run.circuit, known=edges.circuit), "another graph"),
    ):
        with pytest.raises(EdgewiseError, match=why):
            refused()
