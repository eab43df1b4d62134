"""What a page is given: the same numbers as the run's own files and a second way of counting say."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers

import edgewise as ew
from edgewise.discovery import by_threshold
from edgewise.errors import EdgewiseError
from edgewise.evaluation import roc_point
from edgewise.evaluation.roc import roc_by_group
from edgewise.graph import Circuit, Graph
from edgewise.graph.groups import read_groups
from edgewise.reports.page import Source, make_page, measure, read_sources, write_page
from edgewise.reports.page.data import page_data
from edgewise.reports.page.html import as_json
from edgewise.reports.page.listed import MOST_EDGES, MOST_IN_CIRCUIT
from edgewise.tasks import GivenCircuit, Task


def data_in(page: str) -> dict[str, Any]:
    """What a page was given, read as a browser reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def page_of(folder: Path) -> dict[str, Any]:
    return data_in(make_page(read_sources([folder]), [{}]))


def edge_names(data: dict[str, Any]) -> list[str]:
    nodes = [node["id"] for node in data["nodes"]]
    names = []
    for sender, reader, kind in zip(*(data["edges"][key] for key in ("from", "to", "kind")), strict=True):
        place = nodes[reader] + (f"<{kind}>" if kind in "qkv" else "")
        names.append(f"{place}->{nodes[reader]}" if sender < 0 else f"{nodes[sender]}->{place}")
    return names


def random_task() -> Task:
    return replace(tiny.task(), settings={"task": "random", "examples": len(tiny.task())})


@pytest.fixture(scope="module")
def ioi(tmp_path_factory) -> tuple[ew.Run, Path]:
    model = ew.load_model("tiny-ioi")
    run = ew.discover(model, ew.load_task("ioi", model), threshold=0.05)
    return run, run.save(tmp_path_factory.mktemp("runs") / "ioi")


@pytest.fixture(scope="module")
def reverse(tmp_path_factory) -> tuple[ew.Run, Path]:
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    run = ew.discover(model, task, method="edge-attribution", edges=12)
    return run, run.save(tmp_path_factory.mktemp("runs") / "reverse")


# --- what is sent -------------------------------------------------------------------------------------------------


def test_the_page_has_what_every_pass_decided_about_each_edge(tmp_path):
    run = ew.discover(tiny.gpt2(layers=2), random_task(), threshold=0.002, passes=2, within=90)
    data = page_of(run.save(tmp_path / "run"))
    (sent,) = data["runs"]
    names = edge_names(data)
    tested = sent["tested"]
    assert len(run.record["result"]["passes"]) == len(sent["slider"]["passes"]) == 2
    told = sorted(zip(tested["at"], (names[edge] for edge in tested["edge"]), tested["kept"], strict=True))
    assert told == [(at, step.edge, step.kept) for at, step in enumerate(run.trace, start=1)]
    began_without = sent["slider"]["gone"].count(0)
    assert len(names) - began_without == sent["shortlist"] == run.record["shortlist"]["n_edges"]


def test_the_page_has_the_runs_circuit_and_every_decision(ioi):
    run, folder = ioi
    data = page_of(folder)
    names = edge_names(data)
    (sent,) = data["runs"]
    assert {names[at] for at in sent["in"]} == set(run.circuit.names())
    tested = sent["tested"]
    assert len(tested["edge"]) == len(run.trace)
    by_name = {names[edge]: place for place, edge in enumerate(tested["edge"])}
    for number, step in enumerate(run.trace, start=1):
        place = by_name[step.edge]
        assert tested["at"][place] == number
        assert tested["kept"][place] is step.kept
        assert tested["after"][place] == pytest.approx(step.after, rel=1e-5, abs=1e-12)
    assert sent["slider"]["present"][-1] == run.circuit.n_edges
    assert sent["result"]["of"] == data["graph"]["edges"] == len(names) == 527


def test_a_known_circuit_tells_found_missed_and_extra_apart(reverse):
    run, folder = reverse
    known = ew.load_task("tracr-reverse", ew.load_model("tracr-reverse")).known_circuit
    data = page_of(folder)
    truth = data["runs"][0]["truth"]
    assert {edge_names(data)[at] for at in truth["in"]} == set(known.circuit.names())
    point = roc_point(run.circuit, known.circuit)
    assert truth["point"]["tpr"] == pytest.approx(point.true_positive_rate, rel=1e-5)
    assert truth["point"]["precision"] == pytest.approx(point.precision, rel=1e-5)
    assert 0 < truth["found"] < known.n_edges  # something is missed, or the test would say nothing
    on_the_curve = [pytest.approx([point.false_positive_rate, point.true_positive_rate], abs=1e-3)]
    assert any(place in on_the_curve for place in truth["curve"])
    assert truth["curve"][-1][1] <= 1


