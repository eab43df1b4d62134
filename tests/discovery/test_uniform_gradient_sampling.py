"""Uniform gradient sampling learns what every edge is worth, from masks of each prompt's own."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from edgewise import load_model, load_task
from edgewise.discovery import acdc, at_most, uniform_gradient_sampling
from edgewise.discovery.soft_masks import existing, metric_under, run_of_edges
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment


@pytest.mark.parametrize(
    ("name", "examples", "steps", "share"),
    [
        ("greater-than", 4, 50, 0.2),
        pytest.param("greater-than", 16, 300, 0.01, marks=pytest.mark.slow),
        pytest.param("induction", None, 300, 0.1, marks=pytest.mark.slow),
    ],
)
def test_it_finds_a_circuit_of_acdcs_size(name, examples, steps, share):
    model = load_model(f"tiny-{name}")
    experiment = Experiment(model, load_task(name, model, examples=examples))
    wanted = acdc(experiment, 0.01)
    found = uniform_gradient_sampling(experiment, steps=steps)
    circuit = at_most(found.circuit, wanted.circuit.n_edges, above=-np.inf).circuit
    assert 3 < circuit.n_edges <= wanted.circuit.n_edges
    assert experiment.value(circuit) < share * experiment.ablated()
    own = found.own.connected()
    assert 3 < own.n_edges < found.circuit.graph.n_edges / 2
    assert experiment.value(own) < share * experiment.ablated()


def only(task, row):
    return replace(task, prompts=task.prompts.rows(row, row + 1), text=task.text[row : row + 1])


@pytest.mark.parametrize("family", ["gpt2", "llama", "shortformer"])
@pytest.mark.parametrize("spans", [False, True])
def test_masks_of_each_prompt_are_those_of_the_prompts_by_themselves(family, spans):
    task = tiny.task(rows=3)
    if spans:
        at = torch.where(task.prompts.mask, torch.arange(task.prompts.mask.shape[1]) // 3, -1)
        task = replace(task, prompts=replace(task.prompts, spans=at), span_names=("early", "late"))
    model = tiny.FAMILIES[family](dtype=torch.float64)
    graph = model.graph(ports=True, spans=task.span_names)
    experiment = Experiment(model, task, metric="logit_diff", graph=graph)
    run = run_of_edges(experiment, existing(graph))
    masks = torch.rand(graph.n_edges, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    masks.requires_grad_()
    together = metric_under(experiment, masks, run)
    alone = 0.0
    for row in range(3):
        one = Experiment(model, only(task, row), metric="logit_diff", graph=graph)
        mask = masks.detach()[:, row].clone().requires_grad_()
        share = len(one.task.prompts.scored_rows) / len(task.prompts.scored_rows)
        alone += share * metric_under(one, mask, run_of_edges(one, existing(graph)))
        assert torch.allclose(masks.grad[:, row], share * mask.grad, atol=1e-6)  # Llama's own norms are in float32
        assert mask.grad.abs().max() > 1e-5
    assert together == pytest.approx(alone, abs=1e-6)


def test_the_same_seed_gives_the_same_probabilities_and_a_higher_price_fewer_edges():
    experiment = Experiment(tiny.gpt2(layers=1), tiny.task(), metric="logit_diff")
    scores = [uniform_gradient_sampling(experiment, steps=10, seed=seed).circuit.scores for seed in (0, 0, 1)]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    expected = [
        uniform_gradient_sampling(experiment, steps=30, regularisation=price).details["expected_edges"]
        for price in (0.0, 1.0)
    ]
    assert expected[0] > 1.5 * expected[1]


def test_bad_input_is_said():
    experiment = Experiment(tiny.gpt2(layers=1), tiny.task())
    for options in (dict(steps=0), dict(learning_rate=0.0), dict(regularisation=-1.0)):
        with pytest.raises(EdgewiseError, match="at least 1 step, a lambda of 0 or more and a learning rate above 0"):
            uniform_gradient_sampling(experiment, **options)
    broken = Experiment(tiny.gpt2(layers=1), tiny.task(), metric=lambda logits, _: logits[:, 0] * float("nan"))
    with pytest.raises(EdgewiseError, match="diverged: at step 1 the metric came out as nan"):
        uniform_gradient_sampling(broken)
