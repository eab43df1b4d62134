"""Circuits in AutoCircuit's two forms (Miller, Chughtai and Saunders 2024, "Transformer Circuit Evaluation Metrics Are
Not Robust").

*Prune scores*: for every module that reads, a score for each of its heads and each sender before it,
`{"blocks.0.hook_q_input": [heads, senders], "blocks.0.hook_mlp_in": [senders], "blocks.1.hook_resid_post": [senders]}`.
Where queries, keys and values are not told apart, `hook_attn_in` stands for all three.

*Edges by name*: `{"Resid Start->A0.1.Q": 0.2, "A0.1->MLP 0": 0.0, "MLP 0->Resid End": 1.0}`, all edges of the graph.

Neither says which edges are in a circuit; there it is the edges of the largest scores. Here an edge of score 0 is left
out, and any other is in. The graph has one embedding, no port edges, and a key and a value input for each query head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.by_node import as_shown
from edgewise.graph.by_output import OutputCircuit
from edgewise.graph.circuit import Circuit, Floats
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.graph.graph import Graph
from edgewise.graph.names import Input, InputKind, Node

_HOOKS: dict[str, InputKind] = {
    "hook_q_input": "q",
    "hook_k_input": "k",
    "hook_v_input": "v",
    "hook_attn_in": "head",
    "hook_mlp_in": "mlp",
    "hook_resid_post": "logits",
}
_MODULE = re.compile(rf"blocks\.(0|[1-9][0-9]{{0,3}})\.({'|'.join(_HOOKS)})")
_EDGE = re.compile(
    r"(Resid Start|A\d{1,4}\.\d{1,4}|MLP \d{1,4})->(A\d{1,4}\.\d{1,4}(?:\.[QKV])?|MLP \d{1,4}|Resid End)"
)
_SIZES = re.compile(r"A(\d+)\.(\d+)|MLP (\d+)")


def prune_scores(circuit: Circuit, *, scored: bool) -> dict[str, Floats]:
    """A circuit as prune scores: arrays `[heads, senders]`, and `[senders]` of MLPs, the logits and a lone head.

    Args:
        scored: give every edge its score; else 1 to those in the circuit and 0 to the others.

    Raises:
        EdgewiseError: it has a split embedding, tells positions apart, or is one of neurons or output dimensions.
    """
    plain, values = _plain(circuit, scored)
    found = {}
    for name, kind, layer in _modules(plain.graph):
        columns = plain.graph.columns(kind, layer)
        senders = plain.graph.n_senders(plain.graph.inputs[columns.start])
        array = values[:senders, columns].T
        found[name] = np.ascontiguousarray(array if len(array) > 1 else array[0])
    return found


def edge_scores(circuit: Circuit, *, scored: bool) -> dict[str, float]:
    """A circuit as scores of all edges by AutoCircuit's names; `scored` and errors as for `prune_scores`."""
    plain, values = _plain(circuit, scored)
    graph = plain.graph
    rows, columns = graph.in_name_order(graph.edges)
    return {
        f"{_sender(graph.sources[row])}->{_reader(graph.inputs[column])}": float(values[row, column])
        for row, column in zip(rows, columns, strict=True)
    }


def is_prune_scores(value: object) -> bool:
    """Whether something is meant as prune scores: an object whose every key names a module that reads."""
    return (
        isinstance(value, Mapping) and bool(value) and all(isinstance(k, str) and _MODULE.fullmatch(k) for k in value)
    )


def is_edge_scores(value: object) -> bool:
    """Whether something is meant as edges by AutoCircuit's names: an object of which the first key is one."""
    return isinstance(value, Mapping) and bool(value) and _EDGE.fullmatch(str(next(iter(value)))) is not None


def from_prune_scores(value: Mapping[str, NDArray[Any]], what: str) -> Circuit:
    """The circuit, with scores, of prune scores; the graph is read off their shapes.

    Raises:
        EdgewiseError: a module is missing or too many, an array has another shape, or a number is none.
    """
    arrays = {name: np.asarray(one, dtype=np.float64) for name, one in value.items()}
    for name, one in arrays.items():
        if one.ndim > 2 or (one.ndim == 2 and _MODULE.fullmatch(name)[2] in ("hook_mlp_in", "hook_resid_post")):  # type: ignore[index]
            raise EdgewiseError(f"{what}: the scores of {name!r} tell positions apart, which edgewise does not read")
    found = [_MODULE.fullmatch(name) for name in arrays]
    kinds = {one[2] for one in found if one is not None}
    whole, mlps = "hook_attn_in" in kinds, "hook_mlp_in" in kinds
    first = arrays.get("blocks.0.hook_attn_in" if whole else "blocks.0.hook_q_input")
    if first is None:
        raise EdgewiseError(f"{what}: it has no scores of the heads of layer 0")
    layers = 1 + max(int(one[1]) for one in found if one is not None)
    heads = 1 if first.ndim == 1 else len(first)
    parallel = mlps and layers > 0 and arrays.get("blocks.0.hook_mlp_in", first).size == 1
    graph = Graph(layers, heads, mlps=mlps, parallel=parallel, whole_heads=whole)
    wanted: dict[str, tuple[InputKind, int]] = {name: (kind, layer) for name, kind, layer in _modules(graph)}
    for name in (*wanted, *arrays):
        if (name in wanted) != (name in arrays):
            trouble = "is missing" if name in wanted else "has no place"
            raise EdgewiseError(f"{what}: {name!r} {trouble} in {graph.describe()}")
    scores = np.zeros((len(graph.sources), len(graph.inputs)))
    for name, (kind, layer) in wanted.items():
        columns = graph.columns(kind, layer)
        count, senders = columns.stop - columns.start, graph.n_senders(graph.inputs[columns.start])
        if arrays[name].shape not in ((count, senders), *([(senders,)] if count == 1 else [])):
            shape = list(arrays[name].shape)
            raise EdgewiseError(f"{what}: {name!r} should be of shape {[count, senders]} here, not {shape}")
        scores[:senders, columns] = arrays[name].reshape(count, senders).T
    return _of_scores(graph, scores, what)


