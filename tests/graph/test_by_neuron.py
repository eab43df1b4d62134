"""Circuits of neurons: how many there are, what they are called, and their files."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import transformers
from torch import device

from edgewise.errors import EdgewiseError
from edgewise.graph import (
    Circuit,
    Graph,
    NeuronCircuit,
    complement,
    load_circuit,
    of_neuron_names,
    of_neurons,
    of_nodes,
)
from edgewise.graph.eap_json import from_dict, save, to_dict
from edgewise.models.components import MLP
from edgewise.models.families.table import FAMILIES

SMALL = Graph(2, 2, d_model=16, neurons=5)


@pytest.mark.parametrize(
    ("config", "neurons", "nodes", "edges"),
    [
        # 12 layers of 3,072 hidden units; 1 + 12 * 13 nodes; edges into q, k, v of 12 heads, into MLPs and logits.
        (
            transformers.GPT2Config(),
            12 * 3072,
            157,
            sum(36 * (1 + 13 * layer) + 13 * layer + 13 for layer in range(12)) + 157,
        ),
        # 16 layers of 8,192; 1 + 16 * 33 nodes; edges into 32 queries, 8 keys and 8 values of a layer.
        (
            transformers.LlamaConfig(
                num_hidden_layers=16,
                num_attention_heads=32,
                num_key_value_heads=8,
                hidden_size=2048,
                intermediate_size=8192,
                vocab_size=128256,
                head_dim=64,
            ),
            16 * 8192,
            529,
            sum(48 * (1 + 33 * layer) + 33 * layer + 33 for layer in range(16)) + 529,
        ),
    ],
    ids=["gpt2-small", "llama-3.2-1b"],
)
def test_the_neurons_are_the_hidden_units_of_every_mlp(config, neurons, nodes, edges):
    with device("meta"):  # shapes without numbers
        model = transformers.AutoModelForCausalLM.from_config(config)
    decoder = FAMILIES[config.model_type].read(model, "a model")
    opened = [one.by_neuron() for one in decoder.components if isinstance(one, MLP)]
    widths = {tuple(one.output.shape) for one in opened}
    assert widths == {(neurons // config.num_hidden_layers, config.hidden_size)}
    whole = NeuronCircuit.full(Graph(**{**vars(decoder.graph(ports=False)), "neurons": opened[0].n_neurons}))
    assert (whole.size, whole.most, whole.unit) == (neurons, neurons, "neurons")
    assert whole.by_layer == [neurons // config.num_hidden_layers] * config.num_hidden_layers
    assert (len(whole.graph.sources), whole.n_edges) == (nodes, edges)
    assert neurons in (36_864, 131_072)
    assert len(whole.nodes()) == nodes + 1


def test_neurons_are_called_by_their_layer_and_number():
    circuit = of_neuron_names(SMALL, ["m1.n4", "m0.n0"])
    assert circuit.names() == ["m0.n0", "m1.n4"]
    assert "m1.n4" in circuit
    assert "m1.n3" not in circuit
    assert circuit.by_layer == [1, 1]
    assert repr(circuit) == "Circuit(2 of 10 neurons; 2 layers of 2 heads, 5 neurons in each MLP)"
    for name, why in (("m1.n5", "has no neuron 'm1.n5'"), ("m2.n0", "has no neuron"), ("m1", "written 'm3.n1207'")):
        with pytest.raises(EdgewiseError, match=why):
            of_neuron_names(SMALL, [name])


def test_circuits_of_neurons_are_sets():
    one, other = of_neuron_names(SMALL, ["m0.n1", "m0.n2"]), of_neuron_names(SMALL, ["m0.n2", "m1.n0"])
    assert (one | other).names() == ["m0.n1", "m0.n2", "m1.n0"]
    assert (one & other).names() == ["m0.n2"]
    assert (one - other).names() == ["m0.n1"]
    assert (one ^ other).names() == ["m0.n1", "m1.n0"]
    assert complement(one).size == 8
    assert one & other <= one
    assert not one <= other
    assert one.add("m1.n0").remove("m0.n1") == other
    assert hash(one.add("m1.n0").remove("m0.n1")) == hash(other)
    assert one != Circuit.full(SMALL)
    assert len(one) == 2
    assert not NeuronCircuit.empty(SMALL)
    assert one.nodes() == [name for name in of_nodes(SMALL, np.ones(7)).nodes() if name != "m1"]
    with pytest.raises(EdgewiseError, match="another graph"):
        one | NeuronCircuit.full(Graph(2, 2, neurons=6))
    with pytest.raises(EdgewiseError, match="has edges, where one of neurons is wanted"):
        one | Circuit.full(SMALL)


def test_a_graph_that_tells_no_neurons_apart_has_no_circuit_of_neurons():
    for graph in (Graph(2, 2), Graph(2, 2, ports=True, neurons=5)):
        with pytest.raises(EdgewiseError, match="tells neurons apart and has no port edges"):
            NeuronCircuit.full(graph)
    with pytest.raises(EdgewiseError, match="neurons should have shape"):
        of_neurons(SMALL, np.ones((2, 6)))
    for wrong in (dict(mlps=False, neurons=5), dict(neurons=-1), dict(neurons=2**40)):
        with pytest.raises(EdgewiseError, match="neurons"):
            Graph(2, 2, **wrong)
    assert Graph(2, 2, neurons=5).shape != Graph(2, 2).shape


@pytest.mark.parametrize("graph", [SMALL, Graph(2, 4, 2, neurons=3), Graph(1, 2, parallel=True, neurons=4)])
def test_a_circuit_of_neurons_comes_back_from_its_file(graph, tmp_path):
    generator = np.random.default_rng(0)
    shape = (graph.n_layers, graph.neurons)
    circuit = of_neurons(graph, generator.random(shape) < 0.5, generator.normal(size=shape))
    save(circuit, tmp_path / "circuit.json")
    back = load_circuit(tmp_path / "circuit.json")
    assert back == circuit
    assert back.graph == graph
    assert np.array_equal(back.neuron_scores, circuit.neuron_scores)
    unscored = from_dict(json.loads(json.dumps(to_dict(of_neurons(graph, circuit.neurons)))))
    assert unscored == circuit
    assert unscored.neuron_scores is None
    plain = to_dict(circuit)
    del plain["edgewise"]  # other tools read the edges, all of which are there
    assert from_dict(plain) == Circuit.full(Graph(graph.n_layers, graph.n_heads, parallel=graph.parallel))
    edges = Circuit.full(graph)  # of the same graph
    assert from_dict(to_dict(edges)) == edges
    assert not isinstance(from_dict(to_dict(edges)), NeuronCircuit)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file["edgewise"]["neurons"].pop("m1"), "should list the MLPs m0 to m1"),
        (lambda file: file["edgewise"]["neurons"]["m0"].update(in_graph=[5]), "of 'm0' in the graph should be numbers"),
        (lambda file: file["edgewise"]["neurons"]["m0"].update(in_graph=[True]), "should be numbers below 5"),
        (lambda file: file["edgewise"]["neurons"].update(m0=3), "should be numbers below 5"),
        (lambda file: file["edgewise"]["neurons"]["m0"].update(scores=[1.0]), "a finite number for each neuron"),
        (lambda file: file["edgewise"]["neurons"]["m0"].pop("scores"), "a finite number for each neuron"),
        (lambda file: file["edgewise"]["graph"].update(neurons=0), "every edge of a graph of neurons"),
        (lambda file: file["edgewise"]["graph"].update(neurons=2**60), "neurons"),
        (lambda file: file["edges"]["input->m0"].update(in_graph=False), "every edge of a graph of neurons"),
        (lambda file: file["edgewise"].update(neurons=[]), "neurons"),
    ],
)
def test_a_broken_file_of_neurons_is_refused_in_a_sentence(change, why):
    file = copy.deepcopy(to_dict(of_neurons(SMALL, np.ones((2, 5)), np.ones((2, 5)))))
    change(file)
    with pytest.raises(EdgewiseError, match=why):
        from_dict(file)


FEATURES = Graph(3, 2, neurons=5, features=(4, 0, 2))


def test_features_and_errors_have_names_of_their_own():
    full = NeuronCircuit.full(FEATURES)
    assert full.names() == [*(f"m0.f{number}" for number in range(4)), "m0.error", "m2.f0", "m2.f1", "m2.error"]
    assert (full.size, full.most, full.unit, full.by_layer) == (8, 8, "features", [5, 0, 3])
    assert (~full).names() == []
    assert (full - of_neuron_names(FEATURES, ["m0.error", "m2.f1"])).size == 6
    assert "m2.error" in full
    assert {"m0", "m2"} & set(NeuronCircuit.empty(FEATURES).nodes()) == set()
    assert "m1" in NeuronCircuit.empty(FEATURES).nodes()
    of_stream = Graph(3, 2, neurons=5, features=(4, 0, 2), stream_features=True)
    assert NeuronCircuit.full(of_stream).names()[-1] == "r2.error"
    assert "m0" in NeuronCircuit.empty(of_stream).nodes()
    for graph, name in (
        *((FEATURES, one) for one in ("m0.f4", "m1.f0", "m1.error", "m3.error", "r0.f1", "m0.n1")),
        (of_stream, "m0.f1"),
        (SMALL, "m0.error"),
        (SMALL, "m0.f1"),
    ):
        with pytest.raises(EdgewiseError, match=r"has no (neuron|feature|error)"):
            of_neuron_names(graph, [name])
    with pytest.raises(EdgewiseError, match="has units that its graph"):
        of_neurons(FEATURES, np.ones((3, 5), dtype=bool))


@pytest.mark.parametrize("features", [(4, 0), (4, 0, 2, 1), (5, 0, 0), (-1, 4, 0)])
def test_features_are_a_number_for_each_layer(features):
    with pytest.raises(EdgewiseError, match="the features of 3 layers are a number for each"):
        Graph(3, 2, neurons=5, features=features)


@pytest.mark.parametrize("scored", [True, False])
def test_a_circuit_of_features_is_itself_again_from_its_file(scored, tmp_path):
    scores = np.where(FEATURES.units, np.random.default_rng(0).normal(size=(3, 5)), 0.0)
    circuit = of_neurons(FEATURES, FEATURES.units & (scores > 0), scores if scored else None)
    save(circuit, tmp_path / "circuit.json")
    back = load_circuit(tmp_path / "circuit.json")
    assert back == circuit
    assert back.graph == FEATURES
    assert (back.neuron_scores is None) == (not scored)
    assert not scored or np.array_equal(back.neuron_scores, scores)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file["edgewise"]["features"].pop("m2"), "should list the layers m0 to m2"),
        (lambda file: file["edgewise"]["features"]["m0"].update(in_graph=[4]), "numbers below 4"),
        (lambda file: file["edgewise"]["features"]["m0"].pop("error"), "whether its 'error' is in the graph"),
        (lambda file: file["edgewise"]["features"]["m0"].update(scores=[1.0]), "finite 'scores' by number"),
        (lambda file: file["edgewise"]["features"]["m0"].update(scores={"4": 1.0}), "'4', which is no feature"),
        (lambda file: file["edgewise"]["features"]["m0"].pop("error_score"), "an 'error_score'"),
        (lambda file: file["edgewise"]["graph"].update(features=[4, 0]), "are a number for each"),
        (lambda file: file["edgewise"]["graph"].update(features=["4", 0, 2]), "a list of whole numbers"),
    ],
)
def test_a_broken_file_of_features_is_refused_in_a_sentence(change, why):
    file = copy.deepcopy(to_dict(of_neurons(FEATURES, FEATURES.units, np.zeros((3, 5)))))
    change(file)
    with pytest.raises(EdgewiseError, match=why):
        from_dict(file)
