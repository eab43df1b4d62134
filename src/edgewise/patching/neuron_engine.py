"""The metric of circuits of neurons or features: what lies before a unit is recorded, what lies behind it runs again.

A unit writes linearly, its activation times its row of the output projection. So the stream behind its MLP without it
is the circuit's plus (ã_n - a_n) W_n, and all of one MLP's units go on from there side by side, as rows of one batch.
A circuit run without the unit (`neuron_running.py`) is the definition; `PlainNeuronEngine` makes one for each
candidate, and is the slow twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgewise.graph import NeuronCircuit, of_neurons
from edgewise.graph.graph import Bools
from edgewise.models.components import Component, Projections
from edgewise.models.feature_mlp import FeatureMLP
from edgewise.models.neurons import NeuronMLP
from edgewise.models.precision import in_float64
from edgewise.models.recorded import joined
from edgewise.patching.ablation import Ablated, cut_rows
from edgewise.patching.blocks import InBlocks, computing, whole_runs
from edgewise.patching.engine import Removed, means
from edgewise.patching.experiment import Experiment
from edgewise.patching.memory import plan_memory
from edgewise.patching.neuron_running import Errors, NeuronWalk, entering
from edgewise.patching.scoring import scorer_for
from edgewise.tasks import Prompts


class NeuronEngine(InBlocks):
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
        self.experiment, self.decoder = experiment, experiment.decoder
        plan = plan_memory(self.decoder, experiment.task, experiment.graph, max_memory, "nodes")
        self.rows, self.most = whole_runs(plan, len(experiment.task))
        self.mlps = {
            one.layer: (at, one) for at, one in enumerate(self.decoder.components) if isinstance(one, NeuronMLP)
        }
        units = experiment.graph.units if start is None else start
        self.present = torch.from_numpy(units.copy()).to(self.decoder.device)
        with computing():
            clean, prompts = experiment.clean(), experiment.task.prompts
            final = clean.streams[-1][prompts.scored_rows, prompts.scored_positions]
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, final, plan.chunk)
            self.errors: Errors = [
                one.error_of(code).clone() if isinstance(one, FeatureMLP) else None
                for one, code in zip(self.decoder.components, clean.codes, strict=True)
            ]
            self.streams, self.own = clean.streams, self.decoder.recording()
            for at, _ in self.mlps.values():
                self.own.append(clean.codes[at])
            del clean
            if (units != experiment.graph.units).any():
                self._record()
        self.fresh = len(self.decoder.components)  # streams up to the one before this component are as they are now

    def at_once(self, column: int) -> int:
        """How many candidates of a layer to ask about at once."""
        return self.most

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        """The metric of what is present now without some units of one layer, for each candidate by itself."""
        return means(self.values(column, candidates))

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `patching.engine.PlaceEngine`."""
        if self.mlps[column][0] > self.fresh:
            with computing():
                self._record()
            self.fresh = len(self.decoder.components)
        return self.in_blocks(candidates, lambda block: self._measure(column, block))

    def commit(self, column: int, removed: Removed) -> None:
        """Remove units of one layer for good."""
        if removed:
            self.present[column, [number for number in removed if number is not None]] = False
            self.fresh = min(self.fresh, self.mlps[column][0])

    def _measure(self, layer: int, candidates: Sequence[Removed]) -> Tensor:
        there = torch.ones(len(candidates), self.mlps[layer][1].n_neurons, dtype=torch.bool, device=self.decoder.device)
        for row, some in enumerate(candidates):
            there[row, [number for number in some if number is not None]] = False
        finals = [self._final(layer, there, *piece) for piece in self._pieces()]
        return in_float64(self._score(torch.cat(finals, dim=1)))

    def _pieces(self) -> Iterator[tuple[slice, Prompts, Ablated, Errors]]:
        """Some rows of the prompts at a time, with what is recorded of them."""
        prompts = self.experiment.task.prompts
        for first in range(0, len(prompts), self.rows):
            stop = min(first + self.rows, len(prompts))
            errors = [None if one is None else one[first:stop] for one in self.errors]
            ablated = cut_rows(self.experiment.ablated_activations, first, stop)
            yield slice(first, stop), prompts.rows(first, stop), ablated, errors

    def _record(self) -> None:
        """Run the circuit as it is now; keep its streams, and what a layer's units would hold, were all there."""
        self.streams, self.own, walks = [], [], list[_RecordedWalk]()
        for _, prompts, ablated, errors in self._pieces():
            stream = entering(self.decoder, prompts.clean)
            walks.append(_RecordedWalk(self.decoder, stream, prompts.mask, ablated, self.present, errors))
            walks[-1].run()
        self.streams = joined([walk.streams for walk in walks])
        self.own = joined([walk.held for walk in walks])

    def _final(
        self, layer: int, there: Tensor, rows: slice, prompts: Prompts, ablated: Ablated, errors: Errors
    ) -> Tensor:
        """Final streams `[candidates, scored, d_model]` of some rows, without what is False in `there`."""
        index, mlp = self.mlps[layer]
        gone, own = ~mlp.spread(there), self.own[list(self.mlps).index(layer)][rows]
        used = gone.any(dim=0).nonzero()[:, 0]  # of these alone
        change = ablated.codes[index][:, :, 0, used] - own[:, :, 0, used]
        # [candidates, batch, pos, d_model], by way of what is changed in the code
        written = mlp.write_some(used, gone[:, None, None, used].to(change.dtype) * change)
        before = self.streams[index][rows]
        walk = NeuronWalk(self.decoder, before, prompts.mask.repeat(len(there), 1), ablated, self.present, errors)
        code = walk.mixed(index, mlp, own)
        walk.stream = (before + mlp.write_total(code) + written).flatten(0, 1)
        read = self.streams[self.decoder.reads[index]][rows].repeat(len(there), 1, 1)
        final = walk.run(index + 1, read).unflatten(0, (len(there), -1))
        return final[:, prompts.scored_rows, prompts.scored_positions]


class _RecordedWalk(NeuronWalk):
    """A circuit run that keeps its streams, and what the units of each layer would hold."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.streams, self.held = self.decoder.recording(), self.decoder.recording()
        self.streams.append(self.stream)

    def own(self, index: int, component: Component, projections: Projections) -> Tensor:
        code = super().own(index, component, projections)
        if isinstance(component, NeuronMLP):
            self.held.append(code)
        return code

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        super().wrote(index, component, code)
        self.streams.append(self.stream)


class PlainNeuronEngine:
    """One whole circuit run per candidate: slow, simple, and the judge of the other one."""

    def __init__(self, experiment: Experiment, start: Bools, max_memory: int | None = None) -> None:
        self.experiment, self.present = experiment.within(max_memory), start.copy()

    def at_once(self, column: int) -> int:
        return 1

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        return [self.experiment.value(self._without(column, removed)) for removed in candidates]

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `patching.engine.PlaceEngine`."""
        return torch.stack([in_float64(self.experiment.values(self._without(column, one))) for one in candidates])

    def _without(self, column: int, removed: Removed) -> NeuronCircuit:
        present = self.present.copy()
        present[column, [number for number in removed if number is not None]] = False
        return of_neurons(self.experiment.graph, present)

    def commit(self, column: int, removed: Removed) -> None:
        self.present[column, [number for number in removed if number is not None]] = False
