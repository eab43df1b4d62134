"""Heat maps by gradients: the first-order part of what patching finds."""

import pytest
import tiny
import torch
from tiny import FAMILIES

from edgewise import load_model, load_task
from edgewise.discovery import edge_attribution, gradient_maps, heat_maps, seconds_to_patch
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment


@pytest.mark.parametrize(
    ("family", "metric"), tiny.in_turn(list(FAMILIES), [("logit_diff",), ("kl_div",)], whole=["llama"])
)
def test_a_nodes_estimate_is_the_sum_of_its_edges_scores(family, metric):
    experiment = Experiment(FAMILIES[family](dtype=torch.float64, layers=2), tiny.task(), metric=metric, ports=False)
    found = gradient_maps(experiment)
    scores = torch.tensor(edge_attribution(experiment).circuit.scores)
    for row, node in enumerate(experiment.graph.sources):
        if node.kind == "head":
            got = found.heads[node.layer, node.head]
        else:
            got = found.mlps[node.layer] if node.kind == "mlp" else found.embedding[row]
        assert got.item() == pytest.approx(scores[row].sum().item(), rel=1e-9, abs=1e-12), node.name
    # A stream's is that of all edges from before a layer into it and what comes later.
    for layer in range(2):
        first = experiment.graph.input_index[f"a{layer}.h0<q>"]
        before = experiment.graph.n_senders(experiment.graph.inputs[first])
        wanted = scores[:before, first:].sum().item()
        assert found.positions[layer].sum().item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("metric", "name"), [("logit_diff", "heads"), ("kl_div", "positions")])
def test_estimates_go_with_what_patching_finds_in_a_shipped_model(metric, name):
    model = load_model("tiny-ioi")
    experiment = Experiment(model, load_task("ioi", model, examples=8), metric=metric)
    told = []
    estimated = gradient_maps(experiment, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (8, 8)
    assert estimated.positions[0].sum().item() == pytest.approx(estimated.embedding.sum().item(), rel=1e-4)
    one, other = getattr(estimated, name).flatten(), getattr(heat_maps(experiment), name).flatten()
    assert one.shape == other.shape
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.7
    assert 0 < seconds_to_patch(experiment) < 60


def test_a_metric_without_a_gradient_is_refused():
    model = tiny.gpt2(layers=1)
    with pytest.raises(EdgewiseError, match="'frac_correct' has no gradient"):
        gradient_maps(Experiment(model, tiny.task(), metric="frac_correct"))
