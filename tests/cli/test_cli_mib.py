"""`edgewise mib`: the benchmark's table in the terminal, as JSON and as Markdown, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import mib_data
import pytest


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    mib_data.save_gpt2(folder / "words")
    mib_data.write_datasets(folder)
    mib_data.write_interp_bench(folder / "interpbench")
    return folder


def test_the_table_has_a_line_per_method_and_a_column_per_cell(shell, data):
    words = ("mib", "--data", data, "--model", f"{data / 'words'},interpbench,gpt2", "--task", "ioi,mcqa")
    told = shell(*words, "--method", "eap,random")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    for measure, columns in (
        ("CPR (higher is better), validation split, by edges", ["IOI, words", "MCQA, words"]),
        ("CMD (0 is best), validation split, by edges", ["IOI, words", "MCQA, words"]),
        ("AUROC of edges (1 is best), validation split, by edges", ["IOI, InterpBench"]),
    ):
        at = lines.index(measure)
        assert lines[at + 1].split("  ")[0] == "method"
        assert all(column in lines[at + 1] for column in columns)
        assert [lines[at + 2].split()[0], lines[at + 3].split()[0]] == ["edge-attribution", "random"]
    text = " ".join(told.out.split())
    assert "attributed on 8 prompts, scored on 6 prompts of the validation split, of which the model gets" in text
    assert "left out: mcqa_interpbench, mcqa_gpt2: the benchmark has no such cell" in text
    assert "left out: ioi_gpt2: cannot find model 'openai-community/gpt2'" in text
    assert "cell 5 of 5" not in told.err
    assert "cell 4 of 4: ioi_gpt2" in told.err
    out = shell.folder / "runs" / "mib"
    assert "CMD on a logarithmic axis" in (out / "table.md").read_text()
    found = shell(*words, "--method", "eap,random", "--json", "-q").json
    cpr = [one["scores"]["cpr"] for one in found["results"] if one["scores"]]
    row = lines[lines.index("CPR (higher is better), validation split, by edges") + 2].split()[1:]
    assert row == [f"{one['scores']['cpr']:.2f}" for one in found["results"] if one["scores"]][::2]
    assert len(cpr) == 4
    assert [one["cell"] for one in found["results"] if one["roc"]] == ["ioi_interpbench"] * 2
    assert found["folder"] == "runs/mib"
    assert json.loads((out / "circuits" / "random_patching_edge" / "ioi_words" / "importances.json").read_text())


def test_what_cannot_be_run_ends_with_one_sentence_and_leaves_nothing(shell, data):
    for words, why in (
        (("--task", "iio"), "unknown task of the MIB benchmark 'iio'; did you mean 'ioi'?"),
        (("--method", "acdc"), "method 'acdc' decides about edges and ranks none"),
        (("--method", "eapp"), "unknown method 'eapp'; did you mean"),
        (("--ablation", "zeroo"), "unknown ablation 'zeroo'; did you mean 'zero'?"),
        (("--data", "nowhere"), "there is no folder 'nowhere' with the benchmark's data"),
        (("--steps", "3", "--method", "random"), "none of the methods random takes 'steps'"),
        (("--model", "gpt2", "--task", "mcqa"), "nothing of the benchmark could be run:"),
        (("--dtype", "int8", "--model", str(data / "words"), "--task", "ioi"), "unknown dtype 'int8'"),
    ):
        told = shell("mib", "--data", data, *words, "-q")
        assert told.code == 2, told.out
        assert why in told.err
        assert told.out == ""
        assert not (shell.folder / "runs").exists()
    (shell.folder / "mine").mkdir()
    (shell.folder / "mine" / "notes.txt").touch()
    told = shell("mib", "--data", data, "--out", "mine")
    assert told.code == 2
    assert "holds 'notes.txt' and nothing of the MIB benchmark" in told.err
