"""What a search's circuit is worth, and that a circuit which fails is not presented as a result."""

import warnings

import pytest
import tiny

import edgewise as ew
from edgewise.errors import EdgewiseWarning
from edgewise.evaluation import Outcome, evaluate, outcome_of
from edgewise.graph import Circuit
from edgewise.patching import Experiment


@pytest.mark.parametrize("metric", ["kl_div", "logit_diff"])
@pytest.mark.parametrize("permuted", [False, True])
def test_the_outcome_is_what_evaluate_finds(metric, permuted):
    model = ew.load_model("tiny-pronoun")
    model = ew.permuted(model, 0) if permuted else model
    task = ew.load_task("gender-pronoun", model, examples=8)
    experiment = Experiment(model, task, metric=metric)
    circuit = Circuit.full(experiment.graph).remove("m0->logits")
    found = outcome_of(experiment, experiment.logits(circuit), experiment.full(), experiment.ablated())
    wanted = evaluate(model, task, circuit, metric=metric)
    assert found.metric == pytest.approx(wanted.value, rel=1e-6)
    assert found.recovered == pytest.approx(wanted.measured[metric].recovered, rel=1e-5)
    assert found.accuracy == wanted.accuracy.circuit


def test_a_task_without_answers_has_no_accuracy_and_no_way_no_share():
    model = ew.load_model("tracr-reverse")
    experiment = Experiment(model, ew.load_task("tracr-reverse", model))
    full = Circuit.full(experiment.graph)
    assert outcome_of(experiment, experiment.logits(full), 0.0, 0.0) == Outcome(0.0)


@pytest.mark.parametrize("options", [{"threshold": 6.0}, {"method": "edge-attribution", "edges": 3}])
def test_a_search_whose_circuit_fails_warns_and_one_that_succeeds_does_not(options):
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model, examples=8)
    with pytest.warns(EdgewiseWarning, match="the circuit of .* recovers .*less than half"):
        run = ew.discover(model, task, **options)
    assert run.record["result"]["recovered"] < 0.5
    assert run.record["result"]["accuracy"] <= run.record["result"]["accuracy_full"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", EdgewiseWarning)
        found = ew.discover(model, task, threshold=0.05).record["result"]
        ew.discover(ew.permuted(model, 0), task, threshold=1.0)  # a control is there to fail
    assert found["recovered"] > 0.9
    assert found["accuracy"] == 1


def test_the_circuit_is_run_once_for_metric_and_accuracy(monkeypatch):
    model = tiny.gpt2(layers=1)
    task = tiny.task()
    runs = []
    whole = Experiment.logits
    monkeypatch.setattr(Experiment, "logits", lambda self, circuit: runs.append(circuit) or whole(self, circuit))
    run = ew.discover(model, task, threshold=0.5)
    assert runs.count(run.circuit) == 1
