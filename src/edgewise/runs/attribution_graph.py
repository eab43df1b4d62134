"""A circuit as an attribution graph, in the form of circuit-tracer's page and Neuronpedia's: nodes, links, metadata.

There a node is a feature at a token; here it is a head, an MLP or the embedding, at the token where its span ends in
the prompt that is shown. What does not tell positions apart says nothing about tokens, so all of it stands at the last
one. A link is an edge, weighted by its score; edges into a head's query, key and value are one link, with their sum. Of
spans, a link that enters a key or value leads to where attention carries it on to (`graph.by_span`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, Node, as_shown, carried
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.convert import without_ports

Place = tuple[str, int]
"""A node by its name, and the number of its span."""


@dataclass(frozen=True)
class Prompt:
    """The prompt that a graph is shown on.

    Attributes:
        text, tokens: whole, and token by token.
        places: for each span the position at which its nodes stand; one for all where positions are not told apart.
        answer: what the model itself says next: the token, its id and its probability.
    """

    text: str
    tokens: Sequence[str]
    places: Sequence[int]
    answer: tuple[str, int, float]


def attribution_graph(circuit: Circuit, prompt: Prompt, *, slug: str, model: str) -> dict[str, Any]:
    """The JSON object of a circuit.

    Args:
        slug: the graph's name on the page, also that of its file.
        model: what the page calls `scan`.

    Raises:
        EdgewiseError: a circuit of neurons, or an empty one.
    """
    require_edges(circuit, "there is no attribution graph")
    circuit = without_ports(as_shown(circuit))
    if not circuit:
        raise EdgewiseError("the circuit has no edges, so there is no attribution graph of it")
    weights = _links(circuit)
    ids = {place: _node_id(circuit.graph, place, prompt) for pair in weights for place in pair}
    nodes = [
        _node(circuit.graph, place, prompt, name) for place, name in sorted(ids.items(), key=_order(circuit.graph))
    ]
    metadata = {
        "slug": slug,
        "scan": model,
        "transcoder_list": [],
        "prompt_tokens": list(prompt.tokens),
        "prompt": prompt.text,
        "schema_version": 1,
    }
    # Several spans may end at one token in this prompt; what then is one node and one link is written once.
    merged: dict[tuple[str, str], float] = defaultdict(float)
    for (sender, reader), weight in weights.items():
        merged[ids[sender], ids[reader]] += weight
    return {
        "metadata": metadata,
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": list({node["node_id"]: node for node in nodes}.values()),
        "links": [
            {"source": source, "target": target, "weight": weight} for (source, target), weight in merged.items()
        ],
    }


def _links(circuit: Circuit) -> dict[tuple[Place, Place], float]:
    """Every link with its weight: the sum of the scores of its edges, 1 for each where there are none."""
    graph, weights = circuit.graph, dict[tuple[Place, Place], float]()
    onwards: dict[Place, set[Place]] = defaultdict(set)
    for one in carried(circuit):
        onwards[one.reader, one.at].add((one.node, one.to))
    for row, column in np.argwhere(circuit.edges).tolist():
        place, span = graph.inputs[column], column % graph.n_spans
        readers = [graph.sources[reader].name for reader in graph.nodes_reading(place)] or ["logits"]
        targets = {(reader, span) for reader in readers}
        if place.kind in ("k", "v", "head"):
            carried_on = onwards[place.owner, span]
            targets = {one for one in targets if _used(circuit, *one)} | carried_on or targets
        weight = 1.0 if circuit.scores is None else float(circuit.scores[row, column])
        for target in sorted(targets):
            pair = (graph.sources[row].name, span), target
            weights[pair] = weights.get(pair, 0.0) + weight
    return weights


def _used(circuit: Circuit, name: str, span: int) -> bool:
    """Whether something reads what a head writes at a span."""
    graph = circuit.graph
    return bool(graph.by_span(circuit.edges)[graph.source_index[name], :, span].any())


def _parsed(graph: Graph, name: str) -> Node:
    return Node("logits") if name == "logits" else graph.sources[graph.source_index[name]]


def _order(graph: Graph) -> Any:
    rows = {**graph.source_index, "logits": len(graph.sources)}
    return lambda item: (rows[item[0][0]], item[0][1])


def _layer(graph: Graph, node: Node) -> str:
    if node.kind == "logits":
        return str(graph.n_layers + 1)  # as circuit-tracer numbers it
    return str(node.layer) if node.kind in ("head", "mlp") else "E"


def _feature(graph: Graph, node: Node, prompt: Prompt) -> int:
    """A number that tells a layer's nodes apart: of heads their own, of the MLP the next, of embeddings which part."""
    if node.kind == "logits":
        return prompt.answer[1]
    if node.kind == "head":
        return node.head
    return graph.n_heads if node.kind == "mlp" else int(node.kind == "pos")


def _position(place: Place, prompt: Prompt) -> int:
    return len(prompt.tokens) - 1 if place[0] == "logits" else prompt.places[place[1]]


def _node_id(graph: Graph, place: Place, prompt: Prompt) -> str:
    node = _parsed(graph, place[0])
    return f"{_layer(graph, node)}_{_feature(graph, node, prompt)}_{_position(place, prompt)}"


_TYPES = {"head": "attention head", "mlp": "mlp", "logits": "logit"}


def _node(graph: Graph, place: Place, prompt: Prompt, name: str) -> dict[str, Any]:
    node, position = _parsed(graph, place[0]), _position(place, prompt)
    token, number, chance = prompt.answer
    logits = node.kind == "logits"
    layer, feature = _layer(graph, node), _feature(graph, node, prompt)
    span = f" at {graph.spans[place[1]]}" if graph.spans and not logits else ""
    return {
        "node_id": name,
        "feature": number if logits else feature,
        "layer": layer,
        "ctx_idx": position,
        "feature_type": _TYPES.get(node.kind, "embedding"),
        "token_prob": chance if logits else 0.0,
        "is_target_logit": logits,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if logits else layer}_{feature}-{position}",
        "clerp": f'Output "{token}" (p={chance:.3f})' if logits else f"{place[0]}{span}",
        "influence": None,
        "activation": None,
    }
