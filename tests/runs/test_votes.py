"""Searches made again as one result: shares, circuits at any vote, and how far two searches agree."""

import json
from itertools import combinations

import numpy as np
import pytest

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, of_neuron_names, of_node_names
from edgewise.patching import Experiment
from edgewise.runs.stability_file import read_stability
from edgewise.runs.votes import jaccard_interval, pairs_of, shares_of, voted

GRAPH = Graph(1, 2, ports=True)
A, B, C = "input->a0.h0<q>", "m0->logits", "a0.h1<v>->a0.h1"


def of(*names):
    return Circuit.from_names(GRAPH, names)


@pytest.fixture(scope="module")
def run():
    model = ew.load_model("tiny-pronoun")
    return ew.discover(model, ew.load_task("gender-pronoun", model, examples=4))


def test_an_edge_is_in_the_circuit_if_enough_searches_keep_it():
    found = (of(A, B, C), of(A, B), of(A), of(A, C))
    assert shares_of(voted(found, 0.5)) == {A: 1.0, B: 0.5, C: 0.5}
    assert sorted(voted(found, 0.5).names()) == sorted([A, B, C])
    assert voted(found, 0.51).names() == [A]
    assert voted(found, 1).names() == [A]
    assert voted((of(), of(B)), 0.001).names() == [B]
    thirds = (of(A), of(A), of())
    assert voted(thirds, 2 / 3).names() == [A]


def test_nodes_and_neurons_are_voted_on_likewise():
    graph = Graph(1, 2)
    nodes = voted((of_node_names(graph, ["a0.h0", "m0"]), of_node_names(graph, ["m0"])), 0.6)
    assert nodes == of_node_names(graph, ["m0"])
    assert shares_of(nodes) == {"m0": 1.0, "a0.h0": 0.5}
    graph = Graph(1, 2, neurons=3)
    neurons = voted((of_neuron_names(graph, ["m0.n0", "m0.n2"]), of_neuron_names(graph, ["m0.n2"])), 0.6)
    assert neurons.names() == ["m0.n2"]
    assert shares_of(neurons) == {"m0.n2": 1.0, "m0.n0": 0.5}


def test_the_interval_holds_the_mean_over_pairs_and_no_pair_of_one_with_itself():
    generator = np.random.default_rng(0)
    sets = [generator.random(40) < 0.5 for _ in range(10)]
    agree = pairs_of(sets)
    mean = np.mean([(one & two).sum() / (one | two).sum() for one, two in combinations(sets, 2)])
    assert np.mean([agree[i, j] for i, j in combinations(range(10), 2)]) == pytest.approx(mean)
    interval = jaccard_interval(agree)
    assert interval.low < mean < interval.high
    # Were those pairs counted, which agree wholly, every resampled mean would lie above the mean of the pairs.
    assert interval.low < mean - 0.005
    assert jaccard_interval(agree, 0) == interval
    assert jaccard_interval(agree[:7, :7]) is None
    assert jaccard_interval(np.ones((9, 9))) == type(interval)(1.0, 1.0)


def test_orders_are_searches_in_shuffled_orders_one_by_one(run):
    told = run.vote(orders=3, votes=0.6, seed=4)
    wanted = [
        ew.discover(run.model, run.task, layer_order="shuffle", head_order="shuffle", seed=seed).circuit
        for seed in (5, 6, 7)
    ]
    assert list(told.circuits) == wanted
    assert [one.seed for one in told.searches] == [5, 6, 7]
    assert [one.size for one in told.searches] == [one.n_edges for one in wanted]
    counts = {name: sum(name in one for one in wanted) / 3 for one in wanted for name in one.names()}
    assert told.shares() == counts
    assert sorted(told.circuit.names()) == sorted(name for name, share in counts.items() if share >= 0.6)
    levels = {one.vote: one for one in told.levels}
    assert list(levels) == sorted(levels, reverse=True)
    for vote in (1.0, 0.6, 1 / 3):
        assert levels[vote].metric == pytest.approx(Experiment(run.model, run.task).value(told.at(vote)), abs=1e-6)
    assert told.interval is None
    assert run.vote(orders=3, votes=0.6, seed=4).to_dict() == told.to_dict()


def test_examples_are_drawn_anew_and_the_folder_keeps_what_came_of_it(run, tmp_path):
    steps = []
    told = run.vote(bootstrap=2, progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    assert told.circuits[1] == ew.discover(run.model, run.task.resampled(2)).circuit
    folder = run.save(tmp_path / "run")
    assert read_stability(folder) is None
    told.save(folder)
    assert read_stability(folder) == json.loads(json.dumps(told.to_dict()))
    kept = ew.load_circuit(folder / "votes.json")
    assert kept == told.circuit
    assert np.array_equal(kept.scores, told.circuit.scores)
    assert {"stability.json", "votes.json"} <= ew.load_run(folder).files().keys()
    run.save(folder, force=True)  # it is still a run's folder, and nothing else
    assert read_stability(folder) is None


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "one"),
        ({"orders": 3, "bootstrap": 3}, "in other orders"),
        ({"orders": 1}, "at least 2 times to be compared, not 1"),
        ({"orders": 3, "votes": 0}, "above 0 and up to 1, not 0"),
        ({"orders": 3, "votes": 1.5}, "not 1.5"),
        ({"orders": 3, "seed": -1}, "the seed"),
    ],
)
def test_what_cannot_be_voted_on_is_refused(run, asked, why):
    with pytest.raises(EdgewiseError, match=why):
        run.vote(**asked)


def test_only_acdc_has_orders(run):
    scored = ew.discover(run.model, run.task, method="edge-attribution", edges=10)
    with pytest.raises(EdgewiseError, match="only ACDC depends on an order of edges, not 'edge-attribution'"):
        scored.vote(orders=3)


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "stability.json").write_text("{}")
    with pytest.raises(EdgewiseError, match="'what'"):
        read_stability(tmp_path)
