"""The tasks of the Mechanistic Interpretability Benchmark's circuit track (Mueller et al. 2025), on a model's tokens.

A task is a dataset on the hub under `mib-bench/`, with the splits `train`, `validation` and `test`. What of its columns
is prompt and answer, which of its rows are used and what the model reads follow the benchmark's code:

* The corrupted prompt is that of one counterfactual column. What counts is the logit of the answer over that of the
  counterfactual's answer (of IOI: over the subject), each the first token of its text by itself, at the last token.
* Rows are left out by numbers of tokens alone: of both answers (of IOI: of the three names) as many; of arithmetic
  exactly one, and a counterfactual. Whether the model gets a row right does not matter.
* Every prompt stands behind the tokenizer's BOS, or its EOS where it has none.

Left out as well is what cannot be patched position by position, or read at all: pairs of two lengths, words that the
tokenizer does not know, prompts that are too long. Of the benchmark's own models that is nothing.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from edgewise.errors import EdgewiseError, unknown
from edgewise.files import read_text
from edgewise.json_files import json_lines
from edgewise.models import Decoder
from edgewise.tasks.jsonl import digest
from edgewise.tasks.load import read_right, require_outputs
from edgewise.tasks.metrics import METRICS
from edgewise.tasks.tables import Dataset, open_table, value_of
from edgewise.tasks.task import PromptText, Task, last_token_prompts
from edgewise.tasks.tokens import check_length, document_start, encode_bare, unknown_words

MibSplit = Literal["train", "validation", "test"]
SPLITS: tuple[MibSplit, ...] = get_args(MibSplit)
HUB = "mib-bench"
AT_ONCE = 512
"""Rows that are put on tokens together."""


@dataclass(frozen=True)
class MibTask:
    """One task of the benchmark. What a text is made of is named as for `Dataset`.

    Attributes:
        name: as the benchmark's code has it.
        dataset, config: on the hub, under `mib-bench/`.
        counterfactual: the column with the corrupted prompt.
        answer: made of the row.
        wrong: made of the row, or where there is `in_counterfactual`, of what that column holds.
        alike: one more text of the row that has as many tokens as both answers.
        operator: what the column `operator` has to be; then answers are of one token, too.
        train_examples: how many rows of the train split the benchmark attributes on; None for all.
    """

    name: str
    dataset: str
    counterfactual: str
    answer: str
    wrong: str
    in_counterfactual: bool = True
    alike: str | None = None
    operator: str | None = None
    config: str | None = None
    train_examples: int | None = 100


_LABEL = "choices.label[answerKey]"
MIB_TASKS = {
    task.name: task
    for task in (
        MibTask(
            name="ioi",
            dataset="ioi",
            counterfactual="s2_io_flip_counterfactual",
            answer=" {metadata.indirect_object}",
            wrong=" {metadata.subject}",
            in_counterfactual=False,
            alike=" {metadata.random_c}",
            train_examples=1000,
        ),
        MibTask(
            name="mcqa",
            dataset="copycolors_mcqa",
            config="4_answer_choices",
            counterfactual="symbol_counterfactual",
            answer=_LABEL,
            wrong=_LABEL,
            train_examples=None,
        ),
        *(
            MibTask(
                name=f"arithmetic_{name}",
                dataset=f"arithmetic_{name}",
                counterfactual="random_counterfactual",
                answer="label",
                wrong="label",
                operator=operator,
            )
            for name, operator in (("addition", "+"), ("subtraction", "-"))
        ),
        *(
            MibTask(
                name=f"arc_{name}",
                dataset=f"arc_{name}",
                counterfactual="symbol_counterfactual",
                answer=_LABEL,
                wrong=_LABEL,
            )
            for name in ("easy", "challenge")
        ),
    )
}


def mib_task(name: str) -> MibTask:
    """The task of a name, with `-` for `_` as folders of submissions have it, too.

    Raises:
        EdgewiseError: there is none.
    """
    found = MIB_TASKS.get(name.replace("-", "_"))
    if found is None:
        raise unknown("task of the MIB benchmark", name, MIB_TASKS)
    return found


# --- where rows come from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MibRows:
    """The rows of a split, which are read when they are asked for.

    Attributes:
        origin: where they come from, for errors.
        files: JSONL or Parquet files; none for the hub's dataset.
    """

    task: MibTask
    split: MibSplit
    origin: str
    files: tuple[Path, ...]

    @classmethod
    def of(cls, task: MibTask, split: MibSplit, data: Path | None) -> MibRows:
        """A split of a task's dataset, from the hub, or from a folder that has a folder for each dataset.

        There the files of a split are those whose names begin with the split's, `train.jsonl` or
        `data/train-00000-of-00001.parquet`, in the dataset's folder or in that of its configuration.

        Raises:
            EdgewiseError: an unknown split, or no files of it.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if data is None:
            return cls(task, split, f"{HUB}/{task.dataset}, {split}", ())
        folder = data.expanduser() / task.dataset
        if not folder.is_dir():
            raise EdgewiseError(f"there is no folder {str(folder)!r} with the dataset {HUB}/{task.dataset}")
        own = folder / task.config if task.config else folder
        folder = own if own.is_dir() else folder
        files = [file for file in sorted(folder.rglob("*")) if file.suffix in (".jsonl", ".parquet") and file.is_file()]
        files = [file for file in files if file.stem == split or file.stem.startswith(f"{split}-")]
        if len({file.suffix for file in files}) != 1:
            what = "both JSONL and Parquet files" if files else "no JSONL or Parquet file"
            raise EdgewiseError(f"the folder {str(folder)!r} has {what} of the split {split!r}")
        return cls(task, split, f"{folder}, {split}", tuple(files))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Each row as the dataset's columns have it.

        Raises:
            EdgewiseError: the hub cannot be reached, `datasets` is not installed, or a file is broken.
        """
        if not self.files:
            yield from open_table(Dataset(f"{HUB}/{self.task.dataset}", config=self.task.config, split=self.split))
        for file in self.files:
            if file.suffix == ".parquet":
                yield from open_table(Dataset(str(file)))
            else:
                for _, row in json_lines(read_text(file, "the dataset's file"), str(file)):
                    yield row


# --- rows on a model's tokens -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Texts:
    clean: str
    corrupt: str
    answer: str
    wrong: str
    alike: str | None = None


@dataclass(frozen=True)
class _Pair:
    texts: _Texts
    clean: list[int]
    corrupt: list[int]
    answer: int
    wrong: int


def load_mib_task(rows: MibRows, model: Decoder, examples: int | None = None) -> Task:
    """A split of one of the benchmark's tasks on a model's tokens, read right by edgewise.

    Args:
        examples: the first so many rows that can be used; None, or more than there are, for all.

    Raises:
        EdgewiseError: the rows cannot be read, a column is missing, none of them can be used, or a model without a
            tokenizer, or that the Decoder does not reproduce on these prompts.
    """
    pairs, left_out = _usable(rows, model, examples)
    if not pairs:
        why = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common()) or "there is none"
        raise EdgewiseError(f"no row of {rows.origin} can be used with model {model.name!r}: {why}")
    prompts = last_token_prompts(
        [pair.clean for pair in pairs],
        [pair.corrupt for pair in pairs],
        [[pair.answer] for pair in pairs],
        [[pair.wrong] for pair in pairs],
    )
    text = tuple(
        PromptText(one.clean, one.corrupt, (one.answer,), (one.wrong,)) for one in (pair.texts for pair in pairs)
    )
    ids = [[pair.clean, pair.corrupt, pair.answer, pair.wrong] for pair in pairs]
    task = Task(
        name=f"MIB's {rows.task.name}",
        prompts=prompts,
        text=text,
        metric="logit_diff",
        metrics=tuple(METRICS),
        settings={
            "task": rows.task.name,
            "split": rows.split,
            "examples": len(pairs),
            "left_out": dict(sorted(left_out.items())),
            "sha256": digest(json.dumps(ids).encode()),
        },
    )
    require_outputs(task, model)
    return read_right(replace(task, prompts=prompts.to(model.device)), model)


def _usable(rows: MibRows, model: Decoder, examples: int | None) -> tuple[list[_Pair], Counter[str]]:
    """The first so many rows that can be used, and how many before the last of them cannot, by why."""
    pairs: list[_Pair] = []
    left_out: Counter[str] = Counter()
    start = _start(model)
    numbered = enumerate(rows, start=1)
    while chunk := list(itertools.islice(numbered, AT_ONCE)):
        read = [_texts(rows, number, row) for number, row in chunk]
        tokens = iter(_encoded(model, [one for one in read if isinstance(one, _Texts)]))
        for one in read:
            found = one if isinstance(one, str) else _pair(model, rows.task, one, next(tokens), start)
            if isinstance(found, str):
                left_out[found] += 1
                continue
            pairs.append(found)
            if len(pairs) == examples:
                return pairs, left_out
    return pairs, left_out


def _start(model: Decoder) -> list[int]:
    """What every prompt stands behind: TransformerLens, which the benchmark runs on, takes the EOS for a BOS."""
    first = document_start(model)
    first = getattr(model.tokenizer, "eos_token_id", None) if first is None else first
    return [] if first is None else [first]


def _texts(rows: MibRows, number: int, row: Mapping[str, Any]) -> _Texts | str:
    """What a row says, or why it is left out."""
    task = rows.task
    try:
        if task.operator is not None and value_of(row, "operator") != task.operator:
            return "of another operator"
        other = row.get(task.counterfactual)
        if task.operator is not None and (other is None or (isinstance(other, Mapping) and not other.get("prompt"))):
            return "without a counterfactual"
        if not isinstance(other, Mapping):
            raise EdgewiseError(f"the column {task.counterfactual!r} holds no counterfactual")
        found = _Texts(
            clean=value_of(row, "prompt"),
            corrupt=value_of(row, f"{task.counterfactual}.prompt"),
            answer=value_of(row, task.answer),
            wrong=value_of(other if task.in_counterfactual else row, task.wrong),
            alike=None if task.alike is None else value_of(row, task.alike),
        )
    except EdgewiseError as error:
        raise EdgewiseError(f"{rows.origin}, row {number}: {error}") from None
    for name in ("clean", "corrupt", "answer", "wrong"):
        if not isinstance(getattr(found, name), str) or not getattr(found, name):
            raise EdgewiseError(f"{rows.origin}, row {number}: what makes its {name} prompt or answer is no text")
    return found


def _encoded(model: Decoder, read: Iterable[_Texts]) -> Iterator[list[list[int]]]:
    """The tokens of each row's texts."""
    texts = [[text for text in vars(one).values() if text is not None] for one in read]
    found = iter(encode_bare(model, [text for several in texts for text in several]))
    return (list(itertools.islice(found, len(several))) for several in texts)


def _pair(model: Decoder, task: MibTask, texts: _Texts, ids: list[list[int]], start: list[int]) -> _Pair | str:
    """A row on the model's tokens, or why it is left out."""
    clean, corrupt, answer, wrong, *alike = ids
    lengths = {len(one) for one in (answer, wrong, *alike)}
    if task.operator is not None and lengths != {1}:
        return "with answers of several tokens"
    if len(lengths) != 1 or lengths == {0}:
        return "with answers of different numbers of tokens"
    if any(unknown_words(model, one) for one in ids):
        return "with words that the tokenizer does not know"
    if len(clean) != len(corrupt):
        return "with prompts of different numbers of tokens"
    try:
        check_length(model, [*start, *clean], "a prompt")
    except EdgewiseError:
        return "longer than the model reads"
    return _Pair(texts, [*start, *clean], [*start, *corrupt], answer[0], wrong[0])
