"""Circuits that tell positions apart: a column for each span, and the lines of attention between them."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from graph.random_graphs import circuits
from graph.random_graphs import scored as with_random_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from reports.test_drawing import edge_lines, node_boxes, points_of, said, scored, touching_words

import edgewise as ew
from edgewise.graph import Circuit, Graph, carried
from edgewise.graph.convert import at_every_span
from edgewise.reports.columns import Columns, place_columns
from edgewise.reports.drawing import compose, compose_collapsed, draw
from edgewise.reports.lanes import covering
from edgewise.reports.layout import place
from edgewise.reports.marks import ATTENTION_COLOUR, KIND_COLOURS, left_out
from edgewise.reports.raster import to_png
from edgewise.reports.scene import Box, Line, Scene, Words

SPANS = ("IO", "S1", "nothing", "END")
BY_HAND = Circuit.from_names(
    Graph(2, 2, spans=SPANS, ports=True),
    [
        *("input->a0.h0<k>@IO", "input->a0.h0<v>@IO", "input->a0.h0<v>@S1", "input->a0.h1<v>@S1"),
        *("a0.h0->m0@S1", "m0->a1.h1<v>@S1", "a0.h0->a1.h1<q>@END", "a0.h1->m1@END"),
        *("a1.h1->logits@END", "m1->logits@END", "a0.h1<k>@S1->a0.h1", "a1.h1<k>@IO->a1.h1"),
    ],
)
"""At IO a0.h0 and a key of a1.h1 are read; at S1 a0.h0 is read and used; at END everything is used."""


@pytest.fixture(scope="module")
def tiny_ioi() -> Circuit:
    model = ew.load_model("tiny-ioi")
    return ew.discover(model, ew.load_task("ioi", model), threshold=0.01, positions="spans").circuit


def copies(circuit: Circuit) -> set[str]:
    """Each node at each span at which it writes or reads something, from the names of edges alone."""
    found = set()
    for name in circuit.names():
        source, target = name.split("->")
        place, span = (source if "<" in source else target).split("@")
        found.add(f"{place.split('<')[0]}@{span}")
        found |= set() if "<" in source else {f"{source}@{span}"}
    return found


def test_every_node_stands_once_in_the_column_of_every_span_where_it_takes_part():
    placed = place_columns(BY_HAND)
    names = [node.full_name for node in placed.together.nodes]
    assert len(names) == len(set(names))
    assert set(names) == copies(BY_HAND)
    assert [column.name for column in placed.columns] == ["IO", "S1", "END"]
    assert left_out(placed) == ["Spans at which nothing is drawn are left out: nothing."]
    assert_in_their_columns(placed)


def assert_in_their_columns(placed: Columns) -> None:
    """Every node is inside its column, and columns stand side by side in order."""
    right = 0.0
    for column in placed.columns:
        assert column.left == pytest.approx(right)
        right = column.left + column.layout.width
        for node in column.layout.nodes:
            assert node.span == column.name
            assert 0 < node.left < node.right < column.layout.width
    assert placed.width == pytest.approx(right)


def test_a_nodes_copies_stand_side_by_side():
    heights: dict[str, set[float]] = {}
    for node in place_columns(BY_HAND).together.nodes:
        heights.setdefault(node.name, set()).add(node.y)
    assert all(len(found) == 1 for found in heights.values())
    assert len(heights) == len(set.union(*heights.values())) + 1  # a0.h0 and a0.h1 are on one level


def attention(scene: Scene) -> dict[str, Line]:
    return {part.says: part for part in scene.parts if isinstance(part, Line) and " looks at " in part.says}


def test_attention_leads_from_where_keys_and_values_read_to_where_their_head_is_used():
    scene = compose(BY_HAND)
    assert set(attention(scene)) == {
        "a0.h0 at S1 looks at IO: key and value of a0.h0",
        "a0.h0 at END looks at IO: key and value of a0.h0",
        "a0.h0 at END looks at S1: value of a0.h0",
        "a0.h1 at END looks at S1: key and value of a0.h1",
        "a1.h1 at END looks at IO: key of a1.h1",
        "a1.h1 at END looks at S1: value of a1.h1",
    }
    boxes = node_boxes(scene)
    for says, line in attention(scene).items():
        used, at, reader = says.split(" looks at ")[0], says.split(" looks at ")[1].split(":")[0], says.split(" of ")[1]
        start, end = boxes[f"{reader}@{at}"], boxes["@".join(used.split(" at "))]
        assert start.x < line.start[0] < start.x + start.width
        assert line.start[1] == pytest.approx(start.y)
        x, y = line.pieces[-1][-1]
        assert end.x < x < end.x + end.width
        assert y == pytest.approx(end.y)
        assert line.colour == ATTENTION_COLOUR
    assert "carries a key or a value on to where its head is used" in said(scene)


def test_edges_keep_to_the_column_of_their_span():
    scene, placed = compose(BY_HAND), place_columns(BY_HAND)
    box = node_boxes(scene)["a0.h0@IO"]
    shift = box.x - next(node.left for node in placed.together.nodes if node.full_name == "a0.h0@IO")
    lines = edge_lines(scene)
    assert set(lines) == {name for name in BY_HAND.names() if "<" not in name.split("->")[0]}
    for name, line in lines.items():
        (column,) = [one for one in placed.columns if one.name == name.split("@")[1]]
        x = points_of(line)[:, 0] - shift
        assert x.min() > column.left
        assert x.max() < column.left + column.layout.width


def test_marks_are_those_of_the_span():
    scene = compose(BY_HAND)
    marks = {part.says: part.fill for part in scene.parts if isinstance(part, Box) and "<" in part.says}
    assert marks["a0.h0<k>@IO"] == KIND_COLOURS["k"]
    assert marks["a0.h1<k>@S1"] == "#ffffff"
    assert set(marks) == {place for name in BY_HAND.names() for place in name.split("->") if "<" in place}


def test_every_column_has_its_name_above_it():
    scene = compose(BY_HAND)
    names = [part for part in scene.parts if isinstance(part, Words) and part.bold and part.text in SPANS]
    assert [name.text for name in sorted(names, key=lambda name: name.x)] == ["IO", "S1", "END"]
    assert max(name.y for name in names) < min(box.y for box in node_boxes(scene).values())
    assert "Spans at which nothing is drawn are left out: nothing." in said(scene)


def test_the_circuit_of_tiny_ioi_is_clear(tiny_ioi):
    scene = compose(tiny_ioi, title="ioi in tiny-ioi")
    assert touching_words(scene) == []
    assert through_other_boxes(scene) == []
    assert set(node_boxes(scene)) == copies(tiny_ioi)
    assert set(edge_lines(scene)) == {name for name in tiny_ioi.names() if "<" not in name.split("->")[0]}
    assert len(attention(scene)) == len(carried(tiny_ioi)) > 10


def through_other_boxes(scene: Scene) -> list[tuple[str, set[str]]]:
    """Edges and lines of attention that run through boxes of nodes that are not their ends, and which."""
    boxes, found = node_boxes(scene), []
    for name, line in (edge_lines(scene) | attention(scene)).items():
        x, y = points_of(smooth(line)).T
        inside = {
            one
            for one, box in boxes.items()
            if ((x > box.x) & (x < box.x + box.width) & (y > box.y) & (y < box.y + box.height)).any()
        }
        ends = {part.split("<")[0].split("@")[0] for part in name.split("->")} if "->" in name else set()
        span = name.split(":")[0].rpartition("@")[2]
        if others := {one for one in inside if one not in {f"{end}@{span}" for end in ends}}:
            found.append((name, others))
    return found


def smooth(line: Line) -> Line:
    """The line with its straight pieces written as curves."""
    pieces, start = [], line.start
    for piece in line.pieces:
        pieces.append(piece if len(piece) == 3 else (start, piece[0], piece[0]))
        start = piece[-1]
    return replace(line, pieces=pieces)


def at_some_spans(circuit: Circuit, seed: int) -> Circuit:
    """A part of the circuit's edges at each of three spans."""
    graph = replace(circuit.graph, spans=("name", "rest", "END"))
    kept = np.random.default_rng(seed).random(graph.edges.shape) < 0.4
    every = at_every_span(circuit, graph)
    return Circuit(graph, every.edges & kept, every.ports & kept[0])


