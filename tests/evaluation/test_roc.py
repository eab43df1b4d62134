"""ROC points against the known circuits of tracr's programs: one way for every method."""

import collections
import csv

import numpy as np
import pytest
from tiny import SHARED, needs_shared

from edgewise import load_model, load_task
from edgewise.discovery import Units, acdc, head_importance, one_by_one, sweep
from edgewise.discovery.methods.subnetwork_probing import PAPER_LAMBDAS, subnetwork_probing
from edgewise.errors import EdgewiseError
from edgewise.evaluation import area_under, evaluate, frontier, random_circuit, roc_curve, roc_point, roc_points
from edgewise.evaluation.roc import SMALLEST_THRESHOLD, nodes_present, roc_by_group
from edgewise.graph import Circuit, Graph, load_circuit, save_circuit
from edgewise.patching import Experiment
from edgewise.runs.published import PUBLISHED_AUC, WITHOUT_UNFINISHED


@pytest.fixture(scope="module", params=["tracr-reverse", "tracr-xproportion"])
def setting(request):
    model = load_model(request.param)
    task = load_task(request.param, model)
    return Experiment(model, task, ablation="zero"), task.known_circuit.circuit


def test_the_ends_of_the_plot(setting):
    _, known = setting
    full = roc_point(Circuit.full(known.graph), known)
    assert (full.true_positive_rate, full.false_positive_rate, full.n_found) == (1, 1, known.graph.n_edges)
    assert full.precision == known.n_edges / known.graph.n_edges
    empty = roc_point(Circuit.empty(known.graph), known)
    assert (empty.true_positive_rate, empty.false_positive_rate, empty.precision) == (0, 0, 1)
    exact = roc_point(known, known)
    assert (exact.true_positive_rate, exact.false_positive_rate, exact.precision) == (1, 0, 1)


def test_acdc_is_at_the_corner_and_the_papers_baselines_are_not(setting):
    experiment, known = setting
    found = acdc(experiment, 0.01)
    corner = roc_point(found.circuit, known)
    assert (corner.true_positive_rate, corner.false_positive_rate) == (1, 0)
    found = head_importance(experiment)
    scored, units = found.circuit, found.units
    circuits = [circuit for _, circuit in sweep(scored)]
    points = roc_points(circuits, known)
    assert (points[0].true_positive_rate, points[0].false_positive_rate) == (1, 1)
    assert points[-1].n_found == known.graph.n_embeddings, "the embedding is never masked"
    sizes = [point.n_found for point in points]
    assert sizes == sorted(sizes, reverse=True)
    assert 3 < len(points) <= len(units) + 2
    assert not any(point.true_positive_rate == 1 and point.false_positive_rate == 0 for point in points)
    probe = subnetwork_probing(experiment, regularisation=1.0, steps=100, learning_rate=0.05)
    point = roc_point(probe.circuit, known)
    assert 0 < point.n_found < known.graph.n_edges
    assert 0 < point.false_positive_rate < 1


def test_the_papers_published_count_gives_its_published_point():
    """SP on tracr-reverse: 43 edges with TPR 1.000 and FPR .3077 are 15 right ones and 28 of the other 91."""
    model = load_model("tracr-reverse")
    known = load_task("tracr-reverse", model).known_circuit.circuit
    others = [name for name in Circuit.full(known.graph).names() if name not in known]
    point = roc_point(known.add(*others[:28]), known)
    assert point.n_found == 43
    assert point.true_positive_rate == 1
    assert point.false_positive_rate == pytest.approx(0.3077, abs=5e-5)


def test_circuits_of_different_graphs_make_no_point():
    known, other = (load_task(name, load_model(name)).known_circuit.circuit for name in ("tracr-reverse", "or-gate"))
    with pytest.raises(EdgewiseError, match="another graph"):
        roc_point(other, known)


def test_the_papers_lambdas():
    assert len(PAPER_LAMBDAS) == 32
    assert PAPER_LAMBDAS[0] == pytest.approx(0.01)
    assert PAPER_LAMBDAS[10:13] == (pytest.approx(1.0), 2, 3)
    assert PAPER_LAMBDAS[-1] == 250


# -- areas -------------------------------------------------------------------------------------------------------------


