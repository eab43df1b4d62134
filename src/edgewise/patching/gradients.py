"""The metric's gradient at every input and every node, from one differentiable forward pass.

A model's heads all read one stream, so one pass gives the gradient at each layer's queries, keys and values, and a
second, small one per layer carries it back through projection and norm to each head's own input. What a sender's output
would change is kept as z for heads (d_head wide) and goes through W_O layer by layer.

An edge's first-order effect (edge attribution patching) is the change of its sender's output when it is ablated, times
the gradient at its reader: sum over positions of (ã_u - a_u) . dM/dx_r, summed over prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from edgewise.models.decoder import positions_of, stream_dtype
from edgewise.models.forward import Activations, forward
from edgewise.models.matmul import fast_matmul
from edgewise.patching.ablation import Ablated, cut_rows
from edgewise.patching.experiment import Experiment
from edgewise.patching.relevance import relevance_rules
from edgewise.tasks import Prompts, Reference

SENDER_BYTES = 2**28
"""Rows of prompts are attributed together as long as what every node writes for them takes at most this much."""


@dataclass(frozen=True)
class Changed:
    """What a run is changed to at some nodes: the embedding, one layer's heads or one layer's MLP (or nothing)."""

    embedding: Tensor | None = None
    z: dict[int, Tensor] | None = None
    mlp: dict[int, Tensor] | None = None


@dataclass(frozen=True)
class Gradients:
    """dM/d(activation) in one run, for some rows; M is the sum over the rows' scored places, each with its weight.

    Attributes:
        streams: what each layer's heads read, `[batch, pos, d_model]` each.
        q, k, v: at queries, keys and values as they enter attention, per layer `[batch, pos, heads, d_head]`; keys and
            values per key/value head, or per query head in a graph that gives each its own.
        z: at what each head reads, per layer `[batch, pos, heads, d_head]`.
        mlp_inputs, mlp_outputs: per layer `[batch, pos, d_model]`; empty without MLPs.
        final: at the final stream, `[batch, pos, d_model]`.
        relevance: whether gradients follow LRP's rules (relevance.py).
    """

    streams: list[Tensor]
    q: list[Tensor]
    k: list[Tensor]
    v: list[Tensor]
    z: list[Tensor]
    mlp_inputs: list[Tensor]
    mlp_outputs: list[Tensor]
    final: Tensor
    relevance: bool = False


@dataclass(frozen=True)
class Rows:
    """Some rows of an experiment's prompts, with what nodes write on them and what they would carry if ablated.

    `q`, `k` and `v` are the clean run's, per layer `[batch, pos, heads or key/value heads, d_head]`.
    """

    first: int
    stop: int
    prompts: Prompts
    reference: Reference
    clean: Activations
    ablated: Ablated
    q: list[Tensor]
    k: list[Tensor]
    v: list[Tensor]


def rows_of(experiment: Experiment, at_once: int | None = None) -> Iterator[Rows]:
    """The experiment's prompts in pieces that keep memory bounded; what comes out does not depend on their size."""
    task, decoder, graph = experiment.task, experiment.decoder, experiment.graph
    prompts = task.prompts
    if at_once is None:
        width = stream_dtype(decoder.dtype).itemsize * decoder.config.d_model * prompts.clean.shape[1]
        at_once = max(1, min(SENDER_BYTES, experiment.row_bytes) // (width * len(graph.sources)))
    for first in range(0, len(prompts), at_once):
        stop = min(first + at_once, len(prompts))
        rows = prompts.rows(first, stop)
        inside = (prompts.scored_rows >= first) & (prompts.scored_rows < stop)
        with torch.no_grad(), fast_matmul():
            clean = forward(decoder, rows.clean, rows.mask, split_embedding=graph.split_embedding)
            at, q, k, v = positions_of(rows.clean), [], [], []
            for layer, stream in zip(decoder.layers, clean.streams, strict=False):
                x = stream.to(decoder.dtype)[:, :, None]
                q.append(layer.query(x, at))
                k.append(layer.key(x, at))
                v.append(layer.value(x))
        reference = experiment.reference.at(inside)
        ablated = cut_rows(experiment.ablated_activations, first, stop)
        yield Rows(first, stop, rows, reference, clean, ablated, q, k, v)


def gradients_at(
    experiment: Experiment, rows: Rows, weights: Tensor, changed: Changed | None = None, *, relevance: bool = False
) -> Gradients:
    """The gradient of the metric in the model's own run on clean prompts, or in one that is changed at some nodes.

    Args:
        weights: `[scored]`, how much each of the rows' scored places counts.
        changed: what some nodes write instead; the rest follows from that.
        relevance: go backward by LRP's rules.
    """
    decoder, changed = experiment.decoder, changed or Changed()
    config, prompts = decoder.config, rows.prompts
    ungrouped = experiment.graph.n_kv_heads != config.n_kv_heads
    at, allowed = positions_of(prompts.clean), decoder.allowed(prompts.mask)
    embedding = rows.clean.embedding.sum(dim=0) if changed.embedding is None else changed.embedding
    stream = embedding.to(stream_dtype(decoder.dtype)).detach().requires_grad_()
    streams, qs, ks, vs, zs, inputs, outputs = [], [], [], [], [], [], []
    with torch.enable_grad(), fast_matmul(), _rules(relevance):
        for index, layer in enumerate(decoder.layers):
            streams.append(stream.detach())
            x = stream.to(decoder.dtype)[:, :, None]
            q, k, v = layer.query(x, at), layer.key(x, at), layer.value(x)
            many_k, many_v = (one.repeat_interleave(config.share, dim=2) for one in (k, v))
            qs.append(q)
            ks.append(many_k if ungrouped else k)
            vs.append(many_v if ungrouped else v)
            z = layer.attend(q, many_k, many_v, allowed)
            if changed.z is not None and index in changed.z:
                z = changed.z[index].clone().requires_grad_()
            zs.append(z)
            after = stream + layer.write(z).sum(dim=2) + layer.bias
            if layer.mlp is not None:
                read = (stream if config.parallel else after).to(decoder.dtype).clone()  # apart from the stream itself
                inputs.append(read)
                output = layer.mlp(read)
                if changed.mlp is not None and index in changed.mlp:
                    output = changed.mlp[index].clone().requires_grad_()
                outputs.append(output)
                after = after + output
            stream = after
        logits = decoder.logits(stream[prompts.scored_rows, prompts.scored_positions])
        total = (experiment.metric(logits, rows.reference) * weights).sum()
        wanted = [*qs, *ks, *vs, *zs, *inputs, *outputs, stream]
        found = torch.autograd.grad(total, wanted, allow_unused=True)
    # What does not reach the metric has no gradient: heads whose output is replaced, for one.
    filled = iter([torch.zeros_like(one) if got is None else got for one, got in zip(wanted, found, strict=True)])
    lists = [[next(filled) for _ in group] for group in (qs, ks, vs, zs, inputs, outputs)]
    return Gradients(streams, *lists, final=next(filled), relevance=relevance)


def _rules(relevance: bool) -> AbstractContextManager[object]:
    return relevance_rules() if relevance else nullcontext()


def input_gradients(experiment: Experiment, gradients: Gradients, rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """The gradient at the inputs themselves: columns of the edge matrix, and `[columns, batch, pos, d_model]` there.

    In each layer all queries', all keys' and all values' inputs, then the MLP's; the logits' last.
    """
    decoder, graph = experiment.decoder, experiment.graph
    at, dtype = positions_of(rows.prompts.clean), stream_dtype(decoder.dtype)
    share = decoder.config.share
    ungrouped = graph.n_kv_heads != decoder.config.n_kv_heads
    asked = [head // share for head in range(decoder.config.n_heads)] if ungrouped else None
    for index, layer in enumerate(decoder.layers):
        ask: dict[Literal["q", "k", "v"], tuple[Callable[[Tensor], Tensor], Tensor]] = {
            "q": (lambda x, layer=layer: layer.query(x, at), gradients.q[index]),
            "k": (lambda x, layer=layer: layer.key(x, at, asked), gradients.k[index]),
            "v": (lambda x, layer=layer: layer.value(x, asked), gradients.v[index]),
        }
        for kind, (project, gradient) in ask.items():
            # Each head reads a stream of its own, so that its gradient comes back apart.
            stream = gradients.streams[index].to(decoder.dtype)[:, :, None].repeat(1, 1, gradient.shape[2], 1)
            with torch.enable_grad(), fast_matmul(), _rules(gradients.relevance):
                stream.requires_grad_()
                (back,) = torch.autograd.grad(project(stream), stream, gradient)
            yield graph.attention_columns(kind, index), back.permute(2, 0, 1, 3).to(dtype)
        if layer.mlp is not None:
            column = graph.input_index[f"m{index}"]
            yield slice(column, column + 1), gradients.mlp_inputs[index][None].to(dtype)
    last = len(graph.inputs) - 1
    yield slice(last, last + 1), gradients.final[None]


def changes_when_ablated(experiment: Experiment, rows: Rows) -> Tensor:
    """ã_u - a_u for every node, in the residual stream: `[sources, batch, pos, d_model]`."""
    decoder, graph, dtype = experiment.decoder, experiment.graph, stream_dtype(experiment.decoder.dtype)
    clean, ablated = rows.clean, rows.ablated
    shape = (len(graph.sources), *clean.streams[0].shape)
    changes = torch.empty(shape, dtype=dtype, device=decoder.device)
    row = graph.n_embeddings
    changes[:row] = ablated.embedding - clean.embedding
    with torch.no_grad(), fast_matmul():
        for index, layer in enumerate(decoder.layers):
            written = layer.write(ablated.z[index] - clean.z[index])
            changes[row : row + graph.n_heads] = written.permute(2, 0, 1, 3)
            row += graph.n_heads
            if layer.mlp is not None:
                changes[row] = ablated.mlp[index] - clean.mlp[index]
                row += 1
    return changes


def add_edge_effects(
    scores: Tensor, experiment: Experiment, gradients: Gradients, rows: Rows, changes: Tensor, share: float = 1.0
) -> None:
    """Add every edge's first-order effect, times `share`, to `scores` `[sources, inputs]`, in place."""
    flat = changes.flatten(1)
    for columns, gradient in input_gradients(experiment, gradients, rows):
        senders = experiment.graph.n_senders(experiment.graph.inputs[columns.start])
        with torch.no_grad(), fast_matmul():
            effect = flat[:senders] @ gradient.flatten(1).T
        scores[:senders, columns] += share * effect.to(scores.dtype)


def place_weights(experiment: Experiment, rows: Rows) -> Tensor:
    """`[scored]` of some rows: what each place counts in the metric's mean over all scored places."""
    everything = len(experiment.task.prompts.scored_rows)
    places = len(rows.prompts.scored_rows)
    return torch.full(
        (places,), 1 / everything, dtype=experiment.reference.logits.dtype, device=experiment.decoder.device
    )
