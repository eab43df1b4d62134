"""Runs at level node, from the request to the folder and back: record, trace, resuming, shortlists, pictures, pages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from family_models import family

import edgewise as ew
from edgewise.discovery import METHODS, NodePlan
from edgewise.errors import EdgewiseError
from edgewise.graph import node_scores, of_node_names
from edgewise.graph.by_node import node_names
from edgewise.patching import Experiment
from edgewise.reports.page import measure, page_data, read_sources
from edgewise.runs import SearchRequest, discover, load_run, plan_discovery, read_run
from edgewise.runs.reading import read_trace
from edgewise.runs.scores import load_scores

MODEL = tiny.gpt2(layers=2)
TASK = replace(tiny.task(), settings={"task": "random", "examples": len(tiny.task())})


def test_a_run_by_nodes_is_itself_again_from_its_folder(tmp_path):
    run = discover(MODEL, TASK, level="node", threshold=0.003)
    assert run.record["settings"]["level"] == "node"
    assert run.record["settings"]["ports"] is False
    result = run.record["result"]
    assert (result["n_nodes"], result["n_graph_nodes"]) == (run.circuit.size, 11)
    assert result["passes"] == [{"tests": 11, "n_nodes": run.circuit.size}]
    assert f"{run.circuit.size} of 11 nodes" in repr(run)
    assert run.summary()["nodes"] == node_names(run.circuit)
    run.save(tmp_path / "run")
    back = load_run(tmp_path / "run")
    assert back.circuit == run.circuit
    assert back.circuit.whole_nodes
    assert back.trace == run.trace
    assert back.discovery.passes == run.discovery.passes
    assert np.array_equal(back.circuit.scores, run.circuit.scores)
    lines = [json.loads(line) for line in (tmp_path / "run" / "trace.jsonl").read_text().splitlines()]
    assert [line["node"] for line in lines] == [one.edge for one in run.trace]
    assert set(lines[0]) == {"node", "before", "after", "kept"}
    assert run.metric == tiny.near(Experiment(MODEL, TASK, ports=False).value(run.circuit))


@pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if method.finds("node") and name != "acdc"]
)
def test_every_method_that_scores_nodes_gives_so_many(method, tmp_path):
    options = {"steps": 4} if method == "edge-pruning" else {}
    run = discover(MODEL, TASK, level="node", method=method, edges=5, options=options)
    assert run.circuit.whole_nodes
    assert 1 <= run.circuit.size <= 5
    assert run.circuit.rows[0]
    run.save(tmp_path / "run")
    kept = load_scores(tmp_path / "run" / "scores.safetensors")
    assert kept.whole_nodes
    assert np.array_equal(node_scores(kept), node_scores(run.circuit))
    assert load_run(tmp_path / "run").scores == run.circuit


def test_sizes_count_nodes():
    assert discover(MODEL, TASK, level="node", edges=4).circuit.size <= 4
    assert discover(MODEL, TASK, level="node", method="exact", share=0.4).circuit.size == 4
    tried = discover(MODEL, TASK, level="node", edges=4).record["result"]["tried"]
    assert all(set(one) == {"threshold", "n_nodes"} for one in tried)


@pytest.mark.parametrize("name", ["gemma2", "falcon"])
def test_families_with_coupled_or_shared_heads_are_searched_by_nodes_too(name):
    model = family(name)
    runs = [discover(model, TASK, level="node", threshold=0.02, engine=engine) for engine in ("incremental", "plain")]
    assert runs[0].circuit == runs[1].circuit
    assert runs[0].record["result"]["metric_in_search"] == tiny.near(runs[0].metric)


def test_a_search_by_nodes_that_was_stopped_goes_on(tmp_path):
    whole = discover(MODEL, TASK, level="node", threshold=0.003)

    def stop(progress):
        if progress.tests == 5:
            raise KeyboardInterrupt

    with pytest.raises(ew.RunInterrupted) as stopped:
        discover(MODEL, TASK, level="node", threshold=0.003, progress=stop, out=tmp_path / "run")
    assert stopped.value.run.record["stopped"]["of"] == 11
    again = ew.resume(tmp_path / "run", model=MODEL, task=TASK)
    assert again.circuit == whole.circuit
    assert again.trace == whole.trace
    assert read_trace(tmp_path / "run", whole.circuit.graph) == whole.trace


def test_a_shortlist_of_nodes_is_a_number_or_a_circuit_of_nodes(tmp_path):
    run = discover(MODEL, TASK, level="node", within=6, threshold=0.01)
    assert run.record["shortlist"]["n_nodes"] == 6
    assert run.discovery.tests == 6
    given = of_node_names(run.circuit.graph, ["input", "m0", "a1.h1"])
    assert {one.edge for one in discover(MODEL, TASK, level="node", within=given, threshold=0.01).trace} == {
        "input",
        "m0",
        "a1.h1",
    }
    edges = discover(MODEL, TASK, threshold=0.001)
    with pytest.raises(EdgewiseError, match=r"chooses among whole nodes, and the shortlist .* is a circuit of"):
        discover(MODEL, TASK, level="node", within=edges, threshold=0.01)
    inside = discover(MODEL, TASK, within=given, threshold=0.0)  # first nodes, then edges among them
    assert {name.split("->")[0] for name in inside.circuit.names() if "<" not in name.split("->")[0]} <= {
        "input",
        "m0",
        "a1.h1",
    }
    assert inside.discovery.metric_start == tiny.near(Experiment(MODEL, TASK, ports=False).value(given))


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (dict(level="layer"), r"unknown level 'layer' \(known: edge, node, neuron, feature\)"),
        (dict(level=3), "--level should be a name, not 3"),
        (dict(level="node", method="atp"), "scores queries, keys, values and MLPs, not whole nodes .* these can: acdc"),
        (dict(level="node", method="information-flow"), "scores edges, not whole nodes"),
        (dict(level="node", method="exact", edges=3, select="greedy"), "nodes need no such choice"),
        (dict(level="node", method="edge-pruning", edges=1), "cannot prune to 1 nodes"),
        (dict(level="node", edges=0), "--edges should be at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(choice, why):
    with pytest.raises(EdgewiseError, match=why):
        discover(MODEL, TASK, **{"edges": None, **choice})


def test_a_plan_says_how_many_nodes_are_tested():
    plan = plan_discovery(MODEL, TASK, level="node")
    assert isinstance(plan, NodePlan)
    assert plan.tests == 11
    assert plan.seconds > 0
    within = plan_discovery(MODEL, TASK, level="node", within=5)
    assert within.tests == 5


def test_pictures_and_pages_show_nodes_not_all_their_edges(tmp_path):
    for name, choice in {
        "search": dict(threshold=0.003),
        "passes": dict(threshold=0.003, passes=2),
        "scores": dict(method="exact", edges=5),
        "short": dict(threshold=0.003, within=7),
    }.items():
        run = discover(MODEL, TASK, level="node", **choice)
        folder = run.save(tmp_path / name)
        _, circuit = read_run(folder)
        picture = circuit.draw()
        for node in node_names(circuit):
            assert f">{node}<" in picture or f">{node}  " in picture
        assert f"{circuit.size} nodes, each with all that it writes" in picture
        assert "edges into" not in picture
        assert "strongest edges" in circuit.draw(edges=2)
        (source,) = read_sources([folder])
        data = page_data([source], [measure(source, MODEL, TASK)], "0")
        shown = data["runs"][0]
        ids = [node["id"] for node in data["nodes"]]
        inside = {ids[data["edges"]["from"][at]] for at in shown["in"]}
        assert inside == set(node_names(circuit))
        assert {ids[to] for to in data["edges"]["to"]} == {"logits"}
        assert shown["sent"]
        assert (shown["result"]["edges"], shown["result"]["of"], data["graph"]["edges"]) == (circuit.size, 11, 11)
        assert any("circuit of whole nodes" in note for note in shown["notes"])
        assert shown["slider"]["present"][-1] >= circuit.size
        if "method" not in choice:
            assert shown["slider"]["present"][-1] == circuit.size
            assert shown["slider"]["present"][0] == (7 if "within" in choice else 11)
            assert len(shown["tested"]["edge"]) == len(run.trace)
        else:
            assert [size for size, *_ in shown["sizes"]] == sorted(size for size, *_ in shown["sizes"])
        values = shown["values"]["metrics"]["kl_div"]["circuit"]
        assert np.mean(values) == pytest.approx(run.metric, rel=1e-3, abs=1e-4)


def test_a_request_for_nodes_has_no_port_edges():
    asked = SearchRequest(level="node", threshold=0.1)
    asked.check()
    assert asked.ports
    assert not asked.with_ports
    assert not asked.settled(TASK, MODEL.graph()).ports
