"""A circuit as a point of a ROC plot against a known one (the ACDC paper's section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgewise.graph import Circuit


@dataclass(frozen=True)
class RocPoint:
    """A circuit against a known one, edge by edge, port edges counted.

    Attributes:
        true_positive_rate: the share of the known circuit's edges that were found.
        false_positive_rate: the share of all other edges that were found too.
        precision: the share of the found edges that are in the known circuit; 1 for a circuit of no edges.
        n_edges: how many edges were found.
    """

    true_positive_rate: float
    false_positive_rate: float
    precision: float
    n_edges: int


def roc_point(found: Circuit, known: Circuit) -> RocPoint:
    """The point of one circuit, by whatever method it was found.

    Raises:
        EdgewiseError: the circuits are over different graphs.
    """
    found.require_graph(known.graph)
    right = (found & known).n_edges
    others = known.graph.n_edges - known.n_edges
    return RocPoint(
        true_positive_rate=right / known.n_edges if known.n_edges else 0.0,
        false_positive_rate=(found.n_edges - right) / others if others else 0.0,
        precision=right / found.n_edges if found.n_edges else 1.0,
        n_edges=found.n_edges,
    )


def roc_points(circuits: Iterable[Circuit], known: Circuit) -> list[RocPoint]:
    """The points of a sweep."""
    return [roc_point(circuit, known) for circuit in circuits]
