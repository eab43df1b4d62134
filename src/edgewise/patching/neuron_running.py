"""The circuit run of neurons: a forward pass in which neurons that are absent hold their ablated activations.

All heads and all edges are there, so every input reads the one residual stream. The Decoder is one whose MLPs are taken
apart by neuron (`models.neurons`): an MLP's code is its hidden layer, and absent neurons are replaced in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.models import Decoder
from edgewise.models.components import Component, Projections, stream_dtype
from edgewise.models.neurons import NeuronMLP
from edgewise.models.walk import Walk
from edgewise.patching.ablation import Ablated


def neuron_run(decoder: Decoder, tokens: Tensor, mask: Tensor, ablated: Ablated, present: Tensor) -> Tensor:
    """Run a circuit of neurons on clean prompts.

    Args:
        tokens, mask: `[batch, pos]`, the clean prompts and which of their tokens are real.
        ablated: what absent neurons hold, for the same rows.
        present: `[layers, neurons]`, how much of each neuron is present: bool, or float from 0 to 1.

    Returns:
        The final residual stream, `[batch, pos, d_model]`. Differentiable in `present`.
    """
    return _NeuronWalk(decoder, tokens, mask, ablated, present).run()


class _NeuronWalk(Walk):
    """The walk in which each neuron holds its own activation as far as it is present."""

    def __init__(self, decoder: Decoder, tokens: Tensor, mask: Tensor, ablated: Ablated, present: Tensor) -> None:
        super().__init__(decoder, decoder.embed(tokens)[0].to(stream_dtype(decoder.dtype)), mask)
        self.ablated, self.present = ablated, present

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        own = super().code(index, component, projections)
        if not isinstance(component, NeuronMLP):
            return own
        there, gone = self.present[component.layer], self.ablated.codes[index]
        if there.dtype == torch.bool:
            return own if bool(there.all()) else torch.where(there, own, gone)
        return (there * own + (1 - there) * gone).to(own.dtype)
