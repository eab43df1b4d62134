"""The page of a circuit in thirty layers: what one sees first, and how one finds one's way in it.

The run is written by hand: nodes of different weight, an edge's score the product of its ends', and the strongest
edges the circuit. What is to be drawn is worked out here a second time, from names alone.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import opened as opened_pages
import pytest
import tiny
from opened import GRAPH

import edgewise as ew
from edgewise.graph import Circuit, Graph
from edgewise.graph.groups import read_groups
from edgewise.reports.page import make_page, read_sources, write_gallery
from edgewise.reports.page.order import entering

sync_api = opened_pages.sync_api
pytestmark = opened_pages.needs_chromium

LAYERS = 30
AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason=opened_pages.tiny.NO_BUNDLER)


@dataclass(frozen=True)
class Large:
    folder: Path
    circuit: Circuit
    file: Path

    @property
    def lines(self) -> dict[str, float]:
        """Scores of the circuit's edges, port edges aside, by name."""
        scores = self.circuit.scores
        assert scores is not None
        names = set(self.circuit.names()) - set(self.circuit.port_names())
        return {name: float(scores[self.circuit.graph.locate(name)]) for name in names}


def write_large(folder: Path, edges: int, seed: int = 0, layers: int = LAYERS, spans: tuple[str, ...] = ()) -> Large:
    graph = Graph(layers, 4, n_kv_heads=4 if spans else 2, ports=True, spans=spans)
    drawn = np.random.default_rng(seed)

    def weights(names: Sequence[str]) -> np.ndarray:
        """MLPs matter, and of heads a few."""
        own = drawn.random(len(names))
        return np.array([0.2 + 0.5 * one if "." not in name else one**5 for name, one in zip(names, own, strict=True)])

    senders, readers = weights([one.name for one in graph.sources]), weights([one.name for one in graph.inputs])
    senders[0], readers[-1] = 1.0, 1.0
    scores = np.where(graph.edges, np.outer(senders, readers) * (0.2 + drawn.random(graph.edges.shape)), 0.0)
    scores[graph.locate(f"input->m0@{spans[-1]}" if spans else "input->m0")] = 5.0
    entered = entering(graph, scores)
    every = np.sort(np.concatenate([entered.edges[graph.edges], entered.ports[graph.port_edges]]))
    circuit = entered.at(graph, float(every[-edges])).with_scores(scores, np.zeros(len(graph.inputs)))
    result = {"n_edges": circuit.n_edges, "n_graph_edges": graph.n_edges, "scoring": {"rule": "threshold"}}
    result.update(metric=-1.5, metric_full=-6.0, metric_ablated=1.0)
    settings = {"method": "by hand", "ablation": "resample", "metric": "logit_diff"}
    settings |= {"model": {"name": "large", "dtype": "float32", "fingerprint": ""}}
    settings |= {"task": {"task": "none", "examples": 4}}
    record = {"form": 1, "settings": settings, "result": result, "graph": asdict(graph)}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record))
    ew.save_circuit(circuit, folder / "circuit.json")
    (folder / "trace.jsonl").write_text("")
    rows = {"clean": "Mary and John went. John gave it to", "corrupt": "…", "answer": [" Mary"], "wrong": [" John"]}
    (folder / "prompts.jsonl").write_text(json.dumps(rows) + "\n")
    file = folder.with_suffix(".html")
    file.write_text(make_page(read_sources([folder]), [{}]))
    return Large(folder, circuit, file)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Large:
    return write_large(tmp_path_factory.mktemp("large") / "run", 400)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Large:
    return write_large(tmp_path_factory.mktemp("other") / "other", 300, seed=1)


@pytest.fixture(scope="module")
def both(large, other, tmp_path_factory) -> Path:
    """A page of two runs."""
    file = tmp_path_factory.mktemp("both") / "both.html"
    file.write_text(make_page(read_sources([large.folder, other.folder]), [{}, {}]))
    return file


