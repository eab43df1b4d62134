"""Pronoun prompts: a friend of either gender, and a corrupted prompt with one of the other."""

from __future__ import annotations

import pytest
from models_with_tokenizers import gpt2_with_random_weights, model_of_words, shared

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder, load_model
from edgewise.tasks import TASKS, Split, Task, find_metric, load_task
from edgewise.tasks.gender_pronoun import build_gender_pronoun, gender_pairs
from edgewise.tasks.word_lists import FEMALE_NAMES, IOI_NAMES, MALE_NAMES

TEMPLATE = "So {} is a really great friend, isn't"
FRAME = "So is a really great friend , isn ' t".split()
NAMES = (*MALE_NAMES, *FEMALE_NAMES)
EVERY_NAME = dict.fromkeys(NAMES, 1)


def build(model: Decoder, examples: int = 4, seed: int = 0, split: Split = "validation") -> Task:
    return build_gender_pronoun(model, examples=examples, seed=seed, split=split, variant="default")


# --- the names --------------------------------------------------------------------------------------------------------


def test_the_names_are_ioi_names_of_one_gender_or_the_other() -> None:
    assert len(MALE_NAMES) == len(FEMALE_NAMES) == 32
    assert len(set(NAMES)) == 64
    assert set(NAMES) < set(IOI_NAMES)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_genders_take_turns_and_no_name_comes_twice_before_all_have_come(seed: int) -> None:
    pairs = gender_pairs(EVERY_NAME, seed)
    assert len(pairs) == len(set(pairs)) == 2 * 32 * 32
    for turn, (clean, corrupt) in enumerate(pairs):
        assert clean in (FEMALE_NAMES if turn % 2 else MALE_NAMES)
        assert corrupt in (MALE_NAMES if turn % 2 else FEMALE_NAMES)
    for start in range(0, len(pairs), 64):
        assert {clean for clean, _ in pairs[start : start + 64]} == set(NAMES)


def test_names_of_a_pair_are_as_long_as_each_other() -> None:
    lengths = {"James": 1, "John": 2, "Paul": 3, "Mary": 2, "Sara": 2, "Lisa": 1}
    pairs = gender_pairs(lengths)
    assert sorted(pairs) == [
        ("James", "Lisa"),
        ("John", "Mary"),
        ("John", "Sara"),
        ("Lisa", "James"),
        ("Mary", "John"),
        ("Sara", "John"),
    ]


def test_another_seed_draws_other_pairs_and_the_same_seed_the_same() -> None:
    assert len({tuple(gender_pairs(EVERY_NAME, seed)[:10]) for seed in range(5)}) == 5
    assert gender_pairs(EVERY_NAME, 3) == gender_pairs(EVERY_NAME, 3)


# --- the tokens -------------------------------------------------------------------------------------------------------


def test_gpt2_reads_a_friend_and_answers_a_pronoun() -> None:
    model = gpt2_with_random_weights()
    assert model.tokenizer is not None
    task = build(model, 10)
    he, she = (model.tokenizer.encode(word)[0] for word in (" he", " she"))
    for row, (text, clean, corrupt) in enumerate(
        zip(task.text, task.prompts.clean.tolist(), task.prompts.corrupt.tolist(), strict=True)
    ):
        name, other = text.clean.split()[1], text.corrupt.split()[1]
        assert (text.clean, text.corrupt) == (TEMPLATE.format(name), TEMPLATE.format(other))
        assert (clean, corrupt) == (model.tokenizer.encode(text.clean), model.tokenizer.encode(text.corrupt))
        assert (name in MALE_NAMES, other in FEMALE_NAMES) == (row % 2 == 0, row % 2 == 0)
        assert (text.answers, text.wrong) == (((" he",), (" she",)) if name in MALE_NAMES else ((" she",), (" he",)))
    assert task.prompts.answers is not None
    assert task.prompts.wrong is not None
    assert task.prompts.answers.flatten().tolist() == [he, she] * 5
    assert task.prompts.wrong.flatten().tolist() == [she, he] * 5
    assert task.prompts.scored_positions.tolist() == [9] * 10


