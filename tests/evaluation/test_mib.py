"""The benchmark's measures, against the same worked out another way, and its files."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from oracle import oracle_logits

from edgewise import load_model, load_task
from edgewise.discovery import METHODS, by_integer_programming, edge_attribution
from edgewise.errors import EdgewiseError
from edgewise.evaluation import mib_auroc, mib_scores
from edgewise.evaluation.mib import SHARES, AtShare, area, pieces_of, scores_from, strongest
from edgewise.graph import Circuit, Graph, load_circuit, node_scores, of_nodes, save_circuit
from edgewise.graph.convert import ungrouped, without_ports
from edgewise.patching import Experiment, memory_of
from edgewise.runs.mib_export import export_mib, load_pt, mib_cell, pt_bytes


def known_scores(graph, seed=0):
    """Scores that anyone can write down: distinct, of both signs."""
    numbers = np.random.default_rng(seed).permutation(graph.edges.size).reshape(graph.edges.shape) + 1.0
    signs = np.where(np.arange(graph.edges.size).reshape(graph.edges.shape) % 3 == 0, -1.0, 1.0)
    return Circuit.full(graph).with_scores(np.where(graph.edges, numbers * signs, 0.0))


def pruned_names(graph, names):
    """What is left of edges when those that dangle are dropped again and again, by names alone."""
    names = set(names)
    while True:
        fed = {name.split("->")[1].split("<")[0] for name in names} | {"input"}
        read = {name.split("->")[0] for name in names} | {"logits"}
        left = {one for one in names if one.split("->")[0] in fed and one.split("->")[1].split("<")[0] in read}
        if left == names:
            return left
        names = left


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "parallel"])
def test_faithfulness_at_every_size_is_that_of_the_edges_chosen_by_hand(family, absolute):
    model, task = tiny.FAMILIES[family](dtype=torch.float64), tiny.task(rows=4)
    graph = model.graph(ports=False, ungroup=True)
    scored = known_scores(graph)
    found = mib_scores(model, task, scored)
    points = found.absolute if absolute else found.signed
    score = {name: scored.scores[graph.locate(name)] for name in Circuit.full(graph).names()}
    ranked = sorted(score, key=lambda name: -abs(score[name]) if absolute else -score[name])
    experiment = Experiment(model, task, metric="logit_diff", graph=graph)
    full, ablated = experiment.full(), experiment.ablated()
    assert [point.share for point in points] == list(SHARES)
    for point in points:
        count = math.floor(point.share * len(ranked) + 1e-12)
        assert point.asked == count
        left = pruned_names(graph, ranked[:count])
        assert point.n_edges == len(left)
        value = experiment.value(Circuit.from_names(graph, left))
        assert point.faithfulness == pytest.approx((value - ablated) / (full - ablated), abs=1e-9)
    assert points[-1].faithfulness == pytest.approx(1, abs=1e-9)
    values = [point.faithfulness if not absolute else abs(1 - point.faithfulness) for point in points]
    wanted = float(np.trapezoid(values, SHARES))
    wanted_log = float(np.trapezoid(values, np.log10(SHARES))) / 3
    assert (found.cmd if absolute else found.cpr) == pytest.approx(wanted)
    assert (found.cmd_log if absolute else found.cpr_log) == pytest.approx(wanted_log)


def test_by_integer_programming_circuits_are_those_of_the_largest_sums():
    model, task = tiny.gpt2(dtype=torch.float64, layers=1, heads=2), tiny.task(rows=3)
    graph = model.graph(ports=False)
    scored = known_scores(graph)
    found = mib_scores(model, task, scored, select="ilp")
    experiment = Experiment(model, task, metric="logit_diff", graph=graph)
    full, ablated = experiment.full(), experiment.ablated()
    for absolute, points in ((False, found.signed), (True, found.absolute)):
        for point in points[-3:-1]:
            circuit = by_integer_programming(scored, point.asked, absolute=absolute).circuit
            assert point.n_edges == circuit.n_edges > 0
            faithfulness = (experiment.value(circuit) - ablated) / (full - ablated)
            assert point.faithfulness == pytest.approx(faithfulness, abs=1e-9)
    with pytest.raises(EdgewiseError, match="these are scores of nodes"):
        mib_scores(model, task, of_nodes(graph, np.ones(4, dtype=bool), np.arange(4.0)), select="ilp")


def test_of_edges_with_one_score_those_are_taken_that_torch_sorts_first():
    """The benchmark sorts a matrix of single-precision scores, and what stands outside the graph last."""
    graph = Graph(3, 3)
    scores = np.where(graph.edges, np.round(known_scores(graph).scores / 40), 0.0)
    scored = Circuit.full(graph).with_scores(scores)
    for absolute in (False, True):
        values = torch.tensor(scores, dtype=torch.float32)
        values = values.abs() if absolute else values
        values[torch.tensor(~graph.edges)] = -torch.inf
        order = torch.argsort(values.view(-1), descending=True)
        for count in (0, 7, 40, graph.n_edges):
            taken = np.zeros(graph.edges.size, dtype=bool)
            taken[order[:count].numpy()] = True
            wanted = Circuit(graph, taken.reshape(graph.edges.shape), graph.port_edges).connected()
            assert strongest(scored, count, absolute=absolute) == wanted


# -- every method, by a definition that shares no code -----------------------------------------------------------------


def benchmarks_edges(layers, heads):
    """Every edge of the benchmark's graph with its row and column: senders and readers are counted by its formulas."""
    rows, columns = {"input": 0}, {"logits": layers * (3 * heads + 1)}
    for layer in range(layers):
        rows[f"m{layer}"] = 1 + layer * (heads + 1) + heads
        columns[f"m{layer}"] = layer * (3 * heads + 1) + 3 * heads
        for head in range(heads):
            rows[f"a{layer}.h{head}"] = 1 + layer * (heads + 1) + head
            for at, kind in enumerate("qkv"):
                columns[f"a{layer}.h{head}<{kind}>"] = layer * (3 * heads + 1) + at * heads + head
    edges = {}
    for sender, row in rows.items():
        for reader, column in columns.items():
            layer = layers if reader == "logits" else int(reader[1])
            # An MLP reads the heads of its layer, which stand before it.
            before = row < 1 + layer * (heads + 1) + (heads if reader[0] == "m" else 0)
            if before:
                edges[f"{sender}->{reader}"] = (row, column)
    return edges, (len(rows), len(columns))


