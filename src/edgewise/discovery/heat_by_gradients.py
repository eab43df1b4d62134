"""The heat maps of activation patching, estimated by gradients: attribution patching (Nanda 2023) of nodes and places.

A node's effect is to first order the change of what it writes when it is ablated, times the gradient at all that read
it; a stream's at a position is the same for everything before its layer together. The gradient is taken at the clean
run or, for a metric that has none there, as its mean along a path, as edge attribution does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from edgewise.discovery.attribution import clean_or_path, gradients_of, require_gradient
from edgewise.discovery.heat import HeatMaps
from edgewise.models.forward import forward
from edgewise.models.matmul import fast_matmul
from edgewise.models.precision import sum_dtype, widened
from edgewise.patching import Experiment
from edgewise.patching.gradients import changes_when_ablated, input_gradients, place_weights, rows_of


def gradient_maps(experiment: Experiment, *, progress: Callable[[int, int], None] | None = None) -> HeatMaps:
    """What `heat_maps` patches one by one, estimated by one backward pass (several where the metric is flat at clean).

    Args:
        progress: called with how many prompts are done, and of how many.

    Raises:
        EdgewiseError: the metric has no gradient.
    """
    require_gradient(experiment)
    graph, device = experiment.graph, experiment.decoder.device
    length = experiment.task.prompts.clean.shape[1]
    nodes = torch.zeros(len(graph.sources), dtype=sum_dtype(device), device=device)
    positions = torch.zeros(graph.n_layers, length, dtype=sum_dtype(device), device=device)
    points = clean_or_path(experiment)
    for rows in rows_of(experiment):
        changes, weights = changes_when_ablated(experiment, rows), place_weights(experiment, rows)
        # The gradient at the stream that enters a layer, or the logits, of what reads it there.
        streams = torch.zeros(graph.n_layers + 1, *changes.shape[1:], dtype=changes.dtype, device=device)
        for gradients in gradients_of(experiment, rows, weights, points, progress):
            for columns, gradient in input_gradients(experiment, gradients, rows):
                place = graph.inputs[columns.start]
                senders = graph.n_senders(place)
                together = gradient.sum(dim=0) / points.count
                nodes[:senders] += (changes[:senders].flatten(1) @ together.flatten()).to(nodes.dtype)
                streams[-1 if place.kind == "logits" else place.layer] += together
        # What is changed there is read by all later layers too.
        reads = streams.flip(0).cumsum(dim=0).flip(0)
        for layer in range(graph.n_layers):
            before = graph.n_senders(graph.inputs[graph.columns(graph.head_kinds[0], layer).start])
            positions[layer] += widened(changes[:before].sum(dim=0) * reads[layer]).sum(dim=(0, 2))
    nodes, row = nodes.cpu(), graph.source_index
    heads = [nodes[row[f"a{layer}.h0"] : row[f"a{layer}.h0"] + graph.n_heads] for layer in range(graph.n_layers)]
    mlps = [row[f"m{layer}"] for layer in range(graph.n_layers)] if graph.mlps else []
    return HeatMaps(torch.stack(heads), nodes[mlps], nodes[: graph.n_embeddings], positions.cpu())


def seconds_to_patch(experiment: Experiment) -> float:
    """About how long `heat_maps` takes: half a run for each part on average, timed by one run."""
    graph, prompts = experiment.graph, experiment.task.prompts
    started = time.perf_counter()
    with torch.no_grad(), fast_matmul():
        forward(experiment.decoder, prompts.clean, prompts.mask)
    if prompts.clean.is_cuda:
        torch.cuda.synchronize()
    patches = len(graph.sources) + graph.n_layers * prompts.clean.shape[1]
    return (time.perf_counter() - started) * patches / 2
