"""JSON as it comes from anybody: read within bounds, and what is wrong with it said by file and field.

Everything that edgewise reads as JSON goes through here. A number that is none (NaN, Infinity), or has more digits than
a computer's numbers hold, is refused, as is what is nested too deeply.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from edgewise.errors import EdgewiseError, quoted, shorten
from edgewise.files import read_text

MOST_DIGITS = 300
"""Of a whole number: what can still become a float."""
MOST_DEPTH = 50


def parse_json(text: str, what: str) -> Any:
    """The value that `text` stands for; `what` names the place in errors, as in `prompts.jsonl, line 3`.

    Raises:
        EdgewiseError: it is not valid JSON, is nested too deeply, or holds a number that is none or is too long.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_float, parse_constant=_refuse)
    except _BadNumberError:
        raise EdgewiseError(f"{what}: {_where_bad(text)}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}: {error.msg}" if "\n" in text else f"{error.msg} (column {error.colno})"
        raise EdgewiseError(f"{what}: not valid JSON: {place}") from None
    except RecursionError:
        raise EdgewiseError(f"{what}: nested too deeply to be read") from None
    level, depth = [value], 0
    while level := [one for outer in level if isinstance(outer, dict | list) for one in _children(outer)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise EdgewiseError(f"{what}: nested too deeply to be read")
    return value


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`; `what` names the thing in errors, as in "the run record".

    Raises:
        EdgewiseError: there is no such file, or it holds no JSON object within the bounds.
    """
    named = f"{what} {str(path)!r}"
    value = parse_json(read_text(path, what), named)
    if not isinstance(value, dict):
        raise EdgewiseError(f"{named} should hold a JSON object, not a {type(value).__name__}")
    return value


def json_lines(text: str, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a text with one JSON object per line, with their line numbers; empty lines are passed by.

    Only a newline ends a line: JSON strings may hold the other characters that `str.splitlines` breaks at.

    Raises:
        EdgewiseError: a line is no JSON object within the bounds.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            value = parse_json(line, f"{what}, line {number}")
            if not isinstance(value, dict):
                raise EdgewiseError(f"{what}, line {number}: should be an object, not a {type(value).__name__}")
            yield number, value


def part(value: Mapping[str, Any], path: str, kind: type, what: str) -> Any:
    """The part of an object at `path`, as in `settings.task.examples`, which has to be of `kind`.

    True is no number here, and a float may be written as a whole number.

    Raises:
        EdgewiseError: it is missing or of another kind.
    """
    found: Any = value
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise EdgewiseError(f"{what} is broken: {path!r} is missing")
        found = found[key]
    wanted = int | float if kind is float else kind
    if not isinstance(found, wanted) or (isinstance(found, bool) and kind is not bool):
        raise EdgewiseError(f"{what} is broken: {path!r} should be {_KINDS[kind]}, not {shorten(json.dumps(found))}")
    return found


_KINDS: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
}


class _BadNumberError(Exception):
    """A number that is none, or too long."""


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= MOST_DIGITS else _refuse(digits)


def _float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)


def _refuse(digits: str) -> NoReturn:
    raise _BadNumberError(digits)


def _where_bad(text: str) -> str:
    """The first number of a JSON text that was refused, with the field that holds it."""
    found = json.loads(text, parse_int=_Marked, parse_float=_Marked, parse_constant=_Marked)
    stack: list[tuple[str, Any]] = [("", found)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, _Marked) and value.why:
            return f"{quoted(where) if where else 'the value'} {value.why}"
        if isinstance(value, dict):
            stack += reversed([(f"{where}.{key}" if where else key, one) for key, one in value.items()])
        elif isinstance(value, list):
            stack += reversed([(f"{where}[{at}]", one) for at, one in enumerate(value)])
    raise AssertionError("what was refused is in there")


class _Marked:
    """A number of a text that holds a bad one, and what is wrong with it, if it is this one."""

    def __init__(self, digits: str) -> None:
        self.why = ""
        if digits.lstrip("-").isdigit():
            if len(digits) > MOST_DIGITS:
                self.why = f"is a number of {len(digits.lstrip('-')):,} digits; at most {MOST_DIGITS} are read"
        elif not math.isfinite(float(digits)):
            self.why = f"is {quoted(digits)}, which is no finite number"


def _children(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value
