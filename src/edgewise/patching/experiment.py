"""An experiment: a model, a task, an ablation and a metric, which together say what a circuit is worth."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.models import Decoder
from edgewise.models.decoder import stream_dtype
from edgewise.models.forward import forward
from edgewise.patching.ablation import ablate, check_ablation, cut_rows
from edgewise.patching.circuit_run import circuit_run
from edgewise.tasks import Metric, Reference, Task, find_metric, mean_over_places, right_answers


class Experiment:
    """Runs circuits of a model on a task's clean prompts and measures what comes out.

    Attributes:
        decoder, task, graph, ablation, metric: as given.
        row_bytes: rows of prompts are run together as long as what the nodes write for them takes at most this much.
        ablated_activations: what absent edges carry, for all rows of prompts.
        reference: the model's own logits at the scored places, and the answers; for a permuted network, the logits of
            the model that it was made from.
    """

    def __init__(
        self,
        decoder: Decoder,
        task: Task,
        *,
        ablation: str | None = None,
        metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
        graph: Graph | None = None,
        ports: bool = True,
    ) -> None:
        """
        Args:
            ablation, metric: by default the task's.
            graph: by default the model's, with port edges unless `ports` is False. A graph of the same model with a
                key and a value input per query head will do too.

        Raises:
            EdgewiseError: an unknown ablation or metric, one that makes no sense on the task, or another model's graph.
        """
        if task.n_tokens not in (None, decoder.config.n_tokens):
            raise EdgewiseError(
                f"task {task.name!r} was loaded for a model of {task.n_tokens} tokens; model {decoder.name!r} has "
                f"{decoder.config.n_tokens}. Load it for this model"
            )
        self.decoder, self.task, self.row_bytes = decoder, task, 2**30
        self.ablation = task.ablation if ablation is None else ablation
        check_ablation(self.ablation, task)
        self.metric = find_metric(metric, task)
        self.graph = self._graph(graph, ports)
        with torch.no_grad():
            prompts = task.prompts
            self.ablated_activations = ablate(decoder, prompts, self.ablation, task.split_embedding)
            judge = decoder.original or decoder
            clean = forward(judge, prompts.clean, prompts.mask).streams[-1]
            logits = judge.logits(clean[prompts.scored_rows, prompts.scored_positions])
        self.reference = Reference(logits, prompts.answers, prompts.wrong, task.outputs)

    def _graph(self, graph: Graph | None, ports: bool) -> Graph:
        split = self.task.split_embedding
        own = self.decoder.config.graph(ports=ports, split_embedding=split)
        if graph is None:
            return own
        wanted = [
            self.decoder.config.graph(ports=graph.ports, split_embedding=split, ungroup=ungroup)
            for ungroup in (False, True)
        ]
        if graph.shape not in [other.shape for other in wanted]:
            raise EdgewiseError(
                f"the circuit is over another graph: {graph.describe()}, where model {self.decoder.name!r} on task "
                f"{self.task.name!r} has {own.describe()}"
            )
        return graph

    @torch.no_grad()
    def logits(self, circuit: Circuit) -> Tensor:
        """The circuit's logits at the scored places, `[scored, d_vocab]`.

        Raises:
            EdgewiseError: the circuit is over another graph.
        """
        circuit.require_graph(self.graph)
        device = self.decoder.device
        edges = torch.from_numpy(circuit.edges.copy()).to(device)
        ports = torch.from_numpy(circuit.ports.copy()).to(device)
        prompts, pieces = self.task.prompts, []
        step = self.rows_at_once()
        for first in range(0, len(prompts), step):
            stop = min(first + step, len(prompts))
            rows = prompts.rows(first, stop)
            ablated = cut_rows(self.ablated_activations, first, stop)
            final = circuit_run(self.decoder, self.graph, rows.clean, rows.mask, ablated, edges, ports)
            pieces.append(self.decoder.logits(final[rows.scored_rows, rows.scored_positions]))
        return torch.cat(pieces)

    def rows_at_once(self) -> int:
        """How many rows of prompts a circuit run takes at once."""
        config = self.decoder.config
        width = stream_dtype(self.decoder.dtype).itemsize
        # What every node writes, and the streams that one layer's heads read.
        per_row = (
            self.task.prompts.clean.shape[1] * config.d_model * width * (len(self.graph.sources) + 4 * config.n_heads)
        )
        return max(1, self.row_bytes // per_row)

    def within(self, max_memory: int | None) -> Experiment:
        """The same experiment, run in pieces that take at most so many bytes; what it has recorded is shared."""
        if max_memory is None:
            return self
        other = copy.copy(self)
        other.row_bytes = min(self.row_bytes, max_memory // 2)
        return other

    def values(self, circuit: Circuit, metric: Metric | None = None) -> Tensor:
        """A metric at each scored place `[scored]`, by default the experiment's own."""
        return (metric or self.metric)(self.logits(circuit), self.reference)

    def score(self, circuit: Circuit) -> float:
        """The metric of a circuit: its mean over scored places."""
        return mean_over_places(self.values(circuit))

    def full(self) -> float:
        """The metric of the model itself: every edge present."""
        return self.score(Circuit.full(self.graph))

    def accuracy(self) -> float | None:
        """The share of scored places where the model itself is right on the clean prompts; None without answers."""
        logits = self.reference.logits if self.decoder.original is None else self.logits(Circuit.full(self.graph))
        right = right_answers(logits, self.reference)
        return None if right is None else float(right.double().mean())

    @torch.no_grad()
    def ablated(self) -> float:
        """The metric with every edge absent, which is that of the ablated run."""
        prompts = self.task.prompts
        final = self.ablated_activations.final_stream[prompts.scored_rows, prompts.scored_positions]
        return mean_over_places(self.metric(self.decoder.logits(final), self.reference))
