"""Information flow routes (IFR; Ferrando and Voita 2024), in the form that EAP-IG and the MIB benchmark use.

How much of an input's stream comes from each sender, by how much nearer the sender's output brings the stream to what
it is: with x_r the stream and a_u the sender's output,

    share(u->r) = max(|x_r| - |x_r - a_u|, 0),   |.| the L1 norm,

divided by the sum over senders, averaged over a prompt's real positions (or those of a span) and then over prompts. It
asks neither for a metric nor for corrupted prompts: it says what the model's streams are made of on these prompts,
whatever the behaviour.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.graph import Circuit
from edgewise.models.components import stream_dtype
from edgewise.models.precision import sum_dtype
from edgewise.patching import Experiment
from edgewise.patching.gradients import Rows, rows_of


@torch.no_grad()
def information_flow(experiment: Experiment, *, progress: StepProgress | None = None) -> Scored:
    """Every edge's share of the stream it leads into, from 0 to 1, as scores on the full circuit.

    All heads of a layer read one stream, so a sender has one score for all their queries, keys and values.
    """
    graph, device = experiment.graph, experiment.decoder.device
    scores = torch.zeros(graph.edges.shape, dtype=sum_dtype(device), device=device)
    for rows in rows_of(experiment):
        outputs = _outputs(experiment, rows)
        weights = _weights(experiment, rows, outputs.dtype)
        for columns, stream in _streams(experiment, rows):
            senders = outputs[: graph.n_senders(graph.inputs[columns[0]])]
            nearer = stream.norm(p=1, dim=-1) - torch.stack([(stream - one).norm(p=1, dim=-1) for one in senders])
            nearer = nearer.clamp_min(0)
            shares = nearer / nearer.sum(dim=0).clamp_min(torch.finfo(nearer.dtype).tiny)
            for span, weight in enumerate(weights):
                found = (shares * weight).sum(dim=(1, 2)) / len(experiment.task)
                scores[: len(senders), columns[span :: graph.n_spans]] += found[:, None].to(scores.dtype)
        if progress is not None:
            progress(rows.stop, len(experiment.task))
    # A port edge has no share of a stream; it is as needed as what its head reads through it.
    found = scores.cpu().numpy()
    return Scored(Circuit.full(graph).with_scores(found, np.where(graph.port_edges, found.max(axis=0), 0.0)))


def _weights(experiment: Experiment, rows: Rows, dtype: torch.dtype) -> Tensor:
    """What each position counts in a prompt's mean, by span: `[spans, batch, pos]`."""
    spans = experiment.span_masks(rows.prompts)
    real = rows.prompts.mask[None] if spans is None else spans
    return real.to(dtype) / real.sum(dim=2, keepdim=True).clamp_min(1)


def _outputs(experiment: Experiment, rows: Rows) -> Tensor:
    """What every node writes, `[sources, batch, pos, d_model]`."""
    parts = list(rows.clean.embedding)
    for component, code in zip(experiment.decoder.components, rows.clean.codes, strict=True):
        parts += list(component.write(code).permute(2, 0, 1, 3))
    return torch.stack([part.to(stream_dtype(experiment.decoder.dtype)) for part in parts])


def _streams(experiment: Experiment, rows: Rows) -> list[tuple[list[int], Tensor]]:
    """The clean streams `[batch, pos, d_model]` and the inputs that read them."""
    streams = rows.clean.streams
    read = [
        ([*rows.wiring.columns_of(component)], streams[at]) for component, at in enumerate(experiment.decoder.reads)
    ]
    last = experiment.graph.columns("logits")
    return [*read, ([*range(last.start, last.stop)], streams[-1])]


METHOD = Method(
    name="information-flow",
    summary="how much of each stream comes from each sender (IFR); knows no metric",
    cost="1 forward",
    paper="Ferrando and Voita 2024",
    when="to compare with the MIB benchmark",
    score=information_flow,
    metric_units=False,
)
