"""Scores of several methods together, and scores whose sign holds for other prompts."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import rankdata

from edgewise.discovery import METHODS, bootstrapped_attribution, edge_attribution, edge_attribution_ig, ensemble
from edgewise.errors import EdgewiseError
from edgewise.graph import node_scores
from edgewise.patching import Experiment


def only(task, row):
    return replace(task, prompts=task.prompts.rows(row, row + 1), text=task.text[row : row + 1])


@pytest.fixture(scope="module")
def experiment():
    return Experiment(tiny.gpt2(dtype=torch.float64), tiny.task(rows=5), metric="logit_diff")


def test_it_is_the_mean_of_signed_ranks(experiment):
    graph = experiment.graph
    found = ensemble(experiment, members="eap, clean-corrupted")
    ranks, port_ranks = [], []
    for name in ("edge-attribution", "clean-corrupted"):
        circuit = METHODS[name].scores(experiment).circuit
        for into, some in ((ranks, circuit.scores[graph.edges]), (port_ranks, circuit.port_scores[graph.port_edges])):
            into.append(np.sign(some) * rankdata(abs(some)) / len(some))
    assert np.allclose(found.circuit.scores[graph.edges], np.mean(ranks, axis=0))
    assert np.allclose(found.circuit.port_scores[graph.port_edges], np.mean(port_ranks, axis=0))
    assert not found.circuit.scores[~graph.edges].any()
    assert [one["method"] for one in found.details["members"]] == ["edge-attribution", "clean-corrupted"]


def test_scores_count_alike_whatever_their_scale(experiment):
    graph = experiment.graph
    found = ensemble(experiment, members=["relp", "information-flow"], average="score").circuit
    parts = [METHODS[name].scores(experiment).circuit.scores[graph.edges] for name in ("relp", "information-flow")]
    assert np.allclose(found.scores[graph.edges], sum(part / np.sqrt(np.mean(part**2)) for part in parts) / 2)


def test_a_method_of_masks_is_given_the_size_and_nodes_go_too(experiment, monkeypatch):
    taken = {}

    def pruning(experiment, target, *, seed, progress, **others):
        taken.update(target=target, seed=seed)
        return edge_attribution(experiment)

    monkeypatch.setattr("edgewise.discovery.methods.edge_pruning.edge_pruning", pruning)
    ensemble(experiment, members="edge-attribution,edge-pruning", target=9, seed=3)
    assert taken == {"target": 9, "seed": 3}
    apart = Experiment(
        experiment.decoder, experiment.task, metric="logit_diff", graph=experiment.decoder.graph(ports=False)
    )
    nodes = METHODS["ensemble"].scores(apart, level="node", members="eap, relp").circuit
    assert nodes.whole_nodes
    assert np.abs(node_scores(nodes)).max() <= 1


def test_what_is_no_ensemble_is_said(experiment):
    with pytest.raises(EdgewiseError, match="edge pruning needs a target"):
        ensemble(experiment, members="edge-attribution, edge-pruning")
    for members in ("relp", "relp,relp", "ensemble,relp", ""):
        with pytest.raises(EdgewiseError, match="two methods or more"):
            ensemble(experiment, members=members)
    with pytest.raises(EdgewiseError, match="'acdc' gives no scores of edges"):
        ensemble(experiment, members="acdc, relp")
    with pytest.raises(EdgewiseError, match="unknown method 'eapp'"):
        ensemble(experiment, members="eapp, relp")
    with pytest.raises(EdgewiseError, match="unknown average 'mean'"):
        ensemble(experiment, average="mean")


@pytest.mark.parametrize(
    ("of", "method"), [("edge-attribution", edge_attribution), ("edge-attribution-ig", edge_attribution_ig)]
)
def test_a_sure_sign_keeps_its_score_and_an_unsure_one_loses_it(experiment, of, method):
    plain = method(experiment).circuit
    found = bootstrapped_attribution(experiment, of=of, resamples=200, agreement=0.9)
    graph, kept = experiment.graph, found.circuit.scores != 0
    assert 10 < kept.sum() < graph.edges.sum()
    assert np.allclose(found.circuit.scores[kept], plain.scores[kept], atol=1e-12)
    assert found.details["unsure"] >= (graph.edges & ~kept).sum()
    # Each prompt by itself, drawn anew in a loop.
    each = [
        method(Experiment(experiment.decoder, only(experiment.task, row), metric="logit_diff")).circuit.scores
        for row in range(5)
    ]
    draws = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=200)
    agree = np.mean(
        [np.sign(sum(n * one for n, one in zip(draw, each, strict=True))) == np.sign(sum(each)) for draw in draws],
        axis=0,
    )
    clear = np.abs(agree - 0.9) > 1e-9
    assert np.array_equal(kept[graph.edges & clear], (agree >= 0.9)[graph.edges & clear])


def test_bad_bootstraps_are_said(experiment):
    with pytest.raises(EdgewiseError, match="unknown attribution 'relp'"):
        bootstrapped_attribution(experiment, of="relp")
    with pytest.raises(EdgewiseError, match="at least 1 draw and an agreement from 0 to 1"):
        bootstrapped_attribution(experiment, agreement=1.5)
    with pytest.raises(EdgewiseError, match="take fewer prompts"):
        bootstrapped_attribution(experiment, max_memory=10)
    with pytest.raises(EdgewiseError, match="at least two prompts"):
        bootstrapped_attribution(Experiment(experiment.decoder, only(experiment.task, 0), metric="logit_diff"))