def test_the_papers_unit_values_of_the_pessimistic_area():
    """FACTS 6.2."""
    assert area_under([(0, 0), (1, 1)]) == 0
    assert area_under([(0, 0), (0.5, 0.5), (1, 1)]) == 0.25
    assert area_under(list(zip((0, 0.25, 0.75, 1), (0, 0.25, 0.5, 1), strict=True))) == 0.25


def test_the_standard_area_of_the_same_points():
    assert area_under([], "trapezoid") == 0.5
    assert area_under([(0.0, 1.0)], "trapezoid") == 1.0
    assert area_under([(0.5, 0.5), (0.25, 0.75)], "trapezoid") == pytest.approx(0.25 * 0.75 / 2 + 0.75 * 1.75 / 2)
    with pytest.raises(EdgewiseError, match="unknown rule 'pesimistic'; did you mean 'pessimistic'"):
        area_under([], "pesimistic")


def test_a_point_leaves_the_frontier_only_if_another_is_strictly_better_in_both():
    assert frontier([(0.2, 0.5), (0.3, 0.4)]) == [(0, 0), (0.2, 0.5), (1, 1)]
    assert frontier([(0.2, 0.5), (0.2, 0.4), (0.3, 0.5)]) == [(0, 0), (0.2, 0.4), (0.2, 0.5), (0.3, 0.5), (1, 1)]


