"""Runs keep what absent edges carried: the same search again, and the same circuit measured on other prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
import tiny
import torch

import edgewise as ew
from edgewise.discovery import METHODS
from edgewise.errors import EdgewiseError
from edgewise.evaluation.bootstrap import Bootstrap
from edgewise.evaluation.effort import Options
from edgewise.patching import ABLATIONS, Ablation, Experiment
from edgewise.reports.page import make_page, measure, read_sources
from edgewise.runs import SearchRequest
from edgewise.runs.assess import assess
from edgewise.runs.constants import ablation_of, kept_constants, read_constants
from edgewise.runs.sweep import SweepPlan, about, sweep
from edgewise.tasks import read_texts
from edgewise.tasks.jsonl import digest

KINDS = ("noise", "optimal", "mean-over")


@pytest.fixture(scope="module")
def loaded():
    model = ew.load_model("tiny-pronoun")
    return model, *(ew.load_task("gender-pronoun", model, examples=6, split=split) for split in ("validation", "test"))


@pytest.fixture
def texts(loaded, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": one.clean}) + "\n" for one in loaded[2].text))
    return path


def asked(kind, texts):
    return dict(mean_over=texts) if kind == "mean-over" else dict(ablation=kind, ablation_seed=3)


@pytest.mark.filterwarnings("ignore::edgewise.errors.EdgewiseWarning")
@pytest.mark.parametrize(
    ("method", "ablation"),
    tiny.slow_unless(
        # Every method under two, every ablation with some; ACDC under all.
        lambda method, ablation: (
            method == "acdc"
            or (list(METHODS).index(method) - list(ABLATIONS).index(ablation)) % len(ABLATIONS) in (0, 1)
        ),
        product(METHODS, ABLATIONS),
    ),
)
def test_every_method_searches_under_every_ablation(method, ablation):
    model, task = tiny.llama(layers=1), tiny.task(ragged=False)
    options = {"steps": 3} if "steps" in METHODS[method].options and method != "edge-attribution-ig" else None
    size = dict(threshold=0.01) if method == "acdc" else dict(edges=12)
    run = ew.discover(model, task, method=method, ablation=ablation, options=options, **size)
    assert run.record["settings"]["ablation"] == ablation
    assert run.record["result"]["metric_ablated"] > 1e-3
    assert run.evaluate().value == tiny.near(run.metric)
    if method == "acdc":
        plain = ew.discover(model, task, ablation=ablation, engine="plain", **size)
        assert [one.edge for one in plain.trace] == [one.edge for one in run.trace]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_comes_back_with_what_absent_edges_carried(kind, loaded, texts, tmp_path):
    model, task, test = loaded
    run = ew.discover(model, task, threshold=0.02, **asked(kind, texts))
    settings = run.record["settings"]
    assert settings["ablation"] == kind.removesuffix("-over")
    assert settings["ablation_seed"] == (0 if kind == "mean-over" else 3)
    if kind == "mean-over":
        assert settings["mean_over"] == {
            "file": str(texts.resolve()),
            "sha256": digest(texts.read_bytes()),
            "texts": 6,
            "tokens": int(test.prompts.mask.sum()),
        }
    folder = run.save(tmp_path / "run")
    assert (folder / "constants.safetensors").exists() == (kind != "noise")
    texts.unlink()
    back = ew.load_run(folder)
    assert back.evaluate().value == pytest.approx(run.metric, abs=1e-9)
    elsewhere = run.evaluate(test)
    assert back.evaluate(test).value == pytest.approx(elsewhere.value, abs=1e-9)
    assert back.save(tmp_path / "again")
    assert {one.name: one.read_bytes() for one in (tmp_path / "again").iterdir()} == {
        one.name: one.read_bytes() for one in folder.iterdir()
    }
    (source,) = read_sources([folder])
    measured = measure(source, model, task)
    page = make_page([source], [measured]).replace('": ', '":')
    assert f'"ablation":"{"mean over texts.jsonl" if kind == "mean-over" else kind}"' in page
    assert str(tmp_path) not in page
    shown = measured["values"]["metrics"]["kl_div"]
    assert sum(shown["circuit"]) / 6 == pytest.approx(run.metric, rel=1e-3)
    if kind == "optimal":
        learned = Experiment(model, test, ablation=Ablation("optimal", 3))
        assert learned.value(run.circuit) != pytest.approx(elsewhere.value, rel=1e-3), "of the prompts it was found on"


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_was_stopped_goes_on_with_the_same_and_is_made_again_with_the_same(
    kind, loaded, texts, tmp_path, monkeypatch
):
    model, task, _ = loaded
    options = dict(threshold=0.02, **asked(kind, texts))
    whole = ew.discover(model, task, out=tmp_path / "whole", **options)

    def stop(progress):
        if progress.tests > 10 and progress.at != "constants":
            raise KeyboardInterrupt

    with pytest.raises(ew.RunInterrupted):
        ew.discover(model, task, out=tmp_path / "run", progress=stop, **options)
    settings = whole.record["settings"]
    again = ew.discover(model, task, request=SearchRequest.from_dict(settings))
    assert (again.circuit, again.record["settings"]) == (whole.circuit, settings)
    texts.write_text(texts.read_text() + '{"text": "one more"}\n')
    if kind == "mean-over":
        with pytest.raises(EdgewiseError, match="have changed since the run was made"):
            ew.discover(model, task, request=SearchRequest.from_dict(settings))
    monkeypatch.setattr("edgewise.patching.experiment.learn_constants", lambda *_, **__: pytest.fail("learned again"))
    run = ew.resume(tmp_path / "run", model=model, task=task)
    assert (run.circuit, run.metric, run.record["settings"]) == (whole.circuit, whole.metric, settings)


def test_another_model_has_other_constants(loaded, texts, tmp_path):
    model, task, _ = loaded
    folder = ew.discover(model, task, threshold=0.05, mean_over=texts).save(tmp_path / "run")
    settings = ew.load_run(folder).record["settings"]
    same = ablation_of(folder, settings, model)
    assert same.constants is not None
    assert len(same.over) == 6
    assert ablation_of(folder, settings, model, anew=True).constants is None
    texts.unlink()
    assert ablation_of(folder, settings, model).over is None
    with pytest.raises(EdgewiseError, match="no such file"):
        ablation_of(folder, settings, model, anew=True)


def test_a_control_in_a_permuted_network_has_constants_of_its_own(loaded, texts):
    model, task, _ = loaded
    circuit = ew.discover(model, task, threshold=0.05).circuit
    over = read_texts(model, texts)
    quick = dict(bootstrap=Bootstrap(0), options=Options(circuits=29, permutations=20))
    found = assess(model, task, circuit, ablation=Ablation("mean", over=over), **quick)
    assert found.permuted is not None
    carried = Experiment(model, task, ablation=Ablation("mean", over=over)).carried
    found = assess(model, task, circuit, ablation=replace(carried, over=None), **quick)
    assert found.permuted is None
    assert any("texts that a mean was taken over are not there" in note for note in found.notes)


def test_a_sweep_measures_test_prompts_with_what_was_learned(loaded):
    model, task, test = loaded
    experiment = Experiment(model, task, ablation=Ablation("optimal", 2))
    plan = SweepPlan("edge-attribution", (5.0, 20.0))
    (series,) = sweep(experiment, [plan], test=test)
    other = Experiment(model, test, ablation=experiment.carried)
    for point in series.points:
        assert point.test_metrics["kl_div"] == tiny.near(other.value(point.circuit))
    assert about(experiment, plan)["ablation_seed"] == 2
    assert "ablation_seed" not in about(Experiment(model, task), plan)


def test_a_file_of_constants_that_is_none_is_refused(loaded, tmp_path):
    model, task, _ = loaded
    constants = Experiment(model, task, ablation="optimal").carried.constants
    path, settings = tmp_path / "constants.safetensors", {"ablation": "optimal"}
    (whole,) = kept_constants(constants).values()
    path.write_bytes(whole)
    back = read_constants(tmp_path, settings)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(back.tensors(), constants.tensors(), strict=True))
    assert read_constants(tmp_path, {"ablation": "zero"}) is None
    for broken in (whole[:-7], b"{}", kept_constants(replace(constants, embedding=constants.embedding[0]))[path.name]):
        path.write_bytes(broken)
        with pytest.raises(EdgewiseError, match="are no file of constants"):
            read_constants(tmp_path, settings)
    path.unlink()
    with pytest.raises(EdgewiseError, match="no such file"):
        read_constants(tmp_path, settings)


def test_a_plan_says_what_learning_takes_and_does_not_learn(loaded, monkeypatch):
    model, task, _ = loaded
    monkeypatch.setattr("edgewise.patching.experiment.learn_constants", lambda *_, **__: pytest.fail("it was learned"))
    planned = ew.plan_discovery(model, task, threshold=0.5, ablation="optimal")
    assert planned.learning > 0
    assert ew.plan_discovery(model, task, threshold=0.5).learning is None
