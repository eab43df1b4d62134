"""Runs at level feature, from the request to the folder and back: record, files, resumption, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import dictionaries
import numpy as np
import pytest
import tiny
from dictionaries import circuit_tracer

import edgewise as ew
from edgewise.discovery import METHODS
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.graph import NeuronCircuit, load_circuit, of_neuron_names
from edgewise.models.dictionary import Place
from edgewise.models.feature_mlp import by_feature, has_features
from edgewise.patching import Experiment
from edgewise.runs import SearchRequest, discover, load_run
from edgewise.runs.hub import published

# A model that comes along, so that a run finds it again.
MODEL = ew.load_model("tiny-greater-than")
TASK = ew.load_task("greater-than", MODEL, examples=4)
LAYERS = [
    replace(dictionaries.random(MODEL, Place(layer, "stream"), features=20, seed=layer), signed=True)
    for layer in (0, 1)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Transcoders of both layers, as circuit-tracer writes them."""
    path = tmp_path_factory.mktemp("transcoders")
    circuit_tracer(path, *LAYERS)
    return path


@pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
@pytest.mark.parametrize("method", ["acdc", "exact", "edge-attribution-ig"])
def test_a_run_by_features_is_itself_again_from_its_folder(method, folder, tmp_path):
    within = {"acdc": 12, "exact": 12}.get(method)
    run = discover(MODEL, TASK, level="feature", method=method, dictionary=folder, features=5, within=within)
    assert isinstance(run.circuit, NeuronCircuit)
    assert 1 <= run.circuit.size <= 5
    settings, result = run.record["settings"], run.record["result"]
    assert (settings["level"], settings["features"], settings["ports"]) == ("feature", 5, False)
    assert settings["model"]["dictionary"]["path"] == str(folder)
    assert "path" not in published(run.record)["settings"]["model"]["dictionary"]
    assert (result["n_features"], result["n_graph_features"]) == (run.circuit.size, 42)
    assert result["features_by_layer"] == run.circuit.by_layer
    assert [one["name"] for one in result["dictionary"]] == ["m0", "m1"]
    assert abs(result["metric_full"]) < 1e-5  # in float32, with every feature and error: the model
    assert run.summary()["features"] == run.circuit.names()
    case = Experiment(by_feature(MODEL, LAYERS), TASK)
    assert run.metric == tiny.near(case.value(run.circuit))
    assert result["metric_ablated"] == tiny.near(case.value(NeuronCircuit.empty(case.graph)))
    back = load_run(run.save(tmp_path / "run"))
    assert back.circuit == run.circuit
    assert np.array_equal(back.circuit.neuron_scores, run.circuit.neuron_scores)
    assert back.trace == run.trace
    assert has_features(back.model)
    assert back.evaluate().value == tiny.near(run.metric)
    again = SearchRequest.from_dict(json.loads(json.dumps(run.record["settings"])))
    assert discover(back.model, TASK, request=again).circuit == run.circuit
    if method == "acdc":
        assert {next(iter(json.loads(line))) for line in (tmp_path / "run" / "trace.jsonl").open()} == {"feature"}
        assert run.record["shortlist"]["n_features"] == 12
    if method == "exact":
        found = run.evaluate()
        assert (found.n_features, found.n_graph_features, found.unit) == (run.circuit.size, 42, "features")


@pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
def test_a_search_that_was_stopped_goes_on_to_the_same_end(folder, tmp_path):
    asked = dict(level="feature", dictionary=folder, within=15, threshold=0.002)
    whole = discover(MODEL, TASK, **asked)
    assert 0 < whole.circuit.size < 15

    def stop(progress):
        if progress.tests == 6:
            raise KeyboardInterrupt

    with pytest.raises(ew.RunInterrupted):
        discover(MODEL, TASK, **asked, out=tmp_path / "run", progress=stop)
    resumed = ew.resume(tmp_path / "run")
    assert resumed.circuit == whole.circuit
    assert [(one.edge, one.kept) for one in resumed.trace] == [(one.edge, one.kept) for one in whole.trace]
    assert resumed.record["resumed"] == 1


@pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
def test_a_model_taken_apart_by_hand_is_searched_as_it_is(tmp_path):
    stream = [dictionaries.random(MODEL, Place(0, "behind", stream=True), features=20, k=5)]
    opened = by_feature(MODEL, stream)
    run = discover(opened, TASK, level="feature", method="eap", features=6)
    assert set(run.circuit.names()) <= {f"r0.f{number}" for number in range(20)} | {"r0.error"}
    assert run.record["result"]["n_graph_features"] == 21
    path = run.save(tmp_path / "run")
    assert load_circuit(path / "circuit.json") == run.circuit
    with pytest.raises(EdgewiseError, match="does not say where the dictionary lies"):
        load_run(path).model  # noqa: B018 - it is loaded when it is asked for
    with pytest.raises(EdgewiseError, match="search it with --level feature"):
        discover(opened, TASK, method="eap", edges=9)
    with run.applied("zero") as live:
        assert live is not None


def test_a_dictionary_of_something_else_is_told(folder):
    with pytest.warns(EdgewiseWarning, match="the dictionary of m0, m1 predicts what is there worse than its mean"):
        discover(MODEL, TASK, level="feature", method="eap", dictionary=folder, features=5)


@pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
def test_a_dictionary_that_has_changed_is_refused(tmp_path):
    circuit_tracer(tmp_path / "transcoders", *LAYERS)
    run = discover(MODEL, TASK, level="feature", method="eap", dictionary=tmp_path / "transcoders", features=5)
    path = run.save(tmp_path / "run")
    circuit_tracer(tmp_path / "transcoders", replace(LAYERS[0], decoder_bias=LAYERS[0].decoder_bias + 1))
    with pytest.raises(EdgewiseError, match=r"has changed since .* was made"):
        load_run(path).model  # noqa: B018


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (dict(dictionary=None), "needs transcoders or SAEs: say where they are with --dictionary"),
        (dict(dictionary="nowhere"), "there is no such file or folder"),
        (dict(dictionary_hooks="blocks.0.hook_mlp_out"), "its config.yaml says where its features are"),
        (
            dict(dictionary=None, dictionary_hooks="blocks.0.hook_mlp_out"),
            "says where the features of a --dictionary are",
        ),
        (dict(level="edge", features=None, edges=5), "give --level feature"),
        (dict(level="neuron", features=None, neurons=5), "give --level feature"),
        (dict(features=None), r"say how many features the circuit should have \(--features\)"),
        (dict(features=0), "--features should be at least 1"),
        (dict(features=None, edges=3), "with --level feature the number is --features"),
        (dict(method="acdc"), "ACDC tries features one by one"),
        (dict(method="sp"), "scores queries, keys, values and MLPs, not features"),
        (dict(groups={"mine": ["m0"]}), "all of which a circuit of features has"),
        (dict(method="exact", within=of_neuron_names(ew.Graph(2, 4, neurons=3), ["m0.n1"])), "another graph|neurons"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(choice, why, folder):
    asked = {"level": "feature", "method": "edge-attribution", "features": 5, "dictionary": folder, **choice}
    with pytest.raises(EdgewiseError, match=why):
        discover(MODEL, TASK, **asked)


def test_the_methods_that_find_features_are_those_that_find_neurons():
    assert [one.finds("feature") for one in METHODS.values()] == [one.finds("neuron") for one in METHODS.values()]
