"""Half-precision models, float16 as bfloat16, go through everything that a float32 one does."""

import pytest
import tiny
import torch

import edgewise as ew
from edgewise.graph import Circuit
from edgewise.models import check
from edgewise.patching import Experiment

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module", params=[(family, dtype) for family in ("gpt2", "llama") for dtype in HALVES], ids=str)
def model(request):
    family, dtype = request.param
    return tiny.FAMILIES[family](dtype=dtype)


def test_the_guard_lets_it_through(model):
    prompts = tiny.prompts()
    check(model, prompts.clean, prompts.mask)


def test_both_engines_find_one_circuit_at_a_threshold_above_rounding(model):
    threshold = {"gpt2": 0.01, "llama": 0.05}[model.config.architecture]
    first, second = (
        ew.discover(model, tiny.task(), threshold=threshold, engine=engine).circuit
        for engine in ("incremental", "plain")
    )
    assert len(set(first.names()) ^ set(second.names())) <= 2
    assert 2 < first.n_edges < first.graph.n_edges


def test_all_edges_are_the_model_and_none_are_the_ablated_run(model):
    experiment = Experiment(model, tiny.task())
    assert abs(experiment.value(Circuit.full(experiment.graph))) < 0.01
    assert experiment.value(Circuit.empty(experiment.graph)) > 0.05


@pytest.mark.parametrize("method", ["edge-attribution", "edge-attribution-ig"])
def test_attribution_ranks_edges_as_in_float32(model, method):
    family = model.config.architecture
    exact = tiny.FAMILIES[family]()

    def scores(decoder):
        found = ew.discover(decoder, tiny.task(), method=method, edges=20, ports=False, metric="logit_diff")
        return torch.as_tensor(found.scores.scores[found.scores.graph.edges]).double()

    half, whole = scores(model), scores(exact)
    assert half.isfinite().all()
    assert torch.corrcoef(torch.stack([half, whole]))[0, 1] > 0.98


def test_a_circuit_is_evaluated(model):
    task = tiny.task()
    found = ew.discover(model, task, method="edge-attribution", edges=60)
    measured = ew.evaluate(model, task, found.circuit).measured
    assert measured["kl_div"] == measured["kl_div"]
