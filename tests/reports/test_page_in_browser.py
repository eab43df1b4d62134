"""The page as a person uses it, in Chromium: what is clicked, searched, slid and filtered is what is shown.

Counts come from the run's own files, not from the page.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import opened as opened_pages
import pytest
import tiny
import transformers
from opened import GRAPH
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

import edgewise as ew
from edgewise.discovery import by_threshold
from edgewise.graph import Circuit, Graph, carried, load_circuit
from edgewise.reports.page import make_page, measure, read_sources
from edgewise.tasks import GivenCircuit

sync_api = opened_pages.sync_api
pytestmark = opened_pages.needs_chromium


def lines_of(circuit: Circuit) -> set[str]:
    """The names of a circuit's edges that are lines in a picture."""
    return set(circuit.names()) - set(circuit.port_names())


@dataclass(frozen=True)
class Made:
    """A run, its folder and its page."""

    run: ew.Run
    folder: Path
    file: Path


def make(folder: Path, model_name: str, task_name: str, **options: object) -> Made:
    model = ew.load_model(model_name)
    task = ew.load_task(task_name, model)
    run = ew.discover(model, task, command=["edgewise", "discover", task_name], **options)  # type: ignore[arg-type]
    saved = run.save(folder)
    (source,) = read_sources([saved])
    file = folder.with_suffix(".html")
    file.write_text(make_page([source], [measure(source, model, task)]))
    return Made(run, saved, file)


@pytest.fixture(scope="module")
def ioi(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("ioi") / "ioi", "tiny-ioi", "ioi", threshold=0.01)


@pytest.fixture(scope="module")
def narrowed(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("narrowed") / "ioi", "tiny-ioi", "ioi", threshold=0.02, within=200, passes=2)


@pytest.fixture(scope="module")
def coupled(ioi, tmp_path_factory) -> Made:
    """A page of a run whose heads are coupled, its circuit a path through a head that reads nothing itself."""
    graph = Graph(1, 2, ports=False, coupled=True, d_model=8)
    circuit = Circuit.from_names(graph, ["input->a0.h0<q>", "a0.h1->m0", "m0->logits"])
    (folder := tmp_path_factory.mktemp("coupled") / "run").mkdir()
    record = json.loads((ioi.folder / "run.json").read_text())
    record |= {"graph": asdict(graph)}
    record["result"] |= {"n_edges": 3, "n_graph_edges": graph.n_edges}
    record["result"].pop("known_circuit", None)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "trace.jsonl").write_text("")
    ew.save_circuit(circuit, folder / "circuit.json")
    file = folder.with_suffix(".html")
    file.write_text(make_page(read_sources([folder]), [{}]))
    return Made(ew.load_run(folder), folder, file)


@pytest.fixture(scope="module")
def spans(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("spans") / "each", "tracr-reverse", "tracr-reverse", positions="each")


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Made:
    options = {"method": "edge-attribution-ig", "edges": 12}
    return make(tmp_path_factory.mktemp("reverse") / "reverse", "tracr-reverse", "tracr-reverse", **options)


def test_the_page_opens_from_disk_without_an_error_or_a_request(browser, ioi):
    opened = browser.open(ioi.file)
    circuit = load_circuit(ioi.folder / "circuit.json")
    assert circuit.n_edges == 31
    assert opened.count() == 31
    assert opened.drawn() == lines_of(circuit)
    opened.page.locator("#settings").scroll_into_view_if_needed()
    opened.page.wait_for_timeout(200)
    assert opened.said == []
    assert opened.asked == [ioi.file.as_uri()]
    assert opened.page.locator("h1").inner_text() == "ioi in tiny-ioi"
    assert "edgewise discover ioi" in opened.page.locator("#settings code").inner_text()


def test_a_click_on_a_node_follows_its_paths_up_and_down(browser, ioi):
    opened = browser.open(ioi.file)
    circuit = load_circuit(ioi.folder / "circuit.json")
    opened.page.mouse.click(*opened.at("a3.h1"))
    panel = opened.page.locator("#panel")
    sync_api.expect(panel.locator("h2")).to_have_text("a3.h1")
    wanted = paths_through(circuit, "a3.h1")
    assert opened.bright() == wanted
    assert 2 < len(wanted) < len(lines_of(circuit))
    for name in circuit.names():
        own = name.startswith("a3.h1->") or "->a3.h1" in name
        assert panel.locator(f'button[data-edge="{name}"]').count() == own
    assert panel.locator("svg.heat").count() == 2
    opened.page.keyboard.press("Escape")
    assert opened.bright() == set()
    sync_api.expect(panel.locator("h2")).to_have_text("Strongest edges")


