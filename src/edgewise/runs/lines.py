"""Files of JSON lines that grow: what makes the work what it is, then a line for every part of it that is done.

A line is on disk before anything goes on, so work that is stopped goes on where it was; a last line that a crash has
torn is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, shorten
from edgewise.files import decode, read_bytes, write_text
from edgewise.json_files import json_lines


class LinesFile:
    """Such a file, of one process at a time.

    Attributes:
        lines: the whole lines that were in it, with their numbers; None where there is no file yet.
    """

    def __init__(self, path: Path, what: str) -> None:
        """
        Args:
            what: what the file is, for errors, as in "the series".

        Raises:
            EdgewiseError: it cannot be read, or a whole line is no JSON object.
        """
        self.path, self.what = path, what
        self.lines: list[tuple[int, dict[str, Any]]] | None = None
        self._end = 0  # of what is whole
        self._size = 0  # of the file as this process knows it, with what a crash has torn
        if path.exists():
            data = read_bytes(path, what)
            self._size, self._end = len(data), data.rfind(b"\n") + 1
            self.lines = list(json_lines(decode(data[: self._end], path, what), self.named))

    @property
    def named(self) -> str:
        return f"{self.what} {str(self.path)!r}"

    def require(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        """Refuse a file that is about something else, saying where that differs first.

        Args:
            theirs, ours: what it is about, and what it should be about.
        """
        if theirs != ours:
            where, there, here = _first_difference(theirs, ours)
            raise EdgewiseError(
                f"{str(self.path)!r} holds another {self.what.removeprefix('the ')} ({where} {_short(there)} there, "
                f"{_short(here)} here); choose another folder"
            )

    def begin(self, line: Mapping[str, Any]) -> None:
        """Write the file with its first line.

        Raises:
            EdgewiseError: it cannot be written.
        """
        text = json.dumps(line) + "\n"
        write_text(self.path, text)
        self._end = self._size = len(text.encode())

    def append(self, line: Mapping[str, Any] | None) -> None:
        """Put a line behind what is whole, in place of what was torn; None to see whether that can be done.

        Raises:
            EdgewiseError: it cannot be written, or another process writes to it.
        """
        try:
            with self.path.open("r+b") as file:
                if file.seek(0, os.SEEK_END) != self._size:
                    raise EdgewiseError(f"another process is writing to {self.named}; wait for its end")
                file.truncate(self._end)
                file.seek(self._end)
                file.write(b"" if line is None else f"{json.dumps(line)}\n".encode())
                file.flush()
                os.fsync(file.fileno())
                self._end = self._size = file.tell()
        except OSError as error:
            raise EdgewiseError(f"cannot write {self.path}: {error.strerror}") from None


def _first_difference(theirs: Any, ours: Any, where: str = "") -> tuple[str, Any, Any]:
    """Where two records differ first, and what each has there."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in [*ours, *theirs]:
            if theirs.get(key) != ours.get(key):
                return _first_difference(theirs.get(key), ours.get(key), f"{where} {key}".strip())
    return where, theirs, ours


def _short(value: Any) -> str:
    return shorten(json.dumps(value))
