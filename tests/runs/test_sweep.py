"""Sweeps: every circuit measured from scratch, kept as it comes, and never found twice."""

import csv
import io
import json

import numpy as np
import pytest
import tiny

from edgewise import load_model, load_task
from edgewise.discovery import Order, acdc, edge_attribution, head_importance
from edgewise.errors import EdgewiseError
from edgewise.evaluation import evaluate
from edgewise.graph import Circuit, Graph
from edgewise.patching import Experiment
from edgewise.runs.series import SeriesFile, SweepPoint, packed, unpacked
from edgewise.runs.sweep import SweepPlan, series_csv, series_summary, sweep

PLANS = (
    SweepPlan("acdc", (0.5, 0.01)),
    SweepPlan("subnetwork-probing", (0.1, 10.0), {"steps": 5, "learning_rate": 0.1}),
    SweepPlan("head-importance", by_unit=True),
    SweepPlan("edge-attribution", (5.0, 20.0)),
    SweepPlan("random", (5.0, 20.0)),
)


@pytest.fixture(scope="module")
def experiment():
    model = load_model("tiny-pronoun")
    return Experiment(model, load_task("gender-pronoun", model, examples=6))


@pytest.fixture(scope="module")
def others(experiment):
    return load_task("gender-pronoun", experiment.decoder, examples=6, split="test")


def test_a_sweep_gives_what_each_method_gives_and_measures_it_from_scratch(experiment, others):
    found = {one.method: one for one in sweep(experiment, PLANS, test=others)}
    assert [one.by for one in found.values()] == ["threshold", "lambda", "units masked", "edges", "edges"]
    assert found["acdc"].points[1].circuit == acdc(experiment, 0.01).circuit
    scored = edge_attribution(experiment).circuit
    assert all(point.circuit.n_edges <= point.setting for point in found["edge-attribution"].points)
    assert np.allclose(found["edge-attribution"].points[1].circuit.scores, scored.scores, rtol=0, atol=1e-5)
    units = head_importance(experiment).units
    assert len(found["head-importance"].points) == len(units) + 1
    for series in found.values():
        full, ablated = series.baseline["kl_div"]
        assert abs(full) < 1e-6 < ablated
        for point in series.points[:3]:
            result = evaluate(experiment.decoder, experiment.task, point.circuit)
            assert point.metrics == tiny.near({name: one.circuit for name, one in result.measured.items()})
            other = evaluate(experiment.decoder, others, point.circuit)
            assert point.test_metrics == tiny.near({name: one.circuit for name, one in other.measured.items()})
    assert found["acdc"].points[1].metrics["kl_div"] < found["acdc"].points[0].metrics["kl_div"]


def test_a_sweep_of_acdc_has_its_order_and_its_rule(experiment, tmp_path):
    experiment = Experiment(experiment.decoder, experiment.task, metric="logit_diff")
    thresholds = (0.1, 0.02)
    plain, absolute, reverse = (
        sweep(experiment, [SweepPlan("acdc", thresholds, **one)])[0].points
        for one in ({}, {"absolute": True}, {"order": Order("reverse", "reverse")})
    )
    for number, threshold in enumerate(thresholds):
        assert absolute[number].circuit == acdc(experiment, threshold, absolute=True).circuit
        assert reverse[number].circuit == acdc(experiment, threshold, order=Order("reverse", "reverse")).circuit
    assert [one.circuit for one in plain] != [one.circuit for one in absolute]
    assert [one.circuit for one in plain] != [one.circuit for one in reverse]
    sweep(experiment, [SweepPlan("acdc", (0.1,))], folder=tmp_path)
    with pytest.raises(EdgewiseError, match="holds another series"):
        sweep(experiment, [SweepPlan("acdc", (0.1,), absolute=True)], folder=tmp_path)
    with pytest.raises(EdgewiseError, match="an order and the absolute rule are ACDC's"):
        sweep(experiment, [SweepPlan("exact", (5.0,), absolute=True)])


