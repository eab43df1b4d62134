"""Docstring prompts: those of the ACDC paper's code word for word."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
import torch
from models_with_tokenizers import gpt2_with_random_weights, model_of_words, shared

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder, load_model
from edgewise.tasks import TASKS, Reference, Split, Task, find_metric, load_task
from edgewise.tasks.docstring import build_docstring, docstring_prompts
from edgewise.tasks.tokens import pairs_of_one_length
from edgewise.tasks.word_lists import DOCSTRING_NAMES, DOCSTRING_NOUNS

WORDS = list(dict.fromkeys(["def", "self", "param", *'()",:', '"""', *DOCSTRING_NAMES, *DOCSTRING_NOUNS]))


@cache
def paper_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in shared("paper/prompts/docstring.jsonl").read_text().splitlines()]


def build(model: Decoder, examples: int = 4, seed: int = 0, split: Split = "validation") -> Task:
    return build_docstring(model, examples=examples, seed=seed, split=split, variant="default")


# --- the words --------------------------------------------------------------------------------------------------------


def test_the_prompts_are_the_papers_row_for_row() -> None:
    assert len(paper_rows()) == 100
    for prompt, row in zip(docstring_prompts(100), paper_rows(), strict=True):
        assert (prompt.clean, prompt.corrupt) == (row["clean"], row["corrupt"])
        assert [f" {prompt.answer}"] == row["answer"]
        assert [f" {name}" for name in prompt.wrong] == row["wrong"]


def test_the_first_prompt_is_about_the_size() -> None:
    prompt = docstring_prompts(1)[0]
    assert prompt.clean == (
        "\ndef old(self, first, files, page, names, size, read):\n"
        '    """sector gap population\n'
        "\n"
        "    :param page: message tree\n"
        "    :param names: detail mine\n"
        "    :param"
    )
    assert prompt.answer == "size"


def test_the_word_lists_are_the_papers_in_order() -> None:
    pools = json.loads(shared("paper/pools.json").read_text())["docstring"]
    assert (len(DOCSTRING_NAMES), len(DOCSTRING_NOUNS)) == (111, 687)
    assert list(DOCSTRING_NAMES) == pools["variable_names"]
    assert list(DOCSTRING_NOUNS) == pools["nouns"]


@pytest.mark.parametrize("seed", [0, 3])
def test_asking_for_more_prompts_leaves_the_first_ones_as_they_are(seed: int) -> None:
    many = docstring_prompts(30, seed)
    assert docstring_prompts(7, seed) == many[:7]
    assert docstring_prompts(1, seed) == many[:1]


def test_no_seed_draws_a_prompt_of_another() -> None:
    drawn = [prompt.clean for seed in range(5) for prompt in docstring_prompts(40, seed)]
    assert len(set(drawn)) == 200
    assert docstring_prompts(5, 3) == docstring_prompts(5, 3)


@pytest.mark.parametrize("seed", [1, 2])
def test_any_seeds_prompts_define_other_arguments_than_they_corrupt_with(seed: int) -> None:
    for prompt in docstring_prompts(30, seed):
        parts = []
        for text in (prompt.clean, prompt.corrupt):
            found = re.search(r"def (\w+)\(self, (.*)\):", text)
            assert found is not None
            parts.append((found[1], found[2].split(", "), re.findall(r":param (\w+): (.*)", text)))
        (function, defined, described), (other_function, other_defined, other_described) = parts
        assert function == other_function
        assert defined[:2] + defined[5:] == other_defined[:2] + other_defined[5:]
        assert [name for name, _ in described] == defined[2:4]
        assert defined[4] == prompt.answer
        assert [nouns for _, nouns in described] == [nouns for _, nouns in other_described]
        fresh = [*other_defined[2:5], *(name for name, _ in other_described)]
        assert len({function, *defined, *fresh}) == 12
        assert len(set(prompt.wrong)) == 13
        assert {*defined, *fresh} - {prompt.answer} < set(prompt.wrong)
        assert prompt.answer not in prompt.wrong
        assert function not in prompt.wrong


# --- the tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "first"), [("validation", 0), ("test", 50)])
def test_tokens_are_bos_and_those_of_the_text(split: Split, first: int) -> None:
    rows = paper_rows()[first : first + 50]
    model = gpt2_with_random_weights(positions=64)
    task = build(model, 50, split=split)
    prompts = task.prompts
    assert model.tokenizer is not None
    assert prompts.answers is not None
    assert prompts.wrong is not None
    encode = model.tokenizer.encode
    for index, row in enumerate(rows):
        ids = [50256, *encode(row["clean"])]
        assert prompts.clean[index][prompts.mask[index]].tolist() == ids
        assert prompts.corrupt[index][prompts.corrupt_mask[index]].tolist() == [50256, *encode(row["corrupt"])]
        assert prompts.scored_positions[index].item() == len(ids) - 1
        assert [prompts.answers[index].tolist()] == [encode(answer) for answer in row["answer"]]
        assert [[token] for token in prompts.wrong[index].tolist()] == [encode(wrong) for wrong in row["wrong"]]
        text = task.text[index]
        assert (text.clean, text.corrupt) == (row["clean"], row["corrupt"])
        assert (list(text.answers), list(text.wrong)) == (row["answer"], row["wrong"])
    assert prompts.paired
    assert prompts.scored_rows.tolist() == list(range(50))


