"""Each test's verdict on circuits of which it is known, and its p-values against what they should be."""

import dataclasses

import numpy as np
import pytest
import tiny
from scipy.stats import binom

from edgewise import load_model, load_task
from edgewise.discovery import acdc
from edgewise.errors import EdgewiseError
from edgewise.evaluation import random_circuit, run_tests
from edgewise.evaluation.effort import Options, Share, affordable
from edgewise.evaluation.hypotheses import NOT_MADE, TestsInterrupted, score_metric
from edgewise.evaluation.p_values import (
    better_p_value,
    equivalence_p_value,
    fewest_examples,
    hsic_test,
    minimality_p_value,
)
from edgewise.graph import Circuit
from edgewise.patching import Experiment


@pytest.fixture(scope="module")
def induction():
    model = load_model("tiny-induction")
    return Experiment(model, load_task("induction", model, examples=8))


@pytest.fixture(scope="module")
def reverse():
    model = load_model("tracr-reverse")
    task = load_task("tracr-reverse", model)
    return Experiment(model, task), task.known_circuit.circuit


SOME = dict(circuits=30, permutations=200)


def by_name(found):
    return {test.name: test.passed for test in found.tests}


def verdicts(experiment, circuit, **options):
    found = run_tests(experiment, circuit, Options(**{**SOME, **options}))
    return by_name(found), found


@pytest.fixture(scope="module")
def of_acdc(induction):
    """A circuit that ACDC found, and what the tests say of it."""
    circuit = acdc(induction, 0.01).circuit
    return circuit, run_tests(induction, circuit, Options(**SOME))


def test_the_true_circuit_of_a_program_passes_all_it_can_be_put_to(reverse):
    experiment, known = reverse
    passed, found = verdicts(experiment, known)
    assert passed == {
        "equivalence": None,  # nothing outdoes the model at being close to itself
        "independence": None,  # the squared distance of the model from itself does not vary
        "minimality": True,
        "sufficiency": True,
        "partial necessity": True,
    }
    assert len(found.effects) == 15
    assert all(one.needed and one.rise > 0.2 for one in found.effects)
    assert max(found.random) < 0.5


def test_an_edge_too_many_is_found(reverse):
    experiment, known = reverse
    extra = next(name for name in Circuit.full(known.graph).names() if name not in known)
    passed, found = verdicts(experiment, known.add(extra))
    assert passed["minimality"] is False
    assert passed["sufficiency"] is True
    assert [one.edge for one in found.effects if not one.needed] == [extra]
    assert found.effects[0].effect == pytest.approx(0, abs=1e-9)


def test_the_whole_model_is_equivalent_to_itself_and_cannot_be_told_from_random_circuits_of_its_size(induction):
    passed, _ = verdicts(induction, Circuit.full(induction.graph))
    assert passed["equivalence"] is True
    assert passed["sufficiency"] is None
    assert passed["minimality"] is None
    assert passed["partial necessity"] is None, "nothing is left to draw random circuits from"


def test_an_empty_circuit_fails(induction):
    passed, found = verdicts(induction, Circuit.empty(induction.graph))
    assert passed == {
        "equivalence": False,
        "independence": False,
        "minimality": None,
        "sufficiency": False,
        "partial necessity": False,
    }
    assert found.effects == ()


def test_what_acdc_finds_is_better_than_chance(of_acdc):
    _, found = of_acdc
    passed = by_name(found)
    assert found.score == "nll"
    assert passed["sufficiency"] is True
    assert passed["partial necessity"] is True
    assert passed["minimality"] is True


@pytest.mark.parametrize("count", [pytest.param(8, marks=pytest.mark.slow)])
def test_random_circuits_are_not_better_than_chance(induction, of_acdc, count):
    circuit, _ = of_acdc
    sufficient = necessary = equivalent = 0
    for seed in range(count):
        chance = random_circuit(circuit.graph, circuit.n_edges, 1000 + seed)
        passed, _ = verdicts(induction, chance, reference="whole")
        sufficient += bool(passed["sufficiency"])
        necessary += bool(passed["partial necessity"])
        equivalent += bool(passed["equivalence"])
    assert sufficient <= 1
    assert necessary <= 1
    assert equivalent == 0


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_random_circuits_are_not_found_sufficient_where_many_are_exact(reverse, count):
    """Of nearly full circuits of a program many do exactly as it does, so being one of them is no distinction."""
    experiment, known = reverse
    passed = []
    for seed in range(count):
        candidate = random_circuit(known.graph, 98, 500 + seed)
        passed.append(verdicts(experiment, candidate)[0]["sufficiency"])
    assert True not in passed


