"""Run folders: plain files that say everything, written whole or not at all, and never over something else."""

from __future__ import annotations

import itertools
import json
import re
import stat
from pathlib import Path

import pytest
import tiny
from shell import strict_json
from word_models import ROWS, save_unstable_gpt2

import edgewise as ew
import edgewise.runs.folder
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.runs import RunFolder, read_run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- what is in one -----------------------------------------------------------------------------------------------


def test_a_run_on_a_built_in_task_is_three_files(shell):
    found = shell.json("discover", "tracr-reverse", "--out", "run")
    folder = shell.folder / "run"
    assert found["run_dir"] == "run"
    assert names(folder) == {"run.json", "circuit.json", "trace.jsonl"}
    assert names(shell.folder) == {"run"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in folder.iterdir())


def test_the_record_holds_settings_versions_and_the_result(shell):
    found = shell.json("discover", "tracr-reverse", "--seed", "2", "--out", "run")
    record = strict_json((shell.folder / "run" / "run.json").read_text("utf-8"))
    assert record["settings"] == found["settings"]
    for key in ("n_edges", "n_edges_connected", "metric", "metric_full", "metric_ablated", "tests", "seconds"):
        assert record["result"][key] == found[key]
    assert record["result"]["n_graph_edges"] == 106
    assert record["versions"]["edgewise"] == ew.__version__
    assert {"python", "torch", "transformers", "numpy"} <= set(record["versions"])
    assert record["command"] == ["edgewise", "discover", "tracr-reverse", "--seed", "2", "--out", "run", "--json"]
    assert record["settings"]["task"]["seed"] == 2
    assert re.fullmatch("v2:[0-9a-f]{32}", record["settings"]["model"]["fingerprint"])


def test_the_circuit_file_loads_as_the_circuit_that_was_printed(shell, models, prompts):
    options = ("--model", models / "llama", "--threshold", "0.01", "--out", "run")
    found = shell.json("discover", prompts, *options)
    circuit = ew.load_circuit(shell.folder / "run" / "circuit.json")
    assert circuit.names() == found["edges"]
    assert circuit.n_edges == found["n_edges"] > 5
    assert circuit.n_edges_connected == found["n_edges_connected"]
    record, same = read_run(shell.folder / "run")
    assert same == circuit
    assert record["settings"]["task"]["examples"] == len(ROWS)
    strict_json((shell.folder / "run" / "circuit.json").read_text("utf-8"))


def test_the_trace_has_a_line_for_every_test_and_ends_at_the_metric(shell, models, prompts):
    options = ("--model", models / "llama", "--threshold", "0.01", "--out", "run")
    found = shell.json("discover", prompts, *options)
    lines = (shell.folder / "run" / "trace.jsonl").read_text("utf-8").splitlines()
    trace = [strict_json(line) for line in lines]
    assert len(trace) == found["tests"] > found["n_edges"]
    assert trace[0]["before"] == tiny.near(found["metric_full"])
    assert [step["edge"] for step in trace if step["kept"]] != []
    assert {step["edge"] for step in trace if step["kept"]} >= set(found["edges"])
    last = trace[-1]
    assert last["before" if last["kept"] else "after"] == tiny.near(found["metric"])
    for step, following in itertools.pairwise(trace):
        assert following["before"] == (step["before"] if step["kept"] else step["after"])
        assert step["kept"] == (not step["after"] - step["before"] < 0.01)


