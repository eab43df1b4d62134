"""Defaults of one's own: `edgewise.toml` in the working directory, or the file that EDGEWISE_CONFIG names.

    [all]                  # every command that takes the option
    device = "cuda"

    [discover]             # one command; outranks [all]
    model = "gpt2"
    examples = 32

Names are those of options. What is typed outranks the file.
"""

from __future__ import annotations

import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer.models import OptionInfo

from edgewise.errors import EdgewiseError, near_matches, quoted

NAME = "edgewise.toml"
VARIABLE = "EDGEWISE_CONFIG"
"""Environment variable: another file; empty, none."""
EVERY = "all"
INSTEAD = (("threshold", "edges", "share"), ("quick", "full"))
"""Options of which one stands instead of the others: who gives one does without a default of the others."""
_UNSAID = ("as_json", "quiet")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}

_used: list[str] = []


@dataclass(frozen=True)
class Option:
    """An option of a command: its parameter, its flags (the long one first), what kind of value it takes."""

    parameter: str
    flags: tuple[str, ...]
    off: str | None
    kind: type

    @property
    def name(self) -> str:
        return self.flags[0].lstrip("-")

    def typed(self, words: Sequence[str]) -> bool:
        """Whether it stands among words that were typed."""
        flags = (*self.flags, *([self.off] if self.off else ()))
        return any(_is(flag, word) for word in words for flag in flags)

    def words(self, value: Any) -> list[str]:
        """A value as it would be typed."""
        if self.kind is bool:
            return [self.flags[0]] if value else [self.off] if self.off else []
        return [self.flags[0], str(value)]


def _is(flag: str, word: str) -> bool:
    """Whether a word is a flag, alone or with its value: `--edges=20`, `-mgpt2`."""
    if flag.startswith("--"):
        return word == flag or word.startswith(f"{flag}=")
    return word.startswith(flag) and not word.startswith("--")


def options_of(command: Callable[..., Any]) -> dict[str, Option]:
    """A command's options by their names."""
    found = {}
    for parameter, hint in typing.get_type_hints(command, include_extras=True).items():
        told = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, OptionInfo)), None)
        if typing.get_origin(hint) is not Annotated or told is None:
            continue
        given = [one for one in (told.default, *(told.param_decls or ())) if isinstance(one, str)]
        flags = sorted(given or [f"--{parameter.replace('_', '-')}"], key=lambda one: not one.startswith("--"))
        first, _, off = flags[0].partition("/")
        option = Option(parameter, (first, *flags[1:]), off or None, _kind(typing.get_args(hint)[0]))
        found[option.name] = option
    return found


def _kind(hint: Any) -> type:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in kinds if kind in (bool, int, float)), str)


def defaults(name: str, words: Sequence[str], commands: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The defaults for a command, by its parameters, from the file; empty where there is none.

    Args:
        words: what was typed after the command.
        commands: gives all that may stand in the file, by name; asked only where there is one.

    Raises:
        EdgewiseError: the file cannot be read, or names what there is not; or a value is of another kind.
    """
    _used.clear()
    path = _path()
    if path is None:
        return {}
    import tomllib

    from edgewise.files import read_text

    try:
        sections = tomllib.loads(read_text(path, "the file of defaults"))
    except tomllib.TOMLDecodeError as error:
        raise EdgewiseError(f"{path} is not TOML: {error}") from None
    options = {one: options_of(command) for one, command in commands().items()}
    every = {one: option for own in options.values() for one, option in own.items()}
    for section, values in sections.items():
        if section != EVERY and section not in options:
            hint = near_matches(section, (EVERY, *options))
            raise EdgewiseError(f"{path}: there is no command {quoted(section)}{hint} (or [{EVERY}], for all of them)")
        if not isinstance(values, dict):
            raise EdgewiseError(f"{path}: {quoted(section)} should be a table of options, [{section}]")
        _check(f"{path}, [{section}]", values, every if section == EVERY else options[section])
    mine, found = options[name], {}
    given = {one for one, option in mine.items() if option.typed(words)}
    for section in (name, EVERY):  # the stronger first
        here = {one.replace("_", "-"): value for one, value in sections.get(section, {}).items()}
        found |= {one: here[one] for one in here if one in mine and one not in found and not _outranked(one, given)}
        given |= set(here)
    found = {one: value if mine[one].kind is not str else str(value) for one, value in found.items()}
    for one, value in found.items():
        if mine[one].parameter not in _UNSAID:
            _used.extend(mine[one].words(value))
    return {mine[one].parameter: value for one, value in found.items()}


def command_line() -> list[str]:
    """What was typed, with the defaults from the file as if they had been typed too, for a record that says it all."""
    return ["edgewise", *sys.argv[1:], *_used]


def _path() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named is None:
        return Path(NAME) if Path(NAME).is_file() else None
    return Path(named).expanduser() if named else None


def _outranked(name: str, given: set[str]) -> bool:
    """Whether an option is given by who is stronger, or another that stands instead of it."""
    return name in given or any(name in group and given.intersection(group) for group in INSTEAD)


def _check(where: str, values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    for name, value in values.items():
        option = options.get(name.replace("_", "-"))
        if option is None:
            raise EdgewiseError(f"{where}: there is no option {quoted(name)}{near_matches(name, options)}")
        allowed = (int, float) if option.kind is float else (str, int, float) if option.kind is str else (option.kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and option.kind is not bool):
            raise EdgewiseError(f"{where}: {name} should be {_WORDS[option.kind]}, not {quoted(value)}")
