"""Queries, keys, values and MLPs as units that are kept or masked, and what that means for edges.

The ACDC paper's two baselines judge such units, not edges. An edge is absent if either of its ends is masked: a masked
query (key, value) takes its port edge and every edge into it; a head's output is masked when its query, key and value
all are; a masked MLP takes the edges on both its sides. The embedding and the logits are never masked, so the edge
between them always stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.graph.circuit import Floats
from edgewise.models import DecoderConfig

KINDS = ("q", "k", "v", "mlp")


@dataclass(frozen=True)
class Units:
    """One number per unit.

    Attributes:
        q: `[layers, heads]`; k, v: `[layers, key/value heads]`; mlp: `[layers]`, empty without MLPs.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mlp: Tensor

    @classmethod
    def full(cls, config: DecoderConfig, value: float, device: torch.device) -> Units:
        """The same number for every unit of a model."""
        shared = (config.n_layers, config.n_kv_heads)
        shapes = ((config.n_layers, config.n_heads), shared, shared, (config.n_layers if config.mlps else 0,))
        return cls(*(torch.full(shape, value, device=device) for shape in shapes))

    def tensors(self) -> list[Tensor]:
        return [self.q, self.k, self.v, self.mlp]

    def __len__(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors())


def scored_by_units(graph: Graph, units: Units) -> Circuit:
    """The full circuit in which every edge's score is the highest threshold at which both its ends are still kept.

    Keeping the edges whose score is at least t is masking the units below t. The edge from the embedding to the logits
    gets a score above all others, and above zero.

    Raises:
        EdgewiseError: a unit's number is not finite.
    """
    by_kind = {kind: getattr(units, kind).detach().cpu().double().numpy() for kind in KINDS}
    for kind, values in by_kind.items():
        if not np.isfinite(values).all():
            raise EdgewiseError(f"the score of a {kind} came out as no number: the model's gradients overflow")
    always = abs(max(values.max() for values in by_kind.values() if values.size)) + 1.0
    reader = np.full(len(graph.inputs), always)
    for column, place in enumerate(graph.inputs):
        if place.kind in graph.head_kinds:
            # A whole head is kept as long as one of its three is. A graph may give every query head a key and a value
            # input of its own.
            rows = [by_kind[kind][place.layer] for kind in (("q", "k", "v") if graph.whole_heads else (place.kind,))]
            reader[column] = max(row[place.head * len(row) // graph.n_inputs(place.kind)] for row in rows)
        elif place.kind == "mlp":
            reader[column] = by_kind["mlp"][place.layer]
    sender = np.full(len(graph.sources), always)
    for row, node in enumerate(graph.sources):
        columns = graph.inputs_of(node)
        if columns:
            sender[row] = max(reader[column] for column in columns)
    scores: Floats = np.where(graph.edges, np.minimum(sender[:, None], reader[None, :]), 0.0)
    return Circuit.full(graph).with_scores(scores, np.where(graph.port_edges, reader, 0.0))


def sweep(scored: Circuit) -> Iterator[tuple[float, Circuit]]:
    """Every circuit that masking units one after another gives, from the full one down to embedding->logits alone.

    With each the threshold below which units are masked. Units of one score are masked together.
    """
    assert scored.port_scores is not None
    assert scored.scores is not None
    everything = np.concatenate([scored.scores[scored.graph.edges], scored.port_scores[scored.graph.port_edges]])
    for threshold in np.unique(everything):
        yield float(threshold), masked(scored, float(threshold))


def masked(scored: Circuit, threshold: float) -> Circuit:
    """The circuit left when every unit below `threshold` is masked, edges that dangle included, as the paper counts."""
    assert scored.scores is not None
    assert scored.port_scores is not None
    graph = scored.graph
    return Circuit(
        graph,
        graph.edges & (scored.scores >= threshold),
        graph.port_edges & (scored.port_scores >= threshold),
        scored.scores,
        scored.port_scores,
    )


def one_by_one(graph: Graph, units: Units) -> Iterator[Circuit]:
    """The paper's sweep of head importance: mask unit after unit, from the lowest number to the highest.

    The first circuit is the full one, the last what is left when all are masked, so there is one more than units. Of
    equal numbers the earlier unit goes first: layer by layer its queries, keys, values and MLP, as the paper's code
    lists them.
    """
    listed = [
        (kind, layer, unit)
        for layer in range(graph.n_layers)
        for kind in KINDS
        for unit in (range(getattr(units, kind).shape[1]) if kind != "mlp" else [None] * bool(len(units.mlp)))
    ]
    values = [
        float(getattr(units, kind)[layer] if unit is None else getattr(units, kind)[layer, unit])
        for kind, layer, unit in listed
    ]
    left = Units(*(torch.ones_like(tensor) for tensor in units.tensors()))
    yield masked(scored_by_units(graph, left), 0.0)
    for index in sorted(range(len(values)), key=values.__getitem__):
        kind, layer, unit = listed[index]
        getattr(left, kind)[layer if unit is None else (layer, unit)] = -1
        yield masked(scored_by_units(graph, left), 0.0)
