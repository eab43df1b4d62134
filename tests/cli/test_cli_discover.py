"""`edgewise discover` and the lists: what they print, and that what they print is so."""

from __future__ import annotations

import json
import re

import pytest
import tiny
from shell import Shell, strict_json
from word_models import ROWS, write_prompts

import edgewise as ew
from edgewise import __version__, load_circuit
from edgewise.reports import words

STORIES = tiny.SHARED / "models" / "stories260k"

VERBS = ("discover", "evaluate", "tasks", "models", "check", "methods")


# --- what comes out -----------------------------------------------------------------------------------------------


def test_json_is_one_object_with_everything_about_the_run(shell):
    found = shell.json("discover", "tracr-reverse")
    wanted = {
        "edges",
        "n_edges",
        "n_edges_connected",
        "metric",
        "metric_full",
        "metric_ablated",
        "tests",
        "seconds",
        "run_dir",
        "settings",
    }
    assert wanted <= set(found)
    assert len(found["edges"]) == len(set(found["edges"])) == found["n_edges"] == found["n_edges_connected"] == 15
    assert {"tok->a0.h0<v>", "m2->a3.h0<q>", "a3.h0->logits", "a3.h0<q>->a3.h0"} <= set(found["edges"])
    assert found["metric"] < 1e-9
    assert found["metric_full"] < 1e-9
    assert found["metric_ablated"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["tests"] > 15
    assert found["seconds"] > 0
    assert (shell.folder / found["run_dir"] / "run.json").is_file()
    assert found["settings"]["threshold"] == 0.01
    assert found["settings"]["model"]["name"] == "tracr-reverse"


@pytest.mark.parametrize(
    ("task", "ablation", "n_edges"),
    [
        ("tracr-reverse", "zero", 15),
        ("tracr-xproportion", "zero", 10),
        ("tracr-reverse", "resample", 9),
        ("tracr-xproportion", "resample", 9),
    ],
)
def test_the_tracr_programs_give_their_known_circuits(shell, task, ablation, n_edges):
    found = shell.json("discover", task, "--ablation", ablation, "--threshold", "0.01")
    assert len(found["edges"]) == found["n_edges"] == found["n_edges_connected"] == n_edges
    assert found["metric"] < 1e-9
    assert found["metric_ablated"] > 0.1


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_a_variant_brings_its_own_model(shell, variant):
    found = shell.json("discover", "tracr-xproportion", "--variant", variant)
    assert found["n_edges"] == 10
    assert found["settings"]["task"]["variant"] == variant
    assert found["settings"]["model"]["name"] == "tracr-xproportion-compiled"


@pytest.mark.parametrize(("order", "survivor"), [("normal", "a0.h0->m0"), ("reverse", "a0.h1->m0")])
def test_the_head_order_decides_which_half_of_the_or_gate_survives(shell, order, survivor):
    found = shell.json("discover", "or-gate", "--head-order", order)
    assert sorted(found["edges"]) == [survivor, "m0->logits"]
    assert found["settings"]["head_order"] == order


def test_the_summary_says_what_was_kept_where(shell):
    out = shell.works("discover", "tracr-reverse").out
    assert "kept 15 of 106 edges" in out
    assert "at threshold 0.01" in out
    assert re.search(r"^3 +h0\(q1,k1,v1\) *$", out, re.MULTILINE)
    assert re.search(r"^0 +h0\(v1\) +m0: 2 *$", out, re.MULTILINE)
    assert re.search(r"^logits +read 1: a3\.h0 *$", out, re.MULTILINE)
    assert re.search(r"^a3\.h0->logits +\+0\.3333 *$", out, re.MULTILINE)
    assert out.rstrip().endswith("written to runs/tracr-reverse-acdc")


def test_the_summary_names_shared_keys_and_values(shell, models, prompts):
    out = shell.works("discover", prompts, "--model", models / "llama", "--threshold", "0.001").out
    assert re.search(r"^[01] .*\bg[01]\(k\d,v\d\)", out, re.MULTILINE)


def test_a_circuit_that_does_the_task_is_not_called_empty(shell):
    # The OR gate's two edges do all of the task, though no path leads to them from the embedding.
    out = shell.works("discover", "or-gate").out
    assert "kept 2 of 19 edges" in out
    assert "circuit is empty" not in out
    assert "m0" in out.split("strongest edges")[0]


def test_a_circuit_without_edges_is_called_empty(shell):
    out = shell.works("discover", "tracr-reverse", "--threshold", "1e9").out
    assert "kept 0 of 106 edges" in out
    assert "the circuit is empty" in out


# --- progress -----------------------------------------------------------------------------------------------------


def test_json_keeps_progress_on_standard_error(shell, monkeypatch):
    monkeypatch.setattr(words, "LINE_EVERY", 0.0)
    finished = shell.works("discover", "tracr-reverse", "--json")
    assert finished.json["n_edges"] == 15
    lines = finished.err.splitlines()
    assert lines[0].startswith("tracr-reverse: 6 prompt pairs of 4 tokens; model tracr-reverse: 4 layers of 1 head")
    assert len(lines) > 50
    one = re.compile(
        r"acdc: [\d,]+ of 106 edges decided, \d+ kept, metric -?[\d.e-]+, at \S+"
        r"(, \d+ tests/s, (about \d+ s|\d+ s to \d+ s) left)?"
    )
    assert all(one.fullmatch(line) for line in lines[1:])
    assert lines[-1].startswith("acdc: 106 of 106 edges decided, 15 kept")


def test_quiet_leaves_standard_error_empty(shell):
    finished = shell.works("discover", "tracr-reverse", "--quiet")
    assert finished.err == ""
    assert "kept 15 of 106 edges" in finished.out


def test_quiet_and_json_print_the_object_alone(shell):
    finished = shell.works("discover", "tracr-reverse", "-q", "--json")
    assert finished.err == ""
    assert finished.json["n_edges"] == 15


def test_the_rate_counts_all_searches_of_edges_n(shell, monkeypatch):
    monkeypatch.setattr(words, "LINE_EVERY", 0.0)
    finished = shell.works("discover", "tracr-reverse", "--edges", "5", "--json")
    found = finished.json
    shown = int(re.findall(r"(\d+) tests/s", finished.err)[-1])
    assert found["tests"] > 106, "several thresholds were searched"
    assert shown > 0.3 * found["tests"] / found["seconds"]


# --- options ------------------------------------------------------------------------------------------------------


def test_edges_n_gives_at_most_n_edges_and_lists_what_was_tried(shell):
    found = shell.json("discover", "tracr-reverse", "--edges", "15")
    assert found["n_edges"] == 15
    assert found["settings"]["edges"] == 15
    record = strict_json((shell.folder / found["run_dir"] / "run.json").read_text("utf-8"))
    tried = record["result"]["tried"]
    assert {"threshold": found["settings"]["threshold"], "n_edges": 15} in tried


def test_options_are_recorded(shell):
    found = shell.json(
        *("discover", "tracr-reverse", "--examples", "4", "--seed", "3", "--dtype", "float64", "--absolute"),
        *("--layer-order", "shuffle", "--head-order", "reverse", "--device", "cpu", "--engine", "plain"),
    )
    settings = found["settings"]
    assert settings["task"]["examples"] == 4
    assert settings["task"]["seed"] == settings["order_seed"] == 3
    assert settings["model"]["dtype"] == "float64"
    assert settings["model"]["device"] == "cpu"
    assert settings["absolute"] is True
    assert (settings["layer_order"], settings["head_order"]) == ("shuffle", "reverse")
    assert (settings["method"], settings["engine"], settings["metric"]) == ("acdc", "plain", "l2")
    assert found["n_edges"] == 15


def test_no_ports_leaves_port_edges_out(shell):
    found = shell.json("discover", "tracr-reverse", "--no-ports")
    assert found["n_edges"] == 11
    assert not [edge for edge in found["edges"] if "<" in edge.partition("->")[0]]
    assert found["settings"]["ports"] is False


def test_a_negative_threshold_is_refused(shell):
    assert "the threshold should be 0 or more, not -1" in shell.refuses(
        "discover", "tracr-reverse", "--threshold", "-1"
    )


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(shell, models, prompts, dtype):
    found = shell.json("discover", prompts, "--model", models / "llama", "--threshold", "0.01", "--dtype", dtype)
    assert 0 < found["n_edges"] < 98
    assert found["settings"]["model"]["dtype"] == dtype


# --- prompts from a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "threshold"), [("gpt2", "0.0001"), ("llama", "0.01")])
def test_a_file_of_prompts_and_a_model_folder(shell, models, prompts, model, threshold):
    found = shell.json("discover", prompts, "--model", models / model, "--threshold", threshold)
    assert found["task"] == "prompts"
    assert found["n_edges"] == len(found["edges"]) > 5
    assert 0 < found["metric"] < found["metric_ablated"]
    assert abs(found["metric_full"]) < 1e-5
    assert found["settings"]["task"]["examples"] == len(ROWS)


def test_examples_takes_the_first_rows(shell, models, prompts):
    found = shell.json("discover", prompts, "--model", models / "llama", "--threshold", "0.01", "--examples", "2")
    first = write_prompts(shell.folder / "first.jsonl", ROWS[:2])
    alone = shell.json("discover", first, "--model", models / "llama", "--threshold", "0.01")
    assert found["settings"]["task"]["examples"] == 2
    assert found["edges"] == alone["edges"]
    assert found["metric"] == tiny.near(alone["metric"])


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_pairs_of_different_length_work_where_positions_do_not_count(shell, models, ablation):
    rows = [{**ROWS[0], "corrupt": "the boy ran ."}, ROWS[1]]
    path = write_prompts(shell.folder / "different.jsonl", rows)
    options = ("--model", models / "llama", "--threshold", "0.01", "--ablation", ablation)
    found = shell.json("discover", path, *options)
    assert found["n_edges"] > 5
    assert found["metric_ablated"] > 0.1


@pytest.mark.parametrize(
    "asked",
    [("--mean-over", "texts.jsonl"), ("--ablation", "optimal", "--ablation-seed", "2"), ("--ablation", "noise")],
)
def test_every_command_takes_an_ablation_that_is_worked_out(shell, asked):
    model = ew.load_model("tiny-pronoun")
    texts = [json.dumps({"text": one.clean}) for one in ew.load_task("gender-pronoun", model, examples=3).text]
    (shell.folder / "texts.jsonl").write_text("\n".join(texts))
    task = ("gender-pronoun", "--examples", "4")
    found = shell.json("discover", *task, *asked, "--out", "run")
    settings = found["settings"]
    assert settings["ablation"] == ("mean" if "--mean-over" in asked else asked[1])
    assert settings["ablation_seed"] == (2 if "optimal" in asked else 0)
    measured = shell.json("evaluate", "run", "--quick")
    assert measured["metric"] == pytest.approx(found["metric"], abs=1e-6)
    again = shell.json("evaluate", "run", "--quick", "--model", "tiny-pronoun")
    assert (again["metric"] == pytest.approx(found["metric"], abs=1e-6)) or "optimal" in asked
    shell.works("report", "run")
    assert (shell.json("plan", *task, *asked)["seconds_to_learn"] is None) == ("optimal" not in asked)
    assert shell.json("patch", *task, *asked)["ablation"] == settings["ablation"]
    swept = shell.json("sweep", *task, *asked, "--methods", "edge-attribution-ig", "--sizes", "5,20", "--out", "sweep")
    assert swept["series"][0]["baseline"]["kl_div"][1] == pytest.approx(measured["metric_ablated"], abs=1e-6)
    refused = shell.refuses("sweep", *task, "--methods", "edge-attribution-ig", "--sizes", "5,20", "--out", "sweep")
    assert "sweep" in refused


def test_mean_positional_works_on_prompts_of_one_length(shell, models):
    path = write_prompts(shell.folder / "one.jsonl", ROWS[:1])
    options = ("--model", models / "llama", "--threshold", "0.01", "--ablation", "mean-positional")
    found = shell.json("discover", path, *options)
    assert found["n_edges"] > 0
    assert found["settings"]["ablation"] == "mean-positional"


def test_answers_of_several_tokens_or_none_do_where_the_metric_needs_none(shell, models):
    rows = [{**ROWS[0], "answer": " She ran"}, {**ROWS[1], "answer": None, "wrong": None}]
    path = write_prompts(shell.folder / "answers.jsonl", rows)
    found = shell.json("discover", path, "--model", models / "llama", "--threshold", "0.01")
    assert found["n_edges"] > 5
    assert found["settings"]["metric"] == "kl_div"


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff", "nll", "match_nll", "l2", "frac_correct"])
def test_every_metric_runs(shell, models, prompts, metric):
    found = shell.json("discover", prompts, "--model", models / "llama", "--threshold", "0.01", "--metric", metric)
    assert found["settings"]["metric"] == metric
    assert found["tests"] > 0


@pytest.mark.parametrize("space", ["\u2028", "\u0085"], ids=["U+2028", "U+0085"])
def test_line_separators_inside_a_text_do_not_end_the_row(shell, models, space):
    # JSON lets both stand in a string as they are; only a line feed ends a line of JSONL.
    row = json.dumps({**ROWS[0], "note": f"a{space}b"}, ensure_ascii=False)
    path = write_prompts(shell.folder / "separator.jsonl", [row, ROWS[1]])
    found = shell.json("discover", path, "--model", models / "llama", "--threshold", "0.01")
    assert found["settings"]["task"]["examples"] == 2


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(shell, models):
    path = shell.folder / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(json.dumps(row).encode() + b"\r\n" for row in ROWS[:2]))
    found = shell.json("discover", path, "--model", models / "llama", "--threshold", "0.01")
    assert found["settings"]["task"]["examples"] == 2