def benchmarks_areas(model, task, scored, value):
    """CPR and CMD as the benchmark's code works them out, from names, a matrix of scores and `value` of a circuit."""
    scored = ungrouped(without_ports(scored))
    graph = scored.graph
    edges, shape = benchmarks_edges(graph.n_layers, graph.n_heads)
    assert set(edges) == set(graph.names())
    nodes = {node.name: row for row, node in enumerate(graph.sources)}
    own = node_scores(scored) if scored.whole_nodes else None
    matrix = torch.full(shape if own is None else (len(nodes),), -math.inf)
    if own is None:
        for name, place in edges.items():
            matrix[place] = float(scored.scores[graph.locate(name)])
    else:
        matrix[:] = torch.tensor(own)
    known = torch.isfinite(matrix)
    empty, everything = value(graph, []), value(graph, list(edges))
    areas = []
    for absolute in (False, True):
        ranking = torch.where(known, matrix.abs() if absolute else matrix, -math.inf).flatten().argsort(descending=True)
        shares = []
        for share in SHARES:
            taken = set(ranking[: int(share * int(known.sum()))].tolist())
            if own is None:
                names = pruned_names(graph, [name for name, (r, c) in edges.items() if r * shape[1] + c in taken])
            else:
                names = [name for name in edges if nodes[name.split("->")[0]] in taken]
            shares.append((value(graph, names) - empty) / (everything - empty))
        heights = [abs(1 - one) for one in shares] if absolute else shares
        areas.append(float(np.trapezoid(heights, SHARES)))
    return areas


