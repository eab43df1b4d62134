"""A user's own rows: all that is wrong at once, leaving bad ones out, rows from Python, spaces out of place."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_jsonl_tasks import GOOD, ids, model, write

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.models import load_model
from edgewise.patching import Experiment
from edgewise.runs import discover
from edgewise.tasks import load_task

UNEVEN = GOOD | {"corrupt": "the boy named Lily went home ."}
LONG = GOOD | {"clean": " ".join(["the"] * 9)}
SEVERAL = GOOD | {"answer": " She went"}


def refusal(task: Any, **options: Any) -> str:
    with pytest.raises(EdgewiseError) as caught:
        load_task(task, model(), **options)
    return str(caught.value)


# --- all that is wrong ------------------------------------------------------------------------------------------------


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, GOOD, "{", LONG, UNEVEN, GOOD, {"clean": "the"}), ablation="resample")
    lines = message.splitlines()
    assert lines[0].endswith("mine.jsonl: 4 of 6 rows are not right:")
    assert [line.split(":")[0].strip() for line in lines[1:5]] == ["line 2", "line 3", "line 4", "line 6"]
    assert "not valid JSON" in lines[1]
    assert "the clean prompt has 9 tokens" in lines[2]
    assert lines[3].endswith("the clean prompt has 5 tokens, the corrupted one 7: ['girl', 'named', 'Lily'] against "
                             "['boy', 'named', 'Lily', 'went', 'home']")  # fmt: skip
    assert "the field 'corrupt' is missing" in lines[4]
    assert "skip_bad (--skip-bad)" in lines[5]


def test_of_many_bad_rows_the_first_ten_are_shown(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, *[LONG] * 37))
    assert "37 of 37 rows" in message
    assert message.count("the clean prompt has 9 tokens") == 10
    assert "\n  and 27 more\n" in message


def test_a_search_by_resampling_names_all_pairs_of_two_lengths(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, UNEVEN, GOOD, UNEVEN), model())
    with pytest.raises(EdgewiseError) as caught:
        Experiment(model(), task)
    for part in ("pair 1 has 5 and 7 tokens", "pair 3 has 5 and 7 tokens", "skip_bad"):
        assert part in str(caught.value)
    Experiment(model(), task, ablation="zero")


def test_all_rows_without_answers_are_named_where_a_metric_needs_them(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD, SEVERAL, GOOD | {"answer": None}), model())
    assert "line 2: answer ' She went' is 2 tokens ['She', 'went']" in task.why_no_answers
    assert "line 3: 'answer' is null" in task.why_no_answers


def test_what_is_long_is_not_quoted_whole(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, GOOD | {"clean": ["x" * 100] * 10_000}))
    assert "'clean' should be text" in message
    assert len(message) < 600


def test_a_prompt_of_millions_of_letters_is_refused_before_it_is_tokenized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewise.tasks import own_prompts

    seen: list[str] = []

    def encode_all(decoder: object, texts: list[str]) -> list[list[int]]:
        seen.extend(texts)
        return [[1] for _ in texts]

    monkeypatch.setattr(own_prompts, "encode_all", encode_all)
    message = refusal(write(tmp_path, GOOD | {"clean": "the " * 1_000_000}))
    assert "the clean prompt has 4,000,000 characters" in message
    assert seen == []


def test_a_pipe_is_no_prompt_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is no regular file" in refusal(tmp_path / "pipe.jsonl")


# --- leaving rows out -------------------------------------------------------------------------------------------------


def test_bad_rows_are_left_out_when_asked_and_the_settings_say_which(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "{", LONG, UNEVEN, SEVERAL, GOOD)
    with pytest.warns(EdgewiseWarning, match=r"left out 4 of 6 rows of .*\(lines 2, 3, 4, 5\); the first because not"):
        task = load_task(path, model(), skip_bad=True)
    assert task.prompts.clean.tolist() == [ids("the girl named Lily ."), ids("the girl named Lily .")]
    assert task.prompts.answers is not None
    assert (task.settings["skip_bad"], task.settings["left_out"], task.settings["examples"]) == (True, [2, 3, 4, 5], 2)
    assert "skip_bad" not in load_task(write(tmp_path, GOOD), model()).settings


def test_nothing_is_said_of_rows_left_out_where_none_are(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_task(write(tmp_path, GOOD), model(), skip_bad=True).settings["left_out"] == []


def test_pairs_of_two_lengths_stay_where_the_ablation_takes_them(tmp_path: Path) -> None:
    assert len(load_task(write(tmp_path, GOOD, UNEVEN), model(), skip_bad=True, ablation="mean")) == 2


def test_rows_without_answers_stay_where_no_row_has_one(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, SEVERAL, SEVERAL), model(), skip_bad=True)
    assert len(task) == 2
    assert task.prompts.answers is None


@pytest.mark.filterwarnings("ignore:left out")
def test_examples_are_counted_among_the_rows_that_are_left(tmp_path: Path) -> None:
    rows = [GOOD | {"wrong": f" {word}"} for word in ("He", "boy", "said", "home")]
    path = write(tmp_path, LONG, *rows[:2], "[]", *rows[2:])
    for split, wanted in (("validation", ("He", "boy")), ("test", ("said", "home"))):
        task = load_task(path, model(), skip_bad=True, examples=2, split=split)  # type: ignore[arg-type]
        assert [text.wrong for text in task.text] == [(f" {word}",) for word in wanted]
    assert "has 4 rows that can be used, fewer than the 6 asked for" in refusal(
        path, skip_bad=True, examples=3, split="test"
    )


def test_a_file_of_bad_rows_alone_is_refused(tmp_path: Path) -> None:
    assert "no row is left" in refusal(write(tmp_path, LONG, "{"), skip_bad=True)


# --- rows from Python -------------------------------------------------------------------------------------------------


def test_a_list_of_dictionaries_is_a_task(tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"answer": (" She", " Lily")}]
    task, same = load_task(rows, model(), name="pronouns"), load_task(write(tmp_path, *rows), model())
    assert task.name == task.settings["task"] == "pronouns"
    assert task.text == same.text
    assert task.prompts.clean.equal(same.prompts.clean)
    assert "file" not in task.settings


def test_rows_of_a_list_are_checked_like_those_of_a_file() -> None:
    message = refusal([GOOD, {"clean": "the"}, LONG, "the girl"])
    assert "the rows of 'prompts': 3 of 4 rows are not right" in message
    assert "row 2: the field 'corrupt' is missing" in message
    assert "row 3: the clean prompt has 9 tokens" in message
    assert "row 4: should be an object with clean, corrupt, answer, wrong, not a str" in message
    assert "is empty" in refusal([])
    assert "should hold what JSON can" in refusal([GOOD | {"answer": {1, 2}}])
    assert "'a/b'" in refusal([GOOD], name="a/b")


@pytest.mark.filterwarnings("ignore:the model gets")
def test_a_run_on_a_list_keeps_its_rows(tmp_path: Path) -> None:
    task = load_task([GOOD, GOOD | {"wrong": None}], model())
    run = discover(model(), task, threshold=1.0)
    kept = (run.save(tmp_path / "run") / "prompts.jsonl").read_text().splitlines()
    assert [json.loads(line)["wrong"] for line in kept] == [[" He"], None]
    assert load_task(tmp_path / "run" / "prompts.jsonl", model()).text == task.text


def test_a_text_that_is_no_name_and_no_file_is_refused_in_a_sentence() -> None:
    assert "unknown task" in refusal("x" * 100_000)
    assert len(refusal(f"{'x' * 100_000}.jsonl")) < 1_000


# --- seeds and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [-1, 10**22, 1.5, "1", True, None])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    with pytest.raises(EdgewiseError, match=r"the seed \(--seed\) should be a whole number from 0 to 2\^63 - 1"):
        load_task("ioi", load_model("tiny-ioi"), seed=seed)


@pytest.mark.parametrize("task", ["ioi", "greater-than", "docstring", "induction", "gender-pronoun", "tracr-reverse"])
def test_the_largest_seed_makes_prompts(task: str) -> None:
    from edgewise.tasks import find_spec

    spec = find_spec(task)
    assert spec is not None
    assert len(load_task(task, load_model(spec.model), examples=3, seed=2**63 - 1)) == 3


@pytest.mark.parametrize("examples", [0, -1, 10**9, 2.0, "3", True])
def test_a_number_of_examples_that_makes_no_sense_is_refused(examples: Any) -> None:
    with pytest.raises(EdgewiseError, match=r"examples \(--examples\) should be|has 10,000 examples at most"):
        load_task("ioi", load_model("tiny-ioi"), examples=examples)


# --- spaces -----------------------------------------------------------------------------------------------------------


def spaced() -> Any:
    """A tiny GPT-2 whose tokens keep the space before a word, as GPT-2's do."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["key", "s", "is", "are", "Ġare", "Ġis", "Ġkey"]
    merges = ["k e", "ke y", "i s", "a r", "ar e", "Ġ are", "Ġ is", "Ġ key"]
    vocabulary = {token: index for index, token in enumerate([*letters, "ke", "ar", *words[:1], *words[2:]])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(vocabulary), n_positions=32, n_embd=8, n_layer=1, n_head=2)
    return load_model(GPT2LMHeadModel(config), tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def row(clean: str, answer: str, wrong: str) -> dict[str, str]:
    return {"clean": clean, "corrupt": clean.replace("a", "b"), "answer": answer, "wrong": wrong}


def test_answers_without_their_space_are_warned_of() -> None:
    with pytest.warns(
        EdgewiseWarning, match=r"2 answers of .* without a space before them \(row 1: 'is'\).* write ' is'"
    ):
        load_task([row("a key", "is", "are")], spaced())


def test_prompts_that_end_in_a_space_are_warned_of() -> None:
    with pytest.warns(EdgewiseWarning, match=r"1 clean prompt of .* ends in a space \(row 2\)"):
        load_task([row("a key", " is", " are"), row("a key ", "is", "are")], spaced())


@pytest.mark.parametrize(
    "pair",
    [row("a key", " is", " are"), row("a (", "is", "are"), row("a 12", "3", "4"), row("a key", ".", ",")],
    ids=["spaces in place", "after a bracket", "digits", "no words"],
)
def test_what_needs_no_space_is_not_warned_of(pair: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", EdgewiseWarning)
        load_task([pair], spaced())


def test_a_tokenizer_that_knows_no_spaces_is_not_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", EdgewiseWarning)
        load_task(write(tmp_path, GOOD | {"answer": "She", "clean": "the girl named Lily "}), model())
