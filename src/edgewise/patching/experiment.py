"""An experiment: a model, a task, an ablation and a metric, which together say what a circuit is worth."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, NeuronCircuit
from edgewise.models import Decoder
from edgewise.models.feature_mlp import has_features, taken_apart
from edgewise.models.forward import Activations, final_stream
from edgewise.models.precision import in_float64
from edgewise.patching.ablation import Ablation, ablate, check_ablation, constants_of, cut_rows
from edgewise.patching.memory import MemoryKind, MemoryPlan, forward_in_pieces, memory_of
from edgewise.patching.optimal import learn_constants
from edgewise.patching.runner import runner_of
from edgewise.tasks import Metric, Prompts, Reference, Task, find_metric, mean_over_places, right_answers
from edgewise.tasks.spans import told_apart, with_spans

ROW_BYTES = 2**30
"""What a circuit run of some rows of prompts takes at most, unless it may take less."""


class Experiment:
    """Runs circuits of a model on a task's clean prompts and measures what comes out.

    Attributes:
        decoder, task, graph, metric: as given.
        ablation: its name; `carried`, the same with all that makes it this one, to ablate other prompts alike.
        row_bytes: rows of prompts are run together as long as a circuit run of them takes at most this much.
        recorded_at_once: how many rows of prompts are recorded together.
        ablated_activations: what absent edges carry, for all rows of prompts.
        reference: the model's own logits at the scored places, and the answers; for a permuted network, the logits of
            the model that it was made from.
    """

    def __init__(
        self,
        decoder: Decoder,
        task: Task,
        *,
        ablation: str | Ablation | None = None,
        metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
        graph: Graph | None = None,
        ports: bool = True,
        whole_heads: bool = False,
        positions: str = "together",
        neurons: bool = False,
        max_memory: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """
        Args:
            ablation, metric: by default the task's. An ablation that learns does so here, on the task's prompts.
            graph: by default the model's, with port edges unless `ports` is False, or whole heads. A graph of the same
                model with a key and a value input per query head will do too, or with whole heads, or spans.
            positions: which of them the model's own graph tells apart: none (`together`), `each`, or the task's
                `spans`.
            neurons: tell each MLP's neurons apart, for circuits that choose among them; there are no port edges then.
                A graph that tells them apart asks for the same. A Decoder that is taken apart by feature (`by_feature`)
                has those told apart.
            max_memory: bytes that it may use beyond the model's weights; by default what the machine has. What it
                cannot do without it takes all the same: see `plan_memory`.
            progress: called with steps done and all steps while an ablation learns.

        Raises:
            EdgewiseError: an unknown ablation or metric, one that makes no sense on the task, or another model's graph;
                or the model's neurons cannot be told apart.
        """
        if task.n_tokens not in (None, decoder.config.n_tokens):
            raise EdgewiseError(
                f"task {task.name!r} was loaded for a model of {task.n_tokens} tokens; model {decoder.name!r} has "
                f"{decoder.config.n_tokens}. Load it for this model"
            )
        if graph is None:
            task, spans = told_apart(task, positions)
        else:
            task, spans = with_spans(task, graph.spans), graph.spans
        features = has_features(decoder)
        if neurons or features or (graph is not None and graph.neurons):
            decoder, ports = taken_apart(decoder, features=features if graph is None else bool(graph.features)), False
            task = replace(task, known_circuit=None)  # which is about edges
        self.decoder, self.task = decoder, task
        self.carried = Ablation.of(task.ablation if ablation is None else ablation)
        self.ablation = self.carried.name
        check_ablation(self.carried, task)
        if features and self.ablation == "optimal":
            raise EdgewiseError(
                "ablation 'optimal' learns constants of nodes and neurons, not of features and errors; take 'mean'"
            )
        self.metric = find_metric(metric, task)
        self.graph = self._graph(graph, ports, whole_heads, spans)
        plan = memory_of(decoder, task, self.graph, max_memory, over=self.carried.over)
        self.recorded_at_once = plan.rows_at_once(plan.recording, plan.held + plan.clean)
        self.row_bytes = ROW_BYTES
        if max_memory is not None:
            self.row_bytes = self.within(max_memory).row_bytes
        self.reference = Reference.of(task, self._own_logits(decoder.original or decoder))
        self.carried = self._worked_out(plan, progress)
        self.ablated_activations = ablate(
            decoder, task.prompts, self.carried, task.split_embedding, self.recorded_at_once
        )

    def _worked_out(self, plan: MemoryPlan, progress: Callable[[int, int], None] | None) -> Ablation:
        """The ablation, with constants that other prompts are to be ablated with as well."""
        carried, prompts, split = self.carried, self.task.prompts, self.task.split_embedding
        if carried.constants is not None:
            return carried
        if carried.name == "optimal":
            rows = plan.rows_at_once(plan.learned_row, plan.logits)
            return replace(carried, constants=learn_constants(self, carried.seed, rows_at_once=rows, progress=progress))
        if carried.over is not None:
            limit = ROW_BYTES if plan.limit is None else min(plan.limit, ROW_BYTES)
            rows = max(1, limit // plan.text_row)
            return replace(carried, constants=constants_of(self.decoder, prompts, carried, split, rows))
        return carried

    @torch.no_grad()
    def _own_logits(self, judge: Decoder) -> Tensor:
        """The model's own logits at the scored places, `[scored, d_vocab]`."""
        prompts, step, pieces = self.task.prompts, self.recorded_at_once, []
        for first in range(0, len(prompts), step):
            rows = prompts.rows(first, min(first + step, len(prompts)))
            final = final_stream(judge, rows.clean, rows.mask)
            pieces.append(judge.logits(final[rows.scored_rows, rows.scored_positions]))
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _model_logits(self) -> Tensor:
        """The same of the experiment's own model: the reference's, unless those are of the one it was permuted from."""
        return self.reference.logits if self.decoder.original is None else self._own_logits(self.decoder)

    def clean(self) -> Activations:
        """The model's own run on the clean prompts, all rows of them."""
        prompts, split = self.task.prompts, self.graph.split_embedding
        return forward_in_pieces(
            self.decoder, prompts.clean, prompts.mask, rows=self.recorded_at_once, split_embedding=split
        )

    def _graph(self, graph: Graph | None, ports: bool, whole: bool, spans: tuple[str, ...]) -> Graph:
        split = self.task.split_embedding
        own = self.decoder.graph(ports=ports, split_embedding=split, whole_heads=whole, spans=spans)
        if graph is None:
            return own
        wanted = [
            self.decoder.graph(
                ports=graph.ports, split_embedding=split, ungroup=ungroup, whole_heads=graph.whole_heads, spans=spans
            )
            for ungroup in (False, True)
        ]
        if graph.shape not in [other.shape for other in wanted]:
            raise EdgewiseError(
                f"the circuit is over another graph: {graph.describe()}, where model {self.decoder.name!r} on task "
                f"{self.task.name!r} has {own.describe()}"
            )
        return replace(graph, coupled=own.coupled)  # a circuit file of another tool does not say it

    @torch.no_grad()
    def logits(self, circuit: Circuit) -> Tensor:
        """The circuit's logits at the scored places, `[scored, d_vocab]`.

        Raises:
            EdgewiseError: the circuit is over another graph.
        """
        circuit = circuit.on(self.graph)
        run, prompts, pieces = runner_of(self.decoder, self.graph, circuit), self.task.prompts, []
        step = self.rows_at_once()
        for first in range(0, len(prompts), step):
            stop = min(first + step, len(prompts))
            rows = prompts.rows(first, stop)
            ablated = cut_rows(self.ablated_activations, first, stop)
            final = run(rows.clean, rows.mask, ablated, rows.spans)
            pieces.append(self.decoder.logits(final[rows.scored_rows, rows.scored_positions]))
        return torch.cat(pieces)

    def span_masks(self, prompts: Prompts) -> Tensor | None:
        """`[spans, rows, pos]`, the positions of each of the graph's spans; None if it has none."""
        if not self.graph.spans:
            return None
        assert prompts.spans is not None
        return torch.stack([prompts.spans == number for number in range(self.graph.n_spans)])

    def rows_at_once(self) -> int:
        """How many rows of prompts a circuit run takes at once."""
        plan = memory_of(self.decoder, self.task, self.graph)
        return max(1, self.row_bytes // plan.circuit_row)

    def within(self, max_memory: int | None, kind: MemoryKind = "runs") -> Experiment:
        """The same experiment, run in pieces that keep a method of some kind within so many bytes.

        What it has recorded is shared.
        """
        if max_memory is None:
            return self
        plan, other = memory_of(self.decoder, self.task, self.graph, max_memory), copy.copy(self)
        row = {"masks": plan.mask_row, "gradients": plan.gradient_row, "probing": plan.probe_row}.get(
            kind, plan.circuit_row
        )
        rows = plan.rows_at_once(row, plan.held + plan.logits)
        # Gradients count rows by what nodes write, circuit runs by what they take.
        circuit_run = kind in ("runs", "search", "every edge")
        each = plan.circuit_row if circuit_run else len(self.graph.sources) * plan.stream // plan.rows
        other.row_bytes = min(self.row_bytes, rows * each)
        return other

    def of_rows(self, first: int, stop: int) -> Experiment:
        """The same on rows `first` to `stop` of the prompts. What it has recorded is shared."""
        prompts, other = self.task.prompts, copy.copy(self)
        inside = (prompts.scored_rows >= first) & (prompts.scored_rows < stop)
        other.task = self.task.of_rows(first, stop)
        other.reference = self.reference.at(inside)
        other.ablated_activations = cut_rows(self.ablated_activations, first, stop)
        return other

    def values(self, circuit: Circuit, metric: Metric | None = None) -> Tensor:
        """A metric at each scored place `[scored]`, by default the experiment's own."""
        return (metric or self.metric)(self.logits(circuit), self.reference)

    def value(self, circuit: Circuit) -> float:
        """The metric of a circuit: its mean over scored places."""
        return mean_over_places(self.values(circuit))

    def full(self) -> float:
        """The metric of the model itself, which is the circuit of all edges, by its own run."""
        return mean_over_places(self.metric(self._model_logits(), self.reference))

    def accuracy(self) -> float | None:
        """The share of scored places where the model itself is right on the clean prompts; None without answers."""
        right = right_answers(self._model_logits(), self.reference)
        return None if right is None else float(in_float64(right).mean())

    @torch.no_grad()
    def ablated(self) -> float:
        """The metric with every edge absent, as in the ablated run; of a graph of neurons, with every neuron absent."""
        if self.graph.neurons:
            return self.value(NeuronCircuit.empty(self.graph))
        prompts = self.task.prompts
        final = self.ablated_activations.streams[-1][prompts.scored_rows, prompts.scored_positions]
        return mean_over_places(self.metric(self.decoder.logits(final), self.reference))
