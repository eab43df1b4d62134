"""Circuits whose nodes write only some output dimensions: EAP-IG's `neurons`, in its file forms and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, OutputCircuit, of_nodes
from edgewise.graph.by_output import with_outputs
from edgewise.graph.convert import in_one_graph
from edgewise.graph.eap_json import from_dict, to_dict
from edgewise.runs.mib_export import load_pt, pt_bytes

GRAPH = Graph(2, 2, d_model=4)


def some(*, scored: bool = True, nodes: bool = False) -> OutputCircuit:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=GRAPH.edges.shape).astype(np.float32).astype(float) * GRAPH.edges
    circuit = Circuit(GRAPH, GRAPH.edges & (generator.random(GRAPH.edges.shape) < 0.6), GRAPH.port_edges, scores)
    if nodes:
        circuit = of_nodes(GRAPH, generator.random(7) < 0.6, scores[:, -1])
    shape = (7, GRAPH.d_model)
    own = generator.normal(size=shape).astype(np.float32).astype(float) if scored else None
    return with_outputs(circuit, generator.random(shape) < 0.5, own)


@pytest.mark.parametrize("circuit", [some(), some(scored=False), some(nodes=True)], ids=["scored", "not", "nodes"])
def test_output_dimensions_come_back_from_both_forms_of_eap_ig(circuit, tmp_path):
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(circuit))
    for back in (from_dict(json.loads(json.dumps(to_dict(circuit)))), load_pt(tmp_path / "circuit.pt")):
        assert isinstance(back, OutputCircuit)
        assert back == circuit
        assert back.whole_nodes == circuit.whole_nodes
        assert np.array_equal(back.scores, circuit.scores)
        assert (back.output_scores is None) == (circuit.output_scores is None)
        if circuit.output_scores is not None:
            assert np.array_equal(back.output_scores, circuit.output_scores)


def test_the_files_hold_what_eap_ig_reads(tmp_path):
    circuit = some()
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(circuit))
    data = torch.load(tmp_path / "circuit.pt", weights_only=True)
    assert data["neurons_in_graph"].dtype == torch.bool
    assert data["neurons_in_graph"].tolist() == circuit.outputs.tolist()
    assert data["neurons_scores"].dtype == torch.float32
    assert data["neurons_scores"].shape == (7, 4)
    nodes = to_dict(circuit)["nodes"]
    assert nodes["logits"] == {"in_graph": True}
    assert nodes["m0"]["neurons"] == circuit.outputs[3].tolist()
    # Its code takes what a head's entry says for all heads of the layer at once.
    assert nodes["a1.h0"]["neurons"] == nodes["a1.h1"]["neurons"] == circuit.outputs[4:6].tolist()
    one_list = to_dict(circuit)
    one_list["nodes"]["a1.h1"]["neurons"] = circuit.outputs[5].tolist()
    assert from_dict(one_list) == circuit


def test_scores_that_are_not_there_stay_away(tmp_path):
    """EAP-IG has NaN for a dimension without a score; JSON has no NaN."""
    circuit = some()
    scores = circuit.output_scores.copy()
    scores[3] = np.nan
    unscored = with_outputs(circuit.of_edges(), circuit.outputs, scores)
    assert "neurons_scores" not in to_dict(unscored)["nodes"]["m0"]
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(unscored))
    for back in (from_dict(to_dict(unscored)), load_pt(tmp_path / "circuit.pt")):
        assert np.array_equal(back.output_scores, scores, equal_nan=True)
    scores[0, 1] = np.nan
    with pytest.raises(EdgewiseError, match="of input have no score, which JSON cannot say"):
        to_dict(with_outputs(circuit.of_edges(), circuit.outputs, scores))


def test_a_file_that_only_scores_output_dimensions_has_all_of_them(tmp_path):
    plain = some().of_edges()
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(plain))
    data = torch.load(tmp_path / "circuit.pt", weights_only=True)
    torch.save({**data, "neurons_scores": torch.ones(7, 4)}, tmp_path / "circuit.pt")
    back = load_pt(tmp_path / "circuit.pt")
    assert isinstance(back, OutputCircuit)
    assert back.outputs.all()
    assert back.of_edges() == plain
    assert back != plain


def test_a_file_in_which_neurons_were_chosen_by_eap_ig_is_read(tmp_path):
    """There every column of a node's row is marked, also where no edge is, and what has no score stays in."""
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(Circuit.empty(GRAPH)))
    data = torch.load(tmp_path / "circuit.pt", weights_only=True)
    scores = torch.arange(28.0).view(7, 4)
    scores[0] = torch.nan
    chosen = (scores >= 14) | scores.isnan()
    nodes = chosen.any(dim=1)
    data |= {"neurons_scores": scores, "neurons_in_graph": chosen, "nodes_in_graph": nodes}
    torch.save({**data, "edges_in_graph": nodes[:, None].expand(7, 15).clone()}, tmp_path / "circuit.pt")
    circuit = load_pt(tmp_path / "circuit.pt")
    names = ["input", "m0", "a1.h0", "a1.h1", "m1"]
    readers = [name for name in GRAPH.names() if name.split("->")[0] in names]
    assert circuit.names() == [name for name in readers if not name.split("->")[1].startswith("a0.")]
    assert circuit.outputs.sum(axis=1).tolist() == [4, 0, 0, 2, 4, 4, 4]
    assert np.isnan(circuit.output_scores[0]).all()


