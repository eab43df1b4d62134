"""How many circuits hide in a task: prompts grouped by which edges matter on each.

Every prompt pair is scored by itself (edge attribution, on a graph without port edges). Two prompts are alike as far as
the cosine of their scores goes; they are joined by average linkage, and cut into as many groups as give the highest
silhouette (Rousseeuw 1987). Whether there are groups at all is asked of a null: the same scores with every edge's
shuffled over prompts by itself, which keeps how each edge varies and leaves nothing of which edges go together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.discovery import edge_attribution
from edgewise.errors import EdgewiseError, check_seed
from edgewise.evaluation.bootstrap import jaccard
from edgewise.graph import Circuit, Graph
from edgewise.graph.circuit import Floats
from edgewise.patching import Experiment

SHUFFLES, LEVEL = 39, 0.05
"""Shuffled scores to compare with, and the p-value above which a task is taken for one group."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Clusters:
    """Prompts by the edges that matter on each.

    Attributes:
        labels: `[prompts]`, the group of each, 0 for the largest.
        silhouettes: by number of groups, from 2 on.
        p_value: the share of shuffled scores (this one counted) that can be grouped as well.
        circuits: of each group, the edges of the highest mean scores, with these scores for all.
        overlaps: `[groups, groups]`, the Jaccard index of two of them.
    """

    labels: Labels
    silhouettes: dict[int, float]
    p_value: float
    circuits: tuple[Circuit, ...]
    overlaps: Floats

    @property
    def count(self) -> int:
        return len(self.circuits)


def clusters(
    experiment: Experiment,
    *,
    edges: int = 30,
    most: int = 6,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Clusters:
    """Group an experiment's prompts by their circuits.

    Args:
        experiment: over a graph without port edges.
        edges: of each group's circuit.
        most: groups at most.
        seed: of the shuffles.
        progress: called with prompts scored and all of them.

    Raises:
        EdgewiseError: fewer than 4 prompts, port edges, numbers out of bounds, or as `edge_attribution`.
    """
    graph = experiment.graph
    if graph.ports or graph.neurons:
        raise EdgewiseError("prompts are grouped by the edges of a graph without port edges or neurons")
    if not 1 <= edges <= graph.n_edges:
        raise EdgewiseError(f"a group's circuit has 1 to {graph.n_edges:,} edges here, not {edges:,}")
    check_seed(seed)
    scores = scores_by_prompt(experiment, progress)
    labels, silhouettes, p_value = grouped(scores, most, seed)
    circuits = tuple(
        _strongest(graph, scores[labels == label].mean(axis=0), edges) for label in range(labels.max() + 1)
    )
    overlaps = np.array([[jaccard(one.present, other.present) for other in circuits] for one in circuits])
    return Clusters(labels, silhouettes, p_value, circuits, overlaps)


def scores_by_prompt(experiment: Experiment, progress: Callable[[int, int], None] | None = None) -> Floats:
    """Edge attribution on each prompt pair by itself, `[prompts, edges]`, edges as they stand in the graph's matrix.

    What absent edges carry is what it is in the whole experiment, a mean over all prompts included.

    Raises:
        EdgewiseError: as `edge_attribution`.
    """
    rows, found = len(experiment.task), list[Floats]()
    for row in range(rows):
        circuit = edge_attribution(experiment.of_rows(row, row + 1)).circuit
        assert circuit.scores is not None
        found.append(circuit.scores[experiment.graph.edges])
        if progress is not None:
            progress(row + 1, rows)
    return np.stack(found)


def grouped(scores: Floats, most: int, seed: int) -> tuple[Labels, dict[int, float], float]:
    """Groups of rows of scores `[prompts, edges]`, silhouettes by number of groups, and the p-value of there being any.

    Raises:
        EdgewiseError: fewer than 4 rows, or fewer than 2 groups wanted.
    """
    count = len(scores)
    if count < 4:
        raise EdgewiseError(f"prompts can be grouped where there are at least 4, not {count}")
    if most < 2:
        raise EdgewiseError(f"prompts are grouped into 2 or more at most, not {most}")
    most = min(most, count - 1)
    cuts = _cuts(scores, most)
    silhouettes = {number: value for number, (value, _) in cuts.items()}
    best = max(silhouettes, key=lambda number: silhouettes[number])
    generator = np.random.default_rng(seed)
    as_good = 1
    for _ in range(SHUFFLES):
        shuffled = generator.permuted(scores, axis=0)
        as_good += max(value for value, _ in _cuts(shuffled, most).values()) >= silhouettes[best]
    p_value = as_good / (SHUFFLES + 1)
    labels = cuts[best][1] if p_value <= LEVEL else np.zeros(count, dtype=np.int64)
    return _largest_first(labels), silhouettes, p_value


def _cuts(scores: Floats, most: int) -> dict[int, tuple[float, Labels]]:
    """By number of groups the silhouette and the labels."""
    from scipy.cluster import hierarchy  # half a second to import, which only this takes
    from scipy.spatial import distance

    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    unit = scores / np.where(norms > 0, norms, 1.0)
    apart = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
    np.fill_diagonal(apart, 0.0)
    tree = hierarchy.linkage(distance.squareform(apart, checks=False), method="average")
    found: dict[int, tuple[float, Labels]] = {}
    for number in range(2, most + 1):
        labels = np.asarray(hierarchy.fcluster(tree, number, criterion="maxclust"), dtype=np.int64) - 1
        found[number] = silhouette(apart, labels), labels
    return found


def silhouette(apart: Floats, labels: Labels) -> float:
    """The mean silhouette of a grouping by distances `[rows, rows]`; a row alone in its group has 0, one group too."""
    groups = np.unique(labels)
    if len(groups) < 2:
        return 0.0
    sizes = np.array([(labels == one).sum() for one in groups])
    sums = np.stack([apart[:, labels == one].sum(axis=1) for one in groups], axis=1)
    own = np.searchsorted(groups, labels)
    rows = np.arange(len(labels))
    inside = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    each = np.where((sizes[own] > 1) & (larger > 0), (outside - inside) / np.where(larger > 0, larger, 1.0), 0.0)
    return float(each.mean())


def _largest_first(labels: Labels) -> Labels:
    """The same groups, numbered from the largest on; of equal ones the one with the earlier prompt first."""
    groups, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    order = sorted(range(len(groups)), key=lambda at: (-sizes[at], first[at]))
    renamed = {groups[at]: number for number, at in enumerate(order)}
    return np.array([renamed[one] for one in labels], dtype=np.int64)


def _strongest(graph: Graph, scores: Floats, edges: int) -> Circuit:
    """The circuit of the edges of the highest scores, given in the matrix's order."""
    matrix = np.zeros(graph.edges.shape)
    matrix[graph.edges] = scores
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[np.argsort(-scores, kind="stable")[:edges]] = True
    present = np.zeros_like(graph.edges)
    present[graph.edges] = chosen
    return Circuit(graph, present, np.zeros_like(graph.port_edges), matrix)
