"""Run folders: plain files that anyone can read, written whole or not at all.

run.json            everything needed to run it again, and what came out
circuit.json        the circuit, in EAP-IG's form
trace.jsonl         every tested edge, in order
scores.safetensors  a score for every edge, where the method gives them
prompts.jsonl       the prompts, where they came from a user's file
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.files import partial_of, read_text, remove_leftovers, write_bytes
from edgewise.graph import Circuit, Decision, Graph, load_circuit
from edgewise.json_files import json_lines, part, read_json

FORM = 1

# What reading a run needs of its record, and of what kind.
_RECORD: dict[str, type] = {
    "result": dict,
    "settings.ablation": str,
    "settings.metric": str,
    "settings.task.task": str,
    "settings.task.examples": int,
    "settings.model.name": str,
    "settings.model.dtype": str,
    "settings.model.fingerprint": str,
}
_OPTIONAL: dict[str, type] = {
    "finished": bool,
    "settings.method": str,
    "settings.task.seed": int,
    "settings.task.variant": str,
    "settings.task.split": str,
    "settings.task.file": str,
    "settings.task.sha256": str,
    "settings.task.kept_sha256": str,
    "settings.model.folder": str,
    "settings.model.folded_value_biases": bool,
    "settings.model.permuted_seed": int,
}
_DECISION: dict[str, type] = {"edge": str, "before": float, "after": float, "kept": bool}
MOST_EXAMPLES = 1_000_000


class RunFolder:
    """A folder claimed for a run before it starts, so that a run that cannot be kept is refused at once.

    Files go into a hidden folder beside it, which takes its name when the run is finished and is removed when it is
    not (after a kill, by the next run that claims the place); so the folder itself never holds half a run.
    """

    def __init__(self, path: Path, *, replaces: bool = False) -> None:
        # A link to an empty folder stands for that folder.
        self.path = path = path.resolve() if path.is_symlink() else path
        self._replaces = replaces
        self._made = [parent for parent in path.parents if not parent.exists()]  # innermost first
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._partial = partial_of(path)
            self._partial.mkdir()
        except OSError as error:
            raise EdgewiseError(f"cannot write to {str(path.parent)!r}: {error.strerror}") from None

    @classmethod
    def claim(cls, path: Path, *, force: bool = False) -> RunFolder:
        """Claim exactly `path`; with `force`, a run that it holds stays until this one takes its place.

        Raises:
            EdgewiseError: it is not empty (with `force`, holds something else than a run), or cannot be made.
        """
        require_free(path, force=force)
        return cls(path, replaces=force)

    @classmethod
    def claim_next(cls, path: Path) -> RunFolder:
        """Claim `path`, or the first of `path-2`, `path-3`, … that is free."""
        remove_leftovers(path)
        return cls(_first_free(path))

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        for parent in self._made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()

    def finish(self, files: Mapping[str, str | bytes]) -> Path:
        """Write the files, by name, and give the folder its own name. Returns the folder.

        If something else has taken the name in the meantime, it is the first of `path-2`, `path-3`, … that is free; if
        the disk is full or the folder's parent has gone, it is one among the system's temporary files, and a warning
        says so: a result that took hours is not lost.

        Raises:
            EdgewiseError: there is no room there either.
        """
        try:
            _write(self._partial, files)
            if self._replaces and _is_run(self.path):
                return self._replace()
            while True:
                path = _first_free(self.path)
                try:
                    self._partial.replace(path)
                except OSError as error:
                    if _taken(path):
                        continue
                    raise EdgewiseError(f"cannot write {path}: {error.strerror}") from None
                return path
        except EdgewiseError as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            return _write_elsewhere(self.path.name, files, error)

    def _replace(self) -> Path:
        """Put the finished folder where the old run is, which is removed after that."""
        old = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.replaced")  # no leftover of a kill
        try:
            self.path.replace(old)
            try:
                self._partial.replace(self.path)
            except OSError:
                old.replace(self.path)
                raise
        except OSError as error:
            raise EdgewiseError(f"cannot write {self.path}: {error.strerror}") from None
        shutil.rmtree(old, ignore_errors=True)
        return self.path


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        try:
            (folder / name).parent.mkdir(exist_ok=True)
        except OSError as error:
            raise EdgewiseError(f"cannot write {folder / name}: {error.strerror}") from None
        write_bytes(folder / name, content if isinstance(content, bytes) else content.encode())


def _write_elsewhere(name: str, files: Mapping[str, str | bytes], why: EdgewiseError) -> Path:
    """What cannot be written to its own place, among the temporary files; if it cannot either, the first trouble."""
    other = None
    try:
        other = Path(tempfile.mkdtemp(prefix=f"edgewise-{name}-"))
        _write(other, files)
    except (OSError, EdgewiseError):
        if other is not None:
            shutil.rmtree(other, ignore_errors=True)
        raise why from None
    warnings.warn(f"{why}; what was to be written there is in {other} instead", EdgewiseWarning, stacklevel=3)
    return other


def require_free(path: Path, *, force: bool = False) -> None:
    """Raise an EdgewiseError if a run cannot be written to `path` because something is there, or more than a run."""
    if _taken(path) and not (force and _is_run(path)):
        raise EdgewiseError(_taken_message(path))


def _is_run(path: Path) -> bool:
    """Whether a folder holds a run and nothing that edgewise does not write into one, so that it may be replaced."""
    return (path / "run.json").is_file() and all(one.name in _FILES for one in path.iterdir())


FILES = ("run.json", "circuit.json", "trace.jsonl", "scores.safetensors", "prompts.jsonl")
"""What a run is kept in; not every run has the last two."""
_FILES = {*FILES, "report.html", *(f"circuit.{ending}" for ending in ("svg", "pdf", "png"))}


def require_own(path: Path, what: str, marks: Sequence[str]) -> None:
    """Refuse an output folder that is added to, unless it is empty or of the same kind.

    Args:
        what: the kind, as in "a sweep".
        marks: patterns of files, one of which every folder of the kind has.

    Raises:
        EdgewiseError: it is a file, holds a run, or holds other files.
    """
    if path.exists() and not path.is_dir():
        raise EdgewiseError(f"the output folder {str(path)!r} is a file; choose another")
    if (path / "run.json").exists():
        raise EdgewiseError(f"the output folder {str(path)!r} holds a run; choose another")
    held = sorted(one.name for one in path.iterdir() if not one.name.startswith(".")) if path.exists() else []
    if held and not any(any(path.glob(mark)) for mark in marks):
        raise EdgewiseError(
            f"the output folder {str(path)!r} holds {held[0]!r} and nothing of {what}; nothing is overwritten, so "
            "choose another"
        )


def read_run(folder: Path) -> tuple[dict[str, Any], Circuit]:
    """The record and the circuit of a run folder.

    Raises:
        EdgewiseError: it is not a run folder, a file is missing or broken, or it is of a newer form.
    """
    if not (folder / "run.json").is_file():
        raise EdgewiseError(f"{str(folder)!r} is not a run folder: it has no run.json")
    record = read_json(folder / "run.json", "the run record")
    if record.get("form") != FORM:
        raise EdgewiseError(
            f"the run in {str(folder)!r} was written by another version of edgewise (form {record.get('form')!r}, "
            f"here {FORM})"
        )
    check_record(record, f"the run record of {str(folder)!r}")
    return record, load_circuit(folder / "circuit.json", "the circuit of the run")


def check_record(record: Mapping[str, Any], what: str) -> None:
    """Refuse a run record that lacks what reading a run needs, or has something else there.

    Raises:
        EdgewiseError: naming the field.
    """
    for path, kind in _RECORD.items():
        part(record, path, kind, what)
    for path, kind in _OPTIONAL.items():
        found: Any = record
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None:
            part(record, path, kind, what)
    examples = record["settings"]["task"]["examples"]
    if not 1 <= examples <= MOST_EXAMPLES:
        raise EdgewiseError(
            f"{what} is broken: 'settings.task.examples' should be from 1 to {MOST_EXAMPLES:,}, not {examples}"
        )


def read_trace(folder: Path, graph: Graph) -> tuple[Decision, ...]:
    """The decisions of a run folder's `trace.jsonl`, in their order.

    Raises:
        EdgewiseError: there is no such file, or a line is no decision about an edge of `graph`.
    """
    path, what = folder / "trace.jsonl", "the trace of the run"
    decisions = []
    for number, decision in json_lines(read_text(path, what), f"{what} {str(path)!r}"):
        where = f"{what} {str(path)!r}, line {number}"
        for name, kind in _DECISION.items():
            part(decision, name, kind, where)
        try:
            graph.locate(decision["edge"])
        except EdgewiseError as error:
            raise EdgewiseError(f"{where}: {error}") from None
        decisions.append(Decision(**{name: kind(decision[name]) for name, kind in _DECISION.items()}))
    return tuple(decisions)


def _taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _taken_message(path: Path) -> str:
    if path.is_dir():
        if (path / "run.json").exists():
            force = " or replace it with force (--force)" if _is_run(path) else ""
            return (
                f"the output folder {str(path)!r} holds another run; nothing is overwritten, so choose another{force}"
            )
        return f"the output folder {str(path)!r} is not empty; nothing is overwritten, so choose another"
    return f"the output folder {str(path)!r} is a file; choose another"


def _first_free(path: Path) -> Path:
    number, free = 1, path
    while _taken(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
