"""Edge pruning learns which edges a task needs, to a wanted size."""

import numpy as np
import pytest
import tiny
import torch

from edgewise import load_model, load_task
from edgewise.discovery import acdc, at_most
from edgewise.discovery.hard_concrete import alive, sample
from edgewise.discovery.methods.edge_pruning import STEPS, edge_pruning
from edgewise.discovery.soft_masks import metric_under, run_of_edges
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.patching import Experiment


@pytest.mark.parametrize(
    ("name", "examples", "steps"),
    [
        pytest.param("induction", 16, 100, marks=pytest.mark.slow),
        pytest.param("greater-than", 4, 100, marks=pytest.mark.slow),
        pytest.param("induction", None, STEPS, marks=pytest.mark.slow),
        pytest.param("greater-than", None, STEPS, marks=pytest.mark.slow),
    ],
)
def test_it_finds_a_circuit_as_good_as_acdcs_of_the_same_size(name, examples, steps):
    model = load_model(f"tiny-{name}")
    experiment = Experiment(model, load_task(name, model, examples=examples))
    wanted = acdc(experiment, 0.01)
    found = edge_pruning(experiment, wanted.circuit.n_edges, steps=steps)
    circuit = at_most(found.circuit, wanted.circuit.n_edges, above=-np.inf).circuit
    assert 5 < circuit.n_edges <= wanted.circuit.n_edges
    assert experiment.value(circuit) < 1.5 * wanted.metric < 0.1 * experiment.ablated()
    assert found.details["expected_edges"] == pytest.approx(wanted.circuit.n_edges, abs=5)


@pytest.mark.parametrize(
    ("examples", "target"),
    [(2, 60), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((2, 10), (None, 10), (None, 60)))],
)
def test_the_wanted_size_is_come_near(examples, target):
    model = load_model("tiny-greater-than")
    experiment = Experiment(model, load_task("greater-than", model, examples=examples))
    found = edge_pruning(experiment, target, steps=200)
    assert found.details["expected_edges"] == pytest.approx(target, abs=6 if target == 10 else 12)


@pytest.mark.parametrize("family", ["gpt2", "llama", "shortformer"])
def test_masks_of_zero_and_one_are_circuits_and_pieces_add_up(family):
    experiment = Experiment(tiny.FAMILIES[family](dtype=torch.float64), tiny.task(rows=4), metric="logit_diff")
    graph = experiment.graph
    exists = torch.from_numpy(np.concatenate([graph.edges.ravel(), graph.port_edges]))
    run = run_of_edges(experiment, exists)
    generator = torch.Generator().manual_seed(1)
    for some in (torch.ones(graph.n_edges), (torch.rand(graph.n_edges, generator=generator) > 0.5).float()):
        mask = some.double().requires_grad_()
        every = torch.zeros(len(exists), dtype=torch.float64).masked_scatter(exists, some.double()).bool().numpy()
        circuit = Circuit(graph, every[: graph.edges.size].reshape(graph.edges.shape), every[graph.edges.size :])
        assert metric_under(experiment, mask, run) == pytest.approx(experiment.value(circuit), abs=1e-6)
        whole = mask.grad.clone()
        assert whole.abs().max() > 1e-4
        mask.grad = None
        experiment.row_bytes = 1  # one row at a time
        assert metric_under(experiment, mask, run) == pytest.approx(experiment.value(circuit), abs=1e-6)
        assert torch.allclose(mask.grad, whole, atol=1e-9)
        experiment.row_bytes = 2**30


def test_masks_are_hard_concrete():
    generator = torch.Generator().manual_seed(0)
    theta = torch.tensor([-3.0, 0.0, 3.0])
    drawn = sample(theta.expand(20_000, 3), generator)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert torch.allclose((drawn > 0).double().mean(dim=0), alive(theta).double(), atol=0.01)
    assert torch.allclose((drawn >= 0.5).double().mean(dim=0), torch.sigmoid(theta).double(), atol=0.01)


def test_the_same_seed_gives_the_same_masks_and_a_warm_start_others():
    experiment = Experiment(tiny.gpt2(layers=1), tiny.task(), metric="logit_diff")
    scores = [
        edge_pruning(experiment, 10, steps=10, seed=seed, warm_start=warm).circuit.scores
        for seed, warm in ((0, True), (0, True), (1, True), (0, False))
    ]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert not np.array_equal(scores[0], scores[3])


def test_what_cannot_be_pruned_is_said():
    experiment = Experiment(tiny.gpt2(layers=1), tiny.task())
    with pytest.raises(EdgewiseError, match="cannot prune to 999 edges: the graph has"):
        edge_pruning(experiment, 999)
    for options in (dict(steps=1), dict(learning_rate=-1.0)):
        with pytest.raises(EdgewiseError, match="at least 2 steps and a learning rate above 0"):
            edge_pruning(experiment, 5, **options)
    with pytest.raises(EdgewiseError, match="'frac_correct' has no gradient"):
        edge_pruning(Experiment(tiny.gpt2(), tiny.task(), metric="frac_correct"), 5)
    broken = Experiment(tiny.gpt2(layers=1), tiny.task(), metric=lambda logits, _: logits[:, 0] * float("nan"))
    with pytest.raises(EdgewiseError, match="diverged: at step 1 the metric came out as nan"):
        edge_pruning(broken, 5, warm_start=False)
