"""What a model is made of: attention blocks and MLPs, in the order in which they write to the residual stream.

Every component goes the same three steps, and no other file knows what is inside them:

* *project*: what its inputs read from the residual stream; a head's query, key or value, an MLP's stream as it is;
* *code*: what is kept of it, computed from its projections; z per head, an MLP's output;
* *write*: what each of its nodes adds to the residual stream, and all of them together in one product.

Components hold views of the source model's own tensors and call its own norms and MLPs.

Shapes: streams are `[batch, pos, inputs, d_model]`, or `[batch, pos, 1, d_model]` for one that all inputs share;
projections `[batch, pos, inputs, width]`; codes `[batch, pos, nodes, width]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgewise.graph.names import Input, InputKind, Node

Projections = dict[InputKind, Tensor]
"""By kind of input: `q`, `k` and `v` of an attention block, `mlp` of an MLP."""

Rotation = Callable[[Tensor, Tensor], Tensor]
"""Turns queries or keys `[batch, pos, heads, d_head]` by their positions `[batch or 1, pos]`."""


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


@dataclass(frozen=True)
class SourceModules:
    """The source model's own modules of one component, to which the guard listens.

    Attributes:
        norm: reads the stream that the component reads.
        block: writes what the component adds to the stream (first, if it gives several things).
        projection: reads the codes of all nodes side by side, where that is not what they write: z of the heads.
    """

    norm: nn.Module
    block: nn.Module
    projection: nn.Module | None = None


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
    def code(self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None) -> Tensor:
        """What is kept of its nodes (all, or those whose projections are given); `allowed` as from `allowed`."""

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
class Attention(Component):
    """An attention block, taken apart by head.

    Attributes:
        norm: the source model's norm before it, on `[..., d_model]`.
        queries, keys, values: projections into each (key/value) head.
        output: projection of each head's z back into the residual stream.
        bias: `[d_model]`, what attention writes that belongs to no head.
        scale: factor on attention scores.
        causal: a token sees only itself and those before it.
        rotation: rotary positions, or None.
        query_key_positions: positions `[batch or 1, pos]` -> what is added, behind the norm, to what queries and keys
            are made of, `[batch or 1, pos, d_model]`; no node owns it, and it is never ablated. None in most models.
        folded: `[heads, d_head]`, the value biases that were moved into `bias` (`fold_value_biases`), or None.
    """

    kinds: ClassVar[tuple[InputKind, ...]] = ("q", "k", "v")

    norm: Callable[[Tensor], Tensor]
    queries: Projection
    keys: Projection
    values: Projection
    output: Projection
    bias: Tensor
    scale: float
    causal: bool = True
    rotation: Rotation | None = None
    query_key_positions: Callable[[Tensor], Tensor] | None = None
    folded: Tensor | None = None

    @property
    def n_heads(self) -> int:
        return self.queries.weight.shape[0]

    @property
    def n_kv_heads(self) -> int:
        return self.keys.weight.shape[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node("head", self.layer, head) for head in range(self.n_heads))

    def inputs(self, kind: InputKind) -> tuple[Input, ...]:
        count = self.n_heads if kind == "q" else self.n_kv_heads
        shared = kind != "q" and self.n_kv_heads < self.n_heads
        return tuple(Input(kind, self.layer, head, shared) for head in range(count))

    def project(self, kind: InputKind, x: Tensor, at: Tensor, which: Sequence[int] | None = None) -> Tensor:
        return self._project(kind, self.norm(x), at, which)

    def projections(self, x: Tensor, at: Tensor) -> Projections:
        normed = self.norm(x)
        return {kind: self._project(kind, normed, at, None) for kind in self.kinds}

    def _project(self, kind: InputKind, normed: Tensor, at: Tensor, which: Sequence[int] | None) -> Tensor:
        if kind == "v":
            return self.values(normed, which)
        if self.query_key_positions is not None:
            normed = normed + self.query_key_positions(at)[:, :, None]
        projected = (self.queries if kind == "q" else self.keys)(normed, which)
        return projected if self.rotation is None else self.rotation(projected, at)

    def pattern(self, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        """Attention patterns `[batch, heads, query pos, key pos]`, in float32 at least."""
        scores = torch.einsum("bqhe,bkhe->bhqk", q, _shared(k, q)) * self.scale
        scores = scores.to(stream_dtype(scores.dtype))
        scores = scores.masked_fill(~allowed[:, None], torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=-1)

    def code(self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None) -> Tensor:
        assert allowed is not None
        q, k, v = (projections[kind] for kind in self.kinds)
        return torch.einsum("bhqk,bkhe->bqhe", self.pattern(q, k, allowed).to(v.dtype), _shared(v, q))

    def write(self, code: Tensor) -> Tensor:
        return self.output(code)

    def write_node(self, node: int, code: Tensor) -> Tensor:
        return code @ self.output.weight[node]

    def write_total(self, code: Tensor) -> Tensor:
        return self.output.total(code) + self.bias

    @property
    def sight(self) -> Hashable:
        return self.causal

    def allowed(self, mask: Tensor) -> Tensor:
        allowed = mask[:, None, :].expand(-1, mask.shape[1], -1)
        if self.causal:
            allowed = allowed & torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
        return allowed


def _shared(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values once for every query head that reads them."""
    return x if x.shape[2] == q.shape[2] else x.repeat_interleave(q.shape[2] // x.shape[2], dim=2)


@dataclass(frozen=True, kw_only=True)
class MLP(Component):
    """An MLP: one node that reads through one input.

    Attributes:
        run: the source model's own norm and MLP, `[..., d_model]` -> `[..., d_model]`.
        neurons: the weights and biases that lead into its neurons, the neurons last: `[..., d_mlp]`.
    """

    kinds: ClassVar[tuple[InputKind, ...]] = ("mlp",)

    run: Callable[[Tensor], Tensor]
    neurons: tuple[Tensor, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (Node("mlp", self.layer),)

    def inputs(self, kind: InputKind) -> tuple[Input, ...]:
        return (Input("mlp", self.layer),)

    def project(self, kind: InputKind, x: Tensor, at: Tensor, which: Sequence[int] | None = None) -> Tensor:
        return x

    def code(self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None) -> Tensor:
        return self.run(projections["mlp"][:, :, 0])[:, :, None]

    def write(self, code: Tensor) -> Tensor:
        return code

    def write_node(self, node: int, code: Tensor) -> Tensor:
        return code

    def write_total(self, code: Tensor) -> Tensor:
        return code[:, :, 0]
