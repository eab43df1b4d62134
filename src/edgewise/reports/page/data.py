"""What the page is given: nodes, edges and runs as plain lists and numbers, small enough to send."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.evaluation import roc_point
from edgewise.evaluation.bootstrap import jaccard
from edgewise.evaluation.roc import RocPoint, roc_by_group
from edgewise.files import read_text
from edgewise.graph import Circuit, Graph
from edgewise.graph.groups import groups_found
from edgewise.json_files import json_lines
from edgewise.reports.page.listed import Coming, Listed, as_circuit, edge_name, has_edge, listed_edges, number
from edgewise.reports.page.order import Entering, Replay
from edgewise.reports.page.places import Box, Place, columns_of, places
from edgewise.reports.page.source import Source
from edgewise.reports.words import NEGATED

FORM = 2
MOST_STOPS = 1500
"""Stops of the slider along a trace; of longer traces only some decisions get one."""
ROC_POINTS = 300


def page_data(sources: Sequence[Source], measured: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    """Everything the page shows.

    Args:
        measured: for each run, what was measured with its model (see `measure`), and `notes` on what could not be.
        version: of edgewise.
    """
    graph = sources[0].circuit.graph
    orders = [Coming.of(source) for source in sources]
    listed = listed_edges(sources, orders)
    sent = as_circuit(graph, listed)
    first = Circuit.empty(graph)
    for source in sources:
        first = first | source.circuit if source.known is None else first | source.circuit | source.known
    groups = next((source.groups for source in sources if source.groups), {})
    found = places(sent, first & sent, groups)
    index = {place.full_name: at for at, place in enumerate(found.nodes)}
    return {
        "form": FORM,
        "version": version,
        "graph": {
            **asdict(graph),
            "words": graph.describe(),
            "edges": sources[0].real.most,
        },
        "nodes": [_node(place, groups) for place in found.nodes],
        "columns": {"wide": columns_of(found.wide), "close": columns_of(found.close)},
        "groups": list(groups),
        "edges": _edges(graph, listed, index),
        "runs": [
            _run(source, order, listed, extra) for source, order, extra in zip(sources, orders, measured, strict=True)
        ],
        "jaccard": [
            [number(jaccard(one.circuit.present, other.circuit.present), 4) for other in sources] for one in sources
        ],
        "negated": list(NEGATED),
        "docs": _documentation(),
        "gallery": None,
    }


def _documentation() -> str | None:
    """Where the documentation is, as the package itself says."""
    for line in metadata.metadata("edgewise").get_all("Project-URL") or ():
        name, _, url = line.partition(",")
        if name.strip().lower() == "documentation":
            return url.strip()
    return None


def _node(place: Place, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    group = next((at for at, members in enumerate(groups.values()) if place.name in members), None)
    return {
        "id": place.full_name,
        "name": place.name,
        "span": place.span,
        "kind": place.kind,
        "layer": place.layer,
        "wide": _rounded(place.wide),
        "close": _rounded(place.close),
        "readers": list(place.readers),
        "group": group,
    }


def _rounded(box: Box | None) -> list[float] | None:
    return None if box is None else [round(value, 1) for value in box]


_KINDS = {"q": "q", "k": "k", "v": "v", "head": "direct", "mlp": "mlp", "logits": "direct"}


def _edges(graph: Graph, listed: Sequence[Listed], index: Mapping[str, int]) -> dict[str, list[Any]]:
    places = [graph.inputs[one.column] for one in listed]
    at = [f"@{place.span}" if place.span else "" for place in places]
    return {
        "from": [
            -1 if one.row < 0 else index[graph.sources[one.row].name + span]
            for one, span in zip(listed, at, strict=True)
        ],
        "to": [index[place.owner + span] for place, span in zip(places, at, strict=True)],
        "kind": [_KINDS[place.kind] for place in places],
    }


def _run(source: Source, order: Coming, listed: Sequence[Listed], measured: Mapping[str, Any]) -> dict[str, Any]:
    settings, result = source.settings, source.result
    name = settings["model"]["name"]
    names = [edge_name(source.circuit.graph, one) for one in listed]
    there = [at for at, one in enumerate(listed) if has_edge(source.circuit, one)]
    decisions = [(at, when) for at, name in enumerate(names) for when in order.decided.get(name, ())]
    steps = [source.steps[when] for _, when in decisions]
    data: dict[str, Any] = {
        "label": source.label,
        "folder": source.folder.resolve().name,
        "finished": source.finished,
        "stopped": _stopped(source.record.get("stopped")),
        "date": _text(source.record.get("date")),
        "command": _command(source.record.get("command")),
        "settings": _rows(settings),
        "versions": _rows(source.record.get("versions")),
        "task": Path(settings["task"]["task"]).stem if "sha256" in settings["task"] else settings["task"]["task"],
        "model": _public(Path(name).name if settings["model"].get("folder") else name),
        "method": str(settings.get("method", "acdc")),
        "threshold": number(settings.get("threshold")),
        "budget": number(settings.get("budget")),
        "ablation": _ablation(settings),
        "metric": settings["metric"],
        "examples": settings["task"]["examples"],
        "result": {
            "edges": result["n_edges"],
            "connected": number(result.get("n_edges_connected")),
            "of": result["n_graph_edges"],
            "metric": number(result["metric"]),
            "full": number(result["metric_full"]),
            "ablated": number(result["metric_ablated"]),
            "accuracy": number(result.get("accuracy_full")),
            "tests": number(result.get("tests"), 12),
            "seconds": number(result.get("seconds")),
        },
        "in": there,
        "sent": len(there) == source.circuit.n_edges,
        "tested": {
            "edge": [at for at, _ in decisions],
            "at": [when + 1 for _, when in decisions],
            "before": [number(step.before) for step in steps],
            "after": [number(step.after) for step in steps],
            "kept": [step.kept for step in steps],
        },
        "scores": _scores(source, listed) if source.scored else None,
        "shortlist": None if source.shortlist is None else source.shortlist.n_edges,
        "slider": None,
        "sizes": [],
        "truth": _truth(source, order, listed),
        "groups": _groups(source),
        "values": None,
        "attention": None,
        "example": _example(source),
        "notes": source.notes,
    }
    if order.replay is not None:
        data["slider"] = _trace_slider(order.replay, listed)
    elif order.entering is not None:
        data["slider"] = _score_slider(order.entering, listed, source.circuit)
    data.update({key: value for key, value in measured.items() if value is not None})
    data["notes"] = [*source.notes, *measured.get("notes", ())]
    return {**data, "notes": [_public(note) for note in data["notes"]]}


def _trace_slider(again: Replay, listed: Sequence[Listed]) -> dict[str, Any]:
    count = len(again.present)
    stops = sorted({round(at) for at in np.linspace(0, count - 1, min(count, MOST_STOPS))})
    return {
        "kind": "trace",
        "stops": stops,
        "passes": again.passes,
        "present": [again.present[at] for at in stops],
        "metric": [number(again.metric[at]) for at in stops],
        "gone": [
            int(again.ports_gone[one.column] if one.row < 0 else again.gone[one.row, one.column]) for one in listed
        ],
    }


def _score_slider(order: Entering, listed: Sequence[Listed], circuit: Circuit) -> dict[str, Any] | None:
    """A stop for each threshold at which something enters, as long as everything above it has been sent."""
    entered = [float(order.ports[one.column] if one.row < 0 else order.edges[one.row, one.column]) for one in listed]
    sent = as_circuit(circuit.graph, listed)
    unsent = max(
        float(np.where(circuit.graph.edges & ~sent.edges, order.edges, -np.inf).max()),
        float(np.where(circuit.graph.port_edges & ~sent.ports, order.ports, -np.inf).max()),
    )
    thresholds = sorted({value for value in entered if math.isfinite(value) and value > unsent}, reverse=True)
    if not thresholds:
        return None
    at = {value: stop for stop, value in enumerate(thresholds, start=1)}
    sizes = order.sizes(thresholds)
    return {
        "kind": "score",
        "stops": [None, *(number(value) for value in thresholds)],
        "present": [0, *sizes],
        "enter": [at.get(value, -1) for value in entered],
        "found": min(range(len(thresholds)), key=lambda stop: abs(sizes[stop] - circuit.n_edges)) + 1,
    }


def _truth(source: Source, order: Coming, listed: Sequence[Listed]) -> dict[str, Any] | None:
    """The run's circuit beside the known one: its point, the curve of a scored method, and which edges are in it."""
    known = source.known
    if known is None:
        return None
    point = roc_point(source.circuit, known)
    nodes, true_nodes = set(source.circuit.nodes()), set(known.nodes())
    return {
        "source": source.known_as,
        "given": source.known_given,
        "edges": known.n_edges,
        "in": [at for at, one in enumerate(listed) if has_edge(known, one)],
        "found": (source.circuit & known).n_edges,
        "point": _point(point),
        "nodes": {
            "known": len(true_nodes),
            "found": len(nodes & true_nodes),
            "extra": len(nodes - true_nodes),
        },
        "curve": None if order.entering is None else _roc_curve(order.entering, known),
    }