def test_a_sweep_that_was_stopped_goes_on_and_does_nothing_twice(experiment, tmp_path, monkeypatch):
    whole = sweep(experiment, PLANS)
    for stop_after in (1, 3, 8):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        told = []

        def stop(method, done, count, told=told, limit=stop_after):
            told.append((method, done))
            if len(told) == limit:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sweep(experiment, PLANS, folder=folder, progress=stop)
        again = []
        found = sweep(experiment, PLANS, folder=folder, progress=lambda *one, again=again: again.append(one[:2]))
        first = {method: next(done for name, done in again if name == method) for method, _ in again}
        assert not {one for one in told if one[1]} & {one for one in again if one[1] > first[one[0]]}
        kept = {method: max(done for name, done in told if name == method) for method, _ in told}
        assert all(first.get(method, done) == done for method, done in kept.items()), "what was kept is not made again"
        for one, other in zip(found, whole, strict=True):
            assert [point.circuit for point in one.points] == [point.circuit for point in other.points]
            assert [point.setting for point in one.points] == [point.setting for point in other.points]
            assert one.baseline == other.baseline
    third = sweep(experiment, PLANS, folder=folder, progress=lambda *one: pytest.fail("everything was there"))
    assert [one.points[-1].circuit for one in third] == [one.points[-1].circuit for one in whole]


