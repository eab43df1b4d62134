"""MLPs taken apart by neuron: what each hidden unit holds, and the direction in which it writes.

A neuron is one number of an MLP's hidden layer, as it stands before the output projection: act(x W_in + b_in), or in a
gated MLP act(x W_gate) * (x W_up). It writes its activation times its row of W_out, so that an MLP's output is the sum
of what its neurons write and the projection's bias, which no neuron owns (Geva et al. 2021, "Transformer Feed-Forward
Layers Are Key-Value Memories").

The hidden layer is computed by the source model's own MLP with its output projection taken out. Where a norm stands
behind the MLP (Gemma 2, OLMo 2), neurons are coupled as heads are (attention.py): each writes its share of the normed
sum, `g * h_n W_n / rms(s)` with `s` what all neurons write, and its code is `h_n / rms(s)`, so that
writing stays linear.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.graph.names import InputKind
from edgewise.models.attention import Scale
from edgewise.models.components import MLP, Component, stream_dtype
from edgewise.models.decoder import Decoder
from edgewise.models.precision import in_float64

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far, as a share of the largest number, an MLP and the sum of its neurons may lie apart (norms are in float32)."""


@dataclass(frozen=True, kw_only=True)
class NeuronMLP(MLP):
    """An MLP whose code is its hidden layer, `[batch, pos, 1, d_mlp]`.

    Attributes:
        activate: the source model's own norm and MLP up to the output projection, `[..., d_model]` -> `[..., d_mlp]`.
        output: the output projection, `[d_mlp, d_model]`; bias: `[d_model]`, which belongs to no neuron, or None.
        after: a norm over what the MLP writes, or None.
        multiplier: factor on what it writes in the end.
    """

    activate: Callable[[Tensor], Tensor]
    output: Tensor
    bias: Tensor | None = None
    after: Scale | None = None
    multiplier: float = 1.0

    @property
    def n_neurons(self) -> int:
        return self.output.shape[0]

    def act(
        self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None, which: Sequence[int] | None = None
    ) -> Tensor:
        return self.activate(projections["mlp"][:, :, 0])[:, :, None]

    def settle(self, activations: Tensor) -> Tensor:
        if self.after is None:
            return activations
        total = (activations @ self.output).to(stream_dtype(activations.dtype))
        return activations * self.after.of(total.square().mean(dim=-1, keepdim=True)).to(activations.dtype)

    def spread(self, units: Tensor) -> Tensor:
        """Of each number of its code, what is said of the unit that it belongs to: `[..., units]` -> `[..., width]`."""
        return units

    def gathered(self, numbers: Tensor) -> Tensor:
        """Of each unit, the sum over the numbers of the code that belong to it: `[..., width]` -> `[..., units]`."""
        return numbers

    def write(self, code: Tensor) -> Tensor:
        return self.finished(code @ self.output)

    def write_node(self, node: int, code: Tensor) -> Tensor:
        return self.write(code)

    def write_some(self, which: Tensor, code: Tensor) -> Tensor:
        """What some numbers of its code add to the stream: `which` `[k]`, codes `[..., k]` -> `[..., d_model]`."""
        return self.finished(code @ self.output[which])

    def write_total(self, code: Tensor) -> Tensor:
        return self.finished(nn.functional.linear(code[:, :, 0], self.output.T, self.bias))

    def finished(self, written: Tensor) -> Tensor:
        """What is added to the stream of what codes make through the output projection; linear."""
        written = written if self.after is None else written * self.after.gain
        return written if self.multiplier == 1.0 else written * self.multiplier


def apart(whole: MLP, **parts: Any) -> NeuronMLP:
    """An MLP by neuron, of the whole one and the parts that `NeuronMLP` names."""
    return NeuronMLP(**{one.name: getattr(whole, one.name) for one in fields(whole)}, **parts)


def by_neuron(decoder: Decoder) -> Decoder:
    """The same model with its MLPs taken apart by neuron.

    Raises:
        EdgewiseError: an MLP has no neurons that could be told apart (a mixture of experts, an unknown kind), MLPs of
            several widths, or no MLPs at all.
    """
    if all(isinstance(one, NeuronMLP) for one in decoder.components if isinstance(one, MLP)) and decoder.config.mlps:
        return decoder
    components = tuple(_opened(one, decoder) if isinstance(one, MLP) else one for one in decoder.components)
    widths = {one.n_neurons for one in components if isinstance(one, NeuronMLP)}
    if len(widths) != 1:
        why = "has no MLPs, so no neurons" if not widths else f"has MLPs of several widths ({_words(widths)})"
        raise EdgewiseError(f"model {decoder.name!r} {why}; search its edges or nodes (--level edge, --level node)")
    return replace(decoder, components=components)


def hollow(module: Any, output: str) -> Any:
    """A module that shares its parts with another, but for the one called `output`, in whose place nothing is done."""
    made = copy.copy(module)
    made._modules = {**module._modules, output: nn.Identity()}
    return made


def _words(widths: set[int]) -> str:
    return ", ".join(f"{width:,}" for width in sorted(widths))


def _by_neuron(mlp: Component) -> Component:
    assert isinstance(mlp, MLP)
    assert mlp.by_neuron is not None
    return mlp.by_neuron()


@torch.no_grad()
def _opened(mlp: MLP, decoder: Decoder) -> NeuronMLP:
    """An MLP by neuron, which on a few random streams gives what it gives whole."""
    where = f"the MLP of layer {mlp.layer} of model {decoder.name!r}"
    if mlp.routed:
        raise EdgewiseError(
            f"{where} is a mixture of experts, whose hidden units are other ones for each token; search its edges or "
            "nodes (--level edge, --level node)"
        )
    if mlp.by_neuron is None:
        raise EdgewiseError(f"{where} is of a kind whose neurons edgewise cannot tell apart")
    opened = mlp.then(_by_neuron)
    assert isinstance(opened, NeuronMLP)
    width = decoder.config.d_model
    drawn = torch.randn(1, 4, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = drawn.to(dtype=decoder.dtype, device=decoder.device)
    whole = in_float64(mlp.write_total(mlp.code({"mlp": x[:, :, None]}, None)))
    try:
        summed = in_float64(opened.write_total(opened.code({"mlp": x[:, :, None]}, None)))
    except (RuntimeError, AttributeError) as error:  # the projection is not where it was looked for
        raise EdgewiseError(f"{where} is of a kind whose neurons edgewise cannot tell apart ({error})") from None
    if not (whole - summed).abs().max() <= TOLERANCE[decoder.dtype] * whole.abs().max():
        raise EdgewiseError(
            f"{where} does not write the sum of what its neurons write (they differ by "
            f"{(whole - summed).abs().max():.1e}), so it cannot be taken apart"
        )
    return opened