def test_groups_and_a_known_circuit_of_ones_own_stand_for_the_built_in_ones(reverse):
    run, folder = reverse
    built_in = ew.load_task("tracr-reverse", ew.load_model("tracr-reverse")).known_circuit
    own = {"start": ["tok", "a0.h0"], "end": ["a3.h0", "logits", "m3"]}
    truth = built_in.circuit.remove("m1->m2")
    (source,) = read_sources([folder], known=GivenCircuit("mine.json", truth), groups=own)
    data = data_in(make_page([source], [{}]))
    (sent,) = data["runs"]
    assert data["groups"] == ["start", "end"]
    placed = {node["id"]: data["groups"][node["group"]] for node in data["nodes"] if node["group"] is not None}
    assert placed == {node: name for name, members in own.items() for node in members}
    assert (sent["truth"]["source"], sent["truth"]["given"], sent["truth"]["edges"]) == ("mine.json", True, 14)
    assert {edge_names(data)[at] for at in sent["truth"]["in"]} == set(truth.names())
    points = roc_by_group(run.circuit, truth, read_groups(own))
    there = set(run.circuit.nodes())
    for group in sent["groups"]:
        assert group["found"] == [node for node in own[group["name"]] if node in there]
        assert group["point"]["tpr"] == pytest.approx(points[group["name"]].true_positive_rate, rel=1e-5)
        assert group["point"]["precision"] == pytest.approx(points[group["name"]].precision, rel=1e-5)
    usual = page_of(folder)["runs"][0]
    assert (usual["truth"]["source"], usual["truth"]["given"]) == ("Lindner et al. 2023", False)
    assert [group["name"] for group in usual["groups"]] == list(built_in.groups)
    with pytest.raises(EdgewiseError, match=r"'other\.json' is over another graph"):
        read_sources([folder], known=GivenCircuit("other.json", Circuit.full(Graph(2, 2))))
    with pytest.raises(EdgewiseError, match="has no node 'm9'"):
        read_sources([folder], groups={"x": ["m9"]})


def test_a_run_is_told_groups_where_nobody_knows_a_circuit(ioi, tmp_path):
    run, _ = ioi
    page = run.report(tmp_path / "page.html", groups={"late": ["a3.h0", "a3.h3"]})
    (sent,) = data_in(page.read_text())["runs"]
    found = [node for node in ("a3.h0", "a3.h3") if node in run.circuit.nodes()]
    assert sent["truth"] is None
    assert sent["groups"] == [{"name": "late", "members": ["a3.h0", "a3.h3"], "found": found, "point": None}]
    assert page_of(run.save(tmp_path / "run"))["groups"] == []


def test_the_slider_of_a_scored_run_stops_at_its_circuit(reverse):
    run, folder = reverse
    (sent,) = page_of(folder)["runs"]
    slider = sent["slider"]
    inside = {at for at, stop in enumerate(slider["enter"]) if 0 <= stop <= slider["found"]}
    assert inside == set(sent["in"])
    assert slider["present"][slider["found"]] == run.circuit.n_edges
    assert slider["present"] == sorted(slider["present"])


def test_a_large_graph_sends_the_circuit_and_the_strongest_others(tmp_path):
    folder = write_scored_run(tmp_path / "run", Graph(12, 12, ports=True), edges=200)
    (source,) = read_sources([folder])
    data = page_of(folder)
    assert len(data["runs"][0]["in"]) == source.circuit.n_edges
    assert source.circuit.n_edges < len(edge_names(data)) <= MOST_EDGES
    assert data["runs"][0]["sent"] is True


def test_a_circuit_too_large_for_a_page_sends_its_strongest_edges_and_says_so(tmp_path):
    folder = write_scored_run(tmp_path / "run", Graph(12, 12, ports=True), edges=9000)
    data = page_of(folder)
    assert data["runs"][0]["sent"] is False
    assert len(edge_names(data)) == MOST_IN_CIRCUIT
    senders = data["edges"]["from"]
    scores = [score for sender, score in zip(senders, data["runs"][0]["scores"], strict=True) if sender >= 0]
    # Above this lie the 9,000 edges that were taken; a few weak ones of them are not sent.
    assert min(scores) > 1 - 9000 / 32491 + 0.05


def test_the_same_run_gives_the_same_page_byte_for_byte(ioi):
    _, folder = ioi
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model)
    sources = read_sources([folder])
    one, again = (make_page(sources, [measure(sources[0], model, task)]) for _ in range(2))
    assert one == again
    assert len(one) < 3_000_000