def test_tests_are_those_of_a_seed(induction):
    circuit = acdc(induction, 0.5).circuit
    first, again = (verdicts(induction, circuit, seed=4)[1] for _ in range(2))
    assert first == again
    assert verdicts(induction, circuit, seed=5)[1].random != first.random


def test_effects_are_those_of_removing_each_edge(induction, of_acdc):
    circuit, found = of_acdc
    own = induction.value(circuit)
    for one in found.effects:
        assert one.rise == tiny.near(induction.value(circuit.remove(one.edge)) - own)
    assert [one.effect for one in found.effects] == sorted(one.effect for one in found.effects)


def test_the_score_compares_answers_where_there_are_any():
    model = tiny.gpt2(layers=1)
    task = tiny.task()
    assert score_metric(Experiment(model, task)).name == "logit_diff"
    without = dataclasses.replace(task, prompts=dataclasses.replace(task.prompts, wrong=None))
    assert score_metric(Experiment(model, without)).name == "nll"
    neither = dataclasses.replace(without, prompts=dataclasses.replace(without.prompts, answers=None))
    assert score_metric(Experiment(model, neither)).name == "kl_div"


# -- with less time, or stopped ----------------------------------------------------------------------------------------


def test_what_there_is_time_for_goes_to_tests_that_can_find_something():
    assert affordable(600, 100, 200, 29) == Share(100, 100, 100, 200)
    assert affordable(599, 100, 200, 29) == Share(99, 99, 99, 200)
    assert affordable(4 * 29 + 200, 100, 200, 29) == Share(29, 29, 29, 200)
    assert affordable(150, 100, 200, 29) == Share(29, 29, 10, 72), "fewer edges"
    assert affordable(60, 100, 200, 29) == Share(29, 0, 10, 11), "no partial necessity"
    assert affordable(50, 100, 200, 29) == Share(29, 0, 0, 0)
    assert affordable(28, 100, 200, 29) == Share(0, 0, 0, 0)
    assert affordable(1e30, 100, 0, 29) == Share(100, 100, 0, 0), "an empty circuit has no edges to try"
    for runs in range(0, 700, 7):
        assert affordable(runs, 100, 200, 29).runs <= runs


def test_tests_without_time_are_left_out_by_name_and_those_that_need_none_are_made(induction):
    circuit = acdc(induction, 0.5).circuit
    found = run_tests(induction, circuit, Options(**SOME, seconds=1e-9))
    verdict = {test.name: (test.passed is not None, test.verdict) for test in found.tests}
    assert [verdict[name][0] for name in ("equivalence", "independence")] == [True, True]
    assert all(verdict[name] == (False, NOT_MADE) for name in ("minimality", "sufficiency", "partial necessity"))
    assert "0 of 30 random circuits, " in found.left_out
    assert f"0 of {circuit.n_edges} edges of the circuit" in found.left_out
    assert run_tests(induction, circuit, Options(**SOME, seconds=1e9)).left_out is None
    with pytest.raises(EdgewiseError, match="above 0, not 0"):
        Options(seconds=0)


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, SystemExit])
def test_tests_that_are_stopped_give_what_follows_from_the_runs_until_then(induction, of_acdc, stopped_by):
    circuit, whole = of_acdc

    def stop(done: int, of: int) -> None:
        assert of == 120 + circuit.n_edges
        if done == 30 + 60 + 4:
            raise stopped_by

    with pytest.raises(TestsInterrupted) as caught:
        run_tests(induction, circuit, Options(**SOME), progress=stop)
    found = caught.value.found
    same = ("equivalence", "independence", "sufficiency")
    assert [one for one in found.tests if one.name in same] == [one for one in whole.tests if one.name in same]
    assert found.random == whole.random
    assert len(found.effects) == 4
    effects = {one.edge: one.effect for one in whole.effects}
    assert all(one.effect == pytest.approx(effects[one.edge]) for one in found.effects)
    assert found.left_out == (
        f"tried until interrupted: 0 of 30 random circuits ablated, 4 of {circuit.n_edges} edges of the circuit"
    )
    assert "of 4 edges tried pass" in next(one.verdict for one in found.tests if one.name == "minimality")


