"""The metric of circuits of neurons or features: what lies before a unit is recorded, what lies behind it runs again.

A unit writes linearly, its activation times its row of the output projection. So the stream behind its MLP without it
is the circuit's plus (ã_n - a_n) W_n, and all of one MLP's units go on from there side by side, as rows of one batch.
A circuit run without the unit (`neuron_running.py`) is the definition; `PlainNeuronEngine` makes one for each
candidate, and is the slow twin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgewise.graph import NeuronCircuit, of_neurons
from edgewise.graph.graph import Bools
from edgewise.models.components import Component, Projections
from edgewise.models.feature_mlp import FeatureMLP
from edgewise.models.forward import entering
from edgewise.models.neurons import NeuronMLP
from edgewise.models.precision import in_float64
from edgewise.models.recorded import Recorded, joined
from edgewise.patching.ablation import Ablated
from edgewise.patching.blocks import RunsOn, computing
from edgewise.patching.engine import PlainRuns, Removed
from edgewise.patching.experiment import Experiment
from edgewise.patching.neuron_running import Errors, NeuronWalk
from edgewise.patching.scoring import scorer_for
from edgewise.tasks import Prompts


class NeuronEngine(RunsOn):
    """Measures circuits of neurons from the MLP on in which they differ (see `patching.Engine`).

    Its columns are layers; what goes is numbers of the units of a layer.
    """

    def __init__(self, experiment: Experiment, start: Bools | None = None, max_memory: int | None = None) -> None:
        """
        Args:
            experiment: of a graph that tells neurons or features apart.
            start: `[layers, neurons]`, which of them are present; by default all.
            max_memory: bytes that may be used beyond the model's weights (see `plan_memory`).

        Raises:
            EdgewiseError: it cannot be done in so little.
        """
        super().__init__(experiment, max_memory)
        self.mlps = {
            one.layer: (at, one) for at, one in enumerate(self.decoder.components) if isinstance(one, NeuronMLP)
        }
        units = experiment.graph.units if start is None else start
        self.present = torch.from_numpy(units.copy()).to(self.decoder.device)
        with computing():
            clean, prompts = experiment.clean(), experiment.task.prompts
            final = clean.streams[-1][prompts.scored_rows, prompts.scored_positions]
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, final, self.plan.chunk)
            self.errors: list[Tensor | None] = []
            self.streams, self.own = clean.streams, self.decoder.recording()
            for one, code in zip(self.decoder.components, clean.codes, strict=True):
                self.errors.append(one.error_of(code).clone() if isinstance(one, FeatureMLP) else None)
                if isinstance(one, NeuronMLP):
                    self.own.append(code)
        if (units != experiment.graph.units).any():
            self.fresh = 0  # what is recorded is the model's own run

    def component(self, column: int) -> int:
        return self.mlps[column][0]

    def commit(self, column: int, removed: Removed) -> None:
        """Remove units of one layer for good."""
        if removed:
            self.present[column, [number for number in removed if number is not None]] = False
            self.fresh = min(self.fresh, self.mlps[column][0])

    def _measure(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        there = torch.ones(
            len(candidates), self.mlps[column][1].n_neurons, dtype=torch.bool, device=self.decoder.device
        )
        for row, some in enumerate(candidates):
            there[row, [number for number in some if number is not None]] = False
        finals = [self._final(column, there, *piece) for piece in self.pieces()]
        return in_float64(self._score(torch.cat(finals, dim=1)))

    def _errors(self, rows: slice) -> Errors:
        return [None if one is None else one[rows] for one in self.errors]

    def record(self) -> None:
        """Run the circuit as it is now; keep its streams, and what a layer's units would hold, were all there."""
        self.streams, self.own, walks = [], [], list[_RecordedWalk]()
        for rows, prompts, ablated in self.pieces():
            stream, errors = entering(self.decoder, prompts.clean), self._errors(rows)
            walks.append(_RecordedWalk(self.decoder, stream, prompts.mask, ablated, self.present, errors))
            walks[-1].run()
        self.streams = joined([walk.streams for walk in walks])
        self.own = joined([walk.held for walk in walks])

    def _final(self, layer: int, there: Tensor, rows: slice, prompts: Prompts, ablated: Ablated) -> Tensor:
        """Final streams `[candidates, scored, d_model]` of some rows, without what is False in `there`."""
        index, mlp = self.mlps[layer]
        gone, own = ~mlp.spread(there), self.own[list(self.mlps).index(layer)][rows]
        used = gone.any(dim=0).nonzero()[:, 0]  # of these alone
        change = ablated.codes[index][:, :, 0, used] - own[:, :, 0, used]
        # [candidates, batch, pos, d_model], by way of what is changed in the code
        written = mlp.write_some(used, gone[:, None, None, used].to(change.dtype) * change)
        before = self.streams[index][rows]
        mask, errors = prompts.mask.repeat(len(there), 1), self._errors(rows)
        walk = NeuronWalk(self.decoder, before, mask, ablated, self.present, errors)
        code = walk.mixed(index, mlp, own)
        walk.stream = (before + mlp.write_total(code) + written).flatten(0, 1)
        read = self.streams[self.decoder.reads[index]][rows].repeat(len(there), 1, 1)
        final = walk.run(index + 1, read).unflatten(0, (len(there), -1))
        return final[:, prompts.scored_rows, prompts.scored_positions]


class _RecordedWalk(NeuronWalk):
    """A circuit run that keeps the streams before components, and what the units of each layer would hold."""

    def run(self, first: int = 0, read: Tensor | None = None) -> Tensor:
        self.streams: Recorded[Tensor] = self.decoder.recording()
        self.held: Recorded[Tensor] = self.decoder.recording()
        return super().run(first, read)

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        self.streams.append(self.stream)
        return super().code(index, component, projections)

    def mixed(self, index: int, component: NeuronMLP, own: Tensor) -> Tensor:
        self.held.append(own)
        return super().mixed(index, component, own)


class PlainNeuronEngine(PlainRuns):
    """Plain runs of circuits of neurons or features."""

    def __init__(self, experiment: Experiment, start: Bools, max_memory: int | None = None) -> None:
        self.experiment, self.present = experiment.within(max_memory), start.copy()

    def without(self, column: int, removed: Removed) -> NeuronCircuit:
        present = self.present.copy()
        present[column, [number for number in removed if number is not None]] = False
        return of_neurons(self.experiment.graph, present)

    def commit(self, column: int, removed: Removed) -> None:
        self.present[column, [number for number in removed if number is not None]] = False