def test_a_bos_that_the_tokenizer_puts_there_itself_is_not_doubled() -> None:
    from tokenizers.processors import TemplateProcessing

    for puts_bos in (False, True):
        model = model_of_words(["<s>", *WORDS], bos="<s>")
        assert model.tokenizer is not None
        if puts_bos:
            processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
            model.tokenizer.backend_tokenizer.post_processor = processor
            assert model.tokenizer("def")["input_ids"][0] == 1
        assert build(model).prompts.clean[:, :2].tolist() == [[1, 2]] * 4  # "<s>", "def"


def test_a_tokenizer_without_bos_begins_with_the_text() -> None:
    functions = [prompt.clean.split("(")[0].removeprefix("\ndef ") for prompt in docstring_prompts(4)]
    ids = {word: index for index, word in enumerate(["<unk>", *WORDS])}
    assert build(model_of_words(WORDS)).prompts.clean[:, :2].tolist() == [[1, ids[name]] for name in functions]


def test_logit_diff_max_is_against_the_best_of_the_thirteen_wrong_names() -> None:
    task = build(gpt2_with_random_weights(positions=64), 5)
    prompts = task.prompts
    logits = torch.randn(5, 50257, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = Reference(logits, prompts.answers, prompts.wrong)
    difference = find_metric("logit_diff_max", task)(logits, reference)
    share = find_metric("frac_correct", task)(logits, reference)
    assert prompts.answers is not None
    assert prompts.wrong is not None
    for row in range(5):
        best = max(logits[row, token].item() for token in prompts.wrong[row].tolist())
        expected = best - logits[row, prompts.answers[row, 0]].item()
        assert difference[row].item() == pytest.approx(expected)
        assert share[row].item() == -float(expected < 0)


def test_the_loaded_task_says_what_it_is_and_how_to_make_it_again() -> None:
    task = load_task("docstring", model_of_words(WORDS), examples=4, seed=2, split="test", variant="paper")
    assert task.settings == {"task": "docstring", "examples": 4, "seed": 2, "split": "test", "variant": "paper"}
    assert [text.clean for text in task.text] == [prompt.clean for prompt in docstring_prompts(8, seed=2)[4:]]
    assert task.metric == "kl_div"
    for metric in task.metrics:
        assert find_metric(metric, task).name == metric
    assert TASKS["docstring"].threshold_for("attn-only-4l") == 0.095


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_tokenizer_that_splits_nearly_all_names_is_refused_with_how_many_are_needed() -> None:
    model = load_model(shared("models/stories260k"), device="cpu")
    with pytest.raises(EdgewiseError, match=r"at least 15 names that are one token, .* only \d+ of 111 names are"):
        build(model)


def test_a_name_that_the_tokenizer_does_not_know_is_left_out() -> None:
    unknown = docstring_prompts(2)[1].wrong[0]  # it stands in no prompt, and counts all the same
    assert f" {unknown}," not in "".join(prompt.clean + prompt.corrupt for prompt in docstring_prompts(8))
    model = model_of_words([word for word in WORDS if word != unknown])
    task = build(model)
    assert task.left_out == ("110 of 111 names are one token",)
    assert not any(f" {unknown}" in (*text.answers, *text.wrong) for text in task.text)


def test_pairs_of_two_lengths_are_passed_over() -> None:
    words = [*WORDS, "page:"]  # one token in "param page:", two in "page,"
    task = build(model_of_words(words, pieces=r"page:|\w+|[^\w\s]"))
    assert task.prompts.paired
    drawn = docstring_prompts(9)
    assert "param page:" in drawn[0].clean
    assert [text.clean for text in task.text] == [prompt.clean for prompt in drawn[1:5]]


def test_a_tokenizer_to_which_hardly_any_pair_has_one_length_is_refused() -> None:
    model = model_of_words(["a", "b"])

    def pairs(count: int) -> list[tuple[str, str]]:
        return [("a b", "a b" if row % 40 == 8 else "a") for row in range(count)]

    assert pairs_of_one_length(model, pairs, 1, "docstring")[0] == [8]
    with pytest.raises(
        EdgewiseError, match=r"of tokens, and for .* only 1 of 32 pairs do: it makes 2 and 1 of 'a b' and"
    ):
        pairs_of_one_length(model, pairs, 2, "docstring")


def test_a_tokenizer_without_the_words_is_refused_with_the_prompt() -> None:
    model = model_of_words([word for word in WORDS if word != "def"])
    with pytest.raises(EdgewiseError, match=r"has no word for part of '.ndef old\(self, first"):
        build(model)


def test_a_model_that_cannot_read_a_whole_prompt_is_refused() -> None:
    with pytest.raises(EdgewiseError, match=r"has \d\d tokens; model '.*' reads at most 12"):
        build(model_of_words(WORDS, positions=12))
