"""What a model is made of: attention blocks and MLPs, in the order in which they write to the residual stream.

Every component goes the same steps, and no other file knows what is inside them:

* *project*: what its inputs read from the residual stream; a head's query, key or value, an MLP's stream as it is;
* *act*: what each node makes of its projections; z per head, an MLP's output;
* *settle*: what is kept of that, once all nodes are known; the same, or z times the scale that a norm gives to the sum
  of all heads. Both steps together are *code*;
* *write*: what each of its nodes adds to the residual stream, linear in its code, and all of them in one product.

Components hold views of the source model's own tensors and call its own norms and MLPs. Attention is in attention.py.

Shapes: streams are `[batch, pos, inputs, d_model]`, or `[batch, pos, 1, d_model]` for one that all inputs share;
projections `[batch, pos, inputs, width]`; codes `[batch, pos, nodes, width]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgewise.graph.names import Input, InputKind, Node

Projections = dict[InputKind, Tensor]
"""By kind of input: `q`, `k` and `v` of an attention block, `mlp` of an MLP."""


def stream_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which residual streams are summed: float32 for a half-precision model, else the model's own."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class Projection:
    """A linear map per head: weight `[heads, d_in, d_out]` and bias `[heads, d_out]`, views of the source model's."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """`[batch, pos, heads or 1, d_in]` -> `[batch, pos, heads, d_out]`, for all heads or some, in their order."""
        if heads is not None and len(heads) == 1:  # no copy of the weights, and one matrix product
            only = heads[0]
            projected = (x[:, :, 0] @ self.weight[only])[:, :, None]
            return projected if self.bias is None else projected + self.bias[only]
        weight = self.weight if heads is None else self.weight[list(heads)]
        if x.shape[2] == 1 and weight.shape[0] != 1:
            projected = torch.einsum("bpd,hde->bphe", x[:, :, 0], weight)
        else:
            projected = torch.einsum("bphd,hde->bphe", x, weight)
        if self.bias is None:
            return projected
        return projected + (self.bias if heads is None else self.bias[list(heads)])

    def total(self, x: Tensor) -> Tensor:
        """`[batch, pos, heads, d_in]` -> what all heads give together, `[batch, pos, d_out]`, in one product."""
        return torch.einsum("bphd,hde->bpe", x, self.weight)


def added(out: Any) -> Tensor:
    """What a block of a source model adds to the stream, of all that it returns."""
    return out if isinstance(out, Tensor) else out[0]


