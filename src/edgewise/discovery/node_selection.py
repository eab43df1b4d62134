"""From a score per node to a circuit of whole nodes: by threshold, or so many.

The embedding is always in it, whatever its score: without it nothing of the prompt comes in. It counts as a node (as
two where tokens and positions are apart). Every node reads the embedding and writes to the logits, so nothing dangles.
"""

from __future__ import annotations

import numpy as np

from edgewise.discovery.selection import Selected, ranked
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
    if count is not None:
        if count < graph.n_embeddings:
            raise EdgewiseError(
                f"the embedding is always in a circuit of nodes, so it has {graph.n_embeddings} or more"
            )
        count -= graph.n_embeddings
    others = np.arange(graph.n_embeddings, len(graph.sources))
    chosen, cut = ranked(np.abs(scores) if absolute else scores, others, count, threshold, above)
    rows = np.zeros(len(graph.sources), dtype=bool)
    rows[: graph.n_embeddings] = True
    rows[chosen] = True
    return Selected(of_nodes(graph, rows, scores), int(rows.sum()), 0, cut)
