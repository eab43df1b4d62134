"""A sweep finds at every threshold what a search there finds, and searches only where it has to."""

import math

import pytest
import tiny
import torch

from edgewise import load_model, load_task
from edgewise.discovery import Order, acdc, acdc_sweep, decides_alike
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment

THRESHOLDS = [10 ** (-5 + 2 * step / 3) for step in range(10)]


@pytest.mark.parametrize(
    ("family", "metric", "absolute"),
    [
        ("gpt2", "kl_div", False),
        ("gpt2", "logit_diff", True),
        ("llama", "kl_div", True),
        ("llama", "logit_diff", False),
    ],
)
def test_every_threshold_has_the_circuit_of_its_own_search(family, metric, absolute):
    model, task = tiny.FAMILIES[family](dtype=torch.float64, layers=2), tiny.task(rows=4)
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
