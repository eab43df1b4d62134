"""Circuit files in the JSON form of EAP-IG and the MIB benchmark.

    {"cfg":   {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
     "nodes": {"input": {"in_graph": true}, "a0.h0": …, "m0": …, "logits": …},
     "edges": {"input->a0.h0<q>": {"score": 0.1, "in_graph": false}, …}}

A graph that this form can hold is written with these three keys and nothing else. What it has no words for (port
edges, shared key/value heads, a split embedding, no MLPs) goes under a fourth key, `edgewise`, so that nothing is lost
and other tools still load the rest: there, an edge into a shared key or value stands once per query head, one into a
whole head once for each of query, key and value, an edge that is present at some spans is present, with the sum of its
scores there, and an edge behind an absent port edge, which carries nothing, is not in the graph.

A circuit of neurons has every edge; its neurons stand under `edgewise` too, MLP by MLP. What EAP-IG calls `neurons` and
`neurons_scores` of a node are its output dimensions (by_output.py).

A circuit of whole nodes is written as EAP-IG writes one: each node but `logits` has a `score` beside its `in_graph`,
edges have the score 0, and those between nodes of the circuit are in the graph.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError, quoted
from edgewise.files import write_text
from edgewise.graph.by_neuron import NeuronCircuit, neurons_from_dict, neurons_to_dict
from edgewise.graph.by_node import as_shown, node_scores, of_nodes
from edgewise.graph.by_output import OutputCircuit, add_outputs, read_outputs
from edgewise.graph.circuit import Circuit, Floats
from edgewise.graph.graph import Bools, Graph
from edgewise.graph.names import PortEdge
from edgewise.json_files import read_json

FORMAT_VERSION = 1


def to_dict(circuit: Circuit) -> dict[str, Any]:
    """The circuit as the JSON object above. Edges without scores get 1.0 where present and 0.0 where not."""
    graph = circuit.graph
    plain = _eap_graph(graph)
    behind = circuit.edges & ~(circuit.ports | ~graph.port_edges)[None, :]
    carried = graph.at_any_span(circuit.edges & ~behind)
    scores = carried.astype(np.float64)
    if circuit.scores is not None:
        scores = np.asarray(graph.by_span(circuit.scores).sum(axis=-1))
    if circuit.whole_nodes:
        carried, scores = as_shown(circuit).edges, np.zeros(circuit.edges.shape)
    edges: dict[str, dict[str, Any]] = {}
    touched = {node.name for node in plain.sources[: plain.n_embeddings]}
    for name, source, reader, row, column in _eap_edges(plain, graph):
        present = bool(carried[row, column])
        edges[name] = {"score": float(scores[row, column]), "in_graph": present}
        if present:
            touched |= {source, reader}
    nodes: dict[str, dict[str, Any]] = {node.name: {"in_graph": node.name in touched} for node in plain.sources}
    if circuit.whole_nodes:
        own = node_scores(circuit)
        own = circuit.rows.astype(np.float64) if own is None else own
        for node, there, score in zip(plain.sources, circuit.rows.tolist(), own.tolist(), strict=True):
            nodes[node.name] = {"in_graph": there, "score": score}
    if isinstance(circuit, OutputCircuit):
        add_outputs(nodes, circuit)
    nodes["logits"] = {"in_graph": True}

    cfg = {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": graph.d_model,
    }
    value: dict[str, Any] = {"cfg": cfg, "nodes": nodes, "edges": edges}
    if graph != replace(plain, mlps=True, split_embedding=False):
        value["edgewise"] = _own_section(circuit, behind)
    return value


def from_dict(value: dict[str, Any], what: str = "the circuit") -> Circuit:
    """The circuit in a JSON object of the form above. An edge of a node that is not in the graph is not, either.

    Where nodes have scores it is a circuit of whole nodes.

    Raises:
        EdgewiseError: a part is missing or of the wrong kind, two of them contradict each other, an edge is unknown or
            missing.
    """
    return read_outputs(_of_edges(value, what), value["nodes"], what)


def _of_edges(value: dict[str, Any], what: str) -> Circuit:
    """The circuit, whatever its nodes' output dimensions."""
    own = _part(value, "edgewise", what) if "edgewise" in value else None
    graph = _graph(value, own, what)
    nodes, listed = _part(value, "nodes", what), _part(value, "edges", what)
    absent = {name for name, node in nodes.items() if _node_absent(node, name, what)}
    plain = _eap_graph(graph)
    if plain.n_edges > 10 * len(listed) + 1000:  # nothing is made for a graph that the file does not hold
        raise EdgewiseError(f"{what}: of the {plain.n_edges:,} edges of {graph.describe()}, {len(listed):,} are listed")
    edges, scores = np.zeros_like(graph.lumped.edges), np.zeros(graph.lumped.edges.shape)
    seen = 0
    for name, source, reader, row, column in _eap_edges(plain, graph):
        entry = listed.get(name)
        if entry is None:
            raise EdgewiseError(f"{what}: the edge {name!r} of {graph.describe()} is missing")
        scores[row, column], present = _entry(entry, name, what)
        edges[row, column] |= present and source not in absent and reader not in absent
        seen += 1
    if seen != len(listed):
        known = {name for name, *_ in _eap_edges(plain, graph)}
        stranger = next(name for name in listed if name not in known)
        raise EdgewiseError(f"{what}: {quoted(stranger)} is not an edge of {graph.describe()}")
    if any("score" in node for node in nodes.values()):
        return _of_whole_nodes(graph, nodes, edges, own is None or own.get("scored", True) is True, what)
    if own is None:
        return Circuit(graph, edges, np.zeros_like(graph.port_edges), scores)
    for units in ("neurons", "features"):
        if units in own:
            return neurons_from_dict(graph, edges, _part(own, units, what), what)

    lumped = edges
    if graph.spans:
        edges, scores = _edges_at_spans(own, graph, what)
    ports, port_scores = np.zeros_like(graph.port_edges), np.zeros(len(graph.inputs))
    listed_ports = _part(own, "ports", what)
    for name, entry in listed_ports.items():
        row, column = _locate(graph, name, what)
        if row is not None:
            raise EdgewiseError(f"{what}: {name!r} is listed as a port edge, which it is not")
        port_scores[column], ports[column] = _entry(entry, name, what)
    if len(listed_ports) != graph.port_edges.sum():
        missing = next(name for name in graph.names(np.zeros_like(edges), graph.port_edges) if name not in listed_ports)
        raise EdgewiseError(f"{what}: the port edge {missing!r} of {graph.describe()} is missing")
    behind = own.get("behind_absent_ports", [])
    if not isinstance(behind, list):
        raise EdgewiseError(f"{what}: 'behind_absent_ports' should be a list of edges, not {quoted(behind)}")
    for name in behind:
        row, column = _locate(graph, name, f"{what}: in 'behind_absent_ports'")
        if row is None:
            raise EdgewiseError(f"{what}: {name!r} is listed in 'behind_absent_ports', but it is a port edge")
        edges[row, column] = True
    carried = edges & (ports | ~graph.port_edges)[None, :]
    if graph.spans and (graph.at_any_span(carried) != lumped).any():
        raise EdgewiseError(f"{what}: 'edges' and those of the spans do not have the same edges in the graph")
    scored = own.get("scored", True)
    if not isinstance(scored, bool):
        raise EdgewiseError(f"{what}: 'scored' should be true or false, not {quoted(scored)}")
    return Circuit(graph, edges, ports, scores if scored else None, port_scores if scored else None)