def test_the_trace_under_edges_n_is_that_of_the_circuit_kept(shell):
    found = shell.json("discover", "tracr-reverse", "--edges", "15", "--out", "run")
    lines = (shell.folder / "run" / "trace.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["edge"] for line in lines if json.loads(line)["kept"]} == set(found["edges"])
    assert len(lines) <= found["tests"]


def test_prompts_from_a_file_are_kept_with_the_run(shell, models, prompts):
    options = ("--model", models / "gpt2", "--threshold", "1", "--examples", "2", "--out", "run")
    shell.json("discover", prompts, *options)
    assert names(shell.folder / "run") == {"run.json", "circuit.json", "trace.jsonl", "prompts.jsonl"}
    kept = [json.loads(line) for line in (shell.folder / "run" / "prompts.jsonl").read_text("utf-8").splitlines()]
    assert [(row["clean"], row["corrupt"]) for row in kept] == [(row["clean"], row["corrupt"]) for row in ROWS[:2]]
    assert [row["wrong"] for row in kept] == [[" He"], ["She", "it"]]


def test_the_library_saves_the_same_folder(shell):
    found = shell.json("discover", "tracr-reverse", "--out", "typed")
    model = ew.load_model("tracr-reverse")
    run = ew.discover(model, ew.load_task("tracr-reverse", model))
    assert run.save("called") == Path("called")
    for file in ("circuit.json", "trace.jsonl"):
        assert (shell.folder / "called" / file).read_bytes() == (shell.folder / "typed" / file).read_bytes()
    assert read_run(Path("called"))[0]["settings"] == found["settings"]
    with pytest.raises(EdgewiseError, match="holds another run"):
        run.save("called")


# --- where it goes ------------------------------------------------------------------------------------------------


def test_default_folders_are_numbered(shell):
    folders = [shell.json("discover", "or-gate")["run_dir"] for _ in range(3)]
    assert folders == ["runs/or-gate-acdc", "runs/or-gate-acdc-2", "runs/or-gate-acdc-3"]
    assert names(shell.folder) == {"runs"}
    assert names(shell.folder / "runs") == {"or-gate-acdc", "or-gate-acdc-2", "or-gate-acdc-3"}


def test_a_default_folder_passes_by_what_is_there(shell):
    taken = shell.folder / "runs" / "or-gate-acdc"
    taken.parent.mkdir()
    taken.write_text("a file of mine")
    assert shell.json("discover", "or-gate")["run_dir"] == "runs/or-gate-acdc-2"
    assert taken.read_text() == "a file of mine"


def test_an_output_folder_may_be_new_deep_empty_or_under_home(shell, monkeypatch):
    monkeypatch.setenv("HOME", str(shell.folder / "home"))
    (shell.folder / "empty").mkdir()
    for out, folder in (("new", "new"), ("a/b/c", "a/b/c"), ("empty", "empty"), ("~/run", "home/run")):
        shell.json("discover", "or-gate", "--out", out)
        assert names(shell.folder / folder) == {"run.json", "circuit.json", "trace.jsonl"}


def test_a_run_is_never_written_over_another(shell):
    shell.json("discover", "tracr-reverse", "--out", "run")
    sentence = shell.refuses("discover", "or-gate", "--out", "run")
    assert "'run' holds another run" in sentence


def test_nor_over_anything_else(shell):
    (shell.folder / "notes").mkdir()
    (shell.folder / "notes" / "note.txt").write_text("mine")
    (shell.folder / "file").write_text("mine")
    assert "'notes' is not empty" in shell.refuses("discover", "or-gate", "--out", "notes")
    assert "'file' is a file" in shell.refuses("discover", "or-gate", "--out", "file")
    assert "'.' is not empty" in shell.refuses("discover", "or-gate", "--out", ".")


@pytest.mark.parametrize("target", ["empty", "nowhere"])
def test_a_link_stands_for_the_folder_it_leads_to(shell, target):
    (shell.folder / "empty").mkdir()
    (shell.folder / "link").symlink_to(target)
    shell.works("discover", "or-gate", "--quiet", "--out", "link")
    assert (shell.folder / "link").is_symlink()
    assert (shell.folder / target / "run.json").is_file()
    assert "'link' holds another run" in shell.refuses("discover", "or-gate", "--out", "link")


@pytest.mark.parametrize("out", ["file/run", "file/deep/run"])
def test_a_folder_cannot_be_made_inside_a_file(shell, out):
    (shell.folder / "file").write_text("mine")
    assert "cannot write to 'file" in shell.refuses("discover", "or-gate", "--quiet", "--out", out)


def test_where_runs_itself_is_a_file(shell):
    (shell.folder / "runs").write_text("mine")
    assert "'runs'" in shell.refuses("discover", "or-gate", "--quiet")


# --- what fails leaves nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [None, "run", "a/run", "a/b/run"])
def test_a_search_that_fails_leaves_nothing(shell, tmp_path, prompts, out):
    # This one fails in the middle of the search, when a metric comes out as no number.
    folder = save_unstable_gpt2(tmp_path / "unstable", bias=True)
    options = ["--model", folder, "--ablation", "zero", "--threshold", "0.01", "--quiet"]
    sentence = shell.refuses("discover", prompts, *options, *(["--out", out] if out else []))
    assert "nan after removing" in sentence
    assert shell.everything() == {}


def test_a_search_that_fails_leaves_earlier_runs_alone(shell):
    shell.json("discover", "or-gate")
    shell.refuses("discover", "or-gate", "--metric", "kl_div", "--quiet")
    assert names(shell.folder / "runs") == {"or-gate-acdc"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, EdgewiseError])
