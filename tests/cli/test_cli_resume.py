"""`edgewise resume`, and shortlists, budgets and passes from the shell."""

from __future__ import annotations

import json

import pytest

from edgewise.runs.journal import DecisionFile


@pytest.fixture
def dies(monkeypatch):
    """Ctrl-C after so many decisions."""

    def after(count: int) -> None:
        add, made = DecisionFile.add, [0]

        def counted(self: DecisionFile, decision: object) -> None:
            made[0] += 1
            if made[0] > count:
                monkeypatch.setattr(DecisionFile, "add", add)
                raise KeyboardInterrupt
            add(self, decision)

        monkeypatch.setattr(DecisionFile, "add", counted)

    return after


def test_a_search_that_was_stopped_is_resumed_and_ends_alike(shell, dies):
    whole = shell.json("discover", "tracr-reverse", "--out", "whole")
    dies(25)
    stopped = shell("discover", "tracr-reverse", "--out", "run")
    assert stopped.code == 130
    assert stopped.err.strip().endswith("edgewise resume run goes on")
    assert json.loads((shell.folder / "run" / "run.json").read_text())["stopped"]["tests"] >= 25
    found = shell.json("resume", "run")
    assert found["run_dir"] == "run"
    assert found["edges"] == whole["edges"]
    assert (shell.folder / "run" / "trace.jsonl").read_bytes() == (shell.folder / "whole" / "trace.jsonl").read_bytes()
    again = shell.works("resume", "run")
    assert "has ended already" in again.err
    assert "kept 15 of 106 edges" in again.out


def test_a_search_that_is_stopped_twice_and_one_for_a_size(shell, dies):
    whole = shell.json("discover", "tracr-reverse", "--edges", "15", "--out", "whole")
    dies(30)
    assert shell("discover", "tracr-reverse", "--edges", "15", "--out", "run", "--quiet").code == 130
    dies(10)
    assert shell("resume", "run", "--quiet").code == 130
    assert (shell.folder / "run" / "searches.jsonl").is_file()
    found = shell.json("resume", "run")
    assert (found["edges"], found["tests"]) == (whole["edges"], whole["tests"])
    assert {one.name for one in (shell.folder / "run").iterdir()} == {"run.json", "circuit.json", "trace.jsonl"}


def test_what_cannot_be_resumed_is_refused_in_a_sentence(shell):
    assert "is not a run folder" in shell.refuses("resume", "nowhere")
    shell.works("discover", "or-gate", "--out", "run")
    record = shell.folder / "run" / "run.json"
    record.write_text(record.read_text().replace('"finished": true', '"finished": false').replace("acdc", "exact"))
    assert "only searches of ACDC" in shell.refuses("resume", "run")
    assert "'lots' is no size of memory" in shell.refuses("resume", "run", "--max-memory", "lots")


def test_shortlists_budgets_and_passes_from_the_shell(shell):
    found = shell.works("discover", "induction", "--within", "40", "--passes", "2", "--budget", "5", "--out", "a")
    assert "searched within " in found.out
    settings = json.loads((shell.folder / "a" / "run.json").read_text())["settings"]
    assert (settings["within"], settings["passes"], settings["budget"]) == (40, 2, 5.0)
    inside = shell.json("discover", "induction", "--within", "a", "--out", "b")
    assert set(inside["edges"]) <= set(shell.json("resume", "a")["edges"])
    assert "there is no such file" in shell.refuses("discover", "induction", "--within", "no.json", "--quiet")
    assert "edges tested" in shell.works("plan", "induction", "--within", "40").out
