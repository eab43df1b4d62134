"""Files that ask for many runs: what each is called, and what it is asked for.

In TOML, `[all]` has what holds for every run that does not say otherwise, and each `[[run]]` what is its own; in JSONL
every line is a run. Names are those of a request's fields. A list stands for a run with each of its values.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, quoted, unknown
from edgewise.files import read_text
from edgewise.runs.request import Request

MOST = 100_000
"""Runs that one file may ask for."""


@dataclass(frozen=True)
class Job:
    """One run that is asked for.

    Attributes:
        name: what it and its folder are called.
        given: what was asked for, by the names of fields.
    """

    name: str
    given: Mapping[str, Any]

    @property
    def request(self) -> Request:
        """What was asked for; an EdgewiseError if it cannot be."""
        return Request.of(self.given)

    def check(self) -> None:
        """Refuse what can be refused before anything is loaded.

        Raises:
            EdgewiseError: which run, and why.
        """
        try:
            asked = self.request
            spec = asked.check()
            asked.search.check_size(None if spec is None else spec.threshold)
        except EdgewiseError as error:
            raise EdgewiseError(f"run {quoted(self.name)}: {error}") from None


def read_jobs(path: Path) -> list[Job]:
    """The runs that a file asks for, in its order, each with a name of its own.

    Raises:
        EdgewiseError: it cannot be read, asks for nothing or for too much, or has a setting that no run has; two runs
            have one name; or one of them could not be asked for.
    """
    what = f"the batch {quoted(str(path), 200)}"
    text = read_text(path, "the batch")
    tables = _of_toml(text, what) if path.suffix == ".toml" else list(_of_jsonl(text, what))
    if not tables:
        raise EdgewiseError(f"{what} asks for no run; write [[run]] and what is wanted below it")
    jobs = [job for number, table in enumerate(tables, 1) for job in _spread(table, f"{what}, run {number}")]
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen:
            raise EdgewiseError(f"{what} has two runs called {quoted(job.name)}; give them a name")
        seen.add(job.name)
        job.check()
    return jobs


def _of_toml(text: str, what: str) -> list[dict[str, Any]]:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgewiseError(f"{what} is no TOML: {error}") from None
    for name in read:
        if name not in ("all", "run"):
            raise EdgewiseError(f"{what} has {quoted(name)} at its top; it takes [all] and [[run]]")
    every, runs = read.get("all", {}), read.get("run", [])
    if not isinstance(every, dict) or not isinstance(runs, list) or not all(isinstance(one, dict) for one in runs):
        raise EdgewiseError(f"{what} should have [all] once and [[run]] for every run")
    return [{**every, **one} for one in runs]


def _of_jsonl(text: str, what: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = json.loads(line)
        except ValueError as error:
            raise EdgewiseError(f"{what}, line {number}, is no JSON: {error}") from None
        if not isinstance(read, dict):
            raise EdgewiseError(f"{what}, line {number}, should be an object of settings, not {quoted(read)}")
        yield read


def _spread(table: Mapping[str, Any], what: str) -> Iterator[Job]:
    """The runs that one table stands for: one for each combination of values in its lists."""
    known = Request.names()
    for name in table:
        if name != "name" and name not in known:
            raise EdgewiseError(f"{what}: {unknown('setting', name, sorted(known))}")
    several = {name: value for name, value in table.items() if isinstance(value, list)}
    if "name" in several:
        raise EdgewiseError(f"{what}: a run has one name, not a list")
    for name, values in several.items():
        if not values:
            raise EdgewiseError(f"{what}: the list of {name} is empty")
    count = 1
    for values in several.values():
        count *= len(values)
    if count > MOST:
        raise EdgewiseError(f"{what} stands for {count:,} runs, more than {MOST:,}")
    fixed = {name: value for name, value in table.items() if name not in several and name != "name"}
    for values in itertools.product(*several.values()):
        own = dict(zip(several, values, strict=True))
        yield Job(_name(table.get("name"), {**fixed, **own}, own), {**fixed, **own})


def _name(given: Any, settings: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What a run is called: its own name, or its task and method; and what tells it from those beside it."""
    words, told = [str(given)], set(own)
    if given is None:
        task = settings.get("task") or settings.get("dataset") or "run"
        words, told = [Path(str(task)).stem, str(settings.get("method", "acdc"))], told - {"task", "dataset", "method"}
    for name, value in own.items():
        if name in told:
            words.append(f"{name}={Path(value).name if isinstance(value, str) else value}")
    plain = re.sub(r"[^\w.=+-]+", "-", "-".join(words), flags=re.ASCII).strip("-.")
    if not plain:
        raise EdgewiseError(f"a run cannot be called {quoted(given)}: its folder needs letters or digits")
    return plain
