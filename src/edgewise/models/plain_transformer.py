"""An ordinary decoder-only transformer, written out in the plainest way.

It holds the weights that are built by hand (`hand_built.py`) and any checkpoint in TransformerLens' format: the
parameters carry that library's field names, so `load_state_dict` takes such a state dict as it is. It is a *source
model*: the library's own adapter is checked against it, and clarity goes before speed here.

Letters in the shape comments: b batch, q query position, k key position, h head, m d_model, d d_head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.models.plain_config import ACTIVATIONS, Normalization, PlainTransformerConfig


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
    """Learned positions: W_pos [n_context, d_model]."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.W_pos = _zeros(config.n_context, config.d_model)

    def forward(self, position_ids: Tensor) -> Tensor:
        """[batch, pos] position ids -> [batch, pos, d_model]."""
        return self.W_pos[position_ids]


class PlainNorm(nn.Module):
    """LayerNorm or root-mean-square norm over the last dimension, with weights w (and b) or without (`…Pre`)."""

    def __init__(self, kind: Normalization, width: int, epsilon: float) -> None:
        super().__init__()
        self.centred, self.epsilon = kind.startswith("LN"), epsilon
        self.w = nn.Parameter(torch.ones(width), requires_grad=False) if not kind.endswith("Pre") else None
        self.b = _zeros(width) if kind == "LN" else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]; computed in float32 at least."""
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.centred:
            y = y - y.mean(dim=-1, keepdim=True)
        y = (y / (y.square().mean(dim=-1, keepdim=True) + self.epsilon).sqrt()).to(x.dtype)
        y = y if self.w is None else y * self.w
        return y if self.b is None else y + self.b


def _norm(config: PlainTransformerConfig) -> nn.Module:
    if config.normalization is None:
        return nn.Identity()
    return PlainNorm(config.normalization, config.d_model, config.epsilon)


class PlainRotary(nn.Module):
    """Rotary positions: turns pairs of a head's first `rotary_dim` dimensions, slower from pair to pair."""

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.width, self.base, self.adjacent = config.turned, config.rotary_base, config.rotary_adjacent_pairs

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """[batch, pos, heads, d_head] and [batch or 1, pos] position ids -> the same shape as x."""
        half = self.width // 2
        wide = torch.promote_types(x.dtype, torch.float32)
        frequencies = self.base ** (-torch.arange(half, device=x.device, dtype=wide) / half)
        angles = (position_ids[..., None].to(wide) * frequencies)[:, :, None]  # [batch or 1, pos, 1, half]
        cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        turned, rest = x[..., : self.width], x[..., self.width :]
        if self.adjacent:
            left, right = turned[..., ::2], turned[..., 1::2]
        else:
            left, right = turned[..., :half], turned[..., half:]
        new_left, new_right = left * cosine - right * sine, right * cosine + left * sine
        if self.adjacent:
            new = torch.stack((new_left, new_right), dim=-1).flatten(-2)
        else:
            new = torch.cat((new_left, new_right), dim=-1)
        return torch.cat((new, rest), dim=-1)


class PlainAttention(nn.Module):
    """Multi-head attention with separate weights per head.

    W_Q [heads, d_model, d_head], b_Q [heads, d_head]; W_K, W_V, b_K, b_V likewise for each key/value head;
    W_O [heads, d_head, d_model], b_O [d_model].
    """

    def __init__(self, config: PlainTransformerConfig, layer: int) -> None:
        super().__init__()
        heads, shared, d_model, d_head = config.n_heads, config.key_value_heads, config.d_model, config.d_head
        self.causal = config.causal
        self.scale = config.divisor(layer)
        self.share = heads // shared
        self.rotary = PlainRotary(config) if config.positions == "rotary" else None
        self.W_Q = _zeros(heads, d_model, d_head)
        self.W_K = _zeros(shared, d_model, d_head)
        self.W_V = _zeros(shared, d_model, d_head)
        self.W_O = _zeros(heads, d_head, d_model)
        self.b_Q = _zeros(heads, d_head)
        self.b_K = _zeros(shared, d_head)
        self.b_V = _zeros(shared, d_head)
        self.b_O = _zeros(d_model)
        self.hook_z = nn.Identity()  # so that hooks can see and change what each head computed

    def forward(
        self,
        x: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        query_key_positions: Tensor | None = None,
    ) -> Tensor:
        """[batch, pos, d_model] -> [batch, pos, d_model].

        `attention_mask` [batch, pos] is True at keys to be seen; `query_key_positions` [batch or 1, pos, d_model] is
        added to what queries and keys are made of, but not values.
        """
        placed = x if query_key_positions is None else x + query_key_positions
        q = torch.einsum("bqm,hmd->bqhd", placed, self.W_Q) + self.b_Q
        k = torch.einsum("bkm,hmd->bkhd", placed, self.W_K) + self.b_K
        v = torch.einsum("bkm,hmd->bkhd", x, self.W_V) + self.b_V
        if self.rotary is not None:
            q, k = self.rotary(q, position_ids), self.rotary(k, position_ids)
        k, v = k.repeat_interleave(self.share, dim=2), v.repeat_interleave(self.share, dim=2)
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

        z = self.hook_z(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), v))
        return torch.einsum("bqhd,hdm->bqm", z, self.W_O) + self.b_O


