"""A run folder as a page needs it: record, circuit, every decision, and the known circuit where there is one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.files import read_text
from edgewise.graph import Circuit
from edgewise.runs import load_run
from edgewise.tasks.known import KNOWN_CIRCUITS


@dataclass(frozen=True)
class Step:
    """One line of `trace.jsonl`: a tested edge, the metric with it and without it, and whether it stayed."""

    edge: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Source:
    """One run.

    Attributes:
        label: what the page calls it: the folder's name, made unique among the runs of a page.
        known: the circuit that people worked out for the run's task and model, or None.
        known_groups: that circuit's groups of components, by name.
    """

    label: str
    folder: Path
    record: dict[str, Any]
    circuit: Circuit
    steps: tuple[Step, ...]
    known: Circuit | None
    known_groups: dict[str, tuple[str, ...]]

    @property
    def settings(self) -> dict[str, Any]:
        return self.record["settings"]

    @property
    def result(self) -> dict[str, Any]:
        return self.record["result"]

    @property
    def finished(self) -> bool:
        return bool(self.record.get("finished", True))

    @property
    def scored(self) -> bool:
        """Whether the method gave every edge a score."""
        return self.result.get("scoring") is not None and self.circuit.scores is not None


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """The runs in `folders`, which have to be over one graph.

    Raises:
        EdgewiseError: one is no run folder, is broken or of another version, or two are over different graphs.
    """
    labels = _labels(folders)
    sources = [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]
    for other in sources[1:]:
        first = sources[0]
        if other.circuit.graph.shape != first.circuit.graph.shape:
            raise EdgewiseError(
                f"the runs are over different graphs, so they cannot be shown on one page: {str(first.folder)!r} has "
                f"{first.circuit.graph.describe()}, {str(other.folder)!r} has {other.circuit.graph.describe()}"
            )
    return sources


def _read(folder: Path, label: str) -> Source:
    record, circuit = load_run(folder)
    _check_result(record, folder)
    steps = tuple(_steps(folder / "trace.jsonl", circuit))
    known, groups = _known(record, circuit)
    return Source(label, folder, record, circuit, steps, known, groups)


# What a page says first about a run.
_NUMBERS = ("n_edges", "n_graph_edges", "metric", "metric_full", "metric_ablated")


def _check_result(record: dict[str, Any], folder: Path) -> None:
    for name in _NUMBERS:
        value = record["result"].get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise EdgewiseError(
                f"the run record of {str(folder)!r} is broken: 'result.{name}' is missing or of the wrong kind"
            )


def _steps(path: Path, circuit: Circuit) -> list[Step]:
    what = "the trace of the run"
    steps = []
    for number, line in enumerate(read_text(path, what).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            step = Step(value["edge"], float(value["before"]), float(value["after"]), value["kept"])
            if not isinstance(step.edge, str) or not isinstance(step.kept, bool):
                raise TypeError
            if not (math.isfinite(step.before) and math.isfinite(step.after)):
                raise ValueError
            circuit.graph.locate(step.edge)
        except EdgewiseError as error:
            raise EdgewiseError(f"{what} {str(path)!r}, line {number}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise EdgewiseError(
                f"{what} {str(path)!r}, line {number}: should be an object with edge, before, after and kept"
            ) from None
        steps.append(step)
    return steps


def _known(record: dict[str, Any], circuit: Circuit) -> tuple[Circuit | None, dict[str, tuple[str, ...]]]:
    """The known circuit in the run's graph: only where the run itself was compared with one."""
    compared = record["result"].get("known_circuit")
    known = KNOWN_CIRCUITS.get(record["settings"]["task"]["task"])
    if not isinstance(compared, dict) or known is None:
        return None, {}
    try:
        return known.on(circuit.graph), dict(known.groups)
    except EdgewiseError:
        return None, {}


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names; with their parents' where two have one name, and numbered where that is not enough."""
    names = [folder.resolve().name or str(folder) for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{name}" for folder, name in zip(folders, names, strict=True)]
    seen: dict[str, int] = {}
    labels = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        labels.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return labels
