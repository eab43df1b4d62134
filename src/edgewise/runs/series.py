"""Series of circuits that one method gives at one setting after another, kept as they come.

A series is a file of JSON lines (lines.py): what makes it what it is (with every metric's baseline), a line per
circuit, and a last line that says that it is finished.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgewise.attached import attach
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.json_files import part
from edgewise.runs.lines import LinesFile

FORM, ENDING = 2, ".jsonl"


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

    def summary(self) -> dict[str, Any]:
        """The point without its circuit, fit for JSON."""
        return {
            "setting": self.setting,
            "n_edges": self.circuit.n_edges,
            "n_edges_connected": self.circuit.n_edges_connected,
            "metrics": dict(self.metrics),
            "test_metrics": dict(self.test_metrics),
            "seconds": round(self.seconds, 4),
            "same_as": self.same_as,
        }

    def to_dict(self) -> dict[str, Any]:
        return {**self.summary(), "circuit": packed(self.circuit)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], graph: Graph, what: str) -> SweepPoint:
        """The point that `to_dict` wrote.

        Raises:
            EdgewiseError: a part is missing or of the wrong kind.
        """
        try:
            circuit = unpacked(part(data, "circuit", str, what), graph)
        except ValueError as error:
            raise EdgewiseError(f"{what} is broken: {error}") from None
        if circuit.n_edges != part(data, "n_edges", int, what):
            raise EdgewiseError(f"{what} is broken: {data['n_edges']} edges announced, {circuit.n_edges} found")
        metrics, test_metrics = (
            {name: part(data[key], name, float, f"{what}: {key!r}") for name in part(data, key, dict, what)}
            for key in ("metrics", "test_metrics")
        )
        setting, seconds = (float(part(data, key, float, what)) for key in ("setting", "seconds"))
        same_as = None if data.get("same_as") is None else float(part(data, "same_as", float, what))
        return cls(setting, circuit, metrics, test_metrics, seconds, same_as)


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
    _repr_html_: ClassVar[Callable[..., str]]
    """What notebooks show: `edgewise.reports.notebook`, set where that is defined."""

    def __repr__(self) -> str:
        """`<Series: acdc, 7 circuits of 3 to 120 edges>`"""
        sizes = [point.circuit.n_edges for point in self.points]
        between = f" of {min(sizes):,} to {max(sizes):,} edges" if sizes else ""
        return f"<Series: {self.method}, {len(sizes)} circuit{'s' * (len(sizes) != 1)}{between}>"


class Sweep(list[Series]):
    """The series of several methods, as `sweep` gives them."""

    _repr_html_: ClassVar[Callable[..., str]]


def deflated(data: bytes) -> str:
    """Bytes as text: deflated, base64."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def inflated(text: str, size: int) -> bytes | None:
    """What `deflated` deflated; None if it is not of this size. No more than that is inflated.

    Raises:
        ValueError: the text is none of its making.
    """
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return data if len(data) == size else None


def packed(circuit: Circuit) -> str:
    """Which of the graph's edges a circuit has, as text: one bit per edge, deflated, base64."""
    graph = circuit.graph
    bits = np.concatenate([circuit.edges[graph.edges], circuit.ports[graph.port_edges]])
    return deflated(np.packbits(bits).tobytes())


def unpacked(text: str, graph: Graph) -> Circuit:
    """What `packed` packed.

    Raises:
        ValueError: the text is none of its making, or of another graph.
    """
    data = inflated(text, (graph.n_edges + 7) // 8)
    if data is None:
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
        baseline: each metric of the whole model and with every edge ablated, by name; empty before `start`.
        finished: whether nothing is left to do.
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any], graph: Graph, settings: Sequence[float] | None = None
    ) -> None:
        """
        Args:
            about: everything that makes the series what it is; a file about anything else is refused.
            settings: those of the points, in order, where they are known.

        Raises:
            EdgewiseError: the file holds another series, or is broken.
        """
        self.path, self.points = path, []
        self.about = json.loads(json.dumps({"form": FORM, **about, "graph": asdict(graph)}))
        self.baseline: dict[str, tuple[float, float]] = {}
        self.finished = False
        self._file = LinesFile(path, "the series")
        if self._file.lines is not None:
            self._read(self._file.lines, graph, settings)

    def _read(self, lines: list[tuple[int, dict[str, Any]]], graph: Graph, settings: Sequence[float] | None) -> None:
        what = self._file.named
        if not lines:
            raise EdgewiseError(f"{what} is broken: it is empty; remove it to make it again")
        header = lines[0][1]
        baseline = part(header, "baseline", dict, f"{what}, line 1")
        own = {key: value for key, value in header.items() if key != "baseline"}
        self._file.require(own, self.about)
        for name, pair in baseline.items():
            if not isinstance(pair, list) or len(pair) != 2 or not all(type(one) in (int, float) for one in pair):
                raise EdgewiseError(f"{what}, line 1 is broken: 'baseline.{name}' should be two numbers")
            self.baseline[name] = (float(pair[0]), float(pair[1]))
        for number, line in lines[1:]:
            where = f"{what}, line {number}"
            if self.finished or (settings is not None and "finished" not in line and len(self.points) >= len(settings)):
                raise EdgewiseError(f"{where} is broken: the sweep has no more circuits")
            if "finished" in line:
                self.finished = part(line, "finished", bool, where)
                continue
            point = SweepPoint.from_dict(line, graph, where)
            if settings is not None and point.setting != settings[len(self.points)]:
                raise EdgewiseError(
                    f"{where} is broken: the setting is {point.setting}, where {settings[len(self.points)]} comes next"
                )
            if set(point.metrics) != set(self.baseline):
                raise EdgewiseError(f"{where} is broken: its metrics are not those of the baseline")
            self.points.append(point)
        if self.finished and settings is not None and len(self.points) < len(settings):
            raise EdgewiseError(f"{what} is broken: it says that it is finished, and circuits are missing")

    def start(self, baseline: Mapping[str, tuple[float, float]]) -> None:
        """Begin the file, or find out that it can be gone on with, before any circuit is looked for.

        Raises:
            EdgewiseError: it cannot be written, or an earlier start measured other metrics.
        """
        if not self.baseline:
            self.baseline = dict(baseline)
            self._file.begin({**self.about, "baseline": self.baseline})
            return
        if set(self.baseline) != set(baseline):
            raise EdgewiseError(f"the series {str(self.path)!r} is broken: its baseline has other metrics")
        self._file.append(None)

    def add(self, point: SweepPoint) -> None:
        """Keep one more point.

        Raises:
            EdgewiseError: a metric is no number, it cannot be written, or another process writes to the file; earlier
                points stay.
        """
        for name, value in (*point.metrics.items(), *point.test_metrics.items()):
            if not math.isfinite(value):
                raise EdgewiseError(f"{name} came out as {value} at {point.setting:g}, which cannot be kept")
        self._file.append(point.to_dict())
        self.points.append(point)

    def finish(self) -> None:
        self._file.append({"finished": True})
        self.finished = True


for _kind in (Series, Sweep):
    attach(_kind, "edgewise.reports.notebook", "_repr_html_")
