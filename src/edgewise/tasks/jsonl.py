"""A user's own behaviour: a JSONL file with `clean`, `corrupt`, `answer`, `wrong` on every line.

    {"clean": "… a little girl named Lily.", "corrupt": "… a little boy named Lily.", "answer": " She", "wrong": " He"}

`answer` and `wrong` are a string or a list of strings, written with the space before them if the text needs one, or
null where there is none. Other fields are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, near_matches, quoted, shorten
from edgewise.files import decode, read_bytes
from edgewise.json_files import parse_json
from edgewise.models import Decoder
from edgewise.tasks.metrics import METRICS
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import check_length, continuation, encode, show, unknown_words

FIELDS = ("clean", "corrupt", "answer", "wrong")


@dataclass(frozen=True)
class Row:
    """One line of the file, checked, with its line number."""

    line: int
    text: PromptText


def read_rows(path: Path) -> tuple[list[Row], str]:
    """The rows of a JSONL file and the SHA-256 of its bytes.

    Raises:
        EdgewiseError: there is no such file, it has no rows, or a line is not such a row; the message gives the line.
    """
    data = read_bytes(path, "the prompt file")
    text = decode(data, path, "the prompt file")
    # Only "\n" ends a line: JSON strings may hold the other characters that str.splitlines() breaks at.
    rows = [_row(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not rows:
        raise EdgewiseError(f"the prompt file {str(path)!r} is empty: it needs at least one line of JSON")
    return rows, file_digest(data)


def file_digest(data: bytes) -> str:
    """What tells one prompt file from another: the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def _row(path: Path, number: int, line: str) -> Row:
    where = f"{path}, line {number}"
    value = parse_json(line, where)
    if not isinstance(value, dict):
        raise EdgewiseError(f"{where}: should be an object with {', '.join(FIELDS)}, not a {type(value).__name__}")
    for name in FIELDS:
        if name not in value:
            hint = near_matches(name, [key for key in value if key not in FIELDS]).replace("did you mean", "is it")
            unless = " (null, if there is none)" if name in ("answer", "wrong") else ""
            raise EdgewiseError(f"{where}: the field {name!r} is missing{unless}{hint}")
    for name in ("clean", "corrupt"):
        if not _is_text(value[name]):
            raise EdgewiseError(f"{where}: {name!r} should be text, not {shorten(json.dumps(value[name]))}")
    answers, wrong = _strings(value, "answer", where), _strings(value, "wrong", where)
    return Row(number, PromptText(value["clean"], value["corrupt"], answers, wrong))


def _strings(value: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    given = value[name]
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(_is_text(text) for text in texts):
        raise EdgewiseError(
            f"{where}: {name!r} should be text, a list of texts or null, not {shorten(json.dumps(given))}"
        )
    return tuple(texts)


def _is_text(value: Any) -> bool:
    # "\\ud800" is JSON, but half a character is no text, and no tokenizer takes it.
    return isinstance(value, str) and bool(value) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def build_jsonl(model: Decoder, path: Path, *, examples: int | None, split: Split) -> Task:
    """A task from a JSONL file: all its rows, or the first `examples` of them (for `test`, the next ones).

    Only the last token of each clean prompt is scored. The two prompts of a pair may differ in length, but then they
    cannot be patched position by position: ablation `resample` refuses them, `zero` and `mean` do not.

    Raises:
        EdgewiseError: the file or one of its rows is not right, or there are fewer rows than asked for.
    """
    rows, digest = read_rows(path)
    chosen = _choose(rows, path, examples, split)
    clean = [_prompt(model, path, row, row.text.clean, "clean") for row in chosen]
    corrupt = [_prompt(model, path, row, row.text.corrupt, "corrupt") for row in chosen]
    answers, why_answers = _tokens(model, path, chosen, "answer", lambda row: row.text.answers)
    wrong, why_wrong = _tokens(model, path, chosen, "wrong", lambda row: row.text.wrong)
    for row, right_ids, wrong_ids in zip(chosen, answers or [], wrong or [], strict=False):
        if set(right_ids) & set(wrong_ids):
            raise EdgewiseError(f"{path}, line {row.line}: the same token is both an answer and a wrong answer")
    return Task(
        name=path.stem,
        prompts=last_token_prompts(clean, corrupt, answers, wrong),
        text=tuple(row.text for row in chosen),
        metric="kl_div",
        metrics=tuple(METRICS),
        settings={
            "task": str(path),
            "file": str(path.resolve()),
            "examples": len(chosen),
            "split": split,
            "sha256": digest,
        },
        why_no_answers=why_answers or why_wrong,
    )


def _choose(rows: list[Row], path: Path, examples: int | None, split: Split) -> list[Row]:
    if examples is None:
        if split == "test":
            raise EdgewiseError(
                f"{path} has no test split of its own; with --examples N, its first N rows are searched and the next N "
                "tested"
            )
        return rows
    wanted = rows[examples : 2 * examples] if split == "test" else rows[:examples]
    if len(wanted) < examples:
        more = f" (for a test split of {examples}, {2 * examples} are needed)" if split == "test" else ""
        raise EdgewiseError(f"{path} has {len(rows)} rows, fewer than the {examples} asked for{more}")
    return wanted


def _prompt(model: Decoder, path: Path, row: Row, text: str, side: str) -> list[int]:
    ids = encode(model, text)
    where = f"{path}, line {row.line}: the {side} prompt"
    check_length(model, ids, where)
    if unknown_words(model, ids):
        raise EdgewiseError(f"{where} has words that the tokenizer of {model.name!r} does not know: {quoted(text)}")
    return ids


def _tokens(
    model: Decoder, path: Path, rows: list[Row], name: str, texts: Callable[[Row], tuple[str, ...]]
) -> tuple[list[list[int]] | None, str]:
    """Ids of one-token answers row by row; or None and the reason why not every row has them."""
    found: list[list[int]] = []
    for row in rows:
        ids = []
        for text in texts(row):
            tokens = continuation(model, row.text.clean, text)
            if len(tokens) != 1 or unknown_words(model, tokens):
                reason = f"is {len(tokens)} tokens {show(model, tokens)}" if len(tokens) != 1 else "is an unknown word"
                return (
                    None,
                    f"{path}, line {row.line}: {name} {quoted(text)} {reason} to the tokenizer of {model.name!r}",
                )
            ids.append(tokens[0])
        if not ids:
            return None, f"{path}, line {row.line}: {name!r} is null"
        found.append(list(dict.fromkeys(ids)))  # two spellings of one token are one answer
    return found, ""
