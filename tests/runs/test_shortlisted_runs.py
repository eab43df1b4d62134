"""`within`, `budget` and `passes` of a run: what they take, what they refuse, and what the record says of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny

import edgewise as ew
from edgewise.discovery import acdc, at_most, edge_attribution_ig
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.patching import Experiment
from edgewise.runs import SearchRequest
from edgewise.runs.mib_export import pt_bytes
from edgewise.runs.scores import save_scores
from edgewise.runs.shortlist import shortlist_of, unpacked_shortlist

pytestmark = pytest.mark.filterwarnings("ignore:the (circuit|model)")


@pytest.fixture(scope="module")
def searched():
    model = ew.load_model("tracr-reverse")
    return model, ew.load_task("tracr-reverse", model)


@pytest.fixture(scope="module")
def tinily():
    settings = {"task": "random", "examples": 3}
    return tiny.llama(layers=2), replace(tiny.task(), settings=settings)


def test_a_number_stands_for_the_edges_of_the_largest_scores(tinily):
    experiment = Experiment(*tinily)
    scored = edge_attribution_ig(experiment).circuit
    found = shortlist_of(40, experiment)
    assert found == at_most(scored, 40, absolute=True).circuit
    assert 20 < found.n_edges <= 40
    assert found.ports.any(), "port edges come with the inputs that read something, and count"
    run = ew.discover(*tinily, threshold=0.01, within=40)
    assert run.circuit <= found
    assert run.trace == acdc(experiment, 0.01, start=found).trace
    kept = run.record["shortlist"]
    assert kept["n_edges"] == found.n_edges
    assert kept["metric"] == pytest.approx(experiment.value(found), abs=1e-5)
    assert run.record["settings"]["within"] == 40
    again = unpacked_shortlist(kept, experiment.graph)  # as a search that goes on has it, scores and all
    assert again == found
    assert (again.scores == np.where(found.edges, scored.scores.astype(np.float32), 0)).all()
    for broken in ("?", "", kept["edges"]):
        with pytest.raises(EdgewiseError, match=r"shortlist\.scores"):
            unpacked_shortlist({**kept, "scores": broken}, experiment.graph)
    assert run.record["result"]["metric_full"] == pytest.approx(0, abs=1e-6)


def test_a_circuit_a_run_and_their_files_are_shortlists_too(tinily, tmp_path):
    model, task = tinily
    first = ew.discover(model, task, threshold=0.002, ports=True)
    folder = first.save(tmp_path / "first")
    wanted = ew.discover(model, task, threshold=0.05, within=first.circuit)
    save_scores(tmp_path / "scores.safetensors", first.circuit)
    for within in (first, ew.load_run(folder), folder, str(folder / "circuit.json"), tmp_path / "scores.safetensors"):
        again = ew.discover(model, task, threshold=0.05, within=within)
        assert again.trace == wanted.trace
        assert again.circuit == wanted.circuit <= first.circuit
        json.dumps(again.record)
    assert again.record["settings"]["within"] == str(tmp_path / "scores.safetensors")
    request = SearchRequest.from_dict(again.record["settings"])
    assert ew.discover(model, task, request=request).circuit == wanted.circuit
    with pytest.raises(EdgewiseError, match="within a circuit that it does not name"):
        SearchRequest.from_dict(wanted.record["settings"])


def test_port_edges_follow_the_graph_that_is_searched(tinily):
    experiment = Experiment(*tinily)
    without = replace(experiment.graph, ports=False)
    names = [name for name in Circuit.full(without).names() if "->logits" in name or "a1.h0" in name or "a1.g0" in name]
    found = shortlist_of(Circuit.from_names(without, names), experiment)
    reading = found.edges.any(axis=0)
    assert (found.ports == (reading & experiment.graph.port_edges)).all()
    plain = Experiment(*tinily, ports=False)
    back = shortlist_of(found, plain)
    assert (back.edges == found.edges).all()
    assert not back.ports.any()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"within": 0}, "a number of edges from 1"),
        ({"within": True}, "a number of edges from 1"),
        ({"within": ""}, "a number of edges from 1"),
        ({"within": 2.5}, "a number of edges from 1"),
        ({"within": "nowhere.json"}, "there is no such file"),
        ({"within": 10, "method": "eap-ig"}, "are ACDC's"),
        ({"budget": 1.0, "method": "eap-ig"}, "are ACDC's"),
        ({"passes": 2, "method": "eap-ig"}, "are ACDC's"),
        ({"budget": float("inf")}, "should be a finite number"),
        ({"budget": "low"}, "--budget should be a number"),
        ({"passes": 0}, "--passes should be from 1 to 100"),
        ({"passes": 1.5}, "--passes should be a whole number"),
        ({"budget": -1.0}, "before any edge is tested"),
    ],
)
def test_what_makes_no_sense_is_refused(searched, given, words, tmp_path):
    with pytest.raises(EdgewiseError, match=words):
        ew.discover(*searched, threshold=0.01, out=tmp_path / "run", **given)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_shortlist_and_one_of_another_graph_are_refused(searched, tinily):
    model, task = searched
    with pytest.raises(EdgewiseError, match=r"the shortlist .* is empty"):
        ew.discover(model, task, threshold=0.01, within=Circuit.empty(Experiment(model, task).graph))
    with pytest.raises(EdgewiseError, match="over another graph"):
        ew.discover(model, task, threshold=0.01, within=Circuit.full(tinily[0].graph()))


def test_a_wanted_size_is_searched_inside_a_shortlist_with_a_budget_and_passes(tinily):
    run = ew.discover(*tinily, edges=12, within=60, budget=2.0, passes=2)
    assert run.circuit.n_edges <= 12
    assert run.circuit <= shortlist_of(60, Experiment(*tinily))
    assert run.discovery.metric < 2.0
    passes = run.record["result"]["passes"]
    assert len(passes) == 2
    assert sum(one["tests"] for one in passes) == len(run.trace)
    assert passes[-1]["n_edges"] == run.circuit.n_edges


def test_a_request_reads_a_number_from_the_shell():
    assert SearchRequest(within="2000").within == 2000
    assert SearchRequest(within="runs/2000").within == "runs/2000"


def test_other_tools_files_are_shortlists_too_where_heads_share_keys(tmp_path):
    model, task = tiny.llama(), tiny.task()
    first = ew.discover(model, task, method="edge-attribution-ig", edges=40)
    graph = first.circuit.graph
    assert graph.n_kv_heads < graph.n_heads
    (tmp_path / "circuit.pt").write_bytes(pt_bytes(without_ports(ungrouped(first.circuit))))
    wanted = ew.discover(model, task, threshold=0.001, within=first.circuit)
    assert 0 < wanted.circuit.n_edges < first.circuit.n_edges
    assert ew.discover(model, task, threshold=0.001, within=tmp_path / "circuit.pt").circuit == wanted.circuit
