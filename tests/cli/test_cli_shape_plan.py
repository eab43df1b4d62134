"""`edgewise plan --shape`: what a search would cost on a model that is not here."""

import json

import pytest


def test_a_shape_is_planned_with_nothing_loaded_or_written(shell):
    plan = shell.json("plan", "--shape", "gpt2", "--kept", "20", "--examples", "2", "--tokens", "6")
    assert plan["parameters"] == 124_439_808
    assert plan["weights"] == 4 * plan["parameters"]
    assert (plan["n_edges"], plan["n_inputs"], plan["n_senders"]) == (32_923, 12 * 37 + 1, 157)
    assert (plan["prompts"], plan["tokens"], plan["dtype"], plan["within"]) == (2, 6, "float32", None)
    assert (plan["devices"], plan["fits"]) == (1, True)
    memory = plan["memory"]
    assert 0 < memory["recorded"] < memory["smallest"] < memory["largest"]
    assert plan["on_the_fullest_device"] == plan["weights"] + memory["needed"]
    assert list(plan["costs"]) == ["forward pass", "circuit run", "attribution", "exact patching", "search"]
    assert all(one["flops"] > 0 and one["bytes"] > 0 and one["seconds"] > 0 for one in plan["costs"].values())
    assert plan["costs"]["exact patching"]["tests"] == 32_923
    assert list(shell.folder.iterdir()) == []


def test_a_shape_reads_like_a_plan_and_says_what_it_assumes(shell):
    typed = ("--dtype", "bfloat16", "--within", "60", "--kept", "20", "--examples", "2", "--tokens", "6")
    shown = shell.works("plan", "--shape", "gpt2", *typed, "--devices", "2").out
    assert "gpt2, bfloat16: 2 prompt pairs of 6 tokens" in shown
    assert "32,923 edges from 157 senders into 445 inputs" in shown
    assert "124,439,808 parameters, 249 MB of weights" in shown
    assert "2 devices of 80 GB: " in shown
    assert "search and its scores" in shown
    assert "not a measurement" in shown
    assert "one model over several devices (--device-map) was never measured on several GPUs" in shown


def test_a_model_that_does_not_fit_says_so(shell):
    typed = ("--kept", "20", "--examples", "2", "--tokens", "6", "--devices", "2", "--device-memory", "200MB")
    assert "WHICH DOES NOT FIT" in shell.works("plan", "--shape", "gpt2", *typed).out


def test_a_folder_is_a_shape_and_options_of_the_graph_count(shell):
    config = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 50}
    (shell.folder / "mine").mkdir()
    (shell.folder / "mine" / "config.json").write_text(json.dumps(config))
    asked = ("plan", "--shape", "mine", "--kept", "5")
    assert shell.json(*asked)["n_edges"] == 58
    assert shell.json(*asked, "--no-ports")["n_edges"] == 46
    assert shell.json(*asked, "--heads", "whole")["n_edges"] == 26
    slow = shell.json(*asked, "--flops", "1e6")
    assert slow["costs"]["search"]["seconds"] == pytest.approx(slow["costs"]["search"]["flops"] / 1e6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "lama-3.1-70b"], "unknown shape 'lama-3.1-70b'; did you mean 'llama-3.1-70b'"),
        (["ioi", "--shape", "gpt2"], "give a task or a shape, not both 'ioi' and 'gpt2'"),
        (["--model", "gpt2", "--shape", "gpt2"], "give a model or a shape, not both 'gpt2' and 'gpt2'"),
        (["--shape", "gpt2", "--threshold", "0.1"], "--threshold means nothing with --shape"),
        (["--shape", "gpt2", "--device", "cuda"], "--device means nothing with --shape"),
        (["--shape", "gpt2", "--max-memory", "3GB"], "--max-memory means nothing with --shape"),
        (["--shape", "gpt2", "--within", "run"], "--within is a number of edges, not 'run'"),
        (["--shape", "gpt2", "--within", "100"], "--within should be a whole number from 200 to 32,923, not 100"),
        (["--shape", "gpt2", "--tokens", "0"], "--tokens should be a whole number from 1 to 1,000,000, not 0"),
        (["--shape", "gpt2", "--tokens", "2000"], "has 1,024 positions"),
        (["--shape", "gpt2", "--flops", "nan"], "--flops should be a number above 0"),
        (["--shape", "gpt2", "--bandwidth", "-1"], "--bandwidth should be a number above 0"),
        (["--shape", "gpt2", "--devices", "0"], "--devices should be a whole number from 1"),
        (["--shape", "gpt2", "--device-memory", "much"], "'much' is no size of memory"),
        (["--shape", "gpt2", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["--shape", "gpt2", "--heads", "half"], "half"),
        (["ioi", "--tokens", "5"], "--tokens is for --shape"),
        (["ioi", "--device-memory", "5GB"], "--device-memory is for --shape"),
        ([], "say which task"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(shell, arguments, said):
    assert said in shell.refuses("plan", *arguments)