def test_a_file_name_with_brackets_and_spaces_is_shown_as_it_is(shell, models):
    path = write_prompts(shell.folder / "my [bold]prompts.jsonl")
    finished = shell.works("discover", path.name, "--model", models / "llama", "--threshold", "0.01")
    assert "\nmy [bold]prompts: 3 prompt pairs" in finished.err
    assert finished.out.rstrip().endswith("written to runs/my [bold]prompts-acdc")
    assert (shell.folder / "runs" / "my [bold]prompts-acdc" / "run.json").is_file()


# --- a trained model, and the shipped one -------------------------------------------------------------------------


def found_and_measured(shell: Shell, *options: str) -> dict:
    """Discovery on the trained Llama, and that evaluation from scratch agrees with it."""
    prompts = STORIES / "gender_pronoun.jsonl"
    found = shell.json("discover", prompts, "--model", STORIES, "--threshold", "0.02", "--out", "run", *options)
    measured = shell.json("evaluate", "run", "--quick")
    assert measured["metric"] == tiny.near(found["metric"])
    assert measured["metric_ablated"] == tiny.near(found["metric_ablated"])
    assert measured["n_edges"] == found["n_edges"]
    assert 0 < found["metric"] < found["metric_ablated"]
    assert load_circuit(shell.folder / "run" / "circuit.json").names() == found["edges"]
    return found


