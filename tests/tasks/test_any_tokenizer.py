"""The five tasks on tokenizers of other families: what they split is left out, and prompts keep their meaning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from models_with_tokenizers import gemma_like, gpt2_with_random_weights, model_of_words

from edgewise.errors import EdgewiseError
from edgewise.evaluation import abilities
from edgewise.models import Decoder
from edgewise.tasks import Reference, Task, find_metric, load_task
from edgewise.tasks.greater_than import build_greater_than
from edgewise.tasks.tokens import continuation, document_start, encode
from edgewise.tasks.word_lists import DOCSTRING_NAMES, GREATER_THAN_NOUNS, GREATER_THAN_YEARS, IOI_NAMES

FIVE = ("ioi", "greater-than", "docstring", "gender-pronoun", "induction")
SPLIT = ("Alicia", "Megan", "Mary", "overhaul", "dispute", "size", "Xavier")


def tokens(model: Decoder, ids: list[int]) -> list[str]:
    assert model.tokenizer is not None
    return model.tokenizer.convert_ids_to_tokens(ids)


def real(task: Task, row: int) -> list[int]:
    return task.prompts.clean[row][task.prompts.mask[row]].tolist()


# --- a tokenizer as Gemma's -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_a_gemma_like_tokenizer_has_every_task_behind_one_bos(name: str, dummy_prefix: bool) -> None:
    model = gemma_like(SPLIT, dummy_prefix=dummy_prefix)
    task = load_task(name, model, examples=6)
    assert len(task) == 6
    assert task.prompts.paired
    for row in range(6):
        assert [token == 2 for token in real(task, row)] == [True] + [False] * (len(real(task, row)) - 1)
    for metric in task.metrics:
        find_metric(metric, task)


def test_names_that_are_split_are_in_no_prompt_and_counted_in_one_line() -> None:
    task = load_task("ioi", gemma_like(SPLIT), examples=50)
    assert task.left_out == ("96 of 99 names are one token",)
    assert task.describe() == "ioi: 50 prompt pairs of 16 tokens (96 of 99 names are one token)"
    assert task.settings["left_out"] == ["96 of 99 names are one token"]
    said = "".join(text.clean + text.corrupt for text in task.text)
    assert not any(name in said for name in SPLIT)
    whole = load_task("ioi", gemma_like(), examples=2)
    assert whole.left_out == ()
    assert "left_out" not in whole.settings


def test_names_of_docstrings_and_nouns_that_last_are_left_out_too() -> None:
    docstring = load_task("docstring", gemma_like(SPLIT), examples=30)
    assert docstring.left_out == (f"{len(DOCSTRING_NAMES) - 1} of {len(DOCSTRING_NAMES)} names are one token",)
    assert not any(" size" in (*text.answers, *text.wrong) for text in docstring.text)
    lasting = load_task("greater-than", gemma_like(SPLIT), examples=60)
    assert lasting.left_out[0] == "118 of 120 nouns are one token"
    assert not any("overhaul" in text.clean or "dispute" in text.clean for text in lasting.text)


def test_an_answer_after_a_prompt_keeps_its_own_space_and_no_other() -> None:
    for dummy_prefix in (False, True):
        model = gemma_like(dummy_prefix=dummy_prefix)
        assert tokens(model, continuation(model, "So", " she")) == ["▁she"]
        assert tokens(model, continuation(model, "So 1", "2")) == ["2"]
    # "(" and "def" merge with nothing; what would merge is taken by itself, without the dummy prefix.
    model = gemma_like(dummy_prefix=True)
    assert tokens(model, continuation(model, "Then, Jessic", "a")) == ["a"]


def test_induction_draws_no_bytes_and_no_added_tokens() -> None:
    model = gemma_like()
    task = load_task("induction", model, examples=20)
    drawn = set(tokens(model, task.prompts.clean[:, 1:].flatten().tolist()))
    assert len(drawn) > 100
    assert not any(token.startswith("<") for token in drawn)


def test_a_gemma_gets_the_bos_that_its_tokenizer_leaves_out() -> None:
    bare = gemma_like(puts_bos=False)
    gemma = replace(bare, config=replace(bare.config, architecture="gemma2"))
    assert encode(gemma, "So") == [2, *encode(bare, "So")]
    whole = gemma_like()
    assert encode(replace(whole, config=replace(whole.config, architecture="gemma2")), "So") == encode(whole, "So")


def test_the_marker_of_a_turn_is_no_documents_beginning() -> None:
    words = ["<|im_start|>", "<|endoftext|>", "a", "b"]
    assert document_start(model_of_words(words, bos="<|im_start|>")) == 2
    assert document_start(model_of_words(words, bos="<|endoftext|>")) == 2
    assert document_start(model_of_words([words[0], "a"], bos="<|im_start|>")) is None
    assert document_start(model_of_words(words)) is None
    assert document_start(tiny.gpt2()) is None


# --- years ------------------------------------------------------------------------------------------------------------

WORDS = ["The", "lasted", "from", "the", "year", "to", *GREATER_THAN_NOUNS]
BY_ONES = model_of_words([*WORDS, *"0123456789"], pieces=r"\d|[a-zA-Z]+")
BY_THREES = model_of_words(
    [*WORDS, *"0123456789", *(f"{number:03}" for number in range(1000))], pieces=r"\d{1,3}|[a-zA-Z]+"
)


def lasting(model: Decoder, examples: int = 20) -> Task:
    return build_greater_than(model, examples=examples, seed=0, split="validation", variant="default")


@pytest.mark.parametrize("model", [BY_ONES, gemma_like()], ids=["words", "gemma"])
def test_where_digits_are_tokens_the_tens_say_whether_a_year_is_later(model: Decoder) -> None:
    task = lasting(model)
    assert task.prompts.paired
    years = [text.clean.split()[6] for text in task.text]
    assert len(set(years)) > 10
    for row, (year, text) in enumerate(zip(years, task.text, strict=True)):
        assert year in GREATER_THAN_YEARS
        assert year[3] == "9"
        assert text.clean.endswith(f"the year {year} to {year[:2]}")
        assert text.corrupt.endswith(f"the year {year[:2]}01 to {year[:2]}")
        # Whatever its last digit, a year of a later decade is later, and one of this or an earlier decade is not.
        for digit in "0123456789":
            later = {int(year[:2] + digit + unit) > int(year) for unit in "0123456789"}
            assert later == {digit in text.answers}
            assert (digit in text.answers) != (digit in text.wrong)
        assert [one.strip("▁") for one in tokens(model, real(task, row))][-2:] == list(year[:2])
        assert task.prompts.answers is not None
        answers = [token for token in task.prompts.answers[row].tolist() if token >= 0]
        assert tokens(model, answers) == list(text.answers)
    assert (
        task.left_out[-1]
        == f"{sum(year[3] == '9' for year in GREATER_THAN_YEARS)} of 604 years are decided by their next token"
    )


def test_where_three_digits_are_a_token_it_decides_over_the_millennium() -> None:
    task = lasting(BY_THREES)
    for row, text in enumerate(task.text):
        year = text.clean.split()[6]
        assert text.clean.endswith(f"the year {year} to ")
        assert tokens(BY_THREES, real(task, row))[-3:] == [year[:3], "9", "to"]
        assert text.answers == tuple(str(number) for number in range(int(year[:3]) + 1, 200))
        assert text.wrong == tuple(str(number) for number in range(100, int(year[:3]) + 1))
        corrupt = task.prompts.corrupt[row].tolist()
        assert tokens(BY_THREES, corrupt)[-3:] == [f"{year[:2]}0", "1", "to"]


def test_prob_diff_is_the_probability_of_later_years_less_that_of_others() -> None:
    task = lasting(BY_ONES, 5)
    logits = 3 * torch.randn(5, BY_ONES.config.d_vocab, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = find_metric("prob_diff", task)(logits, Reference(logits, task.prompts.answers, task.prompts.wrong))
    assert BY_ONES.tokenizer is not None
    digit = BY_ONES.tokenizer.get_vocab()
    for row, text in enumerate(task.text):
        year, share = text.clean.split()[6], logits[row].softmax(dim=-1)
        expected = 0.0
        for other in range(100):  # each year of the century, its last digit as likely as any
            probability = share[digit[str(other // 10)]].item() / 10
            expected -= probability if other > int(year[2:]) else -probability
        assert found[row].item() == pytest.approx(expected)


def test_years_that_are_split_otherwise_are_left_out() -> None:
    pairs = [f"{number:02}" for number in range(100)]
    whole = [year for year in GREATER_THAN_YEARS if year.startswith("17")]  # are one token, as some are to many
    pieces = "|".join(whole)
    model = model_of_words([*WORDS, *pairs, *whole], pieces=rf"({pieces})|\d\d|[a-zA-Z]+")
    task = lasting(model, 100)
    assert task.left_out == (f"{604 - len(whole)} of 604 years are a token of the century and one of the rest",)
    assert not any(" 17" in text.clean for text in task.text)


# --- which tasks ------------------------------------------------------------------------------------------------------


def test_a_model_is_told_what_it_can_do_and_how_often_it_is_right() -> None:
    found = {one.task: one for one in abilities(gemma_like(SPLIT), examples=4)}
    assert [name for name, one in found.items() if not one.why_not] == [
        "ioi",
        "greater-than",
        "docstring",
        "induction",
        "gender-pronoun",
    ]
    ioi = found["ioi"]
    assert (ioi.examples, ioi.places, ioi.chance) == (4, 4, 0.5)
    assert ioi.accuracy in (0, 0.25, 0.5, 0.75, 1)
    assert ioi.left_out == ("96 of 99 names are one token",)
    assert "does not run on" in found["or-gate"].why_not
    assert found["or-gate"].accuracy is None


def test_how_often_is_what_the_prompts_say() -> None:
    from edgewise.evaluation import answers_of

    model = gpt2_with_random_weights()
    (ioi, *_) = abilities(model, examples=10)
    said = answers_of(model, load_task("ioi", model, examples=10))
    assert ioi.right == sum(one.right or 0 for one in said)
    assert ioi.left_out == ()


def test_too_few_nouns_are_refused_with_how_many_are_needed() -> None:
    few = model_of_words(["The", "lasted", "from", "the", "year", "to", *GREATER_THAN_NOUNS[:4], *"0123456789"])
    with pytest.raises(
        EdgewiseError, match=r"at least 5 nouns that are one token, .* only 4 of 120 nouns are one token"
    ):
        lasting(few)


def test_no_tokenizer_of_these_splits_all_names() -> None:
    assert len({encode(gemma_like(SPLIT), f"Then, {name}")[-1] for name in IOI_NAMES}) > 90
