"""Exact patching is one circuit run per edge, with that edge alone left out."""

import numpy as np
import pytest
import tiny
import torch
from tiny import FAMILIES

import edgewise as ew
from edgewise.discovery import exact_effects
from edgewise.graph import Circuit
from edgewise.patching import ABLATIONS, Experiment

ABLATED = ("resample", "zero", "mean")


@pytest.mark.parametrize(
    ("family", "ablation"), tiny.in_turn(list(FAMILIES), [(one,) for one in ABLATED], whole=["plain"])
)
def test_every_edges_effect_is_that_of_a_circuit_run_without_it(family, ablation):
    model, number = FAMILIES[family](dtype=torch.float64, layers=2), ABLATED.index(ablation)
    metric = ("kl_div", "logit_diff", "nll")[number]
    experiment = Experiment(model, tiny.task(), ablation=ablation, metric=metric, ports=number != 2)
    found = exact_effects(experiment).circuit
    whole = Circuit.full(experiment.graph)
    base = experiment.value(whole)
    effects = []
    for name in whole.names()[number::5]:
        row, column = experiment.graph.locate(name)
        wanted = experiment.value(whole.remove(name)) - base
        got = found.port_scores[column] if row is None else found.scores[row, column]
        # Norms of Llama in transformers go through float32.
        assert got == pytest.approx(wanted, abs=1e-6), name
        effects.append(wanted)
    assert np.abs(effects).max() > 1e-3
    assert set(ABLATIONS) > set(ABLATED)


def test_a_permuted_networks_effects_are_on_its_divergence_from_the_original():
    permuted = ew.permuted(tiny.gpt2(dtype=torch.float64, layers=1), 1)
    experiment = Experiment(permuted, tiny.task())
    found, whole = exact_effects(experiment).circuit, Circuit.full(experiment.graph)
    name = "m0->logits"
    wanted = experiment.value(whole.remove(name)) - experiment.value(whole)
    assert found.scores[experiment.graph.locate(name)] == pytest.approx(wanted, abs=1e-9)
    assert abs(wanted) > 1e-4


def test_progress_ends_with_every_edge():
    told = []
    experiment = Experiment(tiny.gpt2(layers=1), tiny.task())
    exact_effects(experiment, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (experiment.graph.n_edges, experiment.graph.n_edges)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
