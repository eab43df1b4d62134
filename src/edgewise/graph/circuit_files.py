"""Circuit files in JSON, of whatever tool: which form a file is in is told by what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.files import read_text
from edgewise.graph import auto_circuit, eap_json, edge_pruning
from edgewise.graph.circuit import Circuit
from edgewise.json_files import parse_json


def load(path: str | Path, what: str = "the circuit file") -> Circuit:
    """Read a circuit from a JSON file that edgewise, EAP-IG, AutoCircuit or Edge Pruning wrote.

    Raises:
        EdgewiseError: there is no such file, or it does not hold such a circuit.
    """
    path = Path(path)
    named = f"{what} {str(path)!r}"
    value: Any = parse_json(read_text(path, what), named)
    if edge_pruning.is_edge_list(value) or (value == [] and path.with_name(edge_pruning.CONFIG).is_file()):
        return edge_pruning.load(value, path, named)
    if not isinstance(value, dict):
        raise EdgewiseError(f"{named} should hold a JSON object, not a {type(value).__name__}")
    if auto_circuit.is_edge_scores(value):
        return auto_circuit.from_edge_scores(value, named)
    if {"qParams", "links"} <= value.keys():
        raise EdgewiseError(
            f"{named} is an attribution graph of circuit-tracer's form, whose nodes are features at positions; "
            "edgewise writes this form and does not read it"
        )
    return eap_json.from_dict(value, named)