def test_a_folder_of_another_sweep_is_refused_and_left_as_it_was(experiment, tmp_path):
    sweep(experiment, PLANS[:1], folder=tmp_path)
    before = (tmp_path / "acdc.jsonl").read_bytes()
    for plan in (
        SweepPlan("acdc", (0.5, 0.02)),
        SweepPlan("acdc", (0.5, 0.01), order=Order(heads="reverse")),
    ):
        with pytest.raises(EdgewiseError, match=r"holds another series \((settings|order)"):
            sweep(experiment, [plan], folder=tmp_path)
    other = Experiment(experiment.decoder, experiment.task, ablation="zero")
    with pytest.raises(EdgewiseError, match=r"holds another series \(ablation \"resample\" there, \"zero\" here\)"):
        sweep(other, PLANS[:1], folder=tmp_path)
    assert (tmp_path / "acdc.jsonl").read_bytes() == before
    (tmp_path / "acdc.jsonl").write_bytes(before.replace(b'"n_edges": ', b'"n_edges": 9', 1))
    with pytest.raises(EdgewiseError, match=r"is broken: \d+ edges announced"):
        sweep(experiment, PLANS[:1], folder=tmp_path)
    (tmp_path / "acdc.jsonl").write_text("{\n")
    with pytest.raises(EdgewiseError, match="not valid JSON"):
        sweep(experiment, [SweepPlan("random", (5.0,)), PLANS[0]], folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["acdc.jsonl"], "found out before anything was done"


def test_a_metric_of_ones_own_is_not_kept_by_its_name(experiment, tmp_path):
    own = Experiment(experiment.decoder, experiment.task, metric=lambda logits, reference: logits[:, 0])
    with pytest.raises(EdgewiseError, match="a function of your own"):
        sweep(own, PLANS[:1], folder=tmp_path)
    assert sweep(own, PLANS[:1])[0].points
    with pytest.raises(EdgewiseError, match="'acdc' is named twice"):
        sweep(experiment, [PLANS[0], PLANS[0]])


def test_published_rounding_does_not_depend_on_what_is_learned_beside_it(experiment):
    options = {"steps": 3, "variant": "published"}
    together = sweep(experiment, [SweepPlan("subnetwork-probing", (0.1, 5.0), options)])[0].points
    alone = sweep(experiment, [SweepPlan("subnetwork-probing", (5.0,), options)])[0].points
    assert together[1].circuit == alone[0].circuit


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (SweepPlan("acdcc", (0.1,)), "unknown method 'acdcc'; did you mean 'acdc'"),
        (SweepPlan("acdc"), "a sweep of 'acdc' needs at least one threshold"),
        (SweepPlan("acdc", (float("nan"),)), "should be numbers"),
        (SweepPlan("edge-attribution", (0.5,)), "whole numbers of edges from 1"),
        (SweepPlan("random", (0.0,)), "whole numbers of edges from 1"),
        (SweepPlan("subnetwork-probing", (-1.0,)), "a lambda should be 0 or more"),
        (SweepPlan("edge-attribution", (5.0,), {"steps": 3}), "has no option 'steps'"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused_before_anything_runs(experiment, plan, why, tmp_path):
    with pytest.raises(EdgewiseError, match=why):
        sweep(experiment, [PLANS[0], plan], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_data_behind_the_plots_is_a_line_per_circuit():
    model = load_model("tracr-reverse")
    task = load_task("tracr-reverse", model)
    known = task.known_circuit.circuit
    found = sweep(Experiment(model, task), [SweepPlan("acdc", (0.01, 0.5)), SweepPlan("random", (20.0,))])
    rows = list(csv.DictReader(io.StringIO(series_csv(found, known))))
    assert [row["method"] for row in rows] == ["acdc", "acdc", "random"]
    assert [float(rows[0][key]) for key in ("n_edges", "edges_true_positive_rate", "edges_false_positive_rate")] == [
        15,
        1,
        0,
    ]
    assert float(rows[0]["nodes_n_found"]) == 16
    assert float(rows[0]["l2"]) < 1e-9 < float(rows[1]["l2"])
    summary = json.loads(json.dumps(series_summary(found[0], known)))
    assert summary["roc"]["edges"] == {"pessimistic": 1.0, "trapezoid": 1.0}
    assert "circuit" not in summary["points"][0]


@pytest.mark.parametrize("graph", [Graph(2, 3, ports=True), Graph(2, 4, n_kv_heads=2), Graph(1, 1)], ids=Graph.describe)
def test_a_packed_circuit_is_that_circuit(graph):
    generator = np.random.default_rng(0)
    for share in (0, 0.3, 1):
        edges = graph.edges & (generator.random(graph.edges.shape) < share)
        ports = graph.port_edges & (generator.random(graph.port_edges.shape) < share)
        circuit = Circuit(graph, edges, ports)
        assert unpacked(packed(circuit), graph) == circuit
    with pytest.raises(ValueError, match="another graph"):
        unpacked(packed(Circuit.full(Graph(4, 4))), graph)
    for text in ("", "not base64!", "AAAA"):
        with pytest.raises(ValueError):
            unpacked(text, graph)


def test_a_series_is_whole_after_every_point(experiment, tmp_path):
    seen = []

    def look(method, done, count):
        header = json.loads((tmp_path / "acdc.jsonl").read_text().split("\n")[0])
        del header["baseline"]
        file = SeriesFile(tmp_path / "acdc.jsonl", header, experiment.graph)
        seen.append((len(file.points), file.finished))

    sweep(experiment, [SweepPlan("acdc", (0.5, 0.1, 0.01))], folder=tmp_path, progress=look)
    assert seen == [(0, False), (1, False), (2, False), (3, False)]
    assert json.loads((tmp_path / "acdc.jsonl").read_text().splitlines()[-1]) == {"finished": True}
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".partial"]


def test_another_models_folder_is_refused(tmp_path):
    one, other = (Experiment(tiny.gpt2(seed, layers=1), tiny.task()) for seed in (0, 1))
    sweep(one, [SweepPlan("random", (3.0,))], folder=tmp_path)
    with pytest.raises(EdgewiseError, match=r"holds another series \(model"):
        sweep(other, [SweepPlan("random", (3.0,))], folder=tmp_path)


# --- the file of a series ------------------------------------------------------------------------------------------


GRAPH, BASELINE = Graph(2, 2), {"kl_div": (0.0, 1.0)}


def point(setting):
    return SweepPoint(setting, Circuit.full(GRAPH), {"kl_div": 0.5}, {"kl_div": 0.25}, 1.5)


def begun(path, count=2):
    file = SeriesFile(path, {"method": "acdc"}, GRAPH)
    file.start(BASELINE)
    for setting in range(count):
        file.add(point(float(setting)))
    return file


def test_a_point_is_added_behind_the_others_without_writing_them_anew(tmp_path):
    path = tmp_path / "acdc.jsonl"
    file = begun(path)
    before, inode = path.read_bytes(), path.stat().st_ino
    file.add(point(2.0))
    assert path.read_bytes().startswith(before)
    assert path.stat().st_ino == inode
    assert len(path.read_bytes()) - len(before) < 500
    again = SeriesFile(path, {"method": "acdc"}, GRAPH)
    assert [one.setting for one in again.points] == [0.0, 1.0, 2.0]
    assert again.points[0] == point(0.0)
    assert (again.baseline, again.finished) == (BASELINE, False)


@pytest.mark.parametrize("torn", [1, 40, -1])
def test_a_last_line_that_a_crash_has_torn_is_dropped_and_made_again(tmp_path, torn):
    path = tmp_path / "acdc.jsonl"
    begun(path)
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(line)] + line[:torn])
    again = SeriesFile(path, {"method": "acdc"}, GRAPH)
    assert [one.setting for one in again.points] == [0.0]
    again.start(BASELINE)
    again.add(point(1.0))
    assert path.read_bytes() == whole


