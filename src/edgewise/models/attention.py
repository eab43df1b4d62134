"""Attention, taken apart by head: the one thing that edgewise computes for itself, as a circuit takes it apart.

What families add to it (positions by rotation or by slopes, norms of queries and keys, caps, sinks, windows, a norm
behind it) are fields of `Attention`. Two of them couple the heads of a layer:

* A norm over the sum of what all heads write, `g * s / rms(s)` with `s = sum of z_h W_h + b`: a head writes its own
  share, `g * z_h W_h / rms(s)`. Its code is `z_h / rms(s)`, so that writing stays linear; a bias b is shared out evenly
  among heads, each of which then has `1 / (n_heads rms(s))` as one more number of its code.
* A norm of queries (or keys) across heads: the scale is over all heads' own projections, each from its own stream. A
  projection then has its sum of squares as one more number.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from edgewise.graph.names import Input, InputKind, Node
from edgewise.models.components import Component, Projection, Projections, stream_dtype

Rotation = Callable[[Tensor, Tensor], Tensor]
"""Turns queries or keys `[batch, pos, heads, d_head]` by their positions `[batch or 1, pos]`."""


class HeadMap(Protocol):
    """What makes queries, keys or values of a normed stream.

    Attributes:
        weight: `[heads, d_in, d_out]`; bias: `[heads, d_out]` or None.
    """

    @property
    def weight(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor | None: ...

    def __call__(self, x: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """`[batch, pos, heads or 1, d_model]` -> `[batch, pos, heads, d_out]`, for all heads or some."""
        ...


@dataclass(frozen=True)
class Scale:
    """Root-mean-square norm (Zhang and Sennrich 2019) by its parts: `gain * x / sqrt(mean(x^2) + epsilon)`.

    Attributes:
        gain: what each number is multiplied by; `[d_model]`, or `[heads, d_head]` for a norm across heads.
        epsilon: keeps the root above zero.
        centred: the mean is taken off first, as by LayerNorm.
    """

    gain: Tensor
    epsilon: float
    centred: bool = False

    def of(self, mean_square: Tensor) -> Tensor:
        """What a vector of this mean square is multiplied by, in float32 at least."""
        return torch.rsqrt(mean_square.to(stream_dtype(mean_square.dtype)) + self.epsilon)


HeadNorm = Callable[[Tensor, Sequence[int] | None], Tensor]
"""Norms queries or keys `[batch, pos, heads, d_head]`, each head by itself; the heads given are all or those named."""


@dataclass(frozen=True, kw_only=True)
class Attention(Component):
    """An attention block, taken apart by head.

    Attributes:
        norm: the source model's norm before it, on `[..., d_model]`.
        queries, keys, values: projections into each (key/value) head.
        output: projection of each head's z back into the residual stream.
        bias: `[d_model]`, what attention writes that belongs to no head.
        scale: factor on attention scores.
        softcap: scores are bounded by this, c tanh(score / c), or None.
        causal: a token sees only itself and those before it.
        window: how many tokens it sees at most, itself included, or None.
        rotation: rotary positions, or None.
        slopes: `[heads]`, what a score gains with each position of its key (ALiBi, Press et al. 2022), or None.
        sinks: `[heads]`, the score of a key that every query sees and that has no value, or None.
        query_norm, key_norm: a norm behind the projection, of each head by itself or (`Scale`) across heads, or None.
        query_key_positions: positions `[batch or 1, pos]` -> what is added, behind the norm, to what queries and keys
            are made of, `[batch or 1, pos, d_model]`; no node owns it, and it is never ablated. None in most models.
        after: a norm over the sum of what all heads write, or None.
        multiplier: factor on what all heads write; `bias` is given with it.
        folded: `[heads, d_head]`, the value biases that were moved into `bias` (`fold_value_biases`), or None.
        notes: what else is to be said of it, for `edgewise check`: kinds of rotation, of norms.
    """

    kinds: ClassVar[tuple[InputKind, ...]] = ("q", "k", "v")

    norm: Callable[[Tensor], Tensor]
    queries: HeadMap
    keys: HeadMap
    values: HeadMap
    output: Projection
    bias: Tensor
    scale: float
    softcap: float | None = None
    causal: bool = True
    window: int | None = None
    rotation: Rotation | None = None
    slopes: Tensor | None = None
    sinks: Tensor | None = None
    query_norm: HeadNorm | Scale | None = None
    key_norm: HeadNorm | Scale | None = None
    query_key_positions: Callable[[Tensor], Tensor] | None = None
    after: Scale | None = None
    multiplier: float = 1.0
    folded: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_heads(self) -> int:
        return self.queries.weight.shape[0]

    @property
    def n_kv_heads(self) -> int:
        return self.keys.weight.shape[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node("head", self.layer, head) for head in range(self.n_heads))

    @property
    def coupled(self) -> bool:
        return self.after is not None or self.acts_together

    @property
    def acts_together(self) -> bool:
        return isinstance(self.query_norm, Scale) or isinstance(self.key_norm, Scale)

    @property
    def score_steps(self) -> int:
        """How many more copies of all scores `pattern` makes than for a softmax alone, for estimates of memory."""
        return 2 * (self.softcap is not None) + (self.slopes is not None) + 2 * (self.sinks is not None)

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
        norm, squares = self.query_norm if kind == "q" else self.key_norm, None
        if isinstance(norm, Scale):
            squares = projected.to(stream_dtype(projected.dtype)).square().sum(dim=-1, keepdim=True)
            projected = projected * (norm.gain if which is None else norm.gain[list(which)])
        elif norm is not None:
            projected = norm(projected, which)
        projected = projected if self.rotation is None else self.rotation(projected, at)
        return projected if squares is None else torch.cat((projected.to(squares.dtype), squares), dim=-1)

    def scale_across(self, kind: InputKind, x: Tensor) -> Tensor | None:
        """The scale `[batch, pos, 1, 1]` of a norm across all heads' queries (or keys) `x`, or None."""
        norm = self.query_norm if kind == "q" else self.key_norm
        if not isinstance(norm, Scale):
            return None
        return norm.of(x[..., -1:].mean(dim=2, keepdim=True) / (x.shape[-1] - 1))

    def scaled_across(self, kind: InputKind, x: Tensor) -> Tensor:
        """Queries or keys of all heads, with the scale of a norm across them where there is one."""
        scale = self.scale_across(kind, x)
        return x if scale is None else x[..., :-1] * scale

    def pattern(self, q: Tensor, k: Tensor, allowed: Tensor, which: Sequence[int] | None = None) -> Tensor:
        """Attention patterns `[batch, heads, query pos, key pos]`, in float32 at least; of the heads `which`."""
        q, k = self.scaled_across("q", q), self.scaled_across("k", k)
        scores = torch.einsum("bqhe,bkhe->bhqk", q, _shared(k, q)) * self.scale
        scores = scores.to(stream_dtype(scores.dtype))
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if self.slopes is not None:
            slopes = self.slopes if which is None else self.slopes[list(which)]
            gained = slopes[:, None, None] * torch.arange(k.shape[1], device=k.device)
            scores = scores + gained.to(q.dtype)
        scores = scores.masked_fill(~allowed[:, None], torch.finfo(scores.dtype).min)
        if self.sinks is None:
            return torch.softmax(scores, dim=-1)
        sinks = (self.sinks if which is None else self.sinks[list(which)]).to(scores.dtype)
        with_sink = torch.cat((scores, sinks[:, None, None].expand(*scores.shape[:3], 1)), dim=-1)
        return torch.softmax(with_sink, dim=-1)[..., :-1]

    def act(
        self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None, which: Sequence[int] | None = None
    ) -> Tensor:
        assert allowed is not None
        q, k, v = (projections[kind] for kind in self.kinds)
        return torch.einsum("bhqk,bkhe->bqhe", self.pattern(q, k, allowed, which).to(v.dtype), _shared(v, q))

    def settle(self, activations: Tensor) -> Tensor:
        if self.after is not None:
            total = self.output.total(activations) + self.bias
            total = total.to(stream_dtype(total.dtype))
            if self.after.centred:
                total = total - total.mean(dim=-1, keepdim=True)
            scale = self.after.of(total.square().mean(dim=-1))[:, :, None, None].to(activations.dtype)
            activations = activations * scale
            if self._shares_bias:
                share = (scale / self.n_heads).expand(*activations.shape[:3], 1)
                activations = torch.cat((activations, share), dim=-1)
        return activations if self.multiplier == 1.0 else activations * self.multiplier

    @cached_property
    def _shares_bias(self) -> bool:
        # A shape without numbers (shapes.py) has none to share.
        return self.after is not None and not self.bias.is_meta and bool(self.bias.any())

    def write(self, code: Tensor) -> Tensor:
        return self._written(code, self.output)

    def write_node(self, node: int, code: Tensor) -> Tensor:
        return self._written(code, lambda z: z @ self.output.weight[node])

    def write_total(self, code: Tensor) -> Tensor:
        if self.after is None:
            return self.output.total(code) + self.bias
        share = code[..., -1].sum(dim=-1, keepdim=True) if self._shares_bias else None
        z = code if share is None else code[..., :-1]
        return self._normed(self.output.total(z), share)

    def _written(self, code: Tensor, output: Callable[[Tensor], Tensor]) -> Tensor:
        if self.after is None:
            return output(code)
        if self._shares_bias:
            return self._normed(output(code[..., :-1]), code[..., -1:])
        return self._normed(output(code), None)

    def _normed(self, written: Tensor, share: Tensor | None) -> Tensor:
        """What a norm behind attention makes of a part of its sum whose scale is in the code already."""
        assert self.after is not None
        written = written if share is None else written + share * self.bias
        if self.after.centred:
            written = written - written.mean(dim=-1, keepdim=True)
        return written * self.after.gain

    @property
    def sight(self) -> Hashable:
        return self.causal, self.window

    def allowed(self, mask: Tensor) -> Tensor:
        allowed = mask[:, None, :].expand(-1, mask.shape[1], -1)
        at = torch.arange(mask.shape[1], device=mask.device)
        behind = at[:, None] - at[None, :]  # how far a key stands before a query
        if self.causal:
            allowed = allowed & (behind >= 0)
        if self.window is not None:
            allowed = allowed & (behind < self.window)
        return allowed


def _shared(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values once for every query head that reads them."""
    return x if x.shape[2] == q.shape[2] else x.repeat_interleave(q.shape[2] // x.shape[2], dim=2)
