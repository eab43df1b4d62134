"""One search over several workers decides what it decides alone, whichever of them die and when."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_incremental_random import FEWER_HEADS, MODELS, random_cases
from torch import Tensor
from twins import decisions, same_decisions

import edgewise as ew
from edgewise.discovery import Decision, Discovery, Interrupted, Progress, acdc, acdc_by_node, acdc_with_edges
from edgewise.discovery.spread import (
    MOST_DEATHS,
    PIECES,
    Answer,
    Answering,
    Question,
    Spread,
    WorkerDied,
    shards,
    shared_out,
)
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.patching import Experiment, OutOfMemoryError


class Here:
    """Workers in this process: what they are asked and answer goes through pickle, and each dies when it is told to."""

    def __init__(
        self, experiments: Sequence[Experiment], places: Sequence[Tensor] | None, dies: Callable[[int], bool]
    ) -> None:
        self.experiments, self.places, self.dies = experiments, places, dies
        self.answering: list[Answering | None] = []
        self.asked: list[bytes | None] = [None] * len(experiments)
        self.questions = 0
        for worker in range(len(experiments)):
            self.answering.append(self._new(worker))

    def _new(self, worker: int) -> Answering:
        return Answering(self.experiments[worker], by_place=self.places is not None)

    def __len__(self) -> int:
        return len(self.experiments)

    def ask(self, worker: int, question: Question) -> None:
        self.asked[worker] = pickle.dumps(dataclasses.replace(question, make=None))
        self.make = question.make  # of tiny models, made by closures that pickle does not know
        answering = self.answering[worker]
        self.questions += 1
        if answering is None or self.dies(self.questions):
            self.answering[worker] = self.asked[worker] = None
            return
        given: Question = pickle.loads(self.asked[worker] or b"")
        self.asked[worker] = pickle.dumps(answering.answer(dataclasses.replace(given, make=question.make)))

    def answer(self, worker: int) -> Answer:
        answered = self.asked[worker]
        if answered is None:
            raise WorkerDied("it was shot")
        return pickle.loads(answered)

    def replace(self, worker: int) -> None:
        assert self.answering[worker] is None
        self.answering[worker] = self._new(worker)


THRESHOLD = 0.002
"""At which a fifth of all edges of the model below are kept."""


def never(_: int) -> bool:
    return False


def workers(experiment: Experiment, count: int, dies: Callable[[int], bool] = never) -> Here:
    return Here([experiment] * count, None, dies)


def sharing_prompts(experiment: Experiment, count: int, dies: Callable[[int], bool] = never) -> Here:
    return Here(*shards(experiment, count), dies)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.gpt2(layers=2, heads=2, dtype=torch.float64)


@pytest.fixture(scope="module")
def experiment(model: Any) -> Experiment:
    return Experiment(model, tiny.task(rows=4))


@pytest.fixture(scope="module")
def alone(experiment: Experiment) -> Discovery:
    return acdc(experiment, THRESHOLD)


@pytest.fixture(scope="module")
def by_one(experiment: Experiment) -> Discovery:
    return acdc(experiment, THRESHOLD, engine=Spread(workers(experiment, 1), "incremental"))


def test_pieces_are_the_same_for_any_number_of_workers() -> None:
    for count in (1, 3, 7, 8, 9, 40, 64):
        candidates = [(row,) for row in range(count)]
        cuts = [[piece for own in shared_out(candidates, number) for piece in own] for number in (1, 2, 3, 5, 11)]
        assert all(one == cuts[0] for one in cuts)
        assert [row for piece in cuts[0] for row in piece] == candidates
        assert len(cuts[0]) <= PIECES
        busy = [len(own) for own in shared_out(candidates, 3)]
        assert max(busy) - min(busy) <= 1


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow), 12])
def test_any_number_of_workers_gives_the_same_bits(experiment, alone, by_one, count) -> None:
    found = acdc(experiment, THRESHOLD, engine=Spread(workers(experiment, count), "incremental"))
    assert found.trace == by_one.trace
    assert found.circuit == by_one.circuit
    assert np.array_equal(np.array(found.circuit.scores), np.array(by_one.circuit.scores))
    assert 0 < found.circuit.n_edges < experiment.graph.n_edges
    assert same_decisions(found, alone, torch.float64)


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_workers_that_die_change_no_bit(experiment, by_one, count) -> None:
    for seed in range(count):
        chance = random.Random(seed)
        some = workers(experiment, 3, lambda _, chance=chance: chance.random() < 0.15)
        spread = Spread(some, "incremental")
        engines: list[Any] = []

        def made(*given: Any, spread: Spread = spread, engines: list[Any] = engines) -> Any:
            engines.append(spread(*given))
            return engines[-1]

        found = acdc(experiment, THRESHOLD, engine=made)
        assert sum(one.died for one in engines) > 3
        assert found.trace == by_one.trace
        assert found.circuit == by_one.circuit


class Kept:
    """A journal with some decisions, which keeps no more."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = decisions

    def thresholds(self) -> Sequence[float]:
        return ()

    def search(self, threshold: float) -> Sequence[Decision]:
        return self.decisions

    def cut(self, count: int) -> None: ...

    def add(self, decision: Decision) -> None: ...

    def flush(self, progress: Progress) -> None: ...


