"""Induction: rows that repeat themselves, the places where they do, and the ACDC paper's files."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from models_with_tokenizers import model_of_words
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.tasks import Split, Task, find_metric, load_task
from edgewise.tasks.induction import build_induction, induction_mask, repeated_tokens


def build(
    model: Decoder, examples: int = 4, seed: int = 0, split: Split = "validation", variant: str = "default"
) -> Task:
    return build_induction(model, examples=examples, seed=seed, split=split, variant=variant)


def places(task: Task) -> list[tuple[int, int]]:
    return list(zip(task.prompts.scored_rows.tolist(), task.prompts.scored_positions.tolist(), strict=True))


def slow_mask(row: list[int]) -> list[bool]:
    """A twin that goes from pair to pair."""
    seen: set[tuple[int, int]] = set()
    mask = []
    for pair in itertools.pairwise(row):
        mask.append(pair in seen)
        seen.add(pair)
    return [*mask, False]


# --- where a pattern comes again --------------------------------------------------------------------------------------


def test_the_place_before_the_second_b_is_marked() -> None:
    #        the cat sat . the dog saw the cat sat the dog the
    text = [1, 2, 3, 4, 1, 5, 6, 1, 2, 3, 1, 5, 1]
    marks = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0]
    assert induction_mask(torch.tensor([text])).int().tolist() == [marks]


def test_one_token_again_and_again_is_a_pattern_from_the_second_on() -> None:
    assert induction_mask(torch.tensor([[7, 7, 7, 7]])).tolist() == [[False, True, True, False]]
    assert induction_mask(torch.tensor([[7, 8, 9, 7]])).tolist() == [[False] * 4]
    assert induction_mask(torch.tensor([[7]])).tolist() == [[False]]


@pytest.mark.parametrize("vocabulary", [2, 5, 12])
def test_marks_are_those_of_a_slow_twin(vocabulary: int) -> None:
    tokens = torch.randint(0, vocabulary, (20, 30), generator=torch.Generator().manual_seed(vocabulary))
    mask = induction_mask(tokens)
    assert mask.any()
    assert not mask.all()
    assert mask.tolist() == [slow_mask(row) for row in tokens.tolist()]


# --- rows that repeat themselves --------------------------------------------------------------------------------------


def period_of(row: list[int]) -> int:
    return next(period for period in range(1, len(row)) if row[period:] == row[:-period])


def test_rows_repeat_different_tokens_after_periods_that_differ() -> None:
    rows = repeated_tokens(60, 32, 64, torch.Generator().manual_seed(0))
    assert rows.shape == (60, 32)
    assert rows.dtype == torch.int64
    periods = [period_of(row) for row in rows.tolist()]
    assert set(periods) == set(range(8, 17))
    for row, period in zip(rows.tolist(), periods, strict=True):
        assert len(set(row)) == period
    assert set(rows.flatten().tolist()) == set(range(64))


def test_the_first_token_is_fixed_and_forbidden_ones_do_not_come() -> None:
    rows = repeated_tokens(60, 32, 24, torch.Generator().manual_seed(0), forbidden=(3, 5), first=23)
    assert rows[:, 0].tolist() == [23] * 60
    assert set(rows[:, 1:].flatten().tolist()) == set(range(23)) - {3, 5}
    assert {period_of(row) for row in rows[:, 1:].tolist()} == set(range(8, 17))


def test_drawing_more_rows_leaves_the_first_ones_as_they_are() -> None:
    few, many = (repeated_tokens(rows, 20, 40, torch.Generator().manual_seed(3)) for rows in (4, 9))
    assert torch.equal(few, many[:4])


@pytest.mark.parametrize("length", [4, 5, 7, 12])
def test_short_rows_repeat_a_part_too(length: int) -> None:
    for first in (None, 0):
        rows = repeated_tokens(20, length + (first is not None), 30, torch.Generator().manual_seed(0), (), first)
        assert induction_mask(rows).any(dim=1).all()


def test_few_tokens_make_periods_short() -> None:
    rows = repeated_tokens(40, 32, 9, torch.Generator().manual_seed(0))
    assert {period_of(row) for row in rows.tolist()} == {8, 9}
    with pytest.raises(EdgewiseError, match=r"length 32 that repeat a part need at least 8 different tokens .* are 7$"):
        repeated_tokens(1, 32, 9, torch.Generator(), forbidden=(0,), first=1)


def test_rows_that_are_too_short_are_refused() -> None:
    for length, first in ((3, None), (4, 0)):
        with pytest.raises(EdgewiseError, match=rf"prompts of length {length} are too short to repeat a part"):
            repeated_tokens(1, length, 30, torch.Generator(), first=first)


# --- the task ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "test"])
def test_scored_are_the_places_where_the_next_token_can_be_known(split: Split) -> None:
    task = build(tiny.llama(), 6, split=split)
    clean = task.prompts.clean
    assert clean.shape == (6, 32)
    assert places(task) == [
        (row, position) for row in range(6) for position, mark in enumerate(slow_mask(clean[row].tolist())) if mark
    ]
    assert task.prompts.answers is not None
    assert task.prompts.answers.tolist() == [[clean[row, position + 1].item()] for row, position in places(task)]
    assert task.prompts.wrong is None
    assert task.prompts.paired
    assert task.prompts.mask.all()
    assert task.text[0].clean == " ".join(str(token) for token in clean[0].tolist())


@pytest.mark.parametrize("examples", [2, 3, 8, 25])
def test_corrupted_prompts_are_the_same_rows_with_none_in_its_place(examples: int) -> None:
    model = tiny.gpt2()
    orders = []
    for split in ("validation", "test"):
        prompts = build(model, examples, split=split).prompts
        assert sorted(prompts.corrupt.tolist()) == sorted(prompts.clean.tolist())
        assert not (prompts.corrupt == prompts.clean).all(dim=1).any()
        orders.append([prompts.clean.tolist().index(row) for row in prompts.corrupt.tolist()])
    if examples >= 8:
        assert orders[0] != orders[1]


def test_seeds_and_splits_have_other_rows_and_more_examples_leave_the_clean_ones() -> None:
    model = tiny.gpt2()
    drawn = [
        tuple(build(model, 5, seed, split).prompts.clean.flatten().tolist())
        for seed in (-1, 0, 1, 2**70 + 7)
        for split in ("validation", "test")
    ]
    assert len(set(drawn)) == 8
    validation, test = (build(model, 5, split=split).prompts for split in ("validation", "test"))
    assert build(model, 10).prompts.clean.tolist() == [*validation.clean.tolist(), *test.clean.tolist()]
    again = build(model, 5).prompts
    assert torch.equal(again.clean, validation.clean)
    assert torch.equal(again.corrupt, validation.corrupt)


def test_special_tokens_are_not_drawn_and_bos_comes_first() -> None:
    words = ["<s>", *(f"w{index}" for index in range(20))]
    # The model has rows in its embedding beyond the tokenizer's last word.
    with_bos = build(model_of_words(words, bos="<s>", tokens=40), 20)
    assert set(with_bos.prompts.clean[:, 0].tolist()) == {1}
    assert set(with_bos.prompts.clean[:, 1:].flatten().tolist()) == set(range(2, 22))
    assert with_bos.text[0].clean.startswith("<s> w")
    without = build(model_of_words(words), 20)
    assert set(without.prompts.clean.flatten().tolist()) == set(range(1, 22))


def test_the_loaded_task_says_what_it_is_and_takes_metrics_that_need_no_wrong_answer() -> None:
    task = load_task("induction", tiny.plain(d_vocab_out=tiny.VOCABULARY), examples=4, seed=2, split="test")
    assert task.settings == {"task": "induction", "examples": 4, "seed": 2, "split": "test", "variant": "default"}
    assert task.describe() == "induction: 4 prompt pairs of 32 tokens"
    for metric in task.metrics:
        assert find_metric(metric, task).name == metric
    with pytest.raises(EdgewiseError, match="'logit_diff' means nothing on task 'induction'"):
        find_metric("logit_diff", task)


def test_a_model_that_reads_little_gets_shorter_rows() -> None:
    model = model_of_words([f"w{index}" for index in range(20)], positions=10)
    assert build(model).prompts.clean.shape == (4, 10)
    with pytest.raises(EdgewiseError, match=r"cannot run on '.*': prompts of length 3 are too short"):
        build(model_of_words(["a", "b", "c", "d"], positions=3))


def test_one_example_is_refused() -> None:
    with pytest.raises(EdgewiseError, match="so it needs at least 2 examples"):
        build(tiny.gpt2(), 1)


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(EdgewiseError, match="asks for the next token, and 'PlainTransformer' has seen it"):
        build(tiny.plain(causal=False))


def test_a_model_whose_outputs_are_other_things_than_its_tokens_is_refused():
    with pytest.raises(EdgewiseError, match="the 37 outputs of 'PlainTransformer' are not its 40 tokens"):
        build(tiny.plain())


def test_a_tokenizer_whose_bos_the_model_lacks_is_refused() -> None:
    words = [*(f"w{index}" for index in range(20)), "<s>"]
    with pytest.raises(EdgewiseError, match=r"has the token id 21, but model '.*' has only 18 tokens"):
        build(model_of_words(words, bos="<s>", tokens=18))


# --- the paper's data -------------------------------------------------------------------------------------------------


def reader(folder: Path, tokens: int = 50, positions: int = 300) -> Decoder:
    """A model that is called what the folder is called."""
    return replace(model_of_words(["a"], tokens=tokens, positions=positions), name=str(folder), tokenizer=None)


def text_files(folder: Path, rows: int = 10, length: int = 310) -> tuple[Tensor, Tensor]:
    """Random text of 50 tokens and its mask, as the paper's two files."""
    tokens = torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(rows, length, generator=torch.Generator().manual_seed(1)) < 0.1
    save(folder, tokens, mask)
    return tokens, mask


