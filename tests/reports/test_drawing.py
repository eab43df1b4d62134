"""Drawings of circuits: what is in them, what never overlaps, what they say of what is not in them."""

import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from graph.random_graphs import circuits
from graph.random_graphs import scored as with_random_scores
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.reports.drawing import compose, draw
from edgewise.reports.marks import KIND_COLOURS
from edgewise.reports.scene import Box, Line, Words, printable, text_width
from edgewise.tasks.known import GREATER_THAN, IOI, TRACR_XPROPORTION

SVG = "{http://www.w3.org/2000/svg}"


def scored(graph: Graph, n_edges: int, seed: int = 0) -> Circuit:
    """The edges with the largest of random scores, a few of which are far larger than the rest."""
    scores = np.random.default_rng(seed).standard_cauchy(graph.edges.shape) * graph.edges
    least = np.sort(np.abs(scores[graph.edges]))[-n_edges]
    return Circuit(graph, (np.abs(scores) >= least) & graph.edges, np.zeros_like(graph.port_edges), scores)


def groups_of(known) -> dict[str, tuple[str, ...]]:
    return dict(known.groups)


PICTURES = {
    "10 edges": (TRACR_XPROPORTION.circuit, groups_of(TRACR_XPROPORTION)),
    "68 edges": (scored(Graph(12, 12), 68), groups_of(IOI)),
    "Greater-Than": (GREATER_THAN.circuit, groups_of(GREATER_THAN)),
    "443 edges": (scored(Graph(12, 12), 443), None),
    "IOI": (IOI.circuit, groups_of(IOI)),
    "shared key/value heads": (scored(Graph(6, 16, n_kv_heads=4), 300), None),
    "parallel": (scored(Graph(4, 6, parallel=True, split_embedding=True), 90), None),
    "many heads": (scored(Graph(3, 40), 500), None),
}


@pytest.fixture(params=list(PICTURES.values()), ids=list(PICTURES), scope="module")
def picture(request):
    circuit, groups = request.param
    return circuit, compose(circuit, groups=groups, title="a circuit in a model", subtitle="found by some method")


def edge_lines(scene) -> dict[str, Line]:
    return {part.says.split(":")[0]: part for part in scene.parts if isinstance(part, Line) and "->" in part.says}


def node_boxes(scene) -> dict[str, Box]:
    boxes = [part for part in scene.parts if isinstance(part, Box) and part.says and "<" not in part.says]
    return {box.says.split(":")[0]: box for box in boxes}


def points_of(line: Line) -> np.ndarray:
    """Many points of a line, `[points, 2]`."""
    share = np.linspace(0, 1, 24)[:, None]
    found, start = [], np.array(line.start)
    for piece in line.pieces:
        one, two, end = (np.array(point) for point in piece)
        rest = 1 - share
        found.append(rest**3 * start + 3 * rest**2 * share * one + 3 * rest * share**2 * two + share**3 * end)
        start = end
    return np.concatenate(found)


def test_every_edge_is_a_line_from_its_source_to_its_target(picture):
    circuit, scene = picture
    lines, boxes = edge_lines(scene), node_boxes(scene)
    assert set(lines) == {name for name in circuit.names() if "<" not in name.split("->")[0]}
    for name, line in lines.items():
        source, target = (boxes[part.split("<")[0]] for part in name.split("->"))
        points = points_of(line)
        for (x, y), box, edge in ((points[0], source, source.y), (points[-1], target, target.y + target.height)):
            assert y == pytest.approx(edge)
            assert box.x <= x <= box.x + box.width
        kind = name[-2] if name.endswith(">") else "logits" if name.endswith("logits") else "mlp"
        assert line.colour == KIND_COLOURS[kind]


def through_other_boxes(scene) -> list[tuple[str, set[str]]]:
    """Edges that run through boxes of nodes that are not their ends, and which."""
    boxes = node_boxes(scene)
    left, top, right, bottom = (
        np.array([edge(box) for box in boxes.values()])
        for edge in (
            lambda box: box.x,
            lambda box: box.y,
            lambda box: box.x + box.width,
            lambda box: box.y + box.height,
        )
    )
    names, found = np.array(list(boxes)), []
    for name, line in edge_lines(scene).items():
        x, y = points_of(line).T[..., None]
        inside = ((x > left) & (x < right) & (y > top) & (y < bottom)).any(axis=0)
        others = set(names[inside].tolist()) - {part.split("<")[0] for part in name.split("->")}
        found += [(name, others)] if others else []
    return found