@pytest.fixture(scope="module")
def gallery(large, other, tmp_path_factory) -> Path:
    """The first page of a gallery of two runs."""
    sources = read_sources([large.folder]) + read_sources([other.folder])
    return write_gallery(tmp_path_factory.mktemp("site") / "gallery", [(source, {}) for source in sources])[0]


@pytest.fixture
def page(browser, large):
    """The page as it opens in a window of 1440 x 900."""
    browser.page.set_viewport_size({"width": 1440, "height": 900})
    yield browser.open(large.file)
    browser.page.set_viewport_size({"width": 1400, "height": 1000})


def ends(name: str) -> tuple[str, str]:
    """The nodes that an edge joins; keys and values that heads share are nodes."""
    sender, place = name.split("->")
    return sender, place.split("<")[0]


def reached(lines: set[str], start: str, *, up: bool) -> set[str]:
    """Edges on paths from a node up or down. A key or value that heads share leads into those heads."""
    found: set[str] = set()
    todo, seen = [start], set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        layer, _, rest = node.partition(".")
        if up and rest.startswith("g"):
            todo += [f"{layer}.h{2 * int(rest[1:]) + one}" for one in (0, 1)]
        if not up and rest.startswith("h"):
            todo.append(f"{layer}.g{int(rest[1:]) // 2}")
        for name in lines:
            sender, reader = ends(name)
            if (sender if up else reader) == node:
                found.add(name)
                todo.append(reader if up else sender)
    return found


def test_the_first_view_has_the_strongest_paths_in_a_window(page, large):
    lines = large.lines
    assert len(lines) > 200
    drawn = page.drawn()
    assert 60 <= len(drawn) <= 75
    assert drawn < set(lines)
    assert set(sorted(lines, key=lambda name: -lines[name])[:30]) <= drawn
    for name in drawn:  # each on a path from the embedding to the logits, of what is drawn
        sender, reader = ends(name)
        assert sender == "input" or any(ends(one)[0] == "input" for one in reached(drawn, sender, up=False)), name
        assert reader == "logits" or any(ends(one)[1] == "logits" for one in reached(drawn, reader, up=True)), name
    assert page.page.evaluate(f"{GRAPH}.nameSize()") >= 11
    graph = page.page.locator("#graph").bounding_box()
    assert graph["y"] < 300
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 1440
    for box in page.boxes().values():
        x, _, width, _ = box["box"]
        assert 40 <= x - width / 2 < x + width / 2 <= graph["width"] + 1
    ink = "(c) => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
    ink += " let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n / (d.length / 4); }"
    assert 0.005 < page.page.locator("canvas.lines").evaluate(ink) < 0.5
    example = page.page.locator(".example").text_content()
    assert example == "a prompt: Mary and John went. John gave it to→ answer: Marynot John"
    # The sign that people read: a search's metric is the negative of it.
    assert "1.500 model 6.000, ablated −1.000" in page.page.locator(".figures").inner_text()
    assert page.said == []
    assert page.asked == [large.file.as_uri()]


def test_everything_is_a_click_away_and_so_are_the_strongest_alone(page, large):
    drawn = page.drawn()
    button = page.page.locator("#show-all")
    button.click()
    page.shows(large.circuit.n_edges)
    assert page.drawn() == set(large.lines)
    button.click()
    assert page.drawn() == drawn
    page.page.locator("#limit").select_option("20")
    assert 20 <= len(page.drawn()) < 35
    sync_api.expect(page.page).to_have_url(re.compile("#strongest=20$"))


def test_layers_fold_into_one_box_and_unfold(page):
    gutter = page.page.locator(".gutter")
    before = page.boxes()
    head = next(name for name, box in before.items() if ".h" in name and box["label"] == name)
    layer = head.split(".")[0][1:]
    gutter.get_by_role("button", name=f"fold layer {layer}", exact=True).click()
    after = page.boxes()
    assert after[head]["label"] != head
    assert {name for name in after if name.split(".")[0][1:] == layer} == set(after[head]["names"]) & set(before)
    folded = gutter.locator(f"button[aria-expanded=false]:has-text('{layer}')").first
    folded.click()
    assert page.boxes()[head]["label"] == head
    # What is pointed at in a folded box is every node in it.
    low, high = page.page.locator("#layer-from"), page.page.locator("#layer-to")
    low.select_option("5")
    high.select_option("9")
    inside = {name for name in page.boxes() if name not in ("input", "logits")}
    assert inside
    assert all(5 <= int(name.split(".")[0][1:]) <= 9 for name in inside)


