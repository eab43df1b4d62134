"""Searches that start from a circuit, bound the metric as a whole, and try again what they kept."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from edgewise.discovery import acdc, acdc_sweep, decides_alike, without_dead_ends
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.patching import Experiment, PlainEngine, PrunedEngine

FAMILIES = sorted(tiny.FAMILIES)


def random_circuit(graph, share: float, seed: int) -> Circuit:
    dice = np.random.default_rng(seed)
    edges = graph.edges & (dice.random(graph.edges.shape) < share)
    ports = graph.port_edges & (dice.random(graph.port_edges.shape) < 0.9)
    return without_dead_ends(graph, Circuit(graph, edges, ports))


def in_float64(family: str, **options) -> Experiment:
    return Experiment(
        tiny.FAMILIES[family](dtype=torch.float64, layers=2),
        tiny.task(split_embedding=family == "plain"),
        **options,
    )


def alike(fast, slow) -> None:
    assert [(one.edge, one.kept) for one in fast.trace] == [(one.edge, one.kept) for one in slow.trace]
    assert fast.circuit == slow.circuit
    # Llama's norm rounds to float32 whatever the model's dtype.
    for ours, theirs in zip(fast.trace, slow.trace, strict=True):
        assert ours.after == pytest.approx(theirs.after, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "ablation", "ports", "share"),
    tiny.in_turn(FAMILIES, [("resample", True, 0.6), ("zero", True, 0.3), ("mean", False, 0.9)], whole=["llama"]),
)
def test_an_engine_that_starts_from_a_circuit_measures_what_a_circuit_run_does(family, ablation, ports, share):
    experiment = in_float64(family, ablation=ablation, ports=ports)
    start = random_circuit(experiment.graph, share, seed=len(family))
    slow, fast = PlainEngine(experiment), PrunedEngine(experiment, start)
    slow.edges, slow.ports = start.edges.copy(), start.ports.copy()
    last, dice = len(experiment.graph.inputs) - 1, random.Random(1)
    assert fast.measure(last, [()]) == pytest.approx(slow.measure(last, [()]), rel=1e-5, abs=1e-6)
    # Some edges into the inputs go, from the logits back; then the logits are asked about again.
    for column in (*reversed(range(last + 1)), last):
        rows = np.flatnonzero(fast.live.edges[:, column]).tolist()
        if not fast.live.alive(column):
            fast.commit(column, tuple(rows))
            slow.commit(column, tuple(rows))
        if not rows or not fast.live.alive(column):
            continue
        dice.shuffle(rows)
        asked = [(), tuple(rows[:1]), tuple(rows[: len(rows) // 2 + 1])]
        assert fast.measure(column, asked) == pytest.approx(slow.measure(column, asked), rel=1e-5, abs=1e-6)
        gone = tuple(rows[: dice.randint(0, len(rows) - 1)])
        fast.commit(column, gone)
        slow.commit(column, gone)
    assert all(fast.live.edges[row].any() for row in fast.live.nodes), "what nothing reads any more is not computed"
    assert fast.measure(last, [()]) == pytest.approx(slow.measure(last, [()]), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "family",
    tiny.slow_unless(
        lambda name: name in ("gpt2", "llama-with-biases", "parallel", "plain-bidirectional"),
        zip(FAMILIES),
    ),
)
def test_both_engines_decide_alike_inside_a_shortlist_and_in_further_passes(family):
    experiment = in_float64(family)
    start = random_circuit(experiment.graph, 0.7, seed=3)
    low = 0.003 if "gpt2" in family or "plain" in family else 0.03
    for options in ({"start": start}, {"passes": 3}, {"start": start, "passes": 2, "budget": None}):
        fast, slow = (acdc(experiment, low, engine=engine, **options) for engine in ("incremental", "plain"))
        alike(fast, slow)
        assert fast.passes == slow.passes
        assert fast.metric == pytest.approx(experiment.value(fast.circuit), rel=1e-5, abs=1e-6)
        if "start" in options:
            assert fast.circuit <= start
            assert fast.metric_start == pytest.approx(experiment.value(start), rel=1e-5, abs=1e-6)
            assert fast.metric_full == pytest.approx(0, abs=1e-6)


def test_a_shortlist_of_everything_is_the_whole_search():
    experiment = Experiment(tiny.llama(layers=2), tiny.task())
    whole, within = (acdc(experiment, 0.03, start=start) for start in (None, Circuit.full(experiment.graph)))
    assert within.trace == whole.trace
    assert within.circuit == whole.circuit


def test_what_nothing_reads_in_a_shortlist_is_never_tested():
    experiment = Experiment(tiny.gpt2(layers=2), tiny.task())
    start = Circuit.full(experiment.graph).remove("m1->logits")
    found = acdc(experiment, 1e-5, start=start)
    assert not any(one.edge.endswith("->m1") for one in found.trace)
    assert not any(one.edge == "m1->logits" for one in found.trace)


def test_another_graphs_shortlist_is_refused():
    experiment = Experiment(tiny.gpt2(layers=2), tiny.task())
    with pytest.raises(EdgewiseError, match="over another graph"):
        acdc(experiment, 0.1, start=Circuit.full(replace(experiment.graph, ports=False)))


# -- budget and passes -------------------------------------------------------------------------------------------------


def test_a_budget_bounds_the_metric_as_a_whole():
    experiment = Experiment(tiny.llama(layers=2), tiny.task())
    plain = acdc(experiment, 0.1)
    budget = plain.metric / 2
    found = acdc(experiment, 0.1, budget=budget)
    assert found.metric < budget <= plain.metric
    for one in found.trace:
        assert one.kept == (not (one.effect < 0.1 and one.after < budget))
    assert any(one.kept and one.effect < 0.1 for one in found.trace), "some stay for the budget's sake alone"
    assert found.circuit.n_edges > plain.circuit.n_edges
    same = acdc(experiment, 0.1, budget=1e9)
    assert same.trace == plain.trace


@pytest.mark.parametrize("budget", [0.0, -1.0])
def test_a_budget_that_is_spent_before_the_search_is_refused(budget):
    with pytest.raises(EdgewiseError, match=r"the budget \(--budget\) is .* before any edge is tested"):
        acdc(Experiment(tiny.gpt2(layers=1), tiny.task()), 0.1, budget=budget)


@pytest.mark.parametrize(("options", "said"), [({"budget": float("nan")}, "finite"), ({"passes": 0}, "--passes")])
def test_a_budget_that_is_no_number_and_no_pass_at_all_are_refused(options, said):
    with pytest.raises(EdgewiseError, match=said):
        acdc(Experiment(tiny.gpt2(layers=1), tiny.task()), 0.1, **options)


def test_a_further_pass_tests_what_is_left_and_ends_when_nothing_goes():
    experiment = Experiment(tiny.llama(layers=2), tiny.task())
    once, often = acdc(experiment, 0.03), acdc(experiment, 0.03, passes=10)
    first = often.trace[: once.tests]
    assert first == once.trace
    assert often.passes[0] == (once.tests, once.circuit.n_edges)
    assert len(often.passes) < 10
    assert often.passes[-1][1] == often.passes[-2][1] == often.circuit.n_edges
    assert often.circuit <= once.circuit
    assert sum(tests for tests, _ in often.passes) == often.tests
    # In the last pass every edge that is left was tested and stayed.
    last = often.trace[-often.passes[-1][0] :]
    assert {one.edge for one in last if one.kept} == set(often.circuit.names())


def test_thresholds_that_decide_alike_with_a_budget_and_passes_are_those_that_do():
    experiment = Experiment(tiny.llama(layers=2), tiny.task())
    options = {"budget": 0.4, "passes": 2}
    found = acdc(experiment, 0.05, **options)
    low, high = decides_alike(found)
    assert low < 0.05 <= high
    for threshold in (low * 1.0001, (low + high) / 2, high):
        assert acdc(experiment, threshold, **options).trace == found.trace
    swept = list(acdc_sweep(experiment, (0.05, high), **options))
    assert [one.same_as for one in swept] == [None, 0.05]