@pytest.mark.parametrize("share", [0.6, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_search_that_was_stopped_goes_on_with_other_workers_to_the_same_bits(experiment, by_one, share) -> None:
    kept = Kept(by_one.trace[: int(share * len(by_one.trace))])
    found = acdc(experiment, THRESHOLD, engine=Spread(workers(experiment, 2), "incremental"), journal=kept)
    assert found.trace == by_one.trace
    assert found.circuit == by_one.circuit


def test_a_question_that_kills_whoever_is_asked_ends_the_search_with_what_it_had_decided(experiment, by_one) -> None:
    some = workers(experiment, 2, lambda number: number > 9)
    with pytest.raises(Interrupted) as caught:
        acdc(experiment, THRESHOLD, engine=Spread(some, "incremental"))
    assert f"{MOST_DEATHS + 1} workers died" in str(caught.value.__cause__)
    assert "it was shot" in str(caught.value.__cause__)
    decided = caught.value.discovery.trace
    assert 0 < len(decided) < len(by_one.trace)
    assert decided == by_one.trace[: len(decided)]


@pytest.mark.parametrize(("engine", "count"), [("incremental", 3), ("plain", 2)])
def test_prompts_shared_out_give_the_same_decisions(experiment, alone, engine, count) -> None:
    chance = random.Random(count)
    some = sharing_prompts(experiment, count, lambda _: chance.random() < 0.1)
    found = acdc(experiment, THRESHOLD, engine=Spread(some, engine))
    assert same_decisions(found, alone, torch.float64)


def test_values_of_shared_out_prompts_are_put_in_the_order_of_all_places(experiment) -> None:
    parts, places = shards(experiment, 3)
    assert [len(one.task) for one in parts] == [1, 1, 2]
    circuit = Circuit.empty(experiment.graph)
    whole = experiment.values(circuit)
    for part, at in zip(parts, places, strict=True):
        assert torch.allclose(part.values(circuit), whole[at], atol=1e-12)
    assert torch.equal(torch.cat(list(places)).sort().values, torch.arange(len(whole)))
    with pytest.raises(EdgewiseError, match="4 prompts cannot be shared out among 5 workers"):
        shards(experiment, 5)


def test_searches_from_a_circuit_in_passes_and_under_a_budget(experiment, alone) -> None:
    start = acdc(experiment, THRESHOLD / 4).circuit
    options: dict[str, Any] = dict(start=start, passes=2, budget=alone.metric * 1.5)
    wanted = acdc(experiment, THRESHOLD, **options)
    chance = random.Random(0)
    some = workers(experiment, 2, lambda _: chance.random() < 0.1)
    found = acdc(experiment, THRESHOLD, engine=Spread(some, "incremental"), **options)
    assert same_decisions(found, wanted, torch.float64)
    assert [tests for tests, _ in found.passes] == [tests for tests, _ in wanted.passes]
    assert len(found.passes) == 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["incremental", "plain"])
def test_prompts_shared_out_in_searches_from_a_circuit(experiment, engine) -> None:
    options: dict[str, Any] = dict(start=acdc(experiment, THRESHOLD / 4).circuit, passes=2)
    found = acdc(experiment, THRESHOLD, engine=Spread(sharing_prompts(experiment, 2), engine), **options)
    assert decisions(found) == decisions(acdc(experiment, THRESHOLD, **options))


@pytest.mark.parametrize("engine", ["incremental", "plain"])
def test_searches_by_nodes(model, engine) -> None:
    experiment = Experiment(model, tiny.task(rows=4), ports=False)
    wanted = acdc_by_node(experiment, 0.005, passes=2)
    assert 0 < wanted.circuit.size < len(experiment.graph.sources)
    for some in (workers(experiment, 3), sharing_prompts(experiment, 2)):
        found = acdc_by_node(experiment, 0.005, passes=2, engine=Spread(some, engine).of_nodes)
        assert decisions(found) == decisions(wanted)
        assert found.metric == pytest.approx(wanted.metric, abs=1e-9)


def test_a_search_for_a_size_asks_the_same_workers_again_and_again(experiment) -> None:
    spread = Spread(workers(experiment, 2), "incremental")
    found = acdc_with_edges(experiment, 20, tries=4, engine=spread)
    wanted = acdc_with_edges(experiment, 20, tries=4)
    assert found.tried == wanted.tried
    assert len(found.tried) > 1
    assert found.circuit == wanted.circuit


def test_what_a_worker_cannot_do_ends_the_search_as_it_would_alone(experiment) -> None:
    class Full:
        def at_once(self, column: int) -> int:
            return 1

        def measure(self, column: int, candidates: Any) -> list[float]:
            if candidates != ((),):
                raise OutOfMemoryError("no room")
            return [0.0]

        def commit(self, column: int, removed: Any) -> None:
            raise AssertionError

    answering = Answering(experiment)
    assert isinstance(answering.answer(Question(lambda _: Full(), (), 0, (((1,),),))), OutOfMemoryError)
    with pytest.raises(EdgewiseError, match=r"--max-memory allows 1 kB"):
        acdc(experiment, THRESHOLD, engine=Spread(workers(experiment, 2), "incremental", 1000))


FEW, MANY = 1, 6
"""Random cases of a model: one model's in every run of the tests, 54 of all in the slow ones."""


@pytest.mark.parametrize(
    ("model", "count"), [("gpt2", FEW), *(pytest.param(model, MANY, marks=pytest.mark.slow) for model in MODELS)]
)
def test_random_searches(model, count) -> None:
    for case in random_cases(model, MANY)[:count]:
        experiment = case.experiment(FEWER_HEADS.get(model, {}))
        threshold = case.share * (abs(experiment.full() - experiment.ablated()) or 1.0)
        options: dict[str, Any] = dict(order=case.order, absolute=case.absolute)
        alone = acdc(experiment, threshold, **options)
        found = acdc(experiment, threshold, engine=Spread(workers(experiment, 2), "incremental"), **options)
        assert same_decisions(found, alone, case.dtype, case.absolute, case)


def test_a_task_of_edgewises_own() -> None:
    model = ew.load_model("tracr-reverse")
    experiment = Experiment(model, ew.load_task("tracr-reverse", model, examples=4))
    wanted = acdc(experiment, 0.05)
    for some in (workers(experiment, 2), sharing_prompts(experiment, 2)):
        found = acdc(experiment, 0.05, engine=Spread(some, "incremental"))
        assert decisions(found) == decisions(wanted)
        assert found.metric == tiny.near(wanted.metric)