def test_names_of_several_tokens_make_pairs_of_equal_length() -> None:
    task = build(load_model(shared("models/stories260k"), device="cpu"), 12)
    assert task.prompts.paired
    assert len(set(task.prompts.mask.sum(dim=1).tolist())) > 1
    assert (task.prompts.clean != task.prompts.corrupt).any(dim=1).all()


def test_names_that_the_tokenizer_does_not_know_are_left_out() -> None:
    known = ("Paul", "Mark", "Mary", "Lisa", "Sara")
    task = build(model_of_words([*FRAME, "he", "she", *known]), 6)
    names = {text.clean.split()[1] for text in task.text} | {text.corrupt.split()[1] for text in task.text}
    assert names == set(known)
    assert task.prompts.answers is not None
    assert task.prompts.answers.flatten().tolist() == [len(FRAME) + 1, len(FRAME) + 2] * 3


def test_more_examples_leave_the_first_ones_and_test_rows_are_the_next() -> None:
    model = gpt2_with_random_weights()
    validation, test, both = build(model, 7), build(model, 7, split="test"), build(model, 14)
    assert (*validation.text, *test.text) == both.text
    assert {text.clean for text in validation.text}.isdisjoint(text.clean for text in test.text)
    assert build(model, 7, seed=1).text != validation.text


def test_the_loaded_task_says_what_it_is_and_how_to_make_it_again() -> None:
    task = load_task("gender-pronoun", gpt2_with_random_weights(), examples=4, seed=2, split="test")
    assert task.settings == {"task": "gender-pronoun", "examples": 4, "seed": 2, "split": "test", "variant": "default"}
    assert task.describe() == "gender-pronoun: 4 prompt pairs of 10 tokens"
    assert task.metric == "kl_div"
    for metric in task.metrics:
        assert find_metric(metric, task).name == metric


def test_on_gpt2_a_search_takes_the_papers_threshold_and_number_of_examples() -> None:
    spec = TASKS["gender-pronoun"]
    for name in ("gpt2", "openai-community/gpt2"):
        assert (spec.threshold_for(name), spec.examples_for(name)) == (0.05, 100)
    assert (spec.threshold_for("tiny-pronoun"), spec.examples_for("tiny-pronoun")) == (0.01, 24)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_too_few_pairs_are_refused_with_how_many_there_are() -> None:
    model = model_of_words([*FRAME, "he", "she", "Paul", "Mary", "Lisa"])
    assert len(build(model, 2)) == 2
    with pytest.raises(EdgewiseError, match=r"needs 6 pairs .* \(3 examples .* allows 4: it knows 3 of the 64 names"):
        build(model, 3)


def test_an_unknown_pronoun_is_refused() -> None:
    with pytest.raises(EdgewiseError, match=r"' she' is not one for the tokenizer of .* \(its tokens: none\)"):
        build(model_of_words([*FRAME, "he", "Paul", "Mary", "Lisa"]), 2)


def test_a_pronoun_of_two_tokens_is_refused_with_its_pieces() -> None:
    model = model_of_words([*FRAME, "s", "he", "Paul", "Mary", "Lisa"], pieces=r"s(?=he)|he|\w+|[^\w\s]")
    with pytest.raises(EdgewiseError, match=r"to be one token each, and ' she' is .*\(its tokens: \['s', 'he'\]\)"):
        build(model, 2)


def test_pronouns_that_are_one_token_are_refused() -> None:
    model = model_of_words([*FRAME, "he", "Paul", "Mary", "Lisa"])
    from tokenizers import normalizers

    assert model.tokenizer is not None
    model.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("she", "he")
    with pytest.raises(EdgewiseError, match=r"to be different tokens, and the tokenizer of .* has \['he'\] for both"):
        build(model, 2)


def test_a_tokenizer_without_the_words_is_refused_with_the_sentence() -> None:
    model = model_of_words([*(word for word in FRAME if word != "great"), "he", "she", *NAMES])
    with pytest.raises(EdgewiseError, match='has no word for part of "So is a really great friend, isn\'t"'):
        build(model)


def test_a_model_that_cannot_read_a_whole_prompt_is_refused() -> None:
    with pytest.raises(EdgewiseError, match=r"isn't\" has 10 tokens; model '.*' reads at most 9"):
        build(gpt2_with_random_weights(positions=9))
