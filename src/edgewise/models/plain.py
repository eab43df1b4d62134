"""The adapter for `PlainTransformer`: weights built by hand, and checkpoints in TransformerLens' format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from edgewise.models.decoder import (
    Decoder,
    DecoderConfig,
    DecoderLayer,
    Projection,
    SourceLayer,
    SourceParts,
    Unembedding,
)
from edgewise.models.plain_transformer import PlainBlock, PlainTransformer


def adapt_plain(model: PlainTransformer, name: str, tokenizer: Any = None) -> Decoder:
    """A Decoder over a `PlainTransformer`."""
    shape = model.config
    positions = model.pos_embed if shape.positions == "shortformer" else None
    layers = tuple(
        DecoderLayer(
            attention_norm=block.ln1,
            queries=Projection(block.attn.W_Q, block.attn.b_Q),
            keys=Projection(block.attn.W_K, block.attn.b_K),
            values=Projection(block.attn.W_V, block.attn.b_V),
            output=Projection(block.attn.W_O),
            bias=block.attn.b_O,
            scale=1 / shape.divisor(index),
            mlp=_mlp(block),
            mlp_inputs=_mlp_inputs(block),
            rotation=block.attn.rotary,
            query_key_positions=positions,
        )
        for index, block in enumerate(model.blocks)
    )
    config = DecoderConfig(
        architecture="transformer-lens",
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        n_kv_heads=shape.key_value_heads,
        d_model=shape.d_model,
        d_head=shape.d_head,
        d_vocab=shape.d_vocab_out,
        n_tokens=shape.d_vocab,
        n_context=shape.n_context,
        mlps=shape.d_mlp > 0,
        d_mlp=shape.d_mlp,
        parallel=shape.parallel,
        causal=shape.causal,
        position_embedding=shape.positions == "standard",
    )

    def embed(tokens: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        token_part = model.embed(tokens)
        if shape.positions != "standard" or model.pos_embed is None:
            return (token_part,)
        return token_part, model.pos_embed(positions).expand_as(token_part)

    return Decoder(
        name=name,
        config=config,
        layers=layers,
        embed_parts=embed,
        final_norm=model.ln_final,
        unembedding=Unembedding(model.unembed.W_U.T, model.unembed.b_U),
        source=model,
        run_source=lambda tokens, mask, positions: model(tokens, positions, mask),
        source_parts=SourceParts(
            tuple(SourceLayer(one.ln1, one.attn.hook_z, one.attn, one.ln2, one.mlp) for one in model.blocks),
            model.ln_final,
        ),
        tokenizer=tokenizer,
    )


def _mlp(block: PlainBlock) -> Callable[[Tensor], Tensor] | None:
    if block.mlp is None or block.ln2 is None:
        return None
    norm, mlp = block.ln2, block.mlp
    return lambda x: mlp(norm(x))


def _mlp_inputs(block: PlainBlock) -> tuple[Tensor, ...]:
    if block.mlp is None:
        return ()
    weights = [block.mlp.W_in, block.mlp.b_in, block.mlp.W_gate]
    return tuple(weight.detach() for weight in weights if weight is not None)
