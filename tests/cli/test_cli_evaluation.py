"""`evaluate` with its tests, `compare`, `sweep`, `export` and `reproduce`, as someone types them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import tiny
from word_models import write_prompts

from edgewise import load_circuit, load_model, load_task
from edgewise.evaluation import compare_circuits
from edgewise.graph import Circuit, Graph
from edgewise.runs.series import unpacked


@pytest.fixture
def pronoun(shell):
    """An ACDC run on a shipped model, in the folder `acdc`."""
    return shell.made("discover", "gender-pronoun", "--examples", 8, "--out", "acdc")


@pytest.fixture
def scored(shell):
    """A run that scores every edge, in the folder `scored`."""
    options = ("--examples", 8, "--method", "edge-attribution", "--edges", 12)
    return shell.made("discover", "gender-pronoun", *options, "--out", "scored")


# --- evaluate ------------------------------------------------------------------------------------------------------


def test_everything_is_in_the_json(shell, pronoun):
    found = shell.json("evaluate", "acdc", "--circuits", 30, "--rediscover", 2)
    assert found["metric"] == tiny.near(pronoun["metric"])
    low, high = (found["metrics"]["kl_div"]["interval"][end] for end in ("low", "high"))
    assert low < found["metric"] < high
    assert found["metrics"]["kl_div"]["recovered"] > 0.9
    assert found["metrics"]["kl_div"]["completeness"] > 0.5
    assert len(found["per_example"]["circuit"]) == found["examples"] == 8
    assert sum(found["per_example"]["circuit"]) / 8 == tiny.near(found["metric"])
    assert found["accuracy"]["full"] == 1
    tests = {test["name"]: test for test in found["hypotheses"]["tests"]}
    assert set(tests) == {"equivalence", "independence", "minimality", "sufficiency", "partial necessity"}
    assert tests["sufficiency"]["passed"] is True
    assert len(found["hypotheses"]["random"]) == 30
    assert {one["edge"] for one in found["hypotheses"]["effects"]} == set(load_circuit("acdc/circuit.json").names())
    assert [one["what"] for one in found["stability"]] == ["examples", "order"]
    assert all(0 < one["jaccard"] <= 1 for one in found["stability"])
    assert found["permuted"] < 0.9
    assert (found["mib"], found["roc"]) == (None, {})


def test_everything_is_in_the_table(shell, scored):
    out = shell.works("evaluate", "scored", "--circuits", 30).out
    for line in (
        r"^kl_div .*%$",
        r"^answered right ",
        r"^95% intervals, bootstrapped over 8 examples$",
        r"^kl_div by example: lowest ",
        r"^sufficiency +(yes|no) ",
        r"^controls: 30 random circuits of \d+ to \d+ edges recover ",
        r"^note: the edges were scored by kl_div, the benchmark's measures are about logit_diff$",
        r"^controls: the same edges in a permuted network recover ",
        r"^MIB benchmark on logit_diff: CPR -?\d\.\d{3} \(log axis ",
        r"^ +100.0% +110 +110 +1.000 +110 +1.000$",
        r"^no known circuit here, so no ROC",
    ):
        assert re.search(line, out, re.MULTILINE), (line, out)


def test_a_program_has_its_point_against_the_truth(shell):
    shell.json("discover", "tracr-reverse", "--out", "run")
    found = shell.json("evaluate", "run", "--circuits", 29)
    assert found["roc"]["edges"] == {
        "true_positive_rate": 1.0,
        "false_positive_rate": 0.0,
        "precision": 1.0,
        "n_found": 15,
    }
    assert found["roc"]["nodes"]["n_found"] == 16
    tests = {test["name"]: test for test in found["hypotheses"]["tests"]}
    assert tests["minimality"]["passed"] is True
    assert tests["equivalence"]["p_value"] is None
    assert "a distance from the model" in tests["equivalence"]["verdict"]
    assert found["permuted"] == pytest.approx(0, abs=0.5)
    out = shell.works("evaluate", "run", "--circuits", 29).out
    assert re.search(r"^edges +15 +1.000 +0.000 +1.000$", out, re.MULTILINE)
    assert "no known circuit" not in out


def test_quick_is_metrics_and_intervals(shell, pronoun):
    found = shell.json("evaluate", "acdc", "--quick")
    assert found["hypotheses"] is None
    assert found["permuted"] is None
    assert found["metrics"]["kl_div"]["interval"] is not None
    assert shell.json("evaluate", "acdc", "--quick", "--resamples", 0)["metrics"]["kl_div"]["interval"] is None


def test_without_time_tests_are_left_out_by_name_with_the_option_that_makes_them(shell, pronoun):
    out = shell.works("evaluate", "acdc", "--minutes", "1e-9").out
    assert re.search(r"^sufficiency +- +not made: too little was run for it *$", out, re.MULTILINE)
    assert re.search(r"^tried in about 0 s: 0 of 100 random circuits, ", out, re.MULTILINE)
    assert "--full tries all" in out
    assert out.index("kl_div") < out.index("hypothesis tests") < out.index("--full")
    assert "choose one" in shell.refuses("evaluate", "acdc", "--quick", "--full")
    assert "above 0" in shell.refuses("evaluate", "acdc", "--minutes", "0")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_measured_is_printed_when_the_rest_is_stopped(shell, pronoun, monkeypatch, as_json):
    from edgewise.evaluation import hypotheses

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hypotheses, "inflated", stop)
    finished = shell("evaluate", "acdc", "--circuits", 30, *(["--json"] if as_json else []))
    assert finished.code == 130
    assert "interrupted; what was measured until then is printed" in finished.err
    assert "nothing was written" not in finished.err
    if as_json:
        assert finished.json["interrupted"] is True
        assert finished.json["metrics"]["kl_div"]["recovered"] > 0.9
        assert len(finished.json["hypotheses"]["random"]) == 30
    else:
        assert re.search(r"^kl_div .*%$", finished.out, re.MULTILINE)
        assert re.search(r"^sufficiency +yes ", finished.out, re.MULTILINE)
        assert "tried until interrupted: " in finished.out


def test_the_time_left_is_told_where_there_is_no_terminal(shell, pronoun, monkeypatch):
    from edgewise.reports import words

    monkeypatch.setattr(words, "LINE_EVERY", 0.0)
    err = shell.works("evaluate", "acdc", "--circuits", 30).err
    assert re.search(r"^metrics: 3 of 4, about \d+ s left$", err, re.MULTILINE)
    assert re.search(r"^tests: 100 of \d+, about \d+ s left$", err, re.MULTILINE)


def test_metrics_are_printed_as_their_names_say_and_kept_as_the_search_has_them(shell, pronoun):
    out = shell.works("evaluate", "acdc", "--quick").out
    found = shell.json("evaluate", "acdc", "--quick")["metrics"]
    assert found["frac_correct"]["full"] == -1
    assert re.search(r"^frac_correct +100.0% +100.0% +", out, re.MULTILINE)
    shown = re.search(r"^logit_diff +(\S+) ", out, re.MULTILINE)
    assert float(shown[1]) == pytest.approx(-found["logit_diff"]["circuit"], abs=1e-4)
    low, high = re.search(r"^logit_diff +(\S+) and (\S+) ", out, re.MULTILINE).groups()
    assert 0 < float(low) < float(shown[1]) < float(high)
    assert "lower is better, but for logit_diff, prob_diff, frac_correct" in out


def test_a_circuit_on_another_tasks_data(shell, models):
    """A control: the circuit of one task on the prompts of another, for the same model."""
    one = write_prompts(shell.folder / "one.jsonl")
    shell.json("discover", one, "--model", models / "gpt2", "--threshold", "0.01", "--out", "run")
    lines = one.read_text().splitlines()
    other = shell.folder / "other.jsonl"
    other.write_text("\n".join(reversed(lines)) + "\n")
    found = shell.json("evaluate", "run", "--task", other, "--quick")
    assert found["task"] == "other"
    assert found["metric"] == tiny.near(shell.json("evaluate", "run", "--quick")["metric"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--circuits", 28), "with fewer than 29 random circuits"),
        (("--confidence", 1), "a confidence is between 0 and 1"),
        (("--resamples", 1), "needs 200 to 1,000,000 resamples, not 1"),
        (("--resamples", 200_000_000), "1,000,000 resamples"),
        (("--test-seed", -1), "a seed is a whole number of 0 or more, not -1"),
        (("--rediscover", 1), "--rediscover should be 0 or at least 2, not 1"),
        (("--rediscover", -3), "--rediscover should be 0 or at least 2, not -3"),
    ],
)
def test_tests_that_cannot_be_made_are_refused(shell, pronoun, options, why):
    assert why in shell.refuses("evaluate", "acdc", *options)


def test_a_circuit_file_cannot_be_searched_again(shell, pronoun):
    asked = ("evaluate", "acdc/circuit.json", "--task", "gender-pronoun", "--rediscover", 2)
    assert "a circuit file does not say how it was found" in shell.refuses(*asked)


def test_one_example_has_no_tests_and_no_intervals(shell):
    shell.json("discover", "or-gate", "--out", "run")
    found = shell.json("evaluate", "run")
    assert found["hypotheses"] is None
    assert found["metrics"]["l2"]["interval"] is None
    out = shell.works("evaluate", "run").out
    assert "no intervals (1 example, fewer than 8)" in out
    assert "no tests and no random circuits: they need at least 2 examples" in out
    assert "note: no permuted network" in out


# --- compare -------------------------------------------------------------------------------------------------------


def test_circuits_side_by_side(shell, pronoun, scored):
    found = shell.json("compare", "acdc", "scored")
    one, other = set(pronoun["edges"]), set(scored["edges"])
    (pair,) = found["pairs"]
    assert (pair["common"], pair["only_first"], pair["only_second"]) == (
        len(one & other),
        len(one - other),
        len(other - one),
    )
    assert pair["jaccard"] == pytest.approx(len(one & other) / len(one | other))
    assert found["names"] == ["acdc", "scored"]
    listed = {name for component in found["components"] for own in component["own"] for name in own}
    assert listed == one ^ other
    out = shell.works("compare", "acdc", "scored").out
    assert re.search(
        rf"^acdc and scored +{len(one & other)} +{len(one - other)} +{len(other - one)} ", out, re.MULTILINE
    )


def test_comparison_by_hand():
    graph = load_model("tiny-pronoun").graph()
    circuits = {
        name: Circuit.from_names(graph, names)
        for name, names in {
            "a": ["input->m0", "m0->logits"],
            "b": ["input->m0", "input->logits"],
            "c": ["input->m0", "m0->logits"],
        }.items()
    }
    found = compare_circuits(circuits)
    assert (found.in_all, found.in_any) == (1, 3)
    assert [one.jaccard for one in found.pairs] == pytest.approx([1 / 3, 1, 1 / 3])
    assert [one.node for one in found.components] == ["logits", "m0", "input"]
    logits, m0, _ = found.components
    assert (logits.edges, logits.shared) == ((1, 1, 1), 0)
    assert logits.own == ((), ("input->logits",), ()), "m0->logits is in two of the three"
    assert (m0.edges, m0.shared) == ((2, 1, 2), 1)


def test_edges_into_a_shared_key_are_said_once():
    graph = Graph(2, 4, n_kv_heads=2)
    one, other = (Circuit.from_names(graph, names) for names in (["input->a0.g0<k>", "m0->logits"], ["m0->logits"]))
    found = compare_circuits({"one": one, "other": other})
    assert [(each.node, each.edges) for each in found.components] == [("a0.g0", (1, 0)), ("input", (1, 0))]


def test_runs_of_one_name_are_told_apart_by_their_folders(shell, pronoun):
    (shell.folder / "other").mkdir()
    shell.json("discover", "gender-pronoun", "--examples", 8, "--threshold", 0.3, "--out", "other/acdc")
    assert shell.json("compare", "acdc", "other/acdc")["names"] == ["acdc", "other/acdc"]


def test_what_cannot_be_compared_is_refused(shell, pronoun):
    shell.json("discover", "tracr-reverse", "--out", "reverse")
    assert "at least two circuits" in shell.refuses("compare", "acdc")
    assert "'reverse' is a circuit of another graph" in shell.refuses("compare", "acdc", "reverse")
    assert "the same circuit is named twice" in shell.refuses("compare", "acdc", "acdc")
    assert "no such file" in shell.refuses("compare", "acdc", "nowhere")


def test_a_run_and_its_export_are_compared_in_the_graph_that_both_have(shell, scored):
    shell.works("export", "scored", "--name", "ioi_gpt2", "--out", "submission")
    exported = "submission/ioi_gpt2/importances.json"
    found = shell.json("compare", "scored", exported)
    assert found["pairs"][0]["jaccard"] == 1
    assert found["note"] == "port edges are left aside, as some of the circuits have none"
    measured = shell.json("evaluate", exported, "--task", "gender-pronoun", "--examples", 8, "--circuits", 29)
    assert measured["mib"] == shell.json("evaluate", "scored", "--circuits", 29)["mib"], "a file that scores all edges"


# --- sweep ---------------------------------------------------------------------------------------------------------


def test_a_sweep_leaves_its_data(shell):
    typed = ("sweep", "tracr-reverse", "--methods", "acdc,edge-attribution,random", "--thresholds", "1e-3:1:4")
    found = shell.json(*typed, "--sizes", "5,20", "--out", "out")
    acdc, attribution, chance = found["series"]
    assert [round(point["setting"], 4) for point in acdc["points"]] == [0.001, 0.01, 0.1, 1]
    assert [point["n_edges"] for point in acdc["points"]] == [15, 15, 15, 0]
    assert acdc["roc"]["edges"]["pessimistic"] == 1
    assert [point["setting"] for point in chance["points"]] == [5, 20]
    assert attribution["points"][0]["metrics"]["l2"] > 0
    rows = list(csv.DictReader((shell.folder / "out" / "sweep.csv").open()))
    assert len(rows) == 8
    assert {path.name for path in (shell.folder / "out").iterdir()} == {
        *("acdc.jsonl", "edge-attribution.jsonl", "random.jsonl", "sweep.csv", "command.txt"),
        *("sizes.svg", "roc.svg", "thresholds.svg"),
    }
    before = shell.everything()
    assert shell.json(*typed, "--sizes", "5,20", "--out", "out") == found
    assert {name: one for name, one in shell.everything().items() if name != "out/command.txt"} == {
        name: one for name, one in before.items() if name != "out/command.txt"
    }
    out = shell.works(*typed, "--sizes", "5,20", "--out", "out").out
    assert re.search(r"^ +0.001 +15 +0.0000 +100.0% +0.0000 +1.000 +0.000$", out, re.MULTILINE)
    assert "holds another series" in shell.refuses(*typed, "--sizes", "5,21", "--out", "out")


def test_a_sweep_by_another_order_of_heads_keeps_the_other_head_of_the_or_gate(shell):
    for order, head in (("normal", "a0.h0"), ("reverse", "a0.h1")):
        typed = ("sweep", "or-gate", "--methods", "acdc", "--thresholds", "0.01", "--absolute", "--head-order", order)
        assert shell.json(*typed, "--out", order)["series"][0]["points"][0]["n_edges"] == 2
        (head_line, point, _) = (shell.folder / order / "acdc.jsonl").read_text().splitlines()
        assert json.loads(head_line)["absolute"] is True
        graph = load_model("or-gate").graph()
        assert head in unpacked(json.loads(point)["circuit"], graph).nodes()
        assert "known circuit" in (shell.folder / order / "sizes.svg").read_text()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--methods", "acdcc"), "unknown method 'acdcc'; did you mean 'acdc'"),
        (("--methods", ","), "--methods names nothing"),
        (("--methods", "acdc,acdc"), "--methods names 'acdc' twice"),
        (("--methods", "acdc", "--steps", 5), "none of the methods acdc has --steps"),
        (("--sizes", "5.6"), "--sizes takes whole numbers of edges, not 5.6"),
        (("--sizes", "inf"), "--sizes takes numbers"),
        (("--thresholds", "1:2:1000000000000"), "a count of 2 to 10,000"),
        (("--methods", "random", "--seed", -1), "should be a whole number from 0 to 2^63 - 1, not -1"),
        (("--thresholds", "1:2"), "--thresholds takes numbers by commas, or LOW:HIGH:COUNT"),
        (("--thresholds", "0:1:5"), "with both above 0"),
        (("--thresholds", "low,high"), "--thresholds takes numbers"),
        (("--methods", "random", "--sizes", "0"), "whole numbers of edges from 1"),
        (("--methods", "subnetwork-probing", "--lambdas", "-1"), "a lambda should be 0 or more"),
        (("--metric", "logit_dif"), "unknown metric 'logit_dif'"),
        (("--ablation", "zeros"), "unknown ablation 'zeros'"),
        (
            ("--methods", "random", "--absolute"),
            "--absolute, --layer-order and --head-order are ACDC's; none of random",
        ),
        (("--head-order", "revers"), "unknown order 'revers'"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(shell, options, why):
    assert why in shell.refuses("sweep", "tracr-reverse", *options)


def test_a_sweep_is_not_written_over_a_file(shell):
    (shell.folder / "out").write_text("mine")
    assert "is a file; choose another" in shell.refuses("sweep", "tracr-reverse", "--out", "out")
    shell.json("discover", "or-gate", "--out", "run")
    assert "holds a run; choose another" in shell.refuses("sweep", "or-gate", "--out", "run")


def test_a_sweep_and_a_reproduction_write_into_no_folder_of_other_things(shell):
    for name in ("sweep.csv", "command.txt", "part/tables.md"):
        folder = shell.folder / f"mine-{Path(name).name}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        held = repr(name.split("/")[0])
        sweep = shell.refuses("sweep", "or-gate", "--methods", "random", "--out", folder.name)
        assert f"holds {held} and nothing of a sweep; nothing is overwritten, so choose another" in sweep
        again = shell.refuses("reproduce", "paper", "--offline", "--out", folder.name)
        assert f"holds {held} and nothing of a reproduction" in again
    shell.json("discover", "or-gate", "--out", "run")
    assert "holds a run; choose another" in shell.refuses("reproduce", "paper", "--offline", "--out", "run")


# --- export --------------------------------------------------------------------------------------------------------


def test_a_submission_is_written_for_the_benchmark(shell, scored):
    finished = shell.works("export", "scored", "--name", "ioi_gpt2", "--out", "submission")
    assert "ioi_gpt2: importances of 110 edges" in finished.out
    content = json.loads((shell.folder / "submission" / "ioi_gpt2" / "importances.json").read_text())
    assert set(content) == {"cfg", "nodes", "edges"}
    assert len(content["edges"]) == 110
    told = shell.json("export", "scored", "--file", "pt", "--out", "torch")
    cell = {"cell": "gender-pronoun_tiny-pronoun", "scored": True, "official": False}
    assert told == {"folder": "torch", "cells": [cell]}
    (path,) = (shell.folder / "torch").rglob("*.pt")
    assert path.parent.name == "gender-pronoun_tiny-pronoun"
    again = shell.json("evaluate", path, "--task", "gender-pronoun", "--examples", 8, "--quick")
    assert again["n_edges"] == len([name for name in scored["edges"] if not re.search(r"<[qkv]>->", name)])
    assert again["metric"] == tiny.near(scored["metric"])


def test_what_the_benchmark_cannot_take_is_refused(shell, pronoun):
    shell.json("discover", "tracr-reverse", "--out", "reverse")
    assert "one embedding and an MLP in every layer" in shell.refuses("export", "reverse", "--out", "out")
    assert "unknown format 'mibs'" in shell.refuses("export", "acdc", "--format", "mibs", "--out", "out")
    assert "json or pt, not 'npz'" in shell.refuses("export", "acdc", "--file", "npz", "--out", "out")
    assert "--name is for one run" in shell.refuses("export", "acdc", "acdc", "--name", "ioi_gpt2", "--out", "out")
    assert "two runs would go into" in shell.refuses("export", "acdc", "acdc", "--out", "out")
    assert "is not a run folder" in shell.refuses("export", "nowhere", "--out", "out")
    assert "choose another" in shell.refuses("export", "acdc", "--out", "acdc")


# --- reproduce -----------------------------------------------------------------------------------------------------


def test_the_papers_tables_by_one_command(shell, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    typed = ("reproduce", "paper", "--offline", "--tasks", "tracr-reverse,ioi", "--methods", "acdc,head-importance")
    typed += ("--figures", "tables-2-3,appendix-i,fig-1")
    finished = shell.works(*typed, "--json")
    found = finished.json
    rows = re.findall(r"^row (\d) of 7: (\S+), about .* left$", finished.err, re.MULTILINE)
    assert rows[0] == ("1", "tracr-reverse-resample-l2-as-published")
    assert [number for number, _ in rows] == list("1234567")
    cells = [cell for cell in found["cells"] if cell["task"] == "tracr-reverse"]
    assert {(cell["method"], cell["ours"] is None) for cell in cells} == {
        ("acdc", False),
        ("head-importance", False),
        ("subnetwork-probing", True),
    }
    out = shell.works(*typed).out
    assert re.search(r"^zero +tracr-reverse +l2 +put right +ACDC +1.000 +1.000 +1.000 ", out, re.MULTILINE)
    assert re.search(r"^corrupted +tracr-reverse +l2 +put right +ACDC +0.200 +0.600 .* \[1\]", out, re.MULTILINE)
    assert re.search(r"^\[1\] corrupted positions are permuted", out, re.MULTILINE)
    assert re.search(r"^appendix-i +tracr-reverse +zero +ACDC by l2 at 0.01 +edges +15 +15 *$", out, re.MULTILINE)
    assert re.search(
        r"^appendix-i +tracr-reverse +zero +ACDC by l2 at 0.01 +fetches the letter +1 of 1 +a3.h0", out, re.M
    )
    away = "the weights of gpt2 are not on this machine, and this run is offline"
    assert f"not run: fig-1-ioi-resample-kl_div-0.0575: {away}" in out.splitlines()
    assert out.count(away) == 4 + 1, "one line each"
    folder = shell.folder / "runs" / "paper"
    assert {path.name for path in folder.iterdir()} == {"paper", "part", "circuits"}
    folder = folder / "part"
    names = {path.name for path in folder.iterdir()}
    assert {
        "tables.md",
        "areas.csv",
        "curves.csv",
        "circuits.csv",
        "sizes-tracr-reverse-zero-l2-put-right.svg",
    } <= names
    assert "known circuit" in (folder / "sizes-tracr-reverse-zero-l2-put-right.svg").read_text()
    assert "| zero | tracr-reverse | l2 | put right | ACDC | 1.000 | 1.000 |" in (folder / "tables.md").read_text()
    assert (folder / "curves.csv").read_text().startswith("table,key,task,model,")


def test_what_is_not_in_the_paper_is_refused(shell):
    assert "unknown thing to reproduce 'papers'; did you mean 'paper'" in shell.refuses("reproduce", "papers")
    assert "unknown task of the paper 'or-gates'" in shell.refuses("reproduce", "paper", "--tasks", "or-gates")
    assert "--tasks names nothing" in shell.refuses("reproduce", "paper", "--tasks", "")
    assert "unknown method 'ps'" in shell.refuses("reproduce", "paper", "--methods", "ps")
    assert "unknown table or figure of the paper 'fig-2'" in shell.refuses("reproduce", "paper", "--figures", "fig-2")
    assert "takes models and folders, as in gpt2=DIR, not 'gpt2'" in shell.refuses(
        "reproduce", "paper", "--weights", "gpt2"
    )
    assert "unknown model of the paper 'gpt3'" in shell.refuses("reproduce", "paper", "--weights", "gpt3=.")
    assert "there is no folder 'nowhere'" in shell.refuses("reproduce", "paper", "--weights", "gpt2=nowhere")
    assert "--examples is for a model of your own" in shell.refuses("reproduce", "paper", "--examples", "4")
    typed = ("reproduce", "paper", "--model", "tiny-ioi")
    assert "--model asks for another model's" in shell.refuses(*typed, "--figures", "fig-1")
    assert "unknown task that any model can be swept on 'tracr-reverse'" in shell.refuses(
        *typed, "--tasks", "tracr-reverse"
    )
    (shell.folder / "out").write_text("mine")
    assert "is a file; choose another" in shell.refuses("reproduce", "paper", "--out", "out")


def test_the_same_sweeps_on_a_model_of_ones_own(shell):
    typed = ("reproduce", "paper", "--model", "tiny-pronoun", "--examples", 4, "--tasks", "gender-pronoun,docstring")
    finished = shell.works(*typed, "--methods", "acdc,edge-attribution", "--json")
    found = finished.json
    assert [curve["method"] for curve in found["curves"]] == ["acdc", "edge-attribution", "random"]
    assert {curve["key"] for curve in found["curves"]} == {"gender-pronoun-tiny-pronoun"}
    assert [len(curve["points"]) for curve in found["curves"]] == [2, 4, 4]
    ((name, why),) = found["missing"]
    assert name == "docstring-tiny-pronoun"
    assert "tiny-pronoun" in why
    assert found["curves"][0]["references"]["reset"] > 0.1
    folder = shell.folder / "runs" / "paper"
    assert {path.name for path in (folder / "tiny-pronoun").iterdir()} >= {
        "tables.md",
        "sizes-gender-pronoun-tiny-pronoun.svg",
    }
    assert (folder / "model" / "gender-pronoun-tiny-pronoun" / "acdc.jsonl").is_file()


def test_a_task_with_a_known_circuit_says_so_only_on_the_papers_model():
    assert load_task("tracr-reverse", load_model("tracr-reverse")).known_circuit is not None
    assert load_task("ioi", load_model("tiny-ioi"), examples=2).known_circuit is None
