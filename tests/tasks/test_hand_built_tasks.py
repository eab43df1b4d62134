"""The tasks of the hand-built models: which prompts they have, what is scored, and what their corrupted prompts are."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder, load_model
from edgewise.tasks import Task, find_metric, load_task

SEEDS = range(8)
# Token ids that tracr's compiled models have (FACTS 4.5, 4.6).
REVERSE_BOS = 3
BOS, PAD, LETTERS = 0, 1, {2, 3, 4, 5}


@cache
def model(name: str) -> Decoder:
    return load_model(name, device="cpu")


def reverse(**options: Any) -> Task:
    return load_task("tracr-reverse", model("tracr-reverse"), **options)


def xproportion(variant: str = "default", **options: Any) -> Task:
    name = "tracr-xproportion" if variant == "default" else "tracr-xproportion-compiled"
    return load_task("tracr-xproportion", model(name), variant=variant, **options)


def rows_of(tokens: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in tokens.tolist()]


def scored_places(task: Task) -> list[tuple[int, int]]:
    return list(zip(task.prompts.scored_rows.tolist(), task.prompts.scored_positions.tolist(), strict=True))


def same_prompts(first: Task, second: Task) -> bool:
    return torch.equal(first.prompts.clean, second.prompts.clean) and torch.equal(
        first.prompts.corrupt, second.prompts.corrupt
    )


def assert_positions_are_permuted(task: Task) -> None:
    positions = task.prompts.corrupt_positions
    assert positions is not None
    width = task.prompts.clean.shape[1]
    assert positions.shape == (1, width)
    assert sorted(positions[0].tolist()) == list(range(width))
    assert positions[0].tolist() != list(range(width))


# --- reversal ---------------------------------------------------------------------------------------------------------


def test_reverse_has_the_six_orders_of_three_letters_after_bos() -> None:
    assert sorted(rows_of(reverse().prompts.clean)) == sorted(
        (REVERSE_BOS, *order) for order in itertools.permutations((0, 1, 2))
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_reverse_pairs_every_prompt_with_another(seed: int) -> None:
    clean, corrupt = (
        rows_of(tokens) for tokens in (reverse(seed=seed).prompts.clean, reverse(seed=seed).prompts.corrupt)
    )
    assert sorted(corrupt) == sorted(clean)
    assert all(one != other for one, other in zip(clean, corrupt, strict=True))


def test_reverses_pairing_depends_on_the_seed_and_on_nothing_else() -> None:
    assert same_prompts(reverse(seed=3), reverse(seed=3))
    assert len({tuple(rows_of(reverse(seed=seed).prompts.corrupt)) for seed in SEEDS}) > 1
    assert same_prompts(reverse(split="validation"), reverse(split="test"))


def test_reverse_is_scored_at_the_letters() -> None:
    task = reverse()
    assert scored_places(task) == [(row, position) for row in range(6) for position in (1, 2, 3)]
    assert task.outputs is None
    assert task.prompts.mask.all()


def test_reverse_permutes_positions_unless_it_is_the_published_variant() -> None:
    assert_positions_are_permuted(reverse())
    published = reverse(variant="published")
    assert published.prompts.corrupt_positions is None
    assert same_prompts(published, reverse())


def test_fewer_orders_are_still_paired_with_others_among_them() -> None:
    prompts = reverse(examples=3).prompts
    clean, corrupt = rows_of(prompts.clean), rows_of(prompts.corrupt)
    assert clean == rows_of(reverse().prompts.clean)[:3]
    assert sorted(clean) == sorted(corrupt)
    assert all(one != other for one, other in zip(clean, corrupt, strict=True))


def test_prompts_are_shown_as_their_tokens() -> None:
    text = reverse().text
    assert text[0].clean == "BOS 1 2 3"
    assert {len(one.corrupt.split()) for one in text} == {4}
    padded = [one.clean.split() for one in xproportion().text]
    assert {tuple(words[:1]) for words in padded} == {("BOS",)}
    assert {word for words in padded for word in words} == {"BOS", "pad", "w", "x", "y", "z"}


# --- share of x -------------------------------------------------------------------------------------------------------


def letters_of(row: tuple[int, ...]) -> int:
    return sum(token in LETTERS for token in row)


@pytest.mark.parametrize("seed", SEEDS)
def test_xproportion_has_bos_then_one_to_four_letters_then_pads(seed: int) -> None:
    clean = rows_of(xproportion(seed=seed).prompts.clean)
    assert len(clean) == 50
    for row in clean:
        letters = letters_of(row)
        assert row[0] == BOS
        assert set(row[1 : 1 + letters]) <= LETTERS
        assert row[1 + letters :] == (PAD,) * (4 - letters)
    assert {letters_of(row) for row in clean} == {1, 2, 3, 4}


def test_xproportion_is_scored_at_the_letters_in_the_one_output_that_means_something() -> None:
    task = xproportion()
    expected = [
        (index, position)
        for index, row in enumerate(rows_of(task.prompts.clean))
        for position in range(1, 1 + letters_of(row))
    ]
    assert scored_places(task) == expected
    assert 50 < len(expected) < 200
    assert task.outputs == (0,)
    assert task.prompts.mask.all()  # the model sees pads, as tracr's do


@pytest.mark.parametrize("seed", SEEDS)
def test_xproportion_pairs_every_prompt_with_that_of_another_row(seed: int) -> None:
    prompts = xproportion(seed=seed).prompts
    clean, corrupt = rows_of(prompts.clean), rows_of(prompts.corrupt)
    assert sorted(clean) == sorted(corrupt)
    once = {row for row, count in Counter(clean).items() if count == 1}
    assert len(once) > 10
    assert all(one != other for one, other in zip(clean, corrupt, strict=True) if one in once)


@pytest.mark.parametrize("variant", ["paper", "published"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_papers_xproportion_has_strings_of_the_first_four_ids_with_no_thought_for_bos(
    variant: str, seed: int
) -> None:
    splits = [xproportion(variant, seed=seed, split=split) for split in ("validation", "test")]
    clean = [row for task in splits for row in rows_of(task.prompts.clean)]
    assert len(clean) == len(set(clean)) == 100  # drawn without replacement, validation and test together
    assert {len(row) for row in clean} == {4}
    assert {token for row in clean for token in row} == {0, 1, 2, 3}
    assert {row[0] for row in clean} == {0, 1, 2, 3}
    for task in splits:
        assert sorted(rows_of(task.prompts.corrupt)) == sorted(rows_of(task.prompts.clean))
        assert not torch.equal(task.prompts.corrupt, task.prompts.clean)
        assert scored_places(task) == [(row, position) for row in range(50) for position in (1, 2, 3)]
        assert task.outputs == (0,)


def test_the_papers_permutation_may_leave_a_row_in_its_place() -> None:
    kept = [
        sum(one == other for one, other in zip(rows_of(prompts.clean), rows_of(prompts.corrupt), strict=True))
        for prompts in (xproportion("paper", seed=seed).prompts for seed in SEEDS)
    ]
    assert sum(kept) > 0  # one row in fifty on average, at each of 8 seeds
    assert max(kept) < 10


def test_xproportion_permutes_positions_unless_it_is_the_published_variant() -> None:
    assert_positions_are_permuted(xproportion())
    assert_positions_are_permuted(xproportion("paper"))
    assert xproportion("published").prompts.corrupt_positions is None
    assert same_prompts(xproportion("published"), xproportion("paper"))


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_xproportions_prompts_depend_on_the_seed_and_on_nothing_else(variant: str) -> None:
    assert same_prompts(xproportion(variant, seed=3), xproportion(variant, seed=3))
    assert not same_prompts(xproportion(variant, seed=3), xproportion(variant, seed=4))
    assert not same_prompts(xproportion(variant, split="validation"), xproportion(variant, split="test"))


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_all_128_examples_can_be_had(variant: str) -> None:
    assert len(xproportion(variant, examples=128, split="test")) == 128


# --- OR gate ----------------------------------------------------------------------------------------------------------


def test_the_or_gate_has_one_prompt_of_one_token() -> None:
    task = load_task("or-gate", model("or-gate"))
    assert task.prompts.clean.tolist() == task.prompts.corrupt.tolist() == [[0]]
    assert scored_places(task) == [(0, 0)]
    assert task.prompts.corrupt_positions is None
    assert not task.split_embedding
    assert task.text[0].clean == "go"


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tracr-reverse", "tracr-xproportion", "or-gate"])
def test_hand_built_tasks_are_judged_by_squared_error_and_searched_with_zeros(name: str) -> None:
    task = load_task(name, model(name))
    assert (task.name, task.metric, task.metrics, task.ablation) == (name, "l2", ("l2",), "zero")
    assert task.split_embedding == name.startswith("tracr")
    with pytest.raises(EdgewiseError, match=f"metric 'kl_div' means nothing on task '{name}'"):
        find_metric("kl_div", task)


def test_the_settings_say_how_to_make_the_task_again() -> None:
    settings = {"task": "tracr-xproportion", "examples": 9, "seed": 4, "split": "test", "variant": "paper"}
    assert xproportion("paper", examples=9, seed=4, split="test").settings == settings


@pytest.mark.parametrize(
    ("task", "on", "message"),
    [
        ("tracr-reverse", "or-gate", "needs a model with the 5 tokens 1, 2, 3, BOS, pad; 'or-gate' has 1"),
        ("tracr-xproportion", "tracr-reverse", "the 6 tokens BOS, pad, w, x, y, z; 'tracr-reverse' has 5"),
        ("or-gate", "tracr-reverse", "the 1 tokens? go; 'tracr-reverse' has 5"),
    ],
)
def test_another_tasks_model_is_refused_with_the_tokens_that_are_needed(task: str, on: str, message: str) -> None:
    with pytest.raises(EdgewiseError, match=message):
        load_task(task, model(on))


def test_a_language_model_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=5, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    with pytest.raises(
        EdgewiseError, match="made of the tokens of its own model and does not run on 'GPT2LMHeadModel'"
    ):
        load_task("tracr-reverse", load_model(GPT2LMHeadModel(config)))


def test_more_examples_than_there_are_is_an_error() -> None:
    with pytest.raises(EdgewiseError, match="task 'tracr-reverse' has 6 examples at most, not 7"):
        reverse(examples=7)
    with pytest.raises(EdgewiseError, match="128 examples at most, not 129"):
        xproportion(examples=129)


def test_an_unknown_variant_is_refused_with_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(EdgewiseError, match=r"'publishd'; did you mean 'published'.*known: default, published"):
        reverse(variant="publishd")
