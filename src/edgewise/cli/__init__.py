"""The command line: the library's verbs from the shell, a module each (`commands.py` lists them)."""

from edgewise.cli.entry import main

__all__ = ["main"]