def published_points():
    series = collections.defaultdict(list)
    with (SHARED / "paper" / "points.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["source_commit"], row["weights"]) == ("a9a7857f", "trained"):
                series[row["ablation"], row["task"], row["metric"], row["alg"]].append(row)
    return series


NAMES = {
    **dict(random_ablation="resample", zero_ablation="zero", greaterthan="greater-than"),
    **{"tracr-proportion": "tracr-xproportion", "docstring_metric": "logit_diff_max"},
    **dict(ACDC="acdc", HISP="head-importance", SP="subnetwork-probing"),
}


def rates(rows, counted, unfinished=()):
    return [
        (float(row[f"{counted}_fpr"]), float(row[f"{counted}_tpr"]))
        for row in rows
        if not (row["alg"] == "ACDC" and float(row["score"]) < SMALLEST_THRESHOLD) and row["idx"] not in unfinished
    ]


@needs_shared
def test_the_published_tables_follow_from_the_published_points():
    """Tables 2 and 3: 96 areas, each to .001."""
    checked = 0
    for (ablation, task, metric, method), rows in published_points().items():
        if task == "induction":
            continue
        name = NAMES.get(metric, metric) if metric != "greaterthan" else "prob_diff"
        for counted in ("edge", "node"):
            where = (NAMES[ablation], NAMES.get(task, task), name, NAMES[method], f"{counted}s")
            assert area_under(rates(rows, counted)) == pytest.approx(PUBLISHED_AUC[where], abs=0.00051), where
            checked += 1
    assert checked == len(PUBLISHED_AUC) == 96


@needs_shared
def test_areas_without_the_runs_that_had_not_finished():
    """A run at a higher threshold that keeps far more edges than one at a lower threshold had not come to its end."""
    for where, (count, wanted) in WITHOUT_UNFINISHED.items():
        ablation, task, metric, _, counted = where
        rows = next(
            rows
            for (one, name, by, method), rows in published_points().items()
            if (NAMES[one], NAMES.get(name, name), method) == (ablation, task, "ACDC")
            and ("prob_diff" if by == "greaterthan" else NAMES.get(by, by)) == metric
        )
        runs = [row for row in rows if row["n_edges"] not in ("", "nan")]
        unfinished = {
            row["idx"]
            for row in runs
            if any(
                float(other["score"]) < float(row["score"]) and 2 * float(other["n_edges"]) < float(row["n_edges"])
                for other in runs
            )
        }
        assert len(unfinished) == count
        assert area_under(rates(rows, counted[:-1], unfinished)) == pytest.approx(wanted, abs=0.00051)


@needs_shared
@pytest.mark.parametrize("task", ["tracr-reverse", "tracr-xproportion"])
def test_the_papers_sweep_of_head_importance_comes_out_circuit_by_circuit(task):
    """Its scores are all zero there, so units go in the order of the code: sizes and rates of every published row."""
    model = load_model(task)
    known = load_task(task, model).known_circuit.circuit
    circuits = list(one_by_one(known.graph, Units.full(model.config, 0.0, model.device)))
    name = {"tracr-xproportion": "tracr-proportion"}.get(task, task)
    rows = published_points()["zero_ablation", name, "l2", "HISP"][1:-1]
    assert len(rows) == len(circuits)
    for row, circuit in zip(rows, circuits, strict=True):
        by_edge, by_node = roc_point(circuit, known), roc_point(circuit, known, "nodes")
        assert (by_edge.n_found, by_node.n_found) == (int(row["n_edges"]), int(row["n_nodes"]))
        for point, counted in ((by_edge, "edge"), (by_node, "node")):
            assert point.true_positive_rate == pytest.approx(float(row[f"{counted}_tpr"]))
            assert point.false_positive_rate == pytest.approx(float(row[f"{counted}_fpr"]))


def test_nodes_are_counted_as_in_the_paper():
    """FACTS 1.3: n_nodes of the data files."""
    for graph, nodes in (
        (Graph(12, 12, ports=True), 1022),
        (Graph(4, 8, mlps=False, ports=True), 226),
        (Graph(2, 8, mlps=False, ports=True), 114),
        (Graph(2, 1, split_embedding=True, ports=True), 19),
        (Graph(4, 1, split_embedding=True, ports=True), 35),
    ):
        assert nodes_present(Circuit.full(graph)).sum() == nodes
        assert not nodes_present(Circuit.empty(graph)).any()
    graph = Graph(2, 2, ports=True)
    alone = Circuit.from_names(graph, ["a0.h1->a1.h0<q>"])
    assert nodes_present(alone).sum() == 2, "the head and the input that reads it"
    assert nodes_present(alone.add("a1.h0<q>->a1.h0")).sum() == 3, "and the query"


def test_a_curve_of_no_circuits_is_refused():
    known = load_task("or-gate", load_model("or-gate")).known_circuit.circuit
    with pytest.raises(EdgewiseError, match="at least one circuit"):
        roc_curve([], known)
    curve = roc_curve([known], known)
    assert (curve.pessimistic, curve.trapezoid) == (1, 1)


def test_a_group_counts_the_edges_that_touch_its_nodes():
    graph = Graph(3, 4, n_kv_heads=2, ports=True)
    generator = np.random.default_rng(3)
    found, known = (
        Circuit(graph, graph.edges & (generator.random(graph.edges.shape) < 0.4), graph.port_edges)
        for _ in range(2)
    )  # fmt: skip
    found = found.remove("a1.h0<q>->a1.h0", "a1.g0<k>->a1.g0")
    groups = {"heads": ("a1.h0", "a2.h3"), "ends": ("input", "m2", "logits")}
    points = roc_by_group(found, known, groups)
    assert list(points) == list(groups)
    shared = {"a1.h0": "a1.g0", "a2.h3": "a2.g1"}
    for name, members in groups.items():
        owners = {*members, *(shared[node] for node in members if node in shared)}
        touched = {
            edge
            for edge in graph.names()
            if edge.split("->")[0] in members or edge.split("->")[1].split("<")[0] in owners
        }
        hits, truth = touched & set(found.names()), touched & set(known.names())
        point = points[name]
        assert point.n_found == len(hits)
        assert point.true_positive_rate == len(hits & truth) / len(truth)
        assert point.false_positive_rate == len(hits - truth) / len(touched - truth)
        assert point.precision == len(hits & truth) / len(hits)


@pytest.mark.parametrize("task", ["tracr-reverse", "tracr-xproportion", "or-gate"])
def test_a_known_circuit_from_a_file_gives_the_points_of_the_built_in_one(task, tmp_path):
    model = load_model(task)
    loaded = load_task(task, model)
    built_in = loaded.known_circuit
    save_circuit(built_in.circuit, tmp_path / "known.json")
    found = random_circuit(built_in.graph, 6, 1)
    own = evaluate(model, loaded, found, known=load_circuit(tmp_path / "known.json"), groups=built_in.groups)
    usual = evaluate(model, loaded, found)
    assert usual.roc["edges"].n_found > 0
    assert own.roc == usual.roc
    assert own.roc_by_group == usual.roc_by_group
    assert own.roc_by_group
    assert own.known.found == usual.known.found
    assert own.groups == usual.known.groups
