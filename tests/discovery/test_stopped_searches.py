"""A search that is stopped anywhere goes on from its journal, to the circuit and the trace of one that was not."""

from __future__ import annotations

import functools
import random

import pytest
import tiny

from edgewise.discovery import Decision, Discovery, acdc, acdc_sweep, acdc_with_edges
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment


class Killed(BaseException):
    """The process is gone: nothing after this is heard."""


class Memory:
    """A journal that dies after so many decisions, and forgets what was not flushed, but for some of it."""

    def __init__(self) -> None:
        self.searches: list[tuple[float, list[Decision]]] = []
        self.left: float = float("inf")
        self.added = 0

    def thresholds(self) -> list[float]:
        return [threshold for threshold, _ in self.searches]

    def search(self, threshold: float) -> list[Decision]:
        for at, decisions in self.searches:
            if at == threshold:
                return list(decisions)
        self.searches.append((threshold, []))
        return []

    def cut(self, count: int) -> None:
        del self.searches[-1][1][count:]

    def add(self, decision: Decision) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        self.added += 1
        self.searches[-1][1].append(decision)

    def flush(self, progress: object) -> None:
        pass

    def killed(self, after: float) -> Memory:
        self.left = after
        return self


@functools.cache
def experiment(family: str = "llama") -> Experiment:
    return Experiment(tiny.FAMILIES[family](layers=2), tiny.task())


def same(one: Discovery, other: Discovery) -> None:
    """The same in every bit: circuit, scores, trace and metrics."""
    assert one.circuit == other.circuit
    assert one.trace == other.trace
    assert (one.circuit.scores == other.circuit.scores).all()
    assert (one.circuit.port_scores == other.circuit.port_scores).all()
    assert (one.metric, one.metric_full, one.metric_start) == (other.metric, other.metric_full, other.metric_start)
    assert (one.tests, one.tried, one.passes, one.threshold) == (
        other.tests,
        other.tried,
        other.passes,
        other.threshold,
    )


SEARCHES = [
    ("llama", {}),
    ("llama", {"passes": 3, "budget": 0.5}),
    ("gpt2", {"engine": "plain"}),
    ("parallel", {"passes": 2}),
    ("plain-attention-only", {"absolute": True}),
]


@pytest.mark.parametrize(("family", "options"), SEARCHES)
def test_a_search_killed_again_and_again_ends_as_one_that_was_not(family, options):
    threshold = 0.003 if family in ("gpt2", "plain-attention-only") else 0.03
    whole = acdc(experiment(family), threshold, **options)
    assert 0 < whole.circuit.n_edges < experiment(family).graph.n_edges
    dice = random.Random(family)
    for _ in range(1 if options else 2):
        journal, kills = Memory(), 0
        while True:
            try:
                found = acdc(
                    experiment(family), threshold, journal=journal.killed(dice.randint(0, len(whole.trace))), **options
                )
                break
            except Killed:
                kills += 1
                decided = journal.searches[-1][1]
                decided[len(decided) - min(len(decided), dice.randint(0, 3)) :] = []  # what had not reached the disk
        same(found, whole)
        assert journal.searches == [(threshold, list(whole.trace))]


def test_no_more_than_one_inputs_work_is_done_again():
    whole = acdc(experiment(), 0.03)
    largest = experiment().graph.edges.sum(axis=0).max()
    for after in (3, 40, 60, len(whole.trace) - 1):
        journal = Memory()
        with pytest.raises(Killed):
            acdc(experiment(), 0.03, journal=journal.killed(after))
        same(acdc(experiment(), 0.03, journal=journal.killed(float("inf"))), whole)
        assert len(whole.trace) <= journal.added <= len(whole.trace) + largest


def test_what_was_taken_over_is_told_apart_from_what_is_tested_now():
    journal = Memory()
    with pytest.raises(Killed):
        acdc(experiment(), 0.03, journal=journal.killed(50))
    told = []
    whole = acdc(experiment(), 0.03, journal=journal.killed(float("inf")), progress=told.append)
    over = told[-1].resumed
    assert 0 < over <= 50
    assert told[0].tests >= over, "nothing is told of each decision that is taken over"
    assert told[-1].tests == whole.tests


def test_a_search_that_had_ended_is_not_made_again(monkeypatch):
    journal = Memory()
    whole = acdc(experiment(), 0.03, journal=journal, passes=2)
    monkeypatch.setattr("edgewise.discovery.search.make_engine", None)
    same(acdc(experiment(), 0.03, journal=journal, passes=2), whole)


def test_a_search_for_a_size_goes_on_with_all_it_has_searched():
    whole = acdc_with_edges(experiment(), 30)
    dice = random.Random(0)
    for _ in range(2):
        journal = Memory()
        while True:
            try:
                found = acdc_with_edges(experiment(), 30, journal=journal.killed(dice.randint(10, whole.tests)))
                break
            except Killed:
                pass
        same(found, whole)


def test_a_sweep_goes_on_and_knows_which_thresholds_decide_alike():
    thresholds = (0.03, 0.0300001, 0.1, 0.0299999)
    whole = list(acdc_sweep(experiment(), thresholds))
    assert {one.same_as for one in whole} != {None}
    journal = Memory()
    with pytest.raises(Killed):
        list(acdc_sweep(experiment(), thresholds, journal=journal.killed(whole[0].discovery.tests + 20)))
    again = list(acdc_sweep(experiment(), thresholds, journal=journal.killed(float("inf"))))
    left = list(acdc_sweep(experiment(), thresholds[1:], journal=journal))  # as where circuits of the first are kept
    for one, other in zip(again + left, whole + whole[1:], strict=True):
        same(one.discovery, other.discovery)
        assert one.same_as == other.same_as


def test_decisions_of_another_search_are_refused():
    journal = Memory()
    acdc(experiment(), 0.03, journal=journal)
    ((_, decisions),) = journal.searches
    journal.searches[0] = (0.1, decisions)
    with pytest.raises(EdgewiseError, match="not this search's"):
        acdc(experiment(), 0.1, journal=journal)
    journal.searches[0] = (0.03, decisions + decisions)
    with pytest.raises(EdgewiseError, match="not this search's"):
        acdc(experiment(), 0.03, journal=journal)
