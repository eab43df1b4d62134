"""Everything in one go: controls that are held against the right thing, and reasons for what is missing."""

import numpy as np
import pytest
import tiny

import edgewise as ew
from edgewise.evaluation import Bootstrap, evaluate, random_circuit
from edgewise.evaluation.effort import Options
from edgewise.graph import Circuit
from edgewise.runs.assess import AssessmentInterrupted, assess

OPTIONS = Options(circuits=29, permutations=20)
NO_INTERVALS = Bootstrap(resamples=0)


@pytest.fixture(scope="module")
def induction():
    model = ew.load_model("tiny-induction")
    task = ew.load_task("induction", model, examples=4)
    return model, task, ew.discover(model, task).circuit


def found(setting, circuit, **options):
    model, task, _ = setting
    return assess(model, task, circuit, bootstrap=NO_INTERVALS, options=OPTIONS, **options)


def test_the_permuted_control_goes_from_the_permuted_networks_own_ablated_run(induction):
    """No edges recover nothing there, whatever the network; all edges what the network itself does."""
    model, task, circuit = induction
    permuted, held = ew.permuted(model, OPTIONS.seed), []
    for one in (Circuit.empty(circuit.graph), Circuit.full(circuit.graph), circuit):
        wanted = evaluate(permuted, task, one, bootstrap=NO_INTERVALS).measured["kl_div"].recovered
        held.append(found(induction, one).permuted)
        assert held[-1] == tiny.near(wanted)
    assert held[0] == tiny.near(0)
    assert held[-1] < 0.5


def test_a_model_with_nothing_to_permute_has_no_such_control():
    model = ew.load_model("tracr-xproportion")
    task = ew.load_task("tracr-xproportion", model, examples=4)
    result = assess(model, task, task.known_circuit.circuit, bootstrap=NO_INTERVALS, options=OPTIONS)
    assert result.permuted is None
    assert any("nothing to permute" in note for note in result.notes)


def test_what_is_recovered_by_example_agrees_with_the_whole_on_a_permuted_network(induction):
    model, task, _ = induction
    permuted = ew.permuted(model, 0)
    circuit = random_circuit(permuted.graph(), 60, seed=0)
    result = evaluate(permuted, task, circuit, bootstrap=NO_INTERVALS)
    spread = result.spread
    counts = np.bincount(task.prompts.scored_rows.numpy())
    way = ((spread.target - spread.ablated) * counts).sum()
    together = (spread.recovered * (spread.target - spread.ablated) * counts).sum() / way
    assert together == tiny.near(result.measured["kl_div"].recovered)
    assert not np.allclose(spread.target, spread.full)


def test_scores_about_another_metric_and_graphs_that_the_benchmark_has_not_are_said(induction):
    model, task, _ = induction
    scored = ew.discover(model, task, method="edge-attribution", edges=9).circuit
    result = found(induction, scored, scored=True, scored_by="kl_div")
    assert result.mib is None
    assert any(note.startswith("no measures of the MIB benchmark: ") for note in result.notes)
    model = ew.load_model("tiny-pronoun")
    task = ew.load_task("gender-pronoun", model, examples=4)
    for metric, said in (("kl_div", True), ("logit_diff", False)):
        scored = ew.discover(model, task, method="edge-attribution", metric=metric, edges=9).circuit
        result = assess(model, task, scored, scored=True, scored_by=metric, bootstrap=NO_INTERVALS, options=OPTIONS)
        assert result.mib is not None
        assert any("were scored by kl_div" in note for note in result.notes) is said


def test_the_same_search_is_made_again_with_its_own_selection(tmp_path):
    from edgewise.runs import SearchRequest

    model = ew.load_model("tiny-pronoun")
    task = ew.load_task("gender-pronoun", model, examples=4)
    run = ew.discover(model, task, method="edge-attribution", edges=30, select="greedy")
    search = SearchRequest.from_dict(run.record["settings"])
    assert search.select == "greedy"
    again = assess(
        model, task, run.circuit, search=search, rediscover=2, quick=True, bootstrap=NO_INTERVALS, options=OPTIONS
    )
    (stability,) = again.stability
    assert min(stability.with_first) > 0.5


def test_sections_are_told_of_as_they_are_finished_and_the_last_is_everything(induction):
    told = []
    circuit = ew.discover(*induction[:2], method="edge-attribution", edges=9).circuit
    result = found(induction, circuit, scored=True, found_so_far=told.append)
    assert [one.hypotheses is None for one in told] == [True, False, False]
    assert told[-1] is result
    assert told[0].evaluation == result.evaluation


def test_what_was_found_until_an_assessment_is_stopped_is_kept(induction):
    circuit = induction[2]

    def stop(what, done, of):
        if what == "tests" and done == 40:
            raise SystemExit(143)

    with pytest.raises(AssessmentInterrupted) as caught:
        found(induction, circuit, progress=stop)
    assert isinstance(caught.value.__cause__, SystemExit)
    kept = caught.value.found
    assert kept.evaluation.value == pytest.approx(0, abs=1)
    assert len(kept.hypotheses.random) == 29
    assert kept.hypotheses.left_out.startswith("tried until interrupted")
    assert kept.to_dict()["hypotheses"]["left_out"] == kept.hypotheses.left_out
