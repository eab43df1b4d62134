"""The one narrow waist: every engine stands on `Decoder`, and every architecture is one adapter that builds it.

A `Decoder` holds references to the source model's own tensors and calls its own norms and MLPs. What it computes for
itself is attention, split by head, because that is what a circuit takes apart.

Shapes: a residual stream that all heads share is `[batch, pos, 1, d_model]`, one per head `[batch, pos, heads,
d_model]`; queries, keys, values and z are `[batch, pos, heads, d_head]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.graph import Graph


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a model, as far as a circuit is concerned.

    Attributes:
        architecture: the adapter's name, as in `gpt2`.
        d_vocab: width of the output.
        n_tokens: how many tokens can go in; the same as `d_vocab` in most models.
        n_context: longest prompt in tokens, or None where there is no limit.
        mlps: whether layers have an MLP.
        d_mlp: width of their hidden layer; only for estimates of memory.
        parallel: attention and MLP of a layer read the same stream.
        causal: a token sees only itself and those before it.
        position_embedding: positions are added to the embedding, so that it can be split into `tok` and `pos`.
        folded_value_biases: heads' value biases have been moved into the layer's bias (`fold_value_biases`).
        permuted_seed: seed of the shuffled heads and neurons, in a control network (`permuted`).
    """

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_tokens: int
    n_context: int | None = None
    mlps: bool = True
    d_mlp: int = 0
    parallel: bool = False
    causal: bool = True
    position_embedding: bool = False
    folded_value_biases: bool = False
    permuted_seed: int | None = None

    @property
    def share(self) -> int:
        """How many query heads share a key/value head."""
        return self.n_heads // self.n_kv_heads

    def graph(self, *, ports: bool = True, split_embedding: bool = False, ungroup: bool = False) -> Graph:
        """The graph of this model; `ungroup` gives every query head a key and a value input of its own."""
        return Graph(
            self.n_layers,
            self.n_heads,
            n_kv_heads=self.n_heads if ungroup else self.n_kv_heads,
            mlps=self.mlps,
            parallel=self.parallel,
            split_embedding=split_embedding,
            ports=ports,
            d_model=self.d_model,
        )


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


@dataclass(frozen=True)
class Unembedding:
    """The linear map to logits: weight `[d_vocab, d_model]` and bias `[d_vocab]`, the source model's own."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., d_model]` -> `[..., d_vocab]`."""
        return nn.functional.linear(x, self.weight, self.bias)


Rotation = Callable[[Tensor, Tensor], Tensor]
"""Turns queries or keys `[batch, pos, heads, d_head]` by their positions `[batch or 1, pos]`."""


