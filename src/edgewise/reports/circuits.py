"""Circuits of edges as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from edgewise.graph import Circuit, Decision
from edgewise.graph.names import Input, Node
from edgewise.reports.words import worse


def circuit_table(circuit: Circuit) -> Table:
    """Layer by layer from the logits down: each head with how many edges each of its inputs keeps, and the MLP.

    A whole head has one number; where positions are told apart, their span stands behind each.
    """
    graph = circuit.graph
    counts = dict(zip([place.name for place in graph.inputs], circuit.edges.sum(axis=0).tolist(), strict=True))
    shared = graph.n_kv_heads < graph.n_heads
    table = Table(title="the circuit, from the logits down", title_justify="left", box=None, pad_edge=False)
    table.add_column("layer", style="bold", overflow="fold")
    into = "heads (edges into each)" if graph.whole_heads else "heads (edges into query, key, value)"
    table.add_column(into, overflow="fold")
    if graph.mlps:
        table.add_column("MLP: edges", overflow="fold")
    table.add_row("logits", _senders(circuit), *([""] if graph.mlps else []))
    nodes = set(circuit.nodes())
    for layer in reversed(range(graph.n_layers)):
        heads = []
        for head in range(graph.n_heads):
            name = f"a{layer}.h{head}"
            if name in nodes or circuit.edges[graph.source_index[name]].any():
                columns = graph.inputs_of(graph.node(name))
                places = [graph.inputs[column] for column in columns]
                kept = [
                    _count(place, counts[place.name])
                    for place in places
                    if counts[place.name] and not (shared and place.shared)
                ]
                heads.append(_unbroken(f"h{head}", kept))
        if shared:
            heads += _shared_inputs(circuit, layer, counts)
        read = [graph.inputs[column] for column in graph.inputs_of(Node("mlp", layer))] if graph.mlps else []
        mlp = ",".join(_count(place, counts[place.name]) for place in read if counts[place.name])
        if heads or mlp:
            cells = [f"m{layer}: {mlp}" if mlp else ""] if graph.mlps else []
            table.add_row(str(layer), "  ".join(heads), *cells)
    embeddings = [node.name for node in graph.sources[: graph.n_embeddings]]
    reads = [f"{name} feeds {int(circuit.edges[graph.source_index[name]].sum())}" for name in embeddings]
    table.add_row("embed", ", ".join(reads), *([""] if graph.mlps else []))
    return table


def _senders(circuit: Circuit) -> str:
    into = circuit.graph.columns("logits")
    rows = sorted({int(row) for row in circuit.edges[:, into].nonzero()[0]})
    names = [circuit.graph.sources[row].name for row in rows]
    if not names:
        return "read nothing: the circuit is empty"
    shown = ", ".join(names[::-1][:10])
    return f"read {len(names)}: {shown}{', ...' if len(names) > 10 else ''}"


def _count(place: Input, count: int) -> str:
    """How many edges an input keeps: `q1`, of a whole head or an MLP `1`, with its span `q1@END`."""
    letter = place.kind if place.kind in ("q", "k", "v") else ""
    return f"{letter}{count}@{place.span}" if place.span else f"{letter}{count}"


def _shared_inputs(circuit: Circuit, layer: int, counts: dict[str, int]) -> Iterator[str]:
    """Keys and values that several query heads share, as `g1 k3 v2`."""
    graph = circuit.graph
    for group in range(graph.n_kv_heads):
        head = Node("head", layer, group * graph.share)
        places = [graph.inputs[column] for column in graph.inputs_of(head)]
        kept = [_count(place, counts[place.name]) for place in places if place.shared and counts[place.name]]
        if kept:
            yield _unbroken(f"g{group}", kept)


def _unbroken(name: str, kept: Sequence[str]) -> str:
    """`h3(q1,k2,v1)`: without a space, so that no line is broken inside it."""
    return f"[bold]{name}[/bold]({','.join(kept)})" if kept else f"[bold]{name}[/bold]"


def strongest_edges(trace: Sequence[Decision], metric: str, count: int = 8) -> Table:
    """The kept edges whose removal raised the metric most, at the moment they were last tested.

    Port edges are left out: a head's query says the same as the edges into it, and each head would count twice.
    """
    table = Table(title="strongest edges", title_justify="left", box=None, pad_edge=False)
    table.add_column("edge", overflow="fold")
    table.add_column(Text(worse(metric)), justify="right", overflow="fold")
    last = {decision.edge: decision for decision in trace}
    kept = [one for one in last.values() if one.kept and ">" not in one.edge.partition("->")[0]]
    for decision in sorted(kept, key=lambda one: -one.effect)[:count]:
        table.add_row(Text(decision.edge), f"{decision.effect:+z.4f}")
    return table


def highest_scores(circuit: Circuit, count: int = 8, *, absolute: bool = False) -> Table:
    """The circuit's edges with the highest scores above 0; with `absolute`, those furthest from 0."""
    table = Table(
        title="strongest scores" if absolute else "highest scores", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("edge", overflow="fold")
    table.add_column("score", justify="right", overflow="fold")
    assert circuit.scores is not None
    rows, columns = circuit.edges.nonzero()
    found = list(zip(circuit.scores[rows, columns].tolist(), rows, columns, strict=True))
    if not absolute:
        found = [one for one in found if one[0] > 0]
    for score, row, column in sorted(found, key=lambda one: -abs(one[0]))[:count]:
        table.add_row(Text(f"{circuit.graph.sources[row].name}->{circuit.graph.inputs[column].name}"), f"{score:+z.4g}")
    return table
