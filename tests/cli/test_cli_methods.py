"""Every method finds a circuit on every task from the shell, and keeps its scores."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import tiny
from safetensors import safe_open
from word_models import write_prompts

from edgewise import EdgewiseError, discover, load_circuit, load_model, load_task
from edgewise.discovery import METHODS, at_most, edge_attribution_ig, exact_effects, greedy, top
from edgewise.patching import Experiment
from edgewise.runs.scores import load_scores, save_scores
from edgewise.tasks import TASKS

FEW_STEPS = {
    "subnetwork-probing": ["--steps", "5", "--learning-rate", "0.1"],
    "edge-pruning": ["--steps", "5"],
    "uniform-gradient-sampling": ["--steps", "5"],
}
HAND_BUILT = ("tracr-reverse", "tracr-xproportion", "or-gate")


def in_turn(method, task):
    """Every method on the textbook task, ACDC on every task, and every task with one method more."""
    return task == "induction" or method in ("acdc", list(METHODS)[1 + list(TASKS).index(task)])


# The OR gate has one prompt, and prompts cannot be drawn anew from that.
EVERY = [pair for pair in product(METHODS, TASKS) if pair != ("bootstrapped-attribution", "or-gate")]


@pytest.mark.parametrize(("method", "task"), tiny.slow_unless(in_turn, EVERY))
def test_every_method_works_on_every_task(shell, method, task):
    few = [] if task in HAND_BUILT else ["--examples", "2"]
    # A wanted size is several searches to ACDC; tests of its own ask for one.
    size = ["--threshold", "0.1"] if method == "acdc" else ["--edges", "50"]
    found = shell.json("discover", task, "--method", method, *size, *few, *FEW_STEPS.get(method, []))
    assert found["settings"]["method"] == method
    if method != "acdc":
        assert found["n_edges"] <= found["settings"]["edges"] == 50
    folder = shell.folder / found["run_dir"]
    record = json.loads((folder / "run.json").read_text())
    circuit = load_circuit(folder / "circuit.json")
    assert circuit.names() == found["edges"]
    if method == "acdc" or task == "induction":  # so every method and every task is measured again
        measured = shell.json("evaluate", found["run_dir"], "--quick")
        assert measured["metric"] == tiny.near(found["metric"])
    if method == "acdc":
        assert record["result"]["scoring"] is None
        assert not (folder / "scores.safetensors").exists()
        return
    scoring = record["result"]["scoring"]
    assert scoring["taken"] >= scoring["dangling"] >= 0
    scores = load_scores(folder / "scores.safetensors")
    assert scores == circuit
    assert np.array_equal(scores.scores, circuit.scores)
    with safe_open(folder / "scores.safetensors", "np") as file:
        header = json.loads(file.metadata()["edgewise"])
        names = [header["sources"], header["inputs"]]
        assert file.get_tensor("scores").shape == tuple(map(len, names))
    assert names[0][-1] == circuit.graph.sources[-1].name


def test_scores_of_a_run_are_the_methods(shell):
    found = shell.json(
        *("discover", "induction", "--method", "edge-attribution-ig", "--path", "activations", "--steps", "2"),
        *("--edges", "9"),
    )
    model = load_model("tiny-induction")
    experiment = Experiment(model, load_task("induction", model))
    wanted = edge_attribution_ig(experiment, path="activations", steps=2).circuit
    scores = load_scores(shell.folder / found["run_dir"] / "scores.safetensors")
    assert np.allclose(scores.scores, wanted.scores, atol=1e-5 * np.abs(wanted.scores).max())
    assert found["settings"]["method_options"] == {"path": "activations", "steps": 2}
    assert at_most(wanted, 9).circuit.names() == found["edges"]


@pytest.mark.slow
def test_the_textbook_circuit_is_found_by_exact_patching_and_by_integrated_gradients(shell):
    wanted = set(shell.json("discover", "induction")["edges"])
    for method in ("exact", "edge-attribution-ig"):
        assert set(shell.json("discover", "induction", "--method", method, "--edges", "9")["edges"]) == wanted


def test_a_threshold_is_in_the_metrics_units(shell):
    found = shell.json("discover", "induction", "--method", "exact", "--threshold", "0.5", "--examples", "4")
    model = load_model("tiny-induction")
    exact = exact_effects(Experiment(model, load_task("induction", model, examples=4))).circuit
    rows = [exact.graph.locate(name) for name in found["edges"]]
    assert all(exact.scores[row, column] >= 0.5 for row, column in rows if row is not None)
    assert found["settings"]["threshold"] >= 0.5


def test_a_share_of_the_graph_and_other_rules(shell):
    ioi = ("discover", "ioi", "--examples", "8", "--method", "edge-attribution")
    few = shell.json(*ioi, "--share", "0.05")
    assert few["settings"]["edges"] == int(0.05 * 527)
    assert 0 < few["n_edges"] <= int(0.05 * 527)
    model = load_model("tiny-ioi")
    scored = edge_attribution_ig(Experiment(model, load_task("ioi", model, examples=8))).circuit
    for name, rule in (("top", top), ("greedy", greedy)):
        found = shell.json(*ioi, "--edges", "40", "--select", name)
        assert found["edges"] == rule(scored, 40).circuit.names()
        record = json.loads((shell.folder / found["run_dir"] / "run.json").read_text())
        assert (record["result"]["scoring"]["rule"], record["result"]["scoring"]["taken"]) == (name, 40)
    assert shell.json("discover", "induction", "--share", "0.1")["n_edges"] <= 10


def test_little_memory_gives_the_same_scores(shell):
    free, bound = (
        shell.json("discover", "ioi", "--examples", "8", "--method", "edge-attribution", "--edges", "40", *limit)
        for limit in ([], ["--max-memory", "4MB"])
    )
    scores = [load_scores(shell.folder / one["run_dir"] / "scores.safetensors").scores for one in (free, bound)]
    assert np.allclose(*scores, rtol=0, atol=1e-5 * np.abs(scores[0]).max())


def test_what_was_done_is_said(shell):
    out = shell.works("discover", "induction", "--method", "edge-attribution", "--edges", "9").out
    assert "scored by edge-attribution, gradient at inputs, passes 5 in " in out
    assert "5 edges taken, 0 of them dropped because they lay on no path" in out
    assert "highest scores" in out
    assert "a1.h0->logits" in out


def test_subnetwork_probing_rounds_by_itself_and_says_its_loss(shell):
    found = shell.json(
        *("discover", "greater-than", "--method", "subnetwork-probing", "--steps", "80", "--learning-rate", "0.1"),
        *("--lambda", "1", "--examples", "4"),
    )
    assert 1 < found["n_edges"] < 40
    assert found["metric"] < 0.1 * found["metric_ablated"]
    record = json.loads((shell.folder / found["run_dir"] / "run.json").read_text())
    assert {"regularisation", "steps", "loss_metric", "loss_regulariser"} <= set(record["result"]["scoring"])


def test_the_seed_is_the_masks_too(shell):
    options = ["--method", "edge-pruning", "--edges", "9", "--steps", "10"]
    found = [shell.json("discover", "or-gate", *options, "--seed", seed) for seed in ("3", "3", "4")]
    scores = [load_scores(shell.folder / one["run_dir"] / "scores.safetensors").scores for one in found]
    assert found[0]["settings"]["method_options"]["seed"] == 3
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_methods_are_listed_with_cost_paper_and_use(shell):
    listed = shell.works("methods", "--json").json["methods"]
    assert list(listed) == list(METHODS)
    for about in listed.values():
        assert all(about[key] for key in ("summary", "cost", "paper", "when"))
    out = shell.works("methods").out
    for name in METHODS:
        assert name in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "exakt", "--edges", "5"], "unknown method 'exakt'; did you mean 'exact'"),
        (["--method", "exact", "--edges", "5", "--steps", "3"], "method 'exact' has no option 'steps' (it takes none)"),
        (
            ["--method", "edge-attribution-ig", "--edges", "5", "--lambda", "3"],
            "has no option 'regularisation' (it takes",
        ),
        (["--method", "edge-attribution-ig", "--edges", "5", "--path", "up"], "unknown path 'up'"),
        (
            ["--method", "edge-attribution-ig", "--edges", "5", "--steps", "0"],
            "steps of method 'edge-attribution-ig' should be at least 1, not 0",
        ),
        (["--method", "edge-pruning", "--threshold", "1"], "needs --edges: the size that its masks are pressed to"),
        (["--method", "exact", "--edges", "9999", "--select", "top"], "cannot choose 9,999 edges: the graph has"),
        (["--method", "exact", "--edges", "9", "--select", "best"], "unknown selection 'best'"),
        (["--edges", "9", "--select", "top"], "selection 'top' is for methods that score edges"),
        (["--method", "exact", "--share", "1.5"], "--share should be above 0 and at most 1, not 1.5"),
        (["--edges", "9", "--share", "0.5"], "a number of edges (or a share of them), not both"),
        (["--method", "edge-pruning", "--edges", "9", "--absolute"], "has no use for --absolute"),
        (["--method", "head-importance", "--edges", "9", "--select", "top"], "would split what method"),
        (["--method", "exact", "--edges", "9", "--engine", "plain"], "are ACDC's; method 'exact' has none"),
        (
            ["--method", "edge-attribution-ig", "--path", "activations", "--steps", "1", "--edges", "9"],
            "more than 1 step",
        ),
        (
            ["--method", "subnetwork-probing", "--lambda", "-1"],
            "(--lambda) of method 'subnetwork-probing' should be at least 0, not -1.0",
        ),
        (["--method", "head-importance"], "needs --edges, or --threshold in its own units"),
        (["--method", "head-importance", "--edges", "5", "--method-variant", "x"], "unknown variant 'x'"),
        (["--method", "edge-attribution", "--metric", "frac_correct", "--edges", "5"], "has no gradient"),
        (
            ["--method", "subnetwork-probing", "--learning-rate", "-1"],
            "learning_rate of method 'subnetwork-probing' should be at least 0, not -1.0",
        ),
    ],
)
def test_what_a_method_cannot_do_is_said_in_a_sentence(shell, options, message):
    assert message in shell.refuses("discover", "ioi", "--examples", "4", *options)


def test_a_users_own_prompts_and_model_work_with_every_scoring_method(shell, models):
    path = write_prompts(shell.folder / "mine.jsonl")
    for method in ("exact", "edge-attribution", "clean-corrupted"):
        options = ["--metric", "logit_diff"] if method == "edge-attribution" else []
        found = shell.json("discover", path, "--model", models / "llama", "--method", method, "--edges", "20", *options)
        assert 0 < found["n_edges"] <= 20


def test_a_score_file_of_another_graph_or_of_something_else_is_refused(tmp_path):
    model = load_model("tiny-induction")
    found = discover(model, load_task("induction", model), method="exact", edges=9)
    save_scores(tmp_path / "scores.safetensors", found.circuit)
    assert load_scores(tmp_path / "scores.safetensors", found.circuit.graph) == found.circuit
    with pytest.raises(EdgewiseError, match="another graph"):
        load_scores(tmp_path / "scores.safetensors", load_model("tiny-ioi").graph())
    (tmp_path / "scores.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(EdgewiseError, match="are no file of scores"):
        load_scores(tmp_path / "scores.safetensors")
    with pytest.raises(EdgewiseError, match="there is no such file"):
        load_scores(tmp_path / "none.safetensors")


def test_a_papers_name_for_a_method_is_recorded_in_full(shell):
    found = shell.json("discover", "tracr-reverse", "--method", "eap", "--edges", "15")
    assert found["settings"]["method"] == "edge-attribution"
    assert found["run_dir"].endswith("tracr-reverse-edge-attribution")
    assert "'eap'" in shell.refuses("discover", "tracr-reverse", "--method", "eaap", "--edges", "15")