def paths_through(circuit: Circuit, node: str) -> set[str]:
    """Edges on a path through a head, by a search of its own over the names."""
    edges = [(name, *name.split("->")) for name in lines_of(circuit)]
    found: set[str] = set()
    for start, end in ((1, 2), (2, 1)):
        seen, queue = set(), [node]
        while queue:
            now = queue.pop()
            seen.add(now)
            for edge in edges:
                if edge[start].split("<")[0] == now:
                    found.add(edge[0])
                    queue += [edge[end].split("<")[0]] if edge[end].split("<")[0] not in seen else []
    return found


def test_pointing_at_a_node_shows_its_paths_until_the_pointer_leaves(browser, ioi):
    opened = browser.open(ioi.file)
    circuit = load_circuit(ioi.folder / "circuit.json")
    opened.page.mouse.move(*opened.at("a0.h0"), steps=3)
    opened.page.wait_for_timeout(100)
    assert opened.bright() == paths_through(circuit, "a0.h0")
    opened.page.mouse.move(5, 5, steps=3)
    opened.page.wait_for_timeout(100)
    assert opened.bright() == set()


def test_an_edge_tells_its_effect_and_the_metric_before_and_after(browser, ioi):
    opened = browser.open(ioi.file)
    lines = lines_of(ioi.run.circuit)  # a port edge would count its head twice
    strongest = max((step for step in ioi.run.trace if step.edge in lines), key=lambda step: step.effect)
    button = opened.page.locator("#panel button[data-edge]").first
    assert button.get_attribute("data-edge") == strongest.edge
    button.click()
    facts = opened.page.locator("#panel .facts").inner_text()
    assert f"+{strongest.effect:.3f}" in facts
    assert f"{strongest.after:.3f}" in facts
    number = [step.edge for step in ioi.run.trace].index(strongest.edge) + 1
    assert f"kept, number {number} of {len(ioi.run.trace)} tested" in facts


def test_the_slider_goes_back_along_the_trace(browser, ioi):
    opened = browser.open(ioi.file)
    trace = ioi.run.trace
    opened.slide(0)
    opened.shows(527, "size")
    opened.shows(0)
    assert opened.count("coming") == 527
    half = len(trace) // 2
    opened.slide(half)
    opened.shows(sum(step.kept for step in trace[:half]))
    now = trace[half - 1].before if trace[half - 1].kept else trace[half - 1].after
    assert float(opened.page.locator("#count").get_attribute("data-metric") or "nan") == pytest.approx(now, rel=1e-4)
    gone = {step.edge for step in trace[:half] if not step.kept}
    assert gone
    assert not gone & opened.drawn()
    cursor = opened.page.locator(".cursor")
    middle = float(cursor.get_attribute("x1") or 0)
    opened.slide(len(trace))
    opened.shows(31)
    assert float(cursor.get_attribute("x1") or 0) > middle + 50
    opened.slide(3)
    opened.page.locator("#as-found").click()
    opened.shows(31)
    assert opened.drawn() == lines_of(ioi.run.circuit)


def test_the_slider_knows_the_shortlist_and_the_passes_of_a_search(browser, narrowed):
    opened, run = browser.open(narrowed.file), narrowed.run
    trace, first = run.trace, run.record["result"]["passes"][0]
    assert "acdc at threshold 0.02 within 200 edges in 2 passes on" in opened.page.locator(".how").inner_text()
    opened.slide(0)
    opened.shows(200, "size")
    assert opened.count("coming") == 200
    opened.slide(first["tests"])
    opened.shows(first["n_edges"])
    assert opened.count("coming") == 0
    opened.slide(first["tests"] + 4)
    opened.shows(sum(step.kept for step in trace[first["tests"] :][:4]))
    assert opened.count("coming") + opened.count() == opened.count("size")
    assert "pass 2 · decision" in opened.page.locator(".readout").inner_text()
    opened.page.locator("#as-found").click()
    opened.shows(run.circuit.n_edges)

    def facts(name: str) -> str:
        opened.choose(name)
        return opened.page.locator("#panel .facts").inner_text()

    twice = next(step for step in trace[first["tests"] :] if step.kept and step.edge in lines_of(run.circuit))
    at = [step.edge for step in trace].index(twice.edge, first["tests"]) + 1
    earlier = next(step for step in trace if step.edge == twice.edge)
    said = facts(twice.edge)
    assert f"kept, in pass 2, number {at} of {len(trace)} tested" in said
    assert f"+{earlier.effect:.3f}" in said
    assert not opened.said