@settings(max_examples=25, deadline=None)
@given(circuits(most_layers=3, most_heads=4), st.integers(0, 99))
def test_circuits_of_every_shape_are_drawn_whole_and_clear(circuit, seed):
    some = with_random_scores(at_some_spans(circuit, seed), seed)
    scene = compose(some)
    assert set(edge_lines(scene)) == {name for name in some.names() if "<" not in name.split("->")[0]}
    assert len(attention(scene)) == sum(one.at != one.to for one in carried(some))
    assert touching_words(scene) == []
    assert through_other_boxes(scene) == []
    if some:
        assert_in_their_columns(place_columns(some))


def test_columns_are_as_wide_as_their_names():
    names = ("W" * 40, "x", "w" * 40)
    edges = [f"input->m0@{name}" for name in names]
    assert touching_words(compose(Circuit.from_names(Graph(1, 1, spans=names), edges))) == []


def test_a_heads_lines_share_a_lane_and_two_heads_have_one_each():
    placed = place_columns(BY_HAND)
    lanes = {}
    for arc in placed.arcs:
        lanes.setdefault(arc.carried.reader, set()).add(arc.corners[1][1])
    assert all(len(heights) == 1 for heights in lanes.values())
    assert lanes["a0.h0"] != lanes["a0.h1"]


