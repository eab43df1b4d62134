"""Groups of nodes: each form in which they are given, and a sentence for each that cannot be meant."""

from __future__ import annotations

import json

import pytest

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.graph.groups import group_of, groups_found, read_groups

GRAPH = Graph(3, 2)
GROUPS = {"early": ["a0.h0", "a0.h1"], "the end's": ["m2", "logits"]}
READ = {"early": ("a0.h0", "a0.h1"), "the end's": ("m2", "logits")}


def test_a_dictionary_a_json_and_a_toml_file_say_the_same(tmp_path):
    as_json, as_toml = tmp_path / "groups.json", tmp_path / "groups.TOML"
    as_json.write_text(json.dumps(GROUPS), "utf-8-sig")
    as_toml.write_bytes(b'early = ["a0.h0", "a0.h1"]\r\n"the end\'s" = [\r\n  "m2",\r\n  "logits",\r\n]\r\n')
    for given in (GROUPS, READ, as_json, str(as_json), as_toml):
        found = read_groups(given, GRAPH)
        assert found == READ
        assert list(found) == list(READ), "colours go by their order"


def test_a_circuit_has_so_much_of_each():
    circuit = Circuit.from_names(GRAPH, ["input->a0.h1<q>", "a0.h1->a1.h0<v>", "a1.h0->logits"])
    one, other = groups_found(read_groups(GROUPS), circuit)
    assert (one.group, one.found, one.members) == ("early", ("a0.h1",), ("a0.h0", "a0.h1"))
    assert (other.found, other.members) == (("logits",), ("m2", "logits"))
    assert group_of(GROUPS) == {"a0.h0": "early", "a0.h1": "early", "m2": "the end's", "logits": "the end's"}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"x": ["a0.h5"]}, "group 'x': this graph (3 layers of 2 heads) has no node 'a0.h5'; did you mean 'a0.h"),
        ({"x": ["tok"]}, "has no node 'tok'"),
        ({"x": ["A0.H1"]}, "'A0.H1' is not a node; nodes are 'input' (or 'tok' and 'pos'), 'a0.h1', 'm0' and 'logits'"),
        ({"x": ["A0.H1"]}, "did you mean 'a0.h1'"),
        ({"x": ["a0.h1<q>"]}, "is a place where a head reads, not a node; the node is 'a0.h1'"),
        ({"x": []}, "group 'x' is empty"),
        ({"x": "a0.h1"}, """group 'x' should be a list of nodes, as in ["a0.h1", "m0"], not 'a0.h1'"""),
        ({"x": {"y": ["m0"]}}, "should be a list of nodes"),
        ({"x": [1]}, "should be a list of nodes"),
        ({"x": ["m0", "m0"]}, "group 'x' has 'm0' twice"),
        ({"x": ["m0"], "y": ["m1", "m0"]}, "group 'y' has 'm0' and so has 'x'; a node is in one group at most"),
        ({"": ["m0"]}, "a group's name is a text of 1 to 100 characters, not ''"),
        ({"n" * 101: ["m0"]}, "a group's name is a text of 1 to 100 characters"),
        ({3: ["m0"]}, "a group's name is a text of 1 to 100 characters, not 3"),
        ({"m1": ["m0"]}, "group 'm1' has the name of a node; call it something else"),
        ({}, "the groups: there is none"),
        (7, "groups are a file or a dictionary of names and nodes, not 7"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(groups, words):
    with pytest.raises(EdgewiseError) as refused:
        read_groups(groups, GRAPH)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("g.json", "{", "not valid JSON"),
        ("g.json", '["m0"]', "should be an object of names and nodes, not a list"),
        ("g.json", '{"x": ["m0"], "x": ["m1"]}', "group 'x' is there twice"),
        ("g.json", "[" * 100_000, "nested too deeply"),
        ("g.toml", 'x = ["m0"', "not valid TOML"),
        ("g.toml", 'x = ["m0"]\nx = ["m1"]', "not valid TOML"),
        ("g.toml", 'x = ["m0"]\ny = 1979-05-27', "group 'y' should be a list of nodes"),
        ("g.toml", "[x]\ny = ['m0']", "group 'x' should be a list of nodes"),
        ("g.toml", "x = " + "[" * 100_000, "not valid TOML"),
        ("g.yaml", "x: [m0]", "should end in .json or .toml"),
        ("g.toml", "", "there is none"),
    ],
)
def test_a_bad_file_is_refused_and_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(EdgewiseError) as refused:
        read_groups(tmp_path / name, GRAPH)
    assert words in str(refused.value)
    assert name in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(EdgewiseError, match="there is no such file"):
        read_groups(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgewiseError, match="is not UTF-8 text"):
        read_groups(tmp_path / "bytes.json")
