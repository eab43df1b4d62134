"""Information flow routes (IFR; Ferrando and Voita 2024), in the form that EAP-IG and the MIB benchmark use.

How much of an input's stream comes from each sender, by how much nearer the sender's output brings the stream to what
it is: with x_r the stream and a_u the sender's output,

    share(u->r) = max(|x_r| - |x_r - a_u|, 0),   |.| the L1 norm,

divided by the sum over senders, averaged over a prompt's real positions and then over prompts. It asks neither for a
metric nor for corrupted prompts: it says what the model's streams are made of on these prompts, whatever the behaviour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgewise.graph import Circuit
from edgewise.models.decoder import stream_dtype
from edgewise.patching import Experiment
from edgewise.patching.gradients import Rows, rows_of


@torch.no_grad()
def information_flow(experiment: Experiment, *, progress: Callable[[int, int], None] | None = None) -> Circuit:
    """Every edge's share of the stream it leads into, from 0 to 1, as scores on the full circuit.

    All heads of a layer read one stream, so a sender has one score for all their queries, keys and values.
    """
    graph, device = experiment.graph, experiment.decoder.device
    scores = torch.zeros(graph.edges.shape, dtype=torch.float64, device=device)
    for rows in rows_of(experiment):
        outputs = _outputs(experiment, rows)
        real = rows.prompts.mask.to(outputs.dtype)
        real = real / real.sum(dim=1, keepdim=True)
        for columns, stream in _streams(experiment, rows):
            senders = outputs[: graph.n_senders(graph.inputs[columns[0]])]
            nearer = stream.norm(p=1, dim=-1) - torch.stack([(stream - one).norm(p=1, dim=-1) for one in senders])
            nearer = nearer.clamp_min(0)
            shares = nearer / nearer.sum(dim=0).clamp_min(torch.finfo(nearer.dtype).tiny)
            found = (shares * real).sum(dim=(1, 2)) / len(experiment.task)
            scores[: len(senders), columns] += found[:, None].double()
        if progress is not None:
            progress(rows.stop, len(experiment.task))
    # A port edge has no share of a stream; it is as needed as what its head reads through it.
    found = scores.cpu().numpy()
    return Circuit.full(graph).with_scores(found, np.where(graph.port_edges, found.max(axis=0), 0.0))


def _outputs(experiment: Experiment, rows: Rows) -> Tensor:
    """What every node writes, `[sources, batch, pos, d_model]`."""
    decoder, graph = experiment.decoder, experiment.graph
    parts = list(rows.clean.embedding)
    for index, layer in enumerate(decoder.layers):
        parts += list(layer.write(rows.clean.z[index]).permute(2, 0, 1, 3))
        if layer.mlp is not None:
            parts.append(rows.clean.mlp[index])
    assert len(parts) == len(graph.sources)
    return torch.stack([part.to(stream_dtype(decoder.dtype)) for part in parts])


def _streams(experiment: Experiment, rows: Rows) -> list[tuple[list[int], Tensor]]:
    """The clean streams `[batch, pos, d_model]` and the inputs that read them."""
    decoder, graph = experiment.decoder, experiment.graph
    read: list[tuple[list[int], Tensor]] = []
    for index, layer in enumerate(decoder.layers):
        stream = rows.clean.streams[index]
        columns = [graph.attention_columns(kind, index) for kind in ("q", "k", "v")]
        read.append(([column for part in columns for column in range(part.start, part.stop)], stream))
        if layer.mlp is not None:
            after = stream + layer.write(rows.clean.z[index]).sum(dim=2) + layer.bias
            read.append(([graph.input_index[f"m{index}"]], stream if decoder.config.parallel else after))
    return [*read, ([len(graph.inputs) - 1], rows.clean.streams[-1])]
