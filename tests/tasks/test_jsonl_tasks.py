"""A user's own prompts: what a good file becomes, and what is said of each way in which a file can be bad."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder, load_model
from edgewise.tasks import find_metric, find_spec, load_task
from edgewise.tasks.jsonl import read_rows
from edgewise.tasks.own_prompts import build_own
from edgewise.tasks.task import last_token_prompts
from edgewise.tasks.tokens import continuation, encode

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260k"

WORDS = "[UNK] the girl boy named Lily Tom . She He said went home".split()
GOOD = {"clean": "the girl named Lily .", "corrupt": "the boy named Lily .", "answer": " She", "wrong": " He"}


@cache
def model(positions: int = 8) -> Decoder:
    """A tiny GPT-2 whose tokens are `WORDS`, in that order; whatever else is [UNK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=positions, n_embd=8, n_layer=1, n_head=2)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    return load_model(GPT2LMHeadModel(config), tokenizer=tokenizer)


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    path = folder / "mine.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(EdgewiseError) as caught:
        load_task(path, model(), **options)
    return str(caught.value)


# --- good files -------------------------------------------------------------------------------------------------------


def test_a_file_becomes_tokens_answers_and_text(tmp_path: Path) -> None:
    other = {"clean": "the boy named Tom .", "corrupt": "the girl named Tom .", "answer": " He", "wrong": " She"}
    task = load_task(write(tmp_path, GOOD, other), model())
    prompts = task.prompts
    assert prompts.clean.tolist() == [ids("the girl named Lily ."), ids("the boy named Tom .")]
    assert prompts.corrupt.tolist() == [ids("the boy named Lily ."), ids("the girl named Tom .")]
    assert prompts.answers is not None
    assert prompts.answers.tolist() == [ids("She"), ids("He")]
    assert prompts.wrong is not None
    assert prompts.wrong.tolist() == [ids("He"), ids("She")]
    assert prompts.scored_rows.tolist() == [0, 1]
    assert prompts.scored_positions.tolist() == [4, 4]
    assert prompts.mask.all()
    assert prompts.paired
    assert task.name == "mine"
    assert (task.text[0].clean, task.text[0].answers, task.text[1].wrong) == (GOOD["clean"], (" She",), (" She",))


def test_answers_may_be_a_text_a_list_or_null(tmp_path: Path) -> None:
    rows = [
        GOOD | {"answer": [" She", " Lily"], "wrong": [" He"]},
        GOOD | {"answer": " Lily", "wrong": [" He", " Tom"]},
    ]
    prompts = load_task(write(tmp_path, *rows), model()).prompts
    assert prompts.answers is not None
    assert prompts.answers.tolist() == [ids("She Lily"), [*ids("Lily"), -1]]
    assert prompts.wrong is not None
    assert prompts.wrong.tolist() == [[*ids("He"), -1], ids("He Tom")]

    prompts = load_task(write(tmp_path, GOOD | {"answer": None, "wrong": None}), model()).prompts
    assert prompts.answers is None
    assert prompts.wrong is None


def test_prompts_of_different_length_are_padded_and_scored_at_their_own_last_token(tmp_path: Path) -> None:
    rows = [
        GOOD,
        GOOD | {"clean": "the girl", "corrupt": "the boy"},
        GOOD | {"clean": "the girl named Lily went home .", "corrupt": "the boy named Lily went home ."},
    ]
    prompts = load_task(write(tmp_path, *rows), model()).prompts
    lengths = [5, 2, 7]
    assert prompts.clean.shape == prompts.corrupt.shape == (3, 7)
    assert prompts.mask.tolist() == [[position < length for position in range(7)] for length in lengths]
    assert prompts.corrupt_mask.tolist() == prompts.mask.tolist()
    assert prompts.scored_positions.tolist() == [4, 1, 6]
    assert prompts.paired
    for row, (tokens, length) in enumerate(zip(prompts.clean, lengths, strict=True)):
        assert tokens[:length].tolist() == ids(rows[row]["clean"])


