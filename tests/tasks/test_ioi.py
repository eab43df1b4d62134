"""IOI prompts: those of the ACDC paper's code word for word, on GPT-2's tokens token for token."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from models_with_tokenizers import gpt2_with_random_weights, shared

from edgewise.errors import EdgewiseError
from edgewise.models import load_model
from edgewise.tasks import load_task
from edgewise.tasks.ioi import build_ioi, ioi_pairs
from edgewise.tasks.word_lists import IOI_NAMES, IOI_OBJECTS, IOI_PLACES


@cache
def paper_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in shared("paper/prompts/ioi.jsonl").read_text().splitlines()]


# --- the words --------------------------------------------------------------------------------------------------------


def test_the_prompts_are_the_papers_row_for_row() -> None:
    pairs = ioi_pairs(200)
    assert len(pairs) == len(paper_rows()) == 200
    for (clean, corrupt), row in zip(pairs, paper_rows(), strict=True):
        assert clean.text == row["clean"]
        assert corrupt.text == row["corrupt"]
        assert f" {clean.indirect_object}" == row["answer"]
        assert f" {clean.subject}" == row["wrong"]


def test_the_first_prompt_is_about_mary_and_jeffrey() -> None:
    clean, corrupt = ioi_pairs(1)[0]
    assert clean.text == "Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to"
    assert corrupt.text == "Then, Melissa and Nicole went to the restaurant. Anthony gave a bone to"
    assert (clean.indirect_object, clean.subject) == ("Mary", "Jeffrey")


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_asking_for_more_prompts_leaves_the_first_ones_as_they_are(seed: int) -> None:
    many = ioi_pairs(60, seed)
    assert ioi_pairs(7, seed) == many[:7]
    assert ioi_pairs(1, seed) == many[:1]


def test_another_seed_draws_other_prompts_and_the_same_seed_the_same() -> None:
    drawn = [tuple(clean.text for clean, _ in ioi_pairs(20, seed)) for seed in range(6)]
    assert len(set(drawn)) == 6
    assert ioi_pairs(20, 3) == ioi_pairs(20, 3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_seeds_prompts_are_sentences_of_the_one_kind(seed: int) -> None:
    changed = 0
    for clean, corrupt in ioi_pairs(50, seed):
        first, second, giver, receiver = clean.mentions
        assert (first, second) == (receiver, giver) == (clean.indirect_object, clean.subject)
        assert first != second
        assert {first, second, *corrupt.mentions} <= set(IOI_NAMES)
        assert clean.place in IOI_PLACES
        assert clean.thing in IOI_OBJECTS
        assert (clean.place, clean.thing) == (corrupt.place, corrupt.thing)
        assert clean.text.startswith(f"Then, {first} and {second} went to the {clean.place}. {giver} gave a ")
        changed += set(corrupt.mentions).isdisjoint({first, second})
    assert changed > 40  # the paper's draws now and then keep a name: 10 of its 200


def test_ten_of_the_papers_prompts_keep_a_name_and_five_repeat_one() -> None:
    pairs = ioi_pairs(200)
    kept = sum(not set(corrupt.mentions[:3]).isdisjoint(clean.mentions) for clean, corrupt in pairs)
    repeated = sum(len(set(corrupt.mentions[:3])) < 3 for _, corrupt in pairs)
    assert (kept, repeated) == (10, 5)


def test_the_word_lists_are_the_papers_in_order() -> None:
    pools = json.loads(shared("paper/pools.json").read_text())["ioi"]
    assert len(IOI_NAMES) == 99
    assert list(IOI_NAMES) == pools["names"]
    assert list(IOI_PLACES) == pools["places"]
    assert list(IOI_OBJECTS) == pools["objects"]


# --- the tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "first"), [("validation", 0), ("test", 100)])
def test_gpt2s_tokens_are_those_of_the_papers_code(split: str, first: int) -> None:
    rows = paper_rows()[first : first + 100]
    task = build_ioi(gpt2_with_random_weights(), examples=100, seed=0, split=split, variant="default")  # type: ignore[arg-type]
    prompts = task.prompts
    assert prompts.clean.tolist() == [row["clean_tokens"] for row in rows]
    assert prompts.corrupt.tolist() == [row["corrupt_tokens"] for row in rows]
    assert prompts.answers is not None
    assert prompts.answers.tolist() == [[row["answer_token"]] for row in rows]
    # The wrong answer is the giver, whose name stands at token 10, with a space before it as it would be answered.
    assert prompts.wrong is not None
    assert prompts.wrong.tolist() == [[row["clean_tokens"][10]] for row in rows]
    assert [(text.clean, text.corrupt) for text in task.text] == [(row["clean"], row["corrupt"]) for row in rows]
    assert [(text.answers, text.wrong) for text in task.text] == [((row["answer"],), (row["wrong"],)) for row in rows]


def test_only_the_last_token_is_scored() -> None:
    prompts = build_ioi(gpt2_with_random_weights(), examples=3, seed=0, split="validation", variant="default").prompts
    assert prompts.scored_rows.tolist() == [0, 1, 2]
    assert prompts.scored_positions.tolist() == [14, 14, 14]
    assert prompts.mask.all()
    assert prompts.paired
    assert prompts.corrupt_positions is None


def test_the_loaded_task_says_what_it_is_and_how_to_make_it_again() -> None:
    task = load_task("ioi", gpt2_with_random_weights(), examples=4, seed=2, split="test")
    assert task.settings == {"task": "ioi", "examples": 4, "seed": 2, "split": "test", "variant": "default"}
    assert task.describe() == "ioi: 4 prompt pairs of 15 tokens"
    assert [text.clean for text in task.text] == [clean.text for clean, _ in ioi_pairs(8, seed=2)[4:]]
    assert task.metric == "kl_div"
    assert {"kl_div", "logit_diff", "frac_correct", "nll", "match_nll"} <= set(task.metrics)


def test_validation_and_test_prompts_are_different_ones() -> None:
    model = gpt2_with_random_weights()
    validation, test = (load_task("ioi", model, examples=20, split=split) for split in ("validation", "test"))
    assert {text.clean for text in validation.text}.isdisjoint(text.clean for text in test.text)


# --- three other people -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distinct_prompts_always_name_three_other_people(seed: int) -> None:
    pairs = ioi_pairs(200, seed, distinct=True)
    assert [clean for clean, _ in pairs] == [clean for clean, _ in ioi_pairs(200, seed)]
    for clean, corrupt in pairs:
        first, second, giver, receiver = corrupt.mentions
        assert len({first, second, giver, *clean.mentions}) == 5
        assert first == receiver == corrupt.indirect_object
        assert (clean.place, clean.thing) == (corrupt.place, corrupt.thing)
    assert len({name for _, corrupt in pairs for name in corrupt.mentions}) > 90


def test_distinct_prompts_stay_when_more_are_asked_for_and_differ_by_seed() -> None:
    many = ioi_pairs(60, 3, distinct=True)
    assert ioi_pairs(7, 3, distinct=True) == many[:7]
    assert len({tuple(corrupt.text for _, corrupt in ioi_pairs(9, seed, distinct=True)) for seed in range(4)}) == 4


def test_the_variant_chooses_the_corrupted_prompts_and_nothing_else() -> None:
    model = gpt2_with_random_weights()
    default, paper, distinct = (
        build_ioi(model, examples=20, seed=0, split="test", variant=variant)
        for variant in ("default", "paper", "distinct")
    )
    assert torch.equal(default.prompts.corrupt, paper.prompts.corrupt)
    assert torch.equal(default.prompts.clean, distinct.prompts.clean)
    assert [text.corrupt for text in distinct.text] == [
        corrupt.text for _, corrupt in ioi_pairs(40, distinct=True)[20:]
    ]
    assert [text.corrupt for text in distinct.text] != [text.corrupt for text in paper.text]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_tokenizer_that_splits_nearly_all_names_is_refused_with_how_many_are_needed() -> None:
    model = load_model(shared("models/stories260k"), device="cpu")
    with pytest.raises(
        EdgewiseError, match=r"at least 10 names that are one token, .* only 0 of 99 names are one token"
    ):
        build_ioi(model, examples=4, seed=0, split="validation", variant="default")


def test_a_model_that_cannot_read_a_whole_prompt_is_refused() -> None:
    with pytest.raises(EdgewiseError, match=r"'Then, .* gave a .* to' has 15 tokens; model '.*' reads at most 10"):
        build_ioi(gpt2_with_random_weights(positions=10), examples=2, seed=0, split="validation", variant="default")


def test_a_model_without_a_tokenizer_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = load_model(GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=16, n_embd=8, n_layer=1, n_head=2)))
    with pytest.raises(EdgewiseError, match="has no tokenizer, and this task is made of text"):
        load_task("ioi", model, examples=2)
    with pytest.raises(EdgewiseError, match="model 'tracr-reverse' has no tokenizer"):
        load_task("ioi", load_model("tracr-reverse"), examples=2)