@dataclass(frozen=True)
class DecoderLayer:
    """One layer, with attention taken apart by head.

    Attributes:
        attention_norm: the source model's norm before attention, on `[..., d_model]`.
        queries, keys, values: projections into each (key/value) head.
        output: projection of each head's z back into the residual stream.
        bias: `[d_model]`, what attention writes that belongs to no head.
        scale: factor on attention scores.
        mlp: the source model's own norm and MLP, `[..., d_model]` -> `[..., d_model]`; None where there is none.
        mlp_inputs: the weights and biases that lead into the MLP's neurons, the neurons last: `[..., d_mlp]`.
        rotation: rotary positions, or None.
        query_key_positions: positions `[batch or 1, pos]` -> what is added, behind the norm, to what queries and keys
            are made of, `[batch or 1, pos, d_model]`; no node owns it, and it is never ablated. None in most models.
        folded: `[heads, d_head]`, the value biases that were moved into `bias` (`fold_value_biases`), or None.
    """

    attention_norm: Callable[[Tensor], Tensor]
    queries: Projection
    keys: Projection
    values: Projection
    output: Projection
    bias: Tensor
    scale: float
    mlp: Callable[[Tensor], Tensor] | None
    mlp_inputs: tuple[Tensor, ...] = ()
    rotation: Rotation | None = None
    query_key_positions: Callable[[Tensor], Tensor] | None = None
    folded: Tensor | None = None

    def query(self, x: Tensor, positions: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """Queries of some heads, rotated to `positions` `[batch or 1, pos]`, from their residual streams."""
        return self._rotate(self.queries(self._placed(x, positions), heads), positions)

    def key(self, x: Tensor, positions: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """Keys of some key/value heads (one may be asked for more than once), like `query`."""
        return self._rotate(self.keys(self._placed(x, positions), heads), positions)

    def value(self, x: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """Values of some key/value heads, from their residual streams."""
        return self.values(self.attention_norm(x), heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        """z `[batch, query pos, heads, d_head]`, of queries, keys and values of the same heads.

        `allowed` is `[batch or 1, query pos, key pos]`: which keys each query may look at.
        """
        return torch.einsum("bhqk,bkhe->bqhe", self.pattern(q, k, allowed).to(v.dtype), v)

    def pattern(self, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        """Attention patterns `[batch, heads, query pos, key pos]`, in float32 at least."""
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) * self.scale
        scores = scores.to(stream_dtype(scores.dtype))
        scores = scores.masked_fill(~allowed[:, None], torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=-1)

    def write(self, z: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """What each head adds to the residual stream, `[batch, pos, heads, d_model]`."""
        return self.output(z, heads)

    def _placed(self, x: Tensor, positions: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        return normed if self.query_key_positions is None else normed + self.query_key_positions(positions)[:, :, None]

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.rotation is None else self.rotation(x, positions)


@dataclass(frozen=True)
class SourceLayer:
    """The source model's own modules of one layer, to which the guard listens.

    Attributes:
        attention_norm: reads the stream that attention reads.
        projection: reads z, the heads side by side.
        attention: writes what attention adds to the stream (first, if it gives several things).
        mlp_norm: reads the stream that the MLP reads; None where there is no MLP.
        mlp: writes what the MLP adds.
    """

    attention_norm: nn.Module
    projection: nn.Module
    attention: nn.Module
    mlp_norm: nn.Module | None = None
    mlp: nn.Module | None = None


@dataclass(frozen=True)
class SourceParts:
    """The source model's own modules: its layers', and the norm that reads the final stream."""

    layers: tuple[SourceLayer, ...]
    final_norm: nn.Module


@dataclass(frozen=True)
class Decoder:
    """A source model behind the one interface that every engine uses.

    Attributes:
        name: what the user called it: a hub id, a folder, a built-in name.
        config: its shape.
        layers: its layers.
        embed_parts: tokens and positions `[batch, pos]` -> `(token part, position part)` or `(whole,)`, each
            `[batch, pos, d_model]`.
        final_norm: the source model's final norm, on `[..., d_model]`.
        unembedding: the source model's map from there to logits.
        source: the source model.
        run_source: tokens, attention mask and positions `[batch, pos]` -> the source model's own logits.
        source_parts: the source model's modules that the guard compares one by one.
        tokenizer: the model's tokenizer, or None.
        why_no_tokenizer: the reason, for errors.
        original: the model that this one is a permuted copy of; comparisons are with that one.
    """

    name: str
    config: DecoderConfig
    layers: tuple[DecoderLayer, ...]
    embed_parts: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    final_norm: Callable[[Tensor], Tensor]
    unembedding: Unembedding
    source: nn.Module
    run_source: Callable[[Tensor, Tensor, Tensor], Tensor]
    source_parts: SourceParts = field(repr=False)
    tokenizer: Any = field(default=None, repr=False)
    why_no_tokenizer: str = ""
    original: Decoder | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return self.layers[0].bias.device

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].bias.dtype

    @property
    def dtype_name(self) -> str:
        """As it is asked for: `float32`, `float64`, `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")

    def embed(self, tokens: Tensor, positions: Tensor | None = None, *, split: bool = False) -> Tensor:
        """The embedding `[parts, batch, pos, d_model]`: two parts, `tok` and `pos`, if `split`, else their sum."""
        parts = self.embed_parts(tokens, positions_of(tokens) if positions is None else positions)
        if split and len(parts) != 2:
            raise ValueError(f"{self.config.architecture} adds no positions to its embedding, so it cannot be split")
        return torch.stack(parts) if split else sum(parts[1:], parts[0])[None]

    def allowed(self, mask: Tensor) -> Tensor:
        """`[batch, query pos, key pos]`: which tokens each token may look at, from the mask of real tokens."""
        allowed = mask[:, None, :].expand(-1, mask.shape[1], -1)
        if self.config.causal:
            allowed = allowed & torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
        return allowed

    def logits(self, x: Tensor) -> Tensor:
        """Final norm and unembedding of residual streams `[..., d_model]`, in float32 at least."""
        logits = self.unembedding(self.final_norm(x.to(self.dtype)))
        return logits.to(stream_dtype(logits.dtype))

    def permuted(self, seed: int) -> Decoder:
        """The control network: this model with heads and neurons shuffled (see `edgewise.models.control.permuted`)."""
        from edgewise.models.control import permuted

        return permuted(self, seed)

    def fingerprint(self) -> str:
        """A hash of every byte of the weights, and of their names, shapes and dtypes: `v2:` and 32 hexadecimal digits.

        About a second per GB. Ask once and pass the answer on: it is never kept, since weights can change.
        Fingerprints without `v2:` are of edgewise 0.1, which looked at samples.
        """
        digest, seen = hashlib.sha256(), dict[tuple[Any, ...], str]()
        for name, tensor in sorted(self.source.state_dict().items()):
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if place not in seen:  # tied tensors are hashed once
                flat = tensor.detach().reshape(-1).contiguous().cpu().view(torch.uint8)
                seen[place] = hashlib.sha256(memoryview(flat.numpy())).hexdigest()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {seen[place]}".encode())
        return f"v2:{digest.hexdigest()[:32]}"

    def __repr__(self) -> str:
        """Name, architecture, shape, dtype and device in one line."""
        shape = self.config.graph(ports=False).describe()
        return f"Decoder({self.name!r}: {self.config.architecture}, {shape}, {self.dtype_name} on {self.device})"


def positions_of(tokens: Tensor) -> Tensor:
    """0, 1, 2, … for each of `tokens` `[batch, pos]`, as `[1, pos]`. Prompts are padded on the right."""
    return torch.arange(tokens.shape[1], device=tokens.device)[None]


def stream_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which residual streams are summed: float32 for a half-precision model, else the model's own."""
    return torch.promote_types(dtype, torch.float32)
