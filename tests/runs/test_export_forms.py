"""Runs in the forms of other tools: what each file says, and that it is read again where it can be."""

import json

import numpy as np
import pytest
import tiny
import torch

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.runs.attribution_graph import Prompt, attribution_graph
from edgewise.runs.export_forms import export_form, prompt_of
from edgewise.runs.given import read_circuit

# The fields that circuit-tracer's page and Neuronpedia's schema ask for, and their kinds.
METADATA = {"slug": str, "scan": str, "prompt_tokens": list, "prompt": str, "transcoder_list": list}
QUERY = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str}
NODE = {
    "node_id": str,
    "feature": int,
    "layer": str,
    "ctx_idx": int,
    "feature_type": str,
    "jsNodeId": str,
    "clerp": str,
    "token_prob": float,
    "is_target_logit": bool,
}
LINK = {"source": str, "target": str, "weight": float}
PROMPT = Prompt("a b c", ["a", " b", " c"], [2], (" d", 17, 0.25))


def require_form(graph):
    """What the published schema requires, and what its reader does with it."""
    assert graph.keys() == {"metadata", "qParams", "nodes", "links"}
    for part, kinds in ((graph["metadata"], METADATA), (graph["qParams"], QUERY)):
        assert all(type(part[key]) is kind for key, kind in kinds.items())
    for part, kinds in ((graph["nodes"], NODE), (graph["links"], LINK)):
        assert part
        assert all(type(one[key]) is kind for one in part for key, kind in kinds.items())
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids) == len({node["jsNodeId"] for node in graph["nodes"]})
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(ids)
    pairs = [(link["source"], link["target"]) for link in graph["links"]]
    assert len(set(pairs)) == len(pairs)
    tokens = len(graph["metadata"]["prompt_tokens"])
    assert all(0 <= node["ctx_idx"] < tokens for node in graph["nodes"])
    for node in graph["nodes"]:
        if node["feature_type"] == "logit":
            assert 0 <= float(node["clerp"].split("(p=")[1].split(")")[0]) <= 1


@pytest.fixture(scope="module")
def runs():
    model, task = tiny.gpt2(layers=2), tiny.task()
    found = {
        "acdc": ew.discover(model, task, threshold=0.003),
        "scored": ew.discover(model, task, method="edge-attribution", edges=20, ports=False),
    }
    return model, task, found


@pytest.mark.parametrize("form", ["eap-ig", "autocircuit", "edge-pruning"])
@pytest.mark.parametrize("kind", ["json", "pt"])
def test_a_run_is_read_again_from_what_was_exported(runs, form, kind, tmp_path):
    if form == "edge-pruning" and kind == "pt":
        with pytest.raises(EdgewiseError, match="is JSON; leave --file out"):
            export_form(form, runs[2]["acdc"].record, runs[2]["acdc"].circuit, kind)
        return
    run = runs[2]["acdc"]
    exported = export_form(form, run.record, run.circuit, kind)
    for name, content in exported.files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (path,) = [tmp_path / name for name in exported.files if name != "config.json"]
    assert read_circuit(path).edges.tolist() == ungrouped(without_ports(run.circuit)).edges.tolist()


def test_scores_of_every_edge_go_along(runs, tmp_path):
    run = runs[2]["scored"]
    for kind in ("json", "pt"):
        for form in ("eap-ig", "autocircuit"):
            ((name, content),) = export_form(form, run.record, run.circuit, kind).files.items()
            path = tmp_path / f"{form}-{name}"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            back = read_circuit(path)
            assert np.allclose(back.scores, run.circuit.scores, atol=1e-6)
            assert (back == without_ports(run.circuit)) == (form == "eap-ig")  # AutoCircuit has no circuit beside them


def test_an_attribution_graph_has_the_published_form(runs):
    model, task, found = runs
    for run in found.values():
        exported = export_form("circuit-tracer", run.record, run.circuit, on=(model, task), name="mine")
        assert list(exported.files) == ["mine.json", "graph-metadata.json"]
        graph = json.loads(exported.files["mine.json"])
        require_form(graph)
        assert json.loads(exported.files["graph-metadata.json"]) == {"graphs": [graph["metadata"]]}
        assert len(graph["metadata"]["prompt_tokens"]) == int(task.prompts.mask[0].sum())


def test_edges_into_one_head_are_one_link_with_the_sum_of_their_scores():
    graph = Graph(1, 2)
    circuit = Circuit.from_names(graph, ["input->a0.h1<q>", "input->a0.h1<v>", "a0.h1->m0", "m0->logits"])
    scores = np.zeros(graph.edges.shape)
    for name, score in (("input->a0.h1<q>", 0.5), ("input->a0.h1<v>", -2.0), ("a0.h1->m0", 3.0), ("m0->logits", 1.0)):
        scores[graph.locate(name)] = score
    found = attribution_graph(circuit.with_scores(scores), PROMPT, slug="s", model="m")
    require_form(found)
    assert [(link["source"], link["target"], link["weight"]) for link in found["links"]] == [
        ("E_0_2", "0_1_2", -1.5),
        ("0_1_2", "0_2_2", 3.0),
        ("0_2_2", "2_17_2", 1.0),
    ]
    assert [node["clerp"] for node in found["nodes"]] == ["input", "a0.h1", "m0", 'Output " d" (p=0.250)']
    assert [link["weight"] for link in attribution_graph(circuit, PROMPT, slug="s", model="m")["links"]] == [
        2.0,
        1.0,
        1.0,
    ]


def test_spans_stand_where_they_end_and_attention_carries_links_on():
    graph = Graph(2, 1, spans=("A", "B"))
    circuit = Circuit.from_names(graph, ["input->a0.h0<v>@A", "a0.h0->a1.h0<k>@B", "a1.h0->logits@B"])
    prompt = Prompt("a b c", ["a", " b", " c"], [0, 2], (" d", 17, 0.25))
    found = attribution_graph(circuit, prompt, slug="s", model="m")
    require_form(found)
    # What head 0 reads at A is carried on to B, where the next head reads it.
    assert {(link["source"], link["target"]) for link in found["links"]} == {
        ("E_0_0", "0_0_2"),
        ("0_0_2", "1_0_2"),
        ("1_0_2", "3_17_2"),
    }


def test_the_prompt_shown_is_the_tasks_first_with_what_the_model_says_next(runs):
    model, task, found = runs
    prompt = prompt_of(model, task, found["acdc"].circuit)
    length = int(task.prompts.mask[0].sum())
    logits = model.source(task.prompts.clean[:1, :length]).logits[0, -1].detach()
    assert prompt.answer[1] == int(logits.argmax())
    assert prompt.answer[2] == pytest.approx(float(torch.softmax(logits, dim=-1).max()), abs=1e-5)
    assert prompt.tokens[0] == f"#{int(task.prompts.clean[0, 0])}"
    assert list(prompt.places) == [length - 1]


def test_what_cannot_be_exported_is_refused(runs):
    run = runs[2]["acdc"]
    with pytest.raises(EdgewiseError, match="unknown format 'eapig'; did you mean 'eap-ig'"):
        export_form("eapig", run.record, run.circuit)
    with pytest.raises(EdgewiseError, match="json or pt, not 'npz'"):
        export_form("eap-ig", run.record, run.circuit, "npz")
    with pytest.raises(EdgewiseError, match="no name for a file"):
        export_form("circuit-tracer", run.record, run.circuit, on=runs[:2], name="../x")
    with pytest.raises(EdgewiseError, match="has no edges"):
        attribution_graph(Circuit.empty(Graph(1, 1)), PROMPT, slug="s", model="m")
