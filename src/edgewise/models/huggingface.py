"""Adapters for Hugging Face `transformers` models: one function per architecture."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.models.components import MLP, Attention, Component, Projection, SourceModules
from edgewise.models.decoder import Decoder, DecoderConfig, Unembedding
from edgewise.models.dense import dense_weight
from edgewise.registry import Registry


def adapt(model: nn.Module, name: str, tokenizer: Any = None) -> Decoder:
    """A Decoder over a `transformers` model, whose architecture is looked up by its configuration's `model_type`.

    Raises:
        EdgewiseError: the architecture is not supported; the message names it and lists those that are.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if model_type not in ADAPTERS or not hasattr(model, "lm_head"):
        raise unsupported(name, f"{model_type} ({type(model).__name__})")
    return ADAPTERS[model_type](model, name, tokenizer)


def unsupported(name: str, architecture: str) -> EdgewiseError:
    """The refusal of an architecture that has no adapter."""
    return EdgewiseError(
        f"model {name!r} is of architecture {architecture}, which edgewise does not support yet "
        f"(supported: {', '.join(sorted(ADAPTERS))}, as causal language models)"
    )


def _gpt2(model: Any, name: str, tokenizer: Any) -> Decoder:
    """`GPT2LMHeadModel`: learned positions, LayerNorm before each block, biases everywhere."""
    shape, body = model.config, model.transformer
    n_heads, d_model = shape.n_head, shape.n_embd
    d_head = d_model // n_heads
    if getattr(shape, "add_cross_attention", False):
        raise unsupported(name, "gpt2 with cross-attention")

    def per_head(weight: Tensor) -> Tensor:
        # A Conv1D weight is [d_in, heads * d_head]; this is a view of it, not a copy.
        return weight.unflatten(1, (n_heads, d_head)).transpose(0, 1)

    components: list[Component] = []
    for index, block in enumerate(body.h):
        weights = block.attn.c_attn.weight.split(d_model, dim=1)
        biases = block.attn.c_attn.bias.split(d_model)
        q, k, v = (
            Projection(per_head(weight), bias.unflatten(0, (n_heads, d_head)))
            for weight, bias in zip(weights, biases, strict=True)
        )
        scale = d_head**-0.5 if shape.scale_attn_weights else 1.0
        components += [
            Attention(
                layer=index,
                source=SourceModules(block.ln_1, block.attn, block.attn.c_proj),
                norm=block.ln_1,
                queries=q,
                keys=k,
                values=v,
                output=Projection(block.attn.c_proj.weight.unflatten(0, (n_heads, d_head))),
                bias=block.attn.c_proj.bias,
                scale=scale / (index + 1) if shape.scale_attn_by_inverse_layer_idx else scale,
            ),
            MLP(
                layer=index,
                source=SourceModules(block.ln_2, block.mlp),
                run=_chain(block.ln_2, _with_fused_gelu(block.mlp)),
                neurons=(block.mlp.c_fc.weight.detach(), block.mlp.c_fc.bias.detach()),
            ),
        ]
    config = DecoderConfig(
        architecture="gpt2",
        n_layers=shape.n_layer,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_model=d_model,
        d_head=d_head,
        d_vocab=model.lm_head.weight.shape[0],
        n_tokens=body.wte.weight.shape[0],
        n_context=shape.n_positions,
        d_mlp=shape.n_inner or 4 * d_model,
        position_embedding=True,
    )

    def embed(tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        token_part = body.wte(tokens)
        return token_part, body.wpe(positions).expand_as(token_part)

    return Decoder(
        name=name,
        config=config,
        components=tuple(components),
        embed_parts=embed,
        final_norm=body.ln_f,
        unembedding=Unembedding(model.lm_head.weight, model.lm_head.bias),
        source=model,
        run_source=_logits_of(model),
        tokenizer=tokenizer,
    )


def _llama(model: Any, name: str, tokenizer: Any) -> Decoder:
    """`LlamaForCausalLM`: rotary positions, RMSNorm before each block, SwiGLU, grouped key/value heads."""
    shape, body = model.config, model.model
    n_heads, n_kv_heads = shape.num_attention_heads, shape.num_key_value_heads
    d_head = getattr(shape, "head_dim", None) or shape.hidden_size // n_heads

    def per_head(linear: nn.Module, heads: int) -> Projection:
        # An ordinary Linear's weight is [heads * d_head, d_in]; this is a view of it, not a copy.
        weight, bias = dense_weight(linear, model.dtype)
        bias = None if bias is None else bias.unflatten(0, (heads, d_head))
        return Projection(weight.unflatten(0, (heads, d_head)).transpose(1, 2), bias)

    components: list[Component] = []
    for index, block in enumerate(body.layers):
        attention = block.self_attn
        written, bias = dense_weight(attention.o_proj, model.dtype)
        components += [
            Attention(
                layer=index,
                source=SourceModules(block.input_layernorm, attention, attention.o_proj),
                norm=block.input_layernorm,
                queries=per_head(attention.q_proj, n_heads),
                keys=per_head(attention.k_proj, n_kv_heads),
                values=per_head(attention.v_proj, n_kv_heads),
                output=Projection(written.T.unflatten(0, (n_heads, d_head))),
                bias=torch.zeros_like(written[:, 0]) if bias is None else bias,
                scale=attention.scaling,
                rotation=_rotary(body.rotary_emb),
            ),
            MLP(
                layer=index,
                source=SourceModules(block.post_attention_layernorm, block.mlp),
                run=_chain(block.post_attention_layernorm, block.mlp),
                neurons=_llama_neurons(block.mlp),
            ),
        ]
    config = DecoderConfig(
        architecture="llama",
        n_layers=shape.num_hidden_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_model=shape.hidden_size,
        d_head=d_head,
        d_vocab=model.lm_head.weight.shape[0],
        n_tokens=body.embed_tokens.weight.shape[0],
        n_context=shape.max_position_embeddings,
        d_mlp=shape.intermediate_size,
    )
    return Decoder(
        name=name,
        config=config,
        components=tuple(components),
        embed_parts=lambda tokens, positions: (body.embed_tokens(tokens),),
        final_norm=body.norm,
        unembedding=Unembedding(model.lm_head.weight, model.lm_head.bias),
        source=model,
        run_source=_logits_of(model),
        tokenizer=tokenizer,
    )


Adapter = Callable[[Any, str, Any], Decoder]
"""Called with a `transformers` model, what it is called, and its tokenizer or None."""

ADAPTERS: Registry[Adapter] = Registry("family", "edgewise.families", callable, {"gpt2": _gpt2, "llama": _llama})


def register_family(model_type: str, adapter: Adapter) -> None:
    """Make models of a family load: those whose configuration's `model_type` is this one.

    Raises:
        EdgewiseError: there is an adapter for it already.
    """
    ADAPTERS.add(model_type, adapter)


"""Adapters by `model_type`, the name of an architecture in a model's config.json."""


def _llama_neurons(mlp: Any) -> tuple[Tensor, ...]:
    linears = (mlp.gate_proj, mlp.up_proj)
    if any(type(linear) is not nn.Linear for linear in linears):
        return ()
    tensors = [linear.weight.T for linear in linears] + [linear.bias for linear in linears if linear.bias is not None]
    return tuple(tensor.detach() for tensor in tensors)


def _chain(first: nn.Module, second: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _with_fused_gelu(mlp: Any) -> nn.Module:
    """The same MLP, with its weights; GELU's tanh form as one operation where transformers writes it out in eight."""
    if type(mlp.act).__name__ != "NewGELUActivation":
        return mlp
    fused = copy.copy(mlp)
    fused._modules = {**mlp._modules, "act": nn.GELU(approximate="tanh")}
    return fused


def _rotary(embedding: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Rotation by the source model's own rotary embedding, in its half-split layout."""

    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        cosine, sine = embedding(x, positions)  # [batch or 1, pos, d_head]
        left, right = x.chunk(2, dim=-1)
        return x * cosine[:, :, None] + torch.cat((-right, left), dim=-1) * sine[:, :, None]

    return rotate


def _logits_of(model: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def run(tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        out = model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=positions.expand_as(tokens),
            use_cache=False,
        )
        return out.logits

    return run
