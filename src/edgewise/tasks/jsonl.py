"""A user's own prompts as rows, in a JSONL file or in a list: `clean`, `corrupt`, `answer`, `wrong` in each.

    {"clean": "… a little girl named Lily.", "corrupt": "… a little boy named Lily.", "answer": " She", "wrong": " He"}

`answer` and `wrong` are a string or a list of strings, written with the space before them if the text needs one, or
null where there is none. Other fields are left alone. What becomes of them is in own_prompts.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, near_matches, shorten
from edgewise.files import decode, read_bytes
from edgewise.json_files import parse_json
from edgewise.tasks.task import PromptText

FIELDS = ("clean", "corrupt", "answer", "wrong")


@dataclass(frozen=True)
class Row:
    """One row, checked, with its number: of the line in the file, or from 1 in a list."""

    number: int
    text: PromptText


@dataclass(frozen=True)
class Rows:
    """All rows of a file or a list.

    Attributes:
        name: what the task is called.
        origin, unit: where they come from and what one of them is called there, for errors.
        good: the rows that can be read.
        bad: numbers of the others, with what is wrong.
        settings: what finds the same rows again.
    """

    name: str
    origin: str
    unit: str
    good: tuple[Row, ...]
    bad: Mapping[int, str]
    settings: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.good) + len(self.bad)


def read_rows(path: Path) -> Rows:
    """The rows of a JSONL file.

    Raises:
        EdgewiseError: there is no such file, it is no regular file, or it has no rows.
    """
    data = read_bytes(path, "the prompt file")
    text = decode(data, path, "the prompt file")
    # Only "\n" ends a line: JSON strings may hold the other characters that str.splitlines() breaks at.
    lines = {number: line for number, line in enumerate(text.split("\n"), start=1) if line.strip()}
    if not lines:
        raise EdgewiseError(f"the prompt file {str(path)!r} is empty: it needs at least one line of JSON")
    settings = {"task": str(path), "file": str(path.resolve()), "sha256": digest(data)}
    return _rows(path.stem, str(path), "line", lines.items(), settings)


def rows_of(given: Sequence[Mapping[str, Any]], name: str) -> Rows:
    """The rows of a list.

    Raises:
        EdgewiseError: it is empty, or holds something that cannot be written as JSON.
    """
    if not given:
        raise EdgewiseError("the list of prompts is empty: it needs at least one row")
    try:
        text = "".join(f"{json.dumps(dict(row) if isinstance(row, Mapping) else row)}\n" for row in given)
    except (TypeError, ValueError) as error:
        raise EdgewiseError(f"the rows of {name!r} should hold what JSON can: {error}") from None
    settings = {"task": name, "sha256": digest(text.encode())}
    return _rows(name, f"the rows of {name!r}", "row", enumerate(text.splitlines(), start=1), settings)


def to_jsonl(texts: Iterable[PromptText]) -> str:
    """The lines of a file that is read as these prompts."""
    return "".join(
        json.dumps(
            {
                "clean": text.clean,
                "corrupt": text.corrupt,
                "answer": list(text.answers) or None,
                "wrong": list(text.wrong) or None,
            }
        )
        + "\n"
        for text in texts
    )


def digest(data: bytes) -> str:
    """What tells one prompt file from another: the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def _rows(name: str, origin: str, unit: str, lines: Iterable[tuple[int, str]], settings: Mapping[str, Any]) -> Rows:
    good, bad = [], {}
    for number, line in lines:
        try:
            good.append(Row(number, _text(line)))
        except EdgewiseError as error:
            bad[number] = str(error).removeprefix(": ")  # parse_json names a place, which is said elsewhere
    return Rows(name, origin, unit, tuple(good), bad, settings)


def _text(line: str) -> PromptText:
    value = parse_json(line, "")
    if not isinstance(value, dict):
        raise EdgewiseError(f"should be an object with {', '.join(FIELDS)}, not a {type(value).__name__}")
    for name in FIELDS:
        if name not in value:
            hint = near_matches(name, [key for key in value if key not in FIELDS]).replace("did you mean", "is it")
            unless = " (null, if there is none)" if name in ("answer", "wrong") else ""
            raise EdgewiseError(f"the field {name!r} is missing{unless}{hint}")
    for name in ("clean", "corrupt"):
        if not _is_text(value[name]):
            raise EdgewiseError(f"{name!r} should be text, not {shorten(json.dumps(value[name]))}")
    return PromptText(value["clean"], value["corrupt"], _strings(value, "answer"), _strings(value, "wrong"))


def _strings(value: dict[str, Any], name: str) -> tuple[str, ...]:
    given = value[name]
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(_is_text(text) for text in texts):
        raise EdgewiseError(f"{name!r} should be text, a list of texts or null, not {shorten(json.dumps(given))}")
    return tuple(texts)


def _is_text(value: Any) -> bool:
    # "\\ud800" is JSON, but half a character is no text, and no tokenizer takes it.
    return isinstance(value, str) and bool(value) and not any("\ud800" <= letter <= "\udfff" for letter in value)
