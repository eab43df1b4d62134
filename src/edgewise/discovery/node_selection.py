"""From a score per node to a circuit of whole nodes: by threshold, or so many.

The embedding is always in it, whatever its score: without it nothing of the prompt comes in. It counts as a node (as
two where tokens and positions are apart). Every node reads the embedding and writes to the logits, so nothing dangles.
"""

from __future__ import annotations

import math

import numpy as np

from edgewise.discovery.selection import Selected
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, node_scores, of_nodes


def choose_nodes(
    scored: Circuit,
    *,
    count: int | None = None,
    threshold: float | None = None,
    absolute: bool = False,
    above: float = 0.0,
) -> Selected:
    """The nodes whose score is at least `threshold`, or the `count` best, with the embedding among them.

    Args:
        absolute: by the size of scores.
        above: of so many, take no node whose strength is not above this: a score of zero or less says that the node
            is not needed. Of equal ones the earlier goes first.

    Raises:
        EdgewiseError: the circuit is not of whole nodes or has no scores, the threshold is no number, or so few nodes
            do not hold the embedding.
    """
    graph = scored.graph
    scores = node_scores(scored)
    if not scored.whole_nodes or scores is None:
        raise EdgewiseError("the circuit has no scores of whole nodes to choose by")
    strength = np.abs(scores) if absolute else scores.copy()
    others = np.arange(graph.n_embeddings, len(graph.sources))
    if count is None:
        if threshold is None or math.isnan(threshold):
            raise EdgewiseError(f"the threshold should be a number, not {threshold}")
        chosen = others[strength[others] >= threshold]
    else:
        if count < graph.n_embeddings:
            raise EdgewiseError(
                f"the embedding is always in a circuit of nodes, so it has {graph.n_embeddings} or more"
            )
        ranked = others[np.argsort(-strength[others], kind="stable")]
        chosen = ranked[strength[ranked] > above][: count - graph.n_embeddings]
    rows = np.zeros(len(graph.sources), dtype=bool)
    rows[: graph.n_embeddings] = True
    rows[chosen] = True
    cut = float(strength[chosen].min()) if len(chosen) else math.inf
    return Selected(of_nodes(graph, rows, scores), int(rows.sum()), 0, cut)