def save(folder: Path, tokens: object, mask: object) -> None:
    torch.save(tokens, folder / "validation_data.pt")
    torch.save(mask, folder / "mask_repeat_candidates.pkl")


@pytest.mark.parametrize(("split", "first"), [("validation", 0), ("test", 5)])
def test_the_papers_rows_are_those_of_the_files(tmp_path: Path, split: Split, first: int) -> None:
    tokens, mask = text_files(tmp_path)
    task = load_task("induction", reader(tmp_path), examples=5, split=split, variant="paper")
    rows = tokens[first : first + 5]
    assert torch.equal(task.prompts.clean, rows[:, :300])
    assert places(task) == [
        (row, position) for row in range(5) for position in range(300) if mask[first + row, position]
    ]
    assert task.prompts.answers is not None
    assert task.prompts.answers.tolist() == [[rows[row, position + 1].item()] for row, position in places(task)]
    torch.random.manual_seed(42)
    assert torch.equal(task.prompts.corrupt, rows[:, :300][torch.randperm(5)])


def test_another_seed_takes_other_rows_of_the_papers_with_their_own_marks(tmp_path: Path) -> None:
    tokens, mask = text_files(tmp_path)
    task = build(reader(tmp_path), 4, seed=1, variant="paper")
    test = build(reader(tmp_path), 4, seed=1, split="test", variant="paper")
    numbers = [tokens[:, :300].tolist().index(row) for row in task.prompts.clean.tolist()]
    assert numbers != [0, 1, 2, 3]
    assert len({*numbers, *(tokens[:, :300].tolist().index(row) for row in test.prompts.clean.tolist())}) == 8
    assert places(task) == [
        (row, position) for row, number in enumerate(numbers) for position in range(300) if mask[number, position]
    ]


