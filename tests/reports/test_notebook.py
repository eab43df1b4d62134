"""What notebooks show: all of it true, none of it markup of a user's, and nothing of it needs Jupyter."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import tiny

import edgewise as ew
from edgewise.graph import Circuit, Graph
from edgewise.reports import notebook
from edgewise.reports.words import percent
from edgewise.runs.sweep import SweepPlan
from edgewise.tasks import PromptText

pytestmark = pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
EVIL = '<script>alert("x")</script><img src=x onerror=y>\x1b[2J'


class Reader(HTMLParser):
    """Cells, words and tags of a piece of HTML; every tag that needs an end has one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.cells: list[list[str]] = []
        self.marked: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "mark":
            self.marked.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data
        if "mark" in self.open:
            self.marked[-1] += data

    def value(self, row: str) -> str:
        """What stands behind a row's first cell."""
        return next(cells[1] for cells in self.cells if cells[0] == row)


@pytest.fixture(scope="module")
def model():
    return ew.load_model("tiny-induction")


@pytest.fixture(scope="module")
def task(model):
    return ew.load_task("induction", model, examples=8)


@pytest.fixture(scope="module")
def run(model, task):
    return ew.discover(model, task)


def test_a_task_shows_pairs_with_what_differs_marked_and_the_answers(model, task):
    pair = PromptText("Mary and John", "Mary and Paul", (" Mary",), (" John", " Paul"))
    shown = Reader(replace(task, text=(pair,))._repr_html_())
    assert shown.marked == ["John", "Paul"]
    assert shown.cells[1][2:] == ["Mary and John", "' Mary'", "' John' / ' Paul'"]
    assert shown.cells[2][1:3] == ["corrupt", "Mary and Paul"]
    assert task.describe() in shown.words
    whole = Reader(task._repr_html_())
    assert len(whole.cells) == 1 + 2 * notebook.PAIRS
    assert "and 3 more" in whole.words


def test_a_decoder_shows_its_family_its_shape_and_what_it_was_taken_to_have():
    decoder = tiny.llama(layers=3)
    shown = Reader(decoder._repr_html_())
    assert shown.value("family") == decoder.config.architecture
    assert f"{decoder.graph().n_edges:,} edges" in shown.value("graph")
    assert "4 heads over 2 key/value heads" in shown.value("layers 0 to 2")


def test_layers_that_are_alike_are_named_together():
    assert notebook._layers([0, 1, 2, 5, 7, 8]) == "layers 0 to 2, 5, 7 to 8"
    assert notebook._layers([4]) == "layer 4"


def test_a_run_shows_what_it_came_to_and_its_circuit(run):
    page = run._repr_html_()
    head, _, drawing = page.partition("<svg")
    assert drawing
    shown = Reader(head + page.partition("</svg>")[2])
    assert shown.value("found") == f"{run.circuit.n_edges} of {run.circuit.graph.n_edges} edges"
    assert shown.value("recovered") == percent(run.record["result"]["recovered"])
    assert shown.value("tests").startswith(f"{len(run.trace)} in ")
    titles = re.findall(r"<title>([^<]*-&gt;[^<]*)</title>", drawing)
    drawn = {html.unescape(title).partition(":")[0] for title in titles}
    assert drawn == set(run.circuit.names()) - set(run.circuit.port_names())


def test_a_run_that_failed_says_why_and_one_that_was_stopped_how_far_it_is(model, task, run):
    failed = ew.discover(model, task, threshold=1e6)
    assert "0 edges recovers" in Reader(failed._repr_html_().partition("<svg")[0] + "</div>").words
    stopped = {"why": "interrupted", "at": "a1.h0<q>", "decided": 3, "of": 105}
    cut = replace(run, record={**run.record, "finished": False, "stopped": stopped})
    assert "interrupted: 3 of 105 edges decided, up to a1.h0&lt;q&gt;" in cut._repr_html_()


def test_a_circuit_is_drawn_or_where_it_cannot_be_shown_as_a_table(run):
    assert run.circuit._repr_html_() is None
    assert run.circuit._repr_svg_() is not None
    large = Circuit.full(Graph(12, 12, ports=False))
    assert large._repr_svg_() is None
    shown = Reader(large._repr_html_() or "")
    assert [cells[0] for cells in shown.cells[1:]] == ["logits", *map(str, reversed(range(12))), "embed"]


def test_an_evaluation_shows_every_metric_beside_the_model(run):
    evaluation = run.evaluate()
    shown = Reader(evaluation._repr_html_())
    metrics = {cells[0]: cells for cells in shown.cells}
    assert set(evaluation.measured) <= set(metrics)
    recovered = evaluation.measured["kl_div"].recovered
    assert recovered is not None
    assert percent(recovered) in shown.words


def test_a_sweep_shows_a_row_for_each_circuit(model, task):
    found = ew.sweep(ew.Experiment(model, task), [SweepPlan("acdc", (1.0, 0.3)), SweepPlan("random", (5, 9))])
    shown = Reader(found._repr_html_())
    for series in found:
        for point in series.points:
            assert [f"{point.setting:.4g}", f"{point.circuit.n_edges}"] in [cells[:2] for cells in shown.cells]
    assert repr(found[1]).startswith("<Series: random, 2 circuits of ")
    assert Reader(type(found)()._repr_html_()).words == "no series"


def test_no_text_of_a_users_is_markup(model, task, run):
    pair = PromptText(EVIL, EVIL[::-1], (EVIL,), (EVIL,))
    evil = replace(task, name=EVIL, text=(pair,))
    record = {**run.record, "settings": {**run.record["settings"], "metric": EVIL, "method": EVIL, "ablation": EVIL}}
    stopped = {"decided": 1, "of": 1, "why": EVIL, "at": EVIL}
    measured = {EVIL: next(iter(run.evaluate().measured.values()))}
    for page in (
        evil._repr_html_(),
        replace(model, name=EVIL)._repr_html_(),
        replace(run, task=evil, record={**record, "finished": False, "stopped": stopped})._repr_html_(),
        replace(run.evaluate(), metric=EVIL, measured=measured)._repr_html_(),
    ):
        shown = Reader(page.partition("<svg")[0] + page.partition("</svg>")[2])
        assert not shown.tags & {"script", "img"}
        assert "\x1b" not in page
        assert "<script>" in shown.words or "<script>" in "".join(shown.marked)


def test_the_page_stands_in_a_frame_that_can_do_nothing_to_the_notebook(run, tmp_path):
    shown = run.page(prompts=1, height=500)
    frame = shown._repr_html_()
    assert 'sandbox="allow-scripts' in frame
    assert "allow-same-origin" not in frame
    assert "height:500px" in frame
    run.report(tmp_path / "page.html", prompts=1)
    assert len(shown.html) == len((tmp_path / "page.html").read_text())
    assert repr(shown).startswith("<Page of ")


def test_the_widget_says_what_it_needs(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "edgewise.reports.notebook_view", raising=False)
    with pytest.raises(ew.EdgewiseError, match=r"pip install 'edgewise\[notebook\]'"):
        run.show()


@pytest.mark.slow
def test_all_of_it_goes_without_jupyter():
    program = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("IPython", "anywidget", "ipywidgets", "traitlets"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import edgewise as ew
model = ew.load_model("or-gate")
task = ew.load_task("or-gate", model)
run = ew.discover(model, task, progress=True)
assert "<table" in task._repr_html_() and "<table" in model._repr_html_() and "<svg" in run._repr_html_()
assert "iframe" in run.page()._repr_html_()
try:
    run.show()
except ew.EdgewiseError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'edgewise[notebook]'" in done.stdout
