"""Prompts grouped by the edges that matter on each."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from edgewise.discovery import edge_attribution
from edgewise.errors import EdgewiseError
from edgewise.evaluation.clusters import clusters, grouped, scores_by_prompt, silhouette
from edgewise.patching import Experiment
from edgewise.tasks.task import last_token_prompts


def two_kinds(rows=6):
    """Prompts whose partners differ in the last token alone, which needs no attention, and in the first alone."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(1, tiny.VOCABULARY, (2 * rows, 5), generator=generator)
    corrupt = clean.clone()
    for row in range(2 * rows):
        place = 0 if row >= rows else 4
        clean[row, place], corrupt[row, place] = 3, 17
    prompts = last_token_prompts(clean.tolist(), corrupt.tolist(), [[5]] * 2 * rows, [[9]] * 2 * rows)
    task = tiny.task(rows=2 * rows)
    return dataclasses.replace(task, prompts=prompts, metric="logit_diff")


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_the_mean_of_the_prompts_scores_is_the_tasks_score(ablation):
    model, task = tiny.gpt2(layers=2, dtype=torch.float64), tiny.task(rows=4, metric="logit_diff")
    case = Experiment(model, task, ablation=ablation, ports=False)
    each = scores_by_prompt(case)
    assert each.shape == (4, case.graph.n_edges)
    assert np.allclose(each.mean(axis=0), edge_attribution(case).circuit.scores[case.graph.edges], atol=1e-9)


def test_two_kinds_of_prompts_are_two_groups_with_circuits_of_their_own():
    case = Experiment(tiny.gpt2(layers=2, dtype=torch.float64), two_kinds(), ports=False)
    found = clusters(case, edges=8, seed=1)
    assert found.count == 2
    assert found.p_value <= 0.05
    assert found.labels.tolist() in ([0] * 6 + [1] * 6, [1] * 6 + [0] * 6)
    assert [circuit.n_edges for circuit in found.circuits] == [8, 8]
    assert found.overlaps[0, 1] < 0.5
    assert found.overlaps.diagonal().tolist() == [1.0, 1.0]
    last = found.circuits[found.labels[0]]
    assert "input->logits" in last  # what stands at the end is read there without attention
    again = clusters(case, edges=8, seed=1)
    assert again.labels.tolist() == found.labels.tolist()
    assert again.silhouettes == found.silhouettes


def test_scores_without_groups_are_one_group():
    scores = np.random.default_rng(3).normal(size=(14, 30))
    labels, silhouettes, p_value = grouped(scores, 5, seed=0)
    assert not labels.any()
    assert list(silhouettes) == [2, 3, 4, 5]
    assert p_value > 0.05


def test_three_clear_groups_are_found_the_largest_first():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(3, 20))
    of = [0, 1, 1, 2, 2, 2, 1, 2, 0, 2]
    labels, _, p_value = grouped(centres[of] + 0.05 * generator.normal(size=(10, 20)), 6, seed=0)
    assert labels.tolist() == [2, 1, 1, 0, 0, 0, 1, 0, 2, 0]
    assert p_value <= 0.05


def test_the_silhouette_is_that_of_its_definition():
    generator = np.random.default_rng(2)
    points = generator.normal(size=(9, 3))
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 3])
    each = []
    for row in range(9):
        own = [other for other in range(9) if labels[other] == labels[row] and other != row]
        if not own:
            each.append(0.0)
            continue
        inside = np.mean([apart[row, other] for other in own])
        outside = min(apart[row][labels == label].mean() for label in set(labels) if label != labels[row])
        each.append((outside - inside) / max(inside, outside))
    assert silhouette(apart, labels) == pytest.approx(np.mean(each))
    assert silhouette(apart, np.zeros(9, dtype=int)) == 0.0


def test_what_cannot_be_grouped_is_refused():
    model = tiny.gpt2(layers=1)
    with pytest.raises(EdgewiseError, match="without port edges"):
        clusters(Experiment(model, tiny.task()))
    case = Experiment(model, tiny.task(metric="logit_diff"), ports=False)
    with pytest.raises(EdgewiseError, match="at least 4, not 3"):
        clusters(case, edges=3)
    with pytest.raises(EdgewiseError, match="has 1 to"):
        clusters(case, edges=0)
    with pytest.raises(EdgewiseError, match="2 or more at most, not 1"):
        grouped(np.ones((5, 2)), 1, 0)
