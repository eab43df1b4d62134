"""Circuits of AutoCircuit and Edge Pruning: what their files say, and that nothing is lost on the way."""

import json

import numpy as np
import pytest
import torch

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, NeuronCircuit, load_circuit, of_nodes
from edgewise.graph.auto_circuit import edge_scores, from_edge_scores, from_prune_scores, prune_scores
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.graph.edge_pruning import config_of, edge_list, from_edge_list, graph_of
from edgewise.runs.given import read_circuit

# Written by hand after AutoCircuit's nodes and PruneScores: one layer of two heads, each with queries, keys and values.
NAMED = {
    **{f"Resid Start->A0.{head}.{kind}": 0.0 for head in (0, 1) for kind in "QKV"},
    "Resid Start->A0.1.V": -0.5,
    "Resid Start->MLP 0": 0.25,
    "A0.0->MLP 0": 0.0,
    "A0.1->MLP 0": 0.0,
    "Resid Start->Resid End": 0.0,
    "A0.0->Resid End": 0.0,
    "A0.1->Resid End": 2.0,
    "MLP 0->Resid End": 1.0,
}
PRUNED = {
    "blocks.0.hook_q_input": torch.zeros(2, 1),
    "blocks.0.hook_k_input": torch.zeros(2, 1),
    "blocks.0.hook_v_input": torch.tensor([[0.0], [-0.5]]),
    "blocks.0.hook_mlp_in": torch.tensor([0.25, 0.0, 0.0]),
    "blocks.0.hook_resid_post": torch.tensor([0.0, 0.0, 2.0, 1.0]),
}
EDGES = ["input->a0.h1<v>", "input->m0", "a0.h1->logits", "m0->logits"]


def random_circuit(graph, seed=0):
    generator = np.random.default_rng(seed)
    edges = graph.edges & (generator.random(graph.edges.shape) < 0.5)
    return Circuit(graph, edges, graph.port_edges & (generator.random(len(graph.inputs)) < 0.7))


@pytest.mark.parametrize("ending", ["json", "pt", "pkl"])
def test_auto_circuits_files_are_read_wherever_a_circuit_is(tmp_path, ending):
    path = tmp_path / f"scores.{ending}"
    if ending == "json":
        path.write_text(json.dumps(NAMED))
    else:
        torch.save(PRUNED if ending == "pt" else {"IOI": {"ACDC": PRUNED}}, path)
    found = read_circuit(path)
    assert found.graph == Graph(1, 2)
    assert sorted(found.names()) == sorted(EDGES)
    assert found.scores[0, found.graph.input_index["a0.h1<v>"]] == -0.5


def test_what_edgewise_writes_is_what_auto_circuit_has():
    circuit = from_edge_scores(NAMED, "it")
    assert edge_scores(circuit, scored=True) == NAMED
    written = prune_scores(circuit, scored=True)
    assert written.keys() == PRUNED.keys()
    assert all(np.array_equal(written[name], one.numpy()) for name, one in PRUNED.items())
    assert set(edge_scores(circuit, scored=False).values()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "graph",
    [
        Graph(2, 3),
        Graph(2, 2, parallel=True),
        Graph(3, 2, mlps=False),
        Graph(2, 2, whole_heads=True),
        Graph(2, 1),
        Graph(2, 4, n_kv_heads=2, ports=True),
    ],
    ids=Graph.describe,
)
def test_a_circuit_comes_back_from_auto_circuits_forms(graph):
    circuit = random_circuit(graph)
    wanted = ungrouped(without_ports(circuit))
    assert from_edge_scores(edge_scores(circuit, scored=False), "it") == wanted
    back = from_prune_scores(prune_scores(circuit, scored=False), "it")
    assert back == wanted
    scored = wanted.with_scores(
        np.where(wanted.graph.edges, np.random.default_rng(1).normal(size=wanted.edges.shape), 0)
    )
    again = from_prune_scores(prune_scores(scored, scored=True), "it")
    assert np.array_equal(again.scores, scored.scores)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"MLP 0->Resid End": None}, "the score of 'MLP 0->Resid End' should be a number, not None"),
        ({"A0.1->A0.2": 1.0}, "14 edges are listed, and 1 layer of 3 heads has 18"),
        ({"a0.h1->m0": 1.0}, "is not an edge as AutoCircuit writes it"),
        ({"A0.0->A0.1.Q": 1.0}, "14 edges are listed, and 1 layer of 2 heads has 13"),
    ],
)
def test_a_broken_file_of_names_is_refused(tmp_path, change, why):
    path = tmp_path / "edges.json"
    path.write_text(json.dumps({**NAMED, **change}))
    with pytest.raises(EdgewiseError, match=why):
        load_circuit(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"blocks.0.hook_mlp_in": torch.zeros(4)},
            r"'blocks.0.hook_mlp_in' should be of shape \[1, 3\] here, not \[4\]",
        ),
        ({"blocks.1.hook_mlp_in": torch.zeros(4)}, "'blocks.1.hook_q_input' is missing in 2 layers of 2 heads"),
        ({"blocks.0.hook_q_input": torch.zeros(5, 2, 1)}, "tell positions apart"),
        ({"blocks.0.hook_q_input": torch.full((2, 1), torch.nan)}, "should be finite numbers"),
        ({"blocks.0.hook_q_input": "much"}, "'blocks.0.hook_q_input' should be a tensor of scores"),
    ],
)
def test_broken_prune_scores_are_refused(tmp_path, change, why):
    torch.save({**PRUNED, **change}, tmp_path / "scores.pt")
    with pytest.raises(EdgewiseError, match=why):
        read_circuit(tmp_path / "scores.pt")


