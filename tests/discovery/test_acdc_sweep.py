"""A sweep finds at every threshold what a search there finds, and searches only where it has to."""

import functools
import math
from importlib import import_module

import pytest
import tiny
import torch

from edgewise import load_model, load_task
from edgewise.discovery import Interrupted, Order, acdc, acdc_sweep, acdc_with_edges, decides_alike
from edgewise.discovery.search import _Search as search_class
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment, OutOfMemoryError

THRESHOLDS = [10 ** (-5 + step) for step in range(7)]
FEW_HEADS = {"gpt2": dict(heads=2), "llama": dict(heads=2, kv_heads=1)}


@pytest.mark.parametrize(
    ("family", "metric", "absolute"),
    [
        ("gpt2", "kl_div", False),
        pytest.param("gpt2", "logit_diff", True, marks=pytest.mark.slow),
        ("llama", "kl_div", True),
        pytest.param("llama", "logit_diff", False, marks=pytest.mark.slow),
    ],
)
def test_every_threshold_has_the_circuit_of_its_own_search(family, metric, absolute):
    model, task = tiny.FAMILIES[family](dtype=torch.float64, layers=2, **FEW_HEADS[family]), tiny.task(rows=4)
    experiment = Experiment(model, task, metric=metric)
    order = Order("reverse", "shuffle", seed=3)
    shared = 0
    for found in acdc_sweep(experiment, THRESHOLDS, absolute=absolute, order=order):
        alone = acdc(experiment, found.threshold, absolute=absolute, order=order)
        assert found.discovery.circuit == alone.circuit
        assert [one.edge for one in found.discovery.trace] == [one.edge for one in alone.trace]
        assert found.discovery.threshold == found.threshold
        shared += found.same_as is not None
        assert (found.discovery.tests == 0) == (found.same_as is not None)
    assert shared < len(THRESHOLDS) - 3


def test_a_program_that_is_exact_is_searched_once():
    model = load_model("tracr-reverse")
    experiment = Experiment(model, load_task("tracr-reverse", model))
    thresholds = [10 ** (-5 + step / 5) for step in range(21)]
    found = list(acdc_sweep(experiment, thresholds))
    assert [one.same_as for one in found] == [None, *[thresholds[0]] * 20]
    assert {one.discovery.circuit.n_edges for one in found} == {15}
    low, high = decides_alike(found[0].discovery)
    assert low < thresholds[0]
    assert high > 0.1
    at_the_edge, beyond = acdc(experiment, high), acdc(experiment, math.nextafter(high, 1))
    assert at_the_edge.circuit == found[0].discovery.circuit, "an edge stays if the metric rises by as much"
    assert beyond.circuit.n_edges < 15


def test_no_threshold_is_no_sweep():
    model = tiny.gpt2(layers=1)
    with pytest.raises(EdgewiseError, match="at least one threshold"):
        next(acdc_sweep(Experiment(model, tiny.task()), []))


# -- a wanted size -----------------------------------------------------------------------------------------------------


def searches_of(monkeypatch, stop_at=None, why=KeyboardInterrupt):
    """The thresholds at which `acdc` is called; the call numbered `stop_at` is interrupted after some tests."""
    asked = []

    def search(experiment, threshold, *, progress, **options):
        asked.append(threshold)

        def report(one):
            if len(asked) == stop_at and one.tests == 3:
                raise why
            progress(one)

        return acdc(experiment, threshold, progress=report, **options)

    monkeypatch.setattr(import_module("edgewise.discovery.thresholds"), "acdc", search)
    return asked


@pytest.fixture(scope="module")
def logit_diff():
    return Experiment(tiny.llama(layers=2), tiny.task(metric="logit_diff"))


@pytest.fixture(scope="module")
def alone(logit_diff):
    """The search at one threshold by itself, made once."""
    return functools.cache(lambda threshold: acdc(logit_diff, threshold))


@pytest.fixture(scope="module")
def sixty(logit_diff):
    return acdc_with_edges(logit_diff, 60)


@pytest.mark.parametrize("edges", [7, 30, pytest.param(100, marks=pytest.mark.slow)])
def test_a_search_for_a_size_never_searches_where_an_earlier_one_has_decided(monkeypatch, logit_diff, alone, edges):
    experiment = logit_diff
    asked = searches_of(monkeypatch)
    found = acdc_with_edges(experiment, edges)
    assert set(asked) <= {threshold for threshold, _ in found.tried}
    known = []
    for threshold in asked:
        assert not any(low < threshold <= high for low, high in known)
        known.append(decides_alike(alone(threshold)))
    for threshold, size in found.tried:
        assert alone(threshold).circuit.n_edges == size
    assert found.circuit == alone(found.threshold).circuit


def test_thresholds_that_decide_alike_cost_one_search(monkeypatch):
    model = load_model("tracr-reverse")
    experiment = Experiment(model, load_task("tracr-reverse", model))
    asked = searches_of(monkeypatch)
    found = acdc_with_edges(experiment, 12)
    assert len(asked) < len(found.tried)
    assert found.circuit.n_edges <= 12


@pytest.mark.parametrize("why", [KeyboardInterrupt, SystemExit(143), OutOfMemoryError("full")])
def test_a_search_for_a_size_that_is_stopped_keeps_the_best_so_far(monkeypatch, logit_diff, alone, sixty, why):
    experiment, whole = logit_diff, sixty
    asked = searches_of(monkeypatch, stop_at=3, why=why)
    with pytest.raises(Interrupted) as stop:
        acdc_with_edges(experiment, 60)
    kept = stop.value.discovery
    assert len(asked) == 3
    assert stop.value.whole
    assert kept.tried == whole.tried[: len(kept.tried)] != ()
    assert kept.circuit.n_edges == max(size for _, size in kept.tried if size <= 60)
    assert kept.circuit == alone(kept.threshold).circuit


def test_one_that_is_stopped_before_anything_fits_keeps_what_it_decided(monkeypatch, logit_diff):
    experiment = logit_diff
    searches_of(monkeypatch, stop_at=1)
    with pytest.raises(Interrupted) as stop:
        acdc_with_edges(experiment, 60)
    kept = stop.value.discovery
    assert not stop.value.whole
    assert len(kept.trace) == kept.tests == 3
    assert kept.circuit.n_edges == experiment.graph.n_edges - sum(not one.kept for one in kept.trace)


@pytest.mark.parametrize("at", range(1, 4))
def test_an_interruption_between_answer_and_record_leaves_the_two_at_one(monkeypatch, at):
    experiment = Experiment(tiny.gpt2(layers=2), tiny.task())
    write, calls = search_class._write, []

    def interrupted(self, row, column):
        calls.append(self.trace[-1])
        if len(calls) == 4 * at:
            raise KeyboardInterrupt
        write(self, row, column)

    monkeypatch.setattr(search_class, "_write", interrupted)
    with pytest.raises(Interrupted) as stop:
        acdc(experiment, 0.001)
    kept = stop.value.discovery
    assert kept.trace[-1] == calls[4 * at - 1]
    assert kept.metric == (kept.trace[-1].before if kept.trace[-1].kept else kept.trace[-1].after)
    assert experiment.value(kept.circuit) == pytest.approx(kept.metric, rel=1e-4, abs=1e-6)
    gone = experiment.graph.n_edges - kept.circuit.n_edges
    assert stop.value.progress.kept == sum(one.kept for one in kept.trace)
    assert stop.value.progress.decided == gone + stop.value.progress.kept
