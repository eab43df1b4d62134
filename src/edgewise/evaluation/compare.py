"""Circuits side by side: how far they overlap, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.evaluation.bootstrap import jaccard
from edgewise.evaluation.random_circuits import chosen_of
from edgewise.graph import Circuit, Graph


@dataclass(frozen=True)
class Pair:
    """Two circuits.

    Attributes:
        common: edges of both.
        only_first, only_second: edges of one alone.
        jaccard: edges of both as a share of those of either; `nodes` the same of the nodes that edges touch.
    """

    first: str
    second: str
    common: int
    only_first: int
    only_second: int
    jaccard: float
    nodes: float


@dataclass(frozen=True)
class Component:
    """One node, and how many of a circuit's edges lead into it and out of it.

    A key/value head that several query heads share, `a3.g1`, stands for itself: edges into it are not said again for
    each of them.

    Attributes:
        edges: per circuit, in order, how many edges (port edges included) touch the node.
        shared: how many edges of the node are in all circuits.
        own: per circuit, those that no other has, by name.
    """

    node: str
    edges: tuple[int, ...]
    shared: int
    own: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CircuitComparison:
    """Several circuits of one graph.

    Attributes:
        names, sizes: of the circuits, in order.
        in_all, in_any: how many edges are in all of them, and in any.
        pairs: every two.
        components: nodes where they differ, late ones first.
        unit: what is counted: `edges`, or `nodes`, `neurons` or `features` where all are circuits of those.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    in_all: int
    in_any: int
    pairs: tuple[Pair, ...]
    components: tuple[Component, ...]
    unit: str = "edges"


def compare_circuits(circuits: Mapping[str, Circuit]) -> CircuitComparison:
    """Compare circuits by name.

    Raises:
        EdgewiseError: fewer than two, or circuits of different graphs.
    """
    if len(circuits) < 2:
        raise EdgewiseError("a comparison needs at least two circuits")
    names, every = tuple(circuits), tuple(circuits.values())
    for name, circuit in circuits.items():
        if circuit.graph.shape != every[0].graph.shape:
            raise EdgewiseError(
                f"{name!r} is a circuit of another graph ({circuit.graph.describe()}) than {names[0]!r} "
                f"({every[0].graph.describe()})"
            )
    graph = every[0].graph
    in_all, in_any = every[0], every[0]
    for circuit in every[1:]:
        in_all, in_any = in_all & circuit, in_any | circuit
    pairs = tuple(
        _pair(names[i], names[j], every[i], every[j]) for i in range(len(every)) for j in range(i + 1, len(every))
    )
    own = [_only(circuit, [other for other in every if other is not circuit]) for circuit in every]
    components = []
    units = {one.unit for one in every}
    graph_unit = units.pop() if len(units) == 1 else "edges"
    if graph_unit in ("neurons", "features"):
        components = _where_neurons_differ(every, own, in_all)
    named = {
        "edges": _components(graph),
        "nodes": [*graph.source_index],
    }.get(graph_unit, [])
    for name in named:
        if graph_unit == "nodes":
            there = tuple(int(one.rows[graph.source_index[name]]) for one in every)
            if len(set(there)) > 1:
                components.append(Component(name, there, 0, ((),) * len(every)))
            continue
        touching = [_touching(circuit, name) for circuit in every]
        shared = _touching(in_all, name)
        if any(one.n_edges != shared.n_edges for one in touching):
            alone = tuple(tuple(_touching(one, name).names()) for one in own)
            components.append(Component(name, tuple(one.n_edges for one in touching), shared.n_edges, alone))
    return CircuitComparison(
        names,
        tuple(one.size for one in every),
        in_all.size,
        in_any.size,
        pairs,
        tuple(reversed(components)),
        graph_unit,
    )


def _where_neurons_differ(every: Sequence[Circuit], own: Sequence[Circuit], in_all: Circuit) -> list[Component]:
    """The MLPs of whose neurons (of features: the layers of whose) the circuits have not all the same."""
    found = []
    for layer in np.flatnonzero(in_all.graph.units.any(axis=1)).tolist():
        name = in_all.graph.units_name(layer)
        counts, alone = (
            [[one for one in circuit.names() if one.startswith(f"{name}.")] for circuit in circuits]
            for circuits in ((*every, in_all), own)
        )
        if len({len(names) for names in counts}) > 1:
            sizes = [len(names) for names in counts]
            found.append(Component(name, tuple(sizes[:-1]), sizes[-1], tuple(tuple(names) for names in alone)))
    return found


def _pair(first: str, second: str, one: Circuit, other: Circuit) -> Pair:
    nodes = [set(each.nodes()) for each in (one, other)]
    union = nodes[0] | nodes[1]
    return Pair(
        first,
        second,
        common=(one & other).size,
        only_first=(one - other).size,
        only_second=(other - one).size,
        jaccard=jaccard(chosen_of(one), chosen_of(other)),
        nodes=len(nodes[0] & nodes[1]) / len(union) if union else 1.0,
    )


def _only(circuit: Circuit, others: list[Circuit]) -> Circuit:
    for other in others:
        circuit = circuit - other
    return circuit


def _components(graph: Graph) -> list[str]:
    """Nodes from early to late, each layer's shared key/value heads before its query heads; `logits` last."""
    owners = [place.owner for place in graph.inputs if place.shared and place.kind == "k"]
    names = []
    for node in graph.sources:
        if node.kind == "head" and node.head == 0:
            names += [owner for owner in owners if owner.startswith(f"a{node.layer}.")]
        names.append(node.name)
    return [*names, "logits"]


def _touching(circuit: Circuit, name: str) -> Circuit:
    """The edges of a circuit that read at a component's own inputs, or come from it."""
    graph = circuit.graph
    edges, ports = np.zeros_like(circuit.edges), np.zeros_like(circuit.ports)
    columns = [column for column, place in enumerate(graph.inputs) if place.owner == name]
    edges[:, columns], ports[columns] = circuit.edges[:, columns], circuit.ports[columns]
    row = graph.source_index.get(name)
    if row is not None:
        edges[row] = circuit.edges[row]
    return Circuit(graph, edges, ports)