def test_files_that_are_not_in_the_models_folder_come_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, _ = text_files(tmp_path)
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    task = build(reader(Path("some-model")), 3, variant="paper")
    assert torch.equal(task.prompts.clean, tokens[:3, :300])
    assert asked == [
        ("ArthurConmy/redwood_attn_2l", "validation_data.pt"),
        ("ArthurConmy/redwood_attn_2l", "mask_repeat_candidates.pkl"),
    ]


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(**_: str) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(EdgewiseError, match=r"needs validation_data\.pt of the hub repository .*: no network$"):
        build(reader(Path("some-model")), 3, variant="paper")


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    text_files(tmp_path)
    (tmp_path / "mask_repeat_candidates.pkl").write_bytes(pickle.dumps(_Code(), protocol=2))
    with pytest.raises(EdgewiseError, match=r"mask_repeat_candidates\.pkl is no file of tensors alone"):
        build(reader(tmp_path), 3, variant="paper")


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    text_files(tmp_path)
    whole = (tmp_path / "validation_data.pt").read_bytes()
    (tmp_path / "validation_data.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EdgewiseError, match=r"validation_data\.pt cannot be read: "):
        build(reader(tmp_path), 3, variant="paper")


TOKENS, MASK = torch.zeros(8, 310, dtype=torch.long), torch.ones(8, 310, dtype=torch.bool)


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ({"tokens": TOKENS}, MASK, r"validation_data\.pt should hold a tensor, not a dict"),
        (TOKENS, [1, 2], r"mask_repeat_candidates\.pkl should hold a tensor, not a list"),
        (TOKENS.float(), MASK, r"validation_data\.pt should hold token ids, not float32"),
        (MASK, MASK, r"validation_data\.pt should hold token ids, not bool"),
        (TOKENS, TOKENS, r"mask_repeat_candidates\.pkl should hold True and False, not int64"),
        (TOKENS, MASK[:7], r"both hold rows of more than 300 tokens, .* shapes \[8, 310\] and \[7, 310\]"),
        (TOKENS[:, :300], MASK[:, :300], r"more than 300 tokens, and have the shapes \[8, 300\] and \[8, 300\]"),
        (TOKENS[0], MASK[0], r"shapes \[310\] and \[310\]"),
        (TOKENS[:7], MASK[:7], r"has 7 rows; 4 examples for validation and as many for test need 8"),
        (TOKENS + 50, MASK, r"has the token id 50, but model '.*' has only 50 tokens: the data is made for Arthur"),
        (TOKENS - 1, MASK, r"has the token id -1, which cannot be one"),
        (TOKENS, ~MASK, r"marks no place in the validation rows"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, tokens: object, mask: object, message: str) -> None:
    save(tmp_path, tokens, mask)
    with pytest.raises(EdgewiseError, match=message):
        build(reader(tmp_path), 4, variant="paper")


def test_a_model_that_cannot_read_the_papers_rows_is_refused(tmp_path: Path) -> None:
    text_files(tmp_path)
    with pytest.raises(
        EdgewiseError, match=r"a row of validation_data\.pt has 300 tokens; model '.*' reads at most 299"
    ):
        build(reader(tmp_path, positions=299), 4, variant="paper")


# --- one pattern in a row ---------------------------------------------------------------------------------------------


def test_one_token_comes_again_and_its_places_are_spans() -> None:
    task = build(tiny.gpt2(), variant="once", examples=6)
    clean, corrupt, spans = task.prompts.clean, task.prompts.corrupt, task.prompts.spans
    length = clean.shape[1]
    assert task.span_names[-1] == "END"
    assert set(task.span_names) == {"A", "B", "END", "rest"}
    assert spans is not None
    assert places(task) == [(row, length - 1) for row in range(6)]
    where = {name: (spans == number).nonzero()[:, 1].tolist() for number, name in enumerate(task.span_names)}
    assert where["END"] == [length - 1] * 6
    assert where["B"] == [place + 1 for place in where["A"]]
    assert len(set(where["A"])) > 1, "looking back by a fixed number of places does not help"
    for row in range(6):
        tokens = clean[row].tolist()
        assert tokens.index(tokens[-1]) == where["A"][row]
        assert len(set(tokens)) == length - 1
        assert len(set(corrupt[row].tolist()) | set(tokens)) == 2 * length - 1, "no token of its own, and none twice"
        assert task.prompts.answers is not None
        assert task.prompts.answers[row].tolist() == [tokens[where["B"][row]]]


def test_once_has_other_rows_for_test_and_the_same_for_a_seed() -> None:
    model = tiny.gpt2()
    one, again, other = (build(model, variant="once", seed=3, split=split) for split in ("validation",) * 2 + ("test",))
    assert torch.equal(one.prompts.clean, again.prompts.clean)
    assert not torch.equal(one.prompts.clean, other.prompts.clean)
    more = build(model, variant="once", seed=3, examples=2)
    assert torch.equal(more.prompts.clean, one.prompts.clean[:2])


def test_once_needs_tokens_enough_for_two_rows() -> None:
    model = model_of_words(["a", "b", "c", "d", "e", "f", "g"])
    with pytest.raises(EdgewiseError, match=r"cannot run on .* need \d+ different tokens to draw from, and there are"):
        build(model, variant="once")
