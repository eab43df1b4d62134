"""The circuit that a command is given, in whatever form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    from edgewise.graph import Circuit


def load_any_circuit(path: Path) -> Circuit:
    """The circuit of a run folder, of a file in EAP-IG's JSON form, or of its `.pt` form."""
    from edgewise.runs.given import read_circuit

    return read_circuit(some_path(path, "the circuit"))


def some_path(path: Path, what: str) -> Path:
    # Typer turns an empty text into the current folder, which may have been meant beside some other empty text.
    if str(path) == "." and "" in sys.argv and "." not in sys.argv:
        raise EdgewiseError(f"{what} is empty")
    return path