def test_a_nodes_neighbourhood_is_what_reaches_it_and_what_it_reaches(page, large):
    lines = set(large.lines)
    node = max((name for name in page.boxes() if ".h" in name), key=lambda name: sum(name in one for one in lines))
    wanted = reached(lines, node, up=True) | reached(lines, node, up=False)
    assert len(wanted) < len(lines)
    page.choose(node)
    page.page.locator("#only").click()
    drawn = page.drawn()
    assert len(drawn) >= 20
    assert drawn <= wanted
    page.page.locator("#limit").select_option("all")
    assert page.drawn() == wanted
    page.page.locator("#direct").check()
    group = f"{node.split('.')[0]}.g{int(node.split('h')[1]) // 2}"
    assert page.drawn() == {name for name in lines if {node, group} & set(ends(name))}
    sync_api.expect(page.page).to_have_url(re.compile("direct=yes"))
    address = page.page.url
    # The link shows the same.
    same = page.drawn()
    page.page.goto("about:blank")
    page.page.goto(address)
    page.page.wait_for_selector("html[data-ready]")
    assert page.drawn() == same
    sync_api.expect(page.page.locator("#panel h2")).to_have_text(node)
    page.page.locator("#back").click()
    page.page.locator("#limit").select_option("all")
    assert page.drawn() == lines


def test_nodes_dragged_together_are_a_group_that_is_named_and_saved(page, large, tmp_path):
    boxes = page.boxes()
    one, other = [name for name, box in boxes.items() if ".h" in name and box["label"] == name][-2:]

    def drag(node: str, to: tuple[float, float]) -> None:
        page.page.mouse.move(*page.at(node))
        page.page.mouse.down()
        page.page.mouse.move(*to, steps=4)
        page.page.mouse.up()

    drag(one, page.at(other))
    box = page.boxes()[one]
    assert box["label"] == "group 1"
    assert {one, other} <= set(box["names"])
    name = page.page.locator(".group-name")
    name.fill("name movers")
    name.press("Enter")
    assert page.boxes()[other]["label"] == "name movers"
    with page.page.expect_download() as download:
        page.page.locator("#save-groups").click()
    file = tmp_path / "groups.json"
    download.value.save_as(file)
    assert read_groups(file, large.circuit.graph) == {"name movers": tuple(sorted({one, other}, key=list(boxes).index))}
    # The box goes where it is dragged, and so do its members once they stand by themselves.
    x, y = page.at(one)
    before = page.boxes()
    drag(one, (x - 40, y + 25))
    after = page.boxes()
    moved = shifts(before, after)
    assert set(moved) == set(before[one]["names"])
    assert set(moved.values()) <= {(-40, 24), (-40, 25)}
    page.page.locator("#put-back").click()
    assert not page.page.locator("#put-back").is_visible()
    page.page.locator("#boxed").uncheck()
    before = page.boxes()
    assert before[one]["label"] == one
    x, y = page.at(one)
    drag(one, (x - 18, y + 25))
    moved = shifts(before, page.boxes())
    assert {one, other} <= set(moved) < set(before)
    assert len(set(moved.values())) == 1
    assert set(moved.values()) <= {(-18, 24), (-18, 25)}


def shifts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """How far boxes went, in whole pixels, by the names in them; of those alone that went anywhere."""
    found = {}
    for name, box in before.items():
        x, y = (round(after[name]["box"][at] - box["box"][at]) for at in (0, 1))
        if (x, y) != (0, 0):
            found[name] = (x, y)
    return found


