"""A tiny random model of every family, of its own transformers class, with options that change the computation on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tiny import VOCABULARY, _loud

from edgewise.models import Decoder, load_model

LAYERS, HEADS, SHARED, WIDTH = 2, 4, 2, 8

_LLAMA = dict(
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=SHARED,
    hidden_size=HEADS * WIDTH,
    intermediate_size=24,
    vocab_size=VOCABULARY,
    max_position_embeddings=32,
    attention_bias=True,
    mlp_bias=True,
)
_EXPERTS = dict(num_local_experts=4, num_experts_per_tok=2)
_OWN_EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12)
_WINDOWS = dict(sliding_window=3, layer_types=["sliding_attention", "full_attention"], use_sliding_window=True)
_WIDE = dict(head_dim=6)  # not d_model / n_heads
_YARN = dict(rope_type="yarn", rope_theta=100.0, factor=2.0, original_max_position_embeddings=16)
_LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=100.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
_LATENT = dict(
    num_key_value_heads=HEADS,
    kv_lora_rank=12,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=5,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_shared_experts=1,
    moe_intermediate_size=12,
    first_k_dense_replace=1,
)
_GPT = dict(vocab_size=VOCABULARY, hidden_size=HEADS * WIDTH, max_position_embeddings=32, intermediate_size=24)
_TWO_BASES = {
    "sliding_attention": dict(rope_type="default", rope_theta=50.0),
    "full_attention": dict(rope_type="default", rope_theta=500.0),
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", dict(n_layer=LAYERS, n_head=HEADS, n_embd=32, vocab_size=VOCABULARY, n_positions=32)),
    "gpt_neo": (
        "GPTNeo",
        {
            **_GPT,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "window_size": 3,
            "attention_types": [[["local", "global"], 1]],
        },
    ),
    "gptj": (
        "GPTJ",
        dict(n_layer=LAYERS, n_head=HEADS, n_embd=32, vocab_size=VOCABULARY, n_positions=32, rotary_dim=4, n_inner=24),
    ),
    "gpt_neox": ("GPTNeoX", {**_GPT, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}),
    "gpt_neox-in-turn": (
        "GPTNeoX",
        {**_GPT, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "use_parallel_residual": False},
    ),
    "opt": (
        "OPT",
        dict(
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            hidden_size=32,
            ffn_dim=24,
            word_embed_proj_dim=32,
            vocab_size=VOCABULARY,
            max_position_embeddings=32,
        ),
    ),
    "bloom": ("Bloom", dict(n_layer=LAYERS, n_head=3, hidden_size=24, vocab_size=VOCABULARY)),
    "falcon": (
        "Falcon",
        dict(num_hidden_layers=LAYERS, num_attention_heads=HEADS, hidden_size=32, vocab_size=VOCABULARY, bias=True),
    ),
    "falcon-groups": (
        "Falcon",
        dict(
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_kv_heads=2,
            hidden_size=32,
            vocab_size=VOCABULARY,
            new_decoder_architecture=True,
        ),
    ),
    "falcon-alibi": (
        "Falcon",
        dict(
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            hidden_size=32,
            vocab_size=VOCABULARY,
            alibi=True,
            parallel_attn=False,
            multi_query=False,
        ),
    ),
    "llama": ("Llama", {**_LLAMA, "rope_parameters": _LLAMA3}),
    "mistral": ("Mistral", {**_LLAMA, "sliding_window": 3, **_WIDE}),
    "mixtral": ("Mixtral", {**_LLAMA, **_EXPERTS, "sliding_window": 3}),
    "qwen2": ("Qwen2", {**_LLAMA, **_WINDOWS}),
    "qwen2_moe": (
        "Qwen2Moe",
        {**_LLAMA, **_OWN_EXPERTS, "shared_expert_intermediate_size": 12, "mlp_only_layers": [1]},
    ),
    "qwen3": ("Qwen3", {**_LLAMA, **_WIDE, **_WINDOWS}),
    "qwen3_moe": ("Qwen3Moe", {**_LLAMA, **_WIDE, **_OWN_EXPERTS}),
    "gemma": ("Gemma", {**_LLAMA, **_WIDE}),
    "gemma2": (
        "Gemma2",
        {
            **_LLAMA,
            **_WIDE,
            **_WINDOWS,
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 4.0,
            "query_pre_attn_scalar": 3,
        },
    ),
    "gemma3_text": (
        "Gemma3",
        {
            **_LLAMA,
            **_WIDE,
            **_WINDOWS,
            "query_pre_attn_scalar": 5,
            "rope_parameters": _TWO_BASES,
            "final_logit_softcapping": 4.0,
        },
    ),
    "phi": (
        "Phi",
        {
            **_LLAMA,
            "qk_layernorm": True,
            "rope_parameters": dict(rope_type="default", rope_theta=100.0, partial_rotary_factor=0.5),
        },
    ),
    "phi3": ("Phi3", {**_LLAMA, "sliding_window": 3, "pad_token_id": 0}),
    "olmo": ("Olmo", _LLAMA),
    "olmo2": ("Olmo2", _LLAMA),
    "olmo3": ("Olmo3", {**_LLAMA, **_WINDOWS}),
    "olmoe": ("Olmoe", {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2}),
    "stablelm": (
        "StableLm",
        {
            **_LLAMA,
            "qk_layernorm": True,
            "use_qkv_bias": True,
            "rope_parameters": dict(rope_type="default", rope_theta=100.0, partial_rotary_factor=0.5),
        },
    ),
    "stablelm-parallel": ("StableLm", {**_LLAMA, "use_parallel_residual": True}),
    "starcoder2": ("Starcoder2", {**_LLAMA, "sliding_window": 3, "use_bias": True}),
    "cohere": ("Cohere", {**_LLAMA, "use_qk_norm": True, "logit_scale": 0.3}),
    "cohere2": ("Cohere2", {**_LLAMA, **_WINDOWS, "logit_scale": 0.3}),
    "granite": (
        "Granite",
        {
            **_LLAMA,
            "residual_multiplier": 0.4,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
        },
    ),
    "granitemoe": (
        "GraniteMoe",
        {
            **_LLAMA,
            **_EXPERTS,
            "residual_multiplier": 0.4,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
        },
    ),
    "smollm3": ("SmolLM3", {**_LLAMA, **_WINDOWS, "no_rope_layers": [1, 0], "pad_token_id": 0}),
    "deepseek_v2": ("DeepseekV2", {**_LLAMA, **_LATENT, "q_lora_rank": None, "topk_method": "greedy"}),
    "deepseek_v3": (
        "DeepseekV3",
        {**_LLAMA, **_LATENT, "q_lora_rank": 10, "n_group": 2, "topk_group": 1, "attention_bias": True},
    ),
    "gpt_oss": ("GptOss", {**_LLAMA, **_EXPERTS, **_WIDE, **_WINDOWS, "rope_parameters": _YARN}),
}
"""By family, or family and variant: the stem of its transformers class, and a configuration."""


class InFloat64:
    """Makes transformers' own detours through float32 (norms, softmaxes, rotations) stay in float64.

    These are the ways that its modules have of going there; one more would be seen in any comparison to 1e-9. A
    TorchFunctionMode would need no list, and takes half as long again for everything that is computed inside it.
    """

    def __enter__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        for name in ("to", "type", "softmax"):
            self._patch.setattr(torch.Tensor, name, _in_float64(getattr(torch.Tensor, name)))
        self._patch.setattr(torch.Tensor, "float", lambda x: x.double())

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def _in_float64(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(method)
    def wide(*args: Any, **named: Any) -> torch.Tensor:
        args = tuple(torch.float64 if one is torch.float32 else one for one in args)
        if named.get("dtype") is torch.float32:
            named["dtype"] = torch.float64
        return method(*args, **named)

    return wide


def source(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.nn.Module:
    """A random model of the family's own transformers class."""
    stem, options = CONFIGS[name]
    made_of = "Gemma3Text" if stem == "Gemma3" else stem
    torch.manual_seed(seed)
    config = getattr(transformers, f"{made_of}Config")(
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **options}
    )
    config._attn_implementation = "sdpa" if stem == "Falcon" else "eager"
    config._experts_implementation = "eager"  # the others know no float64
    model = getattr(transformers, f"{stem}LMHeadModel" if stem == "GPT2" else f"{stem}ForCausalLM")(config).eval()
    return _loud(model).to(dtype)


def family(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Decoder:
    return load_model(source(name, dtype, seed))
