"""What families are declared from: how weights are split by head, how positions turn, how heads are normed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.models.attention import HeadMap, HeadNorm, Rotation, Scale
from edgewise.models.components import Projection, stream_dtype
from edgewise.models.dense import dense_weight

Maps = tuple[HeadMap, HeadMap, HeadMap]
"""Of queries, of keys, of values."""


@dataclass(frozen=True)
class Heads:
    """How many query heads, key/value heads, and how wide they are; what the model computes in."""

    queries: int
    keys: int
    width: int
    dtype: torch.dtype | None = None


Split = Callable[[Any, Heads], Maps]
"""From an attention module, its queries', keys' and values' weights by head: views of its own."""


def projection(weight: Tensor, bias: Tensor | None) -> Projection:
    """Of weights `[heads, d_head, d_in]` and biases `[heads, d_head]`."""
    return Projection(weight.transpose(-1, -2), bias)


def apart(*names: str) -> Split:
    """Three linear maps of their own, heads one after another."""

    def split(attention: Any, heads: Heads) -> Maps:
        counts = (heads.queries, heads.keys, heads.keys)
        maps = [getattr(attention, name) for name in names]
        found = [by_head(one, count, heads.dtype) for one, count in zip(maps, counts, strict=True)]
        return (found[0], found[1], found[2])

    return split


def by_head(linear: Any, heads: int, dtype: torch.dtype | None = None) -> Projection:
    """A linear map into heads, one after another."""
    return _into_heads(*dense_weight(linear, dtype), heads)


def _into_heads(weight: Tensor, bias: Tensor | None, heads: int) -> Projection:
    return projection(weight.unflatten(0, (heads, -1)), None if bias is None else bias.unflatten(0, (heads, -1)))


def one_after_another(name: str) -> Split:
    """One linear map: all queries, then all keys, then all values."""

    def split(attention: Any, heads: Heads) -> Maps:
        weight, bias = dense_weight(getattr(attention, name), heads.dtype)
        counts = (heads.queries, heads.keys, heads.keys)
        sizes = [count * heads.width for count in counts]
        weights = weight.split(sizes)
        biases = [None, None, None] if bias is None else bias.split(sizes)
        found = [_into_heads(*one) for one in zip(weights, biases, counts, strict=True)]
        return (found[0], found[1], found[2])

    return split


def by_group(name: str) -> Split:
    """One linear map: for each key/value head its queries, then its key, then its value."""

    def split(attention: Any, heads: Heads) -> Maps:
        weight, bias = dense_weight(getattr(attention, name), heads.dtype)
        share = heads.queries // heads.keys
        shape = (heads.keys, share + 2, heads.width)
        weight = weight.unflatten(0, shape)  # [groups, share + 2, d_head, d_in]
        bias = None if bias is None else bias.unflatten(0, shape)

        def part(which: slice) -> Projection:
            own = None if bias is None else bias[:, which].flatten(0, 1)
            return projection(weight[:, which].flatten(0, 1), own)

        return part(slice(0, share)), part(slice(share, share + 1)), part(slice(share + 1, share + 2))

    return split