def measured_by_the_oracle(model, task):
    """Of a circuit by the names of its edges, the mean logit difference, off the source model alone."""
    experiment = Experiment(model, task, metric="logit_diff", ports=False)
    prompts = task.prompts

    def value(graph, names):
        logits = oracle_logits(experiment, Circuit.from_names(graph, names)).detach()
        every = torch.arange(len(prompts.answers))[:, None]
        return float((logits[every, prompts.answers] - logits[every, prompts.wrong]).mean())

    return value


def measured_by_circuit_runs(model, task):
    graph = model.graph(ports=False, ungroup=True)
    experiment = Experiment(model, task, metric="logit_diff", graph=graph)
    return lambda graph, names: -experiment.value(Circuit.from_names(graph, names))


EVERY = [(name, level) for name, one in METHODS.items() for level in ("edge", "node") if one.scorers[level] is not None]
FAST = (("edge-attribution-ig", "edge"), ("edge-attribution-ig", "node"), ("head-importance", "edge"))


@pytest.mark.parametrize(("method", "level"), tiny.slow_unless(lambda *one: one in FAST, EVERY))
def test_areas_of_every_method_are_those_of_the_benchmarks_definition(method, level):
    """On a GPT-2 off the source model alone; on a Llama, whose shared heads come apart, by circuit runs."""
    for family, measured in (("gpt2", measured_by_the_oracle), ("llama", measured_by_circuit_runs)):
        model, task = tiny.FAMILIES[family](dtype=torch.float64, layers=2, heads=2), one_answer_each()
        if family == "llama":
            model = tiny.llama(dtype=torch.float64, layers=2, heads=2, kv_heads=1)
        graph = model.graph(ports=False, ungroup=True)
        options = {"steps": 3, "target": 5, "members": "edge-attribution,exact"}
        options = {name: value for name, value in options.items() if name in METHODS[method].options}
        experiment = Experiment(model, task, metric="logit_diff", graph=graph)
        scored = METHODS[method].scores(experiment, level=level, **{**METHODS[method].options, **options}).circuit
        found = mib_scores(model, task, scored)
        assert [found.cpr, found.cmd] == pytest.approx(
            benchmarks_areas(model, task, scored, measured(model, task)), abs=1e-6
        )
        assert not np.allclose(scored.scores, 0)


def one_answer_each():
    """Three pairs with one answer and one wrong answer each."""
    task = tiny.task(rows=3)
    answers, wrong = torch.tensor([[3], [5], [7]]), torch.tensor([[4], [6], [8]])
    places = torch.tensor([0, 1, 2])
    last = task.prompts.mask.sum(dim=1) - 1
    prompts = replace(task.prompts, scored_rows=places, scored_positions=last, answers=answers, wrong=wrong)
    return replace(task, prompts=prompts)