def test_the_page_says_that_heads_are_coupled_and_follows_paths_through_all_of_them(browser, coupled, ioi):
    assert browser.open(ioi.file).page.locator("#coupled").count() == 0
    opened, circuit = browser.open(coupled.file), coupled.run.circuit
    said = opened.page.locator("#coupled")
    assert "The heads of a layer are coupled" in said.inner_text()
    assert lines_of(circuit) == {"input->a0.h0<q>", "a0.h1->m0", "m0->logits"}
    opened.choose("input->a0.h0<q>")
    opened.page.wait_for_timeout(100)
    assert opened.bright() >= {"a0.h1->m0", "m0->logits"}, "through a0.h1, which reads nothing itself"
    opened.page.keyboard.press("Escape")


def test_spans_are_columns_with_lines_of_attention_between_them(browser, spans):
    opened, circuit = browser.open(spans.file), spans.run.circuit
    opened.page.locator("#missed").click()
    assert opened.drawn() == lines_of(circuit)
    attention = opened.page.evaluate(f"() => {GRAPH}.attention()")
    columns = {one["name"]: (one["left"], one["right"]) for one in attention["columns"]}
    assert list(columns) == ["0", "1", "2", "3"]
    assert sorted(columns.values()) == list(columns.values())
    for box in opened.boxes().values():
        x, _, width, _ = box["box"]
        assert columns[box["span"]][0] <= x - width / 2 < x + width / 2 <= columns[box["span"]][1]
    wanted = {f"{one.reader}@{one.at} {one.node}@{one.to}" for one in carried(circuit)}
    assert {f"{start} {end}" for start, end, lit in attention["arcs"] if lit} == wanted
    assert "a0.h0@0 a0.h0@3" in wanted


def test_paths_go_on_where_attention_carries_keys_and_values(browser, spans):
    opened, page = browser.open(spans.file), browser.page
    page.locator("#missed").click()
    opened.choose("a0.h0@0")
    title = page.locator("#panel h2")
    sync_api.expect(title).to_have_text("a0.h0@0")
    sync_api.expect(page.locator("#panel")).to_contain_text("layer 0, head 0 at 0")
    assert page.locator("#panel button.chip").all_inner_texts() == ["a0.h0@1", "a0.h0@2", "a0.h0@3"]
    bright = opened.bright()
    assert {"tok->a0.h0<v>@0", "a0.h0->m0@1", "m2->a3.h0<q>@3", "a3.h0->logits@2"} <= bright
    assert not {name for name in bright if name.startswith("pos->")}, "no path from a0.h0 goes through the position"
    opened.choose("m2@3")
    assert "a3.h0->logits@3" in opened.bright()
    assert not {"a3.h0->logits@1", "a3.h0->logits@2"} & opened.bright(), "what a query reads stays at its span"
    opened.choose("m2@1")
    assert opened.bright() >= {"m2->a3.h0<q>@1", "tok->a0.h0<v>@0"}
    assert not {name for name in opened.bright() if name.endswith(("@2", "@3"))}
    wanted = {name for name in spans.run.circuit.names() if "@2" in name}
    page.keyboard.press("Escape")
    page.locator("#search").fill("@2")
    sync_api.expect(page.locator("#results")).to_have_attribute("data-edges", str(len(wanted)))
    page.locator("#search").fill("tok->a3.h0<v>@2")
    page.locator("#search").press("Enter")
    sync_api.expect(title).to_have_text("tok → a3.h0<v>@2")
    sync_api.expect(page.locator("#panel .unit")).to_contain_text("into a value at 2")
    assert {"a3.h0->logits@2", "a3.h0->logits@3"} <= opened.bright()
    assert "a3.h0->logits@1" not in opened.bright()
    opened.slide(0)
    opened.shows(424, "size")
    opened.slide(len(spans.run.trace))
    opened.shows(spans.run.circuit.n_edges)
    assert opened.said == []


