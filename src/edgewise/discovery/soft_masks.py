"""What methods that learn a mask for every edge share: a circuit's run and metric under soft masks, with gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgewise.graph import Circuit, Graph
from edgewise.models.matmul import fast_matmul
from edgewise.patching import Experiment
from edgewise.patching.ablation import Ablated, cut_rows
from edgewise.patching.running import circuit_run
from edgewise.tasks import Prompts

Run = Callable[[Prompts, Ablated, Tensor], Tensor]
"""The final stream `[batch, pos, d_model]` of some rows of prompts under a mask."""


def existing(graph: Graph) -> Tensor:
    """Which entries of a graph's edge matrix, row by row, and then of its port edges are edges: a mask has one each."""
    return torch.from_numpy(np.concatenate([graph.edges.ravel(), graph.port_edges]))


def run_of_edges(experiment: Experiment, exists: Tensor) -> Run:
    """The run of some rows under a mask for every edge and port edge, `[edges]`, or `[edges, rows]` by prompt.

    Args:
        exists: as `existing` gives it.
    """
    graph, (places,) = experiment.graph, exists.nonzero(as_tuple=True)

    def run(rows: Prompts, ablated: Ablated, mask: Tensor) -> Tensor:
        every = mask.new_zeros(len(exists), *mask.shape[1:]).index_copy(0, places, mask)
        edges = every[: graph.edges.size].unflatten(0, graph.edges.shape)
        ports = every[graph.edges.size :]
        return circuit_run(experiment.decoder, graph, rows.clean, rows.mask, ablated, edges, ports, rows.spans)

    return run


def metric_under(experiment: Experiment, mask: Tensor, run: Run) -> float:
    """The metric under soft masks; its gradient is added to the mask's.

    Args:
        mask: one for all prompts, or with a last dimension of prompts.
    """
    decoder, prompts = experiment.decoder, experiment.task.prompts
    places, total, step = len(prompts.scored_rows), 0.0, experiment.rows_at_once()
    for first in range(0, len(prompts), step):
        stop = min(first + step, len(prompts))
        rows = prompts.rows(first, stop)
        inside = (prompts.scored_rows >= first) & (prompts.scored_rows < stop)
        ablated = cut_rows(experiment.ablated_activations, first, stop)
        with torch.enable_grad(), fast_matmul():
            final = run(rows, ablated, mask if mask.dim() == 1 else mask[:, first:stop])
            logits = decoder.logits(final[rows.scored_rows, rows.scored_positions])
            value = experiment.metric(logits, experiment.reference.at(inside)).sum() / places
            value.backward(inputs=[mask])  # and not the weights, whose gradients would stay
        total += value.item()
    return total


def scores_of_masks(graph: Graph, theta: Tensor) -> Circuit:
    """The full circuit with every mask's parameter as its edge's score."""
    scores = np.zeros(graph.edges.size + len(graph.inputs))
    scores[existing(graph).numpy()] = theta.numpy()
    return Circuit.full(graph).with_scores(
        scores[: graph.edges.size].reshape(graph.edges.shape), scores[graph.edges.size :]
    )
