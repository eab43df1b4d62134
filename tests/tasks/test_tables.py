"""Prompts from datasets: Parquet, CSV and JSON files, and folders in a dataset's layout, by the names of columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_jsonl_tasks import ids, model

from edgewise.errors import EdgewiseError
from edgewise.tasks import Dataset, load_task
from edgewise.tasks.tables import read_dataset

datasets = pytest.importorskip("datasets")

# As the MIB benchmark's columns are.
MIB: list[dict[str, Any]] = [
    {
        "prompt": "the girl named Lily .",
        "choices": ["He", "She", "home"],
        "answerKey": 1,
        "names_counterfactual": {"prompt": "the boy named Lily .", "answerKey": 0},
    },
    {
        "prompt": "the boy named Tom .",
        "choices": ["She", "home", "He"],
        "answerKey": 2,
        "names_counterfactual": {"prompt": "the girl named Tom .", "answerKey": 0},
    },
]
COLUMNS = {"clean": "prompt", "corrupt": "names_counterfactual.prompt", "answer": " {choices[answerKey]}"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = datasets.Dataset.from_list(rows)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".csv":
        table.to_csv(path)
    elif path.suffix == ".tsv":
        table.to_csv(path, sep="\t")
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def refusal(path: Path | str, **columns: Any) -> str:
    with pytest.raises(EdgewiseError) as caught:
        read_dataset(Dataset(str(path), **columns))
    return str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_columns_and_what_is_in_them_make_rows(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"ioi.{kind}", MIB)
    task = load_task(Dataset(str(path), **COLUMNS, wrong=" {choices[!answerKey]}"), model())
    assert [text.clean for text in task.text] == ["the girl named Lily .", "the boy named Tom ."]
    assert [text.corrupt for text in task.text] == ["the boy named Lily .", "the girl named Tom ."]
    assert [text.answers for text in task.text] == [(" She",), (" He",)]
    assert [text.wrong for text in task.text] == [(" He", " home"), (" She", " home")]
    assert task.prompts.answers is not None
    assert task.prompts.answers.flatten().tolist() == ids("She He")
    assert task.name == "ioi"
    assert task.settings["task"] == str(path)
    assert task.settings["dataset"] == {"dataset": str(path), **COLUMNS, "wrong": " {choices[!answerKey]}"}
    assert not [*(tmp_path / "cache").rglob("*.arrow")]  # a file is read where it is


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_with_the_names_of_a_jsonl_file_needs_no_columns(tmp_path: Path, kind: str) -> None:
    rows = [{"clean": row["prompt"], "corrupt": "the boy named Lily .", "answer": " She", "more": 3} for row in MIB]
    task = load_task(Dataset(str(write(tmp_path / f"mine.{kind}", rows))), model())
    assert [text.answers for text in task.text] == [(" She",), (" She",)]
    assert task.prompts.wrong is None


def test_numbers_are_text_and_answers_may_be_several_tokens(tmp_path: Path) -> None:
    rows = [{"clean": "1 and", "corrupt": "2 and", "answer": 12}]
    found = read_dataset(Dataset(str(write(tmp_path / "n.parquet", rows)), answer_tokens="first"))
    assert found.good[0].text.answers == ("12",)
    assert found.good[0].answer_tokens == "first"
    assert "unknown 'answer_tokens' 'some'" in next(
        iter(read_dataset(Dataset(str(tmp_path / "n.parquet"), answer_tokens="some")).bad.values())
    )


def test_a_dataset_of_several_splits_is_read_by_the_one_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    write(folder / "train.jsonl", MIB)
    write(folder / "test.jsonl", MIB[1:])
    assert len(read_dataset(Dataset(str(folder), **COLUMNS)).good) == 2
    assert len(read_dataset(Dataset(str(folder), split="test", **COLUMNS)).good) == 1
    assert "has no split 'dev' (it has: train, test)" in refusal(folder, split="dev", **COLUMNS)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "ioi.parquet", MIB)
    assert "has no column 'clean': say which it is with --clean (it has: prompt, choices," in refusal(path)
    message = refusal(path, clean="promt", corrupt="prompt")
    assert message.startswith(f"{path}, row 1: --clean 'promt': there is no 'promt'; did you mean 'prompt'?")
    with_answer = COLUMNS | {"answer": "choices[7]"}
    assert "there is no place 7 in a list of 3" in refusal(path, **with_answer)
    assert "'prompt' is no place in a list" in refusal(path, **COLUMNS | {"answer": "choices[prompt]"})
    assert "is no list" in refusal(path, **COLUMNS | {"answer": "prompt[0]"})
    assert "is no record" in refusal(path, **COLUMNS | {"answer": "prompt.answer"})
    assert "is no name of a column" in refusal(path, **COLUMNS | {"answer": "choices[0"})
    assert "which is no text" in refusal(path, **COLUMNS | {"answer": "names_counterfactual"})


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    assert "cannot be read" in refusal(tmp_path / "broken.parquet")
    path = write(tmp_path / "ioi.parquet", MIB)
    assert "is one file, which has no configurations and no splits" in refusal(path, split="train")
    assert "the dataset 'nobody/nothing' cannot be read" in refusal("nobody/nothing")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'edgewise[datasets]'" in refusal("mib-bench/ioi")