def test_edge_prunings_list_is_read_beside_its_models_configuration(tmp_path):
    pairs = [["embeds", "a0.h1.v"], ["embeds", "m0"], ["a0.h1", "resid_post"], ["m0", "resid_post"]]
    path = tmp_path / "edges.json"
    path.write_text(json.dumps(pairs))
    with pytest.raises(EdgewiseError, match=r"put the model's config.json beside it"):
        load_circuit(path)
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 1, "n_head": 2, "vocab_size": 9}))
    circuit = load_circuit(path)
    assert circuit.graph == Graph(1, 2)
    assert sorted(circuit.names()) == sorted(EDGES)
    assert sorted(edge_list(circuit)) == sorted(pairs)
    path.write_text("[]")
    assert load_circuit(path).names() == [name for name in Circuit.full(Graph(1, 2)).names() if "input" in name]


def test_an_embedding_that_is_no_node_is_always_there():
    graph = Graph(1, 2)
    assert from_edge_list([["m0", "resid_post"]], graph, "it").names() == [
        *[f"input->a0.h{head}<{kind}>" for head in (0, 1) for kind in "qkv"],
        "input->m0",
        "input->logits",
        "m0->logits",
    ]
    split = from_edge_list([["tok_embeds", "m0"]], Graph(1, 2, split_embedding=True), "it")
    assert split.names() == ["tok->m0"]


@pytest.mark.parametrize(
    "graph",
    [Graph(2, 3), Graph(2, 2, split_embedding=True), Graph(2, 4, n_kv_heads=2, ports=True)],
    ids=Graph.describe,
)
def test_a_circuit_comes_back_from_edge_prunings_form(graph):
    circuit = random_circuit(graph, 3)
    plain = without_ports(circuit)
    assert graph_of(config_of(graph), split=graph.split_embedding) == plain.graph
    assert from_edge_list(edge_list(circuit), plain.graph, "it") == plain


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([["m0", "a0.h1.q"]], "m0 does not come before"),
        ([["a0.h7", "resid_post"]], "has no sending node 'a0.h7'"),
        ([["a0.h1"]], "an edge is a pair of names"),
        ([["a0.h1", 3]], "an edge is a pair of names"),
        ([["a0.h1", "a0.h1"]], "reads in three places"),
    ],
)
def test_a_broken_list_of_edges_is_refused(value, why):
    with pytest.raises(EdgewiseError, match=why):
        from_edge_list(value, Graph(1, 2), "it")


def test_a_configuration_without_a_shape_is_refused():
    with pytest.raises(EdgewiseError, match="should have 'n_head', a whole number, not None"):
        graph_of({"n_layer": 2}, split=False)


def test_what_a_form_has_no_words_for_is_refused():
    with pytest.raises(EdgewiseError, match="one embedding"):
        prune_scores(Circuit.full(Graph(1, 2, split_embedding=True)), scored=False)
    with pytest.raises(EdgewiseError, match="have no scores"):
        edge_scores(Circuit.full(Graph(1, 2)), scored=True)
    with pytest.raises(EdgewiseError, match="one after the other"):
        edge_list(Circuit.full(Graph(1, 2, parallel=True)))
    for write in (edge_list, lambda one: prune_scores(one, scored=False)):
        with pytest.raises(EdgewiseError, match="of a circuit of neurons"):
            write(NeuronCircuit.full(Graph(1, 2, neurons=4)))
    nodes = of_nodes(Graph(1, 2), np.array([True, True, False, False]))
    assert edge_list(nodes) == [
        *[["embeds", f"a0.h0.{kind}"] for kind in "qkv"],
        ["embeds", "resid_post"],
        ["a0.h0", "resid_post"],
    ]
