"""When edges enter as a threshold falls, and go as a search is followed again."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny

import edgewise as ew
from edgewise.discovery import by_threshold
from edgewise.graph import Circuit, Graph
from edgewise.reports.page import read_sources
from edgewise.reports.page.order import entering, replay
from edgewise.runs.run import RunInterrupted
from edgewise.tasks import Task


def random_task() -> Task:
    return replace(tiny.task(), settings={"task": "random", "examples": len(tiny.task())})


@pytest.mark.parametrize("seed", range(6))
def test_an_edge_enters_at_the_threshold_at_which_by_threshold_takes_it(seed):
    shapes = [
        Graph(2, 3, ports=True),
        Graph(3, 4, n_kv_heads=2, ports=True),
        Graph(2, 2, parallel=True),
        Graph(2, 2, mlps=False, split_embedding=True, ports=True),
        Graph(3, 4, n_kv_heads=2, coupled=True),
        Graph(2, 3, ports=True, coupled=True),
    ]
    graph = shapes[seed % len(shapes)]
    strength = np.random.default_rng(seed).normal(size=graph.edges.shape).round(1)  # rounded, so that some are equal
    scored = Circuit.full(graph).with_scores(strength)
    order = entering(graph, strength)
    thresholds = sorted(set(strength[graph.edges].tolist()))
    sizes = order.sizes(thresholds)
    assert max(sizes) > min(sizes)
    for threshold, size in zip(thresholds, sizes, strict=True):
        circuit = by_threshold(scored, threshold).circuit
        assert order.at(graph, threshold) == circuit
        assert size == circuit.n_edges


@pytest.mark.parametrize("model", [tiny.gpt2(layers=2), tiny.llama(layers=2)], ids=["own heads", "shared heads"])
@pytest.mark.parametrize(
    "options",
    [{}, {"ports": False}, {"within": 80}, {"passes": 3}, {"within": 90, "passes": 2}, {"budget": 0.5, "passes": 2}],
    ids=["plain", "no ports", "shortlist", "passes", "shortlist and passes", "budget and passes"],
)
def test_a_replayed_trace_has_as_many_edges_as_the_search_had(model, options, tmp_path):
    left: dict[int, int] = {}

    def note(progress):
        if not math.isnan(progress.metric):  # else scores for a shortlist
            left[progress.tests] = progress.edges - (progress.decided - progress.kept)

    run = ew.discover(model, random_task(), threshold=0.005, progress=note, **options)
    (source,) = read_sources([run.save(tmp_path / "run")])
    again = replay(source.circuit, source.steps, source.result["metric_full"], source.shortlist)
    assert len(again.present) == len(run.trace) + 1
    shortlist = run.record.get("shortlist", {"n_edges": run.circuit.graph.n_edges})
    assert again.present[0] == shortlist["n_edges"]
    passes = [one for one in run.record["result"]["passes"] if one["tests"]]  # else nothing was left to test
    ends = list(itertools.accumulate(one["tests"] for one in passes))
    assert again.passes == [0, *ends[:-1]]
    assert [again.present[end] for end in ends] == [one["n_edges"] for one in passes]
    # The search reports last, for each number of tests, when what fell untested after them has gone too; a replay
    # counts those to the same decision.
    assert again.present[1:] == [left[tests] for tests in range(1, len(run.trace) + 1)]
    assert again.present[-1] == run.circuit.n_edges
    assert again.metric[-1] == run.record["result"]["metric_in_search"]
    assert ((again.gone < 0) & source.circuit.graph.edges == source.circuit.edges).all()
    assert ((again.ports_gone < 0) & source.circuit.graph.port_edges == source.circuit.ports).all()


def test_what_a_stopped_pass_had_not_come_to_is_still_there(tmp_path):
    def stop(progress):
        if progress.passes == 2 and progress.kept == 3:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted) as caught:
        ew.discover(tiny.gpt2(layers=2), random_task(), threshold=0.002, passes=2, progress=stop)
    run = caught.value.run
    (source,) = read_sources([run.save(tmp_path / "run")])
    again = replay(source.circuit, source.steps, source.result["metric_full"], source.shortlist)
    assert not source.finished
    assert len(again.passes) == 2
    assert again.passes[1] == run.record["result"]["passes"][0]["tests"] < len(run.trace)
    assert again.present[again.passes[1]] == run.record["result"]["passes"][0]["n_edges"]
    assert again.present[-1] == run.circuit.n_edges
