"""Heat maps are patches of the model's own run: of a node, or of a stream at one position."""

import sys

import pytest
import tiny
import torch
from tiny import FAMILIES

from edgewise.discovery import heat_maps
from edgewise.graph import Circuit
from edgewise.models.decoder import positions_of
from edgewise.patching import Experiment
from edgewise.tasks import mean_over_places


@pytest.mark.parametrize(
    ("family", "ablation"), tiny.in_turn(list(FAMILIES), [("resample",), ("zero",)], whole=["llama"])
)
def test_a_nodes_effect_is_that_of_a_circuit_without_its_edges(family, ablation, monkeypatch):
    model = FAMILIES[family](dtype=torch.float64, layers=2)
    experiment = Experiment(model, tiny.task(), ablation=ablation, ports=False)
    found = heat_maps(experiment)
    whole = Circuit.full(experiment.graph)
    base, largest = experiment.value(whole), 0.0
    for row, node in enumerate(experiment.graph.sources):
        edges = whole.edges.copy()
        edges[row] = False
        wanted = experiment.value(Circuit(experiment.graph, edges, whole.ports)) - base
        if node.kind == "head":
            got = found.heads[node.layer, node.head]
        else:
            got = found.mlps[node.layer] if node.kind == "mlp" else found.embedding[row]
        assert got.item() == pytest.approx(wanted, abs=1e-6), node.name
        largest = max(largest, abs(wanted))
    assert largest > 1e-3
    # However small the pieces.
    monkeypatch.setattr(sys.modules[heat_maps.__module__], "CANDIDATE_BYTES", 1)
    again = heat_maps(experiment)
    assert torch.allclose(found.heads, again.heads, atol=1e-9)
    assert torch.allclose(found.positions, again.positions, atol=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_positions_effect_is_that_of_a_hook_on_the_source_model(family):
    model, task = FAMILIES[family](dtype=torch.float64, layers=2), tiny.task()
    experiment, prompts = Experiment(model, task), task.prompts
    found = heat_maps(experiment)
    blocks = model.source.transformer.h if family == "gpt2" else model.source.model.layers
    at = positions_of(prompts.clean)
    base = experiment.full()
    for layer, block in enumerate(blocks):
        read = []
        hook = tiny.layers_of(model)[layer].attention.source.norm.register_forward_pre_hook(
            lambda _, x, to=read: to.append(x[0])
        )
        model.run_source(prompts.corrupt, prompts.corrupt_mask, at)
        hook.remove()
        corrupted = read[0]
        for place in range(prompts.clean.shape[1]):

            def replace(_, given, kwargs, corrupted=corrupted, place=place):
                stream = (given[0] if given else kwargs["hidden_states"]).clone()
                stream[:, place] = corrupted[:, place]
                return ((stream, *given[1:]), kwargs) if given else (given, {**kwargs, "hidden_states": stream})

            handle = block.register_forward_pre_hook(replace, with_kwargs=True)
            logits = model.run_source(prompts.clean, prompts.mask, at)[prompts.scored_rows, prompts.scored_positions]
            handle.remove()
            wanted = mean_over_places(experiment.metric(logits, experiment.reference)) - base
            assert found.positions[layer, place].item() == pytest.approx(wanted, abs=1e-6)
    assert found.positions.abs().max() > 1e-3
    assert found.positions.shape == (2, prompts.clean.shape[1])


def test_shapes_and_progress():
    told = []
    experiment = Experiment(tiny.plain(mlps=False), tiny.task(split_embedding=True))
    found = heat_maps(experiment, progress=lambda done, of: told.append((done, of)))
    assert (found.heads.shape, found.mlps.shape, found.embedding.shape) == ((3, 2), (0,), (2,))
    assert told[-1][0] == told[-1][1] == 2 + 3 * (2 + experiment.task.prompts.clean.shape[1])