def test_the_two_prompts_of_a_pair_may_differ_in_length(tmp_path: Path) -> None:
    row = GOOD | {"clean": "the girl named Lily .", "corrupt": "the boy named Lily went home ."}
    prompts = load_task(write(tmp_path, row, GOOD), model()).prompts
    assert prompts.clean.shape == prompts.corrupt.shape == (2, 7)
    assert prompts.mask.sum(dim=1).tolist() == [5, 5]
    assert prompts.corrupt_mask.sum(dim=1).tolist() == [7, 5]
    assert prompts.scored_positions.tolist() == [4, 4]  # of the clean prompt
    assert not prompts.paired


def test_other_fields_blank_lines_and_a_last_line_without_an_end_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"\n{json.dumps(GOOD | {'source': 'me'})}\n\n  \n{json.dumps(GOOD)}")
    assert [row.number for row in read_rows(path).good] == [2, 5]
    assert len(load_task(path, model())) == 2


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"], ids=["U+2028", "U+2029", "U+0085"])
def test_a_separator_that_json_allows_inside_a_text_does_not_end_the_line(tmp_path: Path, separator: str) -> None:
    row = GOOD | {"clean": f"the girl{separator}named Lily ."}
    path = write(tmp_path, json.dumps(row, ensure_ascii=False), GOOD)
    rows = read_rows(path).good
    assert [row.number for row in rows] == [1, 2]
    assert rows[0].text.clean == f"the girl{separator}named Lily ."


