"""The metric's gradient at every input and every node, from one differentiable forward pass.

A model's heads all read one stream, so one pass gives the gradient at each layer's queries, keys and values, and a
second, small one per layer carries it back through projection and norm to each head's own input. What a sender's output
would change is kept as z for heads (d_head wide) and goes through W_O layer by layer.

An edge's first-order effect (edge attribution patching) is the change of its sender's output when it is ablated, times
the gradient at its reader: sum over positions of (ã_u - a_u) . dM/dx_r, summed over prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from edgewise.graph import Graph
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.decoder import positions_of
from edgewise.models.feature_mlp import FeatureMLP
from edgewise.models.forward import Activations, forward
from edgewise.models.matmul import fast_matmul
from edgewise.models.neurons import NeuronMLP
from edgewise.models.precision import widened
from edgewise.models.walk import Walk
from edgewise.patching.ablation import Ablated, cut_rows
from edgewise.patching.experiment import Experiment
from edgewise.patching.memory import GATHERED
from edgewise.patching.relevance import relevance_rules
from edgewise.patching.running import places_of
from edgewise.patching.wiring import Wiring
from edgewise.tasks import Prompts, Reference

T = TypeVar("T")

SENDER_BYTES = 2**28
"""Rows of prompts are attributed together as long as what every node writes for them takes at most this much."""


@dataclass(frozen=True)
class Changed:
    """What a run is changed to at some nodes: the embedding, or all nodes of some components (or nothing).

    `errors` is how far errors of dictionaries, which nothing feeds, as nothing feeds the embedding, are on their way
    from the ablated run's (0) to the model's own (1).
    """

    embedding: Tensor | None = None
    codes: Mapping[int, Tensor] = field(default_factory=dict)
    errors: float = 1.0


@dataclass(frozen=True)
class Gradients:
    """dM/d(activation) in one run, for some rows; M is the sum over the rows' scored places, each with its weight.

    Attributes:
        reads: per component, the stream that its inputs read in this run, `[batch, pos, d_model]`.
        projections: per component and kind, at what its inputs make of it, `[batch, pos, inputs, width]`; keys and
            values per key/value head, or per query head in a graph that gives each its own.
        codes: per component, at what its nodes hold, `[batch, pos, nodes, width]`.
        final: at the final stream, `[batch, pos, d_model]`.
        embedding: at the stream that enters the first component, likewise.
        relevance: whether gradients follow LRP's rules (relevance.py).
    """

    reads: list[Tensor]
    projections: list[Projections]
    codes: list[Tensor]
    final: Tensor
    embedding: Tensor
    relevance: bool = False


@dataclass(frozen=True)
class Rows:
    """Some rows of an experiment's prompts, with what nodes write on them and what they would carry if ablated."""

    first: int
    stop: int
    prompts: Prompts
    reference: Reference
    clean: Activations
    ablated: Ablated
    wiring: Wiring

    def places(self, graph: Graph) -> list[Tensor | None]:
        """The positions of each of a graph's spans, in the rows laid end to end; None for all of them."""
        if not graph.spans:
            return [None]
        assert self.prompts.spans is not None
        return [*places_of(self.prompts.spans, graph)]


