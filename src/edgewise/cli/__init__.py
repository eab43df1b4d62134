"""The command line: the library's verbs from the shell, one module each."""

# Help lists the commands in this order.
# ruff: noqa: I001
from edgewise.cli import (
    discover,
    resume,
    batch,
    plan,
    patch,
    evaluate,
    draw,
    report,
    compare,
    sweep,
    export,
    reproduce,
    lists,
    prompts,
)
from edgewise.cli.entry import main

__all__ = [
    "batch",
    "compare",
    "discover",
    "draw",
    "evaluate",
    "export",
    "lists",
    "main",
    "patch",
    "plan",
    "prompts",
    "report",
    "reproduce",
    "resume",
    "sweep",
]
