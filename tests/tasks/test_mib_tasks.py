"""The MIB benchmark's tasks on a model's tokens: its columns, filters, splits and BOS, from files of its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mib_data
import pytest

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder, load_model
from edgewise.tasks import Dataset, mib
from edgewise.tasks.mib import MIB_TASKS, MibRows, load_mib_task, mib_task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return load_model(mib_data.save_gpt2(tmp_path_factory.mktemp("models") / "words"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mib_data.write_datasets(tmp_path_factory.mktemp("data"))


# What each task is by the benchmark's own code: the corrupted prompt, the answer, the wrong one.
BY_HAND: dict[str, Any] = {
    "ioi": lambda row: (
        row["s2_io_flip_counterfactual"]["prompt"],
        f" {row['metadata']['indirect_object']}",
        f" {row['metadata']['subject']}",
    ),
    **dict.fromkeys(
        ("mcqa", "arc_easy", "arc_challenge"),
        lambda row: (
            row["symbol_counterfactual"]["prompt"],
            row["choices"]["label"][row["answerKey"]],
            row["symbol_counterfactual"]["choices"]["label"][row["symbol_counterfactual"]["answerKey"]],
        ),
    ),
    **dict.fromkeys(
        ("arithmetic_addition", "arithmetic_subtraction"),
        lambda row: (
            row["random_counterfactual"]["prompt"],
            str(row["label"]),
            str(row["random_counterfactual"]["label"]),
        ),
    ),
}
FOLDERS = {"mcqa": "copycolors_mcqa/4_answer_choices"}


@pytest.mark.parametrize("name", MIB_TASKS)
def test_prompts_and_answers_are_those_of_the_benchmarks_columns(name: str, model: Decoder, data: Path) -> None:
    tokenizer: Any = model.tokenizer
    for split, count in mib_data.SPLITS.items():
        lines = (data / FOLDERS.get(name, name) / f"{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        task = load_mib_task(MibRows.of(mib_task(name), split, data), model)  # type: ignore[arg-type] - a split
        assert len(task) == len(rows) == count
        assert task.settings["left_out"] == {}
        assert task.prompts.answers is not None
        assert task.prompts.wrong is not None
        for at, (row, text) in enumerate(zip(rows, task.text, strict=True)):
            corrupt, answer, wrong = BY_HAND[name](row)
            assert (text.clean, text.corrupt) == (row["prompt"], corrupt)
            for prompt, tokens, mask in (
                (row["prompt"], task.prompts.clean[at], task.prompts.mask[at]),
                (corrupt, task.prompts.corrupt[at], task.prompts.corrupt_mask[at]),
            ):
                bare = tokenizer(prompt, add_special_tokens=False)["input_ids"]
                assert tokens[mask].tolist() == [tokenizer.bos_token_id, *bare], "behind a BOS, always"
            assert task.prompts.scored_positions[at] == task.prompts.mask[at].sum() - 1
            first = [tokenizer(one, add_special_tokens=False)["input_ids"][0] for one in (answer, wrong)]
            assert [task.prompts.answers[at].tolist(), task.prompts.wrong[at].tolist()] == [[one] for one in first]


def written(folder: Path, dataset: str, rows: list[dict[str, Any]], split: str = "train") -> Path:
    (folder / dataset).mkdir(parents=True, exist_ok=True)
    (folder / dataset / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def renamed(row: dict[str, Any], **names: str) -> dict[str, Any]:
    """A row of IOI with other names, in prompts too."""
    text = json.dumps(row)
    for role, name in names.items():
        text = text.replace(row["metadata"][role], name)
    return json.loads(text)


def test_rows_are_left_out_as_the_benchmark_does_and_what_cannot_be_patched(model: Decoder, tmp_path: Path) -> None:
    good = list(mib_data.ioi_rows(4, 0))
    longer = renamed(good[1], indirect_object="John Tom")
    other_third = {**good[2], "metadata": {**good[2]["metadata"], "random_c": "John Tom"}}
    strange = renamed(good[3], subject="Zebulon")
    unequal = json.loads(json.dumps(good[0]))
    unequal["s2_io_flip_counterfactual"]["prompt"] = "Then , " + unequal["s2_io_flip_counterfactual"]["prompt"]
    endless = json.loads(json.dumps(good[0]).replace("Then,", "Then," * 70))
    rows = [good[0], longer, other_third, strange, unequal, endless, good[3]]
    asked = MibRows.of(mib_task("ioi"), "train", written(tmp_path, "ioi", rows))
    task = load_mib_task(asked, model)
    assert [text.clean for text in task.text] == [good[0]["prompt"], good[3]["prompt"]]
    assert task.settings["left_out"] == {
        "with answers of different numbers of tokens": 2,
        "with words that the tokenizer does not know": 1,
        "with prompts of different numbers of tokens": 1,
        "longer than the model reads": 1,
    }
    first = load_mib_task(asked, model, examples=1)
    assert (len(first), first.settings["left_out"]) == (1, {}), "rows are looked at no further than is needed"
    sums = list(mib_data.sum_rows(4, 0, "+"))
    sums[1]["random_counterfactual"] = None
    sums[2]["operator"] = "-"
    sums[3]["label"] = "1 1"
    task = load_mib_task(
        MibRows.of(mib_task("arithmetic-addition"), "train", written(tmp_path, "arithmetic_addition", sums)), model
    )
    assert len(task) == 1
    assert set(task.settings["left_out"]) == {
        *("without a counterfactual", "of another operator", "with answers of several tokens")
    }


def test_without_a_bos_prompts_stand_behind_the_end_of_a_text(model: Decoder, data: Path) -> None:
    tokenizer: Any = model.tokenizer
    try:
        tokenizer.bos_token, tokenizer.eos_token = None, "Answer"
        task = load_mib_task(MibRows.of(mib_task("ioi"), "test", data), model)
        assert set(task.prompts.clean[:, 0].tolist()) == {tokenizer.eos_token_id}
        tokenizer.eos_token = None
        without = load_mib_task(MibRows.of(mib_task("ioi"), "test", data), model)
        assert without.prompts.clean.tolist() == task.prompts.clean[:, 1:].tolist()
    finally:
        tokenizer.bos_token = "<bos>"


def test_parquet_files_are_the_same_rows(model: Decoder, data: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = list(mib_data.choice_rows(5, 0))
    folder = tmp_path / "copycolors_mcqa" / "4_answer_choices"
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[:3], rows[3:])):
        datasets.Dataset.from_list(part).to_parquet(folder / f"train-0000{number}-of-00002.parquet")
    written(other := tmp_path / "other", "copycolors_mcqa", rows)
    found = [load_mib_task(MibRows.of(mib_task("mcqa"), "train", one), model) for one in (tmp_path, other)]
    assert found[0].settings == found[1].settings
    assert len(found[0]) == 5


def test_without_a_folder_it_is_the_hubs_dataset(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Dataset] = []

    def opened(dataset: Dataset) -> Iterator[dict[str, Any]]:
        asked.append(dataset)
        return mib_data.choice_rows(3, 0)

    monkeypatch.setattr(mib, "open_table", opened)
    assert len(load_mib_task(MibRows.of(mib_task("mcqa"), "validation", None), model, examples=2)) == 2
    assert asked == [Dataset("mib-bench/copycolors_mcqa", config="4_answer_choices", split="validation")]


def test_what_is_not_the_benchmarks_data_is_refused(model: Decoder, data: Path, tmp_path: Path) -> None:
    def refusal(name: str, split: Any = "train", folder: Path = tmp_path) -> str:
        with pytest.raises(EdgewiseError) as caught:
            load_mib_task(MibRows.of(mib_task(name), split, folder), model)
        return str(caught.value)

    assert "unknown task of the MIB benchmark 'io'; did you mean 'ioi'?" in refusal("io")
    assert "unknown split 'tests'; did you mean 'test'?" in refusal("ioi", "tests", data)
    assert f"there is no folder {str(tmp_path / 'ioi')!r} with the dataset mib-bench/ioi" in refusal("ioi")
    written(tmp_path, "ioi", [{"prompt": "Then", "s2_io_flip_counterfactual": {"prompt": "Then"}}])
    assert "has no JSONL or Parquet file of the split 'test'" in refusal("ioi", "test")
    assert f"{tmp_path / 'ioi'}, train, row 1: there is no 'metadata'" in refusal("ioi")
    written(tmp_path, "ioi", [{"prompt": "Then", "s2_io_flip_counterfactual": "Then"}])
    assert "row 1: the column 's2_io_flip_counterfactual' holds no counterfactual" in refusal("ioi")
    written(tmp_path, "ioi", [renamed(row, subject="Zebulon") for row in mib_data.ioi_rows(2, 0)])
    assert "can be used with model" in refusal("ioi")
    assert ": 2 with words that the tokenizer does not know" in refusal("ioi")
    (tmp_path / "ioi" / "train-0.parquet").touch()
    assert "has both JSONL and Parquet files of the split 'train'" in refusal("ioi")