def _node_absent(node: Any, name: str, what: str) -> bool:
    """Whether a file leaves a node out of the graph, and with it, in EAP-IG, every edge that touches it."""
    if not isinstance(node, dict) or type(node.get("in_graph", True)) is not bool:
        raise EdgewiseError(
            f"{what}: node {quoted(name)} should have an 'in_graph' (true or false), not {quoted(node)}"
        )
    return not node.get("in_graph", True)


def _of_whole_nodes(graph: Graph, nodes: dict[str, Any], edges: Bools, scored: bool, what: str) -> Circuit:
    """The circuit of a file whose nodes have scores; `edges` are those that it has, between nodes that it has."""
    if graph.ports:
        raise EdgewiseError(f"{what}: its nodes have scores, and whole nodes go with a graph without port edges")
    scores = np.zeros(len(graph.sources))
    for row, node in enumerate(graph.sources):
        if "score" not in nodes.get(node.name, {}):
            raise EdgewiseError(f"{what}: node {node.name!r} has no 'score', and others have one")
        score = nodes[node.name]["score"]
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise EdgewiseError(
                f"{what}: the score of node {node.name!r} should be a finite number, not {quoted(score)}"
            )
        scores[row] = score
    there = np.array([nodes[node.name].get("in_graph", True) for node in graph.sources])
    circuit = of_nodes(graph, there, scores if scored else None)
    if (as_shown(circuit).edges != edges).any():
        raise EdgewiseError(
            f"{what}: its nodes have scores, so it is one of whole nodes, but some of the edges between the nodes in "
            "the graph are left out"
        )
    return circuit


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

    That heads are coupled is not said there either. A split embedding or missing MLPs stay, and make it a file that
    only edgewise reads.
    """
    return replace(
        graph, n_kv_heads=graph.n_heads, ports=False, coupled=False, whole_heads=False, spans=(), **_NO_UNITS
    )


def _eap_edges(plain: Graph, graph: Graph) -> Iterator[tuple[str, str, str, int, int]]:
    """Name, sender and reading node of each edge of `plain` in file order; its row and column in `graph.lumped`."""
    reader: dict[int, tuple[str, int]] = {}
    for node in (*plain.sources, plain.node("logits")):
        own_inputs, shared_inputs = plain.inputs_of(node), graph.lumped.inputs_of(node)
        if len(shared_inputs) == 1:
            shared_inputs *= len(own_inputs)
        for own, shared in zip(own_inputs, shared_inputs, strict=True):
            reader[own] = (node.name, shared)
    senders, places = tuple(plain.source_index), tuple(plain.input_index)
    for row, column in zip(*plain.in_name_order(plain.edges), strict=True):
        node_name, shared = reader[column]
        yield f"{senders[row]}->{places[column]}", senders[row], node_name, row, shared


def _edges_at_spans(own: dict[str, Any], graph: Graph, what: str) -> tuple[Bools, Floats]:
    """Which edges are present at which spans, and their scores there, from edgewise's own section."""
    edges, scores = np.zeros_like(graph.edges), np.zeros(graph.edges.shape)
    listed = _part(own, "edges", what)
    for name, entry in listed.items():
        row, column = _locate(graph, name, what)
        if row is None:
            raise EdgewiseError(f"{what}: {name!r} is listed as an edge of a span, but it is a port edge")
        scores[row, column], edges[row, column] = _entry(entry, name, what)
    if len(listed) != graph.edges.sum():
        missing = next(name for name in graph.names(graph.edges) if name not in listed)
        raise EdgewiseError(f"{what}: the edge {missing!r} of {graph.describe()} is missing")
    return edges, scores


