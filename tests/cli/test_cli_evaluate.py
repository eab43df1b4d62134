"""`edgewise evaluate`: what it measures is the circuit of the run, on the run's model and prompts, or it says so."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from shell import strict_json
from word_models import ROWS, save_unstable_gpt2, write_prompts

import edgewise as ew
from edgewise import evaluate, load_circuit, load_model, load_task
from edgewise.reports import words

METRICS = {
    "kl_div",
    "logit_diff",
    "logit_diff_max",
    "log_prob_diff",
    "prob_diff",
    "nll",
    "match_nll",
    "l2",
    "frac_correct",
}


@pytest.fixture
def prompts(shell) -> Path:
    return write_prompts(shell.folder / "pronouns.jsonl")


@pytest.fixture
def model(shell, models) -> Path:
    return shutil.copytree(models / "llama", shell.folder / "model")


@pytest.fixture
def found(shell, prompts, model) -> dict[str, Any]:
    """A run in the folder `run`, on a relative model folder and prompt file, as people type them."""
    options = ("--model", model.name, "--threshold", "0.01", "--out", "run")
    return shell.made("discover", prompts.name, *options)


def change_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    changed = {
        name: tensor + 0.05 * torch.sin(torch.arange(tensor.numel()).view(tensor.shape))
        for name, tensor in tensors.items()
    }
    save_file(changed, model / "model.safetensors", metadata={"format": "pt"})


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")


# --- what it measures ---------------------------------------------------------------------------------------------


def test_a_run_measures_as_it_was_found(shell, found):
    measured = shell.json("evaluate", "run", "--quick")
    for name in ("metric", "metric_full", "metric_ablated"):
        assert measured[name] == tiny.near(found[name])
    assert 0 < measured["metric"] < measured["metric_ablated"]
    assert (measured["n_edges"], measured["n_graph_edges"]) == (found["n_edges"], 98)
    assert measured["n_edges_connected"] == found["n_edges_connected"]
    assert measured["metric_name"] == "kl_div"
    assert measured["ablation"] == "resample"
    assert measured["examples"] == len(ROWS)
    assert set(measured["metrics"]) == METRICS
    kl_div = measured["metrics"]["kl_div"]
    way = (kl_div["circuit"] - kl_div["ablated"]) / (kl_div["full"] - kl_div["ablated"])
    assert kl_div["recovered"] == tiny.near(way)
    assert 0.5 < way < 1


@pytest.mark.parametrize("task", ["tracr-reverse", "tracr-xproportion", "or-gate"])
@pytest.mark.parametrize("options", [[], ["--no-ports"], ["--dtype", "float64"]], ids=["ports", "no-ports", "float64"])
def test_runs_on_built_in_models_measure_as_they_were_found(shell, task, options):
    found = shell.json("discover", task, "--out", "run", *options)
    measured = shell.json("evaluate", "run", "--quick")
    assert measured["metric"] == tiny.near(found["metric"])
    assert measured["metric_ablated"] == tiny.near(found["metric_ablated"])
    assert measured["metric_ablated"] > 0.05
    assert measured["n_edges"] == found["n_edges"] > 0


@pytest.mark.parametrize(
    "options",
    [
        ["--ablation", "zero"],
        ["--ablation", "mean"],
        ["--metric", "logit_diff"],
        ["--no-ports"],
        ["--dtype", "bfloat16"],
        ["--examples", "2"],
    ],
    ids=lambda options: options[-1],
)
def test_what_a_run_was_made_with_is_what_it_is_measured_with(shell, prompts, model, options):
    found = shell.json("discover", prompts, "--model", model, "--threshold", "0.01", "--out", "run", *options)
    measured = shell.json("evaluate", "run", "--quick")
    assert measured["metric"] == tiny.near(found["metric"])
    assert measured["ablation"] == found["settings"]["ablation"]
    assert measured["metric_name"] == found["settings"]["metric"]
    assert measured["n_edges"] == found["n_edges"] > 0


def test_a_run_keeps_its_seed_and_variant(shell):
    options = ("--ablation", "resample", "--examples", "20", "--seed", "5", "--variant", "paper")
    found = shell.json("discover", "tracr-xproportion", *options, "--out", "run")
    measured = shell.json("evaluate", "run", "--quick")
    assert measured["metric_ablated"] == tiny.near(found["metric_ablated"])
    other = shell.json("evaluate", "run", "--quick", "--seed", "6")
    assert abs(other["metric_ablated"] - found["metric_ablated"]) > 1e-4
    assert measured["examples"] == other["examples"] == 20


def test_the_library_measures_the_same(shell, found, prompts, model):
    loaded = load_model(model)
    result = evaluate(loaded, load_task(prompts, loaded), load_circuit(shell.folder / "run" / "circuit.json"))
    assert result.value == tiny.near(shell.json("evaluate", "run", "--quick")["metric"])


def test_options_take_the_place_of_the_runs(shell, found):
    plain = shell.json("evaluate", "run", "--quick")
    measured = shell.json(
        "evaluate", "run", "--quick", "--ablation", "zero", "--metric", "logit_diff", "--dtype", "float64"
    )
    assert (measured["ablation"], measured["metric_name"]) == ("zero", "logit_diff")
    assert measured["metric"] == measured["metrics"]["logit_diff"]["circuit"]
    assert measured["metric_full"] == tiny.near(plain["metrics"]["logit_diff"]["full"])
    assert abs(measured["metric_ablated"] - plain["metrics"]["logit_diff"]["ablated"]) > 1e-3


def test_a_circuit_file_measures_as_its_run_does(shell, found):
    options = ("--task", "pronouns.jsonl", "--model", "model")
    measured = shell.json("evaluate", "run/circuit.json", "--circuits", 29, *options)
    assert measured["metric"] == tiny.near(found["metric"])
    assert measured["task"] == "pronouns"


def test_a_circuit_file_in_exactly_the_form_of_eap_ig(shell, models, prompts):
    options = ("--model", models / "gpt2", "--threshold", "0.0001", "--no-ports")
    found = shell.json("discover", prompts, *options, "--out", "run")
    circuit = strict_json((shell.folder / "run" / "circuit.json").read_text("utf-8"))
    assert list(circuit) == ["cfg", "nodes", "edges"]
    measured = shell.json("evaluate", "run/circuit.json", "--quick", "--task", prompts, "--model", models / "gpt2")
    assert measured["n_edges"] == found["n_edges"] > 0
    assert measured["metric"] == tiny.near(found["metric"])


def test_other_tasks_can_be_measured(shell, found):
    rows = write_prompts(shell.folder / "other.jsonl", ROWS[1:])
    measured = shell.json("evaluate", "run", "--quick", "--task", rows)
    assert (measured["task"], measured["examples"]) == ("other", 2)


def test_the_test_split_of_a_file_is_the_rows_after_the_searched_ones(shell, prompts, model):
    options = ("--model", model, "--threshold", "0.01", "--examples", "1", "--out", "run")
    shell.json("discover", prompts, *options)
    measured = shell.json("evaluate", "run", "--quick", "--split", "test")
    next_row = write_prompts(shell.folder / "next.jsonl", ROWS[1:2])
    alone = shell.json("evaluate", "run", "--quick", "--task", next_row)
    assert measured["split"] == "test"
    assert measured["metric"] == tiny.near(alone["metric"])
    assert measured["metric_ablated"] > 0


def test_the_table_shows_every_metric_beside_the_models_and_the_ablated_runs(shell, found, monkeypatch):
    monkeypatch.setattr(words, "LINE_EVERY", 1e9)
    finished = shell.works("evaluate", "run", "--circuits", 29)
    assert finished.err == ""
    assert f"{found['n_edges']} of 98 edges" in finished.out
    assert re.search(r"^metric .*circuit +whole model +resample-ablated +recovered", finished.out, re.MULTILINE)
    shown = re.search(r"^kl_div +(\S+) +(\S+) +(\S+) +(\S+)%$", finished.out, re.MULTILINE)
    assert shown
    assert float(shown[1]) == pytest.approx(found["metric"], abs=1e-4)
    assert float(shown[3]) == pytest.approx(found["metric_ablated"], abs=1e-4)
    assert all(re.search(rf"^{metric} ", finished.out, re.MULTILINE) for metric in METRICS)


def test_numbers_are_whole_on_a_narrow_terminal(shell, found, monkeypatch):
    wide = re.findall(r"-?\d+\.\d{4}", shell.works("evaluate", "run", "--circuits", 29).out)
    assert len(wide) > 15
    monkeypatch.setenv("COLUMNS", "60")
    narrow = shell.works("evaluate", "run", "--circuits", 29).out
    assert "…" not in narrow
    assert set(wide) <= set(re.findall(r"-?\d+\.\d{4}", narrow))


def test_nothing_recovered_is_not_minus_nothing(shell, model, prompts):
    shell.json("discover", prompts, "--model", model, "--threshold", "1e9", "--out", "run")
    out = shell.works("evaluate", "run", "--quick").out
    assert "0.0%" in out
    assert "-0.0%" not in out


def test_a_run_is_called_by_its_tasks_name(shell, found):
    assert shell.json("evaluate", "run", "--quick")["task"] == "pronouns"
    assert "pronouns: 3 prompt pairs" in shell.works("evaluate", "run", "--quick").out


def test_a_run_can_be_measured_from_another_folder(shell, found, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert shell.json("evaluate", shell.folder / "run", "--quick")["metric"] == tiny.near(found["metric"])
    fewer = shell.json("evaluate", shell.folder / "run", "--quick", "--examples", "2")
    assert fewer["examples"] == 2
    assert list(elsewhere.iterdir()) == []


# --- what has changed since ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["relative", "absolute", "with-a-slash"])
def test_a_model_with_other_weights_than_the_runs_is_refused(shell, prompts, model, typed):
    name = {"relative": model.name, "absolute": str(model), "with-a-slash": f"{model.name}/"}[typed]
    found = shell.json("discover", prompts, "--model", name, "--threshold", "0.01", "--out", "run")
    change_weights(model)
    sentence = shell.refuses("evaluate", "run")
    assert re.search("other weights", sentence)
    assert "'run'" in sentence
    assert found["settings"]["model"]["fingerprint"] in sentence


def test_naming_the_model_measures_on_its_new_weights_as_the_refusal_says(shell, found, model):
    change_weights(model)
    for name in (model.name, str(model)):
        measured = shell.json("evaluate", "run", "--quick", "--model", name)
        assert abs(measured["metric_ablated"] - found["metric_ablated"]) > 1e-4


def test_prompts_that_changed_since_are_not_measured_unsaid(shell, prompts, found):
    before = {
        options: shell.json("evaluate", "run", "--quick", *options)["metric"] for options in ((), ("--examples", "2"))
    }
    write_prompts(prompts, [{**row, "clean": row["clean"].replace("named", "ran")} for row in ROWS])
    for options, metric in before.items():
        finished = shell("evaluate", "run", "--quick", *options, "--json")
        if finished.code == 2:
            assert re.search("pronouns.jsonl", finished.err)
        else:
            assert finished.json["metric"] == tiny.near(metric)


def test_a_model_that_is_gone(shell, found, model):
    shutil.rmtree(model)
    assert str(model) in shell.refuses("evaluate", "run")


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--metric", "logit_dif"], "unknown metric 'logit_dif'; did you mean 'logit_diff'"),
        (["--ablation", "zeroo"], "unknown ablation 'zeroo'; did you mean 'zero'"),
        (["--split", "tset"], "unknown split 'tset'; did you mean 'test'"),
        (["--split", "test"], r"pronouns\.jsonl has 3 rows, fewer than .* 6"),
        (["--examples", "0"], r"examples \(--examples\) should be a whole number from 1, not 0"),
        (["--examples", "4"], r"has 3 rows, fewer than the 4"),
        (["--task", "iio"], "unknown task 'iio'; did you mean 'ioi'"),
        (["--task", "tracr-reverse"], "'tracr-reverse'.*does not run on"),
        (["--model", "tracr-reverse"], "'tracr-reverse' has no tokenizer"),
        (["--model", "./nothing"], "'./nothing': there is no such folder"),
        (["--dtype", "float46"], "unknown dtype 'float46'; did you mean 'float64'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--variant", "paper"], "no variants"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(shell, found, options, part):
    sentence = shell.refuses("evaluate", "run", *options)
    assert re.search(part, sentence), sentence


def test_a_variant_that_the_task_has_not(shell):
    shell.json("discover", "tracr-reverse", "--out", "run")
    assert re.search("'paper'.*known: default, published", shell.refuses("evaluate", "run", "--variant", "paper"))


def test_a_circuit_file_needs_a_task_and_prompts_a_model(shell, found):
    assert "--task" in shell.refuses("evaluate", "run/circuit.json")
    assert "--model" in shell.refuses("evaluate", "run/circuit.json", "--task", "pronouns.jsonl")


def test_a_circuit_of_another_graph(shell, found, models):
    sentence = shell.refuses("evaluate", "run/circuit.json", "--task", "tracr-reverse")
    assert re.search("another graph: 2 layers of 4 heads.*4 layers of 1 head", sentence)
    assert "another graph" in shell.refuses("evaluate", "run", "--model", models / "gpt2")


@tiny.needs_shared
def test_another_tools_circuit_of_another_model(shell):
    sentence = shell.refuses("evaluate", tiny.SHARED / "interop" / "ioi-eap-ig.json", "--task", "tracr-reverse")
    assert re.search("another graph: 12 layers of 12 heads", sentence)


@pytest.mark.parametrize("what", ["nothing", "nothing.json", "."])
def test_what_is_no_run_and_no_circuit(shell, what):
    sentence = shell.refuses("evaluate", what, "--task", "tracr-reverse")
    assert re.search(rf"'{re.escape(what)}'.*(no such file|no run\.json)", sentence)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not valid JSON: Expecting value"),
        (b"hello", "not valid JSON: Expecting value"),
        (b'{\n"cfg": {', "not valid JSON: line 2"),
        (b"[1]", "JSON object"),
        (b"{}", "no 'cfg'"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_circuit_file_that_is_none(shell, content, part):
    (shell.folder / "circuit.json").write_bytes(content)
    sentence = shell.refuses("evaluate", "circuit.json", "--task", "tracr-reverse")
    assert "'circuit.json'" in sentence
    assert part in sentence


BROKEN_CIRCUITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "edge-missing": (lambda c: c["edges"].pop("m0->logits"), "'m0->logits'.*missing"),
    "edge-unknown": (lambda c: c["edges"].update({"a9.h9->logits": {"score": 1, "in_graph": True}}), "'a9.h9->logits'"),
    "edge-without-score": (lambda c: c["edges"].update({"m0->logits": {"in_graph": True}}), "'m0->logits'.*'score'"),
    "score-is-text": (lambda c: c["edges"]["m0->logits"].update(score="high"), "'m0->logits'.*'score'"),
    "in-graph-is-text": (lambda c: c["edges"]["m0->logits"].update(in_graph="false"), "'m0->logits'.*'in_graph'"),
    "no-cfg": (lambda c: c.pop("cfg"), "'cfg'"),
    "layers-are-text": (lambda c: c["cfg"].update(n_layers="two"), "'cfg'"),
    "negative-layers": (lambda c: c["edgewise"]["graph"].update(n_layers=-1), "layer"),
    "edges-are-a-list": (lambda c: c.update(edges=[]), "'edges'"),
    "newer": (lambda c: c["edgewise"].update(version=99), "another version of edgewise"),
    "graph-is-something-else": (lambda c: c["edgewise"].update(graph={"colour": 1}), "'graph'"),
    "port-unknown": (lambda c: c["edgewise"]["ports"].update({"junk": {"score": 1, "in_graph": True}}), "'junk'"),
    "behind-is-a-number": (lambda c: c["edgewise"].update(behind_absent_ports=3), "behind_absent_ports"),
    "behind-is-a-port": (lambda c: c["edgewise"].update(behind_absent_ports=["a1.h0<q>->a1.h0"]), "a1.h0<q>->a1.h0"),
}


@pytest.mark.parametrize("case", BROKEN_CIRCUITS)
def test_a_broken_circuit_file_is_refused_by_name(shell, found, case):
    change, part = BROKEN_CIRCUITS[case]
    edit_json(shell.folder / "run" / "circuit.json", change)
    sentence = shell.refuses("evaluate", "run")
    assert "circuit.json" in sentence
    assert re.search(part, sentence), sentence


@pytest.mark.parametrize("file", ["run.json", "circuit.json"])
@pytest.mark.parametrize("broken", ["missing", "empty", "cut"])
def test_a_run_folder_that_is_not_whole(shell, found, file, broken):
    path = shell.folder / "run" / file
    text = path.read_text("utf-8")
    path.unlink()
    if broken != "missing":
        path.write_text("" if broken == "empty" else text[: len(text) // 2], "utf-8")
    sentence = shell.refuses("evaluate", "run")
    assert "run" in sentence
    assert file in sentence


@pytest.mark.parametrize("form", [2, None, "1"])
def test_a_run_of_another_form(shell, found, form):
    edit_json(shell.folder / "run" / "run.json", lambda record: record.update(form=form))
    sentence = shell.refuses("evaluate", "run")
    assert "another version of edgewise" in sentence
    assert repr(form) in sentence


BROKEN_RECORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no-settings": lambda record: record.pop("settings"),
    "settings-empty": lambda record: record.update(settings={}),
    "settings-are-a-list": lambda record: record.update(settings=[1]),
    "no-task": lambda record: record["settings"].pop("task"),
    "no-model": lambda record: record["settings"].pop("model"),
    "no-fingerprint": lambda record: record["settings"]["model"].pop("fingerprint"),
    "model-is-text": lambda record: record["settings"].update(model="gpt2"),
}


@pytest.mark.parametrize("case", BROKEN_RECORDS)
def test_a_run_record_that_someone_edited(shell, found, case):
    edit_json(shell.folder / "run" / "run.json", BROKEN_RECORDS[case])
    assert re.search("run record.*run|run\\.json", shell.refuses("evaluate", "run"))


def test_a_metric_that_is_no_number_never_becomes_json(shell, tmp_path):
    # The whole circuit is fine, but with every edge cut this model divides zero by zero.
    folder = save_unstable_gpt2(tmp_path / "unstable", bias=False)
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    shell.json("discover", prompts, "--model", folder, "--threshold", "0", "--out", "run")
    finished = shell("evaluate", "run", "--quick", "--ablation", "zero", "--json")
    if finished.code == 2:
        assert re.search("(?i)nan.*every edge|every edge.*nan", finished.err)
    else:
        assert finished.json["metric_ablated"] is None


def test_a_run_saved_from_python_is_measured_on_its_own_split_and_asks_for_a_metric_it_can_know(shell, models, prompts):
    def gap(logits, reference):
        return (logits - reference.logits).abs().amax(dim=-1)

    model = ew.load_model(models / "llama")
    task = ew.load_task(prompts, model, examples=1, split="test")
    ew.discover(model, task, threshold=0.1, metric=gap).save(shell.folder / "run")
    assert "metric of its own, 'gap'; name one with --metric" in shell.refuses("evaluate", "run")
    result = shell.json("evaluate", "run", "--quick", "--metric", "kl_div")
    assert (result["split"], result["examples"]) == ("test", 1)
    second = ew.load_task(prompts, model, examples=1, split="test")
    assert result["metric"] == tiny.near(ew.evaluate(model, second, ew.load_circuit("run/circuit.json")).value)


def test_fewer_test_prompts_are_never_the_searched_ones(shell):
    shell.works("discover", "ioi", "--examples", "6", "--threshold", "0.5", "--quiet", "--out", "run")
    few = shell.json("evaluate", "run", "--quick", "--split", "test", "--examples", "2")
    model = ew.load_model("tiny-ioi")
    searched = ew.load_task("ioi", model, examples=6)
    unseen = ew.load_task("ioi", model, examples=6, split="test").first(2)
    assert not set(searched.text) & set(unseen.text)
    assert few["examples"] == 2
    circuit = ew.load_circuit(shell.folder / "run" / "circuit.json")
    assert few["metric"] == tiny.near(ew.evaluate(model, unseen, circuit).value)


def test_a_folder_called_like_a_built_in_model_is_not_mistaken_for_it(shell):
    (shell.folder / "or-gate").mkdir()
    shell.works("discover", "or-gate", "--quiet", "--out", "run")
    assert shell.json("evaluate", "run", "--quick")["metric"] == pytest.approx(0, abs=1e-12)
