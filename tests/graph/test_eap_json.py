"""Circuit files: EAP-IG's form is read and written as EAP-IG does, nothing is lost, and bad files are told so."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import circuits, scored

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, load_circuit, save_circuit
from edgewise.graph.eap_json import from_dict, to_dict

EAP_IG_FILE = Path(__file__).resolve().parents[3] / "shared" / "interop" / "ioi-eap-ig.json"

# --- a file that another tool wrote -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eap_ig_text() -> str:
    if not EAP_IG_FILE.exists():
        pytest.skip(tiny.NO_SHARED)
    return EAP_IG_FILE.read_text()


def test_eap_igs_own_file_reads_to_its_scores_and_edges(eap_ig_text: str) -> None:
    theirs = json.loads(eap_ig_text)
    circuit = load_circuit(EAP_IG_FILE)
    assert circuit.graph == Graph(12, 12, d_model=768)
    places = {name: circuit.graph.locate(name) for name in theirs["edges"]}
    assert len(places) == circuit.graph.n_edges == 32_491
    assert circuit.scores is not None
    assert {name: circuit.scores[places[name]] for name in places} == {
        name: edge["score"] for name, edge in theirs["edges"].items()
    }
    present = [name for name, edge in theirs["edges"].items() if edge["in_graph"]]
    assert circuit.names() == present
    assert 100 < len(present) < 32_491
    assert len(set(circuit.scores[circuit.graph.edges])) > 10_000
    assert not circuit.scores[~circuit.graph.edges].any()


def test_eap_igs_own_file_is_written_back_byte_for_byte(eap_ig_text: str, tmp_path: Path) -> None:
    save_circuit(load_circuit(EAP_IG_FILE), tmp_path / "ours.json")
    assert (tmp_path / "ours.json").read_bytes() == eap_ig_text.encode()


# --- round trips ------------------------------------------------------------------------------------------------------


def through_json(circuit: Circuit) -> Circuit:
    return from_dict(json.loads(json.dumps(to_dict(circuit))))


@given(circuits())
@settings(deadline=None, max_examples=100)
def test_a_circuit_comes_back_from_its_file(circuit: Circuit) -> None:
    back = through_json(circuit)
    assert back == circuit
    assert back.graph == circuit.graph  # the width, which equality leaves out, too


@given(circuits(), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_scores_come_back_to_the_last_bit(circuit: Circuit, seed: int) -> None:
    circuit = scored(circuit, seed)
    back = through_json(circuit)
    assert back == circuit
    assert circuit.scores is not None
    assert np.abs(circuit.scores).sum() > 0
    assert np.array_equal(back.scores, circuit.scores)
    if circuit.graph.ports:
        assert np.array_equal(back.port_scores, circuit.port_scores)


@pytest.mark.parametrize(
    "graph",
    [
        Graph(2, 2, split_embedding=True),
        Graph(2, 2, mlps=False),
        Graph(2, 2, mlps=False, split_embedding=True, parallel=True),
        Graph(2, 4, n_kv_heads=2),
        Graph(2, 2, ports=True),
    ],
    ids=Graph.describe,
)
def test_a_graph_that_eap_ig_cannot_describe_keeps_its_shape_under_a_key_of_our_own(graph: Graph) -> None:
    value = to_dict(Circuit.full(graph))
    assert list(value) == ["cfg", "nodes", "edges", "edgewise"]
    assert from_dict(value).graph == graph


def test_edges_behind_absent_ports_are_not_lost() -> None:
    circuit = Circuit.from_names(Graph(1, 2, ports=True), ["input->a0.h0<q>", "a0.h0->logits"])
    assert through_json(circuit).names() == ["input->a0.h0<q>", "a0.h0->logits"]


def test_a_circuit_without_scores_comes_back_without_where_the_file_can_say_so() -> None:
    assert through_json(Circuit.full(Graph(1, 1, ports=True))).scores is None


def test_files_on_disk_round_trip_too(tmp_path: Path) -> None:
    circuit = scored(Circuit.from_names(Graph(1, 2, ports=True), ["input->m0", "m0->logits"]), seed=5)
    save_circuit(circuit, str(tmp_path / "circuit.json"))
    back = load_circuit(str(tmp_path / "circuit.json"))
    assert back == circuit
    assert np.array_equal(back.scores, circuit.scores)


# --- what the file says -----------------------------------------------------------------------------------------------


def present_edges(value: dict[str, Any]) -> list[str]:
    return [name for name, edge in value["edges"].items() if edge["in_graph"]]


def test_a_plain_graphs_file_has_eap_igs_keys_and_nothing_else() -> None:
    graph = Graph(1, 2, parallel=True, d_model=16)
    value = to_dict(Circuit.from_names(graph, ["input->a0.h1<q>", "a0.h1->logits"]))
    assert list(value) == ["cfg", "nodes", "edges"]
    assert value["cfg"] == {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": True, "d_model": 16}
    assert value["nodes"] == {
        "input": {"in_graph": True},
        "a0.h0": {"in_graph": False},
        "a0.h1": {"in_graph": True},
        "m0": {"in_graph": False},
        "logits": {"in_graph": True},
    }
    assert list(value["edges"]) == graph.names()
    assert value["edges"]["input->a0.h1<q>"] == {"score": 1.0, "in_graph": True}
    assert value["edges"]["input->a0.h1<k>"] == {"score": 0.0, "in_graph": False}
    assert present_edges(value) == ["input->a0.h1<q>", "a0.h1->logits"]


def test_an_edge_into_a_shared_key_stands_once_per_query_head() -> None:
    grouped, ungrouped = Graph(2, 4, n_kv_heads=2), Graph(2, 4)
    circuit = Circuit.from_names(grouped, ["input->a0.g1<k>", "a0.h0->a1.g0<v>", "m0->a1.h3<q>"])
    scores = np.zeros(circuit.edges.shape)
    scores[grouped.locate("input->a0.g1<k>")] = -0.25
    value = to_dict(circuit.with_scores(scores))
    assert list(value["edges"]) == ungrouped.names()
    assert present_edges(value) == [
        *("input->a0.h2<k>", "input->a0.h3<k>"),
        *("a0.h0->a1.h0<v>", "a0.h0->a1.h1<v>"),
        "m0->a1.h3<q>",
    ]
    assert {name for name, edge in value["edges"].items() if edge["score"] == -0.25} == {
        "input->a0.h2<k>",
        "input->a0.h3<k>",
    }


def test_other_tools_read_the_edges_of_a_grouped_graphs_file() -> None:
    # They know nothing of our key: what is left is a circuit of the graph with a key and value input per query head.
    value = to_dict(Circuit.full(Graph(2, 4, n_kv_heads=2, ports=True)))
    del value["edgewise"]
    assert from_dict(value) == Circuit.full(Graph(2, 4))


def test_an_edge_behind_an_absent_port_is_not_in_the_graph() -> None:
    graph = Graph(1, 4, n_kv_heads=2, ports=True)
    names = ["input->a0.h0<q>", "input->a0.g0<k>", "input->a0.g1<k>", "input->logits"]
    value = to_dict(Circuit.from_names(graph, [*names, "a0.g1<k>->a0.g1"]))
    assert list(value["edges"]) == Graph(1, 4).names()
    assert present_edges(value) == ["input->a0.h2<k>", "input->a0.h3<k>", "input->logits"]
    assert value["nodes"]["a0.h0"] == {"in_graph": False}
    assert value["nodes"]["a0.h2"] == {"in_graph": True}
    assert value["edgewise"]["ports"]["a0.g1<k>->a0.g1"] == {"score": 1.0, "in_graph": True}
    assert value["edgewise"]["ports"]["a0.h0<q>->a0.h0"] == {"score": 0.0, "in_graph": False}
    assert value["edgewise"]["behind_absent_ports"] == ["input->a0.h0<q>", "input->a0.g0<k>"]


@given(circuits())
@settings(deadline=None)
def test_the_edges_section_is_always_that_of_a_key_and_value_per_query_head(circuit: Circuit) -> None:
    graph = circuit.graph
    shape = {"mlps": graph.mlps, "parallel": graph.parallel, "split_embedding": graph.split_embedding}
    assert list(to_dict(circuit)["edges"]) == Graph(graph.n_layers, graph.n_heads, **shape).names()


# --- bad files --------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]
ABSENT = {"score": 0, "in_graph": False}


def plain_file() -> dict[str, Any]:
    return to_dict(Circuit.full(Graph(1, 2)))


def ports_file() -> dict[str, Any]:
    return to_dict(Circuit.from_names(Graph(1, 2, n_kv_heads=1, ports=True), ["input->m0", "m0->logits"]))


def setting(*path: str, to: Any) -> Change:
    def change(value: dict[str, Any]) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    change.__name__ = f"{path[-1]} is {to}"  # what pytest calls the case
    return change


def without(*path: str) -> Change:
    def change(value: dict[str, Any]) -> None:
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    change.__name__ = f"without {path[-1]}"
    return change


def refusal(value: dict[str, Any], change: Change) -> str:
    assert from_dict(copy.deepcopy(value)).n_edges > 0  # it is the change that makes it bad
    change(value)
    with pytest.raises(EdgewiseError) as caught:
        from_dict(value, "the circuit 'mine.json'")
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        (without("cfg"), "no 'cfg' object"),
        (without("nodes"), "no 'nodes' object"),
        (without("edges"), "no 'edges' object"),
        (setting("cfg", to=[1, 2]), "no 'cfg' object"),
        (setting("nodes", to=["input"]), "no 'nodes' object"),
        (setting("edges", to=["input->m0"]), "no 'edges' object"),
        (without("cfg", "n_layers"), "'cfg' has no 'n_layers'"),
        (without("cfg", "n_heads"), "'cfg' has no 'n_heads'"),
        (without("cfg", "parallel_attn_mlp"), "'cfg' has no 'parallel_attn_mlp'"),
        (setting("cfg", "n_layers", to="one"), "whole number"),
        (setting("cfg", "n_heads", to=None), "whole number"),
        (setting("cfg", "n_heads", to=2.5), "whole number"),
        (setting("cfg", "d_model", to=[768]), "whole number"),
        (setting("cfg", "n_layers", to=0), "at least one layer"),
        (setting("cfg", "parallel_attn_mlp", to="no"), "parallel_attn_mlp"),
        (without("edges", "input->m0"), "the edge 'input->m0' of 1 layer of 2 heads is missing"),
        (setting("cfg", "n_heads", to=3), "the edge 'input->a0.h2<q>' of 1 layer of 3 heads is missing"),
        (setting("edges", "m0->a0.h0<q>", to=ABSENT), "'m0->a0.h0<q>' is not an edge"),
        (setting("edges", "in->out", to=ABSENT), "'in->out' is not an edge"),
        (setting("cfg", "parallel_attn_mlp", to=True), "'a0.h0->m0' is not an edge of .*parallel"),
        (setting("edges", "input->m0", to=0.5), "'input->m0' should have a 'score' .* and an 'in_graph' .*, not 0.5"),
        (without("edges", "input->m0", "score"), "'input->m0' should have a 'score'"),
        (without("edges", "input->m0", "in_graph"), "'input->m0' should have a 'score'"),
        (setting("edges", "input->m0", "score", to="high"), "'input->m0' should have a 'score'"),
        (setting("edges", "input->m0", "score", to=None), "'input->m0' should have a 'score'"),
        (setting("edges", "input->m0", "in_graph", to="false"), "'input->m0' should have .*'in_graph'"),
        (setting("edges", "input->m0", "in_graph", to=None), "'input->m0' should have .*'in_graph'"),
        (
            setting("edges", "input->m0", "score", to=float("nan")),
            "the score of 'input->m0' is nan, which is no",
        ),
        (setting("edges", "input->m0", "score", to=float("inf")), "the score of 'input->m0' is inf"),
        pytest.param(
            setting("edges", "x" * 100_000, to=ABSENT),
            r"'x{200}'\.\.\. \(100,000 characters\) is not an edge",
            id="a long name",
        ),
        (setting("cfg", "n_layers", to=10**5), "more senders and inputs than fit into memory"),
        (setting("cfg", "n_layers", to=4000), "of the 168,006,001 edges of 4000 layers of 2 heads, 13 are listed"),
        (setting("cfg", "n_heads", to=10**30), "more senders and inputs than fit into memory"),
        (setting("cfg", "n_heads", to=-1), "at least one layer and one head"),
        (setting("cfg", "d_model", to=-8), "the width of a residual stream is 0 or more, not -8"),
        (setting("nodes", "m0", "in_graph", to="no"), "node 'm0' should have an 'in_graph'"),
        (setting("nodes", "m0", to=3), "node 'm0' should have an 'in_graph' .*, not 3"),
        (
            setting("nodes", "m0", "neurons", to=[True, False]),
            "and 'cfg' does not say how many",
        ),
        (setting("nodes", "m0", "score", to=0.5), "node 'input' has no 'score', and others have one"),
    ],
)
def test_a_broken_eap_ig_file_is_refused_with_what_is_wrong(change: Change, trouble: str) -> None:
    assert re.search(trouble, refusal(plain_file(), change))


def test_an_edge_of_a_node_that_is_left_out_is_left_out() -> None:
    value = plain_file()
    value["nodes"]["a0.h1"]["in_graph"] = False
    names = Graph(1, 2).names()
    assert from_dict(value).names() == [name for name in names if "a0.h1" not in name]


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        (setting("edgewise", to=3), "no 'edgewise' object"),
        (setting("edgewise", "version", to=2), "another version of edgewise .form 2, here 1"),
        (without("edgewise", "version"), "another version of edgewise"),
        (without("edgewise", "graph"), "no 'graph' object"),
        (setting("edgewise", "graph", to=[]), "no 'graph' object"),
        (setting("edgewise", "graph", "n_experts", to=8), "n_experts', which describes no graph"),
        (
            setting("edgewise", "graph", "n_kv_heads", to="one"),
            "'n_kv_heads' in 'graph' should be a whole number, not 'one'",
        ),
        (setting("edgewise", "graph", "n_heads", to=2.0), "should be a whole number, not 2.0"),
        (setting("edgewise", "graph", "mlps", to="yes"), "should be true or false, not 'yes'"),
        (setting("edgewise", "graph", "n_kv_heads", to=3), "cannot share 3 key/value heads"),
        (setting("edgewise", "graph", "n_layers", to=10**6), "'n_layers' is 1 in 'cfg' and 1000000 in 'graph'"),
        (setting("cfg", "n_layers", to=0), "'n_layers' is 0 in 'cfg' and 1 in 'graph'"),
        (
            setting("cfg", "n_heads", to=10**30),
            "'n_heads' is 10{30} in 'cfg' and 2 in 'graph'",
        ),
        (setting("cfg", "parallel_attn_mlp", to=True), "'parallel_attn_mlp' is True in 'cfg' and False in 'graph'"),
        (
            setting("edgewise", "ports", "a0.h0<q>->a0.h0", "score", to=float("nan")),
            "'a0.h0<q>->a0.h0' is nan",
        ),
        (without("edgewise", "ports"), "no 'ports' object"),
        (without("edgewise", "ports", "a0.h0<q>->a0.h0"), "'a0.h0<q>->a0.h0'.* is missing"),
        (setting("edgewise", "ports", "input->m0", to=ABSENT), "'input->m0' is listed as a port"),
        (setting("edgewise", "ports", "a0.h9<q>->a0.h9", to=ABSENT), "no input 'a0.h9<q>'"),
        (setting("edgewise", "ports", "a0.h0<q>->a0.h0", to=True), "'a0.h0<q>->a0.h0' should have a 'score'"),
        (setting("edgewise", "behind_absent_ports", to=["input->a9.h0<q>"]), "no input 'a9.h0<q>'"),
        (setting("edgewise", "behind_absent_ports", to=["a0.h0<q>->a0.h0"]), "'a0.h0<q>->a0.h0'"),
        (setting("edgewise", "behind_absent_ports", to=[7]), "behind_absent_ports"),
        (setting("edgewise", "behind_absent_ports", to=7), "behind_absent_ports"),
    ],
)
def test_a_broken_section_of_our_own_is_refused_with_what_is_wrong(change: Change, trouble: str) -> None:
    assert re.search(trouble, refusal(ports_file(), change))


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("", "not valid JSON: Expecting value"),
        ('{"cfg":\n{"n_layers" 1}}', "not valid JSON: line 2"),
        ("[]", "should hold a JSON object, not a list"),
        ("{}", "no 'cfg' object"),
    ],
)
def test_what_is_no_circuit_file_is_refused_by_its_name(tmp_path: Path, text: str, trouble: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(EdgewiseError, match=rf"mine\.json'.*{trouble}"):
        load_circuit(path)


def test_a_circuit_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"the circuit file '.*absent\.json': there is no such file"):
        load_circuit(tmp_path / "absent.json")
