"""The families that edgewise reads, by `model_type`: each what it does otherwise than Llama."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.models.attention import Rotation
from edgewise.models.components import stream_dtype
from edgewise.models.families import latent, parts
from edgewise.models.families.family import Block, Embedding, Family, nothing, of_tokens


def _clipped(config: Any) -> str | None:
    return None if getattr(config, "clip_qkv", None) is None else "its queries, keys and values are clipped (clip_qkv)"


def _always(block: Block) -> bool:
    return True


def _rotated_if_used(block: Block) -> Rotation | None:
    """SmolLM3: every fourth layer has no positions."""
    return parts.rotary(block.body.rotary_emb, block.layer_type) if block.attention.use_rope else None


def _cohere_rotary(block: Block) -> Rotation:
    return parts.rotary(block.body.rotary_emb, block.layer_type, parts.interleaved)


def _rotated_in_windows(block: Block) -> Rotation | None:
    """Cohere 2: layers that see everything have no positions."""
    return None if block.attention.sliding_window is None else _cohere_rotary(block)


_llama = Family()
_gemma = Family(offset=1.0)
_gemma2 = Family(
    offset=1.0,
    after="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_after="post_feedforward_layernorm",
)
_olmo2 = Family(norm=None, after="post_attention_layernorm", mlp_norm=None, mlp_after="post_feedforward_layernorm")
_cohere = Family(
    rotation=_cohere_rotary,
    mlp_norm="input_layernorm",
    parallel=_always,
    logits_factor=lambda config: config.logit_scale,
)
_deepseek = Family(split=latent.split, heads=latent.heads, rotation=latent.rotation)
_granite = Family(logits_factor=lambda config: 1 / config.logits_scaling)

LLAMA_LIKE: dict[str, Family] = {
    "llama": _llama,
    "mistral": _llama,
    "mixtral": _llama,
    "qwen2": _llama,
    "qwen2_moe": _llama,
    "qwen3": _llama,
    "qwen3_moe": _llama,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma2,
    "phi3": Family(split=parts.one_after_another("qkv_proj"), neurons=("gate_up_proj",)),
    "olmo": Family(refuse=_clipped),
    "olmo2": _olmo2,
    "olmo3": _olmo2,
    "olmoe": Family(refuse=_clipped),
    "stablelm": Family(
        query_norm="q_layernorm",
        key_norm="k_layernorm",
        mlp_norm=lambda block: "input_layernorm" if block.config.use_parallel_residual else "post_attention_layernorm",
        parallel=lambda block: block.config.use_parallel_residual,
    ),
    "starcoder2": Family(neurons=("c_fc",), out="c_proj"),
    "cohere": _cohere,
    "cohere2": replace(_cohere, rotation=_rotated_in_windows),
    "granite": _granite,
    "granitemoe": replace(_granite, mlp="block_sparse_moe"),
    "smollm3": Family(rotation=_rotated_if_used),
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "gpt_oss": Family(rotation=lambda block: parts.rotary(block.body.rotary_emb, None, once_per_pair=True)),
}


def _learned(tokens: str, positions: str) -> Embedding:
    """An embedding of tokens and one of positions."""

    def of(body: Any, config: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        def embed(ids: Tensor, at: Tensor) -> tuple[Tensor, ...]:
            token_part = getattr(body, tokens)(ids)
            return token_part, getattr(body, positions)(at).expand_as(token_part)

        return embed

    return of


def _opt_embedding(body: Any, config: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    def embed(ids: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        token_part = body.embed_tokens(ids)
        return token_part, body.embed_positions(None, position_ids=at).expand_as(token_part)

    return embed


def _gpt2_scale(block: Block) -> float:
    config, attention = block.config, block.attention
    scale = attention.head_dim**-0.5 if config.scale_attn_weights else 1.0
    return scale / (block.index + 1) if config.scale_attn_by_inverse_layer_idx else scale


def _with_fused_gelu(mlp: Any) -> Any:
    """The same MLP, with its weights; GELU's tanh form as one operation where transformers writes it out in eight."""
    if type(mlp.act).__name__ != "NewGELUActivation":
        return mlp
    fused = copy.copy(mlp)
    fused._modules = {**mlp._modules, "act": nn.GELU(approximate="tanh")}
    return fused


def _local(block: Block) -> int | None:
    """GPT-Neo: every other layer sees a window."""
    return block.config.window_size if block.config.attention_layers[block.index] == "local" else None


def _alibi(block: Block, factor: float = 1.0) -> Tensor:
    slopes = parts.slopes(block.config.num_attention_heads) * factor
    return slopes.to(dtype=stream_dtype(block.model.dtype), device=block.model.device)


def _falcon_alibi(block: Block) -> Tensor | None:
    return _alibi(block, block.attention.inv_norm_factor) if block.config.alibi else None


def _falcon_rotary(block: Block) -> Rotation | None:
    return None if block.config.alibi else parts.rotary(block.body.rotary_emb, None)


