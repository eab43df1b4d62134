"""What kinds of values the fields of a request take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "Bytes": int}
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a name"}


def is_of(value: object, kind: type) -> bool:
    """Whether a value is of a kind; True is no number, and a number may be whole."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def names_edges(within: object) -> bool:
    """Whether something is what a search can be made within."""
    if isinstance(within, int) and not isinstance(within, bool):
        return within >= 1
    return (
        bool(str(within)) if isinstance(within, str | Path) else hasattr(within, "edges") or hasattr(within, "circuit")
    )


def names_texts(given: object) -> bool:
    """Whether something is what texts can be read by: a path, or what a record keeps of them."""
    return (
        bool(str(given))
        if isinstance(given, str | Path)
        else isinstance(given, Mapping) and all(isinstance(given.get(name), str) for name in ("file", "sha256"))
    )
