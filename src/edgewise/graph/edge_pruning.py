"""Circuits in Edge Pruning's form (Bhaskar et al. 2024, "Finding Transformer Circuits with Edge Pruning").

A list of the edges in the circuit, each a sender and a reader: `[["a0.h1", "a1.h0.q"], ["m0", "resid_post"]]`. The
embedding is `embeds`, or `tok_embeds` and `pos_embeds`; where no edge begins there, it is no node, and always there.
`a1.h0.k` is the key of key/value head 0.

The list does not say how many layers and heads there are. It is written beside the pruned model, whose config.json
does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.by_node import as_shown
from edgewise.graph.by_output import OutputCircuit
from edgewise.graph.circuit import Circuit
from edgewise.graph.convert import without_ports
from edgewise.graph.graph import Graph
from edgewise.graph.names import Input
from edgewise.json_files import read_json

CONFIG = "config.json"
_EMBEDDINGS = {"input": "embeds", "tok": "tok_embeds", "pos": "pos_embeds"}
_READER = re.compile(r"a(\d+)\.h(\d+)\.([qkv])")
_SIZES = {
    "n_layers": ("n_layer", "num_hidden_layers"),
    "n_heads": ("n_head", "num_attention_heads"),
    "n_kv_heads": ("num_key_value_heads",),
}


def edge_list(circuit: Circuit) -> list[list[str]]:
    """The edges of a circuit as pairs of names, in the graph's order.

    Raises:
        EdgewiseError: the graph has whole heads, parallel blocks or no MLPs, it tells positions apart, or the circuit
            is one of neurons or output dimensions.
    """
    require_edges(circuit, "Edge Pruning has no form")
    graph = circuit.graph
    if isinstance(circuit, OutputCircuit) or graph.spans or graph.whole_heads or graph.parallel or not graph.mlps:
        raise EdgewiseError(
            "Edge Pruning's form has blocks of attention and an MLP one after the other, queries, keys and values by "
            f"themselves, and edges that are there at all positions or none; this circuit is over {graph.describe()}"
        )
    plain = as_shown(without_ports(circuit))
    rows, columns = plain.graph.in_name_order(plain.edges)
    return [
        [_EMBEDDINGS.get(name := plain.graph.sources[row].name, name), _reader(plain.graph.inputs[column])]
        for row, column in zip(rows, columns, strict=True)
    ]


def config_of(graph: Graph) -> dict[str, Any]:
    """What a config.json says of a graph's shape."""
    kind = {"model_type": "gpt2", "n_layer": graph.n_layers, "n_head": graph.n_heads}
    if graph.n_kv_heads < graph.n_heads or not graph.split_embedding:
        kind = {"model_type": "llama", "num_hidden_layers": graph.n_layers, "num_attention_heads": graph.n_heads}
        kind["num_key_value_heads"] = graph.n_kv_heads
    return kind


def is_edge_list(value: object) -> bool:
    """Whether something is meant as a list of edges: a list that begins with a pair."""
    return isinstance(value, list) and any(isinstance(one, list) and len(one) == 2 for one in value[:1])


def from_edge_list(value: Sequence[Any], graph: Graph, what: str) -> Circuit:
    """The circuit of a list of edges over a graph without port edges.

    An embedding at which no edge begins is there for everything, as Edge Pruning leaves it where it is no node.

    Raises:
        EdgewiseError: something is no pair of names, or no edge of the graph.
    """
    embeddings = {name: node for node, name in _EMBEDDINGS.items()}
    edges, senders = np.zeros_like(graph.edges), set()
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise EdgewiseError(f"{what}: an edge is a pair of names, as ['a0.h1', 'a1.h0.q'], not {quoted(pair)}")
        sender, reader = pair
        senders.add(sender)
        sender = embeddings.get(sender, sender)
        name = f"{sender}->{_place(reader, graph)}"
        try:
            row, column = graph.locate(name)
        except EdgewiseError as error:
            raise EdgewiseError(f"{what}: the edge {pair}: {error}") from None
        assert row is not None
        edges[row, column] = True
    if not senders & set(_EMBEDDINGS.values()):
        edges[: graph.n_embeddings] = graph.edges[: graph.n_embeddings]
    return Circuit(graph, edges, np.zeros_like(graph.port_edges))


def load(value: Sequence[Any], path: Path, what: str) -> Circuit:
    """The circuit of a list of edges that was read from `path`, with the shape that config.json beside it gives.

    Raises:
        EdgewiseError: there is none, or as `from_edge_list`.
    """
    config = path.with_name(CONFIG)
    if not config.is_file():
        raise EdgewiseError(
            f"{what} is a list of edges as Edge Pruning writes it, which does not say how many layers and heads there "
            f"are: put the model's {CONFIG} beside it"
        )
    told = read_json(config, "the configuration beside it")
    names = {name for pair in value if isinstance(pair, list) for name in pair if isinstance(name, str)}
    return from_edge_list(value, graph_of(told, split="tok_embeds" in names or "pos_embeds" in names), what)


def graph_of(config: Mapping[str, Any], *, split: bool) -> Graph:
    """The graph of a model by its config.json, without port edges.

    Raises:
        EdgewiseError: it does not say how many layers or heads there are.
    """
    found = {}
    for field, names in _SIZES.items():
        given = next((config[name] for name in names if name in config), None)
        if given is None and field == "n_kv_heads":
            given = found["n_heads"]
        if type(given) is not int or not 0 < given < 10**5:
            raise EdgewiseError(f"{CONFIG} should have {names[0]!r}, a whole number, not {quoted(given)}")
        found[field] = given
    return Graph(**found, split_embedding=split)


def _reader(place: Input) -> str:
    if place.kind == "logits":
        return "resid_post"
    return f"m{place.layer}" if place.kind == "mlp" else f"a{place.layer}.h{place.head}.{place.kind}"


def _place(reader: str, graph: Graph) -> str:
    """The name of an input here, or the name as it is where it is none."""
    if reader == "resid_post":
        return "logits"
    found = _READER.fullmatch(reader)
    if found is None:
        return reader
    layer, head, kind = found.groups()
    shared = kind != "q" and graph.n_kv_heads < graph.n_heads
    return f"a{layer}.{'g' if shared else 'h'}{head}<{kind}>"
