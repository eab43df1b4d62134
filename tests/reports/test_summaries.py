"""Which edges a summary names."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console
from rich.table import Table

from edgewise.discovery import Decision
from edgewise.graph import Circuit, Graph
from edgewise.reports import highest_scores, strongest_edges


def lines(table: Table) -> list[str]:
    """What stands under a table's heading."""
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()[2:]]


def test_a_head_does_not_count_twice_by_its_port_edge() -> None:
    trace = [
        Decision("a0.h0<q>->a0.h0", 0.0, 0.9, True),
        Decision("input->a0.h0<q>", 0.0, 0.9, True),
        Decision("m0->logits", 0.0, 0.5, True),
        Decision("input->m0", 0.0, 0.1, False),
    ]
    assert lines(strongest_edges(trace, "kl_div")) == ["input->a0.h0<q> +0.9000", "m0->logits +0.5000"]


def test_of_several_passes_the_last_says_how_strong_an_edge_is() -> None:
    trace = [
        Decision("m0->logits", 0.0, 0.9, True),
        Decision("input->m0", 0.0, 0.8, True),
        Decision("m0->logits", 0.1, 0.4, True),
        Decision("input->m0", 0.1, 0.1, False),
    ]
    assert lines(strongest_edges(trace, "kl_div")) == ["m0->logits +0.3000"]


def test_the_highest_scores_are_above_0_unless_size_alone_counts() -> None:
    graph = Graph(1, 1)
    scores = np.zeros(graph.edges.shape)
    for name, score in (("input->m0", 0.5), ("m0->logits", -2.0), ("input->logits", 0.25)):
        scores[graph.locate(name)] = score
    circuit = Circuit.full(graph).with_scores(scores)
    assert lines(highest_scores(circuit)) == ["input->m0 +0.5", "input->logits +0.25"]
    assert lines(highest_scores(circuit, 2, absolute=True)) == ["m0->logits -2", "input->m0 +0.5"]