def _falcon_norms(block: Block) -> tuple[str, str]:
    config = block.config
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2:
        return "ln_attn", "ln_mlp"
    parallel = config.new_decoder_architecture or config.parallel_attn
    return "input_layernorm", "input_layernorm" if parallel else "post_attention_layernorm"


def _bloom_mlp(mlp: Any) -> Callable[[Tensor], Tensor]:
    """Bloom's adds the stream itself; here it adds nothing."""
    in_slices = mlp.pretraining_tp > 1 and mlp.slow_but_exact  # which makes its output of the stream's shape
    return lambda x: mlp(x, torch.zeros_like(x) if in_slices else x.new_zeros(()))


def _opt_mlp(layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: layer.fc2(layer.activation_fn(layer.fc1(x)))


def _opt_refused(config: Any) -> str | None:
    if not config.do_layer_norm_before or config.word_embed_proj_dim != config.hidden_size:
        return "its norms stand on the residual stream itself, behind each sum (do_layer_norm_before is false)"
    return None


def _bloom_refused(config: Any) -> str | None:
    return (
        "its residual stream starts anew from each norm (apply_residual_connection_post_layernorm)"
        if config.apply_residual_connection_post_layernorm
        else None
    )


_gpt = Family(body="transformer", layers="h", final_norm="ln_f", window=nothing, rotation=nothing)

GPT_LIKE: dict[str, Family] = {
    "gpt2": replace(
        _gpt,
        embed=_learned("wte", "wpe"),
        position_embedding=True,
        attention="attn",
        output="c_proj",
        split=parts.one_after_another("c_attn"),
        norm="ln_1",
        scale=_gpt2_scale,
        mlp_norm="ln_2",
        mlp_runs=_with_fused_gelu,
        neurons=("c_fc",),
        out="c_proj",
        refuse=lambda config: "it has cross-attention" if getattr(config, "add_cross_attention", False) else None,
    ),
    "gpt_neo": replace(
        _gpt,
        embed=_learned("wte", "wpe"),
        position_embedding=True,
        attention="attn.attention",
        output="out_proj",
        norm="ln_1",
        scale=lambda block: 1.0,
        window=_local,
        mlp_norm="ln_2",
        neurons=("c_fc",),
        out="c_proj",
    ),
    "gptj": replace(
        _gpt,
        embed=of_tokens("wte"),
        attention="attn",
        output="out_proj",
        norm="ln_1",
        scale=lambda block: 1 / block.attention.scale_attn,
        rotation=lambda block: parts.tabled_rotary(block.attention),
        mlp_norm="ln_1",
        parallel=_always,
        neurons=("fc_in",),
        out="fc_out",
    ),
    "gpt_neox": Family(
        body="gpt_neox",
        final_norm="final_layer_norm",
        embed=of_tokens("embed_in"),
        attention="attention",
        output="dense",
        split=parts.by_group("query_key_value"),
        parallel=lambda block: block.config.use_parallel_residual,
        neurons=("dense_h_to_4h",),
        out="dense_4h_to_h",
    ),
    "opt": Family(
        body="model.decoder",
        final_norm="final_layer_norm",
        embed=_opt_embedding,
        position_embedding=True,
        output="out_proj",
        norm="self_attn_layer_norm",
        window=nothing,
        rotation=nothing,
        mlp="",
        mlp_norm="final_layer_norm",
        mlp_adds="fc2",
        mlp_runs=_opt_mlp,
        neurons=("fc1",),
        out="fc2",
        refuse=_opt_refused,
    ),
    "bloom": replace(
        _gpt,
        embed=of_tokens("word_embeddings", "word_embeddings_layernorm"),
        attention="self_attention",
        output="dense",
        adds="dense",
        split=parts.by_group("query_key_value"),
        scale=lambda block: block.attention.inv_norm_factor,
        slopes=_alibi,
        mlp_adds="dense_4h_to_h",
        mlp_runs=_bloom_mlp,
        neurons=("dense_h_to_4h",),
        out="dense_4h_to_h",
        refuse=_bloom_refused,
    ),
    "falcon": replace(
        _gpt,
        embed=of_tokens("word_embeddings"),
        attention="self_attention",
        output="dense",
        split=parts.by_group("query_key_value"),
        heads=lambda block: parts.Heads(
            block.attention.num_heads, block.attention.num_kv_heads, block.attention.head_dim
        ),
        norm=lambda block: _falcon_norms(block)[0],
        scale=lambda block: block.attention.inv_norm_factor,
        rotation=_falcon_rotary,
        slopes=_falcon_alibi,
        mlp_norm=lambda block: _falcon_norms(block)[1],
        parallel=lambda block: block.config.new_decoder_architecture or block.config.parallel_attn,
        neurons=("dense_h_to_4h",),
        out="dense_4h_to_h",
    ),
    "phi": Family(
        final_norm="final_layernorm",
        output="dense",
        query_norm="q_layernorm",
        key_norm="k_layernorm",
        mlp_norm="input_layernorm",
        parallel=_always,
        neurons=("fc1",),
        out="fc2",
    ),
}

FAMILIES: Mapping[str, Family] = {**GPT_LIKE, **LLAMA_LIKE}
