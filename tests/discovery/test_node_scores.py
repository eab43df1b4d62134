"""Scores of whole nodes: exact ones by circuit runs, estimates by the gradient of a mask; circuits cut from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from family_models import family
from oracle import mask_gradients
from tiny import FAMILIES

from edgewise.discovery import METHODS, choose_nodes, edge_attribution_ig
from edgewise.discovery.methods.edge_attribution import node_attribution
from edgewise.discovery.methods.edge_attribution_ig import node_attribution_ig
from edgewise.discovery.methods.edge_pruning import node_pruning
from edgewise.discovery.methods.exact import exact_node_effects
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, node_scores, of_nodes
from edgewise.graph.by_node import node_names, without_node
from edgewise.patching import Experiment
from edgewise.patching.node_running import node_run
from edgewise.patching.running import circuit_run

COUPLED = ("gemma2", "olmo2")


def experiment(name: str, metric: str = "logit_diff", **choices) -> Experiment:
    model = family(name, torch.float64) if name in COUPLED else FAMILIES[name](dtype=torch.float64, layers=2)
    return Experiment(model, tiny.task(), metric=metric, ports=False, **choices)


@pytest.mark.parametrize("name", [*FAMILIES, *COUPLED])
def test_a_nodes_exact_effect_is_that_of_a_circuit_run_without_it(name):
    for ablation, metric in (("resample", "kl_div"), ("zero", "logit_diff"), ("mean", "nll")):
        case = experiment(name, metric, ablation=ablation)
        everything = of_nodes(case.graph, np.ones(len(case.graph.sources)))
        wanted = [case.value(without_node(everything, one)) - case.full() for one in node_names(everything)]
        found = node_scores(exact_node_effects(case).circuit)
        assert found == pytest.approx(wanted, abs=1e-6)
        assert np.abs(wanted).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "ablation"), tiny.in_turn([*FAMILIES, *COUPLED], [("resample",), ("zero",)], whole=["llama", "gemma2"])
)
def test_a_nodes_score_is_the_gradient_of_one_mask_on_all_of_its_edges(name, ablation):
    for metric in ("logit_diff", "nll"):
        case = experiment(name, metric, ablation=ablation)
        edges, _ = mask_gradients(case)
        found = node_scores(node_attribution(case).circuit)
        assert np.abs(found - edges.sum(axis=1)).max() < 1e-6
        assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("edge-attribution", {}),
        ("edge-attribution-ig", {"path": "inputs", "steps": 3}),
        ("edge-attribution-ig", {"path": "activations", "steps": 2}),
        ("clean-corrupted", {}),
        ("relp", {}),
    ],
)
def test_of_every_method_a_nodes_score_is_the_sum_over_its_edges(method, options, split):
    model, task = tiny.gpt2(dtype=torch.float64, layers=2), tiny.task(rows=4, split_embedding=split)
    for metric in ("kl_div", "logit_diff"):
        case = Experiment(model, task, metric=metric, ports=False)
        edges, nodes = (METHODS[method].scores(case, level=level, **options) for level in ("edge", "node"))
        assert node_scores(nodes.circuit) == pytest.approx(edges.circuit.scores.sum(axis=1), abs=1e-9)
        assert nodes.details == edges.details
        assert nodes.circuit.whole_nodes


def test_integrated_gradients_add_up_to_what_ablating_the_embedding_does():
    """Along the path of inputs, in many steps, the embedding's score is the metric's whole rise (completeness)."""
    case = experiment("gpt2")
    found = node_scores(node_attribution_ig(case, steps=150).circuit)
    assert found[0] == pytest.approx(case.ablated() - case.full(), rel=0.02)


@pytest.mark.slow
def test_pruning_presses_masks_on_nodes_to_the_wanted_number():
    case = experiment("gpt2", "kl_div")
    count = len(case.graph.sources)
    scored = node_pruning(case, 5, steps=150, seed=1)
    assert scored.details["expected_nodes"] == pytest.approx(5, abs=1.5)
    pruned = choose_nodes(scored.circuit, count=5, above=scored.above).circuit
    assert pruned.size == 5
    assert pruned.rows[0]
    assert node_scores(node_pruning(case, 5, steps=150, seed=1).circuit) == pytest.approx(node_scores(scored.circuit))
    # Better than the worst nodes of the same number, by far: masks have learned which matter.
    worst = of_nodes(case.graph, (np.arange(count) == 0) | (np.argsort(np.argsort(node_scores(scored.circuit))) < 4))
    assert worst.size == 5
    assert case.value(pruned) < case.value(worst)
    for target in (1, count + 1):
        with pytest.raises(EdgewiseError, match=f"cannot prune to {target} nodes"):
            node_pruning(case, target, steps=2)
    with pytest.raises(EdgewiseError, match="at least 2 steps"):
        node_pruning(case, 3, steps=1)


def test_masks_on_nodes_have_the_gradient_of_masks_on_all_of_their_edges():
    """A mask on a node, halfway, is the same mask on each of its edges in a circuit run."""
    case = experiment("llama")
    graph, prompts, ablated = case.graph, case.task.prompts, case.ablated_activations
    mask = torch.linspace(0.1, 0.9, len(graph.sources), dtype=torch.float64, requires_grad=True)
    edges = torch.from_numpy(graph.edges.copy()).double()

    def gradient(final):
        logits = case.decoder.logits(final[prompts.scored_rows, prompts.scored_positions])
        value = case.metric(logits, case.reference).mean()
        return value.item(), torch.autograd.grad(value, mask)[0]

    ports = torch.zeros(len(graph.inputs))
    wanted = gradient(
        circuit_run(case.decoder, graph, prompts.clean, prompts.mask, ablated, mask[:, None] * edges, ports)
    )
    found = gradient(node_run(case.decoder, graph, prompts.clean, prompts.mask, ablated, mask[None])[0])
    assert found[0] == pytest.approx(wanted[0], abs=1e-6)
    assert (found[1] - wanted[1]).abs().max() < 1e-5
    assert wanted[1].abs().max() > 1e-2


def test_the_best_nodes_are_taken_with_the_embedding_among_them():
    graph = Graph(1, 3)
    scored = of_nodes(graph, np.ones(5), np.array([-3.0, 0.5, -2.0, 0.5, 1.0]))

    def names(**choice):
        return node_names(choose_nodes(scored, **choice).circuit)

    assert names(count=3) == ["input", "a0.h0", "m0"]  # of equal ones the earlier
    assert names(count=9) == ["input", "a0.h0", "a0.h2", "m0"]  # nothing below zero is needed
    assert names(count=9, above=-math.inf) == [node.name for node in graph.sources]
    assert names(count=3, absolute=True) == ["input", "a0.h1", "m0"]
    assert names(count=1) == ["input"]
    assert names(threshold=0.75) == ["input", "m0"]
    assert names(threshold=0.75, absolute=True) == ["input", "a0.h1", "m0"]
    assert choose_nodes(scored, count=3).cut == 0.5
    assert choose_nodes(scored, count=1).cut == math.inf
    with pytest.raises(EdgewiseError, match="has 2 or more"):
        choose_nodes(of_nodes(Graph(1, 1, split_embedding=True), np.ones(4), np.ones(4)), count=1)
    with pytest.raises(EdgewiseError, match="not nan"):
        choose_nodes(scored, threshold=math.nan)
    with pytest.raises(EdgewiseError, match="no scores of whole nodes"):
        choose_nodes(Circuit.full(graph), count=2)


def test_methods_that_score_no_nodes_say_so():
    case = experiment("gpt2")
    assert [name for name, method in METHODS.items() if not method.finds("node")] == [
        "bootstrapped-attribution",
        "attribution-patching",
        "information-flow",
        "head-importance",
        "uniform-gradient-sampling",
        "subnetwork-probing",
    ]
    with pytest.raises(EdgewiseError, match="'information-flow' does not score whole nodes"):
        METHODS["information-flow"].scores(case, level="node")
    assert not edge_attribution_ig(case).circuit.whole_nodes