def write_scored_run(folder: Path, graph: Graph, edges: int) -> Path:
    """A run folder of a method that scores edges, by hand: scores spread evenly from 0 to 1 over the graph's edges."""
    count = int(graph.edges.sum())
    scores = np.zeros(graph.edges.shape)
    scores[graph.edges] = np.random.default_rng(0).permutation(count) / count
    scored = Circuit.full(graph).with_scores(scores, np.zeros(len(graph.inputs)))
    circuit = by_threshold(scored, 1 - edges / count).circuit
    result = {"n_edges": circuit.n_edges, "n_graph_edges": graph.n_edges, "scoring": {"rule": "threshold"}}
    result.update(metric=0.1, metric_full=0.0, metric_ablated=1.0)
    model = {"name": "m", "dtype": "float32", "fingerprint": ""}
    settings = {"method": "by hand", "ablation": "zero", "metric": "kl_div", "model": model}
    settings["task"] = {"task": "none", "examples": 1}
    folder.mkdir()
    record = {"form": 1, "settings": settings, "result": result, "graph": asdict(graph)}
    (folder / "run.json").write_text(json.dumps(record))
    ew.save_circuit(circuit, folder / "circuit.json")
    (folder / "trace.jsonl").write_text("")
    return folder


# --- what the model says ------------------------------------------------------------------------------------------


def test_attention_patterns_are_those_of_the_model_itself(ioi):
    _, folder = ioi
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model)
    (source,) = read_sources([folder])
    attention = measure(source, model, task, prompts=3)["attention"]
    judge = transformers.GPT2LMHeadModel.from_pretrained(
        Path(ew.__file__).parent / "models" / "shipped" / "tiny-ioi", attn_implementation="eager"
    )
    rows = [prompt["row"] for prompt in attention["prompts"]]
    assert len(attention["heads"]) == 16
    for side, tokens in (("clean", task.prompts.clean), ("corrupt", task.prompts.corrupt)):
        with torch.no_grad():
            wanted: Any = judge(tokens[rows], output_attentions=True).attentions
        for name, patterns in attention["heads"].items():
            layer, head = (int(part[1:]) for part in name.split("."))
            for place in range(len(rows)):
                sent = np.frombuffer(base64.b64decode(patterns[side][place]), dtype=np.uint8) / 255
                length = len(attention["prompts"][place][side])
                own = wanted[layer][place, head, :length, :length].numpy()[np.tril_indices(length)]
                assert np.abs(sent - own).max() < 0.5 / 255 + 1e-4


def test_shared_heads_have_patterns_of_their_own(tmp_path):
    model, task = tiny.llama(layers=2), random_task()
    run = ew.discover(model, task, threshold=0.001)
    (source,) = read_sources([run.save(tmp_path / "run")])
    attention = measure(source, model, task, prompts=1)["attention"]
    config = model.source.config
    config._attn_implementation = "eager"
    row = attention["prompts"][0]["row"]
    with torch.no_grad():
        wanted: Any = model.source(task.prompts.clean[row][None], output_attentions=True).attentions
    length = len(attention["prompts"][0]["clean"])
    for name, patterns in attention["heads"].items():
        layer, head = (int(part[1:]) for part in name.split("."))
        sent = np.frombuffer(base64.b64decode(patterns["clean"][0]), dtype=np.uint8) / 255
        own = wanted[layer][0, head, :length, :length].numpy()[np.tril_indices(length)]
        assert np.abs(sent - own).max() < 0.5 / 255 + 1e-3


def test_faithfulness_prompt_by_prompt_has_the_runs_metric_as_its_mean(ioi):
    run, folder = ioi
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model)
    (source,) = read_sources([folder])
    values = measure(source, model, task)["values"]["metrics"]
    assert next(iter(values)) == "kl_div"
    assert len(values) > 1
    measured = ew.evaluate(model, task, run.circuit).measured
    for name, by_run in values.items():
        assert len(by_run["circuit"]) == len(task)
        for which, wanted in (("circuit", "circuit"), ("full", "full"), ("ablated", "ablated")):
            assert np.mean(by_run[which]) == pytest.approx(getattr(measured[name], wanted), rel=1e-3, abs=1e-5)


def test_the_curve_of_a_scored_run_is_measured_circuit_by_circuit(reverse):
    run, folder = reverse
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    (source,) = read_sources([folder])
    sizes = measure(source, model, task)["sizes"]
    assert len(sizes) > 3
    for size, metric, threshold in sizes:
        circuit = by_threshold(run.circuit, threshold * (1 - 1e-5)).circuit
        assert circuit.n_edges == size
        assert metric == pytest.approx(ew.evaluate(model, task, circuit).value, rel=1e-4, abs=1e-9)


# --- what is written ----------------------------------------------------------------------------------------------

NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>",
    "%%script%%",
    "&lt;b&gt;",
    "\u2028\u2029\x00\ud800",
    "'\"`${1}",
]


