"""Circuits: sets of edges that obey the laws of sets, know their names and counts, and drop what is not connected."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import circuits, graphs, scored, triples

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph

CANONICAL = Path(__file__).resolve().parents[3] / "shared" / "paper" / "canonical_edges.json"
GPT2_SMALL = Graph(12, 12)
PAPERS_GRAPHS = {
    "ioi": Graph(12, 12, ports=True),
    "greaterthan": Graph(12, 12, ports=True),
    "docstring": Graph(4, 8, mlps=False, ports=True),
    "tracr-proportion": Graph(2, 1, split_embedding=True, ports=True),
    "tracr-reverse": Graph(4, 1, split_embedding=True, ports=True),
}

SMALL = Graph(1, 2, ports=True)
NAMES = ["input->a0.h1<v>", "a0.h1->m0", "m0->logits", "a0.h1<v>->a0.h1"]


# --- names and counts -------------------------------------------------------------------------------------------------


def test_a_circuit_is_made_of_names_and_gives_them_back_in_the_graphs_order() -> None:
    circuit = Circuit.from_names(SMALL, reversed(NAMES))
    assert circuit.names() == NAMES
    assert circuit.port_names() == ["a0.h1<v>->a0.h1"]
    assert circuit.n_edges == len(circuit) == 4  # the port edge counts
    assert circuit.edges.sum() == 3


@given(circuits())
@settings(deadline=None)
def test_a_circuit_is_its_names(circuit: Circuit) -> None:
    names = circuit.names()
    assert Circuit.from_names(circuit.graph, names) == circuit
    assert len(set(names)) == len(names) == circuit.n_edges == circuit.edges.sum() + circuit.ports.sum()
    assert set(names) <= set(circuit.graph.names())
    assert all((name in circuit) == (name in names) for name in circuit.graph.names())


@given(graphs())
@settings(deadline=None)
def test_full_and_empty_are_everything_and_nothing(graph: Graph) -> None:
    full, empty = Circuit.full(graph), Circuit.empty(graph)
    assert full.names() == graph.names()
    assert full.n_edges == graph.n_edges > 0
    assert (bool(full), bool(empty), empty.n_edges, empty.names()) == (True, False, 0, [])
    assert ~empty == full


def test_asking_for_an_edge_that_the_graph_lacks_is_an_error_and_not_false() -> None:
    with pytest.raises(EdgewiseError, match="no input 'm1'"):
        _ = "input->m1" in Circuit.full(SMALL)
    with pytest.raises(EdgewiseError, match="'m0->m0'"):
        Circuit.from_names(SMALL, ["input->m0", "m0->m0"])


def test_edges_into_an_input_come_early_senders_first() -> None:
    circuit = Circuit.from_names(SMALL, ["a0.h1->m0", "input->m0", "input->logits"])
    assert [edge.name for edge in circuit.edges_into(SMALL.input("m0"))] == ["input->m0", "a0.h1->m0"]
    assert circuit.edges_into(SMALL.input("a0.h0<q>")) == []


def test_nodes_are_those_that_touch_a_present_edge() -> None:
    graph = Graph(2, 2, ports=True)
    circuit = Circuit.from_names(graph, ["a0.h1->a1.h0<k>", "m1->logits", "a1.h1<q>->a1.h1"])
    assert circuit.nodes() == ["a0.h1", "a1.h0", "a1.h1", "m1", "logits"]
    assert Circuit.full(graph).nodes() == "input a0.h0 a0.h1 m0 a1.h0 a1.h1 m1 logits".split()
    assert Circuit.empty(graph).nodes() == []


def test_a_shared_key_alone_says_of_no_query_head_that_it_is_there() -> None:
    graph = Graph(1, 2, n_kv_heads=1)
    assert Circuit.from_names(graph, ["input->a0.g0<k>"]).nodes() == ["input"]
    assert Circuit.from_names(graph, ["input->a0.g0<k>", "input->a0.h1<q>"]).nodes() == ["input", "a0.h1"]


def test_a_circuit_prints_its_size() -> None:
    assert repr(Circuit.full(GPT2_SMALL)) == "Circuit(32,491 of 32,491 edges; 12 layers of 12 heads)"
    assert repr(Circuit.from_names(SMALL, NAMES)) == "Circuit(4 of 19 edges; 1 layer of 2 heads, with port edges)"


# --- making one by hand -----------------------------------------------------------------------------------------------


def test_matrices_of_another_shape_are_refused() -> None:
    graph = Graph(1, 1)
    with pytest.raises(EdgewiseError, match=r"edges should have shape \(3, 5\) .* not \(5, 3\)"):
        Circuit(graph, np.zeros((5, 3), dtype=bool), np.zeros(5, dtype=bool))
    with pytest.raises(EdgewiseError, match=r"ports should have shape \(5,\)"):
        Circuit(graph, graph.edges, np.zeros(3, dtype=bool))
    with pytest.raises(EdgewiseError, match=r"scores should have shape \(3, 5\)"):
        Circuit.full(graph).with_scores(np.zeros(15))


def test_edges_that_the_graph_lacks_are_refused() -> None:
    graph = Graph(1, 1)
    with pytest.raises(EdgewiseError, match="edges that its graph does not have"):
        Circuit(graph, ~graph.edges, graph.port_edges)
    with pytest.raises(EdgewiseError, match="edges that its graph does not have"):
        Circuit(graph, graph.edges, np.ones(5, dtype=bool))


def test_a_circuit_does_not_change_with_the_arrays_it_was_made_of() -> None:
    graph = Graph(1, 1)
    edges = graph.edges.copy()
    circuit = Circuit(graph, edges, graph.port_edges)
    edges[:] = False
    assert circuit == Circuit.full(graph)
    with pytest.raises(ValueError, match="read-only"):
        circuit.edges[0, 0] = False


# --- sets -------------------------------------------------------------------------------------------------------------


def as_set(circuit: Circuit) -> set[str]:
    return set(circuit.names())


@given(triples())
@settings(deadline=None)
def test_operators_do_to_circuits_what_they_do_to_sets_of_names(triple: tuple[Circuit, Circuit, Circuit]) -> None:
    a, b, _ = triple
    everything = set(a.graph.names())
    assert as_set(a | b) == as_set(a) | as_set(b)
    assert as_set(a & b) == as_set(a) & as_set(b)
    assert as_set(a - b) == as_set(a) - as_set(b)
    assert as_set(a ^ b) == as_set(a) ^ as_set(b)
    assert as_set(~a) == everything - as_set(a)
    assert (a <= b) == (as_set(a) <= as_set(b))
    assert (a >= b) == (as_set(a) >= as_set(b))


@given(triples())
@settings(deadline=None)
def test_the_laws_of_set_algebra_hold(triple: tuple[Circuit, Circuit, Circuit]) -> None:
    a, b, c = triple
    empty, full = Circuit.empty(a.graph), Circuit.full(a.graph)
    assert a | b == b | a
    assert a & b == b & a
    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)
    assert a & (b | c) == (a & b) | (a & c)
    assert a | (b & c) == (a | b) & (a | c)
    assert a | (a & b) == a == a & (a | b)
    assert ~(a | b) == ~a & ~b
    assert ~~a == a
    assert a | empty == a == a & full
    assert a ^ b == (a | b) - (a & b)
    assert a - b == a & ~b
    assert a & b <= a <= a | b


@given(triples())
@settings(deadline=None)
def test_circuits_are_equal_when_their_edges_are_and_then_hash_alike(triple: tuple[Circuit, Circuit, Circuit]) -> None:
    a, b, _ = triple
    assert (a == b) == (a.names() == b.names())
    copy = Circuit.from_names(a.graph, a.names())
    assert copy == a
    assert hash(copy) == hash(a)
    assert len({a, copy, scored(a, seed=1)}) == 1


def test_the_graphs_shape_counts_for_equality_and_its_width_does_not() -> None:
    narrow, wide = Graph(1, 2, d_model=8), Graph(1, 2, d_model=64)
    assert Circuit.full(narrow) == Circuit.full(wide)
    assert hash(Circuit.full(narrow)) == hash(Circuit.full(wide))
    assert (Circuit.full(narrow) & Circuit.full(wide)).n_edges == 13
    assert Circuit.empty(narrow) != Circuit.empty(Graph(1, 2, ports=True))
    assert Circuit.empty(narrow) != Circuit.empty(Graph(1, 2, parallel=True))
    assert Circuit.empty(narrow) != set()


def test_edges_are_added_and_removed_by_name() -> None:
    circuit = Circuit.empty(SMALL).add(*NAMES)
    assert circuit.names() == NAMES
    assert circuit.remove("m0->logits", "a0.h1<v>->a0.h1").names() == ["input->a0.h1<v>", "a0.h1->m0"]
    assert circuit.remove("input->logits") == circuit  # it was not there


@pytest.mark.parametrize("operator", ["__or__", "__and__", "__sub__", "__xor__", "__le__"])
def test_circuits_of_two_graphs_do_not_mix(operator: str) -> None:
    with pytest.raises(EdgewiseError, match="1 layer of 2 heads, with port edges, where 2 layers of 2 heads is wanted"):
        getattr(Circuit.full(SMALL), operator)(Circuit.full(Graph(2, 2)))


def test_scores_stay_with_the_circuit_that_is_changed() -> None:
    circuit = scored(Circuit.full(SMALL), seed=3)
    assert circuit.scores is not None
    assert np.abs(circuit.scores).sum() > 1
    fewer = circuit.remove("m0->logits")
    assert fewer.n_edges == 18
    assert np.array_equal(fewer.scores, circuit.scores)
    assert np.array_equal(fewer.port_scores, circuit.port_scores)


# --- connected --------------------------------------------------------------------------------------------------------


def steps_of(circuit: Circuit) -> dict[str, list[tuple[str, str]]]:
    """Where one can go from each node or input, as (next place, name of the edge taken or "" where none is needed)."""
    graph = circuit.graph
    present = circuit.names()
    steps: dict[str, list[tuple[str, str]]] = {"logits<": []}
    for name in present:
        source, target = name.split("->")
        if "<" not in source:
            steps.setdefault(source, []).append((f"{target}<", name))  # "m0<" is where m0 reads
    for layer in range(graph.n_layers):
        if graph.mlps:
            steps[f"m{layer}<"] = [(f"m{layer}", "")]
        for head in range(graph.n_heads):
            group = head // (graph.n_heads // graph.n_kv_heads)
            owner = f"a{layer}.h{head}" if graph.n_heads == graph.n_kv_heads else f"a{layer}.g{group}"
            for place in (f"a{layer}.h{head}<q>", f"{owner}<k>", f"{owner}<v>"):
                port = f"{place}->{place.split('<')[0]}"
                if port in present or not graph.ports:
                    steps.setdefault(f"{place}<", []).append((f"a{layer}.h{head}", port if graph.ports else ""))
    return steps


def edges_on_paths(circuit: Circuit) -> set[str]:
    """The edges of every single path from an embedding to the logits, walked one by one."""
    steps = steps_of(circuit)
    found: set[str] = set()

    def walk(place: str, taken: tuple[str, ...]) -> None:
        if place == "logits<":
            found.update(taken)
        for following, name in steps.get(place, ()):
            walk(following, (*taken, name))

    for embedding in ("input", "tok", "pos"):
        walk(embedding, ())
    return found - {""}


@given(circuits(2, 2))
@settings(deadline=None, max_examples=150)
def test_connected_keeps_the_edges_of_every_path_from_embedding_to_logits(circuit: Circuit) -> None:
    connected = circuit.connected()
    assert as_set(connected) == edges_on_paths(circuit)
    assert circuit.n_edges_connected == connected.n_edges
    assert connected <= circuit
    assert connected.connected() == connected


@given(circuits(2, 2), st.integers(0, 9))
@settings(deadline=None)
def test_a_circuit_with_more_edges_is_connected_by_no_fewer(circuit: Circuit, seed: int) -> None:
    chosen = np.random.default_rng(seed).choice(circuit.graph.names(), size=3)
    assert circuit.connected() <= circuit.add(*chosen).connected()


@given(graphs())
@settings(deadline=None)
def test_the_whole_graph_is_connected(graph: Graph) -> None:
    assert Circuit.full(graph).connected() == Circuit.full(graph)


def test_an_absent_port_edge_cuts_the_path() -> None:
    circuit = Circuit.from_names(SMALL, NAMES)
    assert circuit.connected() == circuit
    cut = circuit.remove("a0.h1<v>->a0.h1")
    assert cut.n_edges == 3
    assert cut.connected().names() == []
    assert cut.add("input->m0").connected().names() == ["input->m0", "m0->logits"]


def test_a_shared_value_leads_on_through_any_head_of_its_group() -> None:
    graph = Graph(1, 4, n_kv_heads=2, ports=True)
    names = ["input->a0.g1<v>", "a0.h2->logits", "a0.g1<v>->a0.g1"]
    assert Circuit.from_names(graph, names).connected().names() == names
    other_group = ["input->a0.g1<v>", "a0.h1->logits", "a0.g1<v>->a0.g1"]
    assert Circuit.from_names(graph, other_group).connected().n_edges == 0


# --- the paper's circuits ---------------------------------------------------------------------------------------------


def our_name(sender: str, receiver: str) -> str:
    """An edge in the paper's notation, such as `a0.1 -> a7.3.k_in`, in ours."""

    def ours(name: str) -> str:
        name = {"out": "logits", "embed": "input"}.get(name, name).removesuffix(".in")
        name = re.sub(r"^a(\d+)\.(\d+)", r"a\1.h\2", name)
        return re.sub(r"\.([qkv])_in$", r"<\1>", name)

    if sender.endswith("_in"):  # a0.1.q_in -> a0.1.q, "does the head need its query at all?"
        assert receiver == sender.removesuffix("_in")
        return f"{ours(sender)}->{ours(sender).split('<')[0]}"
    return f"{ours(sender)}->{ours(receiver)}"


