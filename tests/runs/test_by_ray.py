"""Workers of Ray's on this machine decide what one process decides, whichever of them are killed."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import threading
import time
from typing import Any

import pytest
import tiny
import torch
from twins import decisions, same_decisions

import edgewise as ew
from edgewise.discovery import acdc, acdc_by_node
from edgewise.discovery.spread import SpreadEngine
from edgewise.errors import EdgewiseError
from edgewise.patching import Engine, Experiment, IncrementalEngine
from edgewise.runs import SearchRequest
from edgewise.runs.cluster import Cluster
from edgewise.runs.stability import by_examples
from edgewise.runs.sweep import SweepPlan, sweep
from edgewise.runs.workers import spread_by_ray
from edgewise.tasks import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ioi() -> Experiment:
    model = ew.load_model("tiny-ioi")
    return Experiment(model, ew.load_task("ioi", model, examples=8))


def _experiment(name: str) -> Experiment:
    model = ew.load_model(TASKS[name].model)
    return Experiment(model, ew.load_task(name, model, examples=min(8, TASKS[name].examples)))


def _engine(_: Experiment, *, name: str) -> Engine:
    return IncrementalEngine(_experiment(name))


@pytest.mark.parametrize("count", [2, 3])
def test_each_task_of_edgewises_own(ray_session, ioi, count) -> None:
    with spread_by_ray(ioi, Cluster(workers=count)) as spread:
        for name in TASKS:
            experiment, threshold = _experiment(name), TASKS[name].threshold
            alone = acdc(experiment, threshold)

            def made(_: Any, __: Any, name: str = name) -> SpreadEngine:
                return SpreadEngine(spread.workers, functools.partial(_engine, name=name))

            found = acdc(experiment, threshold, engine=made)
            assert decisions(found) == decisions(alone), name
            assert found.circuit == alone.circuit, name
            assert same_decisions(found, alone, torch.float32), name
            assert 0 < found.circuit.n_edges < experiment.graph.n_edges, name


def test_discover_with_workers_gives_the_run_without(ray_session, ioi) -> None:
    alone = ew.discover(ioi.decoder, ioi.task)
    spread = ew.discover(ioi.decoder, ioi.task, workers=2)
    assert decisions(spread.discovery) == decisions(alone.discovery)
    assert spread.circuit == alone.circuit
    assert spread.record["settings"] == alone.record["settings"]


class _Killer(threading.Thread):
    """Kills workers at random moments, so many in all; in turn, so that one comes up while another still works."""

    def __init__(self, ray: Any, workers: Any, kills: int) -> None:
        super().__init__(daemon=True)
        self.ray, self.workers, self.left, self.chance = ray, workers, kills, random.Random(0)
        self.stopped = threading.Event()

    def run(self) -> None:
        killed: set[int] = set()
        for number in itertools.count():
            if not self.left or self.stopped.is_set():
                return
            actor = self.workers._actors[number % len(self.workers)]
            try:
                pid = self.ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=60)
            except Exception:
                continue  # killed, and not yet replaced
            time.sleep(self.chance.random() * 0.5)
            if pid not in killed and not self.stopped.is_set():
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
                self.left -= 1


def test_workers_killed_at_random_moments_change_no_bit(ray_session, ioi) -> None:
    with spread_by_ray(ioi, Cluster(workers=2)) as spread:
        engines: list[SpreadEngine] = []

        def made(*given: Any) -> SpreadEngine:
            engines.append(spread(*given))
            return engines[-1]

        wanted = acdc(ioi, 0.02, engine=made)
        killer = _Killer(ray_session, spread.workers, 20)
        killer.start()
        searches = 0
        while killer.left:
            found = acdc(ioi, 0.02, engine=made)
            searches += 1
            assert found.trace == wanted.trace
            assert found.circuit == wanted.circuit
        killer.stopped.set()
        killer.join(60)
    died = sum(one.died for one in engines)
    assert died >= 15, f"of 20 that were killed, in {searches} searches; one killed at the very end is not missed"
    assert same_decisions(wanted, acdc(ioi, 0.02), torch.float32)


def test_prompts_are_shared_out_and_nodes_searched(ray_session, ioi) -> None:
    with spread_by_ray(ioi, Cluster(workers=3), shard="prompts") as spread:
        assert decisions(acdc(ioi, 0.05, engine=spread)) == decisions(acdc(ioi, 0.05))
    nodes = Experiment(ioi.decoder, ioi.task, ports=False)
    with spread_by_ray(nodes, Cluster(workers=2)) as spread:
        found = acdc_by_node(nodes, 0.05, engine=spread.of_nodes)
        assert decisions(found) == decisions(acdc_by_node(nodes, 0.05))


def test_a_sweep_and_searches_made_again(ray_session, tmp_path) -> None:
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model, examples=4)
    experiment = Experiment(model, task)
    plans = (SweepPlan("acdc", (0.5, 0.1, 0.03)), SweepPlan("edge-attribution", (5.0, 20.0)))
    cluster = Cluster(workers=2)
    found = sweep(experiment, plans, folder=tmp_path, cluster=cluster)
    for one, other in zip(found, sweep(experiment, plans), strict=True):
        assert [(point.circuit, point.same_as) for point in one.points] == [
            (point.circuit, point.same_as) for point in other.points
        ]
        assert [point.metrics for point in one.points] == [tiny.near(dict(point.metrics)) for point in other.points]
    search = ew.discover(model, task, threshold=0.05)
    again = by_examples(model, task, search.circuit, SearchRequest(threshold=0.05), times=3, cluster=cluster)
    alone = by_examples(model, task, search.circuit, SearchRequest(threshold=0.05), times=3)
    assert again == alone


def test_more_workers_than_fit_are_refused(ray_session, ioi) -> None:
    said = "2 workers of 1 CPUs and 1 GPUs do not fit: there are 3 CPUs and 0 GPUs"
    with pytest.raises(EdgewiseError, match=said), spread_by_ray(ioi, Cluster(workers=2, gpus=1.0)):
        pass


def test_an_error_of_a_worker_is_told_as_one_process_tells_it(ray_session) -> None:
    model = tiny.gpt2(layers=1)
    experiment = Experiment(model, tiny.task())
    with (
        spread_by_ray(experiment, Cluster(workers=2)) as spread,
        pytest.raises(EdgewiseError, match="--max-memory allows 1 kB"),
    ):
        acdc(experiment, 0.1, engine=spread, max_memory=1000)
