"""A search in a run folder survives whatever ends its process, and ends as one that nothing ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

import edgewise as ew
from edgewise.discovery import Progress
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.patching import Experiment
from edgewise.runs import RunFolder, read_record, read_run
from edgewise.runs.journal import DecisionFile
from edgewise.runs.sweep import SweepPlan, sweep

pytestmark = pytest.mark.filterwarnings("ignore:the (circuit|model)")


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def searched() -> tuple[Any, Any]:
    settings = {"task": "random", "examples": 3}
    return tiny.llama(layers=2), replace(tiny.task(), settings=settings)


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch):
    """Let the process end when so many more decisions have been kept, whatever is there of the last line by then."""
    add = DecisionFile.add
    state: dict[str, Any] = {"left": None}

    def counted(self: DecisionFile, decision: Any) -> None:
        if state["left"] == 0:
            raise Killed
        if state["left"] is not None:
            state["left"] -= 1
        add(self, decision)

    monkeypatch.setattr(DecisionFile, "add", counted)

    def after(left: int | None) -> None:
        state["left"] = left

    return after


def result_of(folder: Path) -> dict[str, Any]:
    """What has to be the same: all but dates and times, and how often it was resumed."""
    record = json.loads((folder / "run.json").read_text())
    del record["date"], record["result"]["seconds"]
    record.pop("resumed", None)
    return {
        "record": record,
        **{one.name: one.read_bytes() for one in folder.iterdir() if one.name != "run.json"},
    }


def torn(path: Path, dice: random.Random) -> None:
    """As after the power has gone: the last bytes of a file are missing, or are something else."""
    data = path.read_bytes()
    lost = dice.choice([0, 1, dice.randint(0, 40), dice.randint(0, 2000)])
    data = data[: max(0, len(data) - lost)]
    path.write_bytes(data + dice.choice([b"", b"\0" * 9, b'{"edge": "a0.', b"\0\n\xff\n"]))


SEARCHES = [
    ({"threshold": 0.02}, 50, 4),
    ({"threshold": 0.02, "budget": 0.3, "passes": 3, "ports": False}, 20, 3),
    ({"threshold": 0.01, "within": 40}, 20, 3),
    ({"edges": 12}, 10, 2),
]


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        *(pytest.param(options, few, id=f"{number}-few") for number, (options, _, few) in enumerate(SEARCHES)),
        *(
            pytest.param(options, many, id=f"{number}-of-a-hundred", marks=pytest.mark.slow)
            for number, (options, many, _) in enumerate(SEARCHES)
        ),
    ],
)
def test_kills_at_random_leave_every_result_as_it_would_have_been(searched, options, kills, tmp_path, dies):
    model, task = searched
    whole = ew.discover(model, task, out=tmp_path / "whole", **options)
    expected, dice, killed, number = result_of(tmp_path / "whole"), random.Random(repr(options)), 0, 0
    while killed < kills:
        folder, number = tmp_path / f"run-{number}", number + 1
        ended = False
        while not ended:
            dies(dice.randint(0, whole.discovery.tests))
            try:
                if folder.exists():
                    ew.resume(folder, model=model, task=task)
                else:
                    ew.discover(model, task, out=folder, **options)
                ended = True
            except Killed:
                killed += 1
                if folder.exists():
                    torn(folder / ("searches.jsonl" if "edges" in options else "trace.jsonl"), dice)
        assert result_of(folder) == expected
    assert {one.name.split(".")[0] for one in tmp_path.iterdir()} == {"whole", *(f"run-{n}" for n in range(number))}


@pytest.mark.parametrize("options", [{}, {"edges": 15}])
def test_a_built_in_task_and_model_are_loaded_again_by_their_names(options, tmp_path, dies):
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model, seed=3)
    ew.discover(model, task, out=tmp_path / "whole", **options)
    dies(40)
    with pytest.raises(Killed):
        ew.discover(model, task, out=tmp_path / "run", **options)
    dies(None)
    run = ew.resume(tmp_path / "run")
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")
    assert run.record["resumed"] == 1
    assert ew.resume(tmp_path / "run").circuit == run.circuit, "of what has ended nothing is left to do"


def test_the_folder_of_a_search_under_way_says_how_far_it_is(searched, tmp_path, monkeypatch):
    monkeypatch.setattr("edgewise.runs.under_way.TOLD_EVERY", 0.0)
    seen: list[dict[str, Any]] = []

    def look(progress: Progress) -> None:
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["finished"] is False
        assert record["settings"]["threshold"] == 0.02
        lines = (tmp_path / "run" / "trace.jsonl").read_text().splitlines()
        assert len(lines) == progress.tests, "a decision is there as soon as it is told"
        assert record["under_way"]["decided"] <= progress.decided
        seen.append(record["under_way"])

    ew.discover(*searched, threshold=0.02, out=tmp_path / "run", progress=look)
    assert [one["tests"] for one in seen] == sorted(one["tests"] for one in seen)
    assert 0 < seen[-1]["decided"] <= seen[-1]["of"]
    assert "under_way" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert read_run(tmp_path / "run")[1].n_edges > 0


def test_what_has_not_ended_is_refused_as_a_circuit_with_what_to_do(searched, tmp_path, dies):
    dies(20)
    with pytest.raises(Killed):
        ew.discover(*searched, threshold=0.02, out=tmp_path / "run")
    for opens in (read_run, ew.load_run):
        with pytest.raises(EdgewiseError, match=r"has not ended \(.* edges decided\).*edgewise resume"):
            opens(tmp_path / "run")
    with pytest.raises(EdgewiseError, match="holds a search that has not ended; go on with it by edgewise resume"):
        RunFolder.claim(tmp_path / "run")
    dies(None)
    with RunFolder.claim(tmp_path / "run", force=True) as folder:  # another search takes its place, when it is done
        run = ew.discover(*searched, threshold=0.5, out=folder)
        assert folder.begun == tmp_path / "run-2"
        folder.finish(run.files())
    assert [one.name for one in tmp_path.iterdir()] == ["run"]
    assert read_run(tmp_path / "run")[0]["settings"]["threshold"] == 0.5


def test_a_search_that_ctrl_c_stopped_goes_on(searched, tmp_path):
    ew.discover(*searched, edges=12, out=tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.attempt == 3 and progress.tests > 10:
            raise KeyboardInterrupt

    with pytest.raises(ew.RunInterrupted):
        ew.discover(*searched, edges=12, out=tmp_path / "run", progress=stop)
    record, _ = read_run(tmp_path / "run")
    assert record["stopped"]["why"] == "interrupted"
    again = ew.resume(tmp_path / "run", model=searched[0], task=searched[1])
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")
    assert again.record["finished"]


def test_two_processes_never_go_on_with_one_search(searched, tmp_path, dies):
    dies(20)
    with pytest.raises(Killed):
        ew.discover(*searched, threshold=0.02, out=tmp_path / "run")
    dies(None)
    other = DecisionFile(tmp_path / "run" / "trace.jsonl", searched[0].graph())
    before = (tmp_path / "run" / "run.json").read_bytes()
    try:
        with pytest.raises(EdgewiseError, match="another process is writing"):
            ew.resume(tmp_path / "run", model=searched[0], task=searched[1])
        with pytest.raises(EdgewiseError, match="another process is writing"):
            RunFolder.claim(tmp_path / "run", force=True)
    finally:
        other.close()
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_another_model_other_prompts_and_changed_settings_are_refused(tmp_path, dies):
    rows = [
        {"clean": "Michael and Jessica left. Jessica passed a bone to", "answer": " Michael", "wrong": " Jessica"},
        {"clean": "Jessica and Matthew left. Matthew passed a bone to", "answer": " Jessica", "wrong": " Matthew"},
    ]
    rows = [{**row, "corrupt": row["clean"].replace("Jessica passed", "Michael passed")} for row in rows]
    model = ew.load_model("tiny-ioi")
    dies(30)
    with pytest.raises(Killed):
        ew.discover(model, ew.load_task(rows, model, name="mine"), threshold=0.001, out=tmp_path / "run")
    dies(None)
    record, kept = (tmp_path / "run" / name for name in ("run.json", "prompts.jsonl"))
    was = {path: path.read_text() for path in (record, kept)}

    def refused(path: Path, text: str, why: str) -> None:
        path.write_text(text)
        with pytest.raises(EdgewiseError, match=why):
            ew.resume(tmp_path / "run")
        path.write_text(was[path])

    refused(kept, was[kept].replace("bone", "ring"), "has changed since .* was made$")
    refused(record, was[record].replace(model.fingerprint(), "v2:0"), "has other weights now .*")
    refused(record, was[record].replace('"threshold": 0.001', '"threshold": 5.0'), "not this search's")
    with pytest.raises(EdgewiseError, match="another model than the one"):
        ew.resume(tmp_path / "run", model=ew.load_model("tiny-pronoun"), task=ew.load_task(rows, model))
    record.write_text(was[record].replace('"torch": "', '"torch": "0.'))
    with pytest.warns(EdgewiseWarning, match="the search was begun with torch 0"):
        run = ew.resume(tmp_path / "run")
    assert run.task_name == "mine"
    whole = ew.discover(model, ew.load_task(rows, model, name="mine"), threshold=0.001)
    assert run.circuit == whole.circuit
    assert run.trace == whole.trace


def test_what_is_no_search_that_was_stopped_is_said(searched, tmp_path):
    with pytest.raises(EdgewiseError, match="is not a run folder"):
        ew.resume(tmp_path)


def test_a_disk_that_is_full_costs_what_would_have_been_kept_and_not_the_search(searched, tmp_path, monkeypatch):
    calls = 0

    def full(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgewise.runs.journal.os", SimpleNamespace(fsync=full))
    with pytest.warns(EdgewiseWarning, match="cannot be kept while it goes .No space left"):
        run = ew.discover(*searched, threshold=0.02, out=tmp_path / "run")
    assert run.record["finished"]
    assert ew.load_run(tmp_path / "run").trace == run.trace


def test_a_sweep_goes_on_in_the_middle_of_a_search(searched, tmp_path, dies):
    experiment = Experiment(*searched)
    plan = SweepPlan("acdc", (0.02, 0.0200001, 0.1, 0.0199999))
    (whole,) = sweep(experiment, [plan])
    dice, kills = random.Random(0), 0
    (tmp_path / "sweep").mkdir()
    while True:
        dies(dice.randint(1, 60))
        try:
            (again,) = sweep(experiment, [plan], folder=tmp_path / "sweep")
            break
        except Killed:
            kills += 1
            if kills % 2:
                torn(tmp_path / "sweep" / "acdc-searches.jsonl", dice)
    assert kills > 1
    assert [(one.setting, one.circuit, one.metrics, one.same_as) for one in again.points] == [
        (one.setting, one.circuit, one.metrics, one.same_as) for one in whole.points
    ]
    assert [one.name for one in (tmp_path / "sweep").iterdir()] == ["acdc.jsonl"]


def test_decisions_of_a_series_that_was_removed_are_not_taken_for_another(searched, tmp_path, dies):
    plan = SweepPlan("acdc", (0.02, 0.1))
    dies(30)
    with pytest.raises(Killed):
        sweep(Experiment(*searched), [plan], folder=tmp_path)
    (tmp_path / "acdc.jsonl").unlink()
    dies(None)
    other = Experiment(searched[0], tiny.task(seed=5))
    (there,), (alone,) = sweep(other, [plan], folder=tmp_path), sweep(other, [plan])
    assert [one.circuit for one in there.points] == [one.circuit for one in alone.points]


def test_kill_9_of_a_real_process(tmp_path):
    threads = str(torch.get_num_threads())  # in both processes, or their sums differ in their last digit
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads, "EDGEWISE_THREADS": threads}
    command = [sys.executable, "-m", "edgewise"]
    asked = ["discover", "gender-pronoun", "--threshold", "0.001", "--engine", "plain", "--examples", "8", "--quiet"]
    process = subprocess.Popen([*command, *asked, "--out", "run"], cwd=tmp_path, env=environment)
    trace = tmp_path / "run" / "trace.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if trace.is_file() and trace.read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "under_way" in read_record(tmp_path / "run"), "it was killed too late to show anything"
    model = ew.load_model("tiny-pronoun")
    task = ew.load_task("gender-pronoun", model, examples=8)
    whole = ew.discover(model, task, threshold=0.001, engine="plain")
    resumed = ew.resume(tmp_path / "run")
    assert resumed.circuit == whole.circuit
    assert resumed.trace == whole.trace
    assert resumed.record["command"][:2] == ["edgewise", "discover"]
