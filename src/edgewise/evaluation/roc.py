"""Circuits as points of a ROC plot against a known one, and the area under them (the ACDC paper's section 4).

Two readings of a sweep's points stand side by side. The paper's own is a pessimistic staircase: between two points of
the frontier the true positive rate is that of the left one, and (0, 0) and (1, 1) always belong to it, so a method
that never comes near a high true positive rate scores low even where all it finds is right. The standard one joins the
same points by straight lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, as_shown
from edgewise.graph.convert import lumped
from edgewise.graph.graph import Bools
from edgewise.graph.groups import Groups

Counted = Literal["edges", "nodes"]
AREAS = ("pessimistic", "trapezoid")
SMALLEST_THRESHOLD = 1e-6
"""The paper's plots leave ACDC's runs at smaller thresholds out."""


@dataclass(frozen=True)
class RocPoint:
    """A circuit against a known one, edge by edge (port edges counted) or node by node.

    Attributes:
        true_positive_rate: the share of what is in the known circuit that was found.
        false_positive_rate: the share of everything else that was found too.
        precision: the share of what was found that is in the known circuit; 1 for an empty circuit.
        n_found: how many edges (nodes) were found.
    """

    true_positive_rate: float
    false_positive_rate: float
    precision: float
    n_found: int


def roc_point(found: Circuit, known: Circuit, counted: Counted = "edges") -> RocPoint:
    """The point of one circuit, by whatever method it was found. Of whole nodes, the edges between them count.

    An edge that is present at some positions counts as one edge.

    Raises:
        EdgewiseError: the circuits are over different graphs.
    """
    found.require_graph(known.graph)
    found, known = lumped(as_shown(found)), lumped(as_shown(known))
    if counted == "edges":
        hits, truth = found.present, known.present
        everything = known.graph.n_edges
    else:
        hits, truth = nodes_present(found), nodes_present(known)
        everything = len(truth)
    return _point(hits, truth, everything)


def _point(hits: Bools, truth: Bools, everything: int) -> RocPoint:
    """The point of what was found of what there is, of which `truth` is right."""
    right, n_found, n_true = int((hits & truth).sum()), int(hits.sum()), int(truth.sum())
    return RocPoint(
        true_positive_rate=right / n_true if n_true else 0.0,
        false_positive_rate=(n_found - right) / (everything - n_true) if everything > n_true else 0.0,
        precision=right / n_found if n_found else 1.0,
        n_found=n_found,
    )


def roc_points(circuits: Iterable[Circuit], known: Circuit, counted: Counted = "edges") -> list[RocPoint]:
    """The points of a sweep."""
    return [roc_point(circuit, known, counted) for circuit in circuits]


def roc_by_group(found: Circuit, known: Circuit, groups: Groups) -> dict[str, RocPoint]:
    """A circuit's point against a known one for each group of nodes, counting the edges that touch a node of it.

    Those are the edges that lead into or out of one of the group's nodes, port edges counted. Where query heads share
    a key or a value, an edge into it touches all of them.

    Raises:
        EdgewiseError: the circuits are over different graphs.
    """
    found.require_graph(known.graph)
    graph, points = known.graph, {}
    for name, members in groups.items():
        rows = [graph.source_index[node] for node in members if node in graph.source_index]
        columns = [column for node in members for column in graph.inputs_of(graph.node(node))]
        touched = np.zeros_like(graph.edges)
        touched[rows], touched[:, columns] = True, True
        ports = np.isin(np.arange(len(graph.inputs)), columns)
        own = np.concatenate([(touched & graph.edges).ravel(), ports & graph.port_edges])
        points[name] = _point(found.present[own], known.present[own], int(own.sum()))
    return points


def nodes_present(circuit: Circuit) -> NDArray[np.bool_]:
    """Which nodes a circuit has, as the paper counts them: those that touch one of its edges.

    They are every sender; each head's query, key and value, and the input of each; and the output. An MLP's input is
    not counted beside the MLP. GPT-2 small has 1,022. Without port edges there is only the input of each query, key and
    value.
    """
    graph = circuit.graph
    attention = np.array([place.kind in graph.head_kinds for place in graph.inputs])
    read = circuit.edges.any(axis=0) | circuit.ports
    parts = [circuit.edges.any(axis=1), read[attention], read[graph.columns("logits")]]
    if graph.ports:
        parts.append(circuit.ports[attention])
    return np.concatenate(parts)


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (false, true) positive rates that no other point beats in both, with (0, 0) and (1, 1), in order.

    A point is beaten by one with a strictly smaller false and a strictly larger true positive rate.
    """
    every = {(0.0, 0.0), (1.0, 1.0), *((float(x), float(y)) for x, y in points)}
    return sorted((x, y) for x, y in every if not any(other < x and higher > y for other, higher in every))


def area_under(points: Iterable[tuple[float, float]], rule: str = "pessimistic") -> float:
    """The area under the frontier of (false, true) positive rates.

    Args:
        rule: `pessimistic`, the paper's staircase: sum over neighbours i, i+1 of (1 - FPR_{i+1}) (TPR_{i+1} - TPR_i);
            or `trapezoid`.

    Raises:
        EdgewiseError: an unknown rule.
    """
    if rule not in AREAS:
        raise unknown("rule", rule, AREAS)
    steps = frontier(points)
    if rule == "pessimistic":
        return sum((1 - right[0]) * (right[1] - left[1]) for left, right in pairwise(steps))
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(steps))


@dataclass(frozen=True)
class RocCurve:
    """A sweep against a known circuit.

    Attributes:
        points: one per circuit, in the sweep's order.
        pessimistic, trapezoid: the area under their frontier, by the paper's rule and by the standard one.
    """

    points: tuple[RocPoint, ...]
    pessimistic: float
    trapezoid: float


def roc_curve(circuits: Sequence[Circuit], known: Circuit, counted: Counted = "edges") -> RocCurve:
    """Points and areas of a sweep. Leave out circuits of searches that were interrupted: they hold untested edges.

    Raises:
        EdgewiseError: there is no circuit, or they are over different graphs.
    """
    if not circuits:
        raise EdgewiseError("a ROC curve needs at least one circuit")
    return curve_of(roc_points(circuits, known, counted))


def curve_of(points: Sequence[RocPoint]) -> RocCurve:
    """The curve through some points."""
    rates = [(point.false_positive_rate, point.true_positive_rate) for point in points]
    return RocCurve(tuple(points), *(area_under(rates, rule) for rule in AREAS))