def test_the_slider_of_a_scored_run_cuts_by_score(browser, scored):
    opened = browser.open(scored.file)
    run = scored.run
    assert opened.count() == run.circuit.n_edges
    thresholds = sorted({score for score in run.circuit.scores[run.circuit.graph.edges].tolist() if score > 0})[::-1]
    sizes = {by_threshold(run.circuit, threshold).circuit.n_edges for threshold in thresholds}
    last = int(opened.page.locator("#slider").get_attribute("max") or 0)
    seen = set()
    for stop in range(last + 1):
        opened.slide(stop)
        opened.page.wait_for_timeout(40)
        seen.add(opened.count("size"))
    assert {size for size in sizes if size} <= seen
    assert len(sizes) > 3


def test_found_missed_and_extra_edges_are_told_apart(browser, scored):
    opened = browser.open(scored.file)
    known = ew.load_task("tracr-reverse", ew.load_model("tracr-reverse")).known_circuit
    missed = (known.circuit - scored.run.circuit).n_edges
    extra = scored.run.circuit - known.circuit
    assert missed
    opened.shows(missed, "missed")
    legend = opened.page.locator("#legend")
    sync_api.expect(legend).to_contain_text(f"missed ({missed})")
    sync_api.expect(legend).to_contain_text(f"extra ({extra.n_edges})")
    opened.page.locator("#missed").click()
    opened.shows(0, "missed")
    assert opened.drawn() == lines_of(scored.run.circuit)
    row = opened.page.locator("#known tbody tr").first.inner_text().split()
    assert row[1:4] == [str((known.circuit & scored.run.circuit).n_edges), str(missed), str(extra.n_edges)]


def test_groups_of_ones_own_have_colours_a_legend_and_a_table(browser, tmp_path, ioi):
    own = {"<b>first</b>": ["a0.h0", "a0.h1"], "last": ["a3.h1", "a3.h3"]}
    file = tmp_path / "groups.html"
    file.write_text(make_page(read_sources([ioi.folder], groups=own), [{}]))
    opened = browser.open(file)
    there = set(ioi.run.circuit.nodes())
    rows = opened.page.locator("#groups tbody tr").all_inner_texts()
    for row, (name, members) in zip(rows, own.items(), strict=True):
        assert row.startswith(name)
        assert f"{len(there & set(members))} of 2" in row
        assert all(node in row for node in members)
    assert opened.page.locator("#known").count() == 0
    sync_api.expect(opened.page.locator("#legend")).to_contain_text("<b>first</b>")
    colours = {name: box["colour"] for name, box in opened.boxes().items()}
    assert colours["a0.h0"] == colours["a0.h1"] != colours["a3.h1"]
    assert colours["a0.h2"] not in (colours["a0.h0"], colours["a3.h1"])
    assert opened.said == []


def test_a_known_circuit_of_ones_own_is_called_by_its_name(browser, tmp_path, ioi):
    truth = ioi.run.circuit.remove("a0.h1->logits").add("m0->logits")
    file = tmp_path / "known.html"
    known = GivenCircuit("theirs.json", truth)
    file.write_text(make_page(read_sources([ioi.folder], known=known, groups={"x": ["a0.h1"]}), [{}]))
    opened = browser.open(file)
    part = opened.page.locator("#known")
    sync_api.expect(part).to_contain_text(f"The circuit of theirs.json: {truth.n_edges} edges.")
    sync_api.expect(part).to_contain_text("edges found and precision count the edges into and out of its nodes")
    assert part.locator("tbody tr").first.inner_text().split()[1:4] == ["30", "1", "1"]
    assert part.locator(".groups tbody tr").first.inner_text().split()[:4] == ["x", "1", "of", "1"]
    assert opened.page.locator("#groups").count() == 0
    opened.shows(1, "missed")
    assert opened.said == []


@tiny.needs_shared
def test_shared_keys_and_values_are_nodes_tied_to_their_readers(browser, tmp_path):
    folder = tiny.SHARED / "models" / "stories260k"
    model = ew.load_model(folder)
    run = ew.discover(model, ew.load_task(folder / "gender_pronoun.jsonl", model, examples=8), threshold=0.05)
    file = tmp_path / "stories.html"
    file.write_text(make_page(read_sources([run.save(tmp_path / "stories")]), [{}]))
    opened = browser.open(file)
    circuit = run.circuit
    opened.shows(circuit.n_edges)
    assert opened.drawn() == lines_of(circuit)
    group = next(name.split("->")[1].split("<")[0] for name in lines_of(circuit) if ".g" in name)
    layer, number = (int(part[1:]) for part in group.split("."))
    readers = {f"a{layer}.h{head}" for head in (2 * number, 2 * number + 1)} & set(circuit.nodes())
    opened.page.locator(".components summary").click()
    opened.page.locator(f"#components [data-node='{group}']").click()
    buttons = opened.page.locator("#panel button.chip").all_inner_texts()
    assert readers <= set(buttons)
    assert readers
    ties = opened.page.evaluate(f"() => {GRAPH}.attention().ties")
    drawn_in = opened.boxes()[group]
    if len(readers) > 1:
        assert {end for start, end in ties if start == group} == readers
        assert drawn_in["label"] == group
    else:  # at the one head that reads it
        assert drawn_in["label"] == readers.pop()
    assert opened.said == []


