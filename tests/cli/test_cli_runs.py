"""`edgewise runs`: what a folder keeps."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def kept(shell):
    """Runs by name, each a copy of one with parts of its record changed."""
    shell.made("discover", "tracr-reverse", "--out", "made", "--quiet")
    record = json.loads((shell.folder / "made" / "run.json").read_text())

    def add(name, **parts):
        folder = shell.folder / "runs" / name
        shutil.copytree(shell.folder / "made", folder)
        (folder / "run.json").write_text(json.dumps({**record, **parts}))
        return record

    return add


def test_runs_stand_in_the_order_of_their_dates_those_of_a_batch_too(shell, kept) -> None:
    kept("b-first", date="2026-01-02T03:04:05+00:00")
    record = kept("batch/inner", date="2026-01-03T00:00:00+00:00")
    kept("a-last", date="2026-02-01T00:00:00+00:00")
    (shell.folder / "runs" / "notes.txt").touch()
    (shell.folder / "runs" / ".hidden").mkdir()
    heading, *lines = shell.works("runs").out.splitlines()
    assert [line.split()[0] for line in lines] == ["b-first", "batch/inner", "a-last"]
    assert "recovered" in heading
    result = record["result"]
    for word in ("tracr-reverse", "acdc", f"{result['n_edges']} edges", f"{result['recovered']:.1%}", "finished"):
        assert word in lines[0]
    assert lines[0].rstrip().endswith("2026-01-02 03:04")
    first, *_ = shell.json("runs")["runs"]
    assert (first["run"], first["size"], first["value"]) == ("runs/b-first", result["n_edges"], result["metric"])


def test_of_a_search_that_has_not_ended_it_says_how_far_it_came(shell, kept) -> None:
    kept("stopped", finished=False, stopped={"decided": 20, "of": 33, "at": "m0", "whole": False, "why": "interrupted"})
    kept("under-way", finished=False, under_way={"decided": 7, "of": 33}, result={})
    out = shell.works("runs").out
    assert "20 of 33 edges decided" in out
    assert "7 of 33 edges decided" in out
    assert [(one["finished"], one["decided"]) for one in shell.json("runs")["runs"]] == [(False, 20), (False, 7)]


def test_broken_runs_are_listed_with_the_reason(shell, kept) -> None:
    kept("good")
    kept("newer", form=99)
    kept("lacking", result={})
    (shell.folder / "runs" / "torn").mkdir()
    (shell.folder / "runs" / "torn" / "run.json").write_text("{")
    out = shell.works("runs").out
    assert "broken: newer: the run in 'runs/newer' was written by another version of edgewise" in out
    assert "broken: lacking: the run record of 'runs/lacking' is broken: 'n_edges' is missing" in out
    assert "broken: torn: " in out
    broken = {one["run"]: one["broken"] for one in shell.json("runs")["runs"]}
    assert broken.pop("runs/good") is None
    assert all(broken.values())
    assert len(broken) == 3


def test_a_run_is_listed_by_itself(shell, kept) -> None:
    kept("good")
    assert [one["run"] for one in shell.json("runs", "runs/good")["runs"]] == ["runs/good"]
    assert shell.works("runs", "runs/good").out.splitlines()[1].startswith("good ")


def test_without_any_it_says_so(shell) -> None:
    assert "'runs': there is no such folder" in shell.refuses("runs")
    (shell.folder / "empty").mkdir()
    assert shell.works("runs", "empty").out == "no runs in empty\n"
    assert shell.json("runs", "empty") == {"folder": "empty", "runs": []}