def test_layers_fold_in_the_columns_of_spans(browser, tmp_path):
    deep = write_large(tmp_path / "spans", 120, layers=12, spans=("start", "end"))
    opened = browser.open(deep.file)
    lines, gutter = set(deep.lines), opened.page.locator(".gutter")
    opened.page.locator("#limit").select_option("all")
    before, high = opened.boxes(), opened.page.locator("#graph .sheet").bounding_box()["height"]
    head = next(name for name in before if name.endswith("@start") and ".h" in name and before[name]["label"] in name)
    layer = head.split(".")[0][1:]
    gutter.get_by_role("button", name=f"fold layer {layer}", exact=True).click()
    after = opened.boxes()
    assert after.keys() == before.keys()
    assert opened.drawn() == lines, "edges lead into the box"
    for span in ("start", "end"):
        inside = {name for name in before if re.fullmatch(rf"[am]{layer}(\.h\d)?@{span}", name)}
        for name in inside:
            assert after[name]["span"] == span
            assert inside <= set(after[name]["names"])
    assert opened.page.locator("#graph .sheet").bounding_box()["height"] < high
    attention = opened.page.evaluate(f"() => {GRAPH}.attention()")
    columns = {one["name"]: (one["left"], one["right"]) for one in attention["columns"]}
    for box in after.values():
        x, _, width, _ = box["box"]
        assert columns[box["span"]][0] <= x - width / 2 < x + width / 2 <= columns[box["span"]][1]
    opened.page.mouse.click(*opened.at(head))
    assert opened.boxes()[head]["label"] == before[head]["label"]
    opened.page.locator("#layer-from").select_option("8")
    empty = gutter.locator(".empty").first
    sync_api.expect(empty).to_have_text(re.compile(r"^0–[789]$"))
    assert opened.page.locator("#graph .sheet").bounding_box()["height"] < high / 2
    assert opened.said == []