def into_neurons(mlp: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """The weights, then the biases, of an MLP's maps into its neurons, the neurons last.

    None of a mixture of experts, or where they are quantised.
    """
    if not all(hasattr(mlp, name) for name in names):
        return ()
    linears = [getattr(mlp, name) for name in names]
    weights = [getattr(one, "weight", None) for one in linears]
    if not all(isinstance(one, nn.Parameter) and one.is_floating_point() for one in weights):
        return ()
    maps = [dense_weight(one) for one in linears]
    biases = [bias.detach() for _, bias in maps if bias is not None]
    return (*(weight.T.detach() for weight, _ in maps), *biases)


def half_split(x: Tensor) -> Tensor:
    """A quarter turn where dimension i makes a pair with the one half of the width further on."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((-right, left), dim=-1)


def interleaved(x: Tensor) -> Tensor:
    """A quarter turn where neighbours make a pair."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def turn(x: Tensor, cosine: Tensor, sine: Tensor, quarter: Callable[[Tensor], Tensor]) -> Tensor:
    """Turns as many of the first dimensions of `[batch, pos, heads, d_head]` as there are angles; the rest stay.

    Args:
        cosine, sine: `[batch or 1, pos, turned]`.
        quarter: turns them by a quarter; it says which dimensions make a pair.
    """
    cosine, sine = cosine[:, :, None], sine[:, :, None]
    turned = cosine.shape[-1]
    if turned == x.shape[-1]:
        return x * cosine + quarter(x) * sine
    part = x[..., :turned]
    return torch.cat((part * cosine + quarter(part) * sine, x[..., turned:]), dim=-1)


def rotary(
    embedding: nn.Module,
    layer_type: str | None,
    quarter: Callable[[Tensor], Tensor] = half_split,
    once_per_pair: bool = False,
) -> Rotation:
    """Rotation by a source model's own rotary embedding, of as many dimensions as it has angles for; the rest stay.

    Args:
        layer_type: which of its bases, where it has one per type of layer.
        once_per_pair: it gives every angle once, not at both dimensions of a pair.
    """
    by_type = layer_type is not None and "layer_type" in inspect.signature(embedding.forward).parameters

    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        cosine, sine = embedding(x, positions, layer_type) if by_type else embedding(x, positions)
        if once_per_pair:
            cosine, sine = torch.cat((cosine, cosine), dim=-1), torch.cat((sine, sine), dim=-1)
        return turn(x, cosine, sine, quarter)

    return rotate


def tabled_rotary(attention: Any) -> Rotation:
    """GPT-J's: neighbours make a pair; sines and cosines lie in a table of the attention module's own."""

    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        table = attention.embed_positions.to(x.device)[positions].to(x.dtype)  # [batch or 1, pos, turned]
        sine, cosine = (one.repeat_interleave(2, dim=-1) for one in table.chunk(2, dim=-1))
        return turn(x, cosine, sine, interleaved)

    return rotate


def epsilon(norm: Any) -> float:
    """What a norm module adds under its root."""
    return next(getattr(norm, name) for name in ("variance_epsilon", "eps", "epsilon") if hasattr(norm, name))


def scale_of(norm: Any, offset: float = 0.0) -> Scale:
    """A root-mean-square norm's parts; `offset` is what is added to its weight (1 in Gemma)."""
    gain = norm.weight.detach()
    return Scale(gain.to(stream_dtype(gain.dtype)) + offset if offset else gain, epsilon(norm))


def head_norm(norm: Any, heads: int, width: int, offset: float = 0.0) -> HeadNorm | Scale | None:
    """The norm of queries or keys that a module is, by the shape of its weight.

    `[d_head]` norms each head by itself, `[heads, d_head]` too, each with a weight of its own, `[heads * d_head]` all
    heads together; a module of several norms has one per head.
    """
    if norm is None:
        return None
    if hasattr(norm, "norms"):
        each = list(norm.norms)

        def one_by_one(x: Tensor, which: Sequence[int] | None) -> Tensor:
            asked = range(heads) if which is None else which
            return torch.stack([each[head](x[:, :, at]) for at, head in enumerate(asked)], dim=2)

        return one_by_one
    weight = norm.weight
    if weight.dim() == 2:

        def own_weight(x: Tensor, which: Sequence[int] | None) -> Tensor:
            chosen = weight if which is None else weight[list(which)]
            return torch.func.functional_call(norm, {"weight": chosen}, (x,))

        return own_weight
    if weight.shape[0] != width:
        parts = scale_of(norm, offset)
        return Scale(parts.gain.unflatten(0, (heads, width)), parts.epsilon)
    return lambda x, which: norm(x)


def slopes(heads: int) -> Tensor:
    """What a head's scores gain with each position (ALiBi, Press et al. 2022), `[heads]`: 2^(-8/n), its square, ….

    For a number of heads that is no power of two, those of the power below, then every other one of the power above.
    """
    power = 1 << (heads.bit_length() - 1)
    own = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    return torch.tensor(
        [*own, *(2.0 ** (-4 * (2 * head + 1) / power) for head in range(heads - power))], dtype=torch.float64
    )


class Factor(nn.Module):
    """A module's output times a number."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor


def softcap(cap: float) -> Callable[[Tensor], Tensor]:
    """Logits bounded by `cap`."""
    return lambda logits: torch.tanh(logits / cap) * cap
