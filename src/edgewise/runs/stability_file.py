"""What a run folder keeps of searches made again (votes.py), as it is read. None of this waits for torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.json_files import part, read_json

STABILITY, VOTED = "stability.json", "votes.json"
"""The files: what the searches came to, and the circuit at the vote, whose scores are shares of searches."""


def read_stability(folder: Path) -> dict[str, Any] | None:
    """What `stability.json` holds; None if the search was not made again.

    Raises:
        EdgewiseError: the file is broken.
    """
    path = folder / STABILITY
    if not path.is_file():
        return None
    found, what = read_json(path, "the stability of the run"), f"the stability of the run {str(path)!r}"
    for name, kind in (("what", str), ("vote", float), ("jaccard", float), ("confidence", float), ("unit", str)):
        part(found, name, kind, what)
    for name, fields in (("searches", ("size", "jaccard")), ("levels", ("vote", "size", "metric", "jaccard"))):
        rows = part(found, name, list, what)
        if not rows or not all(isinstance(row, dict) and all(_number(row.get(one)) for one in fields) for row in rows):
            raise EdgewiseError(f"{what}: {name!r} should be a list of objects with {', '.join(fields)}, all numbers")
    if found.get("interval") is not None:
        for name in ("interval.low", "interval.high"):
            part(found, name, float, what)
    return found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
