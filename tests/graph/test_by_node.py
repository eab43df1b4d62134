"""Circuits of whole nodes: how many nodes there are, what they keep of the edges, and their files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, as_shown, complement, load_circuit, of_node_names, of_nodes, save_circuit
from edgewise.graph.by_node import node_names, node_scores, without_node
from edgewise.graph.convert import in_one_graph, ungrouped

SMALL = Graph(2, 2, d_model=16)


@pytest.mark.parametrize(
    ("graph", "layers", "heads", "count"),
    [
        pytest.param(Graph(12, 12), 12, 12, 157, id="gpt2-small"),
        pytest.param(Graph(16, 32, 8), 16, 32, 529, id="llama-3.2-1b"),
        pytest.param(Graph(4, 8, mlps=False), 4, 8, 33, id="attn-only-4l"),
    ],
)
def test_the_nodes_are_the_embedding_every_head_and_every_mlp(graph: Graph, layers: int, heads: int, count: int):
    whole = of_nodes(graph, np.ones(count, dtype=bool))
    by_hand = {"input"}
    for layer in range(layers):
        by_hand |= {f"a{layer}.h{head}" for head in range(heads)} | ({f"m{layer}"} if graph.mlps else set())
    assert len(by_hand) == count
    assert set(node_names(whole)) == by_hand == {name.split("->")[0] for name in graph.names()}
    assert (whole.size, whole.most, whole.unit) == (count, count, "nodes")
    assert whole == Circuit.full(graph)


def random_rows(graph: Graph, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(graph.sources)) < 0.5


@pytest.mark.parametrize(
    "graph", [SMALL, Graph(2, 4, 2), Graph(2, 2, parallel=True), Graph(1, 2, split_embedding=True)]
)
def test_a_node_has_all_of_its_edges_or_none(graph: Graph):
    for seed in range(6):
        rows = random_rows(graph, seed)
        circuit = of_nodes(graph, rows)
        chosen = {node.name for node, there in zip(graph.sources, rows, strict=True) if there}
        assert set(circuit.names()) == {name for name in graph.names() if name.split("->")[0] in chosen}
        shown = {
            name
            for name in circuit.names()
            if name.endswith("->logits")
            or any(graph.inputs_of(graph.node(one)).count(graph.locate(name)[1]) for one in chosen)
        }
        assert set(as_shown(circuit).names()) == shown
        assert set(circuit.nodes()) - {"logits"} == chosen
        assert circuit.size == len(chosen)


def test_two_circuits_of_nodes_make_one_of_nodes_and_with_edges_one_of_edges():
    one, other = of_node_names(SMALL, ["input", "a0.h0", "m1"]), of_node_names(SMALL, ["input", "a1.h1", "m1"])
    for found, names in (
        (one | other, {"input", "a0.h0", "a1.h1", "m1"}),
        (one & other, {"input", "m1"}),
        (one - other, {"a0.h0"}),
        (~one, {"a0.h1", "m0", "a1.h0", "a1.h1"}),
        (without_node(one, "m1"), {"input", "a0.h0"}),
    ):
        assert found.whole_nodes
        assert set(node_names(found)) == names
    edges = one.remove("input->logits")
    assert not edges.whole_nodes
    assert edges.unit == "edges"
    assert not one.connected().whole_nodes
    assert set(node_names(complement(one))) == {"input", "a0.h1", "m0", "a1.h0", "a1.h1"}
    assert complement(edges) == ~edges


@pytest.mark.parametrize(
    "graph", [SMALL, Graph(2, 4, 2, d_model=8), Graph(1, 2, split_embedding=True), Graph(2, 2, mlps=False)]
)
@pytest.mark.parametrize("scored", [True, False])
def test_a_file_gives_the_circuit_back(graph: Graph, scored: bool, tmp_path):
    for seed in range(4):
        rows = random_rows(graph, seed)
        scores = np.random.default_rng(seed).normal(size=len(rows)) if scored else None
        circuit = of_nodes(graph, rows, scores)
        save_circuit(circuit, tmp_path / "circuit.json")
        back = load_circuit(tmp_path / "circuit.json")
        assert back.whole_nodes
        assert back == circuit
        assert back.graph == graph
        if scores is not None:
            assert np.array_equal(node_scores(back), scores)
        assert ungrouped(back).whole_nodes


def test_the_file_is_what_eap_ig_reads(tmp_path):
    """Its loader takes a score of each node but the logits, and of each edge; nothing else is in the file."""
    circuit = of_nodes(SMALL, np.array([1, 0, 1, 0, 1, 1, 0], dtype=bool), np.arange(7) / 8)
    save_circuit(circuit, tmp_path / "circuit.json")
    value = json.loads((tmp_path / "circuit.json").read_text())
    assert set(value) == {"cfg", "nodes", "edges"}
    assert value["nodes"]["a0.h1"] == {"in_graph": True, "score": 0.25}
    assert value["nodes"]["m0"] == {"in_graph": False, "score": 0.375}
    assert value["nodes"]["logits"] == {"in_graph": True}
    there = {name for name, node in value["nodes"].items() if node["in_graph"]}
    for name, edge in value["edges"].items():
        source, target = name.split("->")
        assert edge == {"score": 0.0, "in_graph": source in there and target.split("<")[0] in there}


def test_files_that_say_two_things_are_refused(tmp_path):
    save_circuit(of_nodes(SMALL, np.ones(7)), tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())

    def refused(change, why: str) -> None:
        value = json.loads(json.dumps(whole))
        change(value)
        (tmp_path / "bad.json").write_text(json.dumps(value))
        with pytest.raises(EdgewiseError, match=why):
            load_circuit(tmp_path / "bad.json")

    refused(lambda value: value["nodes"]["m0"].pop("score"), "node 'm0' has no 'score', and others have one")
    refused(lambda value: value["nodes"]["m0"].update(score="high"), "score of node 'm0' should be a finite number")
    refused(lambda value: value["edges"]["m0->m1"].update(in_graph=False), "some of the edges between the nodes")
    refused(lambda value: value["nodes"]["m0"].update(neurons=[True]), "'neurons' of node 'm0' should be a list of 16")


def test_what_is_no_circuit_of_whole_nodes_is_refused():
    with pytest.raises(EdgewiseError, match="all edges of a sender or none"):
        Circuit(SMALL, Circuit.from_names(SMALL, ["input->m0"]).edges, SMALL.port_edges, whole_nodes=True)
    with pytest.raises(EdgewiseError, match="without port edges"):
        of_nodes(Graph(1, 1, ports=True), np.ones(3))
    with pytest.raises(EdgewiseError, match="has no node 'm7'"):
        of_node_names(SMALL, ["m7"])


def test_beside_a_circuit_of_edges_it_is_the_edges_between_its_nodes():
    nodes = of_node_names(SMALL, ["input", "m1"])
    (shown, other), note = in_one_graph([nodes, Circuit.from_names(SMALL, ["input->m1"])])
    assert set(shown.names()) == {"input->m1", "input->logits", "m1->logits"}
    assert not shown.whole_nodes
    assert not other.whole_nodes
    assert "whole nodes" in note
