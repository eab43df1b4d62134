"""Many searches in one folder: each once, whoever makes it and however often it is asked for."""

import contextlib
import csv
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.runs import batch
from edgewise.runs.batch import Cluster, ask, by_ray, one_by_one, run_job, summary, table
from edgewise.runs.jobs import Job
from edgewise.runs.journal import DecisionFile

JOBS = [
    Job("or", {"task": "or-gate", "threshold": 0.1}),
    Job("reverse", {"task": "tracr-reverse", "threshold": 0.05}),
    Job("scores", {"task": "or-gate", "method": "edge-attribution-ig", "edges": 4}),
]


def test_each_run_is_made_once_and_is_the_one_that_discover_makes(tmp_path):
    ask(tmp_path, JOBS)
    assert [(one.name, one.how) for one in one_by_one(JOBS, tmp_path)] == [(job.name, "done") for job in JOBS]
    assert [one.how for one in one_by_one(JOBS, tmp_path)] == ["there"] * 3
    model = ew.load_model("tracr-reverse")
    wanted = ew.discover(model, ew.load_task("tracr-reverse", model), threshold=0.05)
    assert ew.load_run(tmp_path / "reverse").circuit == wanted.circuit
    rows = list(csv.DictReader(table({job.name: summary(tmp_path / job.name) for job in JOBS}).splitlines()))
    assert [row["run"] for row in rows] == ["or", "reverse", "scores"]
    assert rows[1]["edges"] == str(wanted.circuit.n_edges)
    assert float(rows[1]["value"]) == pytest.approx(wanted.metric, abs=1e-6)
    assert {row["finished"] for row in rows} == {"yes"}


def test_what_was_stopped_goes_on(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    add, left = DecisionFile.add, [9]

    def dies(self, decision):
        if not left[0]:
            raise Killed
        left[0] -= 1
        add(self, decision)

    monkeypatch.setattr(DecisionFile, "add", dies)
    with pytest.raises(Killed):
        run_job(JOBS[1], tmp_path)
    monkeypatch.setattr(DecisionFile, "add", add)
    assert summary(tmp_path / "reverse") == {"finished": "no"}
    assert run_job(JOBS[1], tmp_path).how == "resumed"
    run_job(Job("again", JOBS[1].given), tmp_path)
    assert ew.load_run(tmp_path / "reverse").circuit == ew.load_run(tmp_path / "again").circuit


def test_one_that_fails_is_told_and_leaves_the_others(tmp_path, monkeypatch):
    jobs = [Job("no-model", {"task": "ioi", "model": "nowhere"}), JOBS[0]]
    found = list(one_by_one(jobs, tmp_path))
    assert [one.how for one in found] == ["failed", "done"]
    assert "cannot find model 'nowhere'" in found[0].why
    assert not (tmp_path / "no-model").exists()

    tries = []

    def crashes(job, path):
        tries.append(job.name)
        if len(tries) < 3:
            raise RuntimeError("the machine is on fire")
        return "done"

    monkeypatch.setattr(batch, "_search", crashes)
    assert [one.how for one in one_by_one(JOBS[:1], tmp_path, retries=2)] == ["done"]
    tries.clear()
    (failed,) = one_by_one(JOBS[:1], tmp_path, retries=1)
    assert (failed.how, failed.why) == ("failed", "RuntimeError: the machine is on fire")


def test_a_run_is_not_asked_for_in_two_ways(tmp_path):
    ask(tmp_path, JOBS)
    ask(tmp_path, JOBS[:1])  # others stay
    assert list(json.loads((tmp_path / "batch.json").read_text())["runs"]) == ["or", "reverse", "scores"]
    with pytest.raises(EdgewiseError, match=r"run 'or' in .* was asked for with another threshold; give it another"):
        ask(tmp_path, [Job("or", {"task": "or-gate", "threshold": 0.2})])
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(EdgewiseError, match=r"record .* is broken"):
        ask(tmp_path, JOBS)


def _hold(folder, held, let_go):
    with batch._alone(folder / ".or.lock"):
        held.set()
        let_go.wait(60)


def test_two_drivers_do_not_tread_on_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, let_go))
    other.start()
    assert held.wait(60)
    found = run_job(JOBS[0], tmp_path)
    assert (found.how, summary(tmp_path / "or")) == ("elsewhere", {"finished": "no"})
    let_go.set()
    other.join()
    assert run_job(JOBS[0], tmp_path).how == "done"


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (Cluster(workers=0), "--workers should be at least 1, not 0"),
        (Cluster(cpus=0), "more than 0 CPUs and 0 or more GPUs, not 0 and 0"),
        (Cluster(gpus=-1), "not 1 and -1"),
        (Cluster(retries=-1), "--retries should be 0 or more, not -1"),
    ],
)
def test_what_ray_could_not_be_asked_for_is_refused(cluster, said):
    with pytest.raises(EdgewiseError, match=said):
        cluster.check()


@pytest.mark.slow
def test_by_ray_the_runs_are_the_same_and_one_whose_worker_dies_is_made_again(tmp_path):
    pytest.importorskip("ray")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    jobs = [*JOBS, Job("no-model", {"task": "ioi", "model": "nowhere"})]
    for folder in (alone, shared):
        ask(folder, jobs)
    assert [one.how for one in one_by_one(jobs, alone)] == ["done", "done", "done", "failed"]
    found = {one.name: one for one in by_ray(jobs, shared, Cluster(workers=2))}
    assert {name: one.how for name, one in found.items()} == {
        "or": "done",
        "reverse": "done",
        "scores": "done",
        "no-model": "failed",
    }
    for job in JOBS:
        assert ew.load_run(shared / job.name).circuit == ew.load_run(alone / job.name).circuit
    dies = Job("dies", {"task": "ioi", "threshold": 0.01, "examples": 8, "engine": "plain"})
    killer = threading.Thread(target=_kill_once, args=("dies", shared / "dies" / "trace.jsonl"), daemon=True)
    killer.start()
    (ended,) = by_ray([dies], shared, Cluster(workers=1))
    killer.join(1)
    assert not killer.is_alive(), "nobody was killed"
    assert ended.how == "resumed"
    assert run_job(dies, alone).how == "done"
    assert ew.load_run(shared / "dies").circuit == ew.load_run(alone / "dies").circuit


def _kill_once(name, trace):
    """Kill the worker of a run when it has decided something."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes()
                if words.startswith(f"ray::{name}".encode()) and trace.exists() and trace.stat().st_size:
                    os.kill(int(process.name), signal.SIGKILL)
                    return
        time.sleep(0.02)
