"""An ordinary decoder-only transformer, written out in the plainest way.

It holds the weights that are built by hand (`hand_built.py`) and any checkpoint in TransformerLens' format that has
learned positions and no norms: the parameters carry that library's field names, so `load_state_dict` takes such a
state dict as it is. It is a *source model*: the library's own adapter is checked against it, so it shares no code with
that adapter, and clarity goes before speed here.

Letters in the shape comments: b batch, q query position, k key position, h head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError, unknown

Activation = Literal["relu", "gelu", "gelu_new", "silu"]


def _gelu_tanh(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_new": _gelu_tanh,
    "silu": nn.functional.silu,
}


@dataclass(frozen=True)
class PlainTransformerConfig:
    """The sizes of a `PlainTransformer` and the few choices it leaves open.

    `d_mlp` 0 means attention only: the blocks then have no MLP at all. `attention_scale` divides attention scores by
    sqrt(d_head).
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_context: int
    activation: Activation = "relu"
    causal: bool = True
    attention_scale: bool = True

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "d_vocab_out", "n_context"):
            if getattr(self, name) < 1:
                raise EdgewiseError(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.d_mlp < 0:
            raise EdgewiseError(f"d_mlp is {self.d_mlp}; it has to be 0 (no MLPs) or more")
        if self.activation not in _ACTIVATIONS:
            raise unknown("activation", self.activation, _ACTIVATIONS)


def _zeros(*shape: int) -> nn.Parameter:
    # Without gradients: these weights are written down or loaded, never trained.
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)


class PlainEmbed(nn.Module):
    """Token embedding: W_E [d_vocab, d_model]."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.W_E = _zeros(config.d_vocab, config.d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, pos] ids -> [batch, pos, d_model]."""
        return self.W_E[tokens]


class PlainPosEmbed(nn.Module):
    """Learned position embedding: W_pos [n_context, d_model]."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.W_pos = _zeros(config.n_context, config.d_model)

    def forward(self, position_ids: Tensor) -> Tensor:
        """[batch, pos] position ids -> [batch, pos, d_model]."""
        return self.W_pos[position_ids]


class PlainAttention(nn.Module):
    """Multi-head attention with separate weights per head.

    W_Q, W_K, W_V [heads, d_model, d_head], b_Q, b_K, b_V [heads, d_head], W_O [heads, d_head, d_model], b_O [d_model].
    """

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        heads, d_model, d_head = config.n_heads, config.d_model, config.d_head
        self.causal = config.causal
        self.scale = math.sqrt(d_head) if config.attention_scale else 1.0
        self.W_Q = _zeros(heads, d_model, d_head)
        self.W_K = _zeros(heads, d_model, d_head)
        self.W_V = _zeros(heads, d_model, d_head)
        self.W_O = _zeros(heads, d_head, d_model)
        self.b_Q = _zeros(heads, d_head)
        self.b_K = _zeros(heads, d_head)
        self.b_V = _zeros(heads, d_head)
        self.b_O = _zeros(d_model)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[batch, pos, d_model] -> [batch, pos, d_model]; `attention_mask` [batch, pos] is True at keys to be seen."""
        q = torch.einsum("bqm,hmd->bqhd", x, self.W_Q) + self.b_Q
        k = torch.einsum("bkm,hmd->bkhd", x, self.W_K) + self.b_K
        v = torch.einsum("bkm,hmd->bkhd", x, self.W_V) + self.b_V
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.scale

        visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        if self.causal:
            visible = visible.tril()
        visible = visible[None, None]
        if attention_mask is not None:
            visible = visible & attention_mask.bool()[:, None, None, :]
        # The lowest finite number rather than -inf: a padding position that sees no key at all then gives a meaningless
        # average, which nobody reads, instead of NaN, which would spread.
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)

        z = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), v)
        return torch.einsum("bqhd,hdm->bqm", z, self.W_O) + self.b_O


class PlainMLP(nn.Module):
    """One hidden layer: W_in [d_model, d_mlp], b_in [d_mlp], W_out [d_mlp, d_model], b_out [d_model]."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.W_in = _zeros(config.d_model, config.d_mlp)
        self.b_in = _zeros(config.d_mlp)
        self.W_out = _zeros(config.d_mlp, config.d_model)
        self.b_out = _zeros(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] -> [batch, pos, d_model]."""
        return self.activation(x @ self.W_in + self.b_in) @ self.W_out + self.b_out


class PlainBlock(nn.Module):
    """Attention, then the MLP where there is one, each added to the residual stream."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.attn = PlainAttention(config)
        self.mlp = PlainMLP(config) if config.d_mlp > 0 else None

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[batch, pos, d_model] -> [batch, pos, d_model]."""
        x = x + self.attn(x, attention_mask)
        if self.mlp is not None:
            x = x + self.mlp(x)
        return x


class PlainUnembed(nn.Module):
    """W_U [d_model, d_vocab_out], b_U [d_vocab_out]."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.W_U = _zeros(config.d_model, config.d_vocab_out)
        self.b_U = _zeros(config.d_vocab_out)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] -> [batch, pos, d_vocab_out]."""
        return x @ self.W_U + self.b_U


class PlainTransformer(nn.Module):
    """Token and position embedding, blocks, unembedding; no norms. Every weight starts at zero.

    `.to(torch.float64)` and `.to(torch.bfloat16)` work as for any module.
    """

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = PlainEmbed(config)
        self.pos_embed = PlainPosEmbed(config)
        # A ModuleList, so that the weights are registered; the cast tells type checkers what is in it.
        self.blocks = cast("Sequence[PlainBlock]", nn.ModuleList(PlainBlock(config) for _ in range(config.n_layers)))
        self.unembed = PlainUnembed(config)

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits [batch, pos, d_vocab_out] for `tokens` [batch, pos].

        `position_ids` [batch, pos], or [1, pos] for all rows alike, defaults to 0, 1, 2, …, whatever the mask:
        left-padded rows need their own. `attention_mask` [batch, pos] is True at real tokens and hides the rest from
        every query; without it every token is real.
        """
        length = tokens.shape[1]
        if position_ids is None:
            if length > self.config.n_context:
                raise EdgewiseError(f"{length} tokens are too many: this model has {self.config.n_context} positions")
            position_ids = torch.arange(length, device=tokens.device)[None]
        x = self.embed(tokens) + self.pos_embed(position_ids)
        for block in self.blocks:
            x = block(x, attention_mask)
        return self.unembed(x)