class PlainActivation(nn.Module):
    """An activation function by its name, as a module: so it can be told from the products around it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_mlp] -> [..., d_mlp]."""
        return ACTIVATIONS[self.name](x)


class PlainMLP(nn.Module):
    """One hidden layer: W_in [d_model, d_mlp], b_in [d_mlp], W_out [d_mlp, d_model], b_out [d_model].

    A gated one has W_gate [d_model, d_mlp] too. Behind the activation `solu_ln` stands a norm of the hidden layer.
    """

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.activation = PlainActivation(config.activation)
        self.W_in = _zeros(config.d_model, config.d_mlp)
        self.W_gate = _zeros(config.d_model, config.d_mlp) if config.gated_mlp else None
        self.b_in = _zeros(config.d_mlp)
        self.W_out = _zeros(config.d_mlp, config.d_model)
        self.b_out = _zeros(config.d_model)
        self.ln = None
        if config.activation == "solu_ln":
            # TransformerLens has a LayerNorm here whatever the kind of the other norms: with weights beside `LN`.
            self.ln = PlainNorm("LN" if config.normalization == "LN" else "LNPre", config.d_mlp, config.epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_model] -> [..., d_model]."""
        return self.hidden(x) @ self.W_out + self.b_out

    def hidden(self, x: Tensor) -> Tensor:
        """[..., d_model] -> the hidden layer before the output projection, [..., d_mlp]."""
        if self.W_gate is None:
            hidden = self.activation(x @ self.W_in + self.b_in)
        else:
            hidden = self.activation(x @ self.W_gate) * (x @ self.W_in) + self.b_in
        return hidden if self.ln is None else self.ln(hidden)


class PlainBlock(nn.Module):
    """Attention, then the MLP where there is one, each with its norm and added to the residual stream."""

    def __init__(self, config: PlainTransformerConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel
        self.ln1 = _norm(config)
        self.attn = PlainAttention(config, layer)
        self.ln2 = _norm(config) if config.d_mlp > 0 else None
        self.mlp = PlainMLP(config) if config.d_mlp > 0 else None

    def forward(
        self,
        x: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        query_key_positions: Tensor | None = None,
    ) -> Tensor:
        """[batch, pos, d_model] -> [batch, pos, d_model]."""
        after = x + self.attn(self.ln1(x), position_ids, attention_mask, query_key_positions)
        if self.mlp is not None and self.ln2 is not None:
            after = after + self.mlp(self.ln2(x if self.parallel else after))
        return after


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
    """Embeddings, blocks, norm and unembedding. Every weight starts at zero (those of norms at one).

    `.to(torch.float64)` and `.to(torch.bfloat16)` work as for any module.
    """

    def __init__(self, config: PlainTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = PlainEmbed(config)
        self.pos_embed = PlainPosEmbed(config) if config.positions != "rotary" else None
        # A ModuleList, so that the weights are registered; the cast tells type checkers what is in it.
        blocks = nn.ModuleList(PlainBlock(config, layer) for layer in range(config.n_layers))
        self.blocks = cast("Sequence[PlainBlock]", blocks)
        self.ln_final = _norm(config)
        if config.final_rms and config.normalization in ("LN", "LNPre"):
            kind: Normalization = "RMS" if config.normalization == "LN" else "RMSPre"
            self.ln_final = PlainNorm(kind, config.d_model, config.epsilon)
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
        return self.unembed(self.ln_final(self.streams(tokens, position_ids, attention_mask)[-1]))

    def streams(
        self,
        tokens: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """The residual stream [batch, pos, d_model] entering each block, and the final one."""
        length = tokens.shape[1]
        if position_ids is None:
            if length > self.config.n_context:
                raise EdgewiseError(f"{length} tokens are too many: this model has {self.config.n_context} positions")
            position_ids = torch.arange(length, device=tokens.device)[None]
        x, query_key_positions = self.embed(tokens), None
        if self.pos_embed is not None:
            positions = self.pos_embed(position_ids)
            if self.config.positions == "shortformer":
                query_key_positions = positions
            else:
                x = x + positions
        streams = [x]
        for block in self.blocks:
            streams.append(block(streams[-1], position_ids, attention_mask, query_key_positions))
        return streams
