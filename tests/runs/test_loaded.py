"""A run that was saved comes back whole."""

import json

import numpy as np
import pytest

import edgewise as ew
from edgewise.errors import EdgewiseError

ROWS = [
    {
        "clean": f"{first} and {giver} left the store. {giver} passed a bone to",
        "corrupt": f"{first} and {giver} left the store. {third} passed a bone to",
        "answer": f" {first}",
        "wrong": f" {giver}",
    }
    for first, giver, third in (("Michael", "Jessica", "Matthew"), ("Jessica", "Matthew", "Michael"))
]


@pytest.fixture(scope="module")
def reverse():
    model = ew.load_model("tracr-reverse")
    return ew.discover(model, ew.load_task("tracr-reverse", model), threshold=0.01)


def test_a_run_comes_back_as_it_was(reverse, tmp_path):
    folder = reverse.save(tmp_path / "run")
    again = ew.load_run(folder)
    assert repr(again) == repr(reverse)
    assert again.circuit == reverse.circuit
    assert np.array_equal(again.circuit.scores, reverse.circuit.scores)
    assert again.trace == reverse.trace
    assert again.record == json.loads(json.dumps(reverse.record))
    assert again.metric == reverse.metric
    assert again.scores is reverse.scores is None
    assert again.discovery.metric_full == reverse.discovery.metric_full
    assert again.summary()["edges"] == reverse.summary()["edges"]
    assert again.model.fingerprint() == reverse.model.fingerprint()
    assert again.evaluate().value == pytest.approx(reverse.metric, abs=1e-9)
    assert again == ew.load_run(folder)


def test_what_is_not_asked_for_is_not_read(reverse, tmp_path, monkeypatch):
    folder = reverse.save(tmp_path / "run")
    (folder / "trace.jsonl").write_text("broken\n")
    monkeypatch.setattr("edgewise.models.load_model", None)
    again = ew.load_run(folder)
    assert (again.metric, len(again.circuit), again.task_name) == (reverse.metric, 15, "tracr-reverse")
    assert again.circuit.draw() == reverse.circuit.draw()
    with pytest.raises(EdgewiseError, match="line 1"):
        _ = again.trace
    with pytest.raises(AttributeError, match="no 'circus'"):
        _ = again.circus


def test_it_is_saved_again_byte_for_byte_and_has_its_page(reverse, tmp_path):
    first = reverse.save(tmp_path / "run")
    again = ew.load_run(str(first))
    second = again.save(tmp_path / "copy")
    assert {one.name: one.read_bytes() for one in first.iterdir()} == {
        one.name: one.read_bytes() for one in second.iterdir()
    }
    assert "tracr-reverse" in again.report(tmp_path / "page.html").read_text()[:5000]


def test_scores_and_a_users_own_prompts_come_back_too(tmp_path):
    model = ew.load_model("tiny-ioi")
    found = ew.discover(model, ew.load_task(ROWS, model, name="mine"), method="eap", metric="logit_diff", edges=20)
    again = ew.load_run(found.save(tmp_path / "run"))
    assert np.array_equal(again.scores.scores, found.scores.scores)
    assert again.task.name == again.task_name == "mine"
    assert again.task.text == found.task.text


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(EdgewiseError, match="is not a run folder"):
        ew.load_run(tmp_path)


def test_a_model_that_has_changed_is_refused_when_it_is_asked_for(reverse, tmp_path):
    record = reverse.save(tmp_path / "run") / "run.json"
    record.write_text(record.read_text().replace(reverse.model.fingerprint(), "v2:0"))
    again = ew.load_run(record.parent)
    assert again.circuit == reverse.circuit
    with pytest.raises(EdgewiseError, match="has other weights now"):
        _ = again.model
