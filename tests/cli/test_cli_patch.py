"""`edgewise patch`: heat maps as tables, JSON and tensors."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from word_models import write_prompts

from edgewise import load_model, load_task
from edgewise.cli import patch
from edgewise.discovery import heat_maps
from edgewise.patching import Experiment
from edgewise.reports import terminal


def test_the_tables_show_where_to_look(shell):
    out = shell.works("patch", "ioi", "--metric", "logit_diff").out
    assert "fall of logit_diff when a part is resample-ablated" in out
    assert "layer x head (embedding 5.4880)" in out
    lines = [line.split() for line in out.splitlines()]
    header = lines.index(["layer", "h0", "h1", "h2", "h3", "MLP"])
    assert [line[0] for line in lines[header + 1 : header + 5]] == ["3", "2", "1", "0"]
    assert float(lines[header + 4][2]) > 1, "a0.h1 reads the first name"
    assert lines[
        lines.index(
            ["layer", "Then", ",", "Mary", "and", "Jeffre", "went", "to", "the", "restau", ".", "Jeffre", "gave"]
        )
        - 1
    ] == [*map(str, range(12))], "tokens stand under the positions"
    assert "Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to" in out


def test_long_prompts_come_in_several_tables(shell):
    out = shell.works("patch", "induction").out
    for first in (0, 12, 24):
        columns = map(str, range(first, min(first + 12, 32)))
        assert ["layer", *columns] in [line.split() for line in out.splitlines()]
    assert "…" not in out


def test_json_and_tensors_hold_the_same_numbers(shell):
    found = shell.json("patch", "greater-than", "--ablation", "zero", "--out", "maps.safetensors")
    assert (found["metric"], found["ablation"]) == ("kl_div", "zero")
    tensors = load_file(shell.folder / "maps.safetensors")
    model = load_model("tiny-greater-than")
    wanted = heat_maps(Experiment(model, load_task("greater-than", model), ablation="zero"))
    for name in ("heads", "mlps", "embedding", "positions"):
        assert torch.allclose(torch.tensor(found[name], dtype=torch.float64), tensors[name])
        assert torch.allclose(getattr(wanted, name), tensors[name], rtol=1e-5, atol=1e-5)
    assert tensors["heads"].shape == (2, 4)
    message = shell.refuses("patch", "greater-than", "--out", "maps.safetensors")
    assert "is there already; nothing is overwritten" in message


def test_ones_own_prompts_can_be_patched(shell, models):
    path = write_prompts(shell.folder / "mine.jsonl")
    found = shell.json("patch", path, "--model", models / "llama")
    assert len(found["positions"]) == 2
    assert max(map(max, found["heads"])) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["patch", "iio"], "unknown task 'iio'"),
        (["patch", "ioi", "--metric", "l2"], "'l2' means nothing on task 'ioi'"),
        (["patch", "ioi", "--ablation", "none"], "unknown ablation 'none'"),
    ],
)
def test_what_cannot_be_patched_is_said(shell, options, message):
    assert message in shell.refuses(*options)


def test_the_heat_maps_are_drawn_too(shell):
    shell.works("patch", "tracr-reverse", "--plot", "maps.svg")
    text = (shell.folder / "maps.svg").read_text()
    assert "rise of l2" in text
    assert "tracr-reverse in tracr-reverse, zero-ablated" in text
    assert "is there already; nothing is overwritten" in shell.refuses("patch", "ioi", "--plot", "maps.svg")
    assert "should end in .svg, .png or .pdf" in shell.refuses("patch", "ioi", "--plot", "maps.gif")


def test_a_map_larger_than_a_screen_is_a_list_of_the_strongest(shell, monkeypatch):
    monkeypatch.setattr(terminal, "SCREEN", 4)
    out = shell.works("patch", "ioi", "--metric", "logit_diff", "--examples", 4).out
    assert "the 12 strongest of 20" in out
    assert "the 12 strongest of 60" in out
    assert re.search(r"^a3.h1 +\d\.\d\d$", out, re.MULTILINE)
    assert re.search(r"^0 +2 +\w+ +-?\d+\.\d\d$", out, re.MULTILINE)
    assert len(out.splitlines()) < 40
    assert "all numbers: --json, or --out FILE" in out


def test_where_patching_takes_too_long_gradients_estimate_it_and_exact_patches(shell, monkeypatch):
    monkeypatch.setattr(patch, "PATIENCE", 0.0)
    options = ("patch", "ioi", "--metric", "logit_diff", "--examples", 4)
    out = shell.works(*options, "--out", "all.json").out
    assert re.search("estimated by gradients, since patching each would take about .* \\(--exact does\\)", out)
    estimated, exact = shell.json(*options, "--gradient"), shell.json(*options, "--exact")
    assert json.loads((shell.folder / "all.json").read_text()) == estimated
    assert (estimated["by"], exact["by"]) == ("gradients", "patching")
    assert estimated["heads"] != exact["heads"]
    monkeypatch.setattr(patch, "PATIENCE", 60.0)
    assert shell.json(*options)["by"] == "patching"


def test_one_file_for_tensors_and_picture_is_refused(shell):
    message = shell.refuses("patch", "ioi", "--out", "x.svg", "--plot", "./x.svg")
    assert message == "--out and --plot name one file, 'x.svg': give each its own"
