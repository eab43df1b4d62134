"""The runs that a folder keeps, each in a line, from their records alone. None of this waits for torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.json_files import part
from edgewise.runs.reading import read_record, unit_of


@dataclass(frozen=True)
class Kept:
    """A run in a line.

    Attributes:
        run: its folder.
        finished: whether its search came to its end.
        decided, of: how far it came if not: edges (nodes) decided, of how many.
        size, unit: of the circuit, in `edges` or `nodes`.
        metric, value: what was measured, lower being better.
        recovered: the share of the way from the ablated run to the model.
        date: when the search began or ended, as the record has it.
        broken: why nothing more is known of it.
    """

    run: str
    task: str | None = None
    model: str | None = None
    method: str | None = None
    finished: bool = False
    decided: int | None = None
    of: int | None = None
    size: int | None = None
    unit: str = "edges"
    metric: str | None = None
    value: float | None = None
    recovered: float | None = None
    date: str | None = None
    broken: str | None = None


def kept_runs(folder: Path) -> list[Kept]:
    """The runs in a folder, and in the folders that lie in it (as those of a batch), the oldest first.

    Raises:
        EdgewiseError: there is no such folder.
    """
    if not folder.is_dir():
        raise EdgewiseError(f"{str(folder)!r}: there is no such folder; runs are kept in runs/ unless --out says else")
    try:
        found = [_in_a_line(one) for one in _folders(folder)]
    except OSError as error:
        raise EdgewiseError(f"cannot read {str(error.filename or folder)!r}: {error.strerror}") from None
    return sorted(found, key=lambda one: (one.date or "", one.run))


def _folders(folder: Path) -> Iterator[Path]:
    """Run folders: the folder itself, or those in it and in theirs."""
    if _is_run(folder):
        yield folder
        return
    for one in sorted(folder.iterdir()):
        if one.name.startswith(".") or not one.is_dir():
            continue
        if _is_run(one):
            yield one
            continue
        yield from (inner for inner in sorted(one.iterdir()) if not inner.name.startswith(".") and _is_run(inner))


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def _in_a_line(folder: Path) -> Kept:
    try:
        return _read(folder)
    except EdgewiseError as error:
        return Kept(str(folder), broken=str(error))


def _read(folder: Path) -> Kept:
    record = read_record(folder)
    settings, result, what = record["settings"], record["result"], f"the run record of {str(folder)!r}"
    unit, date = unit_of(record), record.get("date")
    about: dict[str, Any] = {
        "task": Path(settings["task"]["task"]).stem,
        "model": Path(settings["model"]["name"]).name or settings["model"]["name"],
        "method": settings.get("method", "acdc"),
        "metric": settings["metric"],
        "unit": unit,
        "date": date if isinstance(date, str) else None,
    }
    stopped = record.get("under_way") or (None if record.get("finished", True) else record.get("stopped"))
    if stopped is not None:
        counts = {name: part(stopped, name, int, what) for name in ("decided", "of")}
        return Kept(str(folder), **about, **counts)
    size = part(result, f"n_{unit}", int, what)
    value, recovered = (
        None if result.get(name) is None else float(part(result, name, float, what)) for name in ("metric", "recovered")
    )
    return Kept(str(folder), finished=True, size=size, value=value, recovered=recovered, **about)
