"""`edgewise report`: one page that says what the run's files say, or a sentence on why there is none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from word_models import write_prompts


def data_in(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def run(shell) -> Path:
    shell.made("discover", "tracr-reverse", "--out", "run", "--quiet")
    return shell.folder / "run"


def change(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    record.update(changes)
    (folder / "run.json").write_text(json.dumps(record))


def test_the_page_lies_in_the_runs_folder_and_holds_its_circuit(shell, run):
    said = shell.works("report", "run", "--quiet").out
    assert "run/report.html" in said
    (sent,) = data_in(run / "report.html")["runs"]
    assert len(sent["in"]) == 15
    assert sent["command"] == "edgewise discover tracr-reverse --out run --quiet --json"
    assert ["task: examples", "6"] in sent["settings"]
    assert sent["truth"]["found"] == 15
    assert sent["attention"]["heads"].keys() == {f"a{layer}.h0" for layer in range(4)}
    assert sent["values"]["rows"] == 6
    assert sent["notes"] == []


def test_nothing_is_written_over_a_page_that_is_there(shell, run):
    shell.works("report", "run", "--quiet")
    assert "run/report.html' is there already; nothing is overwritten" in shell.refuses("report", "run")
    shell.works("report", "run", "--out", "other.html", "--no-model")
    assert "is there already" in shell.refuses("report", "run", "--out", "other.html")
    assert "is a folder" in shell.refuses("report", "run", "--out", "run")
    assert "there is no folder" in shell.refuses("report", "run", "--out", "none/page.html")


def test_without_the_model_the_page_shows_the_runs_own_files(shell, run):
    told = shell.json("report", "run", "--no-model", "--out", "page.html")
    assert told["file"] == "page.html"
    assert told["bytes"] == (shell.folder / "page.html").stat().st_size
    assert "--no-model" in told["notes"][0]
    (sent,) = data_in(shell.folder / "page.html")["runs"]
    assert len(sent["in"]) == 15
    assert (sent["values"], sent["attention"]) == (None, None)
    assert "--no-model" in sent["notes"][0]
    assert "one or the other" in shell.refuses("report", "run", "--no-model", "--model", "tiny-ioi")


def test_a_model_that_has_changed_leaves_a_page_that_says_so(shell, models):
    prompts = write_prompts(shell.folder / "pronouns.jsonl")
    model = shutil.copytree(models / "llama", shell.folder / "model")
    shell.works("discover", prompts.name, "--model", "model", "--threshold", "0.01", "--out", "run", "--quiet")
    weights = load_file(model / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, model / "model.safetensors", metadata={"format": "pt"})
    said = shell.works("report", "run", "--quiet", "--out", "changed.html")
    assert "has other weights now" in said.err
    (sent,) = data_in(shell.folder / "changed.html")["runs"]
    assert sent["attention"] is None
    assert "has other weights now" in sent["notes"][0]
    record = json.loads((shell.folder / "run" / "run.json").read_text())
    record["settings"]["model"]["fingerprint"] = "0123456789abcdef" * 2  # as they were before "v2:"
    (shell.folder / "run" / "run.json").write_text(json.dumps(record))
    assert "made by an older edgewise" in shell.works("report", "run", "--quiet", "--out", "older.html").err
    shutil.rmtree(model)
    shell.works("report", "run", "--quiet", "--out", "gone.html")
    assert "there is no such folder" in data_in(shell.folder / "gone.html")["runs"][0]["notes"][0]


def test_another_model_can_be_named(shell, models):
    write_prompts(shell.folder / "pronouns.jsonl")
    model = shutil.copytree(models / "llama", shell.folder / "model")
    shell.works("discover", "pronouns.jsonl", "--model", "model", "--threshold", "0.01", "--out", "run", "--quiet")
    model.rename(shell.folder / "moved")
    shell.works("report", "run", "--quiet", "--model", "moved", "--prompts", "2", "--out", "page.html")
    (sent,) = data_in(shell.folder / "page.html")["runs"]
    assert len(sent["attention"]["prompts"]) == 2
    assert "measured on 'moved'" in sent["notes"][0]
    assert sent["attention"]["prompts"][0]["clean"][1] == "girl"


def test_several_runs_on_one_page(shell, run):
    options = ("--method", "edge-attribution", "--edges", "12", "--out", "other", "--quiet")
    shell.works("discover", "tracr-reverse", *options)
    shell.works("report", "run", "other", "--quiet")
    data = data_in(shell.folder / "report.html")
    one, other = data["runs"]
    assert [one["label"], other["label"]] == ["run", "other"]
    shared, either = set(one["in"]) & set(other["in"]), set(one["in"]) | set(other["in"])
    assert data["jaccard"][0][1] == pytest.approx(len(shared) / len(either), abs=1e-4)
    assert 0 < data["jaccard"][0][1] < 1


def test_runs_of_different_graphs_are_refused(shell, run):
    shell.works("discover", "or-gate", "--out", "gate", "--quiet")
    assert "different graphs" in shell.refuses("report", "run", "gate")


def test_an_interrupted_run_has_a_page_that_says_so(shell, run):
    change(run, finished=False, stopped={"why": "interrupted", "at": "m1", "decided": 60, "of": 106, "tests": 20})
    shell.works("report", "run", "--quiet")
    (sent,) = data_in(run / "report.html")["runs"]
    assert sent["finished"] is False
    assert sent["stopped"] == {"why": "interrupted", "at": "m1", "decided": 60, "of": 106, "tests": 20}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: change(run, form=99), "another version of edgewise"),
        (lambda run: (run / "circuit.json").unlink(), "there is no such file"),
        (lambda run: (run / "trace.jsonl").unlink(), "there is no such file"),
        (lambda run: (run / "trace.jsonl").write_text("{"), "line 1"),
        (lambda run: (run / "run.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "run.json").unlink(), "is not a run folder"),
        (lambda run: change(run, result={}), "'result.n_edges' is missing"),
        (lambda run: change(run, settings=3), "'settings.ablation' is missing"),
    ],
)
def test_a_run_folder_that_is_broken_or_newer_is_refused(shell, run, spoil, message):
    spoil(run)
    assert message in shell.refuses("report", "run")


@pytest.mark.parametrize(
    "odd",
    [
        {"command": "ioi", "versions": 3, "stopped": {"why": 1}, "date": 7},
        {"command": [], "versions": None, "stopped": [], "finished": False},
    ],
)
def test_a_record_with_odd_entries_still_makes_a_page(shell, run, odd):
    change(run, **odd)
    shell.works("report", "run", "--no-model")
    (sent,) = data_in(run / "report.html")["runs"]
    assert sent["command"] is None
    assert sent["versions"] == []


def test_a_page_says_nothing_of_where_files_lie(shell, models, prompts):
    out = shell.folder / "deep" / "run"
    options = ("--model", models / "gpt2", "--threshold", "1", f"--out={out}", "--quiet")
    shell.works("discover", prompts, *options)
    shutil.move(models / "gpt2", models / "moved")
    try:
        finished = shell.works("report", out)
    finally:
        shutil.move(models / "moved", models / "gpt2")
    page = (out / "report.html").read_text()
    sent = json.dumps(data_in(out / "report.html"))
    for folder in (shell.folder, models, prompts.parent):
        assert str(folder) not in page
    (run,) = data_in(out / "report.html")["runs"]
    assert run["folder"] == "run"
    assert run["command"].startswith("edgewise discover prompts.jsonl --model gpt2 --threshold 1 --out=run")
    assert ["task: file", "prompts.jsonl"] in run["settings"]
    assert "No attention patterns" in sent
    assert finished.err.startswith("measuring run ...\n"), "said before the model is loaded"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1" * 5000, "1" * 400, '"12"', "1.5"])
@pytest.mark.parametrize("name", ["n_edges", "n_graph_edges"])
def test_a_number_of_edges_that_is_none_is_named(shell, run, name, number):
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(re.sub(rf'"{name}": \d+', f'"{name}": {number}', text, count=1))
    assert f"'result.{name}'" in shell.refuses("report", "run", "--no-model")


def test_a_gallery_has_a_page_for_each_run_in_a_folder(shell, run):
    (shell.folder / "runs").mkdir()
    shutil.copytree(run, shell.folder / "runs" / "one")
    shutil.copytree(run, shell.folder / "runs" / "index")
    shutil.copytree(run, shell.folder / "runs" / "broken")
    (shell.folder / "runs" / "broken" / "circuit.json").write_text("{")
    done = shell.works("report", "runs", "run", "--gallery", "--no-model")
    assert "3 circuits written to gallery" in done.out
    assert "left out: " in done.err
    assert "broken" in done.err
    gallery = shell.folder / "gallery"
    files = {"index.html", "index-2.html", "one.html", "run.html"}
    assert {file.name for file in gallery.iterdir()} == files
    first = (gallery / "index.html").read_text()
    assert set(re.findall(r'<a href="([^"]*)"', first)) == files - {"index.html"}
    assert "15 of 106 edges" in first
    assert str(shell.folder) not in first
    assert data_in(gallery / "one.html")["gallery"] == "index.html"
    assert "is there already" in shell.refuses("report", "run", "--gallery", "--no-model")
    assert "there is no folder" in shell.refuses("report", "run", "--gallery", "--no-model", "--out", "no/where")
    (shell.folder / "none").mkdir()
    assert "no run" in shell.refuses("report", "none", "--gallery", "--out", "other")
    assert "broken" in shell.refuses("report", "runs/broken", "--gallery", "--out", "other")
    assert not [file for file in shell.folder.iterdir() if file.name.startswith((".other", ".gallery", "other"))]


def test_what_is_no_run_is_refused(shell):
    (shell.folder / "empty").mkdir()
    assert "is not a run folder" in shell.refuses("report", "empty")
    assert "is not a run folder" in shell.refuses("report", "nowhere")
    assert "is empty" in shell.refuses("report", "")
    assert "at least 1" in shell.refuses("report", "empty", "--prompts", "0")
    shell.rejects_usage("report")