@tiny.needs_shared
def test_evaluation_agrees_with_discovery_on_a_trained_model(shell):
    found = found_and_measured(shell, "--examples", "8")
    assert found["n_edges"] == 30
    assert found["settings"]["task"]["examples"] == 8


@tiny.needs_shared
@pytest.mark.slow
def test_evaluation_agrees_with_discovery_on_all_prompts_of_a_trained_model(shell):
    found = found_and_measured(shell)
    assert found["settings"]["task"]["examples"] == 40
    assert 20 < found["n_edges"] < 120


def test_ioi_runs_on_the_shipped_model_without_options(shell):
    # Four examples instead of all, for speed; all else as `edgewise discover ioi` has it.
    found = shell.json("discover", "ioi", "--examples", "4")
    assert found["settings"]["model"]["name"] == "tiny-ioi"
    assert found["settings"]["ablation"] == "resample"
    assert found["n_edges_connected"] > 0
    assert found["metric"] < found["metric_ablated"]


# --- lists, help, version -----------------------------------------------------------------------------------------


def test_tasks_are_listed_with_what_they_use(shell):
    rows = json.loads(shell.works("tasks", "--json").out)
    by_name = {row["name"]: row for row in rows}
    language = ["ioi", "greater-than", "docstring", "induction", "gender-pronoun"]
    assert list(by_name) == [*language, "tracr-reverse", "tracr-xproportion", "or-gate"]
    assert by_name["ioi"]["model"] == "tiny-ioi"
    assert by_name["tracr-xproportion"]["variants"] == ["default", "paper", "published"]


