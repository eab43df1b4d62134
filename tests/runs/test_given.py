"""What a user gives to hold a run against is kept with it, and comes back without the files that it came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.evaluation import random_circuit
from edgewise.graph import Circuit, Graph, load_circuit, save_circuit
from edgewise.graph.convert import onto
from edgewise.runs import SearchRequest
from edgewise.runs.given import known_of
from edgewise.runs.mib_export import pt_bytes
from edgewise.tasks import KNOWN_CIRCUITS

pytestmark = pytest.mark.filterwarnings("ignore:the (circuit|model)")

GROUPS = {"first": ["a0.h0", "m0"], "last": ["m1", "logits"]}


@pytest.fixture(scope="module")
def setting() -> tuple[Any, Any]:
    """A model whose query heads share keys and values."""
    return tiny.llama(layers=2), replace(tiny.task(), settings={"task": "random", "examples": 3})


@pytest.fixture(scope="module")
def truth(setting) -> Circuit:
    return random_circuit(setting[0].graph(ports=True), 20, 0)


def test_groups_and_a_known_circuit_come_back_with_the_run(setting, truth, tmp_path):
    model, task = setting
    path, groups = tmp_path / "theirs.json", tmp_path / "groups.json"
    save_circuit(truth, path)
    groups.write_text(json.dumps(GROUPS))
    run = ew.discover(model, task, threshold=0.05, known=path, groups=groups)
    result = run.record["result"]
    assert result["known_circuit"] == {
        "source": "theirs.json",
        "n_edges": truth.n_edges,
        "found": (truth & run.circuit).n_edges,
        "groups": (),
    }
    there = set(run.circuit.nodes())
    assert result["groups"] == [
        {"group": name, "found": tuple(node for node in members if node in there), "members": tuple(members)}
        for name, members in GROUPS.items()
    ]
    assert run.summary()["groups"] == result["groups"]
    folder = run.save(tmp_path / "run")
    path.unlink()
    groups.unlink()
    assert load_circuit(folder / "known.json") == truth
    settings = json.loads((folder / "run.json").read_text())["settings"]
    assert settings["groups"] == GROUPS
    assert settings["known"] == str(path)
    copy = ew.load_run(folder).save(tmp_path / "copy")
    assert (copy / "known.json").read_bytes() == (folder / "known.json").read_bytes()
    assert (copy / "run.json").read_bytes() == (folder / "run.json").read_bytes()
    again = SearchRequest.from_dict(settings)
    assert again.groups == GROUPS
    assert again.known is None
    assert ew.discover(model, task, request=again).record["result"]["groups"] == result["groups"]


def test_of_a_run_without_them_the_record_is_as_it_was(setting, tmp_path):
    run = ew.discover(*setting, threshold=0.05)
    assert run.record["result"]["known_circuit"] is None
    assert run.record["result"]["groups"] is None
    assert not {"groups", "known"} & set(run.record["settings"])
    assert "known.json" not in run.files()


def test_a_run_is_evaluated_against_what_it_was_given(tmp_path):
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    truth = task.known_circuit.circuit.remove("m1->m2")
    run = ew.discover(model, task, known=truth, groups={"x": ["m1"]})
    loaded = ew.load_run(run.save(tmp_path / "run"))
    assert loaded.task.known_circuit.on(run.circuit.graph) == truth
    assert loaded.task.groups == {"x": ("m1",)}
    for one in (run.evaluate(task.beside(truth.graph, known=truth, groups={"x": ["m1"]})), loaded.evaluate()):
        assert one.known.n_edges == 14
        assert one.roc["edges"].true_positive_rate == 1
        assert one.roc["edges"].precision == 14 / 15
        assert [group.group for group in one.groups] == list(one.roc_by_group) == ["x"]
    save_circuit(truth.remove("m0->m1"), tmp_path / "other.json")
    other = loaded.evaluate(known=tmp_path / "other.json", groups={"y": ["m0", "m1"]})
    assert (other.known.source, other.known.n_edges, list(other.roc_by_group)) == ("other.json", 13, ["y"])


def forms(truth: Circuit, folder: Path) -> dict[str, Any]:
    """The same circuit in every form in which a truth may be given."""
    save_circuit(truth, folder / "circuit.json")
    (folder / "run").mkdir()
    record = {
        "form": 1,
        "result": {},
        "settings": {
            "ablation": "zero",
            "metric": "l2",
            "task": {"task": "random", "examples": 1},
            "model": {"name": "m", "dtype": "float32", "fingerprint": "v2:0"},
        },
    }
    (folder / "run" / "run.json").write_text(json.dumps(record))
    save_circuit(truth, folder / "run" / "circuit.json")
    scored = truth.with_scores(truth.edges * 1.0, truth.ports * 1.0)
    (folder / "circuit.pt").write_bytes(pt_bytes(scored))
    return {
        "a file": folder / "circuit.json",
        "its name": str(folder / "circuit.json"),
        "a run folder": folder / "run",
        "a run": ew.load_run(folder / "run"),
        "a circuit": truth,
        "torch's": folder / "circuit.pt",
    }


def test_every_form_of_a_known_circuit_is_the_same_truth(setting, truth, tmp_path):
    wide = replace(truth.graph, n_kv_heads=truth.graph.n_heads, ports=False)
    plain = onto(truth, wide)
    for name, form in forms(plain, tmp_path).items():
        known = known_of(form).on(truth.graph)
        assert known.edges.tolist() == truth.edges.tolist(), name
        assert known == onto(plain, truth.graph), name
    assert known_of(KNOWN_CIRCUITS["ioi"]).source == "Wang et al. 2023"


def test_what_is_no_known_circuit_is_refused_in_a_sentence(setting, truth, tmp_path):
    model, task = setting
    save_circuit(Circuit.full(Graph(3, 4)), tmp_path / "other.json")
    save_circuit(Circuit.empty(truth.graph), tmp_path / "empty.json")
    (tmp_path / "broken.json").write_text("{")
    forms(onto(truth, replace(truth.graph, n_kv_heads=4, ports=False)), tmp_path)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "finished": False}))
    for known, words in (
        (tmp_path / "none.json", "there is no such run folder or circuit file"),
        (tmp_path / "other.json", "'other.json' is over another graph (3 layers of 4 heads) than the one that is"),
        (tmp_path / "empty.json", "'empty.json' is empty, so nothing can be held against it"),
        (tmp_path / "broken.json", "not valid JSON"),
        (tmp_path / "run", "the search of the run 'run' was stopped"),
        ("", "the known circuit (--known) is empty"),
        (3, "is a circuit, a run, or the path of one, not 3"),
    ):
        with pytest.raises(EdgewiseError) as refused:
            ew.discover(model, task, threshold=0.05, known=known)  # type: ignore[arg-type]
        assert words in str(refused.value)
    with pytest.raises(EdgewiseError, match=r"load_circuit and load_run read them, not 'x\.json'"):
        ew.evaluate(model, task, truth, known="x.json")  # type: ignore[arg-type]
    with pytest.raises(EdgewiseError, match="has no node 'm7'; did you mean"):
        ew.discover(model, task, threshold=0.05, groups={"x": ["m7"]})
    with pytest.raises(EdgewiseError, match="has no node 'm7'"):
        ew.evaluate(model, task, truth, groups={"x": ["m7"]})


def test_a_search_that_goes_on_with_a_users_own_model_and_task_keeps_them(setting, truth, tmp_path):
    model, task = setting
    whole = ew.discover(model, task, threshold=0.05, known=truth, groups=GROUPS)
    assert whole.record["result"]["known_circuit"]["found"]

    def stop(progress: Any) -> None:
        if progress.decided > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ew.discover(model, task, threshold=0.05, known=truth, groups=GROUPS, out=tmp_path / "run", progress=stop)
    run = ew.resume(tmp_path / "run", model=model, task=task)
    for name in ("known_circuit", "groups"):
        assert run.record["result"][name] == whole.record["result"][name]
    assert run.record["settings"] == whole.record["settings"]
    assert load_circuit(tmp_path / "run" / "known.json") == truth