def test_the_checksum_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(f"{json.dumps(GOOD)}\r\n{json.dumps(GOOD)}\r\n".encode())
    task = load_task(path, model())
    assert len(task) == 2
    assert task.settings["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_settings_say_how_to_make_the_task_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, GOOD, GOOD)
    settings = dict(load_task(path, model(), examples=2).settings)
    assert settings.pop("sha256") == hashlib.sha256(path.read_bytes()).hexdigest()
    assert settings == {"task": str(path), "file": str(path.resolve()), "examples": 2, "split": "validation"}


# --- which rows -------------------------------------------------------------------------------------------------------


def numbered(folder: Path, count: int) -> Path:
    return write(folder, *(GOOD | {"answer": f" {WORDS[1 + index]}"} for index in range(count)))


def chosen(path: Path, **options: Any) -> list[int]:
    answers = load_task(path, model(), **options).prompts.answers
    assert answers is not None
    return [int(answer) - 1 for answer in answers[:, 0]]


def test_all_rows_are_taken_or_the_first_ones_or_the_next(tmp_path: Path) -> None:
    path = numbered(tmp_path, 5)
    assert chosen(path) == [0, 1, 2, 3, 4]
    assert chosen(path, examples=2) == [0, 1]
    assert chosen(path, examples=5) == [0, 1, 2, 3, 4]
    assert chosen(path, examples=2, split="test") == [2, 3]
    assert chosen(path, examples=1, split="test") == [1]


def test_more_rows_than_there_are_is_an_error(tmp_path: Path) -> None:
    path = numbered(tmp_path, 5)
    assert re.search(r"mine\.jsonl has 5 rows, fewer than the 6 asked for$", refusal(path, examples=6))
    message = refusal(path, examples=3, split="test")
    assert re.search(
        r"has 5 rows, fewer than the 6 asked for: 3 to search, and the next 3 for the test split$", message
    )
    message = refusal(numbered(tmp_path, 1), examples=1, split="test")
    assert re.search(r"has 1 row, fewer than the 2 asked for: 1 to search, and the next 1 for the test split$", message)


def test_a_test_split_needs_a_number_of_examples(tmp_path: Path) -> None:
    assert "(--examples N), the first N rows are searched and the next N tested" in refusal(
        numbered(tmp_path, 5), split="test"
    )


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ('{"clean": "a", "corrupt"}', "not valid JSON: Expecting ':' delimiter (column 25)"),
        ("the girl named Lily .", "not valid JSON"),
        ('["the girl"]', "should be an object with clean, corrupt, answer, wrong, not a list"),
        ('"the girl"', "not a str"),
        ("7", "not a int"),
        ("null", "should be an object with clean, corrupt, answer, wrong"),
        pytest.param("[" * 100_000, "nested too deeply", id="nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_object_is_refused_with_its_number(tmp_path: Path, line: str, trouble: str) -> None:
    message = refusal(write(tmp_path, GOOD, "", line, GOOD))
    assert message.startswith(f"{tmp_path / 'mine.jsonl'}, line 3: ")
    assert trouble in message


@pytest.mark.parametrize("field", ["clean", "corrupt", "answer", "wrong"])
def test_a_missing_field_is_named_with_the_line(tmp_path: Path, field: str) -> None:
    row = {key: value for key, value in GOOD.items() if key != field}
    message = refusal(write(tmp_path, GOOD, row))
    assert f"mine.jsonl, line 2: the field '{field}' is missing" in message
    assert ("null, if there is none" in message) == (field in ("answer", "wrong"))


@pytest.mark.parametrize(("wrong", "right"), [("answers", "answer"), ("corrupted", "corrupt"), ("Clean", "clean")])
def test_a_field_with_nearly_the_right_name_is_pointed_out(tmp_path: Path, wrong: str, right: str) -> None:
    row = {wrong if key == right else key: value for key, value in GOOD.items()}
    assert re.search(f"the field '{right}' is missing.*; is it '{wrong}'", refusal(write(tmp_path, row)))


@pytest.mark.parametrize("field", ["clean", "corrupt"])
@pytest.mark.parametrize("value", [None, 7, ["the girl"], {}, ""])
def test_a_prompt_that_is_no_text_is_refused(tmp_path: Path, field: str, value: object) -> None:
    message = refusal(write(tmp_path, GOOD, GOOD | {field: value}))
    assert f"mine.jsonl, line 2: '{field}' should be text, not {json.dumps(value)}" in message


@pytest.mark.parametrize("field", ["answer", "wrong"])
@pytest.mark.parametrize("value", [7, True, {"text": " She"}, [" She", None], [[" She"]], "", [" She", ""]])
def test_an_answer_that_is_no_text_is_refused(tmp_path: Path, field: str, value: object) -> None:
    message = refusal(write(tmp_path, GOOD, GOOD | {field: value}))
    assert f"line 2: '{field}' should be text, a list of texts or null, not {json.dumps(value)}" in message


@pytest.mark.parametrize("field", ["clean", "answer"])
def test_half_a_character_is_refused_with_its_line(tmp_path: Path, field: str) -> None:
    # JSON can spell one half of a pair of surrogates, which is no text that a tokenizer could read.
    path = write(tmp_path, GOOD, json.dumps(GOOD | {field: " She \ud800"}))
    assert "mine.jsonl, line 2: " in refusal(path)


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    assert re.search(r"the prompt file '.*mine\.jsonl' is empty", refusal(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert re.search(r"the prompt file '.*absent\.jsonl': there is no such file", refusal(tmp_path / "absent.jsonl"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert re.search("the prompt file '.*' is a folder, not a file", refusal(tmp_path))


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(json.dumps(GOOD | {"clean": "Zoë"}, ensure_ascii=False).encode("latin-1"))
    assert re.search(r"mine\.jsonl' is not UTF-8 text \(byte 13\)", refusal(path))


# --- prompts and answers that the model cannot take -------------------------------------------------------------------


@pytest.mark.parametrize("field", ["clean", "corrupt"])
def test_a_prompt_that_is_too_long_is_refused_with_its_line(tmp_path: Path, field: str) -> None:
    long = " ".join(["the"] * 9)
    message = refusal(write(tmp_path, GOOD, GOOD | {field: long}))
    assert re.search(rf"line 2: the {field} prompt has 9 tokens; model '.*' reads at most 8", message)
    fits = write(tmp_path, GOOD | {"clean": "the " * 8, "corrupt": "boy " * 8})
    assert load_task(fits, model()).prompts.clean.shape == (1, 8)


def test_a_prompt_without_tokens_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 1: the clean prompt has no tokens" in refusal(write(tmp_path, GOOD | {"clean": "  "}))


def test_a_prompt_of_unknown_words_is_refused_with_the_prompt(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, GOOD, GOOD | {"corrupt": "the cat named Lily ."}))
    assert re.search(r"line 2: the corrupt prompt has words that .* does not know: 'the cat named Lily .'", message)


NEEDING_ANSWERS = ("nll", "match_nll")
NEEDING_BOTH = ("logit_diff", "prob_diff", "frac_correct")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": " She said"}, r"line 2: answer ' She said' is 2 tokens \['She', 'said'\]"),
        ({"answer": [" She", " She went home"]}, "line 2: answer ' She went home' is 3 tokens"),
        ({"answer": " It"}, "line 2: answer ' It' is an unknown word"),
        ({"answer": None}, "line 2: 'answer' is null"),
    ],
)
def test_an_answer_that_is_not_one_token_matters_only_to_metrics_that_need_it(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    task = load_task(write(tmp_path, GOOD, GOOD | change, GOOD), model())
    assert task.prompts.answers is None
    assert task.prompts.wrong is not None
    assert find_metric(None, task).name == "kl_div"
    assert find_metric("l2", task).name == "l2"
    for name in (*NEEDING_ANSWERS, *NEEDING_BOTH):
        with pytest.raises(EdgewiseError, match=rf"'{name}' needs answers of one token each: .*mine\.jsonl, {reason}"):
            find_metric(name, task)


def test_a_wrong_answer_that_is_not_one_token_matters_only_to_metrics_that_need_it(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD | {"wrong": " He went home"}), model())
    assert task.prompts.wrong is None
    assert task.prompts.answers is not None
    for name in NEEDING_ANSWERS:
        assert find_metric(name, task).name == name
    for name in NEEDING_BOTH:
        with pytest.raises(
            EdgewiseError, match=r"needs wrong answers of one token each: .*line 1: wrong ' He went home'"
        ):
            find_metric(name, task)


# --- loading by name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ioi", "tracr-reverse", "tracr-xproportion", "or-gate"])
def test_built_in_tasks_are_found_by_name(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.name == name


def test_a_file_is_told_from_a_mistyped_name(tmp_path: Path) -> None:
    assert find_spec(write(tmp_path, GOOD)) is None
    assert find_spec("not-there.jsonl") is None
    assert find_spec("some/where") is None
    with pytest.raises(EdgewiseError, match=r"unknown task 'ioo'; did you mean 'ioi'.*known: ioi, greater-than"):
        find_spec("ioo")


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = numbered(tmp_path, 5)
    assert "prompts of one's own have no variants" in refusal(path, variant="paper")
    assert "examples (--examples) should be a whole number from 1, not 0" in refusal(path, examples=0)
    assert "unknown split 'tset'; did you mean 'test'" in refusal(path, examples=1, split="tset")


# --- prompts by hand, and tokens --------------------------------------------------------------------------------------


def test_prompts_without_rows_or_tokens_are_refused() -> None:
    with pytest.raises(EdgewiseError, match="no prompts"):
        last_token_prompts([], [])
    with pytest.raises(EdgewiseError, match="the clean prompt of pair 2 has no tokens"):
        last_token_prompts([[1], []], [[1], [2]])
    with pytest.raises(EdgewiseError, match="the corrupted prompt of pair 1 has no tokens"):
        last_token_prompts([[1], [2]], [[], [2]])


def test_some_rows_of_the_prompts_come_with_what_is_scored_in_them() -> None:
    prompts = last_token_prompts(
        [[1, 2, 3], [4, 5], [6], [7, 8, 9]], [[9, 2, 3], [8, 5], [7], [6, 8, 9]], [[1], [2], [3, 4], [5]], [[6]] * 4
    )
    part = prompts.rows(1, 3)
    assert len(part) == 2
    assert part.clean.tolist() == [[4, 5, 0], [6, 0, 0]]
    assert part.corrupt.tolist() == [[8, 5, 0], [7, 0, 0]]
    assert part.mask.tolist() == [[True, True, False], [True, False, False]]
    assert part.scored_rows.tolist() == [0, 1]
    assert part.scored_positions.tolist() == [1, 0]
    assert part.answers is not None
    assert part.answers.tolist() == [[2, -1], [3, 4]]


@pytest.fixture(scope="module")
def stories() -> Decoder:
    if not STORIES.exists():
        pytest.skip(tiny.NO_SHARED)
    return load_model(STORIES, device="cpu")


def test_an_answer_is_read_as_it_stands_after_the_prompt(stories: Decoder) -> None:
    prompt = "Once upon a time, there was a little girl named Lily."
    both = encode(stories, prompt + " She")
    assert both[0] == stories.tokenizer.bos_token_id
    assert continuation(stories, prompt, " She") == both[-1:]  # no second BOS, no lone space
    # Where prompt and answer run into one token, the answer is taken by itself, without the space before every text.
    before, joined = encode(stories, "She sai"), encode(stories, "She said")
    assert joined[: len(before)] != before
    assert stories.tokenizer.convert_ids_to_tokens(continuation(stories, "She sai", "d")) == ["d"]


def test_a_real_models_right_answers_are_the_ones_it_prefers_at_the_scored_places(stories: Decoder) -> None:
    from transformers import AutoModelForCausalLM

    task = build_own(stories, read_rows(STORIES / "gender_pronoun.jsonl"), examples=None, split="validation")
    prompts = task.prompts
    assert len(task) == 40
    assert (int(prompts.mask.sum(dim=1).min()), int(prompts.mask.sum(dim=1).max())) == (16, 20)
    assert prompts.paired
    llama = AutoModelForCausalLM.from_pretrained(STORIES)
    differences: dict[str, list[float]] = {" She": [], " He": []}
    for row, text in enumerate(task.text):
        tokens = prompts.clean[row][prompts.mask[row]]
        assert prompts.scored_positions[row] == len(tokens) - 1
        with torch.no_grad():
            last = llama(tokens[None]).logits[0, prompts.scored_positions[row]]
        right, wrong = (int(one[row, 0]) for one in (prompts.answers, prompts.wrong) if one is not None)
        differences[text.answers[0]].append(float(last[right] - last[wrong]))
    # SOURCE.md beside the model has 0.7 to 7.0, which holds for girls; five boys with a girl's name confuse the model.
    assert (round(min(differences[" She"]), 1), round(max(differences[" She"]), 1)) == (0.7, 7.0)
    assert sum(difference > 0 for difference in differences[" He"]) == 15


def test_what_a_tokenizer_puts_after_a_prompt_is_not_scored() -> None:
    from tokenizers import processors

    from edgewise.tasks.tokens import encode

    decoder = load_model("tiny-ioi")
    plain = encode(decoder, "Then, Mary and Paul")
    backend = decoder.tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="[UNK] $A [PAD]", special_tokens=[("[UNK]", 1), ("[PAD]", 0)]
    )
    assert encode(decoder, "Then, Mary and Paul") == [1, *plain]


def test_two_spellings_of_one_token_count_once_and_no_token_is_right_and_wrong(tmp_path: Path) -> None:
    decoder = load_model("tiny-ioi")
    row = {
        "clean": "Then, Mary and Paul went to the store. Paul gave a ring to",
        "corrupt": "Then, Lisa and Mark went to the store. Sean gave a ring to",
        "answer": [" Mary", "Mary"],
        "wrong": " Paul",
    }
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row))
    answers = load_task(path, decoder).prompts.answers
    assert answers is not None
    assert answers.shape == (1, 1)
    path.write_text(json.dumps({**row, "wrong": [" Paul", " Mary"]}))
    with pytest.raises(EdgewiseError, match="line 1: the same token is both"):
        load_task(path, decoder)
