"""Series of circuits that one method gives at one setting after another, kept as they come.

A series is one JSON file, written anew and whole after every point, so that a sweep that is stopped goes on where it
was.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.files import read_json, write_text
from edgewise.graph import Circuit, Graph

FORM = 1


@dataclass(frozen=True)
class SweepPoint:
    """One circuit of a sweep.

    Attributes:
        setting: the threshold, lambda, wanted number of edges, or number of units masked that gave it.
        circuit: as the method gave it, edges that dangle included.
        metrics: its metrics on the prompts that were searched with, by name; lower is better.
        test_metrics: the same on test prompts, where there are any.
        seconds: what it took to find, 0 where another point's search gave it.
        same_as: the setting of that other point.
    """

    setting: float
    circuit: Circuit
    metrics: Mapping[str, float]
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    same_as: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "n_edges": self.circuit.n_edges,
            "n_edges_connected": self.circuit.n_edges_connected,
            "metrics": dict(self.metrics),
            "test_metrics": dict(self.test_metrics),
            "seconds": round(self.seconds, 4),
            "same_as": self.same_as,
            "circuit": packed(self.circuit),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], graph: Graph) -> SweepPoint:
        circuit = unpacked(data["circuit"], graph)
        for metrics in (data["metrics"], data["test_metrics"]):
            if not all(isinstance(value, int | float) for value in metrics.values()):
                raise ValueError("a metric is no number")
        if circuit.n_edges != data["n_edges"]:
            raise ValueError(f"{data['n_edges']} edges announced, {circuit.n_edges} found")
        return cls(
            float(data["setting"]),
            circuit,
            dict(data["metrics"]),
            dict(data["test_metrics"]),
            float(data["seconds"]),
            data["same_as"],
        )


@dataclass(frozen=True)
class Series:
    """The circuits of one method.

    Attributes:
        method: its name; `random` for the control.
        by: what a point's setting is: `threshold`, `lambda`, `edges` or `units masked`.
        points: in the order in which they were made.
        baseline: each metric of the whole model and with every edge ablated, on the search's prompts, by name.
    """

    method: str
    by: str
    points: tuple[SweepPoint, ...]
    baseline: Mapping[str, tuple[float, float]]


def packed(circuit: Circuit) -> str:
    """Which of the graph's edges a circuit has, as text: one bit per edge, deflated, base64."""
    graph = circuit.graph
    bits = np.concatenate([circuit.edges[graph.edges], circuit.ports[graph.port_edges]])
    return base64.b64encode(zlib.compress(np.packbits(bits).tobytes(), 9)).decode()


def unpacked(text: str, graph: Graph) -> Circuit:
    """What `packed` packed.

    Raises:
        ValueError: the text is none of its making, or of another graph.
    """
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True))
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(data) != (graph.n_edges + 7) // 8:
        raise ValueError("the circuit is of another graph")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=graph.n_edges).astype(bool)
    edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    first = int(graph.edges.sum())
    edges[graph.edges], ports[graph.port_edges] = bits[:first], bits[first:]
    return Circuit(graph, edges, ports)


class SeriesFile:
    """A series as it grows on disk.

    Attributes:
        points: what is done.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], graph: Graph) -> None:
        """
        Args:
            about: everything that makes the series what it is; a file about anything else is refused.

        Raises:
            EdgewiseError: the file holds another series, or is broken.
        """
        self.path, self.points = path, []
        self.about = json.loads(json.dumps({"form": FORM, **about, "graph": asdict(graph)}))
        self.baseline: dict[str, tuple[float, float]] = {}
        self.finished = False
        if not path.exists():
            return
        data = read_json(path, "the series")
        own = {key: data.get(key) for key in self.about}
        if own != self.about:
            where, theirs, ours = _first_difference(own, self.about)
            raise EdgewiseError(
                f"{str(path)!r} holds another series ({where} {_short(theirs)} there, {_short(ours)} here); choose "
                "another folder"
            )
        try:
            self.points = [SweepPoint.from_dict(point, graph) for point in data["points"]]
            self.baseline = {name: (float(one[0]), float(one[1])) for name, one in data["baseline"].items()}
            self.finished = bool(data["finished"])
            if any(set(point.metrics) != set(self.baseline) for point in self.points):
                raise ValueError("a circuit lacks a metric")
        except (KeyError, TypeError, ValueError) as error:
            raise EdgewiseError(f"the series {str(path)!r} is broken: {error}; remove it to make it again") from None

    def add(self, point: SweepPoint) -> None:
        """Keep one more point."""
        self.points.append(point)
        self.write()

    def finish(self) -> None:
        self.finished = True
        self.write()

    def write(self) -> None:
        data = {
            **self.about,
            "baseline": self.baseline,
            "finished": self.finished,
            "points": [point.to_dict() for point in self.points],
        }
        write_text(self.path, json.dumps(data, indent=1) + "\n")


def _first_difference(theirs: Any, ours: Any, where: str = "") -> tuple[str, Any, Any]:
    """Where two records differ first, and what each has there."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*ours, *theirs]:
            if theirs.get(key) != ours.get(key):
                return _first_difference(theirs.get(key), ours.get(key), f"{where} {key}".strip())
    return where, theirs, ours


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else text[:117] + "..."