@dataclass(frozen=True)
class SourceModules:
    """The source model's own modules of one component, to which the guard listens.

    Attributes:
        norm: reads the stream that the component reads.
        block: writes what the component adds to the stream (first, if it gives several things).
        projection: reads what all nodes hold side by side, where that is not what they write: z of the heads.
        factor: what is added to the stream is this times what `block` writes.
    """

    norm: nn.Module
    block: nn.Module
    projection: nn.Module | None = None
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Component(ABC):
    """One step of a model.

    Attributes:
        layer: which layer it belongs to.
        source: the source model's own modules.
        beside: it reads the stream that the component before it reads, not what that one made of it.
    """

    layer: int
    source: SourceModules
    beside: bool = False
    kinds: ClassVar[tuple[InputKind, ...]]
    """The kinds of its inputs, in the graph's order."""

    @property
    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """What it writes as, in the graph's order."""

    @abstractmethod
    def inputs(self, kind: InputKind) -> tuple[Input, ...]:
        """Its inputs of one kind, in the graph's order."""

    @abstractmethod
    def project(self, kind: InputKind, x: Tensor, at: Tensor, which: Sequence[int] | None = None) -> Tensor:
        """What inputs of one kind make of their streams at positions `at` `[batch or 1, pos]`.

        `which` asks for some of them, in that order; one may be asked for more than once.
        """

    @abstractmethod
    def act(
        self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None, which: Sequence[int] | None = None
    ) -> Tensor:
        """What its nodes make of their projections, `[batch, pos, nodes, width]`; `allowed` as from `allowed`.

        `which` are the nodes whose projections are given, by default all of them.
        """

    def then(self, change: Callable[[Component], Component]) -> Component:
        """The component with something changed; one whose weights are elsewhere is changed whenever they come."""
        return change(self)

    def settle(self, activations: Tensor) -> Tensor:
        """What is kept of all its nodes, once it is known what each has made: their codes."""
        return activations

    def code(self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None) -> Tensor:
        """What is kept of all its nodes, from their projections."""
        return self.settle(self.act(projections, allowed))

    @property
    def coupled(self) -> bool:
        """Whether its nodes share a scale, so that what one of them reads changes what the others write."""
        return False

    @property
    def acts_together(self) -> bool:
        """Whether `act` itself needs all nodes at once; where nodes are coupled otherwise, only `settle` does."""
        return False

    @abstractmethod
    def write(self, code: Tensor) -> Tensor:
        """What each node adds to the residual stream, `[batch, pos, nodes, d_model]`."""

    @abstractmethod
    def write_node(self, node: int, code: Tensor) -> Tensor:
        """The same of one node: `[..., width]` -> `[..., d_model]`."""

    @abstractmethod
    def write_total(self, code: Tensor) -> Tensor:
        """What it adds in all, biases that no node owns included, `[batch, pos, d_model]`."""

    @property
    def sight(self) -> Hashable:
        """What `allowed` depends on beside the mask: components of one sight share what it gives."""
        return None

    def allowed(self, mask: Tensor) -> Tensor | None:
        """`[batch, query pos, key pos]`: which tokens each token may look at, from the mask of real tokens.

        None where it looks at none but its own.
        """
        return None

    def projections(self, x: Tensor, at: Tensor) -> Projections:
        """What all its inputs make of one stream that they share."""
        return {kind: self.project(kind, x, at) for kind in self.kinds}

    def asked(self, kind: InputKind, n_inputs: int) -> list[int] | None:
        """Which of its own inputs those of a graph ask that gives this kind `n_inputs`; None if they are the same.

        A graph may give every query head a key and a value input of its own; several then ask one key/value head.
        """
        own = len(self.inputs(kind))
        return None if n_inputs == own else [index * own // n_inputs for index in range(n_inputs)]


@dataclass(frozen=True, kw_only=True)
class MLP(Component):
    """An MLP: one node that reads through one input.

    Attributes:
        run: the source model's own norm and MLP, `[..., d_model]` -> `[..., d_model]`.
        neurons: the weights and biases that lead into its neurons, the neurons last: `[..., d_mlp]`.
        routed: it is a mixture of experts, whose router chooses some for each token; where two are chosen between by
            little, rounding decides.
        by_neuron: makes of it the same MLP taken apart by neuron (neurons.py); None where nobody knows how.
    """

    kinds: ClassVar[tuple[InputKind, ...]] = ("mlp",)

    run: Callable[[Tensor], Tensor]
    neurons: tuple[Tensor, ...] = ()
    routed: bool = False
    by_neuron: Callable[[], MLP] | None = None

    @property
    def n_neurons(self) -> int:
        """How many neurons its code tells apart: 0, as the code is what it writes in all."""
        return 0

    @property
    def n_features(self) -> int:
        """How many features of a dictionary its code tells apart (feature_mlp.py)."""
        return 0

    @property
    def of_stream(self) -> bool:
        """Whether those are of the stream behind it, rather than of what it writes."""
        return False

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (Node("mlp", self.layer),)

    def inputs(self, kind: InputKind) -> tuple[Input, ...]:
        return (Input("mlp", self.layer),)

    def project(self, kind: InputKind, x: Tensor, at: Tensor, which: Sequence[int] | None = None) -> Tensor:
        return x

    def act(
        self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None, which: Sequence[int] | None = None
    ) -> Tensor:
        return self.run(projections["mlp"][:, :, 0])[:, :, None]

    def write(self, code: Tensor) -> Tensor:
        return code

    def write_node(self, node: int, code: Tensor) -> Tensor:
        return code

    def write_total(self, code: Tensor) -> Tensor:
        return code[:, :, 0]
