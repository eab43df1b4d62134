"""Selection by integer programming: no choice that leads somewhere has a larger sum of scores."""

import itertools

import numpy as np
import pytest

from edgewise.discovery import by_integer_programming, greedy, top
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph


def scored(graph, seed):
    return Circuit.full(graph).with_scores(np.random.default_rng(seed).normal(size=graph.edges.shape))


def worth(circuit, strength):
    return strength[circuit.edges].sum()


def best(every, count, strength):
    """The best of all choices of at most `count` edges, tried one by one."""
    graph = every.graph
    places = np.argwhere(graph.edges)
    found = 0.0
    for some in itertools.chain(*(itertools.combinations(range(len(places)), n) for n in range(1, count + 1))):
        edges = np.zeros_like(graph.edges)
        edges[tuple(places[list(some)].T)] = True
        circuit = Circuit(graph, edges, graph.port_edges & edges.any(axis=0)).connected()
        if circuit.edges.sum() == len(some):
            found = max(found, worth(circuit, strength))
    return found


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(
    "graph",
    [
        Graph(1, 2),
        Graph(1, 2, ports=True, mlps=False),
        Graph(1, 2, n_kv_heads=1),
        Graph(2, 1, mlps=False, whole_heads=True),
        Graph(1, 1, spans=("A", "B"), mlps=False, whole_heads=True),
        Graph(1, 2, mlps=False, whole_heads=True, coupled=True),
    ],
    ids=["plain", "ports", "shared keys", "whole heads", "spans", "coupled"],
)
def test_it_is_the_best_of_all_choices(graph, absolute):
    for seed, count in ((0, 2), (1, 3)):
        every = scored(graph, seed)
        strength = np.abs(every.scores) if absolute else every.scores
        found = by_integer_programming(every, count, absolute=absolute)
        assert found.dangling == 0
        assert found.taken <= count
        assert worth(found.circuit, strength) == pytest.approx(best(every, count, strength), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_never_worse_than_the_other_rules(seed):
    every = scored(Graph(3, 3, ports=True), seed)
    for count in (5, 20, 60):
        sums = [worth(rule(every, count).circuit, every.scores) for rule in (by_integer_programming, greedy, top)]
        assert sums[0] >= max(sums[1:]) - 1e-9
    assert sums[0] > 0


def test_a_bad_edge_is_taken_where_it_opens_the_way():
    graph = Graph(1, 1)
    scores = np.full(graph.edges.shape, -1.0)
    for name, score in {"input->m0": -0.5, "m0->logits": 2.0, "a0.h0->logits": 0.1}.items():
        scores[graph.locate(name)] = score
    found = by_integer_programming(Circuit.full(graph).with_scores(scores), 4)
    assert found.circuit.names() == ["input->m0", "m0->logits"]


def test_bad_input_is_said():
    graph = Graph(1, 1)
    with pytest.raises(EdgewiseError, match="no scores"):
        by_integer_programming(Circuit.full(graph), 3)
    with pytest.raises(EdgewiseError, match="cannot choose 99 edges: the graph has"):
        by_integer_programming(scored(graph, 0), 99)
