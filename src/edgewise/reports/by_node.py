"""Circuits of whole nodes as tables for the terminal."""

from __future__ import annotations

import numpy as np
from rich.table import Table
from rich.text import Text

from edgewise.graph import Circuit, node_names, node_scores


def node_table(circuit: Circuit) -> Table:
    """Layer by layer from the logits down: the heads that are in the circuit, and the MLP."""
    graph, names = circuit.graph, set(node_names(circuit))
    table = Table(title="the circuit, from the logits down", title_justify="left", box=None, pad_edge=False)
    for column in ("layer", "heads", *(["MLP"] if graph.mlps else [])):
        table.add_column(column, style="bold" if column == "layer" else "", overflow="fold")
    for layer in reversed(range(graph.n_layers)):
        heads = [f"h{head}" for head in range(graph.n_heads) if f"a{layer}.h{head}" in names]
        mlp = f"m{layer}" if f"m{layer}" in names else ""
        if heads or mlp:
            table.add_row(str(layer), "  ".join(heads), *([mlp] if graph.mlps else []))
    embedding = [node.name for node in graph.sources[: graph.n_embeddings] if node.name in names]
    table.add_row("embed", ", ".join(embedding) or "none of it", *([""] if graph.mlps else []))
    return table


def strongest_nodes(circuit: Circuit, what: str, count: int = 8, *, absolute: bool = False) -> Table:
    """The circuit's nodes with the largest scores above 0 (of any sign, if `absolute`); `what` says what these are."""
    table = Table(title="strongest nodes", title_justify="left", box=None, pad_edge=False)
    table.add_column("node", overflow="fold")
    table.add_column(Text(what), justify="right", overflow="fold")
    scores = node_scores(circuit)
    assert scores is not None
    rows = np.flatnonzero(circuit.rows)
    found = sorted(((float(scores[row]), int(row)) for row in rows), key=lambda one: -abs(one[0]))
    for score, row in [one for one in found if absolute or one[0] > 0][:count]:
        table.add_row(circuit.graph.sources[row].name, f"{score:+z.4g}")
    return table
