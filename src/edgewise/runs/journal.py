"""Decisions on disk as they are taken: what a search that was killed goes on from.

A file of JSON lines, a decision each, as in `trace.jsonl`; where searches follow one another, a line with its threshold
begins each. Lines are written as edges are tested, and are on the disk, whatever happens to the machine, when all edges
into an input have been. What a crash tore or spoilt is dropped, with all that comes after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgewise.discovery import Decision, Progress
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.files import read_bytes
from edgewise.graph import Graph
from edgewise.json_files import parse_json, part
from edgewise.runs.folder import lock, sync
from edgewise.runs.reading import TESTED, decision_of, line_of


@dataclass
class _Kept:
    """A search in the file: its threshold, its decisions, and where each one's line ends.

    `seconds` is what it took, where it was made elsewhere.
    """

    threshold: float | None
    begins: int
    seconds: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


class DecisionFile:
    """A journal (see `discovery.Journal`) in a file.

    A disk that cannot be written any more costs what would have been kept, not the search: a warning says so.

    Attributes:
        told: called with how far a search has got when what was added is on the disk.
    """

    def __init__(self, path: Path, graph: Graph, *, several: bool = False) -> None:
        """
        Args:
            several: whether it keeps search after search.

        Raises:
            EdgewiseError: the file cannot be read or written, or another process writes to it.
        """
        self.path, self.graph, self.several = path, graph, several
        self.told: Callable[[Progress], None] | None = None
        self.searches: list[_Kept] = []
        self._at: _Kept | None = None
        self._file: BinaryIO | None = None
        try:
            path.touch()
            sync(path.parent)
            self._file = path.open("r+b")
        except OSError as error:
            raise EdgewiseError(f"cannot write {path}: {error.strerror}") from None
        try:
            lock(self._file, path)
            self._end = self._read()
            self._file.truncate(self._end)
            self._file.seek(self._end)
        except EdgewiseError:
            self._file.close()
            raise

    def _read(self) -> int:
        """Read what is whole, and say where that ends."""
        data, end = read_bytes(self.path, "the trace"), 0
        what = f"the trace {str(self.path)!r}"
        while (stop := data.find(b"\n", end)) >= 0:
            try:
                line = parse_json(data[end:stop].decode(), what)
                if self.several and isinstance(line, dict) and not set(TESTED) & set(line):
                    seconds = float(part(line, "seconds", float, what)) if "seconds" in line else 0.0
                    self._begin(_Kept(float(part(line, "threshold", float, what)), stop + 1, seconds))
                else:
                    decision = decision_of(line, self.graph, what)
                    if not self.searches:
                        self.searches.append(_Kept(None, 0))
                    self.searches[-1].decisions.append(decision)
                    self.searches[-1].ends.append(stop + 1)
            except (EdgewiseError, UnicodeDecodeError):
                break
            end = stop + 1
        return end

    def thresholds(self) -> Sequence[float]:
        """See `discovery.Journal`."""
        return [one.threshold for one in self.searches if one.threshold is not None]

    def search(self, threshold: float) -> Sequence[Decision]:
        """See `discovery.Journal`."""
        wanted = threshold if self.several else None
        found = next((one for one in self.searches if one.threshold == wanted), None)
        if found is None:
            if self.several:
                self._write(json.dumps({"threshold": threshold}))
            found = _Kept(wanted, self._end)
            self.searches.append(found)
        self._at = found
        return list(found.decisions)

    def last(self) -> tuple[float, Sequence[Decision]] | None:
        """The threshold and decisions of the search that came last, the only one that may not have ended."""
        if not self.searches or self.searches[-1].threshold is None:
            return None
        return self.searches[-1].threshold, list(self.searches[-1].decisions)

    def forget_last(self) -> None:
        """Drop the search that came last."""
        self.searches.pop()
        before = self.searches[-1] if self.searches else None
        self._shorten(0 if before is None else before.ends[-1] if before.ends else before.begins)

    def keep(self, threshold: float, decisions: Sequence[Decision], seconds: float) -> None:
        """Add a search that was made elsewhere, to its end, in so many seconds."""
        self._write(json.dumps({"threshold": threshold, "seconds": round(seconds, 4)}))
        self._at = _Kept(threshold, self._end, seconds)
        self._begin(self._at)
        for decision in decisions:
            self.add(decision)
        self._try(lambda file: os.fsync(file.fileno()))

    def seconds(self, threshold: float) -> float:
        """What the search at a threshold took where it was made elsewhere; 0 for others."""
        return next((one.seconds for one in self.searches if one.threshold == threshold), 0.0)

    def cut(self, count: int) -> None:
        """See `discovery.Journal`."""
        last = self.searches[-1]
        if self._at is not last:
            self._again(count)
            return
        del last.decisions[count:], last.ends[count:]
        self._shorten(last.ends[-1] if last.ends else last.begins)

    def _begin(self, search: _Kept) -> None:
        """A search is the last now, and the only one with its threshold."""
        self.searches = [one for one in self.searches if one.threshold != search.threshold]
        self.searches.append(search)

    def _again(self, count: int) -> None:
        """Begin the search that goes on at the end of the file, behind those that were kept after it."""
        assert self._at is not None
        decisions = self._at.decisions[:count]
        self._write(json.dumps({"threshold": self._at.threshold}))
        self._at = _Kept(self._at.threshold, self._end)
        self._begin(self._at)
        for decision in decisions:
            self.add(decision)

    def _shorten(self, end: int) -> None:
        self._end = end

        def shorten(file: BinaryIO) -> None:
            file.truncate(self._end)
            file.seek(self._end)

        self._try(shorten)

    def add(self, decision: Decision) -> None:
        """See `discovery.Journal`."""
        assert self._at is not None
        if self._at is not self.searches[-1]:
            self._again(len(self._at.decisions))
        self._write(line_of(decision))
        self._at.decisions.append(decision)
        self._at.ends.append(self._end)

    def _write(self, line: str) -> None:
        data = line.encode() + b"\n"

        def write(file: BinaryIO) -> None:
            file.write(data)
            file.flush()

        self._try(write)
        self._end += len(data)

    def flush(self, progress: Progress) -> None:
        """See `discovery.Journal`."""

        def keep(file: BinaryIO) -> None:
            os.fsync(file.fileno())
            if self.told is not None:
                self.told(progress)

        self._try(keep)

    def _try(self, action: Callable[[BinaryIO], None]) -> None:
        """Do something with the file, unless that has failed before."""
        if self._file is None:
            return
        try:
            action(self._file)
        except (OSError, EdgewiseError) as error:
            self.close()
            why = getattr(error, "strerror", None) or str(error)
            warnings.warn(
                f"what the search decides from here on cannot be kept while it goes ({why}): it goes on, but a crash "
                "would lose that",
                EdgewiseWarning,
                stacklevel=4,
            )

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