def test_names_in_the_list_of_tasks_are_whole(shell, monkeypatch):
    # Names are there to be typed; 80 columns is also what a pipe gets.
    monkeypatch.setenv("COLUMNS", "80")
    out = shell.works("tasks").out
    for name in ("tracr-reverse", "tracr-xproportion", "tiny-greater-than", "redwood_attn_2l", "resample", "published"):
        assert name in out
    assert "…" not in out


def test_models_and_methods_are_listed(shell):
    models = shell.works("models", "--json").json
    assert {"tiny-ioi", "tracr-reverse", "tracr-xproportion", "or-gate"} <= {one["name"] for one in models["built_in"]}
    assert {"gpt2", "llama"} <= set(models["architectures"])
    methods = shell.works("methods", "--json").json
    assert "acdc" in methods["methods"]
    assert {"resample", "zero", "mean"} <= set(methods["ablations"])
    assert len(methods["metrics"]) == 9
    assert "tracr-reverse" in shell.works("models").out
    assert "logit_diff" in shell.works("methods").out


def test_check_says_how_near_edgewise_comes_to_the_model(shell, models):
    checked = shell.works("check", models / "llama", "--json").json
    assert checked["model"] == str(models / "llama")
    assert 0 <= checked["difference"] < 1e-4
    assert checked["rows"] > 1
    assert checked["tokens"] > 1
    said = shell.works("check", models / "llama", "--dtype", "float64").out
    assert "over 2 key/value heads, float64 on cpu" in said
    assert shell.everything() == {}


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_for_every_verb(shell, verb):
    assert f"Example: edgewise {verb}" in shell.works(verb, "--help").out


