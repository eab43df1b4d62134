"""A run folder while its search goes on: `run.json` says how far it has got, its decisions are on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.discovery import Progress
from edgewise.files import write_text
from edgewise.graph import Graph
from edgewise.runs.folder import RunFolder
from edgewise.runs.journal import DecisionFile
from edgewise.runs.reading import unit_of, wanted

TOLD_EVERY = 1.0
"""Seconds after which `run.json` says anew how far the search has got."""


def journal_of(folder: Path, graph: Graph, settings: Mapping[str, Any]) -> DecisionFile:
    """The journal of a search in a run folder, taken for this process alone.

    Raises:
        EdgewiseError: it cannot be read or written, or another process writes to it.
    """
    several = wanted(settings) is not None
    return DecisionFile(folder / ("searches.jsonl" if several else "trace.jsonl"), graph, several=several)


def keep_going(
    folder: RunFolder,
    record: Mapping[str, Any],
    *,
    files: Mapping[str, str | bytes],
    max_memory: int | None,
    before: float = 0.0,
    journal: DecisionFile | None = None,
) -> DecisionFile:
    """Let a folder say that its search is under way, from now on as decisions are taken. Returns where they are kept.

    Args:
        record: what `run.json` has while the search goes on, but for how far it has got.
        files: others that the folder has from the start.
        before: seconds that the search has taken already, where it was stopped and goes on.
        journal: that of a search which goes on.

    Raises:
        EdgewiseError: the folder cannot be written.
    """
    graph, started, told = Graph(**record["graph"]), time.perf_counter(), -TOLD_EVERY

    def text(far: Mapping[str, Any]) -> str:
        seconds = round(before + time.perf_counter() - started, 3)
        return json.dumps({**record, "finished": False, "under_way": {**far, "seconds": seconds}}, indent=2) + "\n"

    count = len(graph.sources) if unit_of(record) == "nodes" else graph.n_edges
    nothing = {"decided": 0, "of": count, "kept": 0, "tests": 0, "max_memory": max_memory}
    if journal is None:
        begun = folder.begin({"run.json": text(nothing), **files})
        journal = journal_of(begun, graph, record["settings"])
    else:
        assert folder.begun is not None
        begun = folder.begun
        write_text(begun / "run.json", text(nothing))
        (begun / "circuit.json").unlink(missing_ok=True)

    def tell(progress: Progress) -> None:
        nonlocal told
        now = time.perf_counter()
        if now - told >= TOLD_EVERY:
            told = now
            far = {name: getattr(progress, name) for name in _FAR}
            write_text(begun / "run.json", text({**nothing, **far, "of": progress.edges}))

    journal.told = tell
    return journal


_FAR = ("decided", "kept", "tests", "metric", "at", "threshold", "attempt", "passes")


def seconds_before(record: Mapping[str, Any]) -> float:
    """What a search had taken when it was stopped."""
    for name in ("under_way", "result"):
        seconds = (record.get(name) or {}).get("seconds")
        if isinstance(seconds, int | float):
            return float(seconds)
    return 0.0