def _groups(source: Source) -> list[dict[str, Any]]:
    """What the circuit has of every group of components, and its point at each where the truth is known."""
    points = {} if source.known is None else roc_by_group(source.circuit, source.known, source.groups)
    return [
        {
            "name": one.group,
            "members": list(one.members),
            "found": list(one.found),
            "point": None if one.group not in points else _point(points[one.group]),
        }
        for one in groups_found(source.groups, source.circuit)
    ]


def _point(point: RocPoint) -> dict[str, float | None]:
    return {
        "tpr": number(point.true_positive_rate),
        "fpr": number(point.false_positive_rate),
        "precision": number(point.precision),
    }


def _roc_curve(order: Entering, known: Circuit) -> list[list[float | None]]:
    """False and true positive rates at every threshold, thinned out."""
    graph = known.graph
    strength = np.concatenate([order.edges[graph.edges], order.ports[graph.port_edges]])
    true = np.concatenate([known.edges[graph.edges], known.ports[graph.port_edges]])
    ranking = np.argsort(-strength, kind="stable")
    strength, true = strength[ranking], true[ranking]
    ends = np.flatnonzero(np.append(strength[1:] != strength[:-1], True) & np.isfinite(strength))
    if len(ends) > ROC_POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, ROC_POINTS).round().astype(int))]
    hits, total, others = np.cumsum(true), max(1, int(true.sum())), max(1, int((~true).sum()))
    points = [[0.0, 0.0]]
    points += [[float((end + 1 - hits[end]) / others), float(hits[end] / total)] for end in ends]
    return [[number(value, 4) for value in point] for point in points]