def test_pictures_and_tables_are_saved_as_files(page, large, tmp_path):
    for kind in ("svg", "png"):
        with page.page.expect_download() as download:
            page.page.locator(f"#save-{kind}").click()
        assert download.value.suggested_filename == f"none-large.{kind}"
        download.value.save_as(tmp_path / f"picture.{kind}")
    assert (tmp_path / "picture.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = ET.parse(tmp_path / "picture.svg").getroot()
    words = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {box["label"] for box in page.boxes().values()} <= words
    page.page.locator("#table-all").check()
    page.page.locator("#table").scroll_into_view_if_needed()
    sync_api.expect(page.page.locator("#table")).to_have_attribute("data-rows", str(large.circuit.n_edges))
    with page.page.expect_download() as download:
        page.page.locator("#table-save").click()
    download.value.save_as(tmp_path / "table.tsv")
    head, *rows = [line.split("\t") for line in (tmp_path / "table.tsv").read_text().splitlines()]
    assert head == ["edge", "kind", "score", "rank"]
    lines = [(name, float(score)) for name, kind, score, _ in rows if "port" not in kind]
    assert dict(lines) == pytest.approx(large.lines, rel=1e-4)
    assert [score for _, score in lines] == sorted((score for _, score in lines), reverse=True)
    page.page.locator("#table thead").get_by_role("button", name="edge").click()
    first = page.page.locator("#table tbody th").first.inner_text()
    assert first == min((row[0] for row in rows), key=lambda name: [int(p) if p.isdigit() else p for p in split(name)])


def split(name: str) -> list[str]:
    """Words and numbers apart, for the order in which people put names."""
    found = [""]
    for letter in name:
        if found[-1] and found[-1][-1].isdigit() != letter.isdigit():
            found.append("")
        found[-1] += letter
    return found


def test_on_a_phone_the_graph_comes_first_and_the_panel_is_where_one_taps(browser, large):
    page = browser.page
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        browser.open(large.file)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(f"{GRAPH}.nameSize()") >= 11
        tops = [page.locator(one).evaluate("(e) => e.getBoundingClientRect().top") for one in ("#graph", ".figures")]
        assert tops[0] < 260 < tops[1]
        page.mouse.click(*browser.at("m0"))
        sync_api.expect(page.locator("#panel h2")).to_have_text("m0")
        panel = page.locator("#panel").bounding_box()
        assert 844 / 2 < panel["y"] < panel["y"] + panel["height"] <= 844
        assert 0 < browser.at("m0")[1] < panel["y"]
    finally:
        page.set_viewport_size({"width": 1400, "height": 1000})


def test_what_a_number_means_is_told_by_key_and_let_go_of(page):
    button = page.page.locator(".figures .what").nth(2)
    button.focus()
    page.page.keyboard.press("Enter")
    told = page.page.locator(".meaning").inner_text()
    assert "(1.500 − −1.000) / (6.000 − −1.000) = 35.7%" in told
    assert "docs/evaluation.md" in told
    assert button.get_attribute("aria-expanded") == "true"
    page.page.keyboard.press("Escape")
    assert page.page.locator(".meaning").count() == 0
    assert page.page.evaluate("document.activeElement.className") == "what"


def violations(page) -> list[str]:
    """What axe-core finds wrong with a page as it stands."""
    page.evaluate(AXE.read_text("utf-8"))
    return page.evaluate(
        "async () => (await axe.run()).violations.map((one) =>"
        " `${one.id}: ${one.nodes.slice(0, 4).map((node) => node.html.slice(0, 120)).join(' | ')}`)"
    )


@needs_axe
@pytest.mark.parametrize(
    ("runs", "scheme"),
    tiny.slow_unless(lambda runs, scheme: (runs, scheme) == (1, "light"), product((1, 2), ("light", "dark"))),
)
def test_roles_names_and_contrast_are_as_axe_wants_them(browser, large, both, runs, scheme):
    browser.page.emulate_media(color_scheme=scheme)
    browser.open(large.file if runs == 1 else both)
    if runs == 1:
        browser.choose("m0")
        browser.page.locator(".figures .what").first.click()
    browser.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    found = violations(browser.page)
    browser.page.emulate_media(color_scheme="light")
    assert found == [], "\n".join(found)


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_gallerys_first_page_is_as_axe_wants_it(browser, gallery, scheme):
    browser.page.emulate_media(color_scheme=scheme)
    browser.page.goto(gallery.as_uri())
    found = violations(browser.page)
    browser.page.emulate_media(color_scheme="light")
    assert found == [], "\n".join(found)


@needs_axe
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_gallerys_other_pages_are_as_axe_wants_them(browser, gallery, scheme):
    browser.page.emulate_media(color_scheme=scheme)
    browser.page.goto(gallery.as_uri())
    browser.page.locator("li a").first.click()
    browser.page.wait_for_selector("html[data-ready]")
    assert browser.page.locator("#gallery").is_visible()
    found = violations(browser.page)
    browser.page.emulate_media(color_scheme="light")
    assert found == [], "\n".join(found)


def test_two_runs_show_what_one_alone_has(browser, large, other, both):
    opened = browser.open(both)
    assert 60 <= len(opened.drawn()) <= 75
    opened.page.locator("#limit").select_option("all")
    one, two = set(large.lines), set(other.lines)
    assert opened.drawn() == one | two
    focus = opened.page.locator("#focus")
    focus.select_option("own 1")
    assert opened.drawn() == two - one
    focus.select_option("shared")
    assert opened.drawn() == one & two
    focus.select_option("own 0")
    assert opened.drawn() == one - two
    focus.select_option("0")
    assert opened.drawn() == one
    assert opened.said == []


def test_a_gallery_leads_to_every_page_and_back(browser, other, gallery):
    page = browser.page
    browser.said.clear()
    page.goto(gallery.as_uri())
    assert [link.split("\n")[0] for link in page.locator("li a").all_inner_texts()] == ["none in large"] * 2
    assert page.locator("img").first.evaluate("(image) => image.complete && image.naturalWidth") == 320
    assert "35.7%" in page.locator("li").first.inner_text()
    assert "logit_diff 1.5000" in page.locator("li").first.inner_text()
    page.locator("li a").nth(1).click()
    page.wait_for_selector("html[data-ready]")
    assert browser.count("size") == other.circuit.n_edges
    page.locator("#gallery").click()
    page.wait_for_selector("li")
    assert browser.said == []
