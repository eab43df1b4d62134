"""A circuit with each group of nodes as one: edges between two of them merged, with their count and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.graph import Carried, Circuit, Graph, carried
from edgewise.graph.groups import group_of


@dataclass(frozen=True)
class Whole:
    """A group of nodes taken as one, or a node of no group by itself.

    Attributes:
        name: the group's or the node's; `a3.g1` for a key/value head that query heads share.
        group: whether it is a group.
        members: the group's nodes, in the circuit or not; of a single node, itself.
        found: those of them that the circuit has.
        depth: where in the model its nodes stand on average: 2l for layer l's heads, half a layer more for its MLP.
        within: how many edges lead from one of its nodes to another, port edges left aside.
    """

    name: str
    group: bool
    members: tuple[str, ...]
    found: tuple[str, ...]
    depth: float
    within: int


@dataclass(frozen=True)
class Link:
    """All edges of a circuit from one whole to another.

    Attributes:
        edges: their names, those with the largest scores first.
        kinds: what they lead into: `q`, `k`, `v`, `mlp`, `logits`.
        strongest: the score of the first; 0 without scores.
        summed: the sum of all of their scores.
    """

    source: str
    target: str
    edges: tuple[str, ...]
    kinds: frozenset[str]
    strongest: float
    summed: float


def merge(
    circuit: Circuit, groups: Mapping[str, Sequence[str]], home: Mapping[str, str] | None = None
) -> tuple[list[Whole], list[Link]]:
    """The circuit's wholes, from early to late, and the links between them.

    A key/value head that query heads share belongs to a group if all query heads of the circuit that read it do.
    A group of which the circuit has nothing is left out.

    Args:
        home: the group of every node that is in one, as `homes` says it of a circuit that this is a part of.
    """
    graph = circuit.graph
    home = homes(circuit, groups) if home is None else home

    def whole_of(node: str) -> str:
        return home.get(node, node)

    within: dict[str, int] = {}
    between: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    for row, column in zip(*(one.tolist() for one in np.nonzero(circuit.edges)), strict=True):
        sender, place = graph.sources[row].name, graph.inputs[column]
        source, target = whole_of(sender), whole_of(place.owner)
        if source == target:
            within[source] = within.get(source, 0) + 1
            continue
        score = 0.0 if circuit.scores is None else float(circuit.scores[row, column])
        one = (score if math.isfinite(score) else 0.0, f"{sender}->{place.name}", place.kind)
        between.setdefault((source, target), []).append(one)
    links = []
    for (source, target), merged in between.items():
        ordered = sorted(merged, key=lambda one: -abs(one[0]))
        scores = [score for score, _, _ in ordered]
        names, kinds = tuple(name for _, name, _ in ordered), frozenset(kind for _, _, kind in ordered)
        links.append(Link(source, target, names, kinds, scores[0], math.fsum(scores)))
    members = {name: tuple(nodes) for name, nodes in groups.items()}
    found: dict[str, list[str]] = {}
    for node in (*circuit.nodes(), *_shared(circuit)):
        found.setdefault(whole_of(node), []).append(node)
    wholes = [
        Whole(
            name,
            name in members,
            members.get(name, (name,)),
            tuple(nodes),
            sum(_depth(node, graph) for node in nodes) / len(nodes),
            within.get(name, 0),
        )
        for name, nodes in found.items()
    ]
    return sorted(wholes, key=lambda whole: whole.depth), links


def ties(circuit: Circuit, home: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each shared key/value head that is a whole by itself, with every whole that has a query head which reads it."""
    there = set(circuit.nodes())
    found = {
        (shared, home.get(reader, reader)): None
        for shared, readers in _shared(circuit).items()
        for reader in readers
        if shared not in home and reader in there
    }
    return list(found)


def carried_between(circuit: Circuit, home: Mapping[str, str]) -> list[Carried]:
    """What attention carries on from span to span, between wholes: all between two of them at two spans as one."""
    kinds: dict[tuple[str, int, str, int], set[str]] = {}
    for one in carried(circuit):
        key = home.get(one.reader, one.reader), one.at, home.get(one.node, one.node), one.to
        if one.at != one.to:
            kinds.setdefault(key, set()).update(one.kinds)
    return [Carried(*key, tuple(sorted(found))) for key, found in kinds.items()]


def homes(circuit: Circuit, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The group of every node, and of every shared key/value head, that is in one."""
    home, there = group_of(groups), set(circuit.nodes())
    for shared, readers in _shared(circuit).items():
        theirs = {home.get(reader, "") for reader in readers if reader in there}
        if len(theirs) == 1 and (group := theirs.pop()):
            home[shared] = group
    return home


def _shared(circuit: Circuit) -> dict[str, list[str]]:
    """The shared key/value heads that read something in the circuit, with the query heads that read them."""
    graph, found = circuit.graph, {}
    reading = circuit.edges.any(axis=0) | circuit.ports
    for column in np.flatnonzero(reading).tolist():
        place = graph.inputs[column]
        if place.shared:
            found[place.owner] = [graph.sources[row].name for row in graph.nodes_reading(place)]
    return found


def _depth(node: str, graph: Graph) -> float:
    """Where a node stands: below all layers, at `2 * layer` (its MLP a half layer above), above all layers."""
    if node == "logits":
        return 2.0 * graph.n_layers
    if node in ("input", "tok", "pos"):
        return -2.0
    if node.startswith("m"):
        return 2.0 * int(node[1:]) + (not graph.parallel)
    layer, head = node[1:].split(".")
    return 2.0 * int(layer) - 0.5 * head.startswith("g")
