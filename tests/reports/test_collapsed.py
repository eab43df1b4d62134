"""Pictures in which each group of nodes is one box: what is merged, counted, and said."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from graph.random_graphs import circuits
from graph.random_graphs import scored as with_random_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from reports.test_drawing import edge_lines, node_boxes, points_of, through_other_boxes, touching_words

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.reports.drawing import compose_collapsed, draw
from edgewise.reports.marks import KIND_COLOURS
from edgewise.reports.merged import merge
from edgewise.reports.scene import Line, Words
from edgewise.tasks.known import GREATER_THAN, IOI

IOI_GROUPS = {**IOI.groups, "MLPs": tuple(f"m{layer}" for layer in range(12))}


def said(scene) -> str:
    return " ".join(part.text for part in scene.parts if isinstance(part, Words))


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Circuit, dict[str, tuple[str, ...]]]:
    """A circuit with scores, and groups of some of its graph's nodes."""
    circuit = with_random_scores(draw(circuits()), draw(st.integers(0, 9)))
    nodes = [node.name for node in circuit.graph.sources] + ["logits"]
    into = {node: draw(st.sampled_from(["", "one", "two", "three"])) for node in nodes}
    groups = {name: tuple(node for node in nodes if into[node] == name) for name in ("one", "two", "three")}
    return circuit, {name: members for name, members in groups.items() if members}


