"""Every rule that makes a circuit of scores takes what it says and drops what dangles."""

import itertools

import numpy as np
import pytest

from edgewise.discovery import at_most, by_threshold, greedy, top
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph

GRAPH = Graph(2, 2, ports=True)


def scored(seed=0, graph=GRAPH):
    scores = np.random.default_rng(seed).normal(size=graph.edges.shape)
    return Circuit.full(graph).with_scores(scores)


def of(names):
    """A scored circuit in which the edges named have these scores and all others -1."""
    scores = np.full(GRAPH.edges.shape, -1.0)
    for name, score in names.items():
        scores[GRAPH.locate(name)] = score
    return Circuit.full(GRAPH).with_scores(scores)


def test_ports_come_with_what_reads_and_dangling_edges_go():
    chain = {"input->a0.h1<v>": 3.0, "a0.h1->m1": 2.0, "m1->logits": 1.0}
    stray = {"a0.h0->a1.h0<q>": 5.0, "m0->m1": 4.0}
    found = top(of(chain | stray), 5)
    assert found.circuit.names() == ["input->a0.h1<v>", "a0.h1->m1", "m1->logits", "a0.h1<v>->a0.h1"]
    assert (found.taken, found.dangling, found.cut) == (5, 2, 1.0)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_threshold_takes_every_edge_from_it_on(seed, absolute):
    every = scored(seed)
    found = by_threshold(every, 0.7, absolute=absolute)
    strength = np.abs(every.scores) if absolute else every.scores
    wanted = GRAPH.edges & (strength >= 0.7)
    assert found.taken == wanted.sum() > 3
    assert found.circuit == Circuit(GRAPH, wanted, GRAPH.port_edges & wanted.any(axis=0)).connected()
    assert found.cut == strength[wanted].min()
    assert found.circuit.scores is not None


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("seed", "count"), list(itertools.product(range(3), [1, 7, 20])))
def test_top_takes_the_strongest(seed, count, absolute):
    every = scored(seed)
    strength = np.abs(every.scores) if absolute else every.scores
    found = top(every, count, absolute=absolute)
    assert found.taken == count
    assert found.cut == np.sort(strength[GRAPH.edges])[-count]
    assert found.dangling == count - found.circuit.edges.sum()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_at_most_fills_the_budget_as_far_as_scores_allow(seed, absolute):
    every = scored(seed)
    sizes = {top(every, count, absolute=absolute).circuit.n_edges for count in range(1, int(GRAPH.edges.sum()) + 1)}
    for budget in (5, 12, 25):
        found = at_most(every, budget, absolute=absolute, above=-np.inf)
        assert found.circuit.n_edges == max(size for size in sizes if size <= budget)


def test_at_most_takes_no_edge_that_is_not_needed():
    every = of({"input->m0": 1.0, "m0->logits": 0.5, "input->logits": 0.0})
    found = at_most(every, 30)
    assert found.circuit.names() == ["input->m0", "m0->logits"]
    assert found.cut == 0.5
    assert at_most(of({}), 30).circuit.n_edges == 0


def test_ties_of_units_come_and_go_together():
    every = of({"input->m0": 1.0, "m0->logits": 1.0, "input->logits": 2.0})
    assert at_most(every, 2, whole_ties=True).circuit.names() == ["input->logits"]
    assert at_most(every, 3, whole_ties=True).circuit.n_edges == 3


def slow_greedy(every, count, absolute):
    strength = np.abs(every.scores) if absolute else every.scores
    chosen, inside = [], {"logits"}
    while len(chosen) < count:
        best = max(
            (strength[row, column], row, column)
            for column, place in enumerate(GRAPH.inputs)
            for row in range(GRAPH.n_senders(place))
            if (row, column) not in chosen
            and any(name in inside for name in ([place.name] if place.kind == "logits" else owners(place)))
        )
        chosen.append(best[1:])
        inside.add(GRAPH.sources[best[1]].name)
    return chosen


def owners(place):
    return [GRAPH.sources[row].name for row in GRAPH.nodes_reading(place)]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("seed", "count"), list(itertools.product(range(3), [1, 6, 15])))
def test_greedy_grows_from_the_logits_by_the_strongest_edge(seed, count, absolute):
    every = scored(seed)
    found = greedy(every, count, absolute=absolute)
    wanted = np.zeros_like(GRAPH.edges)
    for row, column in slow_greedy(every, count, absolute):
        wanted[row, column] = True
    assert found.taken == count
    assert found.circuit == Circuit(GRAPH, wanted, GRAPH.port_edges & wanted.any(axis=0)).connected()


def test_what_cannot_be_chosen_is_said():
    for rule in (top, greedy):
        has = f"the graph has {GRAPH.edges.sum()}"
        with pytest.raises(EdgewiseError, match=rf"cannot choose 9,999 edges: {has} \(port edges not counted\)"):
            rule(scored(), 9999)
        with pytest.raises(EdgewiseError, match="cannot choose 0 edges"):
            rule(scored(), 0)
    with pytest.raises(EdgewiseError, match="has no scores"):
        by_threshold(Circuit.full(GRAPH), 0.1)