@pytest.mark.parametrize("out", ["run", "a/b/run"])
def test_a_claimed_folder_goes_when_the_run_ends_early(tmp_path, error, out):
    with pytest.raises(error), RunFolder.claim(tmp_path / out):
        raise error
    assert list(tmp_path.rglob("*")) == []


def test_a_folder_that_filled_up_during_the_run_is_not_written_over(tmp_path):
    with RunFolder.claim(tmp_path / "run") as claimed:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "note.txt").write_text("mine")
        assert claimed.finish({"run.json": "{}"}) == tmp_path / "run-2", "nor may the result be lost"
    assert names(tmp_path) == {"run", "run-2"}
    assert names(tmp_path / "run") == {"note.txt"}


def test_runs_side_by_side_get_folders_of_their_own(tmp_path):
    with (
        RunFolder.claim_next(tmp_path / "runs" / "x") as first,
        RunFolder.claim_next(tmp_path / "runs" / "x") as second,
    ):
        paths = {second.finish({"run.json": "second"}), first.finish({"run.json": "first"})}
    assert paths == {tmp_path / "runs" / "x", tmp_path / "runs" / "x-2"}
    assert names(tmp_path / "runs") == {"x", "x-2"}
    assert (tmp_path / "runs" / "x" / "run.json").read_text() == "second"


def test_a_result_that_its_disk_has_no_room_for_goes_among_the_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    write = edgewise.runs.folder.write_bytes

    def full(path, data):
        if "temporary" not in path.parts and path.name == "circuit.json":
            raise EdgewiseError(f"cannot write {path}: No space left on device")
        write(path, data)

    monkeypatch.setattr("edgewise.runs.folder.write_bytes", full)
    files = {"run.json": "{}", "circuit.json": "[]"}
    with (
        RunFolder.claim(tmp_path / "here" / "run") as claimed,
        pytest.warns(EdgewiseWarning, match="No space left on device; what was to be written there is in .*temporary"),
    ):
        written = claimed.finish(files)
    assert written.parent == tmp_path / "temporary"
    assert names(written) == set(files)
    assert names(tmp_path) == {"temporary"}, "and nothing is half-written where it was to go"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(EdgewiseError, match="No space left"), RunFolder.claim(tmp_path / "here" / "run") as claimed:
        claimed.finish(files)
    assert names(tmp_path) == {"temporary"}


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("settings.task.seed", "0", 'should be a whole number, not "0"'),
        ("settings.task.seed", [0], "should be a whole number"),
        ("settings.task.seed", 0.5, "should be a whole number, not 0.5"),
        ("settings.task.variant", ["default"], "should be text"),
        ("settings.task.split", ["test"], "should be text"),
        ("settings.task.examples", 10**9, "should be from 1 to 1,000,000, not 1000000000"),
        ("settings.task.examples", True, "should be a whole number, not true"),
        ("settings.model.folder", 3, "should be text, not 3"),
        ("settings.model.permuted_seed", "x", "should be a whole number"),
    ],
)
def test_a_record_with_something_else_in_it_is_refused_with_the_field(shell, path, value, why):
    shell.json("discover", "or-gate", "--out", "run")
    record = json.loads((shell.folder / "run" / "run.json").read_text())
    *outer, last = path.split(".")
    part = record
    for key in outer:
        part = part[key]
    part[last] = value
    (shell.folder / "run" / "run.json").write_text(json.dumps(record))
    for command in (("evaluate", "run", "--quick"), ("report", "run", "--no-model")):
        sentence = shell.refuses(*command)
        assert f"{path!r} {why}" in sentence


def test_prompts_that_were_kept_and_then_changed_are_refused(shell, models, prompts):
    shell.json("discover", prompts, "--model", models / "gpt2", "--threshold", "1", "--out", "run")
    kept = shell.folder / "run" / "prompts.jsonl"
    whole = kept.read_text()
    shell.works("evaluate", "run", "--quick")
    for text in (whole + whole.splitlines()[0] + "\n", "".join(reversed(whole.splitlines(keepends=True)))):
        kept.write_text(text)
        assert "has changed since 'run' was made" in shell.refuses("evaluate", "run", "--quick")


def test_force_replaces_a_run_on_purpose(shell):
    out = ["--out", "run"]
    assert shell.json("discover", "or-gate", *out)["n_edges"] == 2
    assert "(--force)" in shell.refuses("discover", "or-gate", *out)
    assert shell.json("discover", "or-gate", "--edges", "1", "--method", "exact", *out, "--force")["run_dir"] == "run"
    assert "scores.safetensors" in {path.name for path in (shell.folder / "run").iterdir()}
    assert "--force needs --out" in shell.refuses("discover", "or-gate", "--force")