@pytest.mark.parametrize("text", NASTY)
def test_what_users_wrote_cannot_end_the_element_it_stands_in(text):
    written = as_json({text: text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {text: text}
    written.encode("utf-8")


def test_a_folder_named_like_a_script_stays_text(ioi, tmp_path):
    _, folder = ioi
    named = tmp_path / "<script>alert(1)<"
    named.symlink_to(folder)
    page = make_page(read_sources([named]), [{"notes": [NASTY[0]]}])
    assert page.count("<script") == page.count("</script>") == 2
    assert "alert(1)" not in page.split("</title>")[0].replace("&lt;script&gt;alert(1)&lt;", "")
    assert data_in(page)["runs"][0]["notes"] == [NASTY[0]]


def test_nothing_is_overwritten(tmp_path):
    there = tmp_path / "page.html"
    there.write_text("mine")
    with pytest.raises(EdgewiseError, match="nothing is overwritten"):
        write_page(there, "yours")
    assert there.read_text() == "mine"
    with pytest.raises(EdgewiseError, match="is a folder"):
        write_page(tmp_path, "yours")
    with pytest.raises(EdgewiseError, match="there is no folder"):
        write_page(tmp_path / "none" / "page.html", "yours")


def test_an_interrupted_run_shows_what_it_had_decided(ioi, tmp_path):
    run, folder = ioi
    left = tmp_path / "left"
    left.mkdir()
    decided = run.trace[:40]
    dropped = [step.edge for step in decided if not step.kept]
    circuit = Circuit.full(run.circuit.graph).remove(*dropped)
    record = json.loads((folder / "run.json").read_text())
    record.update(finished=False, stopped={"why": "interrupted", "at": "m2", "decided": 40, "of": 527, "tests": 40})
    record["result"].update(n_edges=circuit.n_edges)
    (left / "run.json").write_text(json.dumps(record))
    ew.save_circuit(circuit, left / "circuit.json")
    (left / "trace.jsonl").write_text("".join(json.dumps(asdict(step)) + "\n" for step in decided))
    (sent,) = page_of(left)["runs"]
    assert sent["finished"] is False
    assert sent["stopped"]["at"] == "m2"
    assert sent["slider"]["present"][-1] == circuit.n_edges == 527 - len(dropped)
    assert len(sent["tested"]["edge"]) == 40


def test_runs_over_different_graphs_are_refused(ioi, reverse):
    with pytest.raises(EdgewiseError, match=r"different graphs.*4 layers of 4 heads.*4 layers of 1 head"):
        read_sources([ioi[1], reverse[1]])


def test_runs_of_one_name_are_told_apart(ioi, tmp_path):
    _, folder = ioi
    for parent in ("one", "two"):
        (tmp_path / parent).mkdir()
        (tmp_path / parent / "ioi").mkdir()
        for file in folder.iterdir():
            (tmp_path / parent / "ioi" / file.name).write_bytes(file.read_bytes())
    sources = read_sources([tmp_path / "one" / "ioi", tmp_path / "two" / "ioi"])
    assert [source.label for source in sources] == ["one/ioi", "two/ioi"]
    assert len({source.label for source in read_sources([folder, folder])}) == 2
    data = page_data(sources, [{}, {}], "0")
    assert data["jaccard"] == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1.*not valid JSON"),
        ('{"edge": "m0->logits", "before": 0, "after": "x", "kept": true}', r"line 1.*'after' should be a number"),
        ('{"edge": "m9->logits", "before": 0, "after": 1, "kept": true}', "line 1: .*no sending node 'm9'"),
        ('{"edge": "m0->logits", "before": 0, "after": NaN, "kept": true}', r"line 1.*'after' is 'NaN'"),
        ("[1]", "line 1.*should be an object"),
    ],
)
def test_a_broken_trace_is_refused_by_its_line(ioi, tmp_path, line, message):
    _, folder = ioi
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("run.json", "circuit.json"):
        (broken / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(EdgewiseError, match="there is no such file"):
        read_sources([broken])
    (broken / "trace.jsonl").write_text(line + "\n")
    with pytest.raises(EdgewiseError, match=message):
        read_sources([broken])


def test_a_source_knows_whether_its_method_scored_edges(ioi, reverse):
    (searched,), (scored,) = read_sources([ioi[1]]), read_sources([reverse[1]])
    assert isinstance(searched, Source)
    assert (searched.scored, scored.scored) == (False, True)


WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.mark.skipif(shutil.which("node") is None or not (WEB / "node_modules").is_dir(), reason=tiny.NO_BUNDLER)
def test_the_bundle_in_the_package_is_the_one_that_the_sources_make(tmp_path):
    subprocess.run(["node", "build.mjs", f"--out={tmp_path}"], cwd=WEB, check=True)
    built = Path(ew.__file__).parent / "reports" / "page" / "built"
    names = {"page.js", "page.css", "template.html"}
    assert {file.name for file in tmp_path.iterdir()} == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes(), f"{name}: run `make page`"
