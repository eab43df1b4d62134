"""Groups and a known circuit of one's own from the shell: given once, found again without their files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_cli_report import data_in

from edgewise.graph import Circuit, Graph, load_circuit, save_circuit
from edgewise.runs.journal import DecisionFile
from edgewise.tasks.known import TRACR_REVERSE

GROUPS = {"the <start>": ["tok", "a0.h0", "m0"], "end": ["m2", "a3.h0"]}
TRUTH = TRACR_REVERSE.circuit.remove("m1->m2")
GIVEN = ("--groups", "groups.toml", "--known", "truth.json")


def words(path: Path) -> str:
    return " ".join(element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("text"))


def titles(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("title")]


@pytest.fixture
def files(shell) -> Path:
    """Groups, and a truth of one edge less than the circuit that is found."""
    lines = [f"{json.dumps(name)} = {json.dumps(nodes)}" for name, nodes in GROUPS.items()]
    (shell.folder / "groups.toml").write_text("\n".join(lines))
    save_circuit(TRUTH, shell.folder / "truth.json")
    return shell.folder


@pytest.fixture
def run(shell, files) -> Path:
    """The run, after the files that it was given have gone."""
    found = shell.made("discover", "tracr-reverse", *GIVEN, "--out", "run", "--quiet")
    assert [group["group"] for group in found["groups"]] == list(GROUPS)
    assert (found["known_circuit"]["source"], found["known_circuit"]["n_edges"]) == ("truth.json", 14)
    (files / "groups.toml").unlink()
    (files / "truth.json").unlink()
    return files / "run"


def test_a_search_prints_what_it_has_of_each_group_and_of_the_truth(shell, files):
    out = shell.works("discover", "tracr-reverse", *GIVEN, "--quiet").out
    assert "known circuit (truth.json): 14 of its 14 edges found" in out
    assert "the <start>  3 of 3  tok a0.h0 m0" in out
    gate = {"gate": ["m0"]}
    (files / "gate.json").write_text(json.dumps(gate))
    own = shell.works("discover", "or-gate", "--groups", "gate.json", "--quiet").out
    assert "known circuit (ACDC paper, appendix M): 2 of its 3 edges found" in own
    assert "the gate" not in own


def test_evaluate_finds_them_again(shell, run):
    found = shell.json("evaluate", "run", "--quick", "--quiet")
    assert found["roc"]["edges"]["precision"] == 14 / 15
    assert list(found["roc_by_group"]) == list(GROUPS)
    assert found["roc_by_group"]["end"]["true_positive_rate"] == 1
    out = shell.works("evaluate", "run", "--quick", "--quiet").out
    assert "edges at the <start>" in out
    (shell.folder / "one.json").write_text('{"one": ["m1"]}')
    other = shell.json("evaluate", "run", "--quick", "--quiet", "--groups", "one.json", "--known", "run")
    assert other["roc"]["edges"]["precision"] == 1
    assert list(other["roc_by_group"]) == ["one"]
    copy = shell.json("evaluate", "run/circuit.json", "--task", "tracr-reverse", "--quick", "--known", "run/known.json")
    assert copy["roc"] == found["roc"]


def test_pictures_and_the_page_show_them(shell, run):
    shell.works("draw", "run")
    assert "components the <start> end" in words(run / "circuit.svg")
    assert shell.works("draw", "run", "--collapse").out == "drawn to run/groups.svg\n"
    text = words(run / "groups.svg")
    for part in ("the <start>", "3 of 3 nodes", "tok a0.h0 m0", "3 edges inside", "2 of 2 nodes", "m1", "pos"):
        assert part in text
    assert any(title.startswith("the <start>->m1: 2 edges; strongest ") for title in titles(run / "groups.svg"))
    shell.works("draw", "run/circuit.json", "--groups", other_groups(shell), "--collapse")
    assert (run / "circuit.groups.svg").is_file()
    shell.works("report", "run", "--no-model", "--quiet")
    data = data_in(run / "report.html")
    assert data["groups"] == list(GROUPS)
    assert data["runs"][0]["truth"]["source"] == "truth.json"
    shell.works("report", "run", "--no-model", "--groups", "other.json", "--known", "run", "--out", "page.html")
    data = data_in(shell.folder / "page.html")
    assert data["groups"] == ["pair"]
    assert (data["runs"][0]["truth"]["source"], data["runs"][0]["truth"]["edges"]) == ("run", 15)


def other_groups(shell) -> str:
    (shell.folder / "other.json").write_text('{"pair": ["m1", "m2"]}')
    return "other.json"


def test_a_search_that_was_stopped_keeps_them(shell, files, run, monkeypatch):
    whole = json.loads((run / "run.json").read_text())
    add, made = DecisionFile.add, []

    def dies(self: DecisionFile, decision: object) -> None:
        made.append(decision)
        if len(made) > 25:
            monkeypatch.setattr(DecisionFile, "add", add)
            raise KeyboardInterrupt
        add(self, decision)

    monkeypatch.setattr(DecisionFile, "add", dies)
    save_circuit(TRUTH, files / "truth.json")
    (files / "groups.toml").write_text("\n".join(f"{json.dumps(name)} = {json.dumps(GROUPS[name])}" for name in GROUPS))
    assert shell("discover", "tracr-reverse", *GIVEN, "--out", "stopped", "--quiet").code == 130
    assert "was stopped, so that its circuit still holds" in shell.refuses(
        "discover", "tracr-reverse", "--known", "stopped", "--quiet"
    )
    (files / "groups.toml").unlink()
    (files / "truth.json").unlink()
    found = shell.json("resume", "stopped", "--quiet")
    assert found["known_circuit"] == whole["result"]["known_circuit"]
    assert found["groups"] == whole["result"]["groups"]
    assert found["settings"] == whole["settings"]
    assert load_circuit(files / "stopped" / "known.json") == TRUTH


def test_a_sweep_is_held_against_it(shell, files):
    options = ("--methods", "edge-attribution", "--sizes", "5,15", "--no-test", "--quiet")
    save_circuit(TRACR_REVERSE.circuit, files / "same.json")
    usual = shell.json("sweep", "tracr-reverse", *options, "--out", "usual")
    same = shell.json("sweep", "tracr-reverse", *options, "--out", "same", "--known", "same.json")
    assert same["series"][0]["roc"] == usual["series"][0]["roc"]
    assert [one["roc"] for one in same["series"][0]["points"]] == [one["roc"] for one in usual["series"][0]["points"]]
    other = shell.json("sweep", "tracr-reverse", *options, "--out", "other", "--known", "truth.json")
    rows = list(csv.DictReader((files / "other" / "sweep.csv").open()))
    circuit = shell.json("discover", "tracr-reverse", "--method", "edge-attribution", "--edges", "15", "--quiet")
    rate = len(set(circuit["edges"]) & set(TRUTH.names())) / 14
    assert float(rows[1]["edges_true_positive_rate"]) == rate
    assert other["series"][0]["points"][1]["roc"]["true_positive_rate"] == rate
    assert load_circuit(files / "other" / "known.json") == TRUTH
    assert not (files / "usual" / "known.json").exists()


def test_what_does_not_fit_is_refused_in_a_sentence(shell, files):
    save_circuit(Circuit.full(Graph(2, 2)), files / "other.json")
    (files / "wrong.json").write_text('{"x": ["m7"]}')
    (files / "none.toml").write_text("x = []")
    discover = ("discover", "tracr-reverse", "--quiet")
    assert "this graph (4 layers of 1 head, tok and pos split, with port edges) has no node 'm7'" in shell.refuses(
        *discover, "--groups", "wrong.json"
    )
    assert "group 'x' is empty" in shell.refuses(*discover, "--groups", "none.toml")
    assert "there is no such file" in shell.refuses(*discover, "--groups", "gone.json")
    assert "there is no such run folder or circuit file" in shell.refuses(*discover, "--known", "gone")
    assert "'other.json' is over another graph" in shell.refuses(*discover, "--known", "other.json")
    assert "'other.json' is over another graph" in shell.refuses(
        "sweep", "tracr-reverse", "--methods", "random", "--sizes", "5", "--no-test", "--quiet", "--known", "other.json"
    )
    draw = ("draw", "truth.json", "--out", "picture.svg")
    assert "has no node 'm7'; did you mean 'm" in shell.refuses(*draw, "--groups", "wrong.json")
    assert "no groups of nodes to collapse: give some with --groups" in shell.refuses(*draw, "--collapse")
    evaluate = ("evaluate", "truth.json", "--task", "tracr-reverse", "--quick", "--quiet")
    assert "has no node 'm7'" in shell.refuses(*evaluate, "--groups", "wrong.json")
    assert "'other.json' is over another graph" in shell.refuses(*evaluate, "--known", "other.json")


@pytest.mark.parametrize("command", [("evaluate", "run", "--quick"), ("draw", "run"), ("report", "run", "--no-model")])
@pytest.mark.parametrize("groups", [3, {"x": []}, {"x": ["a0.h0", "a0.h0"]}])
def test_a_record_whose_groups_are_broken_is_refused(shell, run, command, groups):
    record = json.loads((run / "run.json").read_text())
    record["settings"]["groups"] = groups
    (run / "run.json").write_text(json.dumps(record))
    assert "the run's settings are broken" in shell.refuses(*command)


@pytest.mark.parametrize("command", [("evaluate", "run", "--quick"), ("report", "run", "--no-model")])
def test_a_run_without_the_circuit_that_it_was_held_against_is_refused(shell, run, command):
    (run / "known.json").unlink()
    assert "the known circuit of the run" in shell.refuses(*command)
