"""Searches logged to TensorBoard and Weights & Biases: what is logged, and what is said where a package is missing."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from edgewise.discovery import Progress
from edgewise.errors import EdgewiseError
from edgewise.reports import tracking


class Recorded:
    """A stand-in for a log, which keeps what it is told."""

    where = "memory"

    def __init__(self):
        self.steps, self.closed = [], False

    def scalars(self, step, values):
        self.steps.append((step, dict(values)))

    def summary(self, step, values, settings):
        self.end = (step, dict(values), dict(settings))

    def close(self):
        self.closed = True


def progress(decided, tests, attempt=1, metric=0.5):
    return Progress(decided, 100, 7, tests, metric, "m0", 0.01, attempt)


def test_steps_go_on_over_all_thresholds_tried(monkeypatch):
    monkeypatch.setattr(tracking, "EVERY", 0.0)
    log = Recorded()
    tracked = tracking.Tracking(log)
    for one in (progress(50, 20), progress(100, 40), progress(30, 10, attempt=2), progress(100, 35, attempt=2)):
        tracked.report(one)
    assert [step for step, _ in log.steps] == [20, 40, 50, 75]
    assert log.steps[0][1] == {
        "metric": 0.5,
        "edges_kept": 7,
        "edges_decided": 50,
        "edges_to_come": 50,
        "threshold": 0.01,
    }


def test_fast_searches_are_thinned_but_their_end_is_logged(monkeypatch):
    monkeypatch.setattr(tracking, "EVERY", 3600.0)
    log = Recorded()
    tracked = tracking.Tracking(log)
    for decided in range(1, 101):
        tracked.report(progress(decided, decided))
    assert [step for step, _ in log.steps] == [1, 100]


def test_what_is_no_number_is_not_logged():
    log = Recorded()
    tracking.Tracking(log).report(progress(1, 1, metric=float("nan")))
    assert "metric" not in log.steps[0][1]


def test_an_unknown_log_and_a_missing_package_are_said_in_a_sentence(monkeypatch):
    with pytest.raises(EdgewiseError, match="unknown log 'tensorbord'; did you mean 'tensorboard'"):
        tracking.require_log("tensorbord")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgewiseError, match=r"Weights & Biases needs the package 'wandb'.*'edgewise\[wandb\]'"):
        tracking.require_log("wandb")
    tracking.require_log(None)


@pytest.fixture
def wandb(monkeypatch):
    """The part of wandb's interface that is used, keeping what it is told."""
    told = SimpleNamespace(steps=[], finished=False, config={}, summary={})

    def init(project, name):
        told.project, told.name = project, name
        return SimpleNamespace(
            log=lambda values, step: told.steps.append((step, values)),
            config=told.config,
            summary=told.summary,
            finish=lambda: setattr(told, "finished", True),
        )

    module = SimpleNamespace(init=init, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: module.__spec__)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    told.module = module
    return told


def test_wandb_gets_steps_settings_and_the_end(wandb, tmp_path):
    with tracking.tracking("wandb", tmp_path / "ioi") as tracked:
        assert tracked is not None
        tracked.report(progress(100, 40))
        tracked.ended({"result": {"n_edges": 5, "metric": 0.25, "scoring": None}, "settings": {"task": {"task": "x"}}})
    assert (wandb.project, wandb.name) == ("edgewise", "ioi")
    assert wandb.steps[0][0] == 40
    assert wandb.steps[0][1]["search/edges_kept"] == 7
    assert wandb.summary == {"run/n_edges": 5.0, "run/metric": 0.25}
    assert wandb.config == {"task": {"task": "x"}}
    assert wandb.finished


def test_a_log_that_cannot_be_opened_is_said_in_a_sentence(wandb, tmp_path):
    def refuse(project, name):
        raise RuntimeError("api_key not configured\nsecond line")

    wandb.module.init = refuse
    with pytest.raises(EdgewiseError, match=r"cannot be logged to: api_key not configured .WANDB_MODE=offline"):
        tracking.tracking("wandb", tmp_path / "ioi").__enter__()


def test_a_log_is_closed_when_the_search_fails(wandb, tmp_path):
    with pytest.raises(ValueError, match="boom"), tracking.tracking("wandb", tmp_path / "ioi"):
        raise ValueError("boom")
    assert wandb.finished


def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        with tracking.tracking("tensorboard", tmp_path / "ioi") as tracked:
            assert tracked is not None
            tracked.report(progress(100, 40))
            tracked.ended({"result": {"n_edges": 5, "metric": 0.25}, "settings": {"task": "<script>"}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ioi.tensorboard", "ioi.tensorboard-2"]
    found = EventAccumulator(str(tmp_path / "ioi.tensorboard")).Reload()
    assert {(event.step, event.value) for event in found.Scalars("search/edges_kept")} == {(40, 7.0)}
    assert found.Scalars("run/metric")[0].value == 0.25


def test_a_search_from_the_shell_is_logged_to_tensorboard(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from edgewise.cli import main

    monkeypatch.chdir(tmp_path)
    command = ["edgewise", "discover", "tracr-reverse", "--log", "tensorboard", "--out", "found"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "logged to found.tensorboard" in capsys.readouterr().err.replace(str(tmp_path) + "/", "")
    found = EventAccumulator("found.tensorboard").Reload()
    assert found.Scalars("run/n_edges")[0].value == 15
    assert found.Scalars("search/edges_kept")[-1].value == 15
