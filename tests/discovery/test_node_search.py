"""ACDC by nodes: runs from the middle on are whole circuit runs, and take the same decisions."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from family_models import family
from oracle import oracle_logits
from test_incremental_random import in_one_dtype, parallel
from test_stopped_searches import Killed, Memory
from twins import same_decisions

from edgewise.discovery import Interrupted, Order, acdc_by_node, acdc_with_edges
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, of_nodes
from edgewise.graph.by_node import node_names, node_scores
from edgewise.patching import ABLATIONS, Experiment, OutOfMemoryError
from edgewise.patching.node_engine import NodeEngine
from edgewise.patching.node_running import node_run

MODELS = {**tiny.FAMILIES, "gpt2-parallel": parallel}
COUPLED = ("gemma2", "olmo2")


def model_of(name: str, **choices):
    if name in COUPLED:
        return family(name, torch.float64)
    return in_one_dtype(MODELS[name](dtype=torch.float64, layers=2, **choices))


def experiment(name: str, number: int = 0, **choices) -> Experiment:
    ablation = (*ABLATIONS,)[number % 3]
    metric = ("kl_div", "logit_diff", "nll", "l2")[number % 4]
    return Experiment(model_of(name), tiny.task(number), ablation=ablation, metric=metric, ports=False, **choices)


def random_rows(count: int, seed: int, share: float = 0.6) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


@pytest.mark.parametrize("name", [*MODELS, *COUPLED])
def test_a_run_of_whole_nodes_is_the_circuit_run_of_all_their_edges(name):
    for number in range(3):
        case = experiment(name, number)
        count, prompts = len(case.graph.sources), case.task.prompts
        rows = np.stack([random_rows(count, seed) for seed in range(3)])
        final = node_run(
            case.decoder, case.graph, prompts.clean, prompts.mask, case.ablated_activations, torch.from_numpy(rows)
        )
        logits = case.decoder.logits(final[:, prompts.scored_rows, prompts.scored_positions])
        moved = 0.0
        for found, one in zip(logits, rows, strict=True):
            wanted = case.logits(of_nodes(case.graph, one))
            assert (found - wanted).abs().max() < 1e-6  # some norms go through float32
            moved = max(moved, float((wanted - case.reference.logits).abs().max()))
        assert moved > 0.1


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt2-parallel", "gemma2"])
def test_a_circuit_of_whole_nodes_is_what_the_source_models_own_modules_say(name):
    model = family(name, torch.float64) if name in COUPLED else MODELS[name](dtype=torch.float64, layers=2)
    case = Experiment(model, tiny.task(ragged=False), ports=False)
    circuit = of_nodes(case.graph, random_rows(len(case.graph.sources), 3))
    assert torch.allclose(case.logits(circuit), oracle_logits(case, circuit), atol=1e-4)
    # What a node writes reaches nobody, not only those of its readers that are in the circuit.
    absent = np.flatnonzero(~circuit.rows)
    assert len(absent)
    assert not circuit.edges[absent].any()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_all_nodes_are_the_model_and_none_the_ablated_run(name):
    case = experiment(name)
    count, prompts = len(case.graph.sources), case.task.prompts
    everything = torch.tensor([[True] * count, [False] * count])
    final = node_run(case.decoder, case.graph, prompts.clean, prompts.mask, case.ablated_activations, everything)[
        :, prompts.scored_rows, prompts.scored_positions
    ]
    ablated = case.ablated_activations.streams[-1][prompts.scored_rows, prompts.scored_positions]
    assert torch.allclose(case.decoder.logits(final[0]), case.reference.logits)
    assert torch.allclose(final[1], ablated)


SEARCHES = [
    dict(),
    dict(order=Order("reverse", "normal")),
    dict(order=Order("shuffle", "shuffle", 1), absolute=True),
    dict(passes=3, order=Order("normal", "reverse")),
]


@pytest.mark.parametrize(
    ("name", "number"),
    tiny.slow_unless(
        lambda name, number: name in ("gpt2", *COUPLED) or list(MODELS).index(name) % len(SEARCHES) == number,
        product((*MODELS, *COUPLED), range(len(SEARCHES))),
    ),
)
def test_both_engines_take_the_same_decisions(name, number):
    options, case = SEARCHES[number], experiment(name, number)
    span = abs(case.ablated() - case.full())
    threshold = span * (0.003, 0.02, 0.1, 0.05)[number]
    fast, slow = (acdc_by_node(case, threshold, engine=engine, **options) for engine in ("incremental", "plain"))
    alike(fast, slow, options.get("absolute", False))
    assert fast.circuit.whole_nodes
    assert fast.metric == tiny.near(case.value(fast.circuit))


def alike(fast, slow, absolute):
    """`same_decisions` of searches whose circuits have no port edges."""

    def padded(one):
        circuit = one.circuit.with_scores(one.circuit.scores, np.zeros(len(one.circuit.ports)))
        return dataclasses.replace(one, circuit=circuit)

    tolerance_dtype = torch.float32  # some norms go through it
    same_decisions(padded(fast), padded(slow), tolerance_dtype, absolute)


def test_a_node_goes_if_the_metric_rises_by_less_than_the_threshold_without_it():
    """The search by hand: from the last node to the first, each tried in what is left."""
    case = experiment("gpt2", 1)
    threshold = 0.05 * abs(case.ablated() - case.full())
    graph, present = case.graph, np.ones(len(case.graph.sources), dtype=bool)
    order = ["m1", "a1.h3", "a1.h2", "a1.h1", "a1.h0", "m0", "a0.h3", "a0.h2", "a0.h1", "a0.h0", "input"]
    value, decisions = case.full(), []
    for name in order:
        without = present.copy()
        without[graph.source_index[name]] = False
        after = case.value(of_nodes(graph, without))
        gone = after - value < threshold
        decisions.append((name, not gone))
        present, value = (without, after) if gone else (present, value)
    found = acdc_by_node(case, threshold)
    assert [(one.edge, one.kept) for one in found.trace] == decisions
    assert {kept for _, kept in decisions} == {True, False}
    assert np.array_equal(found.circuit.rows, present)
    assert found.metric == pytest.approx(value)
    scores = dict(zip([node.name for node in graph.sources], node_scores(found.circuit), strict=True))
    assert scores == pytest.approx({one.edge: one.effect for one in found.trace})


def test_nodes_outside_the_start_are_ablated_and_never_asked_about():
    case = experiment("llama")
    start = of_nodes(case.graph, random_rows(len(case.graph.sources), 5) | (np.arange(len(case.graph.sources)) == 0))
    fast, slow = (acdc_by_node(case, 0.01, start=start, engine=engine) for engine in ("incremental", "plain"))
    assert [one.edge for one in fast.trace] == [one.edge for one in slow.trace]
    assert {one.edge for one in fast.trace} == set(node_names(start))
    assert fast.circuit == slow.circuit
    assert fast.metric_start == tiny.near(case.value(start))


def test_a_budget_holds_and_a_wanted_size_is_met():
    case = experiment("gpt2")
    span = case.ablated() - case.full()
    found = acdc_by_node(case, span, budget=0.4 * span)
    assert case.value(found.circuit) < 0.4 * span
    assert found.circuit.size > acdc_by_node(case, span).circuit.size
    for size in (3, 6):
        sized = acdc_with_edges(case, size, search=acdc_by_node)
        assert 1 <= sized.circuit.size <= size
        assert sized.circuit.whole_nodes
        assert max(count for _, count in sized.tried if count <= size) == sized.circuit.size


@pytest.mark.parametrize("after", [0, 1, 4, 5, 9])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_search_that_was_killed_goes_on_to_the_same_bits(after, passes):
    case = Experiment(tiny.llama(layers=2), tiny.task(), ports=False)
    options = dict(passes=passes)
    whole = acdc_by_node(case, 0.02, journal=Memory(), **options)
    journal = Memory().killed(after)
    with pytest.raises(Killed):
        acdc_by_node(case, 0.02, journal=journal, **options)
    again = acdc_by_node(case, 0.02, journal=journal.killed(float("inf")), **options)
    assert again.trace == whole.trace
    assert again.circuit == whole.circuit
    assert (again.circuit.scores == whole.circuit.scores).all()
    assert (again.metric, again.metric_start, again.passes) == (whole.metric, whole.metric_start, whole.passes)


def test_a_journal_of_another_search_is_refused():
    case = Experiment(tiny.gpt2(layers=2), tiny.task(), ports=False)
    journal = Memory()
    acdc_by_node(case, 0.02, journal=journal)
    journal.searches[0] = (
        0.02,
        [dataclasses.replace(journal.searches[0][1][0], edge="m0"), *journal.searches[0][1][1:]],
    )
    with pytest.raises(EdgewiseError, match="not this search's"):
        acdc_by_node(case, 0.02, journal=journal)


def test_progress_counts_nodes_and_an_interrupted_search_keeps_what_it_decided():
    case = Experiment(tiny.gpt2(layers=2), tiny.task(), ports=False)
    told = []
    whole = acdc_by_node(case, 0.02, progress=told.append)
    assert [one.decided for one in told] == list(range(1, 12))
    assert {one.unit for one in told} == {"nodes"}
    assert {one.edges for one in told} == {11}

    def stop(progress):
        if progress.tests == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped with 4 of 11 nodes decided") as stopped:
        acdc_by_node(case, 0.02, progress=stop)
    found = stopped.value.discovery
    assert found.trace == whole.trace[:4]
    assert found.circuit.rows[:-4].any()
    kept = {one.edge for one in found.trace if one.kept}
    undecided = {node.name for node in case.graph.sources} - {one.edge for one in found.trace}
    assert set(node_names(found.circuit)) == kept | undecided


def test_what_cannot_be_searched_by_nodes_is_refused():
    model, task = tiny.gpt2(layers=1), tiny.task()
    with pytest.raises(EdgewiseError, match="without port edges"):
        acdc_by_node(Experiment(model, task), 0.1)
    plain = Experiment(model, task, ports=False)
    with pytest.raises(EdgewiseError, match="chooses among whole nodes"):
        acdc_by_node(plain, 0.1, start=Circuit.full(plain.graph))
    with pytest.raises(EdgewiseError, match="unknown engine 'warp'"):
        acdc_by_node(plain, 0.1, engine="warp")
    with pytest.raises(EdgewiseError, match="budget"):
        acdc_by_node(plain, 0.1, budget=-1.0)
    with pytest.raises(EdgewiseError, match="finite number"):
        acdc_by_node(plain, float("nan"))


def test_a_gpu_that_is_full_for_a_block_halves_the_block(monkeypatch):
    case = Experiment(tiny.gpt2(layers=2), tiny.task(), ports=False)
    whole, measured = acdc_by_node(case, 0.003), NodeEngine._measure
    sizes = []

    def full(engine, column, candidates):
        sizes.append(len(candidates))
        if len(candidates) > room:
            raise torch.OutOfMemoryError
        return measured(engine, column, candidates)

    monkeypatch.setattr(NodeEngine, "_measure", full)
    room = 1
    found = acdc_by_node(case, 0.003)
    assert found.circuit == whole.circuit
    assert max(sizes) > 1 >= sizes[-1]
    room = 0
    with pytest.raises(OutOfMemoryError, match="no room left for even one candidate"):
        acdc_by_node(case, 0.003)
