"""Bad input: one sentence in the user's terms on standard error, exit code 2, and nothing written or left behind.

`Shell.refuses` checks all of that but the sentence's substance, which each test here does.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tiny
import torch
from shell import Shell
from word_models import (
    LONGEST,
    ROWS,
    UNKNOWN,
    WORDS,
    save_gpt2,
    save_tokenizer,
    save_unstable_gpt2,
    write_prompts,
)

import edgewise.models


@pytest.fixture
def model(tmp_path, models) -> Path:
    """A model folder to break."""
    return shutil.copytree(models / "gpt2", tmp_path / "model")


def says(sentence: str, *parts: str) -> None:
    """Check that a sentence holds all of these, as regular expressions."""
    for part in parts:
        assert re.search(part, sentence), f"{part!r} is not in: {sentence}"


# --- unknown names ------------------------------------------------------------------------------------------------

UNKNOWN_NAMES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "task": (["iio"], ["unknown task 'iio'", "did you mean 'ioi'", "tracr-reverse"]),
    "task-like-nothing": (["zzzzzz"], ["unknown task 'zzzzzz'", "known: ioi, greater-than, docstring"]),
    "task-in-capitals": (["TRACR-REVERSE"], ["unknown task 'TRACR-REVERSE'", "did you mean 'tracr-reverse'"]),
    "method": (["tracr-reverse", "--method", "acd"], ["unknown method 'acd'", "did you mean 'acdc'"]),
    "metric": (["tracr-reverse", "--metric", "kldiv"], ["unknown metric 'kldiv'", "did you mean 'kl_div'"]),
    "ablation": (["tracr-reverse", "--ablation", "resampel"], ["unknown ablation 'resampel'", "mean 'resample'"]),
    "engine": (["tracr-reverse", "--engine", "plane"], ["unknown engine 'plane'", "did you mean 'plain'"]),
    "layer-order": (["tracr-reverse", "--layer-order", "revers"], ["order 'revers'", "did you mean 'reverse'"]),
    "head-order": (["tracr-reverse", "--head-order", "random"], ["order 'random'", "normal, reverse, shuffle"]),
    "variant": (["tracr-reverse", "--variant", "publishd"], ["'publishd'", "tracr-reverse", "mean 'published'"]),
    "device": (["tracr-reverse", "--device", "gpu"], ["unknown device 'gpu'", "cpu, cuda"]),
    "dtype": (["tracr-reverse", "--dtype", "float46"], ["unknown dtype 'float46'", "did you mean 'float64'"]),
    "model": (["tracr-reverse", "--model", "tracr-revers"], ["model 'tracr-revers'", "mean 'tracr-reverse'"]),
    "model-like-gpt2": (["ioi", "--model", "gpt2x"], ["model 'gpt2x'", "did you mean 'gpt2'", "hub"]),
    "model-in-a-namespace": (["ioi", "--model", "nobody/nothing"], ["model 'nobody/nothing'", "hub"]),
    "model-folder": (["ioi", "--model", "./nothing"], ["model './nothing'", "no such folder"]),
    "prompt-file": (["nothing.jsonl"], ["'nothing.jsonl'", "no such file"]),
    "prompt-file-in-a-folder": (["nothing/prompts"], ["'nothing/prompts'", "no such file"]),
}


@pytest.mark.parametrize("case", UNKNOWN_NAMES)
def test_unknown_names_are_refused_with_what_was_meant(shell, case):
    arguments, parts = UNKNOWN_NAMES[case]
    says(shell.refuses("discover", *arguments, "--quiet"), *parts)


def test_cuda_where_there_is_none(shell, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    says(shell.refuses("discover", "tracr-reverse", "--device", "cuda"), "device 'cuda'", "no CUDA device")


EARLY = {
    "method": ["--method", "acd"],
    "metric": ["--metric", "kldiv"],
    "ablation": ["--ablation", "resampel"],
    "ablation-seed": ["--ablation-seed", "-1"],
    "mean-over": ["--mean-over", "nowhere.jsonl"],
    "mean-over-of-another": ["--mean-over", "run.json", "--ablation", "zero"],
    "engine": ["--engine", "plane"],
    "layer-order": ["--layer-order", "revers"],
    "head-order": ["--head-order", "revers"],
    "variant": ["--variant", "publishd"],
    "threshold": ["--threshold", "nan"],
    "edges": ["--edges", "0"],
    "both": ["--edges", "5", "--threshold", "0.1"],
    "examples": ["--examples", "0"],
    "too-many-examples": ["--examples", "7"],
    "device": ["--device", "gpu"],
    "dtype": ["--dtype", "float46"],
}


@pytest.mark.parametrize("case", EARLY)
def test_what_can_be_refused_before_the_model_is_loaded_is(shell, monkeypatch, case):
    # A large model takes minutes to load; a typo should not cost them. Nor should a headline come before the sentence.
    real = edgewise.models.load_model

    def load(model, *, device=None, dtype=None, **others):
        if case in ("device", "dtype"):
            return real(model, device=device, dtype=dtype, **others)
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr(edgewise.models, "load_model", load)
    shell.refuses("discover", "tracr-reverse", *EARLY[case])


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", ["nan", "inf", "-inf", "1e999"])
def test_a_threshold_has_to_be_finite(shell, threshold):
    sentence = shell.refuses("discover", "tracr-reverse", "--threshold", threshold, "--quiet")
    says(sentence, "threshold", "finite number", "nan|inf")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--threshold", "abc"), ("--threshold", "0,02"), ("--threshold", ""), ("--edges", "many"), ("--seed", "1.5")],
)
def test_text_where_a_number_belongs(shell, option, value):
    said = shell.rejects_usage("discover", "tracr-reverse", option, value)
    says(said, option, "number|integer")


@pytest.mark.parametrize("edges", ["0", "-3"])
def test_edges_has_to_be_one_at_least(shell, edges):
    says(shell.refuses("discover", "tracr-reverse", "--edges", edges, "--quiet"), "--edges", f"not {edges}")


def test_threshold_and_edges_are_one_or_the_other(shell):
    sentence = shell.refuses("discover", "tracr-reverse", "--threshold", "0.1", "--edges", "5", "--quiet")
    says(sentence, "threshold", "edges", "not both")


@pytest.mark.parametrize("examples", ["0", "-1"])
def test_examples_has_to_be_one_at_least(shell, examples):
    says(shell.refuses("discover", "tracr-reverse", "--examples", examples), "--examples", f"not {examples}")


def test_more_examples_than_a_task_has(shell):
    says(shell.refuses("discover", "tracr-reverse", "--examples", "7"), "'tracr-reverse' has 6", "not 7")


def test_more_examples_than_a_file_has(shell, models, prompts):
    sentence = shell.refuses("discover", prompts, "--model", models / "gpt2", "--threshold", "1", "--examples", "4")
    says(sentence, "prompts.jsonl has 3 rows", "the 4 asked for")


def test_a_file_suggests_no_threshold(shell, models, prompts):
    sentence = shell.refuses("discover", prompts, "--model", models / "gpt2", "--quiet")
    says(sentence, "--threshold", "--edges")


@pytest.mark.parametrize("arguments", [["check"], ["discover", "or-gate", "more"], ["discover", "or-gate", "--no"]])
def test_arguments_that_are_missing_or_too_many(shell, arguments):
    says(shell.rejects_usage(*arguments), "MODEL|more|--no")


def test_an_unknown_verb(shell):
    says(shell.refuses("discovr"), "unknown command 'discovr'; did you mean 'discover'", "known: discover, show, ")


# --- models -------------------------------------------------------------------------------------------------------


def discover_on(shell: Shell, prompts: Path, model: Path | str, *options: str) -> str:
    return shell.refuses("discover", prompts, "--model", model, "--threshold", "0.01", "--quiet", *options)


def test_prompts_from_a_file_need_a_model(shell, prompts):
    says(shell.refuses("discover", prompts, "--threshold", "0.01"), "need a model", "--model")


def test_a_model_folder_without_weights(shell, prompts, model):
    (model / "model.safetensors").unlink()
    says(discover_on(shell, prompts, model), re.escape(repr(str(model))), "no weights", r"model\.safetensors")


def test_a_model_folder_without_config(shell, prompts, model):
    (model / "config.json").unlink()
    says(discover_on(shell, prompts, model), re.escape(repr(str(model))), r"no config\.json")


@pytest.mark.parametrize("size", [0, 5, 1000, -100])
def test_weights_that_break_off(shell, prompts, model, size):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    says(discover_on(shell, prompts, model), re.escape(repr(str(model))), "weights", "cannot be read")


def test_weights_that_are_something_else(shell, prompts, model):
    (model / "model.safetensors").write_text("hello, I am no safetensors file")
    says(discover_on(shell, prompts, model), re.escape(repr(str(model))), "weights", "cannot be read")


def test_a_pickle_is_not_run_nor_is_advice_given_to_run_it(shell, prompts, model):
    (model / "model.safetensors").unlink()
    bomb = b"cos\nsystem\n(S'touch " + str(shell.folder / "ran").encode() + b"'\ntR."
    (model / "pytorch_model.bin").write_bytes(bomb)
    sentence = discover_on(shell, prompts, model)
    says(sentence, re.escape(repr(str(model))), "weights", "cannot be read")
    assert "weights_only" not in sentence


@pytest.mark.parametrize("model_type", ["bert", "mamba"])
def test_architectures_without_an_adapter_are_refused_by_name(shell, prompts, model, model_type):
    (model / "config.json").write_text(json.dumps({"model_type": model_type}))
    said = discover_on(shell, prompts, model)
    says(said, f"architecture {model_type}", "not support", r"supported: bloom, .*gpt2, .*llama")


@pytest.mark.parametrize("model_type", ["flurb", None])
def test_architectures_that_nobody_knows(shell, prompts, model, model_type):
    (model / "config.json").write_text(json.dumps({"model_type": model_type}))
    says(discover_on(shell, prompts, model), re.escape(repr(str(model))), r"config\.json|architecture")


@pytest.mark.parametrize("text", ['{"model_type": "gpt2",', "", "[1]", "{}"], ids=["cut", "empty", "list", "nothing"])
def test_a_config_that_is_not_one(shell, prompts, model, text):
    (model / "config.json").write_text(text)
    says(discover_on(shell, prompts, model), re.escape(repr(str(model))), r"config\.json")


@pytest.mark.parametrize(
    ("field", "value"), [("n_layer", "two"), ("n_embd", 32), ("n_layer", 3), ("n_head", 3), ("vocab_size", 50)]
)
def test_a_config_that_does_not_fit_the_weights(shell, prompts, model, field, value):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, field: value}))
    sentence = discover_on(shell, prompts, model)
    says(sentence, re.escape(repr(str(model))), r"config\.json|weights")
    # What transformers tells a programmer is of no use here.
    assert "ignore_mismatched_sizes" not in sentence
    assert "report" not in sentence


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["tracr-revers"], "did you mean 'tracr-reverse'"),
        (["./nothing"], "no such folder"),
        (["tracr-reverse", "--dtype", "float46"], "unknown dtype 'float46'; did you mean 'float64'"),
        (["tracr-reverse", "--device", "gpu"], "unknown device 'gpu'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_check_refuses_what_cannot_be_loaded(shell, arguments, part):
    says(shell.refuses("check", *arguments), part)


def test_a_model_that_is_a_file(shell, prompts, model):
    says(discover_on(shell, prompts, model / "config.json"), r"config\.json' is a file", "folder")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_without_a_tokenizer(shell, prompts, models, tmp_path, family):
    folder = shutil.copytree(models / family, tmp_path / "without")
    for file in folder.glob("*token*"):
        file.unlink()
    says(discover_on(shell, prompts, folder), re.escape(repr(str(folder))), "tokenizer")


def test_a_broken_tokenizer_is_not_called_missing(shell, prompts, model):
    (model / "tokenizer.json").write_text("{broken")
    sentence = discover_on(shell, prompts, model)
    says(sentence, re.escape(repr(str(model))), "tokenizer")
    assert "has no tokenizer" not in sentence


def test_a_tokenizer_with_more_tokens_than_the_model(shell, model):
    save_tokenizer(model, [f"word{index}" for index in range(60)])
    row = {"clean": "word1 word59", "corrupt": "word2 word59", "answer": "word3", "wrong": "word4"}
    sentence = discover_on(shell, write_prompts(model.parent / "words.jsonl", [row]), model)
    says(sentence, "token", "vocabulary|40|more")


@pytest.mark.parametrize(
    ("task", "model"), [("tracr-reverse", "or-gate"), ("or-gate", "tracr-reverse"), ("tracr-xproportion", "or-gate")]
)
def test_a_built_in_task_on_another_built_in_model(shell, task, model):
    says(shell.refuses("discover", task, "--model", model), f"task '{task}'", f"'{model}'", "tokens?")


def test_a_built_in_task_on_a_language_model(shell, models):
    says(shell.refuses("discover", "tracr-reverse", "--model", models / "gpt2"), "'tracr-reverse'", "does not run on")
    says(shell.refuses("discover", "ioi", "--model", models / "gpt2"), "'ioi'", "one token", "tokenizer")


def test_a_text_task_on_a_model_of_tokens(shell, prompts):
    says(discover_on(shell, prompts, "tracr-reverse"), "'tracr-reverse' has no tokenizer", "text")


# --- prompt files -------------------------------------------------------------------------------------------------

BROKEN_ROWS: dict[str, tuple[str, Sequence[str]]] = {
    "json": ('{"clean": "the girl",', ["line 2", "JSON"]),
    "list": ("[1, 2]", ["line 2", "object", "list"]),
    "number": ("3", ["line 2", "object"]),
    "missing": (json.dumps({key: ROWS[0][key] for key in ("clean", "corrupt", "answer")}), ["line 2", "'wrong'"]),
    "misspelt": (
        json.dumps({"clean": "a", "corupt": "the", "answer": "a", "wrong": "a"}),
        ["line 2", "'corrupt' is missing", "'corupt'"],
    ),
    "clean-is-a-number": (json.dumps({**ROWS[0], "clean": 3}), ["line 2", "'clean' should be text", "not 3"]),
    "clean-is-empty": (json.dumps({**ROWS[0], "clean": ""}), ["line 2", "'clean'"]),
    "clean-is-blank": (json.dumps({**ROWS[0], "clean": "  "}), ["line 2", "clean", "no tokens"]),
    "answer-is-a-number": (json.dumps({**ROWS[0], "answer": 3}), ["line 2", "'answer'", "text", "not 3"]),
    "answer-is-empty": (json.dumps({**ROWS[0], "answer": ""}), ["line 2", "'answer'", "text"]),
    "unknown-word": (json.dumps({**ROWS[0], "clean": "the zebra ran ."}), ["line 2", "clean", "zebra", "tokenizer"]),
    "too-long": (
        json.dumps({**ROWS[0], "clean": "the " * (LONGEST + 1), "corrupt": "a " * (LONGEST + 1)}),
        ["line 2", f"{LONGEST + 1} tokens", f"at most {LONGEST}"],
    ),
    "half-a-character": (
        '{"clean": "the \\ud800 ran", "corrupt": "a girl ran", "answer": "She", "wrong": "He"}',
        ["line 2", "clean"],
    ),
    "too-deep": ("[" * 100_000, ["line 2", "deep|JSON"]),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_a_broken_row_is_refused_with_its_line(shell, models, case):
    row, parts = BROKEN_ROWS[case]
    path = write_prompts(shell.folder / "broken.jsonl", [ROWS[0], row, ROWS[1]])
    says(discover_on(shell, path, models / "gpt2"), r"broken\.jsonl", *parts)


@pytest.mark.parametrize(("content", "part"), [(b"", "empty"), (b"\n  \n", "empty"), (b"\xff\xfe\x00{", "UTF-8")])
def test_a_file_without_rows_or_text(shell, models, content, part):
    (shell.folder / "broken.jsonl").write_bytes(content)
    says(discover_on(shell, shell.folder / "broken.jsonl", models / "gpt2"), r"broken\.jsonl", part)


def test_a_folder_as_the_task(shell, models):
    (shell.folder / "folder.jsonl").mkdir()
    says(discover_on(shell, shell.folder / "folder.jsonl", models / "gpt2"), r"folder\.jsonl", "is a folder")


def test_a_prompt_file_has_no_variants(shell, models, prompts):
    says(discover_on(shell, prompts, models / "gpt2", "--variant", "paper"), "no variants", "'paper'")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"answer": " She ran"}, ["line 1", "answer ' She ran'", "2 tokens", re.escape("['She', 'ran']")]),
        ({"wrong": ["He", "it ran"]}, ["wrong answers", "'it ran'", "2 tokens"]),
        ({"answer": "zebra"}, ["line 1", "'zebra'", "unknown word"]),
        ({"answer": None}, ["line 1", "'answer' is null"]),
    ],
)
def test_answers_have_to_be_one_token_where_the_metric_reads_them(shell, models, change, parts):
    path = write_prompts(shell.folder / "answers.jsonl", [{**ROWS[0], **change}, ROWS[1]])
    sentence = discover_on(shell, path, models / "gpt2", "--metric", "logit_diff")
    says(sentence, "'logit_diff'", "one token", *parts)


def test_resample_needs_pairs_of_one_length(shell, models):
    rows = [ROWS[0], {**ROWS[1], "corrupt": "the girl ran ."}]
    sentence = discover_on(shell, write_prompts(shell.folder / "different.jsonl", rows), models / "gpt2")
    says(sentence, "'resample'", "line 2", "has 7 tokens, the corrupted one 4", "['girl', 'ran']", "'mean' or 'zero'")


def test_mean_positional_needs_prompts_of_one_length(shell, models, prompts):
    sentence = discover_on(shell, prompts, models / "gpt2", "--ablation", "mean-positional")
    says(sentence, "'mean-positional'", "one length", "6 to 7 tokens")


def test_texts_to_take_a_mean_over_are_for_the_mean_and_have_to_be_texts(shell, models, prompts):
    sentence = discover_on(shell, prompts, models / "gpt2", "--mean-over", "nowhere.jsonl")
    says(sentence, "--mean-over", "'nowhere.jsonl': there is no such file")
    sentence = discover_on(shell, prompts, models / "gpt2", "--mean-over", str(prompts), "--ablation", "noise")
    says(sentence, "--mean-over is for ablation 'mean'; ablation 'noise' takes no mean over texts")
    (shell.folder / "texts.jsonl").write_text('{"text": "the girl ran ."}\n{"text": 7}\n')
    refused = shell("discover", prompts, "--model", models / "gpt2", "--threshold", "0.1", "--mean-over", "texts.jsonl")
    assert refused.code == 2
    says(refused.err, "1 of the 2 lines of 'texts.jsonl' cannot be used", "line 2: 'text' should be text, not 7")


def test_resample_needs_a_difference_between_clean_and_corrupted(shell, models):
    rows = [{**row, "corrupt": row["clean"]} for row in ROWS]
    sentence = discover_on(shell, write_prompts(shell.folder / "same.jsonl", rows), models / "gpt2")
    says(sentence, "the same", "'resample'")
    says(shell.refuses("discover", "or-gate", "--ablation", "resample", "--quiet"), "the same", "'resample'")


def test_a_metric_that_means_nothing_on_the_task(shell):
    sentence = shell.refuses("discover", "tracr-reverse", "--metric", "kl_div", "--quiet")
    says(sentence, "'kl_div'", "'tracr-reverse'", "it takes: l2")


# --- no number ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "where"),
    [
        ("transformer.wte.weight", "embedding"),
        ("transformer.h.1.mlp.c_fc.bias", "layer 1"),
        ("transformer.h.0.attn.c_attn.bias", "layer 0"),
    ],
)
def test_a_model_that_gives_no_numbers_is_said_to(shell, prompts, tmp_path, parameter, where):
    folder = save_gpt2(tmp_path / "broken", **{parameter: float("nan")})
    sentence = discover_on(shell, prompts, folder)
    says(sentence, re.escape(repr(str(folder))), r"(?i)\bnan\b|not a number|not finite|no finite", where)
    # It is the model that is broken, not edgewise's reading of it.
    assert "does not compute what the model computes" not in sentence
    says(shell.refuses("check", folder), r"(?i)\bnan\b|not a number|not finite|no finite", where)


@pytest.mark.parametrize("options", [["--threshold", "0"], ["--threshold", "0.01"], ["--edges", "5"]])
def test_a_metric_that_comes_out_as_no_number_names_the_edge(shell, prompts, tmp_path, options):
    folder = save_unstable_gpt2(tmp_path / "unstable", bias=True)
    arguments = ("discover", prompts, "--model", folder, "--ablation", "zero", "--quiet", *options)
    says(shell.refuses(*arguments), "'kl_div'", "nan", r"removing a0\.h[01]<v>->a0\.h[01]")


def test_a_metric_that_is_no_number_where_every_edge_is_cut(shell, prompts, tmp_path):
    folder = save_unstable_gpt2(tmp_path / "unstable", bias=False)
    says(discover_on(shell, prompts, folder, "--ablation", "zero"), "'kl_div'", "nan", "every edge ablated")


# --- what the system does not allow -------------------------------------------------------------------------------


def test_names_that_are_too_long_for_the_system(shell, models, prompts):
    name = "x" * 300
    says(shell.refuses("discover", f"{name}.jsonl", "--model", models / "gpt2", "--threshold", "1"), name)
    says(discover_on(shell, prompts, name), name)
    says(discover_on(shell, prompts, models / "gpt2", "--out", name), name)
    says(shell.refuses("evaluate", name), name)


@contextlib.contextmanager
def bound_by_permissions() -> Iterator[None]:
    """As anyone else if the tests run as root: on Linux, without the two powers by which root looks into everything."""
    if os.geteuid() != 0:
        yield
        return
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    powers = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable ones, the lower 32 and the upper
    if not hasattr(libc, "capset") or libc.capget(header, powers):
        pytest.skip("nothing is forbidden to root")
    whole = powers[0]
    powers[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, powers) == 0
    try:
        yield
    finally:
        powers[0] = whole
        assert libc.capset(header, powers) == 0


@pytest.mark.parametrize("what", ["prompts", "model", "out"])
def test_folders_that_may_not_be_looked_into(shell, models, prompts, tmp_path, what):
    locked = tmp_path / "locked"
    locked.mkdir()
    shutil.copy(prompts, locked)
    shutil.copytree(models / "gpt2", locked / "gpt2")
    task = locked / prompts.name if what == "prompts" else prompts
    model = locked / "gpt2" if what == "model" else models / "gpt2"
    out = locked / "run" if what == "out" else Path("run")
    locked.chmod(0)
    try:
        with bound_by_permissions():
            sentence = discover_on(shell, task, model, "--out", str(out))
    finally:
        locked.chmod(0o755)
    says(sentence, "locked", "(?i)permission")


def test_the_words_of_these_tests_are_known():
    assert UNKNOWN not in WORDS
    assert len(WORDS) < tiny.VOCABULARY


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "-0.1"], ["threshold", "0 or more, not -0.1"]),
        (["--threshold", "-0.1", "--absolute"], ["threshold", "0 or more, not -0.1"]),
        (["--threshold", "0.1", "--seed", "10000000000000000000000"], ["--seed", r"2\^63"]),
        (["--threshold", "0.1", "--seed", "-1"], ["--seed", "not -1"]),
        (["--method", "subnetwork-probing", "--steps", "99999999999"], ["steps of method", "at most 1,000,000"]),
    ],
)
def test_numbers_without_bounds_are_refused(shell, options, words):
    says(shell.refuses("discover", "tracr-reverse", "--quiet", *options), *words)
