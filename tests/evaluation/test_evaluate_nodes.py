"""Circuits of whole nodes are evaluated by nodes: random ones, tests, the benchmark's areas and files, comparisons."""

from __future__ import annotations

import io
import json
import math
from itertools import product

import numpy as np
import pytest
import tiny
import torch

from edgewise.errors import EdgewiseError
from edgewise.evaluation import evaluate, mib_scores, roc_point
from edgewise.evaluation.compare import compare_circuits
from edgewise.evaluation.effort import Options
from edgewise.evaluation.hypotheses import run_tests
from edgewise.evaluation.mib import SHARES
from edgewise.evaluation.random_circuits import inflated, parts_of, random_like
from edgewise.graph import Circuit, Graph, load_circuit, node_scores, of_node_names, of_nodes
from edgewise.graph.by_node import node_names
from edgewise.patching import Experiment
from edgewise.runs.mib_export import export_mib, load_pt, mib_cell, pt_bytes

RECORD = {"settings": {"task": {"task": "ioi"}, "model": {"name": "gpt2"}}, "result": {"scoring": {}}}
UNSCORED = {**RECORD, "result": {"scoring": None}}


def scored_nodes(graph: Graph, seed: int = 0) -> Circuit:
    """Distinct scores of both signs, some nodes in and some not."""
    generator = np.random.default_rng(seed)
    count = len(graph.sources)
    scores = (generator.permutation(count) + 1.0) * np.where(np.arange(count) % 3 == 1, -1, 1)
    return of_nodes(graph, np.arange(count) % 4 < 2, scores)


@pytest.mark.parametrize(
    ("family", "absolute"),
    tiny.slow_unless(
        lambda *case: case in (("gpt2", False), ("llama", True), ("parallel", False)),
        product(("gpt2", "llama", "parallel"), (False, True)),
    ),
)
def test_the_benchmarks_areas_by_nodes_are_those_of_nodes_chosen_by_hand(family, absolute):
    """Nodes are counted from names, chosen by a sorted list, and run edge by edge; every node that writes counts."""
    model, task = tiny.FAMILIES[family](dtype=torch.float64), tiny.task(rows=4)
    scored = scored_nodes(model.graph(ports=False))
    found = mib_scores(model, task, scored)
    graph = model.graph(ports=False, ungroup=True)
    names = list(dict.fromkeys(name.split("->")[0] for name in sorted(graph.names())))
    layers, heads = graph.n_layers, graph.n_heads
    assert len(names) == 1 + layers * (heads + 1) == found.n_graph_edges
    assert found.unit == "nodes"
    score = dict(zip([node.name for node in scored.graph.sources], node_scores(scored), strict=True))
    ranked = sorted(names, key=lambda name: -abs(score[name]) if absolute else -score[name])
    experiment = Experiment(model, task, metric="logit_diff", graph=graph)
    full, ablated = experiment.full(), experiment.ablated()
    values = []
    for point, share in zip(found.absolute if absolute else found.signed, SHARES, strict=True):
        count = math.floor(share * len(ranked) + 1e-12)
        assert (point.share, point.asked, point.n_edges) == (share, count, count)
        chosen = set(ranked[:count])
        edges = [name for name in graph.names() if name.split("->")[0] in chosen]
        values.append((experiment.value(Circuit.from_names(graph, edges)) - ablated) / (full - ablated))
        assert point.faithfulness == pytest.approx(values[-1], abs=1e-6)
    assert values[-1] == pytest.approx(1)
    heights = [abs(1 - value) for value in values] if absolute else values
    assert (found.cmd if absolute else found.cpr) == pytest.approx(float(np.trapezoid(heights, SHARES)), abs=1e-6)


@pytest.mark.parametrize("graph", [Graph(2, 2, d_model=8), Graph(2, 4, 2, d_model=8, coupled=True)])
def test_files_for_the_benchmark_have_a_score_for_every_node(graph, tmp_path):
    circuit = scored_nodes(graph)
    cell = mib_cell(RECORD, circuit)
    assert cell.official
    assert cell.scored
    export_mib([cell], tmp_path / "out")
    value = json.loads((tmp_path / "out" / "ioi_gpt2" / "importances.json").read_text())
    assert set(value) == {"cfg", "nodes", "edges"}
    names = [node.name for node in graph.sources]
    assert [value["nodes"][name]["score"] for name in names] == node_scores(circuit).tolist()
    assert [value["nodes"][name]["in_graph"] for name in names] == circuit.rows.tolist()
    assert load_circuit(tmp_path / "out" / "ioi_gpt2" / "importances.json") == cell.circuit
    (tmp_path / "one.pt").write_bytes(pt_bytes(cell.circuit))
    data = torch.load(io.BytesIO(pt_bytes(cell.circuit)), weights_only=True)
    assert data["nodes_scores"].tolist() == node_scores(circuit).tolist()
    assert data["nodes_in_graph"].tolist() == circuit.rows.tolist()
    assert not data["edges_scores"].any()
    back = load_pt(tmp_path / "one.pt")
    assert back.whole_nodes
    assert back == cell.circuit
    assert np.array_equal(node_scores(back), node_scores(circuit))