def _own_section(circuit: Circuit, behind: Bools) -> dict[str, Any]:
    graph = circuit.graph
    port_scores = circuit.port_scores
    if port_scores is None:
        port_scores = np.zeros(len(graph.inputs)) if circuit.scores is not None else circuit.ports.astype(np.float64)
    shape = {key: field for key, field in asdict(graph).items() if key not in ("d_model", *_RARE)}
    rare = {key: getattr(graph, key) for key in _RARE if getattr(graph, key)}
    shape |= {key: list(value) if isinstance(value, tuple) else value for key, value in rare.items()}
    scores = circuit.edges.astype(np.float64) if circuit.scores is None else circuit.scores
    at_spans = {}
    if graph.spans:
        rows, columns = graph.in_name_order(graph.edges)
        at_spans["edges"] = {
            name: {"score": float(scores[row, column]), "in_graph": bool(circuit.edges[row, column])}
            for name, row, column in zip(graph.names(graph.edges), rows, columns, strict=True)
        }
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
        "behind_absent_ports": graph.names(behind),
        **({circuit.unit: neurons_to_dict(circuit)} if isinstance(circuit, NeuronCircuit) else {}),
        **at_spans,
    }


def _graph(value: dict[str, Any], own: dict[str, Any] | None, what: str) -> Graph:
    cfg = _part(value, "cfg", what)
    shape: dict[str, Any] = {
        "n_layers": _field(cfg, "n_layers", int, "cfg", what),
        "n_heads": _field(cfg, "n_heads", int, "cfg", what),
        "parallel": _field(cfg, "parallel_attn_mlp", bool, "cfg", what),
        "d_model": _field({"d_model": 0, **cfg}, "d_model", int, "cfg", what),
    }
    if own is not None:
        told = _own_shape(own, what)
        for name in ("n_layers", "n_heads", "parallel"):
            if shape[name] != told[name]:
                key = "parallel_attn_mlp" if name == "parallel" else name
                raise EdgewiseError(f"{what}: {key!r} is {shape[name]} in 'cfg' and {told[name]} in 'graph'")
        shape |= told
    try:
        return Graph(**shape)
    except EdgewiseError as error:
        raise EdgewiseError(f"{what}: {error}") from None