def canonical(task: str, graph: Graph) -> Circuit:
    if not CANONICAL.exists():
        pytest.skip(tiny.NO_SHARED)
    edges = json.loads(CANONICAL.read_text())[task]["edges_sender_receiver"]
    names = [our_name(sender, receiver) for sender, receiver in edges if graph.ports or not sender.endswith("_in")]
    return Circuit.from_names(graph, names)


@pytest.mark.parametrize(
    ("task", "with_ports", "without"),
    [
        ("ioi", 1041, 963),
        ("greaterthan", 262, 235),
        ("docstring", 37, 24),
        ("tracr-proportion", 10, 7),
        ("tracr-reverse", 15, 11),
    ],
)
def test_the_papers_circuits_load_with_the_papers_counts(task: str, with_ports: int, without: int) -> None:
    graph = PAPERS_GRAPHS[task]
    circuit = canonical(task, graph)
    assert circuit.n_edges == with_ports
    assert circuit.edges.sum() == without
    shape = {"mlps": graph.mlps, "split_embedding": graph.split_embedding}
    assert canonical(task, Graph(graph.n_layers, graph.n_heads, **shape)).n_edges == without


@pytest.mark.parametrize("task", ["docstring", "tracr-proportion", "tracr-reverse"])
def test_the_papers_small_circuits_hang_together(task: str) -> None:
    circuit = canonical(task, PAPERS_GRAPHS[task])
    assert circuit.connected() == circuit


def test_the_papers_ioi_circuit_has_its_26_heads() -> None:
    circuit = canonical("ioi", PAPERS_GRAPHS["ioi"])
    groups = {
        "name mover": "9.9 10.0 9.6",
        "backup name mover": "10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9",
        "negative name mover": "10.7 11.10",
        "S-inhibition": "7.3 7.9 8.6 8.10",
        "induction": "5.5 5.8 5.9 6.9",
        "duplicate token": "0.1 0.10 3.0",
        "previous token": "2.2 4.11",
    }
    heads = {f"a{name.replace('.', '.h')}" for names in groups.values() for name in names.split()}
    assert len(heads) == 26
    assert {node for node in circuit.nodes() if node.startswith("a")} == heads
