"""The adapter for `PlainTransformer`: weights built by hand, and checkpoints in TransformerLens' format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from edgewise.models.attention import Attention
from edgewise.models.components import MLP, Component, Projection, SourceModules
from edgewise.models.decoder import Decoder, DecoderConfig, Unembedding
from edgewise.models.neurons import apart
from edgewise.models.plain_transformer import PlainMLP, PlainTransformer


def adapt_plain(model: PlainTransformer, name: str, tokenizer: Any = None) -> Decoder:
    """A Decoder over a `PlainTransformer`."""
    shape = model.config
    positions = model.pos_embed if shape.positions == "shortformer" else None
    components: list[Component] = []
    for index, block in enumerate(model.blocks):
        attention = block.attn
        components.append(
            Attention(
                layer=index,
                source=SourceModules(block.ln1, attention, attention.hook_z),
                norm=block.ln1,
                queries=Projection(attention.W_Q, attention.b_Q),
                keys=Projection(attention.W_K, attention.b_K),
                values=Projection(attention.W_V, attention.b_V),
                output=Projection(attention.W_O),
                bias=attention.b_O,
                scale=1 / shape.divisor(index),
                causal=shape.causal,
                rotation=attention.rotary,
                query_key_positions=positions,
            )
        )
        if block.mlp is not None and block.ln2 is not None:
            components.append(_mlp(index, block.ln2, block.mlp, shape.parallel))
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
        components=tuple(components),
        embed_parts=embed,
        final_norm=model.ln_final,
        unembedding=Unembedding(model.unembed.W_U.T, model.unembed.b_U),
        source=model,
        run_source=lambda tokens, mask, positions: model(tokens, positions, mask),
        tokenizer=tokenizer,
    )


def _mlp(layer: int, norm: nn.Module, mlp: PlainMLP, parallel: bool) -> MLP:
    weights = [mlp.W_in, mlp.b_in, mlp.W_gate]
    neurons = tuple(weight.detach() for weight in weights if weight is not None)
    whole = MLP(
        layer=layer, source=SourceModules(norm, mlp), beside=parallel, run=lambda x: mlp(norm(x)), neurons=neurons
    )

    def by_neuron() -> MLP:
        return apart(whole, activate=lambda x: mlp.hidden(norm(x)), output=mlp.W_out.detach(), bias=mlp.b_out.detach())

    return replace(whole, by_neuron=by_neuron)