def test_search_finds_nodes_and_edges_and_enter_chooses(browser, ioi):
    opened = browser.open(ioi.file)
    search = opened.page.locator("#search")
    search.fill("a3.h1<")
    wanted = {name for name in ioi.run.circuit.names() if "a3.h1<" in name}
    sync_api.expect(opened.page.locator("#results")).to_have_attribute("data-edges", str(len(wanted)))
    assert opened.bright() == wanted - set(ioi.run.circuit.port_names())
    search.fill("a3.h2")
    search.press("Enter")
    sync_api.expect(opened.page.locator("#panel h2")).to_have_text("a3.h2")
    search.fill("no such thing")
    sync_api.expect(opened.page.locator("#results")).to_have_text("nothing of that name is shown")


def test_kinds_and_layers_can_be_left_out(browser, ioi):
    opened = browser.open(ioi.file)
    names = ioi.run.circuit.names()
    values = {name for name in names if name.split("->")[1].endswith("<v>") or "<v>->" in name}
    assert 0 < len(values) < len(names)
    opened.page.locator("#kind-v").click()
    opened.shows(len(names) - len(values))
    assert opened.drawn() == lines_of(ioi.run.circuit) - values
    opened.page.locator("#kind-v").click()
    opened.page.locator("#layer-from").select_option("1")
    late = [name for name in names if "a0." not in name and "m0" not in name]
    opened.shows(len(late))
    assert 0 < len(late) < len(names)


def test_the_list_says_what_the_graph_shows(browser, ioi):
    opened = browser.open(ioi.file)
    sync_api.expect(opened.page.locator("#list")).to_have_attribute("data-edges", "31")
    rows = opened.page.locator("#list tbody tr")
    listed = set()
    # Not as it is shown: what is far below is not laid out.
    for place, senders in rows.evaluate_all(
        "(rows) => rows.map((one) => [...one.cells].map((cell) => cell.textContent))"
    ):
        listed |= {f"{sender.strip()}->{place.replace('●', '').strip()}" for sender in senders.split(",")}
    assert listed == lines_of(ioi.run.circuit)


def test_the_keyboard_reaches_everything_and_moves_along_edges(browser, ioi):
    opened = browser.open(ioi.file)
    page = opened.page
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert [name for name in reached if name in ("theme", "search", "kind-q", "layer-from", "graph", "slider")] == [
        *("theme", "search", "kind-q", "layer-from", "graph", "slider")
    ]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.locator("#graph").focus()
    outline = page.locator("#graph").evaluate("(graph) => getComputedStyle(graph).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("ArrowDown")
    title = page.locator("#panel h2")
    sync_api.expect(title).to_have_text("logits")
    page.keyboard.press("ArrowDown")
    into = [step for step in ioi.run.trace if step.kept and step.edge.endswith("->logits")]
    strongest = max(into, key=lambda step: step.effect).edge.split("->")[0]
    sync_api.expect(title).to_have_text(strongest)
    page.keyboard.press("ArrowUp")
    sync_api.expect(title).to_have_text("logits")
    sync_api.expect(page.locator("[aria-live=polite]")).to_contain_text(f"along {strongest}->logits to logits")


def test_light_and_dark_follow_the_system_and_a_button(browser, ioi):
    opened = browser.open(ioi.file)
    page = opened.page
    body = sync_api.expect(page.locator("body"))
    page.emulate_media(color_scheme="dark")
    body.to_have_css("background-color", "rgb(20, 24, 30)")
    page.locator("#theme").click()
    body.to_have_css("background-color", "rgb(255, 255, 255)")
    page.emulate_media(color_scheme="light")
    assert opened.said == []


def test_several_runs_tell_shared_and_own_edges_apart(browser, ioi, tmp_path):
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model)
    other = ew.discover(model, task, threshold=0.2)
    sources = read_sources([ioi.folder, other.save(tmp_path / "high")])
    file = tmp_path / "both.html"
    file.write_text(make_page(sources, [{}, {}]))
    opened = browser.open(file)
    one, two = ioi.run.circuit, other.circuit
    opened.shows((one | two).n_edges)
    legend = opened.page.locator("#legend")
    sync_api.expect(legend).to_contain_text(f"in all runs ({(one & two).n_edges})")
    sync_api.expect(legend).to_contain_text(f"only in ioi ({(one - two).n_edges})")
    share = (one & two).n_edges / (one | two).n_edges
    assert opened.page.locator("#jaccard tbody tr").first.inner_text().split() == ["ioi", "1.00", f"{share:.2f}"]
    opened.page.locator("#focus").select_option("1")
    opened.shows(two.n_edges)
    assert opened.drawn() == lines_of(two)
    assert opened.said == []


