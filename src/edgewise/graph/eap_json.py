"""Circuit files in the JSON form of EAP-IG and the MIB benchmark.

    {"cfg":   {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
     "nodes": {"input": {"in_graph": true}, "a0.h0": …, "m0": …, "logits": …},
     "edges": {"input->a0.h0<q>": {"score": 0.1, "in_graph": false}, …}}

A graph that this form can hold is written with these three keys and nothing else. What it has no words for (port
edges, shared key/value heads, a split embedding, no MLPs) goes under a fourth key, `edgewise`, so that nothing is lost
and other tools still load the rest: there, an edge into a shared key or value stands once per query head, and an edge
behind an absent port edge, which carries nothing, is not in the graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.files import read_json, write_text
from edgewise.graph.circuit import Circuit
from edgewise.graph.graph import Graph
from edgewise.graph.names import PortEdge

FORMAT_VERSION = 1


def to_dict(circuit: Circuit) -> dict[str, Any]:
    """The circuit as the JSON object above. Edges without scores get 1.0 where present and 0.0 where not."""
    graph = circuit.graph
    plain = _eap_graph(graph)
    scores = circuit.scores if circuit.scores is not None else circuit.edges.astype(np.float64)
    carried = circuit.edges & (circuit.ports | ~graph.port_edges)[None, :]

    edges: dict[str, dict[str, Any]] = {}
    touched = {"input"} if not graph.split_embedding else {"tok", "pos"}
    touched.add("logits")
    for name, source, reader, row, column in _eap_edges(plain, graph):
        present = bool(carried[row, column])
        edges[name] = {"score": float(scores[row, column]), "in_graph": present}
        if present:
            touched |= {source, reader}
    nodes = {node.name: {"in_graph": node.name in touched} for node in plain.sources}
    nodes["logits"] = {"in_graph": True}

    cfg = {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": graph.d_model,
    }
    value: dict[str, Any] = {"cfg": cfg, "nodes": nodes, "edges": edges}
    if graph != plain:
        value["edgewise"] = _own_section(circuit, carried)
    return value


def from_dict(value: dict[str, Any], what: str = "the circuit") -> Circuit:
    """The circuit in a JSON object of the form above.

    Raises:
        EdgewiseError: a part is missing or of the wrong kind, an edge is unknown or missing, or the file chooses
            single neurons, which a circuit of edges cannot hold.
    """
    own = _part(value, "edgewise", what) if "edgewise" in value else None
    graph = _graph(value, own, what)
    nodes, listed = _part(value, "nodes", what), _part(value, "edges", what)
    for name, node in nodes.items():
        if isinstance(node, dict) and ("neurons" in node or "score" in node):
            kind = "neurons" if "neurons" in node else "node scores"
            raise EdgewiseError(f"{what}: node {name!r} has {kind}; edgewise reads circuits of edges only")

    edges, scores = np.zeros_like(graph.edges), np.zeros(graph.edges.shape)
    seen = 0
    for name, _, _, row, column in _eap_edges(_eap_graph(graph), graph):
        entry = listed.get(name)
        if entry is None:
            raise EdgewiseError(f"{what}: the edge {name!r} of {graph.describe()} is missing")
        scores[row, column], edges[row, column] = _entry(entry, name, what)
        seen += 1
    if seen != len(listed):
        known = {name for name, *_ in _eap_edges(_eap_graph(graph), graph)}
        stranger = next(name for name in listed if name not in known)
        raise EdgewiseError(f"{what}: {stranger!r} is not an edge of {graph.describe()}")
    if own is None:
        return Circuit(graph, edges, np.zeros_like(graph.port_edges), scores)

    ports, port_scores = np.zeros_like(graph.port_edges), np.zeros(len(graph.inputs))
    for name, entry in _part(own, "ports", what).items():
        row, column = graph.locate(name)
        if row is not None:
            raise EdgewiseError(f"{what}: {name!r} is listed as a port edge, which it is not")
        port_scores[column], ports[column] = _entry(entry, name, what)
    for name in own.get("behind_absent_ports", []):
        row, column = graph.locate(name)
        edges[row, column] = True
    scored = bool(own.get("scored", True))
    return Circuit(graph, edges, ports, scores if scored else None, port_scores if scored else None)


def save(circuit: Circuit, path: str | Path) -> None:
    """Write the circuit to `path`, whole or not at all."""
    write_text(Path(path), json.dumps(to_dict(circuit)))


def load(path: str | Path, what: str = "the circuit file") -> Circuit:
    """Read a circuit that edgewise or another tool wrote in the form above.

    Raises:
        EdgewiseError: there is no such file, or it does not hold such a circuit.
    """
    return from_dict(read_json(Path(path), what), f"{what} {str(path)!r}")


def _eap_graph(graph: Graph) -> Graph:
    """The nearest graph that EAP-IG can describe: no port edges, a key and a value input per query head.

    A split embedding or missing MLPs stay, and make it a file that only edgewise reads.
    """
    return replace(graph, n_kv_heads=graph.n_heads, ports=False)


def _eap_edges(plain: Graph, graph: Graph) -> Iterator[tuple[str, str, str, int, int]]:
    """Name, sender and reading node of each edge of `plain` in file order, with its row and column in `graph`."""
    reader: dict[int, tuple[str, int]] = {}
    for node in (*plain.sources, plain.node("logits")):
        for own, shared in zip(plain.inputs_of(node), graph.inputs_of(node), strict=True):
            reader[own] = (node.name, shared)
    for row, column in plain.positions_in_name_order():
        source, (node_name, shared) = plain.sources[row].name, reader[column]
        yield f"{source}->{plain.inputs[column].name}", source, node_name, row, shared


def _own_section(circuit: Circuit, carried: np.ndarray) -> dict[str, Any]:
    graph = circuit.graph
    port_scores = circuit.port_scores if circuit.port_scores is not None else circuit.ports.astype(np.float64)
    shape = {key: field for key, field in asdict(graph).items() if key != "d_model"}
    return {
        "version": FORMAT_VERSION,
        "graph": shape,
        "scored": circuit.scores is not None,
        "ports": {
            PortEdge(graph.inputs[column]).name: {
                "score": float(port_scores[column]),
                "in_graph": bool(circuit.ports[column]),
            }
            for layer in range(graph.n_layers)
            for column in graph.columns_of_layer(layer)
            if graph.port_edges[column]
        },
        "behind_absent_ports": graph.names(circuit.edges & ~carried),
    }


def _graph(value: dict[str, Any], own: dict[str, Any] | None, what: str) -> Graph:
    cfg = _part(value, "cfg", what)
    try:
        layers, heads = int(cfg["n_layers"]), int(cfg["n_heads"])
        graph = Graph(layers, heads, parallel=bool(cfg["parallel_attn_mlp"]), d_model=int(cfg.get("d_model", 0)))
    except KeyError as error:
        raise EdgewiseError(f"{what}: 'cfg' has no {error.args[0]!r}") from None
    except (TypeError, ValueError):
        raise EdgewiseError(f"{what}: 'cfg' should hold whole numbers, not {cfg}") from None
    if own is None:
        return graph
    if own.get("version") != FORMAT_VERSION:
        raise EdgewiseError(
            f"{what}: written by another version of edgewise (form {own.get('version')!r}, here {FORMAT_VERSION})"
        )
    try:
        return replace(graph, **_part(own, "graph", what))
    except TypeError:
        raise EdgewiseError(f"{what}: 'graph' does not describe a graph: {own['graph']}") from None


def _part(value: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    part = value.get(key)
    if not isinstance(part, dict):
        raise EdgewiseError(f"{what} is not a circuit file: it has no {key!r} object (expected cfg, nodes, edges)")
    return part


def _entry(entry: Any, name: str, what: str) -> tuple[float, bool]:
    try:
        return float(entry["score"]), bool(entry["in_graph"])
    except (KeyError, TypeError, ValueError):
        raise EdgewiseError(f"{what}: {name!r} should have a 'score' and an 'in_graph', not {entry!r}") from None
