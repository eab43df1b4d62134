"""The live view of a search: the growing circuit, layer by layer, on a terminal and nowhere else."""

import io
import math
import re

import pytest
import tiny
from rich.console import Console

import edgewise as ew
from edgewise.discovery import Progress
from edgewise.reports import search_progress
from edgewise.reports.growth import BAR, growth
from edgewise.reports.terminal import _View


def terminal(height=40, width=110) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def progress_of(model, **options) -> list[Progress]:
    reports: list[Progress] = []
    ew.discover(model, tiny.task(), threshold=0.002, progress=reports.append, **options)
    return reports


@pytest.mark.parametrize("engine", ["incremental", "plain"])
@pytest.mark.parametrize("model", [tiny.gpt2(layers=2), tiny.llama(layers=2)])
def test_the_layers_add_up_to_the_search_at_every_step(model, engine):
    reports = progress_of(model, engine=engine)
    for report in reports:
        assert sum(kept for kept, _, _ in report.layers) == report.kept
        assert sum(kept + dropped for kept, dropped, _ in report.layers) == report.decided - report.absent
        assert sum(map(sum, report.layers)) == report.edges - report.absent
        assert min(min(layer) for layer in report.layers) >= 0
    assert [left for _, _, left in reports[-1].layers] == [0, 0, 0]
    assert reports[0].kept < reports[-1].kept


def test_a_shortlist_and_a_second_pass_are_told_without_what_they_began_without():
    reports = [one for one in progress_of(tiny.gpt2(layers=2), within=60, passes=2) if one.layers]
    first = [one for one in reports if one.passes == 1]
    second = [one for one in reports if one.passes == 2]
    assert first
    assert second
    for some, began in ((first, 60), (second, first[-1].kept)):
        for one in some:
            assert sum(map(sum, one.layers)) == one.edges - one.absent <= began
            assert sum(kept for kept, _, _ in one.layers) == one.kept
        assert some[-1].decided == some[-1].edges
    console = terminal(width=200)
    with search_progress(console, "searching") as report:
        report(second[0])
        report(second[-1])
    out = console.file.getvalue()
    assert "searching, pass 2" in out
    assert f"{first[-1].kept} of {first[-1].kept} edges decided" in out


def test_the_layers_of_the_last_step_are_those_of_the_circuit():
    reports: list[Progress] = []
    found = ew.discover(tiny.gpt2(layers=2), tiny.task(), threshold=0.002, progress=reports.append)
    into = {0: 0, 1: 0, -1: 0}
    for column, place in enumerate(found.circuit.graph.inputs):
        into[place.layer] += int(found.circuit.edges[:, column].sum() + found.circuit.ports[column])
    assert [kept for kept, _, _ in reports[-1].layers] == [into[0], into[1], into[-1]]
    assert sum(into.values()) > 0


def test_every_layer_has_a_line_from_the_logits_down():
    lines = growth([(0, 0, 40), (3, 7, 30), (2, 8, 0)], terminal()).plain.splitlines()
    assert lines[0].split() == ["layer", "kept", "dropped", "to", "come"]
    assert [line.split()[0] for line in lines[1:]] == ["logits", "1", "0"]
    assert [line.split()[2:] for line in lines[1:]] == [["2", "8"], ["3", "7", "30"], ["40"]]
    bars = [re.search(r"[█─·]+", line) for line in lines[1:]]
    assert [len(bar[0]) for bar in bars if bar] == [BAR] * 3
    assert [bar[0].count("█") for bar in bars if bar] == [6, 2, 0]


def test_one_edge_kept_of_thousands_can_be_seen():
    bar = growth([(1, 30_000, 1)], terminal()).plain.splitlines()[1]
    assert bar.count("█") == 1
    assert bar.count("·") == 1


def test_a_model_taller_than_the_screen_is_shown_around_where_the_search_is():
    layers = [(0, 0, 10)] * 30 + [(1, 4, 5)] + [(2, 8, 0)] * 17 + [(5, 5, 0)]
    lines = growth(layers, terminal(height=14)).plain.splitlines()
    assert len(lines) <= 12
    assert any(line.startswith("30 ") for line in lines)
    assert lines[1].startswith("logits to ")
    assert re.match(r"\d+ to 0 ", lines[-1])
    total = sum(kept + dropped + left for kept, dropped, left in layers)
    beside_the_bars = [re.split(r"[█─·]+", line)[1] for line in lines[1:]]
    assert sum(int(number) for line in beside_the_bars for number in line.split()) == total


def test_a_terminal_shows_the_growing_circuit_and_leaves_nothing_behind():
    console = terminal()
    with search_progress(console, "acdc") as report:
        for progress in progress_of(tiny.gpt2(layers=2)):
            report(progress)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"logits +[█─·]{30}", shown)
    assert "to come" in shown
    # The last thing written is what removes the view: as many lines up as it had, each erased.
    assert shown.rstrip().endswith(("\x1b[2K", "\x1b[?25h"))


def test_what_is_no_terminal_gets_no_bars():
    console = Console(file=io.StringIO(), width=110)
    with search_progress(console, "acdc") as report:
        for progress in progress_of(tiny.gpt2(layers=1)):
            report(progress)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_methods_that_take_no_edge_by_itself_show_no_layers():
    reports = []
    ew.discover(tiny.gpt2(layers=1), tiny.task(), method="exact", threshold=0.002, progress=reports.append)
    assert reports
    assert all(report.layers == () for report in reports)


def test_what_scores_took_is_no_part_of_the_pace(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("edgewise.reports.terminal.time.perf_counter", lambda: now[0])
    view = _View(Console(file=io.StringIO()), "acdc", "kl_div")
    scores = Progress(8, 16, 0, 0, math.nan, "prompts", 0.1)
    now[0] += 30
    assert "about 30 s left" in view.words(scores, view.seconds(scores))
    first = Progress(1, 1000, 1, 1, 1.0, "logits", 0.1, to_come=(100.0, 500.0, 1.0))
    now[0] += 30
    assert "left" not in view.words(first, view.seconds(first)), "there is no pace yet"
    later = Progress(101, 1000, 1, 101, 1.0, "logits", 0.1, to_come=(100.0, 400.0, 1.0))
    now[0] += 10
    assert "10 tests/s" in view.words(later, view.seconds(later))


def test_a_search_without_scores_counts_from_its_start(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("edgewise.reports.terminal.time.perf_counter", lambda: now[0])
    view = _View(Console(file=io.StringIO()), "acdc", "kl_div")
    now[0] += 10
    progress = Progress(100, 1000, 1, 100, 1.0, "logits", 0.1, to_come=(100.0, 400.0, 1.0))
    assert "10 tests/s" in view.words(progress, view.seconds(progress))