def touching_words(scene) -> list[tuple[str, str]]:
    """Pairs of words that lie over each other; all are in the picture."""
    words = [part for part in scene.parts if isinstance(part, Words)]
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    places = []
    for one in words:
        width = text_width(one.text, one.size, bold=one.bold)
        left = one.x - shift[one.anchor] * width
        places.append((left, one.y - 0.76 * one.size, left + width, one.y + 0.24 * one.size))
    boxes = np.array(places)
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= scene.width
    assert boxes[:, 3].max() <= scene.height
    one, other = boxes[:, None], boxes[None]
    over = (one[..., 0] < other[..., 2]) & (other[..., 0] < one[..., 2])
    over &= (one[..., 1] < other[..., 3]) & (other[..., 1] < one[..., 3])
    return [(words[a].text, words[b].text) for a, b in np.argwhere(np.triu(over, 1))]


def test_no_edge_runs_through_the_box_of_another_node(picture):
    assert through_other_boxes(picture[1]) == []


def test_no_words_touch_each_other_or_leave_the_picture(picture):
    assert touching_words(picture[1]) == []


@settings(max_examples=60, deadline=None)
@given(circuits(most_layers=5, most_heads=6), st.integers(0, 9), st.booleans())
def test_circuits_of_every_shape_are_drawn_whole_and_clear(circuit, seed, with_scores):
    scene = compose(with_random_scores(circuit, seed) if with_scores else circuit)
    assert set(edge_lines(scene)) == {name for name in circuit.names() if "<" not in name.split("->")[0]}
    assert through_other_boxes(scene) == []
    assert touching_words(scene) == []


def test_every_node_is_named_inside_its_box(picture):
    _, scene = picture
    words = {part.text: part for part in scene.parts if isinstance(part, Words) and part.anchor == "middle"}
    for name, box in node_boxes(scene).items():
        half = text_width(name, words[name].size) / 2
        assert box.x + 2 < words[name].x - half
        assert words[name].x + half < box.x + box.width - 2
        assert box.y < words[name].y < box.y + box.height


def test_a_larger_effect_is_a_wider_line_and_lies_above():
    circuit = scored(Graph(4, 4), 40)
    lines = edge_lines(compose(circuit))
    assert circuit.scores is not None
    found = []
    for name, line in lines.items():
        row, column = circuit.graph.locate(name)
        found.append((abs(circuit.scores[row, column]), line.width))
        assert line.dashed == (circuit.scores[row, column] < 0)
    assert [strength for strength, _ in found] == sorted(strength for strength, _ in found)
    assert all(one[1] <= other[1] for one, other in pairwise(found))
    assert found[-1][1] > 3 * found[0][1]


def said(scene) -> str:
    return " ".join(part.text for part in scene.parts if isinstance(part, Words))


def test_weak_edges_fade_where_there_are_many_and_the_picture_says_how_many():
    scene = compose(scored(Graph(12, 12), 443))
    faded = [line for line in edge_lines(scene).values() if line.opacity < 0.5]
    assert len(faded) == 343
    assert "The 100 strongest edges are drawn in full; the other 343 are faded." in said(scene)
    assert "faded" not in said(compose(scored(Graph(12, 12), 68)))


def test_a_circuit_without_scores_is_drawn_alike_and_says_so():
    scene = compose(IOI.circuit)
    assert len({(line.width, line.opacity) for line in edge_lines(scene).values()}) == 1
    assert "The circuit has no scores, so all edges are drawn alike." in said(scene)
    assert "1,041 edges; 78 of them are a head's own query, key or value" in said(scene)


def test_so_many_edges_as_are_asked_for_are_the_strongest_and_the_rest_is_said_to_be_left_out():
    circuit = scored(Graph(6, 6), 200)
    scene = compose(circuit, edges=20)
    assert set(edge_lines(scene)) == set(scored(Graph(6, 6), 20).names())
    assert "The 20 strongest edges are drawn; 180 weaker ones are left out." in said(scene)
    with pytest.raises(EdgewiseError, match="no scores, so there is no telling"):
        compose(IOI.circuit, edges=20)
    with pytest.raises(EdgewiseError, match="should be at least 1, not 0"):
        compose(circuit, edges=0)


