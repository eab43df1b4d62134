"""A run folder as a page needs it: record, circuit, every decision, and the known circuit where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Decision
from edgewise.json_files import part
from edgewise.runs import read_run, read_trace
from edgewise.runs.shortlist import unpacked_shortlist
from edgewise.tasks.known import KNOWN_CIRCUITS


@dataclass(frozen=True)
class Source:
    """One run.

    Attributes:
        label: what the page calls it: the folder's name, made unique among the runs of a page.
        shortlist: the edges that a search chose from, where those were not all of the graph's.
        known: the circuit that people worked out for the run's task and model, or None.
        known_groups: that circuit's groups of components, by name.
    """

    label: str
    folder: Path
    record: dict[str, Any]
    circuit: Circuit
    steps: tuple[Decision, ...]
    shortlist: Circuit | None
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
    record, circuit = read_run(folder)
    _check_result(record, folder)
    known, groups = _known(record, circuit)
    steps = read_trace(folder, circuit.graph)
    shortlist = unpacked_shortlist(record["shortlist"], circuit.graph) if record.get("shortlist") else None
    return Source(label, folder, record, circuit, steps, shortlist, known, groups)


# What a page says first about a run.
_NUMBERS: dict[str, type] = {
    "n_edges": int,
    "n_graph_edges": int,
    "metric": float,
    "metric_full": float,
    "metric_ablated": float,
}


def _check_result(record: dict[str, Any], folder: Path) -> None:
    for name, kind in _NUMBERS.items():
        part(record, f"result.{name}", kind, f"the run record of {str(folder)!r}")


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