def test_help_names_every_verb(shell):
    out = shell.works("--help").out
    assert all(re.search(rf"\b{verb}\b", out) for verb in VERBS)
    assert "edgewise discover ioi" in out


def test_evaluates_help_says_that_defaults_are_the_runs(shell, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = shell.works("evaluate", "--help").out
    for option in ("--model", "--ablation", "--metric", "--examples"):
        line = next(line for line in out.splitlines() if option in line)
        assert "the run's" in line


def test_no_verb_shows_help(shell):
    finished = shell()
    assert "discover" in finished.out + finished.err
    assert "Usage" in finished.out + finished.err


def test_version(shell):
    assert shell.works("--version").out == f"edgewise {__version__}\n"


# --- a circuit that fails ------------------------------------------------------------------------------------------


def test_what_is_recovered_and_how_often_the_circuit_is_right_is_printed_and_kept(shell):
    finished = shell.works("discover", "gender-pronoun", "--examples", 8, "--out", "run")
    assert re.search(
        r"^recovered \d+\.\d% \(0% is every edge ablated, 100% the model\); answered right 100.0%, by the model 100.",
        finished.out,
        re.MULTILINE,
    )
    result = json.loads((shell.folder / "run" / "run.json").read_text())["result"]
    assert 0.9 < result["recovered"] <= 1
    assert result["accuracy"] == result["accuracy_full"] == 1
    assert "warning" not in finished.err


def test_a_circuit_that_fails_is_warned_about_with_what_to_try(shell):
    finished = shell.works("discover", "ioi", "--examples", 4, "--method", "edge-attribution", "--edges", 3)
    assert re.search(
        r"warning: the circuit of \d edges? (recovers|does worse).* Try --edges 12, another method or", finished.err
    )


def test_negated_metrics_are_printed_as_their_names_say(shell):
    options = ("--examples", 8, "--metric", "frac_correct", "--threshold", "0.2", "--out", "run")
    out = shell.works("discover", "gender-pronoun", *options).out
    assert "frac_correct 100.0%; the whole model has 100.0%" in out
    assert "fall of frac_correct" in out
    assert json.loads((shell.folder / "run" / "run.json").read_text())["result"]["metric"] == -1