def test_a_circuit_of_acdc_is_exported_as_nodes_that_are_in_it(tmp_path):
    circuit = scored_nodes(Graph(2, 2, d_model=8))
    cell = mib_cell(UNSCORED, circuit)
    assert not cell.scored
    assert np.array_equal(node_scores(cell.circuit), circuit.rows.astype(float))


def test_a_pt_file_whose_nodes_have_no_number_is_refused(tmp_path):
    data = torch.load(io.BytesIO(pt_bytes(scored_nodes(Graph(2, 2)))), weights_only=True)
    for change, why in (
        ({"nodes_scores": torch.full((7,), torch.nan)}, "score of node 'input' is nan"),
        ({"nodes_scores": torch.ones(3)}, r"'nodes_scores' should be a tensor \[7\]"),
        ({"edges_in_graph": torch.zeros(7, 15, dtype=torch.bool)}, "some of the edges between the nodes"),
    ):
        torch.save({**data, **change}, tmp_path / "bad.pt")
        with pytest.raises(EdgewiseError, match=why):
            load_pt(tmp_path / "bad.pt")


def test_random_circuits_have_the_embedding_and_as_many_nodes():
    graph = Graph(3, 4)
    circuit = of_node_names(graph, ["input", "a0.h1", "a1.h2", "m2"])
    seen = set()
    for seed in range(40):
        sample = random_like(circuit, seed)
        assert sample.whole_nodes
        assert sample.size == 4
        assert sample.rows[0]
        seen |= set(node_names(sample))
    assert len(seen) == len(graph.sources)
    outside = of_node_names(graph, ["a2.h0", "a2.h1", "a2.h2", "m0"])
    inside = {name for seed in range(20) for name in node_names(random_like(circuit, seed, outside))}
    assert inside == {"input", "a2.h0", "a2.h1", "a2.h2", "m0"}
    with pytest.raises(EdgewiseError, match="can have 1 to 3 nodes here, not 4"):
        random_like(circuit, 0, of_node_names(graph, ["m0", "m1"]))
    larger, added = inflated(circuit, np.random.default_rng(0))
    assert set(node_names(larger)) - set(node_names(circuit)) == {added}
    assert inflated(of_nodes(graph, np.ones(16)), np.random.default_rng(0)) is None
    assert parts_of(circuit) == ["input", "a0.h1", "a1.h2", "m2"]


def test_tests_are_made_of_nodes():
    model, task = tiny.gpt2(layers=2), tiny.task(rows=6)
    experiment = Experiment(model, task, ports=False)
    circuit = of_node_names(experiment.graph, ["input", "a0.h1", "m0", "a1.h2"])
    found = run_tests(experiment, circuit, Options(circuits=29))
    assert found.unit == "nodes"
    assert found.random_edges == (4, 4)
    assert {one.edge for one in found.effects} == set(node_names(circuit))
    effect = {one.edge: one.rise for one in found.effects}
    without = experiment.value(of_node_names(experiment.graph, ["input", "m0", "a1.h2"]))
    assert effect["a0.h1"] == tiny.near(without - experiment.value(circuit))
    by_name = {one.name: one for one in found.tests}
    assert "of 4 nodes" in by_name["minimality"].verdict
    assert by_name["partial necessity"].p_value is not None


def test_an_evaluation_counts_nodes_and_keeps_the_embedding_when_the_circuit_is_ablated():
    model, task = tiny.gpt2(layers=2), tiny.task()
    graph = model.graph(ports=False)
    circuit = of_node_names(graph, ["input", "a0.h1", "m0"])
    found = evaluate(model, task, circuit)
    assert (found.n_nodes, found.n_graph_nodes, found.n_edges) == (3, 11, 8)
    rest = of_node_names(graph, [node.name for node in graph.sources if node.name not in ("a0.h1", "m0")])
    experiment = Experiment(model, task, graph=graph)
    assert found.measured["kl_div"].complement == tiny.near(experiment.value(rest))
    assert "3 of 11 nodes" in repr(found)


def test_comparisons_are_of_nodes_where_all_are_circuits_of_nodes():
    graph = Graph(2, 2)
    one, other = of_node_names(graph, ["input", "a0.h0", "m1"]), of_node_names(graph, ["input", "m1", "m0"])
    found = compare_circuits({"one": one, "other": other})
    assert found.unit == "nodes"
    assert found.sizes == (3, 3)
    assert (found.in_all, found.in_any) == (2, 4)
    (pair,) = found.pairs
    assert (pair.common, pair.only_first, pair.only_second, pair.jaccard) == (2, 1, 1, 0.5)
    assert [(row.node, row.edges) for row in found.components] == [("m0", (0, 1)), ("a0.h0", (1, 0))]


def test_against_a_known_circuit_the_edges_between_nodes_count():
    graph = Graph(2, 2)
    known = Circuit.from_names(graph, ["input->m1", "m1->logits"])
    point = roc_point(of_node_names(graph, ["input", "m1"]), known)
    assert (point.n_found, point.true_positive_rate, point.precision) == (3, 1.0, pytest.approx(2 / 3))