def test_edges_are_counted_by_the_dimensions_that_they_carry():
    circuit = with_outputs(Circuit.from_names(GRAPH, ["m0->m1", "m0->logits", "m1->logits"]), np.ones((7, 4)))
    outputs = circuit.outputs.copy()
    outputs[GRAPH.source_index["m0"], 1:] = False
    fewer = with_outputs(circuit.of_edges(), outputs)
    assert (circuit.weighted_edges, fewer.weighted_edges) == (3.0, 1.5)
    assert (circuit.n_outputs, fewer.n_outputs, fewer.n_edges) == (8, 5, 3)
    assert ~~fewer == fewer != ~fewer
    alike, note = in_one_graph([fewer, circuit.of_edges()])
    assert alike[0] == alike[1]
    assert note == "which output dimensions their nodes write is left aside"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"neurons_in_graph": torch.ones(7, 5)}, r"'neurons_in_graph' should be a tensor \[7, 4\]"),
        ({"neurons_in_graph": [True]}, "'neurons_in_graph' should be a tensor"),
        ({"neurons_scores": torch.full((7, 4), torch.inf)}, "infinity, which is no score"),
    ],
)
def test_a_broken_pt_file_is_refused_in_a_sentence(change, why, tmp_path):
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(some()))
    data = torch.load(tmp_path / "circuit.pt", weights_only=True)
    torch.save({**data, **change}, tmp_path / "circuit.pt")
    with pytest.raises(EdgewiseError, match=why):
        load_pt(tmp_path / "circuit.pt")


@pytest.mark.parametrize(
    ("name", "entry", "why"),
    [
        ("m0", {"neurons": [True]}, "'neurons' of node 'm0' should be a list of 4 true or false"),
        ("m0", {"neurons": [1, 0, 1, 0]}, "4 true or false"),
        ("a0.h1", {"neurons": [[True] * 4]}, "4 true or false"),
        ("m0", {"neurons_scores": [1.0, 2, True, 0]}, "'neurons_scores' of node 'm0' should be a list of 4 numbers"),
        ("m0", {"neurons_scores": 3}, "4 numbers"),
    ],
)
def test_a_broken_json_file_is_refused_in_a_sentence(name, entry, why):
    file = to_dict(some())
    file["nodes"][name].update(entry)
    with pytest.raises(EdgewiseError, match=why):
        from_dict(file)


def test_output_dimensions_need_a_graph_that_has_them():
    for graph in (Graph(1, 2), Graph(1, 2, d_model=4, spans=("a", "b"))):
        with pytest.raises(EdgewiseError, match="width of the residual stream is known"):
            OutputCircuit.full(graph)
    with pytest.raises(EdgewiseError, match="has 3 output dimensions for each of 7 nodes, and the graph has 4"):
        with_outputs(Circuit.full(GRAPH), np.ones((7, 3)))
