"""`--workers` on the shell: what is asked for goes to stand-ins of Ray's workers, what cannot be is refused."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from side_by_side import ClusterHere

from edgewise.discovery.spread import Answering, Spread, shards
from edgewise.runs import pruning, stability, sweep_by_side
from edgewise.runs.cluster import Cluster


class Here:
    """Workers in this process."""

    def __init__(self, experiments: Any, places: Any) -> None:
        self.answering = [Answering(one, by_place=places is not None) for one in experiments]
        self.places, self.answers = places, {}

    def __len__(self) -> int:
        return len(self.answering)

    def ask(self, worker: int, question: Any) -> None:
        self.answers[worker] = self.answering[worker].answer(question)

    def answer(self, worker: int) -> Any:
        return self.answers[worker]

    def replace(self, worker: int) -> None:
        raise AssertionError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What workers were asked for, which are made in this process."""
    found: list[Any] = []

    @contextlib.contextmanager
    def spread_here(experiment: Any, cluster: Cluster, *, engine: str, shard: str) -> Iterator[Spread]:
        found.append((cluster.workers, cluster.address, cluster.cpus, cluster.gpus, engine, shard))
        parts = ([experiment] * 2, None) if shard == "candidates" else shards(experiment, 2)
        yield Spread(Here(*parts), engine)

    monkeypatch.setattr(pruning, "spread_by_ray", spread_here)
    monkeypatch.setattr("edgewise.runs.cluster.require_ray", lambda: None)
    return found


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was given out, which is done in this process."""
    names: list[str] = []

    def here(workers: int | None, address: str | None, *_: float) -> ClusterHere | None:
        if workers is None and address is None:
            return None
        made = ClusterHere(workers or 2)
        vars(made).update(names=names)
        return made

    monkeypatch.setattr(Cluster, "asked", here)
    for module in (sweep_by_side, stability):
        monkeypatch.setattr(module, "unpacked", lambda shared, keep: shared.value)
    return names


def test_a_search_with_workers_is_the_search_without(shell, asked) -> None:
    typed = ("discover", "tracr-reverse", "--threshold", 0.05, "--examples", 4, "--quiet")
    alone = shell.json(*typed, "--out", "alone")
    assert not asked
    for more in (("--workers", 2), ("--ray", "auto", "--shard", "prompts", "--cpus", 2, "--gpus", 0.5)):
        found = shell.json(*typed, *more, "--out", more[1])
        assert {**found, "run_dir": "", "seconds": 0} == {**alone, "run_dir": "", "seconds": 0}
        one, other = ((shell.folder / name / "run.json").read_text() for name in ("alone", str(more[1])))
        assert json.loads(one)["settings"] == json.loads(other)["settings"]
    assert asked == [
        (2, None, 1.0, 0.0, "incremental", "candidates"),
        (None, "auto", 2.0, 0.5, "incremental", "prompts"),
    ]


@pytest.mark.slow
def test_a_sweep_and_searches_made_again_go_out_side_by_side(shell, side_by_side) -> None:
    typed = ("sweep", "or-gate", "--methods", "acdc,random", "--thresholds", "0.5,0.1", "--sizes", 3, "--quiet")
    alone, shared = (shell.json(*typed, "--out", more[-1], *more[:-1]) for more in (("a",), ("--workers", 2, "b")))
    for one in (alone, shared):
        one["folder"] = ""
        for series in one["series"]:
            for point in series["points"]:
                point["seconds"] = 0
    assert shared == alone
    assert "or-gate-random" in side_by_side
    run = shell.json("discover", "tracr-reverse", "--examples", 4, "--quiet", "--threshold", 0.05)["run_dir"]
    again = ("evaluate", run, "--quick", "--rediscover", 2, "--quiet")
    assert shell.json(*again, "--workers", 2) == shell.json(*again)
    assert side_by_side[-1] == "tracr-reverse-acdc-again-2"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("discover or-gate --shard prompts", "--shard is about workers: say how many with --workers"),
        ("discover or-gate --gpus 0.5", "--cpus and --gpus are about workers: say how many with --workers"),
        ("discover or-gate --workers 0", "--workers should be at least 1, not 0"),
        ("discover or-gate --workers 2 --shard rows", "unknown way to share a search out 'rows'"),
        ("discover or-gate --workers 2 --method eap --edges 4", "--workers and --ray share out a search of ACDC"),
        ("sweep or-gate --workers 2 --cpus 0", "a worker takes more than 0 CPUs"),
        ("reproduce paper --cpus 2", "--cpus and --gpus are about workers"),
        ("evaluate runs/x --workers 2", "for searches that are made again: say how often with --rediscover"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(shell, monkeypatch, typed, said) -> None:
    monkeypatch.setattr("edgewise.runs.cluster.require_ray", lambda: None)
    (shell.folder / "runs" / "x").mkdir(parents=True)
    shown = shell(*typed.split())
    assert shown.code == 2
    assert said in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    "typed",
    [
        "discover or-gate --workers 2",
        "sweep or-gate --workers 2",
        "reproduce paper --offline --workers 2",
        "evaluate runs/x --rediscover 2 --workers 2",
    ],
)
def test_without_ray_it_is_said_what_to_install(shell, monkeypatch, typed) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (shell.folder / "runs" / "x").mkdir(parents=True)
    shown = shell(*typed.split())
    assert shown.code == 2
    assert "several workers need Ray, which is not installed: pip install 'edgewise[ray]'" in shown.err


def test_runs_of_a_batch_by_ray_have_no_workers_of_their_own(shell, monkeypatch) -> None:
    monkeypatch.setattr("edgewise.runs.cluster.require_ray", lambda: None)
    (shell.folder / "own.toml").write_text('[[run]]\ntask = "or-gate"\nthreshold = 0.1\nworkers = 2\n')
    shown = shell("batch", "own.toml", "--workers", "2")
    assert shown.code == 2
    assert "run 'or-gate-acdc' asks for workers of its own" in shown.err