def _scores(source: Source, listed: Sequence[Listed]) -> list[float | None]:
    scores, ports = source.circuit.scores, source.circuit.port_scores
    assert scores is not None
    return [
        (None if ports is None else number(float(ports[one.column])))
        if one.row < 0
        else number(float(scores[one.row, one.column]))
        for one in listed
    ]


MOST_TEXT = 400
"""Letters of a prompt."""


def cut(text: str) -> str:
    """A text that is not too long for a page."""
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def _example(source: Source) -> dict[str, Any] | None:
    """The first prompt pair, where it came from a user's own rows, which the run keeps."""
    path = source.folder / "prompts.jsonl"
    if not path.is_file():
        return None
    what = f"the prompts {str(path)!r}"
    _, row = next(json_lines(read_text(path, what), what), (0, {}))
    if not isinstance(row.get("clean"), str) or not isinstance(row.get("corrupt"), str):
        return None
    answers = {key: row.get(key) or [] for key in ("answers", "wrong")}
    answers["answers"] = answers["answers"] or row.get("answer") or []
    texts = {key: one if isinstance(one, list) else [one] for key, one in answers.items()}
    return {
        **{side: cut(row[side]) for side in ("clean", "corrupt")},
        **{key: [cut(str(one)) for one in some[:20]] for key, some in texts.items()},
    }


def _stopped(stopped: Any) -> dict[str, Any] | None:
    """Why and where an interrupted run stopped, if the record says so in full."""
    words, numbers = ("why", "at"), ("decided", "of", "tests")
    if not isinstance(stopped, Mapping) or any(number(stopped.get(key)) is None for key in numbers):
        return None
    return {key: str(stopped.get(key)) for key in words} | {key: stopped[key] for key in numbers}


def _command(command: Any) -> str | None:
    """The command as it can be typed again, where its files lie."""
    return shlex.join(_public(str(word)) for word in command) if isinstance(command, list) and command else None


_PATH = re.compile(r"""(?<![\w./~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\<>'"]+[/\\])+([^\s/\\<>'"]*)""")


def _public(text: str) -> str:
    """A text whose files have only their names: a page may go to anybody, and where things lie here is nobody's."""
    option, sign, value = text.rpartition("=") if text.startswith("--") else ("", "", text)
    if Path(value).is_absolute():
        return f"{option}{sign}{Path(value).name}"
    return _PATH.sub(r"\1", text)


def _ablation(settings: Mapping[str, Any]) -> str:
    over = settings.get("mean_over")
    return settings["ablation"] if over is None else f"{settings['ablation']} over {Path(over['file']).name}"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _rows(settings: Any, before: str = "") -> list[list[str]]:
    """Nested settings as rows of two texts: `task: examples`, `32`."""
    rows: list[list[str]] = []
    if not isinstance(settings, Mapping):
        return rows
    for key, value in settings.items():
        name = f"{before}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += _rows(value, f"{name}: ")
        elif value is not None:
            rows.append([name, ("yes" if value else "no") if isinstance(value, bool) else _public(str(value))])
    return rows