@settings(max_examples=150, deadline=None)
@given(grouped())
def test_every_edge_is_inside_a_whole_or_in_one_link(given_circuit):
    """Against a count by names alone."""
    circuit, groups = given_circuit
    wholes, links = merge(circuit, groups)
    graph, there = circuit.graph, set(circuit.nodes())
    home = {node: name for name, members in groups.items() for node in members}
    between: Counter[tuple[str, str]] = Counter()
    scores: dict[tuple[str, str], list[float]] = {}
    for edge in circuit.names():
        source, place = edge.split("->")
        if "<" in source:
            continue
        target = place.split("<")[0]
        if ".g" in target:
            layer, number = target[1:].split(".g")
            heads = [f"a{layer}.h{head}" for head in range(graph.n_heads) if head // graph.share == int(number)]
            homes = {home.get(head) for head in heads if head in there}
            ends = (home.get(source, source), homes.pop() or target if len(homes) == 1 else target)
        else:
            ends = (home.get(source, source), home.get(target, target))
        between[ends] += 1
        row, column = graph.locate(edge)
        scores.setdefault(ends, []).append(float(circuit.scores[row, column]))
    inside = {whole.name: whole.within for whole in wholes if whole.within}
    assert inside == {one: count for (one, other), count in between.items() if one == other}
    assert {(link.source, link.target): len(link.edges) for link in links} == {
        ends: count for ends, count in between.items() if ends[0] != ends[1]
    }
    for link in links:
        own = scores[link.source, link.target]
        assert abs(link.strongest) == max(map(abs, own))
        assert link.strongest in own
        assert link.summed == pytest.approx(math.fsum(own))
        row, column = graph.locate(link.edges[0])
        assert circuit.scores[row, column] == link.strongest
    boxes = {whole.name: whole for whole in wholes}
    assert {node for whole in wholes for node in whole.found if ".g" not in node} == there
    assert {name for name in boxes if boxes[name].group} == {home[node] for node in there if node in home}


@settings(max_examples=60, deadline=None)
@given(grouped(), st.booleans())
def test_circuits_of_every_shape_are_collapsed_whole_and_clear(given_circuit, with_scores):
    circuit, groups = given_circuit
    circuit = circuit if with_scores else Circuit(circuit.graph, circuit.edges, circuit.ports)
    if not groups:
        with pytest.raises(EdgewiseError, match="no groups of nodes to collapse"):
            compose_collapsed(circuit, groups=groups)
        return
    scene = compose_collapsed(circuit, groups=groups)
    wholes, links = merge(circuit, groups)
    boxes, lines = node_boxes(scene), edge_lines(scene)
    assert set(boxes) == {whole.name for whole in wholes}
    assert set(lines) == {f"{link.source}->{link.target}" for link in links}
    for one, other in combinations(boxes.values(), 2):
        apart = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y
    for name, line in lines.items():
        points = points_of(line)
        ends = [boxes[part] for part in name.split("->")]
        upper, lower = sorted(ends, key=lambda box: box.y)
        for (x, y), box, edge in ((points[0], lower, lower.y), (points[-1], upper, upper.y + upper.height)):
            assert y == pytest.approx(edge)
            assert box.x <= x <= box.x + box.width
    assert through_other_boxes(scene) == []
    assert touching_words(scene) == []
    down = [name for name in lines if boxes[name.split("->")[0]].y < boxes[name.split("->")[1]].y]
    drawn = [part for part in scene.parts if isinstance(part, Line)]
    marks = [line for line in drawn if [len(piece) for piece in line.pieces] == [1, 1]]
    assert len(marks) == len(down)
    assert ("leads down" in said(scene)) == bool(down)


def test_the_ioi_circuit_is_seven_groups_and_the_mlps():
    scene = compose_collapsed(IOI.circuit, groups=IOI_GROUPS, title="ioi")
    boxes, lines = node_boxes(scene), edge_lines(scene)
    assert set(boxes) == {*IOI_GROUPS, "input", "logits"}
    text = said(scene)
    assert "66 edges inside" in text  # m0 to m11, each to all later ones
    assert "8 of 8 nodes a9.h0 a9.h7 a10.h1" in text
    by_name = {part.says.split(":")[0]: part for part in scene.parts if isinstance(part, Line) and part.says}
    assert by_name["S-inhibition->name mover"].says == "S-inhibition->name mover: 12 edges"  # 4 heads into 3 queries
    assert lines["S-inhibition->name mover"].colour == KIND_COLOURS["q"]
    assert lines["MLPs->logits"].colour == KIND_COLOURS["logits"]
    assert lines["MLPs->name mover"].colour not in KIND_COLOURS.values()
    assert boxes["name mover"].y < boxes["S-inhibition"].y < boxes["induction"].y < boxes["duplicate token"].y
    assert boxes["name mover"].fill != boxes["S-inhibition"].fill
    assert "12×" in text.split()
    assert "several of these" in text
    assert "no scores, so all lines are drawn alike" in text


def test_a_line_says_count_strongest_and_sum_and_its_width_is_the_strongests():
    graph = Graph(2, 2)
    circuit = Circuit.from_names(graph, ["input->a0.h0<q>", "input->a0.h1<q>", "a0.h0->m1", "a0.h1->m1", "m1->logits"])
    scores = np.zeros(graph.edges.shape)
    for name, score in (("input->a0.h0<q>", 0.5), ("input->a0.h1<q>", -0.75), ("a0.h0->m1", 0.25), ("m1->logits", 3)):
        scores[graph.locate(name)] = score
    scene = compose_collapsed(circuit.with_scores(scores), groups={"heads": ("a0.h0", "a0.h1")}, effect="rise of x")
    lines = edge_lines(scene)
    assert lines["input->heads"].says == "input->heads: 2 edges; strongest input->a0.h1<q> -0.75, summed -0.25"
    assert lines["input->heads"].dashed
    assert lines["heads->m1"].says == "heads->m1: 2 edges; strongest a0.h0->m1 0.25, summed 0.25"
    assert lines["m1->logits"].width > lines["input->heads"].width > lines["heads->m1"].width
    text = said(scene)
    for words in ("2× -0.75 / -0.25", "2× 0.25 / 0.25", " 3 ", "rise of x, of the strongest edge", "below zero"):
        assert words in text
    fewer = compose_collapsed(circuit.with_scores(scores), groups={"heads": ("a0.h0", "a0.h1")}, edges=2)
    assert set(edge_lines(fewer)) == {"m1->logits", "input->heads"}
    assert "The 2 strongest lines are drawn; 1 weaker ones are left out." in said(fewer)


def test_a_shared_key_is_tied_to_the_wholes_that_read_it_or_is_inside_their_group():
    graph = Graph(2, 4, n_kv_heads=2)
    names = ["a0.h0->a1.g0<k>", "a0.h0->a1.h0<q>", "a0.h0->a1.h1<q>", "a1.h0->logits", "a1.h1->logits"]
    circuit = Circuit.from_names(graph, names)

    def tied(groups) -> list[str]:
        scene = compose_collapsed(circuit, groups=groups)
        found = [part.says for part in scene.parts if isinstance(part, Line) and "reads" in part.says]
        assert ("read by query heads" in said(scene)) == bool(found)
        return found

    assert tied({"x": ("a0.h0",)}) == ["a1.h0 reads a1.g0", "a1.h1 reads a1.g0"]
    assert tied({"x": ("a1.h0",)}) == ["x reads a1.g0", "a1.h1 reads a1.g0"]
    assert tied({"x": ("a1.h0", "a1.h1", "a1.h2")}) == []
    both = compose_collapsed(circuit, groups={"x": ("a1.h0", "a1.h1")})
    assert edge_lines(both)["a0.h0->x"].says == "a0.h0->x: 3 edges"


def test_what_cannot_be_collapsed_is_refused_in_a_sentence():
    with pytest.raises(EdgewiseError, match="there are no groups of nodes to collapse: give some with --groups"):
        draw(GREATER_THAN.circuit, collapse=True)
    with pytest.raises(EdgewiseError, match="has no node 'm12'; did you mean"):
        draw(GREATER_THAN.circuit, groups={"late": ["m12"]}, collapse=True)
    with pytest.raises(EdgewiseError, match="no scores, so there is no telling which edges are the strongest"):
        draw(GREATER_THAN.circuit, groups=GREATER_THAN.groups, collapse=True, edges=2)
    with pytest.raises(EdgewiseError, match="at least 1, not 0"):
        draw(GREATER_THAN.circuit, groups=GREATER_THAN.groups, collapse=True, edges=0)


@pytest.mark.parametrize("suffix", [".svg", ".png", pytest.param(".pdf", marks=pytest.mark.slow)])
def test_a_collapsed_picture_is_the_same_file_byte_for_byte(suffix, tmp_path):
    for name in ("one", "other"):
        GREATER_THAN.circuit.draw(tmp_path / (name + suffix), groups=GREATER_THAN.groups, collapse=True)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()


def test_an_empty_circuit_says_that_it_is_empty():
    assert "The circuit is empty." in said(compose_collapsed(Circuit.empty(Graph(2, 2)), groups={"x": ("m0",)}))