def _own_shape(own: dict[str, Any], what: str) -> dict[str, Any]:
    """The fields of the graph in edgewise's own section of a file."""
    if own.get("version") != FORMAT_VERSION:
        raise EdgewiseError(
            f"{what}: written by another version of edgewise (form {quoted(own.get('version'))}, here {FORMAT_VERSION})"
        )
    shape = _part(own, "graph", what)
    kinds = {one.name: _TYPES[str(one.type)] for one in fields(Graph) if one.name != "d_model"}
    for name in shape:
        if name not in kinds:
            raise EdgewiseError(f"{what}: 'graph' has {quoted(name)}, which describes no graph that edgewise knows")
    told = {**_RARE, **shape}
    found = {name: _field(told, name, kind, "graph", what) for name, kind in kinds.items()}
    if not all(isinstance(span, str) for span in found["spans"]):
        raise EdgewiseError(f"{what}: 'spans' in 'graph' should be a list of names, not {quoted(found['spans'])}")
    if not all(type(number) is int for number in found["features"]):
        numbers = quoted(found["features"])
        raise EdgewiseError(f"{what}: 'features' in 'graph' should be a list of whole numbers, not {numbers}")
    return {**found, "spans": tuple(found["spans"]), "features": tuple(found["features"])}


_NO_UNITS: dict[str, Any] = {"neurons": 0, "features": (), "stream_features": False}
_RARE: dict[str, Any] = {"coupled": False, "whole_heads": False, "spans": [], **_NO_UNITS, "features": []}
"""What is not said of most graphs, and what holds of those."""
_TYPES: dict[str, type] = {"bool": bool, "int": int, "tuple[str, ...]": list, "tuple[int, ...]": list}
_WORDS = {bool: "true or false", int: "a whole number", list: "a list"}


def _field(part: dict[str, Any], name: str, kind: type, where: str, what: str) -> Any:
    """`part[name]`, which must be exactly of `kind`: JSON's true is no number, 2.5 no count, "no" no truth value."""
    if name not in part:
        raise EdgewiseError(f"{what}: {where!r} has no {name!r}")
    if type(part[name]) is not kind:
        raise EdgewiseError(f"{what}: {name!r} in {where!r} should be {_WORDS[kind]}, not {quoted(part[name])}")
    return part[name]


def _locate(graph: Graph, name: Any, what: str) -> tuple[int | None, int]:
    if not isinstance(name, str):
        raise EdgewiseError(f"{what}: {quoted(name)} is not the name of an edge")
    try:
        return graph.locate(name)
    except EdgewiseError as error:
        raise EdgewiseError(f"{what}: {error}") from None


def _part(value: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    part = value.get(key)
    if not isinstance(part, dict):
        raise EdgewiseError(f"{what} is not a circuit file: it has no {key!r} object (expected cfg, nodes, edges)")
    return part


def _entry(entry: Any, name: str, what: str) -> tuple[float, bool]:
    score, present = (entry.get("score"), entry.get("in_graph")) if isinstance(entry, dict) else (None, None)
    if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(present, bool):
        raise EdgewiseError(
            f"{what}: {quoted(name)} should have a 'score' (a number) and an 'in_graph' (true or false), not "
            f"{quoted(entry)}"
        )
    if not math.isfinite(score):
        raise EdgewiseError(f"{what}: the score of {quoted(name)} is {score}, which is no finite number")
    return float(score), present
