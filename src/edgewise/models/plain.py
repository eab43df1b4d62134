"""The adapter for `PlainTransformer`, the project's own source model: attention and MLPs without norms."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgewise.models.decoder import Decoder, DecoderConfig, DecoderLayer, Projection, Unembedding
from edgewise.models.plain_transformer import PlainTransformer


def adapt_plain(model: PlainTransformer, name: str, tokenizer: Any = None) -> Decoder:
    """A Decoder over a model whose weights were built by hand."""
    shape = model.config
    layers = tuple(
        DecoderLayer(
            attention_norm=_identity,
            queries=Projection(block.attn.W_Q, block.attn.b_Q),
            keys=Projection(block.attn.W_K, block.attn.b_K),
            values=Projection(block.attn.W_V, block.attn.b_V),
            output=Projection(block.attn.W_O),
            bias=block.attn.b_O,
            scale=shape.d_head**-0.5 if shape.attention_scale else 1.0,
            mlp=block.mlp,
        )
        for block in model.blocks
    )
    config = DecoderConfig(
        architecture="plain",
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_heads,
        d_model=shape.d_model,
        d_head=shape.d_head,
        d_vocab=shape.d_vocab_out,
        n_tokens=shape.d_vocab,
        n_context=shape.n_context,
        mlps=shape.d_mlp > 0,
        d_mlp=shape.d_mlp,
        causal=shape.causal,
        position_embedding=True,
    )

    def embed(tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        token_part = model.embed(tokens)
        return token_part, model.pos_embed(positions).expand_as(token_part)

    return Decoder(
        name=name,
        config=config,
        layers=layers,
        embed_parts=embed,
        final_norm=_identity,
        unembedding=Unembedding(model.unembed.W_U.T, model.unembed.b_U),
        source=model,
        run_source=lambda tokens, mask, positions: model(tokens, positions, mask),
        tokenizer=tokenizer,
    )


def _identity(x: Tensor) -> Tensor:
    return x