# -- p-values ----------------------------------------------------------------------------------------------------------


def test_the_equivalence_test_is_the_binomial_of_the_paper():
    """Both tails as far out as the share seen, at the edge of the null hypothesis."""
    wanted = sum(binom.pmf(k, 30, 0.6) for k in range(31) if abs(k / 30 - 0.5) >= abs(24 / 30 - 0.5) - 1e-12)
    assert equivalence_p_value(24, 30, 0.1) == pytest.approx(wanted)
    assert equivalence_p_value(15, 30, 0.1) == 1
    assert equivalence_p_value(0, 30, 0.1) == pytest.approx(0.4**30 + 0.6**30)


def test_the_equivalence_test_rejects_a_true_hypothesis_seldom():
    generator = np.random.default_rng(0)
    for chance in (0.5, 0.6):
        counts = generator.binomial(40, chance, 2000)
        rejected = np.mean([equivalence_p_value(count, 40, 0.1) < 0.05 for count in counts])
        assert rejected <= 0.06
    assert np.mean([equivalence_p_value(count, 40, 0.1) < 0.05 for count in generator.binomial(40, 0.95, 200)]) > 0.95


def test_the_independence_test_keeps_its_level_and_finds_dependence():
    generator = np.random.default_rng(1)
    rejected = 0
    for number in range(100):
        x, y = generator.normal(size=25), generator.normal(size=25)
        rejected += hsic_test(x, y, 200, number)[1] < 0.05
    assert rejected <= 12
    x = generator.normal(size=40)
    for y in (x + 0.3 * generator.normal(size=40), x**2, -x):
        assert hsic_test(x, y, 200, 0)[1] < 0.01
    assert hsic_test(x, np.full(40, 2.0), 200, 0) == (0.0, 1.0)


def test_p_values_against_random_circuits():
    assert better_p_value(100, 100, 0.9) == pytest.approx(0.9**100)
    assert better_p_value(90, 100, 0.9) > 0.5
    others = np.linspace(0, 1, 100)
    assert minimality_p_value(2.0, others, 0.9) == 1
    assert minimality_p_value(0.0, others, 0.9) == pytest.approx(0.1**100)
    assert minimality_p_value(others[0], np.zeros(50), 0.9) == pytest.approx(0.1**50), "a tie outdoes nothing"


# -- what they need ----------------------------------------------------------------------------------------------------


def test_too_few_circuits_permutations_or_examples_are_refused():
    with pytest.raises(EdgewiseError, match="with fewer than 29 random circuits no test"):
        Options(circuits=28)
    assert Options(circuits=29).circuits == 29
    with pytest.raises(EdgewiseError, match="at least 20 permutations"):
        Options(permutations=19)
    for wrong in (dict(level=0.0), dict(quantile=1.0), dict(epsilon=0.5)):
        with pytest.raises(EdgewiseError, match="between 0 and 1"):
            Options(**wrong)
    with pytest.raises(EdgewiseError, match="unknown reference 'inside'"):
        Options(reference="inside")
    model = tiny.gpt2(layers=1)
    with pytest.raises(EdgewiseError, match="need at least 2 prompt pairs; task 'random' has 1"):
        run_tests(Experiment(model, tiny.task(rows=1)), Circuit.full(model.graph(ports=True)))
    assert fewest_examples(0.1, 0.05) == 7
    with pytest.raises(EdgewiseError, match="whole number of 0 or more, not -1"):
        Options(seed=-1)
    few = run_tests(Experiment(model, tiny.task(rows=4)), Circuit.empty(model.graph(ports=True)))
    verdict = {test.name: test.verdict for test in few.tests}
    assert verdict["equivalence"] == "needs at least 7 examples to find a difference; there are 4"
    assert verdict["independence"] == "needs at least 5 examples; there are 4"


def test_a_circuit_of_another_graph_is_refused(induction):
    with pytest.raises(EdgewiseError, match="over another graph"):
        run_tests(induction, Circuit.full(tiny.gpt2().graph()))
