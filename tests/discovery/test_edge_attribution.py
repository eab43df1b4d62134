"""Attribution by gradients is what the gradient of a soft mask on every edge says, and exact where nothing bends."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from oracle import mask_gradients
from tiny import FAMILIES

import edgewise as ew
from edgewise import load_task
from edgewise.discovery import clean_corrupted, edge_attribution, edge_attribution_ig, exact_effects
from edgewise.errors import EdgewiseError
from edgewise.models import load_model
from edgewise.patching import Experiment, gradients

SMOOTH = ["logit_diff", "prob_diff", "nll", "logit_diff_max"]


@pytest.mark.parametrize(
    ("family", "ablation"), tiny.in_turn(list(FAMILIES), [("resample",), ("zero",), ("mean",)], whole=["llama"])
)
def test_scores_are_the_gradients_of_a_mask_on_every_edge(family, ablation):
    model = FAMILIES[family](dtype=torch.float64)
    for number, metric in enumerate(SMOOTH):
        ungroup = number % 2 == 1  # also in a graph that gives every query head its own key and value input
        graph = model.graph(ports=True, ungroup=ungroup)
        experiment = Experiment(model, tiny.task(), ablation=ablation, metric=metric, graph=graph)
        found = edge_attribution(experiment).circuit
        edges, ports = mask_gradients(experiment)
        assert np.abs(edges).max() > 1e-3
        assert np.abs(ports).max() > 1e-3
        # Llama's norm in transformers goes through float32.
        assert np.abs(found.scores - edges).max() < 1e-6
        assert np.abs(found.port_scores - ports).max() < 1e-6


@pytest.mark.parametrize("at_once", [1, 2])
def test_scores_do_not_depend_on_how_many_prompts_go_together(at_once, monkeypatch):
    model, task = tiny.gpt2(dtype=torch.float64), tiny.task(rows=5)
    experiment = Experiment(model, task, metric="logit_diff")
    whole = edge_attribution_ig(experiment).circuit
    each = gradients.SENDER_BYTES
    width = 8 * model.config.d_model * task.prompts.clean.shape[1] * len(experiment.graph.sources)
    monkeypatch.setattr(gradients, "SENDER_BYTES", at_once * width)
    assert each != gradients.SENDER_BYTES
    parted = edge_attribution_ig(experiment).circuit
    assert np.abs(whole.scores).max() > 1e-3
    assert np.abs(whole.scores - parted.scores).max() < 1e-12
    assert np.abs(whole.port_scores - parted.port_scores).max() < 1e-12


def linear_model():
    """Without norms and MLPs, and every head looking everywhere alike, the model is linear in what it carries."""
    model = tiny.plain(dtype=torch.float64, mlps=False)
    with torch.no_grad():
        for block in model.source.blocks:
            for weight in (block.attn.W_Q, block.attn.W_K, block.attn.b_Q, block.attn.b_K):
                weight.zero_()
    return load_model(model.source)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize(
    "method",
    [edge_attribution, edge_attribution_ig, clean_corrupted],
    ids=["eap", "ig-inputs", "clean-corrupted"],
)
def test_on_a_linear_model_attribution_is_exact(method, ablation):
    experiment = Experiment(linear_model(), tiny.task(), ablation=ablation, metric="logit_diff")
    exact, found = exact_effects(experiment).circuit, method(experiment).circuit
    assert np.abs(exact.scores).max() > 0.05
    assert np.abs(found.scores - exact.scores).max() < 1e-5
    assert np.abs(found.port_scores - exact.port_scores).max() < 1e-5


def test_a_path_of_inputs_comes_to_the_exact_effect_of_the_edge_it_moves():
    """One MLP reads the embedding alone: moving the embedding is moving that edge."""
    model = tiny.plain(dtype=torch.float64, layers=1)
    with torch.no_grad():
        model.source.blocks[0].attn.W_O.zero_()
        model.source.blocks[0].attn.b_O.zero_()
    experiment = Experiment(load_model(model.source), tiny.task(), metric="logit_diff")
    exact = exact_effects(experiment).circuit
    row, column = experiment.graph.locate("input->m0")
    errors = [
        abs(edge_attribution_ig(experiment, steps=steps).circuit.scores[row, column] - exact.scores[row, column])
        for steps in (1, 4, 16, 64)
    ]
    assert abs(exact.scores[row, column]) > 0.01
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 0.01 * abs(exact.scores[row, column])


@pytest.mark.parametrize("metric", ["kl_div", "l2"])
def test_a_metric_that_is_flat_at_the_clean_run_is_attributed_along_the_path(metric):
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task(), metric=metric)
    found, path = edge_attribution(experiment), edge_attribution_ig(experiment)
    assert (found.details["gradient_at"], found.details["passes"]) == ("inputs", 5)
    assert np.array_equal(found.circuit.scores, path.circuit.scores)
    assert np.abs(found.circuit.scores).max() > 1e-4
    # One step is the clean run, where there is nothing but rounding to rank.
    with pytest.raises(EdgewiseError, match="take more than 1 step"):
        edge_attribution_ig(experiment, steps=1)


def test_where_the_embedding_does_not_move_activations_do():
    model = load_model("or-gate")
    found = edge_attribution(Experiment(model, load_task("or-gate", model)))
    assert found.details["gradient_at"] == "activations"
    graph = found.circuit.graph
    assert found.circuit.scores[graph.locate("m0->logits")] > 0


def test_a_path_of_activations_averages_over_every_group_moved_in_turn():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64, layers=2), tiny.task(), metric="logit_diff")
    found = edge_attribution_ig(experiment, path="activations", steps=3)
    assert found.details["passes"] == 3 * (1 + 2 * 2)
    total = np.zeros_like(found.circuit.scores)
    # The slow way: for each group and step the mask's gradient, in a model whose ablated run is moved on by hand.
    (rows,) = gradients.rows_of(experiment)
    changes, weights = gradients.changes_when_ablated(experiment, rows), gradients.place_weights(experiment, rows)
    for group in ("embedding", 0, 1, 2, 3):  # attention and MLP of two layers
        for alpha in (1 / 3, 2 / 3, 1.0):
            if group == "embedding":
                clean, ablated = (one.embedding.sum(dim=0) for one in (rows.clean, rows.ablated))
                point = gradients.Changed(embedding=ablated + alpha * (clean - ablated))
            else:
                clean, ablated = (one.codes[group] for one in (rows.clean, rows.ablated))
                point = gradients.Changed(codes={group: ablated + alpha * (clean - ablated)})
            scores = torch.zeros(found.circuit.scores.shape, dtype=torch.float64)
            at = gradients.gradients_at(experiment, rows, weights, point)
            gradients.add_edge_effects(scores, experiment, at, rows, changes)
            total += scores.numpy() / found.details["passes"]
    assert np.abs(total).max() > 1e-3
    assert np.abs(total - found.circuit.scores).max() < 1e-12


def test_clean_and_corrupted_ends_are_averaged():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task(), metric="logit_diff")
    clean = edge_attribution(experiment).circuit.scores
    both = clean_corrupted(experiment).circuit.scores
    swapped = dataclasses.replace(experiment.task.prompts, clean=experiment.task.prompts.corrupt)
    other = Experiment(experiment.decoder, dataclasses.replace(experiment.task, prompts=swapped), metric="logit_diff",
                       ablation="zero")  # fmt: skip
    (rows,), (corrupt,) = gradients.rows_of(experiment), gradients.rows_of(other)
    at = gradients.gradients_at(other, corrupt, gradients.place_weights(other, corrupt))
    scores = torch.zeros(clean.shape, dtype=torch.float64)
    gradients.add_edge_effects(scores, experiment, at, rows, gradients.changes_when_ablated(experiment, rows))
    assert np.abs(both - clean).max() > 1e-3
    assert np.abs((clean + scores.numpy()) / 2 - both).max() < 1e-9


def test_permuted_models_have_a_gradient_of_their_divergence():
    model = tiny.gpt2(dtype=torch.float64)
    found = edge_attribution(Experiment(ew.permuted(model, 1), tiny.task(), metric="kl_div"))
    assert found.details["gradient_at"] == "clean"
    assert np.abs(found.circuit.scores).max() > 1e-3


def test_what_cannot_be_attributed_is_said():
    experiment = Experiment(tiny.gpt2(), tiny.task(), metric="frac_correct")
    with pytest.raises(EdgewiseError, match="'frac_correct' has no gradient"):
        edge_attribution(experiment)
    experiment = Experiment(tiny.gpt2(), tiny.task())
    with pytest.raises(EdgewiseError, match="unknown path 'input'; did you mean 'inputs'"):
        edge_attribution_ig(experiment, path="input")
    with pytest.raises(EdgewiseError, match="at least 1 step, not 0"):
        edge_attribution_ig(experiment, steps=0)
    with pytest.raises(EdgewiseError, match="has no gradient at any input"):
        edge_attribution(Experiment(tiny.gpt2(), tiny.task(), metric=lambda logits, reference: logits[:, 0] * 0))


def test_progress_counts_prompts():
    told = []
    experiment = Experiment(tiny.gpt2(), tiny.task(rows=4), metric="logit_diff")
    edge_attribution(experiment, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (4, 4)
