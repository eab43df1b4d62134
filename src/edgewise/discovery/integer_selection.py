"""Edges chosen so that the sum of their scores is as large as can be, by integer linear programming.

Taking the best scores one after another takes edges that lead nowhere, and drops them again; growing from the logits
takes only what is next to what is there. Here all are chosen together, as in the MIB shared task of BlackboxNLP 2025
(Nikankin et al., better edge selection):

    maximise    sum of s_e x_e            over x_e in {0, 1}, at most `count` of them 1
    subject to  x_e <= y_u                an edge leaves a node that something leads into (or the embedding)
                y_u <= sum of x into u
                x_e <= z_r                an edge leads into an input whose node writes to something (or the logits)
                z_r <= sum of w of the nodes that r moves,  w_v <= sum of x out of v

In a graph without cycles that leaves nothing that dangles. y, z and w are whole numbers of themselves where x is, so
that they need not be asked to be. Solved to its optimum by HiGHS, through scipy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewise.discovery.selection import Selected, finished, require_count, strength_of
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHOSEN = 0.5
"""HiGHS gives whole numbers within its own tolerance."""


def by_integer_programming(scored: Circuit, count: int, *, absolute: bool = False) -> Selected:
    """At most `count` edges, port edges not counted, of the largest sum of scores, none of which dangles.

    An edge with a score below zero is taken only where it opens the way to others that are worth more. Where several
    choices have one sum, which of them comes out is the solver's, the same each time.

    Args:
        absolute: the sum of sizes of scores.

    Raises:
        EdgewiseError: the circuit has no scores, the graph has fewer edges, or the solver came to no end.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes a moment to import

    require_count(scored.graph, count)
    graph, strength = scored.graph, strength_of(scored, absolute)
    rows, columns = np.nonzero(graph.edges)
    worth = strength[rows, columns]
    scale = float(np.abs(worth).max()) or 1.0  # the solver's tolerances are absolute
    leads = nothing_dangles(graph)
    others = np.zeros(2 * len(graph.sources) * graph.n_spans + len(graph.inputs))
    each_edge = np.concatenate([np.ones(len(rows)), others])[None]
    found = milp(
        np.concatenate([-worth / scale, others]),
        integrality=each_edge[0],
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(leads, -np.inf, 0), LinearConstraint(each_edge, -np.inf, count)],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise EdgewiseError(f"the integer programme of {len(rows):,} edges was not solved: {found.message}")
    taken = found.x[: len(rows)] > CHOSEN
    chosen = np.zeros_like(graph.edges)
    chosen[rows[taken], columns[taken]] = True
    return finished(scored, strength, chosen)


def nothing_dangles(graph: Graph) -> csr_array:
    """Constraints under which no edge dangles, `[constraints, variables]`: each row times the variables is at most 0.

    Variables are the graph's edges, row by row of its matrix, then y and w of every node at every span, then z of every
    input.
    """
    from scipy.sparse import block_array, coo_array, csr_array, eye_array

    rows, columns = np.nonzero(graph.edges)
    spans, n_edges, n_inputs = graph.n_spans, len(rows), len(graph.inputs)
    n_units = len(graph.sources) * spans

    def marked(at: np.ndarray, of: np.ndarray, shape: tuple[int, int]) -> csr_array:
        return csr_array(coo_array((np.ones(len(at)), (at, of)), shape=shape))

    leaves = marked(np.arange(n_edges), rows * spans + columns % spans, (n_edges, n_units))
    enters = marked(np.arange(n_edges), columns, (n_edges, n_inputs))
    moves = _moves(graph)
    each_edge, each_unit, each_input = (csr_array(eye_array(n)) for n in (n_edges, n_units, n_inputs))
    inside = rows >= graph.n_embeddings  # the embedding is there of itself, and so are the logits
    before_logits = columns < graph.columns("logits").start
    others = slice(graph.n_embeddings * spans, None)
    reading = slice(None, graph.columns("logits").start)
    return csr_array(
        block_array(
            [
                [each_edge[inside], -leaves[inside], None, None],
                [each_edge[before_logits], None, None, -enters[before_logits]],
                [-csr_array((enters @ moves).T)[others], each_unit[others], None, None],
                [-csr_array(leaves.T)[others], None, each_unit[others], None],
                [None, None, -moves[reading], each_input[reading]],
            ]
        )
    )


def _moves(graph: Graph) -> csr_array:
    """What each input moves, `[inputs, nodes * spans]`: the nodes that write something else, and where."""
    from scipy.sparse import coo_array, csr_array

    spans = np.arange(graph.n_spans)
    at, of = [], []
    for column, place in enumerate(graph.inputs):
        for row in graph.nodes_moved_by(place) if place.kind != "logits" else ():
            seen = spans[graph.seen_through(column)]
            at.append(np.full(len(seen), column))
            of.append(row * graph.n_spans + seen)
    shape = (len(graph.inputs), len(graph.sources) * graph.n_spans)
    return csr_array(coo_array((np.ones(sum(map(len, at))), (np.concatenate(at), np.concatenate(of))), shape=shape))
