"""A user's own prompts as rows, in a JSONL file or in a list: `clean`, `corrupt`, `answer`, `wrong` in each.

    {"clean": "… a little girl named Lily.", "corrupt": "… a little boy named Lily.", "answer": " She", "wrong": " He"}

`answer` and `wrong` are a string or a list of strings, written with the space before them if the text needs one, or
null where there is none. Four more fields may be there:

| field | what |
|---|---|
| `answer_tokens` | `first`: of answers of several tokens the first counts; `all`: the whole answer does |
| `scored` | parts of the clean prompt, whose own tokens are the answers (`answer` and `wrong` are left out) |
| `spans` | pairs of a part of the clean prompt and what stands for it in the corrupted one, of another length |
| `messages`, `corrupt_messages` | conversations in place of `clean` and `corrupt`, for the model's chat template |

Other fields are left alone. What becomes of them is in own_prompts.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from edgewise.errors import EdgewiseError, near_matches, shorten, unknown
from edgewise.files import decode, read_bytes
from edgewise.graph.names import check_span
from edgewise.json_files import parse_json
from edgewise.tasks.alignment import Part
from edgewise.tasks.task import PromptText

FIELDS = ("clean", "corrupt", "answer", "wrong")
AnswerTokens = Literal["one", "first", "all"]
Message = Mapping[str, str]
ROLES = ("system", "user", "assistant", "tool", "developer")


@dataclass(frozen=True)
class Row:
    """One row, checked.

    Attributes:
        number: of the line in the file, or from 1 in a list.
        text: prompts and answers; the prompts are empty where there are messages.
        answer_tokens: what counts of an answer of several tokens; by default it has to be one.
        scored: parts of the clean prompt, from left to right, whose tokens are what has to follow.
        spans: parts of the clean prompt and of the corrupted one that stand for each other, from left to right.
        parts: named parts of the clean prompt, which a search may tell apart.
        messages: the clean conversation and the corrupted one.
    """

    number: int
    text: PromptText
    answer_tokens: AnswerTokens = "one"
    scored: tuple[str, ...] = ()
    spans: tuple[tuple[str, str], ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    messages: tuple[Sequence[Message], Sequence[Message]] | None = None


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


def rows_of(
    given: Sequence[Mapping[str, Any]],
    name: str,
    *,
    origin: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Rows:
    """The rows of a list.

    Args:
        name: what the task is called.
        origin: where they come from, for errors.
        settings: more of what finds them again.

    Raises:
        EdgewiseError: it is empty, or holds something that cannot be written as JSON.
    """
    if not given:
        raise EdgewiseError("the list of prompts is empty: it needs at least one row")
    try:
        text = "".join(f"{json.dumps(dict(row) if isinstance(row, Mapping) else row)}\n" for row in given)
    except (TypeError, ValueError) as error:
        raise EdgewiseError(f"the rows of {name!r} should hold what JSON can: {error}") from None
    found = {"task": name, "sha256": digest(text.encode()), **(settings or {})}
    return _rows(name, origin or f"the rows of {name!r}", "row", enumerate(text.splitlines(), start=1), found)


def to_jsonl(texts: Iterable[PromptText]) -> str:
    """The lines of a file that is read as these prompts."""
    plain = (
        {
            "clean": text.clean,
            "corrupt": text.corrupt,
            "answer": list(text.answers) or None,
            "wrong": list(text.wrong) or None,
        }
        if text.row is None
        else text.row
        for text in texts
    )
    return "".join(f"{json.dumps(row)}\n" for row in plain if row)


def digest(data: bytes) -> str:
    """What tells one file of prompts, or of importances, from another: the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def _rows(name: str, origin: str, unit: str, lines: Iterable[tuple[int, str]], settings: Mapping[str, Any]) -> Rows:
    good, bad = [], {}
    for number, line in lines:
        try:
            good.append(row_of(number, line))
        except EdgewiseError as error:
            bad[number] = str(error).removeprefix(": ")  # parse_json names a place, which is said elsewhere
    return Rows(name, origin, unit, tuple(good), bad, settings)


def row_of(number: int, line: str) -> Row:
    """The row that a line of JSON holds.

    Raises:
        EdgewiseError: it holds none.
    """
    value = parse_json(line, "")
    if not isinstance(value, dict):
        raise EdgewiseError(f"should be an object with {', '.join(FIELDS)}, not a {type(value).__name__}")
    extra: dict[str, Any] = {}
    if "messages" in value or "corrupt_messages" in value:
        if "clean" in value or "corrupt" in value:
            raise EdgewiseError(
                "has both messages and prompts: give 'messages' and 'corrupt_messages', or 'clean' and 'corrupt'"
            )
        extra["messages"] = (_messages(value, "messages"), _messages(value, "corrupt_messages"))
        value = {**value, "clean": "", "corrupt": ""}
    if "scored" in value:
        if value.get("answer") is not None or value.get("wrong") is not None:
            raise EdgewiseError("has both 'scored' and answers: the tokens of what is scored are the answers")
        extra["scored"] = _texts(value["scored"], "scored", "text or a list of texts")
        value = {**value, "answer": None, "wrong": None}
    if "answer_tokens" in value:
        extra["answer_tokens"] = value["answer_tokens"]
        if value["answer_tokens"] not in get_args(AnswerTokens):
            raise unknown("'answer_tokens'", str(value["answer_tokens"]), get_args(AnswerTokens))
    given = value
    if value.get("spans") == MARKED:
        extra["parts"], value = _unmarked(value)
    elif isinstance(value.get("spans"), dict):
        extra["parts"] = {name: _part(name, part) for name, part in value["spans"].items()}
    elif "spans" in value:
        extra["spans"] = _spans(value["spans"])
    kept = {name: one for name, one in given.items() if name in (*FIELDS, *_MORE)} if extra else None
    if "messages" in extra and kept is not None:
        del kept["clean"], kept["corrupt"]
    text = _text(value, "messages" in extra)
    return Row(number, replace(text, row=kept), **extra)