def test_prompts_in_pieces_come_to_the_same_and_go_on_where_they_were(monkeypatch):
    model, task = tiny.gpt2(dtype=torch.float64, layers=1, heads=2), one_answer_each()
    scored = known_scores(model.graph(ports=False))
    whole = mib_scores(model, task, scored)
    assert whole.accuracy in (0, 1 / 3, 2 / 3, 1)
    assert pieces_of(model, task, scored) == [(0, 3)]
    monkeypatch.setattr("edgewise.evaluation.mib.PIECE_BYTES", memory_of(model, task, scored.graph).held * 2 // 3)
    assert pieces_of(model, task, scored) == [(0, 2), (2, 3)]
    told, done = [], []
    found = mib_scores(model, task, scored, measured=told.append, progress=lambda *step: done.append(step))
    assert done[-1][0] == done[-1][1] == len(done) == len(told)
    for name in ("cpr", "cmd", "full", "ablated", "accuracy"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), abs=1e-9)
    for stop in (1, len(told) // 2 - 1, len(told) // 2, len(told) - 1, len(told)):
        again = []
        assert mib_scores(model, task, scored, earlier=told[:stop], measured=again.append) == found
        assert again == told[stop:], "what was measured before is not measured again"
    with pytest.raises(EdgewiseError, match="of other circuits, or of other prompts"):
        mib_scores(model, task, scored, earlier=told * 2)


def test_greedy_circuits_grow_from_the_logits():
    model, task = tiny.gpt2(dtype=torch.float64, layers=1, heads=2), one_answer_each()
    graph = model.graph(ports=False)
    scored = known_scores(graph)
    found = mib_scores(model, task, scored, select="greedy")
    score = {name: scored.scores[graph.locate(name)] for name in graph.names()}
    experiment = Experiment(model, task, metric="logit_diff", graph=graph)
    full, ablated = experiment.full(), experiment.ablated()
    for point in found.signed:
        inside, names = {"logits"}, []
        for _ in range(point.asked):
            reached = [name for name in score if name not in names and re.split(r"->|<", name)[1] in inside]
            names.append(max(reached, key=score.get))
            inside.add(names[-1].split("->")[0])
        left = pruned_names(graph, names)
        assert point.n_edges == len(left)
        value = experiment.value(Circuit.from_names(graph, left))
        assert point.faithfulness == pytest.approx((value - ablated) / (full - ablated), abs=1e-9)
    with pytest.raises(EdgewiseError, match="greedy selection grows a circuit of edges, and these are scores of nodes"):
        mib_scores(model, task, of_nodes(graph, np.ones(4, dtype=bool), np.arange(4.0)), select="greedy")
    with pytest.raises(EdgewiseError, match="unknown way to choose edges 'best'"):
        mib_scores(model, task, scored, select="best")


def flat(value, last=None):
    every = [AtShare(share, 0, 0, value) for share in SHARES]
    return (*every[:-1], AtShare(1.0, 0, 0, value if last is None else last))


def test_a_circuit_that_is_always_faithful_and_one_that_never_is():
    """field.md D: f = 1 gives 0.999 and 0; f = 0 up to half the edges and 1 at all of them is the random row's 0.25."""
    always = scores_from("logit_diff", 100, flat(1.0), flat(1.0))
    assert always.cpr == pytest.approx(0.999)
    assert always.cmd == 0
    assert always.cpr_log == pytest.approx(1)
    never = scores_from("logit_diff", 100, flat(0.0, 1.0), flat(0.0, 1.0))
    assert never.cpr == pytest.approx(0.25)
    assert never.cmd == pytest.approx(0.999 - 0.25)
    assert area([1.0, 3.0], [0.0, 2.0]) == 4
    assert never.average == pytest.approx(0.1)


def test_port_edges_are_left_aside_and_shared_heads_asked_one_by_one():
    model, task = tiny.llama(dtype=torch.float64), tiny.task(rows=4)
    experiment = Experiment(model, task, metric="logit_diff")
    scored = edge_attribution(experiment).circuit
    found = mib_scores(model, task, scored)
    graph = model.graph(ports=False, ungroup=True)
    assert found.n_graph_edges == graph.n_edges
    assert found == mib_scores(model, task, ungrouped(without_ports(scored)))
    plain = without_ports(scored)
    wide = ungrouped(plain)
    assert wide.graph.shape == graph.shape
    name, group = "input->a1.h3<k>", "input->a1.g1<k>"
    assert wide.scores[wide.graph.locate(name)] == plain.scores[plain.graph.locate(group)] != 0
    half = without_ports(Circuit.full(scored.graph).remove("a1.h0<q>->a1.h0"))
    assert not [one for one in half.names() if one.endswith("a1.h0<q>")], "an edge into a shut port does nothing"


def test_auroc_by_the_benchmarks_own_rule():
    graph = Graph(2, 2)
    scored = known_scores(graph)
    strongest = sorted(Circuit.full(graph).names(), key=lambda name: -abs(scored.scores[graph.locate(name)]))
    reference = Circuit.from_names(graph, strongest[: graph.n_edges // 3])
    found = mib_auroc(scored, reference)
    assert len(found.true_positive_rates) == len(SHARES)
    assert found.true_positive_rates[-1] == found.false_positive_rates[-1] == 1
    x, y = np.array(found.false_positive_rates) / found.false_positive_rates[-1], found.true_positive_rates
    assert found.auroc == pytest.approx(float(np.trapezoid(y, x)))
    reversed_scores = Circuit.full(graph).with_scores(
        np.where(graph.edges, 1 / np.where(scored.scores, scored.scores, 1), 0)
    )
    assert found.auroc > 0.6 > mib_auroc(reversed_scores, reference).auroc
    for useless in (Circuit.empty(graph), Circuit.full(graph)):
        with pytest.raises(EdgewiseError, match="tells nothing apart"):
            mib_auroc(scored, useless)


def test_what_cannot_be_measured_is_refused():
    model, task = tiny.gpt2(), tiny.task(rows=4)
    with pytest.raises(EdgewiseError, match="no scores"):
        mib_scores(model, task, Circuit.full(model.graph(ports=False)))
    reverse = load_model("tracr-reverse")
    scored = known_scores(reverse.graph(split_embedding=True))
    with pytest.raises(EdgewiseError, match="one embedding"):
        mib_scores(reverse, load_task("tracr-reverse", reverse), scored)
    with pytest.raises(EdgewiseError, match="over another graph"):
        mib_scores(model, task, known_scores(Graph(5, 2)))


# -- files -------------------------------------------------------------------------------------------------------------


def record(task="ioi", model="gpt2", scored=True):
    settings = {"task": {"task": task}, "model": {"name": model}}
    return {"settings": settings, "result": {"scoring": {"rule": "top"} if scored else None}}


def test_a_submission_is_a_folder_per_task_and_model(tmp_path):
    graph = Graph(2, 2, ports=True, d_model=16)
    scored = known_scores(graph)
    cells = [mib_cell(record(), scored), mib_cell(record(model="Qwen/Qwen2.5-0.5B"), scored)]
    assert [cell.name for cell in cells] == ["ioi_gpt2", "ioi_qwen2.5"]
    assert all(cell.official and cell.scored for cell in cells)
    written = export_mib(cells, tmp_path / "submission")
    assert sorted(str(path.relative_to(written)) for path in written.rglob("*.*") if path.is_file()) == [
        "ioi_gpt2/importances.json",
        "ioi_qwen2.5/importances.json",
    ]
    content = json.loads((written / "ioi_gpt2" / "importances.json").read_text())
    assert set(content) == {"cfg", "nodes", "edges"}, "exactly EAP-IG's keys"
    assert content["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 16}
    plain = without_ports(scored)
    assert len(content["edges"]) == plain.n_edges
    for name, edge in content["edges"].items():
        assert edge["score"] == plain.scores[plain.graph.locate(name)]
    assert load_circuit(written / "ioi_gpt2" / "importances.json") == plain


def test_the_pt_form_holds_what_eap_ig_reads(tmp_path):
    graph = Graph(2, 2, d_model=16)
    scored = known_scores(graph).connected().remove("input->logits")
    (path := tmp_path / "circuit.pt").write_bytes(pt_bytes(scored))
    content = torch.load(path, weights_only=True)
    assert list(content) == ["cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph"]
    assert content["src_nodes"] == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
    assert content["dst_nodes"][:7] == [f"a0.h{head}<{kind}>" for kind in "qkv" for head in (0, 1)] + ["m0"]
    assert content["dst_nodes"][-1] == "logits"
    assert content["edges_scores"].shape == content["edges_in_graph"].shape == (7, 15)
    back = load_pt(path)
    assert back == scored
    assert np.allclose(back.scores, scored.scores)


def test_a_circuit_without_scores_goes_as_members_and_others():
    graph = Graph(2, 2, ports=True)
    found = Circuit.from_names(graph, ["input->m0", "m0->logits", "input->a1.h0<q>"])
    cell = mib_cell(record(scored=False), found)
    assert not cell.scored
    assert set(np.unique(cell.circuit.scores)) == {0.0, 1.0}
    assert cell.circuit.names() == ["input->m0", "m0->logits"], "the query's port edge is absent, so nothing enters it"
    own = mib_cell(record(task="prompts/mine.jsonl", model="somewhere/my-model"), known_scores(graph))
    assert (own.name, own.official) == ("mine_my-model", False)
    assert mib_cell(record(), known_scores(graph), "mcqa_gpt2").name == "mcqa_gpt2"


def test_submissions_that_cannot_be_are_refused_and_leave_nothing(tmp_path):
    cell = mib_cell(record(), known_scores(Graph(2, 2)))
    with pytest.raises(EdgewiseError, match="two runs would go into the folder 'ioi_gpt2'"):
        export_mib([cell, cell], tmp_path / "out")
    with pytest.raises(EdgewiseError, match="json or pt, not 'npz'"):
        export_mib([cell], tmp_path / "out", "npz")
    with pytest.raises(EdgewiseError, match="no name for a folder"):
        export_mib([mib_cell(record(), known_scores(Graph(2, 2)), "../up")], tmp_path / "out")
    for graph in (Graph(2, 2, mlps=False), Graph(2, 2, split_embedding=True)):
        with pytest.raises(EdgewiseError, match="one embedding and an MLP in every layer"):
            mib_cell(record(), known_scores(graph))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "broken.pt").write_bytes(b"nothing of the kind")
    save_circuit(known_scores(Graph(2, 2)), tmp_path / "circuit.json")
    for path in (tmp_path / "broken.pt", tmp_path / "circuit.json", tmp_path / "none.pt"):
        with pytest.raises(EdgewiseError, match=r"no EAP-IG circuit|no such file"):
            load_pt(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"neurons_in_graph": torch.ones(4, 8)}, r"'neurons_in_graph' should be a tensor \[4, 0\]"),
        ({"neurons_scores": torch.ones(4, 8)}, r"'neurons_scores' should be a tensor \[4, 0\]"),
        ({"cfg": {"n_layers": 10**5, "n_heads": 2, "parallel_attn_mlp": False}}, "more senders and inputs|too short"),
        ({"cfg": {"n_layers": 300, "n_heads": 2, "parallel_attn_mlp": False}}, "too short for the"),
        ({"cfg": {"n_layers": -1, "n_heads": 2, "parallel_attn_mlp": False}}, "at least one layer"),
        ({"cfg": {"n_layers": "1", "n_heads": 2, "parallel_attn_mlp": False}}, "'n_layers' should be a whole number"),
        ({"cfg": [1]}, "cfg"),
        ({"cfg": None}, "cfg"),
        ({"edges_scores": torch.full((4, 8), math.nan)}, "the score of 'input->a0.h0<q>' is nan"),
        ({"edges_scores": torch.zeros(1).expand(4, 9)}, r"'edges_scores' should be a tensor \[4, 8\]"),
        ({"edges_in_graph": [True]}, "'edges_in_graph' should be a tensor"),
        ({"nodes_in_graph": torch.ones(3)}, r"'nodes_in_graph' should be a tensor \[4\]"),
        ({"src_nodes": 3}, "not iterable"),
    ],
)
def test_a_pt_file_that_is_none_is_refused(tmp_path, change, why):
    (path := tmp_path / "circuit.pt").write_bytes(pt_bytes(known_scores(Graph(1, 2))))
    assert load_pt(path).n_edges == Graph(1, 2).n_edges
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(EdgewiseError, match=f"circuit.pt' is no EAP-IG circuit: .*({why})"):
        load_pt(path)


def test_a_node_that_a_pt_file_leaves_out_takes_its_edges_along(tmp_path):
    (path := tmp_path / "circuit.pt").write_bytes(pt_bytes(known_scores(Graph(1, 2))))
    torch.save({**torch.load(path, weights_only=True), "nodes_in_graph": torch.tensor([1, 0, 1, 1]).bool()}, path)
    assert load_pt(path).names() == [name for name in Graph(1, 2).names() if "a0.h0" not in name]
