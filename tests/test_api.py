"""The library from the outside, as README shows it."""

import json
import os
import subprocess
import sys

import pytest
import tiny

import edgewise as ew


def test_the_few_lines_of_the_readme(tmp_path):
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    found = ew.discover(model, task, threshold=0.01)
    assert found.circuit.n_edges == 15
    assert ew.evaluate(model, task, found.circuit).value == pytest.approx(found.metric, abs=1e-9)
    folder = found.save(tmp_path / "run")
    assert ew.load_circuit(folder / "circuit.json") == found.circuit
    record = json.loads((folder / "run.json").read_text())
    assert record["settings"]["threshold"] == 0.01
    assert record["result"]["tests"] == len(found.trace) == len((folder / "trace.jsonl").read_text().splitlines())
    with pytest.raises(ew.EdgewiseError, match="holds another run"):
        found.save(folder)


def test_the_same_run_gives_the_same_circuit():
    model, task = tiny.llama(layers=2), tiny.task()
    options = {"threshold": 0.03, "layer_order": "shuffle", "head_order": "shuffle"}
    one, again = (ew.discover(model, task, seed=5, **options) for _ in range(2))
    assert one.circuit == again.circuit
    assert [step.edge for step in one.trace] == [step.edge for step in again.trace]
    other = ew.discover(model, task, seed=6, **options)
    assert [step.edge for step in one.trace] != [step.edge for step in other.trace]


def test_a_threshold_or_a_size_is_needed_and_not_both():
    model, task = tiny.gpt2(layers=1), tiny.task()
    with pytest.raises(ew.EdgewiseError, match="suggests no threshold"):
        ew.discover(model, task)
    with pytest.raises(ew.EdgewiseError, match="not both"):
        ew.discover(model, task, threshold=0.1, edges=5)
    with pytest.raises(ew.EdgewiseError, match="unknown method 'acd'; did you mean 'acdc'"):
        ew.discover(model, task, threshold=0.1, method="acd")


def test_a_users_own_metric_function_searches():
    def squared(logits, reference):
        return ((logits - reference.logits) ** 2).mean(dim=-1)

    model, task = tiny.gpt2(layers=2), tiny.task()
    own, built_in = (ew.discover(model, task, threshold=1e-3, metric=metric) for metric in (squared, "l2"))
    assert own.circuit == built_in.circuit
    assert own.circuit.n_edges > 3
    assert own.record["settings"]["metric"] == "squared"


def test_importing_edgewise_does_not_wait_for_torch():
    code = "import sys, edgewise, edgewise.cli, edgewise.graph; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_there():
    for name in ew.__all__:
        assert getattr(ew, name) is not None
    assert set(ew.__all__) <= set(dir(ew))
    with pytest.raises(AttributeError, match="no attribute 'discovr'"):
        _ = ew.discovr  # type: ignore[attr-defined]


def test_a_metric_of_ones_own_is_never_taken_for_the_built_in_one_of_its_name():
    def kl_div(logits, reference):
        return (logits - reference.logits).abs().amax(dim=-1)

    found = ew.discover(tiny.gpt2(layers=1), tiny.task(), threshold=1.0, metric=kl_div)
    assert found.record["settings"]["metric"] == "own_kl_div"


def test_a_task_loaded_for_another_model_is_refused():
    task = ew.load_task("ioi", ew.load_model("tiny-ioi"), examples=2)
    assert task.n_tokens == 168
    with pytest.raises(ew.EdgewiseError, match=r"loaded for a model of 168 tokens; model .* has 40"):
        ew.discover(tiny.gpt2(), task, threshold=1.0)


def test_a_run_measures_itself_and_writes_its_page_in_one_call_each(tmp_path):
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    run = ew.discover(model, task)
    assert run.evaluate().value == pytest.approx(run.metric, abs=1e-9)
    assert run.evaluate(ew.load_task("tracr-reverse", model, examples=3)).examples == 3
    page = run.report(tmp_path / "page.html")
    assert '"label":"tracr-reverse-acdc"' in page.read_text()
    assert str(tmp_path) not in page.read_text(), "no page says where it was made"
    with pytest.raises(ew.EdgewiseError, match="is there already"):
        ew.report(run, page)


def test_what_python_shows_of_a_result_fits_a_line_or_two():
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    run = ew.discover(model, task)
    assert repr(task) == "<Task tracr-reverse: 6 prompt pairs of 4 tokens; metric l2, ablation zero>"
    assert repr(run).startswith("<Run: acdc on tracr-reverse in tracr-reverse; 15 of 106 edges, l2 ")
    shown = repr(run.evaluate())
    assert shown.startswith("<Evaluation: 15 of 106 edges on 6 examples; l2 0 (model 0, ablated ")
    assert "recovered 100.0%" in shown


SPINS = "import edgewise, os; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("code", "settings", "spins"),
    [
        (SPINS, {}, "5000"),
        (SPINS, {"EDGEWISE_TUNE": "0"}, "None"),
        (SPINS, {"GOMP_SPINCOUNT": "7"}, "7"),
        (SPINS, {"OMP_WAIT_POLICY": "active"}, "None"),
        ("import sys; sys.modules['torch'] = None; " + SPINS, {}, "None"),
    ],
    ids=["plain", "asked not to", "chosen by the user", "a policy of the user's", "torch came first"],
)
def test_importing_edgewise_sets_how_long_threads_spin_where_that_still_counts(code, settings, spins):
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "EDGEWISE_TUNE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**environment, **settings}
    )
    assert done.stdout.strip() == spins


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("eap", "edge-attribution"),
        ("EAP-IG", "edge-attribution-ig"),
        ("atp", "attribution-patching"),
        ("hisp", "head-importance"),
    ],
)
def test_methods_go_by_the_papers_names_too_and_are_recorded_in_full(short, full):
    run = ew.discover(tiny.gpt2(layers=1), tiny.task(), method=short, edges=3)
    assert run.record["settings"]["method"] == full


def test_a_sweep_takes_the_papers_names_too():
    from edgewise.runs.sweep import SweepPlan

    assert SweepPlan("sp", (1.0,)).by == "lambda"
