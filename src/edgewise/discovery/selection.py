"""From a score per edge to a circuit: by threshold, by number, or grown from the logits.

Every rule ends the same way: port edges come with the inputs that read something, edges on no path from the embedding
to the logits are dropped, and `Selected` says how many those were.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.graph.circuit import Floats
from edgewise.graph.graph import Bools


@dataclass(frozen=True)
class Selected:
    """What a rule chose.

    Attributes:
        circuit: without what dangled, with all edges' scores.
        taken: how many edges the rule took, port edges left aside.
        dangling: how many of them were dropped because they lay on no path from the embedding to the logits.
        cut: the lowest strength that was taken; infinity if none was.
    """

    circuit: Circuit
    taken: int
    dangling: int
    cut: float


def ranked(
    strength: Floats, among: NDArray[np.int64], count: int | None, threshold: float | None, above: float
) -> tuple[NDArray[np.int64], float]:
    """Of some places of one row of strengths, those of at least `threshold`, or the `count` best; and the lowest taken.

    Args:
        above: of so many, take none whose strength is not above this. Of equal ones the earlier goes first.

    Raises:
        EdgewiseError: neither a count nor a threshold that is a number.
    """
    if count is None:
        if threshold is None or math.isnan(threshold):
            raise EdgewiseError(f"the threshold should be a number, not {threshold}")
        chosen = among[strength[among] >= threshold]
    else:
        best = among[np.argsort(-strength[among], kind="stable")]
        chosen = best[strength[best] > above][:count]
    return chosen, float(strength[chosen].min()) if len(chosen) else math.inf


def by_threshold(scored: Circuit, threshold: float, *, absolute: bool = False) -> Selected:
    """Every edge whose score (its size, if `absolute`) is at least `threshold`.

    Raises:
        EdgewiseError: the circuit has no scores, or the threshold is no number.
    """
    if math.isnan(threshold):
        raise EdgewiseError("the threshold should be a number, not nan")
    strength = strength_of(scored, absolute)
    return finished(scored, strength, scored.graph.edges & (strength >= threshold))


def top(scored: Circuit, count: int, *, absolute: bool = False) -> Selected:
    """The `count` strongest edges, less what dangles. Of equal ones the earlier in the graph goes first.

    Raises:
        EdgewiseError: the circuit has no scores, or the graph fewer edges.
    """
    require_count(scored.graph, count)
    strength = strength_of(scored, absolute)
    return finished(scored, strength, _strongest(scored, _ranking(scored, strength), count))


def at_most(
    scored: Circuit, count: int, *, absolute: bool = False, whole_ties: bool = False, above: float = 0.0
) -> Selected:
    """As many of the strongest edges as leave a circuit of at most `count` edges, port edges counted.

    Args:
        whole_ties: take edges of one score all together or not at all, as methods need that score units, not edges.
        above: take no edge whose strength is not above this: a score of zero or less says that the edge is not needed.

    Raises:
        EdgewiseError: the circuit has no scores.
    """
    if not isinstance(count, int) or count < 1:
        raise EdgewiseError(f"a circuit should be allowed at least 1 edge, not {count}")
    strength = strength_of(scored, absolute)
    ranking = _ranking(scored, strength)
    ranking = ranking[strength[tuple(ranking.T)] > above]
    ends = np.arange(len(ranking) + 1)
    if whole_ties and len(ranking):
        sorted_strength = strength[tuple(ranking.T)]
        changes = np.flatnonzero(np.diff(sorted_strength)) + 1
        ends = np.concatenate(([0], changes, [len(ranking)]))
    # A longer list never leaves a smaller circuit, so the longest that fits can be found by halving.
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high + 1) // 2
        size = finished(scored, strength, _strongest(scored, ranking, ends[middle])).circuit.n_edges
        low, high = (middle, high) if size <= count else (low, middle - 1)
    return finished(scored, strength, _strongest(scored, ranking, ends[low]))


def greedy(scored: Circuit, count: int, *, absolute: bool = False) -> Selected:
    """`count` edges grown from the logits: again and again the strongest edge into a node that is already in.

    Raises:
        EdgewiseError: the circuit has no scores, or the graph fewer edges.
    """
    require_count(scored.graph, count)
    graph, strength = scored.graph, strength_of(scored, absolute)
    chosen = np.zeros_like(graph.edges)
    opened = np.zeros(len(graph.inputs), dtype=bool)
    heap: list[tuple[float, int, int]] = []

    def open_input(column: int) -> None:
        if not opened[column]:
            opened[column] = True
            for row in range(graph.n_senders(graph.inputs[column])):
                heapq.heappush(heap, (-strength[row, column], row, column))

    open_input(len(graph.inputs) - 1)
    while heap and count:
        _, row, column = heapq.heappop(heap)
        chosen[row, column], count = True, count - 1
        for own in graph.inputs_of(graph.sources[row]):
            open_input(own)
    return finished(scored, strength, chosen)


def strength_of(scored: Circuit, absolute: bool) -> Floats:
    """The scores of a circuit's edges, or their sizes; an EdgewiseError if it has none."""
    if scored.scores is None:
        raise EdgewiseError("the circuit has no scores to choose edges by")
    return np.abs(scored.scores) if absolute else scored.scores


def require_count(graph: Graph, count: int) -> None:
    """Raise an EdgewiseError unless a graph has at least `count` edges, port edges left aside."""
    edges = int(graph.edges.sum())
    if not isinstance(count, int) or not 1 <= count <= edges:
        raise EdgewiseError(f"cannot choose {count:,} edges: the graph has {edges:,} (port edges not counted)")


def _ranking(scored: Circuit, strength: Floats) -> np.ndarray:
    """Edges as `[edges, 2]` rows and columns, the strongest first."""
    places = np.argwhere(scored.graph.edges)
    return places[np.argsort(-strength[tuple(places.T)], kind="stable")]


def _strongest(scored: Circuit, ranking: np.ndarray, count: int) -> Bools:
    chosen = np.zeros_like(scored.graph.edges)
    chosen[tuple(ranking[:count].T)] = True
    return chosen


def finished(scored: Circuit, strength: Floats, chosen: Bools) -> Selected:
    """What a rule chose, with port edges and without what dangles."""
    graph = scored.graph
    with_ports = Circuit(graph, chosen, graph.port_edges & chosen.any(axis=0), scored.scores, scored.port_scores)
    circuit, taken = with_ports.connected(), int(chosen.sum())
    cut = float(strength[chosen].min()) if taken else float("inf")
    return Selected(circuit, taken, taken - int(circuit.edges.sum()), cut)
