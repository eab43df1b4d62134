"""What blocks of guesses are made by: it costs or saves work, and decides nothing."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from edgewise.discovery import acdc
from edgewise.discovery.foresight import Foresight
from edgewise.discovery.guess import best_length, decide
from edgewise.graph import Circuit
from edgewise.patching import Experiment


class Adding:
    """An engine whose edges each add something to the metric when they are gone."""

    def __init__(self, effects):
        self.effects, self.gone, self.computed = effects, set(), 0
        self.block_costs = 2.0

    def at_once(self, column):
        return 64

    def measure(self, column, candidates):
        self.computed += len(candidates)
        return [float(sum(self.effects[row] for row in self.gone | set(candidate))) for candidate in candidates]

    def commit(self, column, removed):
        self.gone |= set(removed)


def searched(effects, threshold, foresight):
    engine, kept = Adding(effects), []
    for row, before, after, gone in decide(
        engine, 0, range(len(effects)), 0.0, lambda a, b: b - a < threshold, foresight
    ):
        foresight.see(row, 0, kept=not gone)
        kept += [] if gone else [row]
        assert gone == (after - before < threshold)
    return kept, engine.computed


def test_scores_that_tell_what_stays_save_measurements_and_change_no_decision():
    dice = np.random.default_rng(0)
    effects = np.exp(dice.normal(-2, 1.5, size=400))
    wanted = np.flatnonzero(effects >= 0.5).tolist()
    assert 20 < len(wanted) < 80
    blind, computed_blind = searched(effects, 0.5, Foresight(0.5))
    seeing, computed_seeing = searched(effects, 0.5, Foresight(0.5, effects[:, None]))
    misled, _ = searched(effects, 0.5, Foresight(0.5, dice.permutation(effects)[:, None]))
    assert blind == seeing == misled == wanted
    assert computed_seeing < 1.1 * 400 < computed_blind < 2 * 400


@pytest.mark.parametrize("scores", [0.0, -1.0, np.nan, np.inf, 1e-300, 1e300])
def test_scores_that_say_nothing_do_no_harm(scores):
    foresight = Foresight(0.01, np.full((3, 2), scores))
    assert 0 < foresight.chance(1, 1) < 1
    foresight.see(1, 1, kept=True)
    assert 0 < foresight.chance(1, 1) < 1


def test_edges_of_a_size_stay_as_often_as_those_of_it_did():
    foresight = Foresight(1.0, np.array([[0.1], [8.0]]))
    assert foresight.chance(0, 0) < 0.1 < 0.9 < foresight.chance(1, 0)
    for _ in range(100):
        foresight.see(0, 0, kept=True)
        foresight.see(1, 0, kept=False)
    assert foresight.chance(1, 0) < 0.1 < 0.9 < foresight.chance(0, 0)


def test_a_block_is_as_long_as_gives_most_answers_for_its_cost():
    assert best_length([0.0] * 50, 1.0) == 50, "what is certain is asked all at once"
    assert best_length([0.5] * 50, 0.0) == 1
    assert best_length([0.5] * 50, 1.0) < best_length([0.5] * 50, 30.0) < 15
    chances = np.random.default_rng(1).random(12)
    right = np.maximum(chances, 1 - chances)
    rates = [sum(np.prod(right[:at]) for at in range(length)) / (3 + length) for length in range(1, 13)]
    assert best_length(chances.tolist(), 3.0) == 1 + int(np.argmax(rates))


def test_whatever_scores_a_search_starts_with_it_decides_the_same():
    experiment = Experiment(tiny.llama(layers=1), tiny.task())
    every, dice = Circuit.full(experiment.graph), np.random.default_rng(2)
    wanted = acdc(experiment, 0.06)
    scores = np.where(dice.random(every.edges.shape) < 0.2, np.nan, dice.normal(size=every.edges.shape))
    found = acdc(experiment, 0.06, start=every.with_scores(scores))
    assert [(one.edge, one.kept) for one in found.trace] == [(one.edge, one.kept) for one in wanted.trace]
    assert 0 < found.circuit.n_edges < len(found.trace)
