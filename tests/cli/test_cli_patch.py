"""`edgewise patch`: heat maps as tables, JSON and tensors."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from word_models import write_prompts

from edgewise import load_model, load_task
from edgewise.cli import patch
from edgewise.discovery import head_parts, heat_maps
from edgewise.evaluation import patch_paths
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


def test_paths_are_a_table_of_what_each_does(shell):
    options = ("patch", "ioi", "--metric", "logit_diff", "--examples", 8)
    paths = ("a3.h1->logits", "a0.h1->a3.h1<q>", "a3.h1<q>->a3.h1->logits")
    named = [word for path in paths for word in ("--path", path)]
    found = shell.json(*options, *named, "--out", "paths.json")
    assert json.loads((shell.folder / "paths.json").read_text()) == found
    assert [one["paths"] for one in found["paths"]] == [*([path] for path in paths), list(paths)]
    model = load_model("tiny-ioi")
    wanted = patch_paths(Experiment(model, load_task("ioi", model, examples=8), metric="logit_diff"), *paths)
    for ours, theirs in zip(found["paths"], wanted, strict=True):
        assert ours["after"] == pytest.approx(theirs.after, abs=1e-5)
        assert ours["effect"] == pytest.approx(ours["after"] - found["before"], abs=1e-9)
        assert ours["share"] == pytest.approx(ours["effect"] / (found["other_end"] - found["before"]), abs=1e-9)
    out = shell.works(*options, *named).out
    lines = [line.split() for line in out.splitlines()]
    assert ["path", "logit_diff", "fall", "of", "logit_diff", "lost"] in lines
    first = next(line for line in lines if line[:1] == ["a3.h1->logits"])
    assert float(first[1]) == pytest.approx(-wanted[0].after, abs=1e-4)
    assert float(first[2]) == pytest.approx(wanted[0].effect, abs=1e-4)
    assert any(line[:2] == ["all", "together"] for line in lines)
    back = shell.works(*options, "--path", "a3.h1->logits", "--restore").out
    lines = [line.split() for line in back.splitlines()]
    assert ["path", "logit_diff", "rise", "of", "logit_diff", "recovered"] in lines
    assert "all together" not in back
    kl = shell.works("patch", "ioi", "--examples", 8, "--path", "a3.h1->logits", "--restore").out
    assert "fall of kl_div" in kl


def test_a_head_is_taken_apart(shell):
    options = ("patch", "ioi", "--examples", 8, "--head", "a3.h1")
    found = shell.json(*options, "--out", "head.safetensors", "--plot", "head.svg")
    tensors = load_file(shell.folder / "head.safetensors")
    model = load_model("tiny-ioi")
    wanted = head_parts(Experiment(model, load_task("ioi", model, examples=8)), "a3.h1")
    assert found["parts"] == list(wanted.parts)
    for name in ("scores", "pairs", "above_mean", "key_side", "query_side", "values", "direct"):
        assert torch.allclose(torch.tensor(found[name], dtype=torch.float64), tensors[name])
        assert torch.allclose(getattr(wanted, name), tensors[name], rtol=1e-4, atol=1e-4)
    assert tensors["pairs"].shape == (len(wanted.parts),) * 2
    svg = (shell.folder / "head.svg").read_text()
    assert all(f">{word}<" in svg for word in ("a0.h2", "constants", "Mary", "onto the answers"))
    out = shell.works(*options).out
    lines = [line.split() for line in out.splitlines()]
    assert ["query", "key", "above", "mean", "score"] in lines
    assert ["part", "position", "token", "adds"] in lines
    at = lines.index(["query", "key", "above", "mean", "score"])
    largest = int(wanted.above_mean.abs().argmax())
    row, column = divmod(largest, len(wanted.parts))
    assert lines[at + 1][:2] == [wanted.parts[row], wanted.parts[column]]
    assert float(lines[at + 1][2]) == pytest.approx(wanted.above_mean[row, column].item(), abs=1e-3)
    # All that is not among the strongest stands under them, so that a table adds up to what its title says.
    assert sum(float(line[-2]) for line in lines[at + 1 : at + 12]) == pytest.approx(
        wanted.above_mean.sum().item(), abs=0.01
    )
    own = shell.json("patch", "ioi", "--examples", 8, "--head", "a3.h1", "--query", 4, "--key", 0)
    assert (own["queries"], own["keys"], own["values"]) == ([4] * 8, [0] * 8, None)


def test_ones_own_model_without_a_tokenizer_can_be_taken_apart(shell):
    out = shell.works("patch", "tracr-reverse", "--head", "a3.h0", "--plot", "head.png").out
    assert "by part of the query, and by part of the key" in out
    assert "onto the answers" not in out, "its outputs are numbers"
    assert (shell.folder / "head.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--path", "a3.h1"], "'a3.h1' is not a path; a path is written"),
        (["--path", "a3.h1->a4.h0<q>"], "has no input 'a4.h0<q>'"),
        (["--path", "m0->logits", "--head", "a3.h1"], "--path and --head are two questions"),
        (["--restore"], "--restore says how --path patches, and no path is given"),
        (["--query", 2], "--query is a position for --head"),
        (["--key", 2], "--key is a position for --head"),
        (["--head", "a3.h1", "--exact"], "--exact and --gradient are for heat maps, not for --head"),
        (["--path", "m0->logits", "--gradient"], "not for --path"),
        (["--path", "m0->logits", "--plot", "x.svg"], "paths are a table; leave it out"),
        (["--path", "m0->logits", "--out", "x.safetensors"], "--out should end in .json, not 'x.safetensors'"),
        (["--path", "m0->logits", "--path", "m0->logits"], "'m0->logits' is there twice"),
        (["--path", "m0->logits", "--restore", "--ablation", "zero"], "goes with ablation 'resample', not 'zero'"),
        (["--head", "m3"], "'m3' is not a head"),
        (["--head", "heads"], "'heads' is not a node"),
        (["--head", "a3.h1", "--key", 99], "does not see position 99"),
    ],
)
def test_questions_that_make_no_sense_are_refused(arguments, message, shell):
    assert message in shell.refuses("patch", "ioi", "--examples", 4, *arguments)
    assert not list(shell.folder.iterdir())
