"""`edgewise prompts`, known circuits and warnings on screen, and control experiments from the shell."""

from __future__ import annotations

import json

import pytest
import tiny
import typer.main
from word_models import ROWS, write_prompts

from edgewise.cli.commands import every_command
from edgewise.reports.prompts import differing

COMMANDS = [*([name] for name in sorted(typer.main.get_command(every_command()).commands)), ["models", "get"]]


def test_pairs_are_printed_with_what_differs_the_answer_and_what_the_model_says(shell):
    out = shell.works("prompts", "ioi", "--examples", "2").out
    assert "clean   Then, [Mary] and [Jeffrey] went to the restaurant. [Jeffrey] gave a bone to" in out
    assert "corrupt Then, [Melissa] and [Nicole] went to the restaurant. [Anthony] gave a bone to" in out
    assert "answer  ' Mary'   not ' Jeffrey'" in out
    assert "model   right: 'Mary' 9" in out
    assert out.count("clean   ") == 2
    assert "right on 32 of 32 places of the 32 clean prompts (100%)" in out


def test_differences_are_coloured_where_there_are_colours(shell, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = shell.works("prompts", "ioi", "--examples", "1").out
    assert "\x1b[1;32mMary\x1b[0m" in out
    assert "\x1b[1;31mMelissa\x1b[0m" in out
    assert "[Mary]" not in out


def test_prompts_as_json_hold_the_same(shell):
    found = shell.json("prompts", "ioi", "--examples", "3", "--split", "test")
    assert (found["task"], found["model"], found["split"], len(found["prompts"])) == ("ioi", "tiny-ioi", "test", 3)
    first = found["prompts"][0]
    assert set(first) == {"clean", "corrupt", "answers", "wrong", "places", "right", "likeliest", "outputs"}
    assert (first["places"], first["right"]) == (1, 1)
    token, share = first["likeliest"][0]
    assert f" {token}" == first["answers"][0]
    assert 0.9 < share <= 1


def test_numbers_are_shown_where_a_model_gives_numbers(shell):
    out = shell.works("prompts", "tracr-reverse", "--examples", "1").out
    assert "BOS 1 [2] [3]" in out or "BOS [1] [2] [3]" in out
    assert "(0.00, 0.00, 1.00)  (0.00, 1.00, 0.00)  (1.00, 0.00, 0.00)" in out
    assert "right on" not in out


def test_prompts_of_a_file_are_shown_on_ones_own_model(shell, models):
    path = write_prompts(shell.folder / "mine.jsonl")
    found = shell.json("prompts", path, "--model", models / "gpt2", "--examples", "2")
    assert [one["clean"] for one in found["prompts"]] == ["the girl named Lily ran .", "the boy named Max went home ."]
    assert {one["right"] for one in found["prompts"]} <= {0, 1}


def test_the_next_rows_of_a_file_are_shown_as_its_test_prompts(shell, models):
    path = write_prompts(shell.folder / "mine.jsonl", [*ROWS, ROWS[0]])
    asked = ["prompts", path, "--model", models / "gpt2", "--split", "test"]
    shown = shell.json(*asked, "--examples", "2")["prompts"]
    assert [one["clean"] for one in shown] == [ROWS[2]["clean"], ROWS[0]["clean"]]
    assert "--examples N" in shell.refuses(*asked)


def test_prompts_say_what_a_search_will_refuse(shell, models):
    uneven = {**ROWS[1], "corrupt": "the girl ran .", "answer": " She said"}
    path = write_prompts(shell.folder / "mine.jsonl", [ROWS[0], uneven, ROWS[2]])
    err = shell.works("prompts", path, "--model", models / "gpt2").err
    assert "discover will refuse these prompts as they are" in err
    assert "pair 2 has 7 and 4 tokens" in err
    assert "metrics that need answers cannot be used" in err
    assert "line 2: answer ' She said' is 2 tokens" in err
    err = shell.works("prompts", path, "--model", models / "gpt2", "--skip-bad").err
    assert "refuse" not in err
    assert "left out 1 of 3 rows" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prompts", "iio"], "unknown task 'iio'"),
        (["prompts", "ioi", "--examples", "0"], "examples (--examples) should be a whole number from 1, not 0"),
        (["prompts", "ioi", "--variant", "publishd"], "unknown variant of task 'ioi'"),
        (["prompts", "or-gate", "--examples", "9"], "has 1 example at most, not 9"),
        (["prompts", "mine.jsonl"], "no such file"),
        (["prompts", "ioi", "--examples", "1000000000"], "has 10,000 examples at most, not 1000000000"),
        (["prompts", "ioi", "--seed", "-1"], "the seed (--seed) should be a whole number from 0 to"),
        (["discover", "ioi", "--seed", str(10**22)], "the seed (--seed) should be a whole number from 0 to"),
        (["discover", "ioi", "--permuted", "-3"], "(--permuted) should be a whole number from 0 to"),
        (["discover", "ioi", "--skip-bad"], "skip_bad (--skip-bad) is for one's own prompts"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(shell, arguments, message):
    ended = shell(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""


def test_texts_are_compared_word_by_word_or_as_they_match():
    assert differing("the year 1289 to", "the year 1201 to")[1][4] == ("1201", True)
    moved = differing("BOS 1 2 3", "BOS 3 1 2")
    assert [part for part, differs in moved[1] if differs] == ["3", "1", "2"]
    longer = differing("a b c", "a b b c d")
    assert longer[0] == [("a b ", False), ("c", False)]
    assert "".join(part for part, differs in longer[1] if differs).split() == ["b", "d"]
    for pieces, text in zip(longer, ("a b c", "a b b c d"), strict=True):
        assert "".join(part for part, _ in pieces) == text


def test_the_known_circuit_is_shown_group_by_group(shell):
    out = shell.works("discover", "tracr-reverse").out
    assert "known circuit (Lindner et al. 2023): 15 of its 15 edges found" in out
    assert "finds the length" in out
    assert "2 of 2" in out
    found = shell.json("discover", "or-gate")
    known = found["known_circuit"]
    assert (known["n_edges"], known["found"]) == (3, 2)
    groups = {one["group"]: (one["found"], one["members"]) for one in known["groups"]}
    assert groups["inputs"] == (["a0.h0"], ["a0.h0", "a0.h1"])
    measured = shell.json("evaluate", found["run_dir"], "--quick")
    assert measured["known_circuit"] == known
    assert shell.json("discover", "ioi", "--examples", "4")["known_circuit"] is None


def test_a_model_that_cannot_do_the_task_is_warned_about_before_the_search(shell, models):
    path = write_prompts(shell.folder / "mine.jsonl")
    ended = shell("discover", path, "--model", models / "gpt2", "--threshold", "0.01", "--json")
    assert ended.code == 0
    accuracy = json.loads(ended.out)["accuracy_full"]
    assert accuracy < 0.7, "this random model would be no test otherwise"
    assert f"edgewise: warning: the model gets {accuracy:.0%} right; there may be no circuit to find\n" in ended.err
    good = shell("discover", "ioi", "--examples", "4", "--json")
    assert json.loads(good.out)["accuracy_full"] == 1
    assert "warning" not in good.err


def test_a_control_runs_and_measures_again_on_the_permuted_network(shell):
    found = shell.json("discover", "induction", "--permuted", "7")
    assert found["settings"]["model"]["permuted_seed"] == 7
    assert found["metric_full"] > 1, "its divergence is from the trained model"
    measured = shell.json("evaluate", found["run_dir"], "--quick")
    assert measured["metric"] == tiny.near(found["metric"])
    assert measured["metrics"]["kl_div"]["target"] == tiny.near(0)
    assert "permuted model" in shell.works("evaluate", found["run_dir"], "--circuits", 29).out
    other = shell.json("discover", "induction")
    assert other["settings"]["model"]["permuted_seed"] is None
    assert other["settings"]["model"]["fingerprint"] != found["settings"]["model"]["fingerprint"]


def test_folded_biases_are_recorded_and_used_again(shell):
    found = shell.json("discover", "or-gate", "--fold-value-biases", "--fold-norm-biases")
    assert found["settings"]["model"]["folded_value_biases"] is True
    assert found["settings"]["model"]["folded_norm_biases"] is True
    # Both heads write through their value biases alone: folded, these stay, and no head is in the circuit.
    assert not any("h" in name for name in found["edges"] if not name.startswith("m0->"))
    plain = shell.json("discover", "or-gate")
    assert plain["edges"] == ["a0.h0->m0", "m0->logits"]
    assert "folded_norm_biases" not in plain["settings"]["model"]
    measured = shell.json("evaluate", found["run_dir"], "--quick")
    assert measured["metric_ablated"] == tiny.near(found["metric_ablated"])


def test_the_list_of_tasks_tells_of_models_metrics_and_known_circuits(shell, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = {row["name"]: row for row in json.loads(shell.works("tasks", "--json").out)}
    assert [rows[name]["known_circuit"] for name in ("ioi", "greater-than", "docstring", "induction")] == [
        1041,
        262,
        37,
        None,
    ]
    assert rows["docstring"]["paper_model"] == "attn-only-4l"
    assert rows["greater-than"]["metrics"][:2] == ["kl_div", "prob_diff"]
    out = shell.works("tasks").out
    for part in ("redwood_attn_2l", "tiny-docstring", "1,041 edges", "logit_diff_max", "Hanna et al. 2023"):
        assert part in out


def test_control_characters_of_prompts_reach_no_terminal(shell, models):
    path = write_prompts(shell.folder / "odd\x1b[2J.jsonl")
    for command in ("prompts", "patch"):
        assert "\x1b" not in shell.works(command, path, "--model", models / "llama").out
    assert "\\x1b[2J" in shell.works("prompts", path, "--model", models / "llama").out


def test_what_counts_as_right_is_said(shell):
    assert "right means that the answer is likelier than every wrong one" in shell.works("prompts", "ioi").out
    assert "likelier together than the wrong ones" in shell.works("prompts", "greater-than").out


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=lambda one: " ".join(one) or "edgewise")
def test_no_help_text_loses_its_brackets_to_markup(shell, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = " ".join(shell.works(*command, "--help").out.split())
    assert "'edgewise'." not in out
    if command == ["discover"]:
        assert "'edgewise[tensorboard]'" in out


def test_what_discover_will_refuse_is_warned_about(shell, models):
    rows = [{**ROWS[0], "corrupt": ROWS[0]["corrupt"] + " " + ROWS[0]["corrupt"]}]
    path = write_prompts(shell.folder / "unequal.jsonl", rows)
    finished = shell.works("prompts", path, "--model", models / "llama")
    assert "warning: discover will refuse these prompts as they are: ablation 'resample' swaps" in finished.err


# --- what a model makes of the tasks ----------------------------------------------------------------------------------


def test_the_list_of_tasks_says_what_a_model_makes_of_them(shell):
    rows = json.loads(shell.works("tasks", "--model", "tiny-ioi", "--examples", "4", "--json").out)
    assert rows["model"] == "tiny-ioi"
    found = {row["task"]: row for row in rows["tasks"]}
    assert found["ioi"]["can"]
    assert (found["ioi"]["accuracy"], found["ioi"]["right"], found["ioi"]["places"]) == (1.0, 4, 4)
    assert not found["docstring"]["can"]
    assert "needs at least 15 names that are one token" in found["docstring"]["why_not"]
    out = shell.works("tasks", "--model", "tiny-ioi", "--examples", "4").out
    assert "ioi                100% of 4" in out
    assert "only 1 of 111 names are one token" in out
    assert "tiny-ioi on the first 4 prompts of each task (seed 0)" in out


def test_a_model_is_tried_on_two_prompts_at_least(shell):
    assert "--examples should be at least 2, not 1" in shell.refuses("tasks", "--model", "tiny-ioi", "--examples", "1")


# --- prompts from a dataset -------------------------------------------------------------------------------------------


def test_a_search_takes_its_prompts_from_columns_of_a_table(shell, models):
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": row["clean"], "meta": {"other": row["corrupt"]}} for row in ROWS]
    path = shell.folder / "table.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    asked = ("--dataset", path, "--clean", "prompt", "--corrupt", "meta.other", "--model", models / "gpt2")
    out = shell.works("prompts", *asked).out
    assert "table: 3 prompt pairs" in out
    found = shell.json("discover", *asked, "--threshold", "0.01", "--method", "eap")
    assert found["settings"]["task"]["dataset"] == {
        "dataset": str(path),
        "clean": "prompt",
        "corrupt": "meta.other",
    }
    shell.works("evaluate", found["run_dir"], "--quick")  # on the rows that the run keeps
    assert "came from a dataset" in shell.refuses("evaluate", found["run_dir"], "--quick", "--split", "test")


def test_a_task_and_a_dataset_are_not_both(shell):
    assert "say which task" in shell.refuses("discover")
    assert "give a task or a dataset, not both" in shell.refuses("discover", "ioi", "--dataset", "mib-bench/ioi")
    assert "--clean is for --dataset" in shell.refuses("discover", "ioi", "--clean", "prompt")


def test_a_wrong_answer_of_several_tokens_is_shown_in_a_row_of_its_own(shell, models):
    path = write_prompts(shell.folder / "mine.jsonl", [{**ROWS[0], "wrong": " He went", "answer_tokens": "all"}])
    out = shell.works("prompts", path, "--model", models / "llama").out
    assert "  answer  ' She'   not ' He went'" in out
    assert "  wrong   ' He went'" in out
