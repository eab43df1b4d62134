"""A circuit in another form of its graph means the same edges."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graph.random_graphs import circuits
from hypothesis import given

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.graph.convert import onto


@given(circuits())
def test_in_its_own_graph_a_circuit_is_itself_without_scores(circuit):
    found = onto(circuit.with_scores(circuit.edges * 2.0), circuit.graph)
    assert found == circuit
    assert found.scores is None


@given(circuits())
def test_there_and_back_is_the_same_where_nothing_is_lost(circuit):
    wide = replace(circuit.graph, n_kv_heads=circuit.graph.n_heads)
    assert onto(onto(circuit, wide), circuit.graph) == circuit
    bare, ported = replace(circuit.graph, ports=False), replace(circuit.graph, ports=True)
    plain = onto(circuit, bare)
    back = onto(plain, ported)
    assert set(plain.names()) == {edge for edge in circuit.names() if carries(edge, circuit)}
    assert onto(back, bare) == plain
    reading = {name.split("->")[1] for name in plain.names() if "<" in name}
    assert set(back.port_names()) == {port_of(place) for place in reading}


def port_of(place: str) -> str:
    return f"{place}->{place.split('<')[0]}"


def carries(edge: str, circuit: Circuit) -> bool:
    """Whether an edge is one between nodes, into an input that has its port edge if there are such."""
    source, place = edge.split("->")
    return "<" not in source and (not circuit.graph.ports or "<" not in place or port_of(place) in circuit)


def test_all_heads_that_share_a_key_read_what_it_reads():
    shared, wide = Graph(2, 4, n_kv_heads=2), Graph(2, 4, ports=True)
    circuit = Circuit.from_names(shared, ["a0.h1->a1.g1<k>", "a0.h0->a1.h2<q>"])
    names = ["a0.h0->a1.h2<q>", "a0.h1->a1.h2<k>", "a0.h1->a1.h3<k>"]
    assert [name for name in onto(circuit, wide).names() if "->a1.h" in name and name[0:4] != "a1.h"] == names
    one_of_them = Circuit.from_names(wide, ["a0.h1->a1.h3<k>", "a1.h3<k>->a1.h3"])
    assert onto(one_of_them, shared).names() == ["a0.h1->a1.g1<k>"]


@pytest.mark.parametrize(
    "other", [Graph(3, 4), Graph(2, 2), Graph(2, 4, mlps=False), Graph(2, 4, split_embedding=True)], ids=Graph.describe
)
def test_another_models_circuit_is_refused(other):
    with pytest.raises(EdgewiseError, match="over another graph"):
        onto(Circuit.full(Graph(2, 4, ports=True)), other)
