"""Run folders: plain files that anyone can read, written whole or not at all.

run.json               everything needed to run it again, and what came out
circuit.json           the circuit, in EAP-IG's form
trace.jsonl            every tested edge, in order
scores.safetensors     a score for every edge, where the method gives them
prompts.jsonl          the prompts, where they came from a user's file
constants.safetensors  what absent edges carry, where that was learned or is a mean over texts
known.json             the circuit that what was found is held against, where a user gave it
searches.jsonl         while a circuit of a wanted size is searched: every tested edge at every threshold tried

A search keeps its decisions in such a folder as it takes them (journal.py). Until it ends there is no circuit.json, and
run.json says under `under_way` how far it has got.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.files import partial_of, remove_leftovers, take_place, write_bytes

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None


class RunFolder:
    """A folder claimed for a run before it starts, so that a run that cannot be kept is refused at once.

    Files go into a hidden folder beside it, which takes its name when the run is finished, or has begun to keep what it
    decides (`begin`), and is removed if it comes to neither (after a kill, by the next run that claims the place).

    Attributes:
        path: where the run is to be.
        begun: where a run that has begun keeps what it decides: `path`, or where something is there, the first of
            `path-2`, `path-3`, … that is free.
    """

    def __init__(self, path: Path, *, replaces: bool = False) -> None:
        self.begun: Path | None = None
        self._reopened = False
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

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """The folder of a search that was stopped, to go on in it."""
        folder = cls.__new__(cls)
        folder.path = folder.begun = folder._partial = path
        folder._replaces, folder._reopened, folder._made = False, True, []
        return folder

    def begin(self, files: Mapping[str, str | bytes]) -> Path:
        """Give the folder its name with what a search has before its first decision. Returns the folder.

        Raises:
            EdgewiseError: it cannot be written.
        """
        _write(self._partial, files)
        self.begun = self._name()
        sync(self.begun.parent)
        return self.begun

    @property
    def has_decisions(self) -> bool:
        """Whether a search has begun to keep decisions here, from which it could go on."""
        return self.begun is not None and any(
            (self.begun / name).is_file() and (self.begun / name).stat().st_size for name in _JOURNALS
        )

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.begun is None:
            shutil.rmtree(self._partial, ignore_errors=True)
        elif kind is not None and not self._reopened and (issubclass(kind, EdgewiseError) or not self.has_decisions):
            shutil.rmtree(self.begun, ignore_errors=True)  # what can only fail again, or has not decided anything
        for parent in self._made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()

    def finish(self, files: Mapping[str, str | bytes], *, whole: bool = True) -> Path:
        """Write the files, by name, and give the folder its own name. Returns the folder.

        If something else has taken the name in the meantime, it is the first of `path-2`, `path-3`, … that is free; if
        the disk is full or the folder's parent has gone, it is one among the system's temporary files, and a warning
        says so: a result that took hours is not lost.

        Args:
            whole: the search has come to its end, so that what it could have gone on from is not needed any more.

        Raises:
            EdgewiseError: there is no room there either.
        """
        try:
            if self.begun is not None:
                return self._end(self.begun, files, whole)
            _write(self._partial, files)
            if self._replaces and _is_run(self.path):
                return self._replace(self._partial)
            return self._name()
        except EdgewiseError as error:
            if self.begun is None:
                shutil.rmtree(self._partial, ignore_errors=True)
            return _write_elsewhere(self.path.name, files, error)

    def _end(self, begun: Path, files: Mapping[str, str | bytes], whole: bool) -> Path:
        # The record comes last: until it is there, the search can still go on.
        _write(begun, {**{name: files[name] for name in files if name != "run.json"}, "run.json": files["run.json"]})
        if whole:
            (begun / "searches.jsonl").unlink(missing_ok=True)
        if self._replaces and begun != self.path and _is_run(self.path):
            return self._replace(begun)
        return begun

    def _name(self) -> Path:
        """Give the hidden folder its name."""
        while True:
            path = _first_free(self.path)
            try:
                self._partial.replace(path)
            except OSError as error:
                if _taken(path):
                    continue
                raise EdgewiseError(f"cannot write {path}: {error.strerror}") from None
            return path

    def _replace(self, finished: Path) -> Path:
        """Put the finished folder where the old run is, which is removed after that."""
        try:
            take_place(finished, self.path)
        except OSError as error:
            raise EdgewiseError(f"cannot write {self.path}: {error.strerror}") from None
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
    for name in _JOURNALS if force else ():
        if (path / name).is_file():
            with (path / name).open("rb") as file:
                lock(file, path / name)


def _is_run(path: Path) -> bool:
    """Whether a folder holds a run and nothing that edgewise does not write into one, so that it may be replaced."""
    return (path / "run.json").is_file() and all(one.name in _FILES for one in path.iterdir())


_JOURNALS = ("trace.jsonl", "searches.jsonl")
FILES = (
    *("run.json", "circuit.json", "trace.jsonl"),
    *("scores.safetensors", "prompts.jsonl", "constants.safetensors", "known.json", "searches.jsonl"),
    *("stability.json", "votes.json"),
)
"""What a run is kept in; not every run has those after the first three."""
_FILES = {*FILES, "report.html", *(f"{name}.{end}" for name in ("circuit", "groups") for end in ("svg", "pdf", "png"))}


class InUseError(EdgewiseError):
    """Another process has what is wanted, and may be done with it soon."""


def lock(file: BinaryIO, path: Path) -> None:
    """Take a file for this process alone, as long as it is open; another one's death frees it.

    Raises:
        InUseError: another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(f"another process is writing to {str(path)!r}; wait for its end") from None
    except OSError:
        pass  # a file system without locks


def sync(folder: Path) -> None:
    """Put on the disk which files a folder holds, as far as its file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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


def _taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _taken_message(path: Path) -> str:
    if path.is_dir():
        if _is_run(path) and b'"under_way": {' in (path / "run.json").read_bytes():
            return (
                f"the output folder {str(path)!r} holds a search that has not ended; go on with it by edgewise resume "
                f"{path}, or choose another"
            )
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
