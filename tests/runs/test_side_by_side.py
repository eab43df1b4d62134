"""Sweeps, the paper's rows and searches made again, side by side: what one process makes, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from side_by_side import ClusterHere

from edgewise import load_model, load_task
from edgewise.discovery import Decision, acdc
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment
from edgewise.runs import SearchRequest, paper, stability, sweep_by_side
from edgewise.runs.journal import DecisionFile
from edgewise.runs.stability import by_examples, by_order
from edgewise.runs.sweep import SweepPlan, journal_path, sweep

THRESHOLDS = (0.5, 0.4, 0.1, 0.03, 0.02, 0.45)
PLANS = (SweepPlan("acdc", THRESHOLDS), SweepPlan("edge-attribution", (5.0, 20.0)), SweepPlan("random", (5.0,)))


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    model = load_model("tracr-reverse")
    return Experiment(model, load_task("tracr-reverse", model, examples=4))


@pytest.fixture(autouse=True)
def nothing_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sweep_by_side, stability):
        monkeypatch.setattr(module, "unpacked", lambda shared, keep: shared.value)


@pytest.fixture(scope="module")
def alone(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("alone")
    sweep(experiment, PLANS, folder=folder)
    return files_of(folder)


def files_of(folder: Path) -> dict[str, list[Any]]:
    """What a sweep has written, but for seconds."""
    found = {path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.iterdir()}
    for lines in found.values():
        for line in lines:
            line.pop("seconds", None)
    return found


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_sweep_side_by_side_writes_what_one_process_writes(experiment, alone, tmp_path, seed) -> None:
    cluster, told = ClusterHere(3, seed=seed, dies=0.2), []
    found = sweep(experiment, PLANS, folder=tmp_path, cluster=cluster, progress=lambda *one: told.append(one))
    assert files_of(tmp_path) == alone
    searched = [name for name in cluster.names if name.startswith("tracr-reverse-acdc-")]
    assert 1 < len(searched) < len(THRESHOLDS), "thresholds that decide alike are not all searched"
    assert len(set(cluster.names)) == len(cluster.names) == len(searched) + 2
    assert len(found[0].points) == len(THRESHOLDS)
    assert [one for one in told if one[0] == "acdc"][-1] == ("acdc", 6, 6)


def test_a_sweep_that_was_stopped_goes_on_side_by_side_and_the_other_way_round(
    experiment, alone, tmp_path, monkeypatch
) -> None:
    class Stop(BaseException):
        pass

    add, left = DecisionFile.add, [30]

    def stops(self: DecisionFile, decision: Decision) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stop
        add(self, decision)

    monkeypatch.setattr(DecisionFile, "add", stops)
    with pytest.raises(Stop):
        sweep(experiment, PLANS, folder=tmp_path)
    before = journal_path(tmp_path / "acdc.jsonl").read_text().splitlines()
    assert len(before) > 20
    left[0] = 70  # what is decided comes back at once
    with pytest.raises(Stop):
        sweep(experiment, PLANS, folder=tmp_path, cluster=ClusterHere(2))
    monkeypatch.setattr(DecisionFile, "add", add)
    sweep(experiment, PLANS, folder=tmp_path)
    assert files_of(tmp_path) == alone
    cluster = ClusterHere(2)
    sweep(experiment, PLANS, folder=tmp_path, cluster=cluster)
    assert cluster.names == [], "what is on disk is not made again"


def test_searches_by_the_absolute_rule_are_the_same_side_by_side(experiment, tmp_path) -> None:
    plans = [SweepPlan("acdc", THRESHOLDS[:4], absolute=True)]
    for name, cluster in (("one", None), ("many", ClusterHere(2))):
        (tmp_path / name).mkdir()
        sweep(experiment, plans, folder=tmp_path / name, cluster=cluster)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "many")


def test_what_fails_side_by_side_is_said(experiment, tmp_path) -> None:
    with pytest.raises(EdgewiseError, match="its workers died"):
        sweep(experiment, PLANS[:1], folder=tmp_path, cluster=ClusterHere(2, dies=1.0))
    with pytest.raises(EdgewiseError, match="keeps its circuits in a folder: say which"):
        sweep(experiment, PLANS[:1], cluster=ClusterHere(2))


def test_searches_in_a_journal_are_told_apart_whatever_is_kept_between(experiment, tmp_path) -> None:
    decisions = list(acdc(experiment, 0.5).trace[:3])
    journal = DecisionFile(tmp_path / "searches.jsonl", experiment.graph, several=True)
    assert journal.last() is None
    journal.search(0.5)
    journal.add(decisions[0])
    journal.keep(0.1, decisions[:2], 2.5)
    assert list(journal.search(0.5)) == decisions[:1]
    journal.add(decisions[-1])  # behind what was kept since
    journal.keep(0.1, decisions, 3.5)
    journal.close()
    again = DecisionFile(tmp_path / "searches.jsonl", experiment.graph, several=True)
    assert list(again.thresholds()) == [0.5, 0.1]
    assert list(again.search(0.5)) == [decisions[0], decisions[-1]]
    assert again.last() == (0.1, decisions)
    assert (again.seconds(0.1), again.seconds(0.5), again.seconds(7.0)) == (3.5, 0.0, 0.0)
    again.forget_last()
    assert list(again.thresholds()) == [0.5]
    again.close()
    text = (tmp_path / "searches.jsonl").read_text()
    assert text.endswith("\n")
    assert '"threshold": 0.1, "seconds": 3.5' not in text


def test_searches_made_again_side_by_side_are_the_same(experiment) -> None:
    model, task = experiment.decoder, experiment.task
    search = SearchRequest(threshold=0.05)
    circuit = sweep(experiment, PLANS[:1])[0].points[2].circuit
    for again in (by_examples, by_order):
        told: list[tuple[int, int]] = []
        cluster = ClusterHere(2, seed=1)
        found = again(
            model, task, circuit, search, times=3, cluster=cluster, progress=lambda *one, told=told: told.append(one)
        )
        assert found == again(model, task, circuit, search, times=3)
        assert told == [(1, 3), (2, 3), (3, 3)]
        assert cluster.names == [f"tracr-reverse-acdc-again-{number}" for number in (1, 2, 3)]


@pytest.mark.slow
def test_the_papers_rows_side_by_side(tmp_path) -> None:
    options: dict[str, Any] = dict(tasks=["tracr-reverse"], methods=["acdc", "edge-attribution"], offline=True)
    wanted = paper.reproduce(tmp_path / "alone", **options)
    cluster = ClusterHere(2)
    found = paper.reproduce(tmp_path / "shared", **options, cluster=cluster)
    assert found.cells == wanted.cells
    assert "tracr-reverse-resample-l2-as-published-acdc" in cluster.names
    for path in (tmp_path / "alone").rglob("*.jsonl"):
        other = tmp_path / "shared" / path.relative_to(tmp_path / "alone")
        assert other.read_text().count("\n") == path.read_text().count("\n")
