"""The metric without single neurons: what lies before a neuron is recorded once, what lies behind it runs again.

A neuron writes linearly, its activation times its row of the output projection. So the stream behind its MLP without it
is the model's own plus (ã_n - a_n) W_n, and all of one MLP's neurons go on from there side by side, as rows of one
batch. A circuit run without the neuron (`neuron_running.py`) is the definition, and the slow twin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgewise.models.neurons import NeuronMLP
from edgewise.models.precision import in_float64
from edgewise.models.walk import Walk
from edgewise.patching.ablation import cut_rows
from edgewise.patching.blocks import InBlocks, computing, whole_runs
from edgewise.patching.engine import Removed, means
from edgewise.patching.experiment import Experiment
from edgewise.patching.memory import plan_memory
from edgewise.patching.scoring import scorer_for


class NeuronEngine(InBlocks):
    """Measures the model without some of one MLP's neurons, for several choices of them at once.

    A candidate is the numbers of the neurons that go together; most often of one.
    """

    def __init__(self, experiment: Experiment, max_memory: int | None = None) -> None:
        """
        Args:
            experiment: of a graph that tells neurons apart.
            max_memory: bytes that may be used beyond the model's weights (see `plan_memory`).

        Raises:
            EdgewiseError: it cannot be done in so little.
        """
        self.experiment, self.decoder = experiment, experiment.decoder
        plan = plan_memory(self.decoder, experiment.task, experiment.graph, max_memory, "nodes")
        self.rows, self.most = whole_runs(plan, len(experiment.task))
        components = enumerate(self.decoder.components)
        self.mlps = {one.layer: (at, one) for at, one in components if isinstance(one, NeuronMLP)}
        with computing():
            self.clean, prompts = experiment.clean(), experiment.task.prompts
            final = self.clean.streams[-1][prompts.scored_rows, prompts.scored_positions]
            self._score = scorer_for(self.decoder, experiment.metric, experiment.reference, final, plan.chunk)

    def measure(self, layer: int, candidates: Sequence[Removed]) -> list[float]:
        """The metric without some neurons of the MLP of `layer`, for each candidate by itself."""
        return means(self.in_blocks(candidates, lambda block: self._measure(layer, block)))

    def _measure(self, layer: int, candidates: Sequence[Removed]) -> Tensor:
        gone = torch.zeros(len(candidates), self.mlps[layer][1].n_neurons, device=self.decoder.device)
        for row, some in enumerate(candidates):
            gone[row, [number for number in some if number is not None]] = 1
        finals = [self._final(layer, gone, first) for first in range(0, len(self.experiment.task), self.rows)]
        return in_float64(self._score(torch.cat(finals, dim=1)))

    def _final(self, layer: int, gone: Tensor, first: int) -> Tensor:
        """Final streams `[candidates, scored, d_model]` of some rows, without what is 1 in `gone`."""
        stop = min(first + self.rows, len(self.experiment.task))
        prompts, rows = self.experiment.task.prompts.rows(first, stop), slice(first, stop)
        index, mlp = self.mlps[layer]
        used = gone.any(dim=0).nonzero()[:, 0]  # of these alone
        ablated = cut_rows(self.experiment.ablated_activations, first, stop).codes[index]
        change = ablated[:, :, 0, used] - self.clean.codes[index][rows, :, 0, used]
        # [candidates, batch, pos, d_model], by way of what is changed in the hidden layer
        written = mlp.write_some(used, gone[:, None, None, used].to(change.dtype) * change)
        stream = self.clean.streams[index + 1][rows] + written
        walk = Walk(self.decoder, stream.flatten(0, 1), prompts.mask.repeat(len(gone), 1))
        read = self.clean.streams[self.decoder.reads[index]][rows].repeat(len(gone), 1, 1)
        final = walk.run(index + 1, read).unflatten(0, (len(gone), -1))
        return final[:, prompts.scored_rows, prompts.scored_positions]