def from_edge_scores(value: Mapping[str, Any], what: str) -> Circuit:
    """The circuit, with scores, of all edges by AutoCircuit's names; the graph is read off the names.

    Raises:
        EdgewiseError: a name is no edge's, some edges are missing, or a score is no number.
    """
    layers = heads = 0
    for name in value:
        if not _EDGE.fullmatch(name):
            raise EdgewiseError(f"{what}: {quoted(name)} is not an edge as AutoCircuit writes it, as 'A0.1->MLP 2'")
        for layer, head, mlp in _SIZES.findall(name):
            layers, heads = max(layers, 1 + int(layer or mlp)), max(heads, 1 + int(head or 0))
    whole = not any(name.endswith((".Q", ".K", ".V")) for name in value)
    mlps = any("MLP" in name for name in value)
    graph = Graph(
        max(layers, 1), max(heads, 1), mlps=mlps, parallel=mlps and "A0.0->MLP 0" not in value, whole_heads=whole
    )
    if graph.n_edges != len(value):
        raise EdgewiseError(
            f"{what}: {len(value):,} edges are listed, and {graph.describe()} has {graph.n_edges:,}: every edge has to "
            "be there, with a score"
        )
    scores = np.zeros((len(graph.sources), len(graph.inputs)))
    rows, columns = graph.in_name_order(graph.edges)
    for row, column in zip(rows, columns, strict=True):
        name = f"{_sender(graph.sources[row])}->{_reader(graph.inputs[column])}"
        if name not in value:
            raise EdgewiseError(f"{what}: the edge {name!r} of {graph.describe()} is missing")
        score = value[name]
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise EdgewiseError(f"{what}: the score of {name!r} should be a number, not {quoted(score)}")
        scores[row, column] = score
    return _of_scores(graph, scores, what)


def _of_scores(graph: Graph, scores: Floats, what: str) -> Circuit:
    if not np.isfinite(scores).all():
        raise EdgewiseError(f"{what}: the scores of edges should be finite numbers")
    return Circuit(graph, graph.edges & (scores != 0), graph.port_edges, scores)


def _plain(circuit: Circuit, scored: bool) -> tuple[Circuit, Floats]:
    """The circuit in AutoCircuit's graph, and a value for each edge."""
    require_edges(circuit, "AutoCircuit has no form")
    graph = circuit.graph
    if isinstance(circuit, OutputCircuit) or graph.spans or graph.split_embedding:
        raise EdgewiseError(
            "AutoCircuit's form has one embedding, edges that are there at all positions or none, and senders that "
            f"write all they have; this circuit is over {graph.describe()}"
        )
    plain = as_shown(ungrouped(without_ports(circuit)))
    plain = replace(plain, graph=replace(plain.graph, coupled=False))
    if scored and plain.scores is None:
        raise EdgewiseError("the circuit's edges have no scores")
    return plain, plain.scores if scored and plain.scores is not None else plain.edges.astype(np.float64)


def _modules(graph: Graph) -> Iterator[tuple[str, InputKind, int]]:
    hooks = {kind: hook for hook, kind in _HOOKS.items()}
    for layer in range(graph.n_layers):
        kinds: list[InputKind] = [*graph.head_kinds, *(["mlp"] if graph.mlps else [])]
        for kind in kinds:
            yield f"blocks.{layer}.{hooks[kind]}", kind, layer
    yield f"blocks.{graph.n_layers - 1}.hook_resid_post", "logits", -1


def _sender(node: Node) -> str:
    if node.kind == "head":
        return f"A{node.layer}.{node.head}"
    return f"MLP {node.layer}" if node.kind == "mlp" else "Resid Start"


def _reader(place: Input) -> str:
    if place.kind == "logits":
        return "Resid End"
    if place.kind == "mlp":
        return f"MLP {place.layer}"
    return f"A{place.layer}.{place.head}" + ("" if place.kind == "head" else f".{place.kind.upper()}")
