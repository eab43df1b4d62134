"""The circuit run of neurons: a forward pass in which neurons that are absent hold their ablated activations.

All heads and all edges are there, so every input reads the one residual stream. The Decoder is one whose MLPs are taken
apart by neuron (`models.neurons`): an MLP's code is its hidden layer, and absent neurons are replaced in it. Or by
feature (`models.feature_mlp`): features are encoded anew from what their layer reads in this run, and a layer's error
is a constant, that of the model's own run on the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgewise.models import Decoder
from edgewise.models.components import Component, Projections
from edgewise.models.feature_mlp import FeatureMLP, has_features
from edgewise.models.forward import entering
from edgewise.models.neurons import NeuronMLP
from edgewise.models.walk import Walk
from edgewise.patching.ablation import Ablated

Errors = Sequence["Tensor | None"]
"""Per component, the error of the model's own run, `[batch, pos, 1, d_model]`; None of one without a dictionary."""


def neuron_run(decoder: Decoder, tokens: Tensor, mask: Tensor, ablated: Ablated, present: Tensor) -> Tensor:
    """Run a circuit of neurons, or of features, on clean prompts.

    Args:
        tokens, mask: `[batch, pos]`, the clean prompts and which of their tokens are real.
        ablated: what absent neurons hold, for the same rows.
        present: `[layers, neurons]`, how much of each neuron is present: bool, or float from 0 to 1.

    Returns:
        The final residual stream, `[batch, pos, d_model]`. Differentiable in `present`.
    """
    stream = entering(decoder, tokens)
    return NeuronWalk(decoder, stream, mask, ablated, present, errors_of(decoder, stream, mask)).run()


@torch.no_grad()
def errors_of(decoder: Decoder, stream: Tensor, mask: Tensor) -> Errors:
    """The errors of the model's own run, in which a stream enters: one more pass, where there are dictionaries."""
    walk = _ErrorWalk(decoder, stream, mask)
    if has_features(decoder):
        walk.run()
    return walk.errors


class _ErrorWalk(Walk):
    """The model's own run, of which errors alone are kept."""

    def __init__(self, decoder: Decoder, stream: Tensor, mask: Tensor) -> None:
        super().__init__(decoder, stream, mask)
        self.errors: list[Tensor | None] = [None] * len(decoder.components)

    def wrote(self, index: int, component: Component, code: Tensor) -> None:
        super().wrote(index, component, code)
        if isinstance(component, FeatureMLP):
            self.errors[index] = component.error_of(code).clone()  # and not the code with it


class NeuronWalk(Walk):
    """The walk in which each neuron holds its own activation as far as it is present.

    Several circuits' rows may stand one circuit after another; what is ablated, errors and what is present are of one.
    """

    def __init__(
        self, decoder: Decoder, stream: Tensor, mask: Tensor, ablated: Ablated, present: Tensor, errors: Errors
    ) -> None:
        super().__init__(decoder, stream, mask)
        self.ablated, self.present, self.errors = ablated, present, errors

    def code(self, index: int, component: Component, projections: Projections) -> Tensor:
        own = self.own(index, component, projections)
        return self.mixed(index, component, own) if isinstance(component, NeuronMLP) else own

    def own(self, index: int, component: Component, projections: Projections) -> Tensor:
        """What a component's nodes would hold with everything present there."""
        error = self.errors[index]
        if error is None:
            return super().code(index, component, projections)
        assert isinstance(component, FeatureMLP)
        error = error.repeat(len(projections["mlp"]) // len(error), 1, 1, 1)
        return component.with_error(projections, error)

    def mixed(self, index: int, component: NeuronMLP, own: Tensor) -> Tensor:
        """A component's own code, with what is absent ablated."""
        there, gone = self.present[component.layer, : component.n_neurons], self.ablated.codes[index]
        if there.dtype == torch.bool and bool(there.all()):
            return own
        there, rows = component.spread(there), own.unflatten(0, (-1, len(gone)))
        if there.dtype == torch.bool:
            return torch.where(there, rows, gone).flatten(0, 1)
        return (there * rows + (1 - there) * gone).to(own.dtype).flatten(0, 1)
