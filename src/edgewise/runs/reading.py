"""Run folders as they are read: the record, the circuit and the trace, each checked. None of this waits for torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.files import read_text
from edgewise.graph import Circuit, Decision, Graph, load_circuit, locate_node, node_names
from edgewise.graph.names import parse_unit
from edgewise.json_files import json_lines, part, read_json

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
_OPTIONAL: dict[str, type] = {
    "finished": bool,
    "under_way": dict,
    "under_way.decided": int,
    "under_way.of": int,
    "settings.method": str,
    "settings.ablation_seed": int,
    "settings.mean_over": dict,
    "settings.mean_over.file": str,
    "settings.mean_over.sha256": str,
    "settings.level": str,
    "settings.task.seed": int,
    "settings.task.variant": str,
    "settings.task.split": str,
    "settings.task.file": str,
    "settings.task.sha256": str,
    "settings.task.kept_sha256": str,
    "settings.model.folder": str,
    "settings.model.folded_value_biases": bool,
    "settings.model.folded_norm_biases": bool,
    "settings.model.permuted_seed": int,
    "settings.model.dictionary": dict,
    "settings.model.dictionary.fingerprint": str,
    "settings.model.dictionary.path": str,
    "settings.model.dictionary.hooks": str,
}
_DECISION: dict[str, type] = {"before": float, "after": float, "kept": bool}
_LOCATE: Mapping[str, Callable[[Graph, str], object]] = {"edge": Graph.locate, "node": locate_node}
TESTED = ("edge", "node", "neuron", "feature")
"""What a line of a trace may be about."""
MOST_EXAMPLES = 1_000_000


def read_run(folder: Path) -> tuple[dict[str, Any], Circuit]:
    """The record and the circuit of a run folder.

    Raises:
        EdgewiseError: it is not a run folder, its search has not ended, a file is missing or broken, or it is of a
            newer form.
    """
    record = read_record(folder)
    if record.get("under_way") is not None:
        far = record["under_way"]
        raise EdgewiseError(
            f"the search in {str(folder)!r} has not ended ({far['decided']:,} of {far['of']:,} {unit_of(record)} "
            f"decided): it still runs, or was killed and goes on with: edgewise resume {folder}"
        )
    return record, load_circuit(folder / "circuit.json", "the circuit of the run")


def unit_of(record: Mapping[str, Any]) -> str:
    """What a run's search counts: `edges`, `nodes`, `neurons` or `features`."""
    return f"{record['settings'].get('level') or 'edge'}s"


def wanted(settings: Mapping[str, Any]) -> int | None:
    """How many edges, nodes, neurons or features a run was to have, if a number was asked for."""
    return next((settings[one] for one in ("edges", "neurons", "features") if settings.get(one) is not None), None)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run folder, whether its search has ended or not.

    Raises:
        EdgewiseError: as `read_run`.
    """
    if not (folder / "run.json").is_file():
        raise EdgewiseError(f"{str(folder)!r} is not a run folder: it has no run.json")
    record = read_json(folder / "run.json", "the run record")
    if record.get("form") != FORM:
        raise EdgewiseError(
            f"the run in {str(folder)!r} was written by another version of edgewise (form {record.get('form')!r}, "
            f"here {FORM})"
        )
    check_record(record, f"the run record of {str(folder)!r}")
    return record


def check_record(record: Mapping[str, Any], what: str) -> None:
    """Refuse a run record that lacks what reading a run needs, or has something else there.

    Raises:
        EdgewiseError: naming the field.
    """
    for path, kind in _RECORD.items():
        part(record, path, kind, what)
    for path, kind in _OPTIONAL.items():
        found: Any = record
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None:
            part(record, path, kind, what)
    examples = record["settings"]["task"]["examples"]
    if not 1 <= examples <= MOST_EXAMPLES:
        raise EdgewiseError(
            f"{what} is broken: 'settings.task.examples' should be from 1 to {MOST_EXAMPLES:,}, not {examples}"
        )


def read_trace(folder: Path, graph: Graph) -> tuple[Decision, ...]:
    """The decisions of a run folder's `trace.jsonl`, in their order.

    Raises:
        EdgewiseError: there is no such file, or a line is no decision about an edge of `graph`.
    """
    path, what = folder / "trace.jsonl", "the trace of the run"
    return tuple(
        decision_of(decision, graph, f"{what} {str(path)!r}, line {number}")
        for number, decision in json_lines(read_text(path, what), f"{what} {str(path)!r}")
    )


def decision_of(line: Any, graph: Graph, where: str) -> Decision:
    """The decision that a line of a trace holds.

    Raises:
        EdgewiseError: it is none about an edge, or a node, neuron or feature, of `graph`.
    """
    if not isinstance(line, Mapping):
        raise EdgewiseError(f"{where}: should be an object, not a {type(line).__name__}")
    what = next((kind for kind in TESTED if kind in line), "edge")
    for name, kind in {what: str, **_DECISION}.items():
        part(line, name, kind, where)
    try:
        _LOCATE.get(what, Graph.locate_unit)(graph, line[what])
    except EdgewiseError as error:
        raise EdgewiseError(f"{where}: {error}") from None
    return Decision(line[what], **{name: kind(line[name]) for name, kind in _DECISION.items()})


def line_of(decision: Decision) -> str:
    """A decision as a line of a trace: what was tested is its `edge`, its `node`, its `neuron` or its `feature`."""
    line = asdict(decision)
    tested = line.pop("edge")
    what = "edge" if "->" in tested else "node"
    if what == "node" and tested[0] in "mr" and "." in tested:
        what = "neuron" if parse_unit(tested).kind == "neuron" else "feature"
    return json.dumps({what: tested, **line})


def summary_of(record: Mapping[str, Any], circuit: Circuit) -> dict[str, Any]:
    """A run in short: what `edgewise discover --json` prints, without the run folder."""
    result = record["result"]
    names, count = node_names(circuit) if circuit.whole_nodes else circuit.names(), f"n_{circuit.unit}"
    return {
        circuit.unit: names,
        **({} if circuit.unit == "edges" else {count: result[count]}),
        **{key: result[key] for key in _COUNTS},
        "groups": result.get("groups"),
        "settings": record["settings"],
    }


_COUNTS = (
    *("n_edges", "n_edges_connected", "metric", "metric_full", "metric_ablated", "recovered", "accuracy"),
    *("accuracy_full", "known_circuit", "tests", "seconds"),
)