def rows_of(experiment: Experiment, at_once: int | None = None) -> Iterator[Rows]:
    """The experiment's prompts in pieces that keep memory bounded; what comes out does not depend on their size."""
    task, decoder, graph = experiment.task, experiment.decoder, experiment.graph
    prompts, wiring = task.prompts, Wiring.of(decoder, graph)
    if at_once is None:
        number = stream_dtype(decoder.dtype).itemsize * prompts.clean.shape[1]
        width = number * decoder.config.d_model
        units = number * graph.n_neurons if graph.features else 0  # which may be many times as wide
        at_once = max(1, min(SENDER_BYTES, experiment.row_bytes) // max(width * len(graph.sources), units))
    for first in range(0, len(prompts), at_once):
        stop = min(first + at_once, len(prompts))
        rows = prompts.rows(first, stop)
        inside = (prompts.scored_rows >= first) & (prompts.scored_rows < stop)
        with torch.no_grad(), fast_matmul():
            split = graph.split_embedding
            clean = forward(decoder, rows.clean, rows.mask, split_embedding=split, keep_projections=True)
        reference = experiment.reference.at(inside)
        ablated = cut_rows(experiment.ablated_activations, first, stop)
        yield Rows(first, stop, rows, reference, clean, ablated, wiring)


class _Tracked(Walk):
    """The model's own run, or one changed at some nodes, with a gradient at every projection and code."""

    def __init__(self, experiment: Experiment, rows: Rows, changed: Changed) -> None:
        decoder = experiment.decoder
        embedding = rows.clean.embedding.sum(dim=0) if changed.embedding is None else changed.embedding
        stream = embedding.to(stream_dtype(decoder.dtype)).detach().requires_grad_()
        super().__init__(decoder, stream, rows.prompts.mask)
        self.entered = stream
        self.changed, self.rows, self.wiring = changed, rows, rows.wiring
        self.reads: list[Tensor] = []
        self.projected: list[Projections] = []
        self.codes: list[Tensor] = []

    def projections(self, index: int, component: Component) -> Projections:
        found = super().projections(index, component)
        self.reads.append(self._read.detach())
        for kind, which in self.wiring.asked[index].items():
            if which is not None:
                found[kind] = found[kind][:, :, which]
        # An MLP's projection is the stream itself: its own gradient is apart from the stream's.
        self.projected.append({kind: one.clone() if kind == "mlp" else one for kind, one in found.items()})
        return self.projected[-1]

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        if index in self.changed.codes:
            self.codes.append(self.changed.codes[index].clone().requires_grad_())
        elif isinstance(component, FeatureMLP):  # its error is given, whatever it reads
            ablated, clean = (component.error_of(run.codes[index]) for run in (self.rows.ablated, self.rows.clean))
            error = torch.lerp(ablated, clean, self.changed.errors)
            self.codes.append(component.with_error(projections, error))
        else:
            self.codes.append(super().code(index, component, projections))
        return self.codes[-1]


def gradients_at(
    experiment: Experiment, rows: Rows, weights: Tensor, changed: Changed | None = None, *, relevance: bool = False
) -> Gradients:
    """The gradient of the metric in the model's own run on clean prompts, or in one that is changed at some nodes.

    Args:
        weights: `[scored]`, how much each of the rows' scored places counts.
        changed: what some nodes write instead; the rest follows from that.
        relevance: go backward by LRP's rules.
    """
    prompts = rows.prompts
    with torch.enable_grad(), fast_matmul(), _rules(relevance):
        walk = _Tracked(experiment, rows, changed or Changed())
        final = walk.run()
        logits = experiment.decoder.logits(final[prompts.scored_rows, prompts.scored_positions])
        total = (experiment.metric(logits, rows.reference) * weights).sum()
        wanted = [*(one for each in walk.projected for one in each.values()), *walk.codes, final, walk.entered]
        found = torch.autograd.grad(total, wanted, allow_unused=True)
    # What does not reach the metric has no gradient: heads whose output is replaced, for one.
    filled = iter([torch.zeros_like(one) if got is None else got for one, got in zip(wanted, found, strict=True)])
    projections: list[Projections] = [{kind: next(filled) for kind in each} for each in walk.projected]
    codes = [next(filled) for _ in walk.codes]
    return Gradients(walk.reads, projections, codes, next(filled), next(filled), relevance)


def _rules(relevance: bool) -> AbstractContextManager[object]:
    return relevance_rules() if relevance else nullcontext()


def input_gradients(experiment: Experiment, gradients: Gradients, rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """The gradient at the inputs themselves: columns of the edge matrix, and `[inputs, batch, pos, d_model]` there.

    In each layer all queries', all keys' and all values' inputs, then the MLP's; the logits' last. Whole heads' columns
    come once for each of the three, whose sum is theirs. An input has a column for every span, if the graph has spans.
    """
    decoder, wiring = experiment.decoder, rows.wiring
    at, dtype = positions_of(rows.prompts.clean), stream_dtype(decoder.dtype)
    for index, component in enumerate(decoder.components):
        for kind, columns in wiring.columns[index].items():
            # Each input reads a stream of its own, so that its gradient comes back apart.
            gradient = gradients.projections[index][kind]
            stream = gradients.reads[index].to(decoder.dtype)[:, :, None].repeat(1, 1, gradient.shape[2], 1)
            with torch.enable_grad(), fast_matmul(), _rules(gradients.relevance):
                stream.requires_grad_()
                projected = component.project(kind, stream, at, wiring.asked[index][kind])
                (back,) = torch.autograd.grad(projected, stream, gradient)
            yield columns, back.permute(2, 0, 1, 3).to(dtype)
    yield experiment.graph.columns("logits"), gradients.final[None]


def changes_when_ablated(experiment: Experiment, rows: Rows) -> Tensor:
    """ã_u - a_u for every node, in the residual stream: `[sources, batch, pos, d_model]`."""
    decoder, dtype = experiment.decoder, stream_dtype(experiment.decoder.dtype)
    clean, ablated = rows.clean, rows.ablated
    shape = (len(experiment.graph.sources), *clean.streams[0].shape)
    changes = torch.empty(shape, dtype=dtype, device=decoder.device)
    changes[: len(clean.embedding)] = ablated.embedding - clean.embedding
    with torch.no_grad(), fast_matmul():
        for index, component in enumerate(decoder.components):
            written = component.write(ablated.codes[index] - clean.codes[index])
            changes[rows.wiring.rows[index]] = written.permute(2, 0, 1, 3)
    return changes


def add_edge_effects(
    scores: Tensor, experiment: Experiment, gradients: Gradients, rows: Rows, changes: Tensor, share: float = 1.0
) -> None:
    """Add every edge's first-order effect, times `share`, to `scores` `[sources, inputs]`, in place."""
    graph, places = experiment.graph, rows.places(experiment.graph)
    parts = [_at(changes, one) for one in places]
    for together in gathered(input_gradients(experiment, gradients, rows), lambda one: len(one[1])):
        several = together[0][1] if len(together) == 1 else torch.cat([gradient for _, gradient in together])
        senders = [graph.n_senders(graph.inputs[columns.start]) for columns, _ in together]
        for span, (part, at) in enumerate(zip(parts, places, strict=True)):
            with torch.no_grad(), fast_matmul():
                effects = part[: max(senders)] @ _at(several, at).T
            first = 0
            for (columns, gradient), count in zip(together, senders, strict=True):
                effect = effects[:count, first : first + len(gradient)]
                scores[:count, columns.start + span : columns.stop : graph.n_spans] += share * effect.to(scores.dtype)
                first += len(gradient)


def gathered(found: Iterable[T], inputs: Callable[[T], int]) -> Iterator[list[T]]:
    """What there is for some inputs each, in groups of at least `GATHERED` inputs, the last one aside.

    What all senders change is far more than a cache holds, and each product reads it once, however many inputs it has.
    """
    together: list[T] = []
    for one in found:
        together.append(one)
        if sum(map(inputs, together)) >= GATHERED:
            yield together
            together = []
    if together:
        yield together


def _at(x: Tensor, places: Tensor | None) -> Tensor:
    """`[n, batch, pos, width]` at some places, or all: `[n, places * width]`."""
    return x.flatten(1) if places is None else x.flatten(1, 2)[:, places].flatten(1)


def add_node_effects(scores: Tensor, gradients: Gradients, rows: Rows, share: float = 1.0) -> None:
    """Add every node's first-order effect, times `share`, to `scores` `[sources]`, in place.

    It is the change of what a node holds when it is ablated times the gradient there, summed over positions and
    prompts: that of all edges from it together.
    """
    with torch.no_grad():
        change = rows.ablated.embedding - rows.clean.embedding
        effects = [widened(change * gradients.embedding).sum(dim=(1, 2, 3))]
        for clean, ablated, gradient in zip(rows.clean.codes, rows.ablated.codes, gradients.codes, strict=True):
            effects.append(widened((ablated - clean) * gradient).sum(dim=(0, 1, 3)))
        scores += share * torch.cat(effects)


def add_neuron_effects(
    scores: Tensor, components: Sequence[Component], gradients: Gradients, rows: Rows, share: float = 1.0
) -> None:
    """Add every neuron's first-order effect, times `share`, to `scores` `[layers, neurons]`, in place.

    It is the change of its activation when it is ablated times the gradient there, summed over positions and prompts.
    """
    with torch.no_grad():
        for index, component in enumerate(components):
            if isinstance(component, NeuronMLP):
                change = rows.ablated.codes[index] - rows.clean.codes[index]
                effect = component.gathered(widened(change * gradients.codes[index]).sum(dim=(0, 1, 2)))
                scores[component.layer, : len(effect)] += share * effect


def place_weights(experiment: Experiment, rows: Rows) -> Tensor:
    """`[scored]` of some rows: what each place counts in the metric's mean over all scored places."""
    everything = len(experiment.task.prompts.scored_rows)
    places = len(rows.prompts.scored_rows)
    return torch.full(
        (places,), 1 / everything, dtype=experiment.reference.logits.dtype, device=experiment.decoder.device
    )
