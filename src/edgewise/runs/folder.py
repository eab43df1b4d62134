"""Run folders: plain files that anyone can read, written whole or not at all.

run.json            everything needed to run it again, and what came out
circuit.json        the circuit, in EAP-IG's form
trace.jsonl         every tested edge, in order
scores.safetensors  a score for every edge, where the method gives them
prompts.jsonl       the prompts, where they came from a user's file
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.files import read_json, write_bytes
from edgewise.graph import Circuit, load_circuit

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


class RunFolder:
    """A folder claimed for a run before it starts, so that a run that cannot be kept is refused at once.

    Files go into a hidden folder beside it, which takes its name when the run is finished and is removed when it is
    not; so the folder itself never holds half a run.
    """

    def __init__(self, path: Path) -> None:
        # A link to an empty folder stands for that folder.
        self.path = path = path.resolve() if path.is_symlink() else path
        self._made = [parent for parent in path.parents if not parent.exists()]  # innermost first
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        except OSError as error:
            raise EdgewiseError(f"cannot write to {str(path.parent)!r}: {error.strerror}") from None

    @classmethod
    def claim(cls, path: Path) -> RunFolder:
        """Claim exactly `path`.

        Raises:
            EdgewiseError: it is not empty, or cannot be made.
        """
        require_free(path)
        return cls(path)

    @classmethod
    def claim_next(cls, path: Path) -> RunFolder:
        """Claim `path`, or the first of `path-2`, `path-3`, … that is free."""
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

        If something else has taken the name in the meantime, it is the first of `path-2`, `path-3`, … that is free,
        so that the result is not lost.

        Raises:
            EdgewiseError: the disk is full, or the folder's parent has gone.
        """
        for name, content in files.items():
            (self._partial / name).parent.mkdir(exist_ok=True)
            write_bytes(self._partial / name, content if isinstance(content, bytes) else content.encode())
        self._partial.chmod(0o755)
        while True:
            path = _first_free(self.path)
            try:
                self._partial.replace(path)
            except OSError as error:
                if _taken(path):
                    continue
                raise EdgewiseError(f"cannot write {path}: {error.strerror}") from None
            return path


def require_free(path: Path) -> None:
    """Raise an EdgewiseError if a run cannot be written to `path` because something is there."""
    if _taken(path):
        raise EdgewiseError(_taken_message(path))


def load_run(folder: Path) -> tuple[dict[str, Any], Circuit]:
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
    for path, kind in _RECORD.items():
        value: Any = record
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise EdgewiseError(
                f"the run record of {str(folder)!r} is broken: {path!r} is missing or of the wrong kind"
            )
    return record, load_circuit(folder / "circuit.json", "the circuit of the run")


def _taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _taken_message(path: Path) -> str:
    if path.is_dir():
        what = "holds another run" if (path / "run.json").exists() else "is not empty"
        return f"the output folder {str(path)!r} {what}; nothing is overwritten, so choose another"
    return f"the output folder {str(path)!r} is a file; choose another"


def _first_free(path: Path) -> Path:
    number, free = 1, path
    while _taken(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