def test_an_interrupted_run_says_so_first(browser, ioi, tmp_path):
    folder = shutil.copytree(ioi.folder, tmp_path / "left")
    record = json.loads((folder / "run.json").read_text())
    stopped = {"why": "interrupted", "at": "m1", "decided": 300, "of": 527, "tests": 90}
    (folder / "run.json").write_text(json.dumps({**record, "finished": False, "stopped": stopped}))
    file = tmp_path / "left.html"
    file.write_text(make_page(read_sources([folder]), [{"notes": ["no model"]}]))
    opened = browser.open(file)
    notices = opened.page.locator(".notice").all_inner_texts()
    assert "This run was interrupted at m1, with 300 of 527 edges decided" in notices[0]
    assert notices[1] == "no model"


INJECTED = [
    "<script>document.title='run'</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "{{7*7}}${7*7}",
    "javascript:alert(1)//",
    "<style>body{display:none}</style>",
]


def test_what_users_wrote_is_shown_and_never_run(browser, tmp_path):
    """Scripts in prompts, answers, names of model, task and folder, groups, notes and the command."""
    name = "<img src=x onerror=alert(1)>"
    model_folder = save_words_model(tmp_path / "<script>alert(2)<")
    prompts = tmp_path / f"{name}.jsonl"
    rows = [
        {"clean": f"{word} the girl", "corrupt": f"{word} the boy", "answer": "She", "wrong": INJECTED[0]}
        for word in INJECTED
        if " " not in word
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ew.load_model(model_folder)
    task = ew.load_task(prompts, model)
    run = ew.discover(model, task, threshold=1e-6, command=["edgewise", *INJECTED])
    folder = run.save(tmp_path / "</script><script>alert(3)<")
    sources = read_sources([folder, folder])
    measured = [measure(source, model, task, prompts=len(rows)) for source in sources]
    for one in measured:
        one["notes"] = list(INJECTED)
    for count in (1, 2):
        file = tmp_path / f"{name}{count}.html"
        file.write_text(make_page(sources[:count], measured[:count]))
        opened = browser.open(file)
        page = opened.page
        for at in range(len(rows)):
            page.locator("#attention .picker button").last.click()
            assert (page.locator("#attention .prompt").text_content() or "").count("the girl") == 1, at
        page.locator("#search").fill(INJECTED[2])
        page.mouse.click(*opened.at("a1.h0"))
        page.wait_for_timeout(200)
        assert opened.said == []
        assert opened.asked == [file.as_uri()]
        assert page.locator("script").count() == 2
        assert page.locator("img, iframe, object, embed, link, a, base, form, style:not(head style)").count() == 0
        assert page.evaluate("document.querySelectorAll('[onload], [onerror], [href]').length") == 0
        assert page.locator("body").is_visible()
        assert name in page.locator("h1").inner_text()
        assert page.locator(".notice").all_inner_texts()[0].endswith(INJECTED[0])
        assert INJECTED[1] in (page.locator("#settings code").first.text_content() or "")
        assert any(word in (page.locator("#attention .prompt").text_content() or "") for word in INJECTED)


def save_words_model(folder: Path) -> Path:
    """A tiny GPT-2 whose tokenizer has the injected texts as words."""
    tiny.gpt2(layers=2, heads=2).source.save_pretrained(folder)
    words = ["<unk>", "the", "girl", "boy", "She", *(word for word in INJECTED if " " not in word)]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return folder


def test_the_policy_lets_no_other_script_run(browser, ioi):
    opened = browser.open(ioi.file)
    opened.page.evaluate(
        "() => { const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
        " document.body.append(one); new Image().src = 'http://127.0.0.1:9/x'; }"
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.ran") is None
    assert len([text for text in opened.said if "Content Security Policy" in text]) == 2
