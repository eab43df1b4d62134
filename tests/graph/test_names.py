"""The names of nodes, inputs and edges: one parser, which prints back what it read and refuses the rest helpfully."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import EdgewiseError
from edgewise.graph import Edge, Input, Node, PortEdge, parse_edge, parse_input, parse_node, parse_path

NODES = {
    "input": Node("input"),
    "tok": Node("tok"),
    "pos": Node("pos"),
    "logits": Node("logits"),
    "a0.h0": Node("head", 0, 0),
    "a11.h10": Node("head", 11, 10),
    "m0": Node("mlp", 0),
    "m47": Node("mlp", 47),
}
INPUTS = {
    "a3.h7<q>": Input("q", 3, 7),
    "a3.h7<k>": Input("k", 3, 7),
    "a31.h10<v>": Input("v", 31, 10),
    "a3.g1<k>": Input("k", 3, 1, shared=True),
    "a3.g10<v>": Input("v", 3, 10, shared=True),
    "m12": Input("mlp", 12),
    "logits": Input("logits"),
}
EDGES = {
    "input->a0.h1<q>": Edge(Node("input"), Input("q", 0, 1)),
    "tok->m0": Edge(Node("tok"), Input("mlp", 0)),
    "pos->logits": Edge(Node("pos"), Input("logits")),
    "a0.h1->a5.h5<k>": Edge(Node("head", 0, 1), Input("k", 5, 5)),
    "a0.h1->a5.g2<v>": Edge(Node("head", 0, 1), Input("v", 5, 2, shared=True)),
    "m3->logits": Edge(Node("mlp", 3), Input("logits")),
    "a5.h5<q>->a5.h5": PortEdge(Input("q", 5, 5)),
    "a5.g2<v>->a5.g2": PortEdge(Input("v", 5, 2, shared=True)),
}


@pytest.mark.parametrize(("text", "node"), NODES.items())
def test_a_nodes_name_parses_and_prints_back(text: str, node: Node) -> None:
    assert parse_node(text) == node
    assert node.name == text


@pytest.mark.parametrize(("text", "place"), INPUTS.items())
def test_an_inputs_name_parses_and_prints_back(text: str, place: Input) -> None:
    assert parse_input(text) == place
    assert place.name == text


@pytest.mark.parametrize(("text", "edge"), EDGES.items())
def test_an_edges_name_parses_and_prints_back(text: str, edge: Edge | PortEdge) -> None:
    assert parse_edge(text) == edge
    assert edge.name == text


@pytest.mark.parametrize(
    ("place", "owner"),
    [
        ("a3.h7<q>", "a3.h7"),
        ("a3.h7", "a3.h7"),
        ("a3.g1<k>", "a3.g1"),
        ("a3.g1<k>@S1+1", "a3.g1"),
        ("m12", "m12"),
        ("m12@END", "m12"),
        ("logits", "logits"),
        ("logits@END", "logits"),
    ],
)
def test_an_input_knows_whose_it_is(place: str, owner: str) -> None:
    assert parse_input(place).owner == owner


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999), st.integers(0, 999), st.sampled_from("qkv"))
def test_numbers_of_any_length_survive(layer: int, head: int, later: int, other: int, letter: str) -> None:
    text = f"a{layer}.h{head}->a{later}.h{other}<{letter}>"
    edge = parse_edge(text)
    assert isinstance(edge, Edge)
    assert (edge.source.layer, edge.source.head, edge.target.layer, edge.target.head) == (layer, head, later, other)
    assert edge.target.kind == letter
    assert edge.name == text


def refusal(parse: object, text: str) -> str:
    with pytest.raises(EdgewiseError) as caught:
        parse(text)  # type: ignore[operator]
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("", "'a0.h1'"),
        ("a0", "'a0.h1'"),
        ("a0.1", "'a0.h1'"),  # the paper's notation
        ("embed", "'input'"),
        ("out", "'logits'"),
        ("a01.h1", "'a0.h1'"),
        ("a0.h1 ", "'a0.h1'"),
        ("a0.h1\n", "'a0.h1'"),
        ("A0.H1", "'a0.h1'"),
        ("a-1.h1", "'a0.h1'"),
        ("a٣.h1", "'a0.h1'"),  # a digit, but not one of ours
        ("mlp3", "'m0'"),
        ("m", "'m0'"),
        ("a3.g1", "'a0.h1'"),
        ("a3.h7<q>", "the node is 'a3.h7'"),
    ],
)
def test_what_is_no_node_is_quoted_beside_what_would_be_right(text: str, instead: str) -> None:
    message = refusal(parse_node, text)
    assert repr(text) in message
    assert instead in message.replace(repr(text), "", 1)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("", "'a0.h1<q>'"),
        ("a3.h7<x>", "'<k>' or '<v>'"),
        ("a3.h7<Q>", "'a0.h1<q>'"),
        ("a3.h7.q", "'a0.h1<q>'"),
        ("a3.7.q_in", "'a0.h1<q>'"),  # the paper's notation
        ("a3.g1<q>", "'a0.h1<q>'"),
        ("m3.in", "'m0'"),
        ("m03", "'m0'"),
        ("input", "'logits'"),
        ("tok", "'logits'"),
        ("logits ", "'logits'"),
        ("m0@", "'m0@END'"),
        ("m0@a b", "'m0@END'"),
        ("m0@a@b", "'m0@END'"),
    ],
)
def test_what_is_no_input_is_quoted_beside_what_would_be_right(text: str, instead: str) -> None:
    message = refusal(parse_input, text)
    assert repr(text) in message
    assert instead in message.replace(repr(text), "", 1)


@pytest.mark.parametrize(
    ("text", "part", "instead"),
    [
        ("", "", "'a0.h1->a5.h5<q>'"),
        ("a0.h1", "a0.h1", "'m3->logits'"),
        ("a0.h1→m3", "a0.h1→m3", "'m3->logits'"),
        ("a0.h1-m3", "a0.h1-m3", "'m3->logits'"),
        ("a0.h1 -> m3", "a0.h1 ", "'a0.h1'"),
        ("->m3", "", "'a0.h1'"),
        ("m3->", "", "'a0.h1<q>'"),
        ("m3->m4->logits", "m4->logits", "'m0'"),
        ("m3->input", "input", "'logits'"),
        ("a5.g2->m5", "a5.g2", "'a0.h1'"),
        ("a5.h5<q>->a5.h6", "a5.h6", "'a5.h5'"),
        ("a5.h5<q>->a5.h5<q>", "a5.h5<q>", "'a5.h5'"),
        ("a5.g1<k>->a5.h2", "a5.h2", "'a5.g1'"),
        ("a5.g1<q>->a5.g1", "a5.g1<q>", "'a0.h1<q>'"),
    ],
)
def test_what_is_no_edge_is_quoted_with_the_part_that_is_wrong(text: str, part: str, instead: str) -> None:
    message = refusal(parse_edge, text)
    assert repr(text) in message
    assert repr(part) in message
    assert instead in message.replace(repr(text), "", 1)


@given(st.text(alphabet="amhg0123456789.<>qkv-inputlogs @", max_size=16))
def test_whatever_parses_prints_back_and_the_rest_is_refused_in_words(text: str) -> None:
    for parse in (parse_node, parse_input, parse_edge):
        try:
            answer = parse(text).name
        except EdgewiseError as error:
            answer = str(error)
            assert repr(text) in answer
        else:
            assert answer == text


@pytest.mark.parametrize("text", [*NODES, *INPUTS, *EDGES])
def test_a_stray_newline_is_not_overlooked(text: str) -> None:
    for parse in (parse_node, parse_input, parse_edge):
        assert re.search(r"\\n", refusal(parse, text + "\n"))


def test_paths_by_name():
    for name in ("a0.h1->a3.g1<k>->m4->logits", "a3.h1<q>->a3.h1", "a3.g1<k>->a3.g1->logits", "tok->m0"):
        assert parse_path(name).name == name
    assert parse_path("a0.h1->a3.h1<q>->a3.h1->m3") == parse_path("a0.h1->a3.h1<q>->m3")
    assert parse_path("a3.g1<k>->a3.g1->logits").start == Input("k", 3, 1, shared=True)
    with pytest.raises(EdgewiseError, match=r"as one alone reads it, it is 'a3.h2<k>'"):
        parse_path("m0->a3.g1<k>->a3.h2->logits")
