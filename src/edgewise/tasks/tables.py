"""Rows from a dataset: a hub id, or a Parquet, CSV or JSON file, with what in its columns is prompt and answer.

A field of a row is named by a column (`prompt`), a column in it (`metadata.subject`), a place of a list
(`choices[0]`), the place that another column has (`choices[answerKey]`), all but that (`choices[!answerKey]`), or text
with these in braces (` {choices[answerKey]}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, first_line, near_matches, quoted, require_package
from edgewise.tasks.jsonl import FIELDS, Rows, rows_of

KINDS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}
OPTIONAL = ("answer", "wrong")


@dataclass(frozen=True)
class Dataset:
    """Where rows come from, and what in them is what.

    Attributes:
        dataset: a hub id, or a file.
        config, split: of the dataset; by default its only configuration, and its only split or `train`.
        clean, corrupt, answer, wrong: what each field is made of; by default the column of that name, and no answers
            where there is none.
        answer_tokens: as in a JSONL file, for all rows.
    """

    dataset: str
    config: str | None = None
    split: str | None = None
    clean: str | None = None
    corrupt: str | None = None
    answer: str | None = None
    wrong: str | None = None
    answer_tokens: str | None = None

    @property
    def name(self) -> str:
        """What a task made of it is called."""
        return Path(self.dataset).stem


def read_dataset(asked: Dataset) -> Rows:
    """The rows of a dataset.

    Raises:
        EdgewiseError: the `datasets` library is not there or cannot read it, it has several splits or none of the one
            asked for, or a column is missing.
    """
    table = open_table(asked)
    rows = [_row(asked, number, values) for number, values in enumerate(table, start=1)]
    if not rows:
        raise EdgewiseError(f"the dataset {quoted(asked.dataset)} has no rows")
    about = {name: value for name, value in vars(asked).items() if value is not None}
    return rows_of(rows, asked.name, origin=asked.dataset, settings={"task": asked.dataset, "dataset": about})


def open_table(asked: Dataset) -> Any:
    """The rows of a dataset as its own columns have them, one mapping after another.

    Raises:
        EdgewiseError: as `read_dataset`, but for columns.
    """
    datasets = require_package("datasets", "datasets", "to read a dataset")  # slow to import
    path = Path(asked.dataset).expanduser()
    kind = KINDS.get(path.suffix.lower())
    try:
        if kind is not None and path.is_file():
            if asked.config or asked.split:
                raise EdgewiseError(f"{asked.dataset!r} is one file, which has no configurations and no splits")
            more: dict[str, Any] = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
            return datasets.load_dataset(kind, data_files=str(path), split="train", streaming=True, **more)
        if kind is not None:
            raise EdgewiseError(f"the dataset {quoted(asked.dataset, 500)}: there is no such file")
        found: Any = datasets.load_dataset(asked.dataset, asked.config)
    except EdgewiseError:
        raise
    except Exception as error:  # the library, the hub and the network raise errors of many kinds
        raise EdgewiseError(f"the dataset {quoted(asked.dataset)} cannot be read: {first_line(error)}") from None
    return _split(asked, found)


def _split(asked: Dataset, found: Mapping[Any, Any]) -> Any:
    names = [str(name) for name in found]
    wanted = asked.split or (names[0] if len(names) == 1 else "train")
    if wanted not in names:
        which = "has no split" if asked.split else "has several splits; say which with --dataset-split, not"
        raise EdgewiseError(f"the dataset {quoted(asked.dataset)} {which} {wanted!r} (it has: {', '.join(names)})")
    return found[wanted]


def _row(asked: Dataset, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in FIELDS:
        source = getattr(asked, field)
        if source is None and field not in values:
            if field in OPTIONAL:
                row[field] = None
                continue
            raise EdgewiseError(
                f"the dataset {quoted(asked.dataset)} has no column {field!r}: say which it is with --{field} (it has: "
                f"{', '.join(values)})"
            )
        try:
            row[field] = value_of(values, field if source is None else source)
        except EdgewiseError as error:
            raise EdgewiseError(
                f"{asked.dataset}, row {number}: --{field} {quoted(source or field, 80)}: {error}"
            ) from None
    if asked.answer_tokens is not None:
        row["answer_tokens"] = asked.answer_tokens
    return row


_STEP = re.compile(r"\.?(?P<name>[^.\[\]{}]+)|\[(?P<but>!?)(?P<at>[^\[\]{}]+)\]")


def value_of(values: Mapping[str, Any], source: str) -> Any:
    """What a field is made of: text, or texts.

    Raises:
        EdgewiseError: there is no such column, or it holds no text.
    """
    if source in values or "{" not in source:
        return _texts(_at(values, source))
    parts = re.split(r"\{([^{}]+)\}", source)  # text, path, text, …
    made = [parts[0]]
    for path, after in zip(parts[1::2], parts[2::2], strict=True):
        inner = _texts(_at(values, path))
        every = inner if isinstance(inner, list) else [inner]
        made = [f"{before}{'' if one is None else one}{after}" for before in made for one in every]
    return made[0] if len(made) == 1 else made


def _texts(value: Any) -> Any:
    """Numbers as text; a list of one as it is."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_texts(one) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise EdgewiseError(f"holds {quoted(value, 80)}, which is no text")


def _at(values: Mapping[str, Any], path: str) -> Any:
    if path in values:
        return values[path]
    found: Any = values
    end = 0
    for step in _STEP.finditer(path):
        if step.start() != end:
            break
        end = step.end()
        if step["name"] is not None:
            found = _named(found, step["name"])
        else:
            found = _placed(found, _place(values, step["at"]), bool(step["but"]))
    if end != len(path) or not path:
        raise EdgewiseError("is no name of a column, as in prompt, metadata.subject, choices[0] or choices[answerKey]")
    return found


def _named(found: Any, name: str) -> Any:
    if not isinstance(found, Mapping):
        raise EdgewiseError(f"what holds {name!r} is no record, but {quoted(found, 60)}")
    if name not in found:
        hint = near_matches(name, list(found)) or f" (there is: {', '.join(map(str, found))})"
        raise EdgewiseError(f"there is no {name!r}{hint}")
    return found[name]


def _place(values: Mapping[str, Any], at: str) -> int:
    place = int(at) if re.fullmatch(r"\d+", at) else _at(values, at)
    if not isinstance(place, int) or isinstance(place, bool):
        raise EdgewiseError(f"{at!r} is no place in a list, but {quoted(place, 60)}")
    return place


def _placed(found: Any, place: int, but: bool) -> Any:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise EdgewiseError(f"{quoted(found, 60)} is no list")
    if not 0 <= place < len(found):
        raise EdgewiseError(f"there is no place {place} in a list of {len(found)}")
    return [one for number, one in enumerate(found) if number != place] if but else found[place]
