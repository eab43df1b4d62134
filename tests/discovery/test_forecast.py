"""What a search will take, foretold from the edges that it will keep."""

import pytest
import tiny
from family_models import family

from edgewise.discovery import acdc
from edgewise.discovery import plan as plans
from edgewise.discovery.forecast import DEARER, Forecast
from edgewise.discovery.plan import plan_acdc
from edgewise.graph import Circuit, Graph
from edgewise.models import load_model
from edgewise.patching import Costs, Experiment
from edgewise.tasks import load_task


def forecast(graph, stays, costs=Costs(0, 0, 0, 1), start=None, known=(0, 0.0)):  # noqa: B008 - frozen
    return Forecast(graph, start or Circuit.full(graph), stays, costs, 10, known)


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize(("name", "whole"), [("gpt2", False), ("llama", False), ("parallel", True), ("olmo2", False)])
def test_told_what_is_kept_it_knows_what_is_tested(name, whole, share):
    made = tiny.FAMILIES.get(name)
    model = family(name) if made is None else made(layers=2)
    experiment = Experiment(model, tiny.task(), whole_heads=whole)
    found = acdc(experiment, share * abs(experiment.full() - experiment.ablated()))
    assert 0 < found.circuit.n_edges < experiment.graph.n_edges
    assert forecast(experiment.graph, found.circuit).tests == found.tests


def test_positions_and_shortlists_are_foretold_too():
    model = load_model("tiny-ioi")
    experiment = Experiment(model, load_task("ioi", model, examples=4), positions="spans")
    found = acdc(experiment, 1.0)
    assert forecast(experiment.graph, found.circuit).tests == found.tests
    start = found.circuit.connected()
    again = acdc(experiment, 2.0, start=start)
    assert again.tests < found.tests
    assert forecast(experiment.graph, again.circuit, start=start).tests == again.tests


def test_a_test_costs_what_lies_between_its_input_and_the_logits():
    graph = Graph(
        2, 1, ports=False
    )  # into the logits 5 edges, m1 4, a1.h0's inputs 3 each, m0 2, a0.h0's inputs 1 each
    chain = ["input->m0", "m0->a1.h0<q>", "a1.h0->m1", "m1->logits"]
    told = forecast(graph, Circuit.from_names(graph, chain), Costs(sender=1e-3, head=1.0, mlp=100.0, vocabulary=0))
    assert told.tests == 5 + 4 + 3 * 3 + 2
    # Nothing is needed before the last of ten positions.
    nodes = 5 * 0 + 4 * 100 + 9 * (1 + 100) + 2 * (100 + 1 + 100)
    assert told.seconds == pytest.approx(DEARER * (nodes / 10 + told.tests * 1e-3))


def test_what_keys_and_values_read_is_needed_everywhere():
    graph = Graph(2, 1, ports=False)
    costs = Costs(sender=0, head=1.0, mlp=100.0, vocabulary=0)
    by_value = Circuit.from_names(graph, ["input->m0", "m0->a1.h0<v>", "a1.h0->logits"])
    told = forecast(graph, by_value, costs)
    assert told.tests == 5 + 3 * 3 + 2
    assert told.seconds == pytest.approx(DEARER * (9 * 1 / 10 + 2 * (100 + 1 / 10)))


def test_what_is_behind_is_the_least_that_it_takes():
    graph = Graph(1, 1, ports=False)
    told = forecast(graph, Circuit.empty(graph), known=(50, 9.0))
    assert (told.tests, told.seconds) == (50, 9.0)


@pytest.mark.parametrize(("task", "threshold"), [("ioi", 0.01), ("greater-than", 0.01), ("induction", 0.3)])
def test_a_plan_foretells_the_tests_of_shipped_tasks_within_twice(task, threshold, monkeypatch):
    monkeypatch.setattr(plans, "TRIED_SECONDS", 0.0)
    model = load_model(f"tiny-{task}")
    experiment = Experiment(model, load_task(task, model, examples=8))
    least, likely, perhaps = plan_acdc(experiment, threshold).estimates
    truth = acdc(experiment, threshold).tests
    assert truth / 2 <= likely.tests <= 2 * truth
    assert least.tests <= truth
    assert least.seconds <= likely.seconds <= perhaps.seconds
    assert perhaps.tests <= experiment.graph.n_edges


def test_without_a_gradient_a_plan_goes_by_what_was_tried(monkeypatch):
    monkeypatch.setattr(plans, "TRIED_SECONDS", 0.0)
    model = load_model("tiny-ioi")

    def wrong(logits, reference):
        return (logits.argmax(dim=-1) != reference.logits.argmax(dim=-1)).float()

    experiment = Experiment(model, load_task("ioi", model, examples=4), metric=wrong)
    least, likely, perhaps = plan_acdc(experiment, 0.1).estimates
    assert 0 < least.tests <= likely.tests <= perhaps.tests