def test_more_edges_than_can_be_told_apart_are_cut_by_score_or_refused_without_one():
    scene = compose(scored(Graph(12, 12), 4000))
    assert len(edge_lines(scene)) == 3000
    assert "1,000 weaker ones are left out" in said(scene)
    full = Circuit.full(Graph(12, 12))
    with pytest.raises(EdgewiseError, match="32,491 edges and no scores"):
        draw(full)
    assert full._repr_svg_() is None


def test_marks_show_which_inputs_edges_lead_into_and_which_are_only_there():
    graph = Graph(2, 2, ports=True)
    names = ["input->a1.h0<q>", "a1.h0<q>->a1.h0", "a1.h0<v>->a1.h0", "a1.h0->logits"]
    scene = compose(Circuit.from_names(graph, names))
    marks = {part.says: part.fill for part in scene.parts if isinstance(part, Box) and "<" in part.says}
    assert marks == {"a1.h0<q>": KIND_COLOURS["q"], "a1.h0<v>": "#ffffff"}


def test_an_edge_into_a_shared_key_is_drawn_once():
    graph = Graph(2, 4, n_kv_heads=2)
    names = ["input->a1.g0<k>", "input->a1.h0<q>", "input->a1.h1<q>", "a1.h0->logits", "a1.h1->logits"]
    scene = compose(Circuit.from_names(graph, names))
    assert len(edge_lines(scene)) == 5
    readers = [part.says for part in scene.parts if isinstance(part, Line) and "reads" in part.says]
    assert readers == ["a1.h0 reads the key and value of a1.g0", "a1.h1 reads the key and value of a1.g0"]


def test_an_empty_circuit_says_that_it_is_empty():
    assert "The circuit is empty." in said(compose(Circuit.empty(Graph(2, 2))))


def test_names_that_hold_markup_are_shown_and_not_run():
    bad = "<script>alert('1')</script> & \"quoted\" $x$ \x00"
    text = draw(TRACR_XPROPORTION.circuit, title=bad, subtitle=bad, groups={bad: ["m0"]}, notes=[bad], effect=bad)
    root = ElementTree.fromstring(text)  # well formed, control characters and all
    assert {element.tag for element in root.iter()} <= {SVG + tag for tag in ("svg", "title", "rect", "path", "text")}
    assert root.find(f"{SVG}title").text == printable(bad)
    assert "<script" not in text
    assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)


@pytest.mark.parametrize("suffix", [".svg", ".png", pytest.param(".pdf", marks=pytest.mark.slow)])
def test_the_same_circuit_is_the_same_file_byte_for_byte(suffix, tmp_path):
    circuit = scored(Graph(4, 4), 40)
    for name in ("one", "other"):
        circuit.draw(tmp_path / (name + suffix), title="$a$ <b> & c")
    one, other = ((tmp_path / (name + suffix)).read_bytes() for name in ("one", "other"))
    assert one == other
    assert one.startswith({".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])
    assert len(one) > 5000


def test_another_ending_is_refused_and_nothing_is_written(tmp_path):
    for name, why in (("a.jpg", "not '.jpg'"), ("a", "it has no ending")):
        with pytest.raises(EdgewiseError, match=f"should end in .svg, .png or .pdf, .*{why}"):
            TRACR_XPROPORTION.circuit.draw(tmp_path / name)
    with pytest.raises(EdgewiseError, match="cannot write"):
        TRACR_XPROPORTION.circuit.draw(tmp_path / "nowhere" / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_the_drawing():
    assert TRACR_XPROPORTION.circuit._repr_svg_() == draw(TRACR_XPROPORTION.circuit)


def test_words_take_no_more_room_than_is_kept_for_them():
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    for text in (
        "a10.h11",
        "backup name mover",
        "rise of kl_div without it",
        "WAMQ @ %&",
        "".join(map(chr, range(33, 127))),
    ):
        for bold in (False, True):
            font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=11)
            wide = TextPath((0, 0), text, prop=font).get_extents().width
            assert wide <= text_width(text, 11, bold=bold) * 1.02
            assert text_width(text, 11, bold=bold) < wide * 1.25


def test_an_svg_waits_for_neither_torch_nor_matplotlib():
    code = (
        "import sys; from edgewise.graph import Circuit, Graph; Circuit.full(Graph(2, 2)).draw(); "
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