def test_two_processes_do_not_write_into_each_others_lines(tmp_path):
    one = begun(tmp_path / "acdc.jsonl")
    other = SeriesFile(tmp_path / "acdc.jsonl", {"method": "acdc"}, GRAPH)
    other.add(point(2.0))
    before = (tmp_path / "acdc.jsonl").read_bytes()
    with pytest.raises(EdgewiseError, match="another process is writing to the series"):
        one.add(point(2.0))
    assert (tmp_path / "acdc.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "change", "why"),
    [
        (1, {"metrics": [1]}, "line 2 is broken: 'metrics' should be an object"),
        (1, {"metrics": {"kl_div": "0.5"}}, "'metrics' is broken: 'kl_div' should be a number"),
        (1, {"metrics": {"kl_div": float("nan")}}, "line 2: 'metrics.kl_div' is 'NaN', which is no finite number"),
        (1, {"metrics": {}}, "its metrics are not those of the baseline"),
        (1, {"seconds": "9" * 3}, "'seconds' should be a number"),
        (1, {"setting": int("9" * 299)}, "the setting is 1e\\+299, where 0.0 comes next"),
        (1, {"circuit": 3}, "'circuit' should be text, not 3"),
        (1, {"same_as": [1]}, "'same_as' should be a number"),
        (0, {"baseline": [1]}, "'baseline' should be an object"),
        (0, {"baseline": {"kl_div": [0.5]}}, "'baseline.kl_div' should be two numbers"),
        (0, {"baseline": {"kl_div": [0, "1"]}}, "'baseline.kl_div' should be two numbers"),
        (-1, {"finished": 1}, "'finished' should be true or false"),
    ],
)
def test_a_series_with_something_else_in_it_is_refused_with_line_and_field(tmp_path, line, change, why):
    path = tmp_path / "acdc.jsonl"
    begun(path).finish()
    lines = path.read_text().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **change})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(EdgewiseError, match=why):
        SeriesFile(path, {"method": "acdc"}, GRAPH, [0.0, 1.0])


def test_a_series_of_more_or_fewer_points_than_its_sweep_is_refused(tmp_path):
    path = tmp_path / "acdc.jsonl"
    begun(path).finish()
    for settings, why in (([0.0], "has no more circuits"), ([0.0, 1.0, 2.0], "circuits are missing")):
        with pytest.raises(EdgewiseError, match=why):
            SeriesFile(path, {"method": "acdc"}, GRAPH, settings)
    assert SeriesFile(path, {"method": "acdc"}, GRAPH, [0.0, 1.0]).finished


def test_a_probe_of_each_lambda_is_kept_where_learning_them_together_would_save_nothing(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.setattr("edgewise.discovery.methods.subnetwork_probing.ACTIVATIONS_AT_ONCE", 1)
    told = []

    def stop(method, done, count):
        told.append(done)
        if done == 2:
            raise KeyboardInterrupt

    plan = SweepPlan("subnetwork-probing", (0.1, 1.0, 10.0), {"steps": 2})
    with pytest.raises(KeyboardInterrupt):
        sweep(experiment, [plan], folder=tmp_path, progress=stop)
    assert told == [0, 1, 2]
    assert len((tmp_path / "subnetwork-probing.jsonl").read_text().splitlines()) == 1 + 2
    monkeypatch.undo()
    together = sweep(experiment, [plan])[0].points
    assert [one.circuit for one in sweep(experiment, [plan], folder=tmp_path)[0].points] == [
        one.circuit for one in together
    ]