_MORE = ("answer_tokens", "scored", "spans", "messages", "corrupt_messages")


def _messages(value: dict[str, Any], name: str) -> list[Message]:
    given = value.get(name)
    good = isinstance(given, list) and all(
        isinstance(one, dict) and one.keys() == {"role", "content"} and one["role"] in ROLES and is_text(one["content"])
        for one in given
    )
    if not good or not given:
        raise EdgewiseError(
            f"{name!r} should be a list of messages, each with a role ({', '.join(ROLES)}) and a content, not "
            f"{shorten(json.dumps(given))}"
        )
    return given


def _texts(given: Any, name: str, what: str) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(is_text(text) for text in texts):
        raise EdgewiseError(f"{name!r} should be {what}, not {shorten(json.dumps(given))}")
    return tuple(texts)


def _spans(given: Any) -> tuple[tuple[str, str], ...]:
    good = isinstance(given, list) and all(
        isinstance(one, list) and len(one) == 2 and all(is_text(text) for text in one) for one in given
    )
    if not good or not given:
        raise EdgewiseError(
            "'spans' should be a list of pairs, each a part of the clean prompt and what stands for it in the "
            f"corrupted one, an object of names and parts, or {MARKED!r}, not {shorten(json.dumps(given))}"
        )
    return tuple((one, other) for one, other in given)


MARKED = "marked"
"""Says of spans that they are marked in the prompts."""
_MARK = re.compile(r"\{([^\s{}:@<>]{1,40}):([^{}]+)\}")


def _part(name: str, given: Any) -> Part:
    """A named part of a prompt: its text, `[first, stop]` in tokens, or `{"characters": [first, stop]}`."""
    check_span(name)
    if is_text(given):
        return given
    unit, places = "tokens", given
    if isinstance(given, dict) and given.keys() == {"characters"}:
        unit, places = "characters", given["characters"]
    good = isinstance(places, list) and len(places) == 2 and all(type(one) is int for one in places)
    if not good or not 0 <= places[0] < places[1]:
        raise EdgewiseError(
            f"span {name!r} should be part of the clean prompt's text, [first, stop] in tokens, or "
            f'{{"characters": [first, stop]}}, not {shorten(json.dumps(given))}'
        )
    return unit, places[0], places[1]


def _unmarked(value: dict[str, Any]) -> tuple[dict[str, Part], dict[str, Any]]:
    """The parts that are marked in a clean prompt, as in `{subject:Mary}`, and the row without marks."""
    parts: dict[str, Part] = {}
    for side in ("clean", "corrupt"):
        if not is_text(value.get(side)):
            continue
        text, at = "", 0
        for mark in _MARK.finditer(value[side]):
            text += value[side][at : mark.start()]
            if side == "clean":
                if mark[1] in parts:
                    raise EdgewiseError(f"two parts of the clean prompt are marked as span {mark[1]!r}")
                parts[mark[1]] = ("characters", len(text), len(text) + len(mark[2]))
            text, at = text + mark[2], mark.end()
        value = {**value, side: text + value[side][at:]}
    if not parts:
        raise EdgewiseError("'spans' is 'marked', and no part of the clean prompt is, as in {subject:Mary}")
    return parts, value


def _text(value: dict[str, Any], empty: bool) -> PromptText:
    for name in FIELDS:
        if name not in value:
            hint = near_matches(name, [key for key in value if key not in FIELDS]).replace("did you mean", "is it")
            unless = " (null, if there is none)" if name in ("answer", "wrong") else ""
            raise EdgewiseError(f"the field {name!r} is missing{unless}{hint}")
    for name in ("clean", "corrupt"):
        if not is_text(value[name]) and not empty:
            raise EdgewiseError(f"{name!r} should be text, not {shorten(json.dumps(value[name]))}")
    answers, wrong = (
        () if value[name] is None else _texts(value[name], name, "text, a list of texts or null")
        for name in ("answer", "wrong")
    )
    return PromptText(value["clean"], value["corrupt"], answers, wrong)


def is_text(value: Any) -> bool:
    """Whether something is text with a letter in it that a tokenizer can take."""
    # "\\ud800" is JSON, but half a character is no text, and no tokenizer takes it.
    return isinstance(value, str) and bool(value) and not any("\ud800" <= letter <= "\udfff" for letter in value)