def test_of_very_many_lines_those_are_drawn_that_look_like_all():
    spans = tuple(map(str, range(6)))
    names = [f"{edge}@{span}" for edge in ("input->a0.h0<v>", "input->a0.h1<v>") for span in spans[:5]]
    names += [f"a0.h{head}->logits@{span}" for head in (0, 1) for span in spans[1:]]
    placed = place_columns(Circuit.from_names(Graph(1, 2, spans=spans), names))
    few = covering(placed.arcs)
    assert len(few) < len(placed.arcs) / 1.5
    for part in (slice(0, 2), slice(2, 4)):  # up from a box, and down into one
        assert {arc.corners[part] for arc in few} == {arc.corners[part] for arc in placed.arcs}
    assert ends_of_lanes(few) == ends_of_lanes(placed.arcs)


def ends_of_lanes(arcs) -> dict[float, tuple[float, float]]:
    lanes: dict[float, list[float]] = {}
    for arc in arcs:
        lanes.setdefault(arc.corners[1][1], []).extend((arc.corners[1][0], arc.corners[2][0]))
    return {y: (min(ends), max(ends)) for y, ends in lanes.items()}


def test_a_very_wide_picture_has_fewer_pixels_and_not_too_many():
    width, height = struct.unpack(">II", to_png(Scene(40_000, 20, (), "wide"))[16:24])
    assert (width, height) == (30_000, 15)


def test_only_so_many_edges_are_drawn_and_only_their_columns(tiny_ioi):
    scene = compose(tiny_ioi, edges=3)
    lines = edge_lines(scene)
    assert len(lines) == 3
    names = {part.text for part in scene.parts if isinstance(part, Words)} & set(tiny_ioi.graph.spans)
    assert names == {name.split("@")[1] for name in lines}


def test_without_columns_all_spans_are_drawn_together(tiny_ioi):
    scene = compose(tiny_ioi, columns=False)
    assert set(node_boxes(scene)) == set(tiny_ioi.nodes())
    assert set(edge_lines(scene)) == {name for name in tiny_ioi.names() if "<" not in name.split("->")[0]}
    assert attention(scene) == {}
    assert not {part.text for part in scene.parts if isinstance(part, Words)} & set(tiny_ioi.graph.spans)


@pytest.mark.parametrize("shape", [{}, {"n_kv_heads": 2}, {"parallel": True, "split_embedding": True}])
def test_a_circuit_without_spans_has_its_layout_for_its_only_column(shape):
    circuit = scored(Graph(3, 4, **shape), 30)
    placed = place_columns(circuit)
    assert placed.together == placed.columns[0].layout == place(circuit)
    assert (placed.named, placed.arcs) == (False, ())


HALVES = {"early": ["a0.h0", "a0.h1", "m0"], "late": ["a1.h0", "a1.h1", "m1"]}


def test_groups_have_a_box_in_each_column_and_attention_leads_between_these():
    scene = compose_collapsed(BY_HAND, groups=HALVES)
    assert set(node_boxes(scene)) == {
        *("input@IO", "early@IO", "late@IO", "input@S1", "early@S1", "late@S1", "early@END", "late@END", "logits@END")
    }
    assert set(edge_lines(scene)) == {
        *("input->early@IO", "input->early@S1", "early->late@S1", "early->late@END", "late->logits@END")
    }
    assert set(attention(scene)) == {
        "early at S1 looks at IO: key and value of early",
        "early at END looks at IO: key and value of early",
        "early at END looks at S1: key and value of early",
        "late at END looks at IO: key of late",
        "late at END looks at S1: value of late",
    }
    together = compose_collapsed(BY_HAND, groups=HALVES, columns=False)
    assert set(node_boxes(together)) == {"input", "early", "late", "logits"}
    assert attention(together) == {}


@settings(max_examples=15, deadline=None)
@given(circuits(most_layers=3, most_heads=4), st.integers(0, 99), st.booleans())
def test_groups_of_every_shape_are_drawn_clear_in_columns(circuit, seed, with_scores):
    some = at_some_spans(circuit, seed)
    nodes = [node.name for node in some.graph.sources[some.graph.n_embeddings :]]
    scene = compose_collapsed(
        with_random_scores(some, seed) if with_scores else some, groups={"odd": nodes[::2], "fourth": nodes[1::4]}
    )
    assert touching_words(scene) == []
    assert through_other_boxes(scene) == []


def test_columns_are_written_in_every_format(tmp_path):
    for suffix, start in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        draw(BY_HAND, tmp_path / f"picture{suffix}")
        assert (tmp_path / f"picture{suffix}").read_bytes().startswith(start)


def test_an_empty_circuit_says_that_it_is_empty():
    assert "The circuit is empty." in said(compose(Circuit.empty(Graph(2, 2, spans=SPANS))))
