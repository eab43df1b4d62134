"""The commands there are, and the module of each: a command waits for its own module alone."""

from __future__ import annotations

import copy
import importlib
import inspect
from typing import Any

import typer

from edgewise.cli.app import app

# Help lists the commands in this order.
_OF_THEIR_OWN = (
    *("discover", "show", "runs", "resume", "batch", "plan", "patch"),
    *("evaluate", "draw", "report", "compare", "clusters", "generate", "sweep", "export", "reproduce", "mib"),
)
COMMANDS = {
    **{name: name for name in _OF_THEIR_OWN},
    **dict.fromkeys(("tasks", "models", "methods"), "lists"),
    **dict.fromkeys(("check", "prompts"), "prompts"),
}


def every_command() -> typer.Typer:
    """`edgewise` with all of its commands."""
    for module in COMMANDS.values():
        importlib.import_module(f"edgewise.cli.{module}")
    order = list(COMMANDS)
    app.registered_commands.sort(key=lambda one: order.index(_name(one)))
    return app


def overview() -> typer.Typer:
    """`edgewise` with all of its commands as help lists them: without their options, which take time to make."""
    listed = copy.copy(every_command())
    listed.registered_commands = []
    for one in app.registered_commands:
        shown = copy.copy(one)
        shown.name, shown.help = _name(one), one.help or inspect.getdoc(one.callback)
        shown.callback = lambda: None
        listed.registered_commands.append(shown)
    return listed


def command(name: str) -> typer.Typer | None:
    """`edgewise` with one command (or group of them) alone; None where none has this name."""
    if name not in COMMANDS:
        return None
    importlib.import_module(f"edgewise.cli.{COMMANDS[name]}")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.registered_commands = [one for one in app.registered_commands if _name(one) == name]
    alone.registered_groups = [one for one in app.registered_groups if one.name == name]
    return alone


def callbacks() -> dict[str, Any]:
    """What each command runs, but for groups of commands."""
    return {_name(one): one.callback for one in every_command().registered_commands}


def _name(one: Any) -> str:
    return one.name or one.callback.__name__
