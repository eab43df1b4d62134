"""Greater-than prompts: those of the ACDC paper's code word for word, on GPT-2's tokens token for token."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from models_with_tokenizers import gpt2_with_random_weights, model_of_words, shared

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.tasks import TASKS, Reference, Split, Task, find_metric, load_task
from edgewise.tasks.greater_than import build_greater_than, greater_than_prompts
from edgewise.tasks.word_lists import GREATER_THAN_NOUNS, GREATER_THAN_YEARS

WORDS = ["The", "lasted", "from", "the", "year", "to", *GREATER_THAN_NOUNS]
PAIRS = [f"{number:02}" for number in range(100)]
BY_TWO = r"\d\d|[a-zA-Z]+"


@cache
def paper_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in shared("paper/prompts/greater-than.jsonl").read_text().splitlines()]


def build(model: Decoder, examples: int = 4, seed: int = 0, split: Split = "validation") -> Task:
    return build_greater_than(model, examples=examples, seed=seed, split=split, variant="default")


# --- the words --------------------------------------------------------------------------------------------------------


def test_the_prompts_are_the_papers_row_for_row() -> None:
    prompts = greater_than_prompts(200)
    assert len(paper_rows()) == 200
    for prompt, row in zip(prompts, paper_rows(), strict=True):
        assert (prompt.clean, prompt.corrupt, int(prompt.year)) == (row["clean"], row["corrupt"], row["year"])


def test_the_first_prompts_are_about_demonstrations_and_assaults() -> None:
    first, second, third = greater_than_prompts(3)
    assert first.clean == "The demonstrations lasted from the year 1289 to 12"
    assert first.corrupt == "The demonstrations lasted from the year 1201 to 12"
    assert (second.noun, second.century, second.year) == ("assaults", "15", "37")
    assert (third.noun, third.century, third.year) == ("affair", "12", "82")


def test_the_word_lists_are_the_papers_in_order() -> None:
    pools = json.loads(shared("paper/pools.json").read_text())["greater_than"]
    assert (len(GREATER_THAN_NOUNS), len(GREATER_THAN_YEARS)) == (120, 604)
    assert list(GREATER_THAN_NOUNS) == pools["nouns"]
    assert list(GREATER_THAN_YEARS) == [str(year) for year in pools["years"]]


@pytest.mark.parametrize("seed", [0, 5])
def test_asking_for_more_prompts_leaves_the_first_ones_as_they_are(seed: int) -> None:
    many = greater_than_prompts(450, seed)
    assert [len(greater_than_prompts(count, seed)) for count in (1, 200, 201)] == [1, 200, 201]
    for count in (1, 7, 200, 201):
        assert greater_than_prompts(count, seed) == many[:count]
    assert many[:200] != many[200:400]


def test_another_seed_draws_other_prompts_and_the_same_seed_the_same() -> None:
    drawn = {tuple(prompt.clean for prompt in greater_than_prompts(20, seed)) for seed in (-60, -1, 0, 1, 2, 2**70 + 7)}
    assert len(drawn) == 6
    assert greater_than_prompts(20, 3) == greater_than_prompts(20, 3)


# --- the tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "first"), [("validation", 0), ("test", 100)])
def test_gpt2s_tokens_are_those_of_the_papers_code(split: Split, first: int) -> None:
    rows = paper_rows()[first : first + 100]
    model = gpt2_with_random_weights()
    task = build(model, 100, split=split)
    assert task.prompts.clean.tolist() == [row["clean_tokens"] for row in rows]
    assert task.prompts.corrupt.tolist() == [row["corrupt_tokens"] for row in rows]
    assert task.prompts.scored_rows.tolist() == list(range(100))
    assert task.prompts.scored_positions.tolist() == [9] * 100
    assert [(text.clean, text.corrupt) for text in task.text] == [(row["clean"], row["corrupt"]) for row in rows]
    assert task.prompts.answers is not None
    assert task.prompts.wrong is not None
    assert model.tokenizer is not None
    for row, text, right, wrong in zip(rows, task.text, task.prompts.answers, task.prompts.wrong, strict=True):
        assert text.answers == tuple(f"{number:02}" for number in range(row["year"] + 1, 100))
        assert text.wrong == tuple(f"{number:02}" for number in range(row["year"] + 1))
        assert [token for token in right.tolist() if token != -1] == [
            model.tokenizer.encode(answer)[0] for answer in text.answers
        ]
        assert [token for token in wrong.tolist() if token != -1] == [
            model.tokenizer.encode(answer)[0] for answer in text.wrong
        ]


def test_prob_diff_is_the_papers_metric_summed_up_number_by_number() -> None:
    model = gpt2_with_random_weights()
    task = build(model, 6)
    logits = 5 * torch.randn(6, 50257, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reference = Reference(logits, task.prompts.answers, task.prompts.wrong)
    values = find_metric("prob_diff", task)(logits, reference)
    assert model.tokenizer is not None
    for row, prompt in enumerate(greater_than_prompts(6)):
        probabilities = logits[row].softmax(dim=-1)
        expected = 0.0
        for number in range(100):
            probability = probabilities[model.tokenizer.encode(f"{number:02}")[0]].item()
            expected -= probability if number > int(prompt.year) else -probability
        assert values[row].item() == pytest.approx(expected, rel=1e-9)


def test_a_tokenizer_that_cuts_digits_in_twos_has_the_same_prompts() -> None:
    task = build(model_of_words(["<s>", *WORDS, *PAIRS], pieces=BY_TWO, bos="<s>"), 100)
    assert [text.clean for text in task.text] == [prompt.clean for prompt in greater_than_prompts(100)]
    tokens = ["<unk>", "<s>", *WORDS, *PAIRS]
    first = [tokens[token] for token in task.prompts.clean[0].tolist()]
    assert first == ["The", "demonstrations", "lasted", "from", "the", "year", "12", "89", "to", "12"]
    assert (task.prompts.clean != task.prompts.corrupt).nonzero().tolist() == [[row, 7] for row in range(100)]
    assert {tokens[token] for token in task.prompts.corrupt[:, 7].tolist()} == {"01"}


def test_the_loaded_task_says_what_it_is_and_how_to_make_it_again() -> None:
    model = gpt2_with_random_weights()
    task = load_task("greater-than", model, examples=4, seed=2, split="test", variant="paper")
    assert task.settings == {"task": "greater-than", "examples": 4, "seed": 2, "split": "test", "variant": "paper"}
    assert task.describe() == "greater-than: 4 prompt pairs of 10 tokens"
    assert [text.clean for text in task.text] == [prompt.clean for prompt in greater_than_prompts(8, seed=2)[4:]]
    assert task.metric == "kl_div"
    for metric in task.metrics:
        assert find_metric(metric, task).name == metric
    assert TASKS["greater-than"].threshold_for("gpt2") == 0.01585


def test_validation_and_test_prompts_are_different_ones() -> None:
    model = gpt2_with_random_weights()
    validation, test = (build(model, 100, split=split) for split in ("validation", "test"))
    assert {text.clean for text in validation.text}.isdisjoint(text.clean for text in test.text)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_tokenizer_that_lacks_a_number_is_refused_with_what_it_makes_of_a_year() -> None:
    model = model_of_words([*WORDS, *(pair for pair in PAIRS if pair != "99")], pieces=BY_TWO)
    with pytest.raises(EdgewiseError, match=r"at least 5 of them; of 604 .* allows 0, and has \['12', '89'\] for 1289"):
        build(model)


def test_a_tokenizer_that_has_only_some_whole_years_is_refused() -> None:
    model = model_of_words([*WORDS, *PAIRS, *GREATER_THAN_YEARS], pieces=r"\d+|[a-zA-Z]+")
    with pytest.raises(
        EdgewiseError, match=r"of 604 years this model's tokenizer allows 0, and has \['1289'\] for 1289"
    ):
        build(model)


def test_a_tokenizer_that_takes_all_numbers_for_one_is_refused() -> None:
    model = gpt2_with_random_weights()

    class OneNumber:
        unk_token_id = None

        def num_special_tokens_to_add(self) -> int:
            return 0

        def __call__(self, text: str | list[str], **options: Any) -> dict[str, list[Any]]:
            if isinstance(text, list):
                return {"input_ids": [self(one)["input_ids"] for one in text]}
            inner = model.tokenizer(text)["input_ids"]
            numbers = {model.tokenizer.encode(pair)[0] for pair in PAIRS}
            return {"input_ids": [15 if token in numbers else token for token in inner]}

        def __getattr__(self, name: str) -> Any:
            return getattr(model.tokenizer, name)

    with pytest.raises(EdgewiseError, match=r"of 604 years this model's tokenizer allows 0, and has"):
        build(replace(model, tokenizer=OneNumber()))


def test_a_tokenizer_without_the_words_is_refused_with_the_sentence() -> None:
    model = model_of_words([word for word in WORDS if word != "lasted"] + PAIRS, pieces=BY_TWO)
    with pytest.raises(EdgewiseError, match="has no word for part of 'The abduction lasted from the year to'"):
        build(model)


def test_a_model_that_cannot_read_a_whole_prompt_is_refused() -> None:
    with pytest.raises(EdgewiseError, match=r"year 1289 to 12' has 10 tokens; model '.*' reads at most 9"):
        build(gpt2_with_random_weights(positions=9))
