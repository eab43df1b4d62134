"""No valid checkpoint of a family is refused by what is looked at before it is loaded; what is no checkpoint is."""

import json

import pytest
import torch
import transformers

from edgewise.errors import EdgewiseError
from edgewise.models.checkpoint import attention_of, check_folder, check_layers, check_sizes, refuse_multimodal
from edgewise.models.load import load_model

GPT = dict(n_layer=2, n_head=2, n_embd=8, n_positions=16)
WIDE = dict(num_hidden_layers=2, num_attention_heads=2, hidden_size=8, max_position_embeddings=16)
GATED = dict(WIDE, intermediate_size=12, num_key_value_heads=1)
EXPERTS = dict(GATED, moe_intermediate_size=6, num_experts=4, num_experts_per_tok=2)
LATENT = dict(
    **dict(q_lora_rank=None, kv_lora_rank=4, qk_rope_head_dim=2, qk_nope_head_dim=4, v_head_dim=4, n_group=1),
    **dict(topk_group=1, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1),
)

FAMILIES = {
    "gpt2": GPT,
    "gptj": dict(GPT, rotary_dim=2),
    "gpt_neo": dict(num_layers=2, num_heads=2, hidden_size=8, attention_types=[[["global", "local"], 1]]),
    "gpt_neox": dict(WIDE, intermediate_size=12),
    "opt": dict(WIDE, ffn_dim=12, word_embed_proj_dim=4),
    "bloom": dict(n_layer=2, n_head=2, hidden_size=8),
    "falcon": dict(WIDE, num_kv_heads=1, alibi=False),
    "llama": GATED,
    "mistral": GATED,
    "mixtral": dict(GATED, num_local_experts=4),
    "qwen2": GATED,
    "qwen2_moe": dict(EXPERTS, shared_expert_intermediate_size=6),
    "qwen3": dict(GATED, head_dim=4),
    "qwen3_moe": dict(EXPERTS, head_dim=4),
    "gemma": dict(GATED, head_dim=4),
    "gemma2": dict(GATED, head_dim=6),
    "gemma3_text": dict(GATED, head_dim=4),
    "phi": dict(WIDE, intermediate_size=12),
    "phi3": dict(GATED, pad_token_id=0),
    "olmo": GATED,
    "olmo2": GATED,
    "olmo3": GATED,
    "olmoe": dict(GATED, num_experts=4, num_experts_per_tok=2),
    "stablelm": GATED,
    "starcoder2": GATED,
    "cohere": GATED,
    "cohere2": GATED,
    "granite": GATED,
    "granitemoe": dict(GATED, num_local_experts=4, num_experts_per_tok=2),
    "smollm3": dict(GATED, pad_token_id=0),
    "gpt_oss": dict(GATED, head_dim=4, num_local_experts=4, num_experts_per_tok=2),
    "deepseek_v2": dict(GATED, **LATENT, num_experts_per_tok=2, moe_intermediate_size=6),
    "deepseek_v3": dict(GATED, **LATENT, num_experts_per_tok=2, moe_intermediate_size=6),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_every_family_is_let_through_and_one_of_fewer_layers_is_not(family, tmp_path):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, vocab_size=30, **FAMILIES[family])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == family
    check_sizes(saved, family)
    check_folder(tmp_path, saved, family)
    kind = attention_of(config)  # one that the architecture has
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=kind).config.vocab_size == 30
    layers = next(field for field in ("n_layer", "num_hidden_layers", "num_layers") if field in saved)
    with pytest.raises(EdgewiseError, match=rf"{layers} is 3, and the checkpoint has 2 layers"):
        check_folder(tmp_path, saved | {layers: 3}, family)
    with pytest.raises(EdgewiseError, match=rf"{layers} in its config\.json is 10000000"):
        check_sizes(saved | {layers: 10**7}, family)


PUBLISHED = {
    "falcon-7b": dict(
        model_type="falcon", num_attention_heads=71, num_kv_heads=71, hidden_size=4544, num_hidden_layers=32
    ),
    "opt-350m": dict(
        model_type="opt",
        hidden_size=1024,
        num_attention_heads=16,
        ffn_dim=4096,
        word_embed_proj_dim=512,
        vocab_size=50272,
    ),
    "gemma-3-270m": dict(
        model_type="gemma3_text", hidden_size=640, num_attention_heads=4, num_key_value_heads=1, head_dim=256
    ),
    "gpt-oss": dict(
        model_type="gpt_oss", hidden_size=2880, num_attention_heads=64, num_key_value_heads=8, num_local_experts=32
    ),
    "qwen3 without its default": dict(
        model_type="qwen3", hidden_size=1000, num_attention_heads=16, num_key_value_heads=8, head_dim=None
    ),
    "bloom": dict(model_type="bloom", n_layer=24, n_embed=1024, num_attention_heads=16, n_inner=None),
    "a granite without experts": dict(
        model_type="granitemoe", num_local_experts=0, hidden_size=64, num_attention_heads=4
    ),
    "gpt-j": dict(model_type="gptj", n_embd=4096, n_head=16, n_inner=None, rotary_dim=64, n_layer=28),
    "sizes by layer": dict(model_type="gemma3n_text", intermediate_size=[64, 32, 16], hidden_size=64),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_as_they_are_published_are_let_through(name):
    check_sizes(PUBLISHED[name], name)


def test_layers_beyond_the_last_are_let_through_where_the_config_says_so():
    config = {"num_hidden_layers": 2, "num_nextn_predict_layers": 1}
    tensors = [f"model.layers.{layer}.mlp.weight" for layer in range(3)]
    check_layers(config, tensors, 100, "deepseek")
    check_layers(config, tensors[:2], 100, "deepseek")
    with pytest.raises(EdgewiseError, match="has 3 layers"):
        check_layers({"num_hidden_layers": 2}, tensors, 100, "deepseek")
    with pytest.raises(EdgewiseError, match="has 1 layer,"):
        check_layers(config, tensors[:1], 100, "deepseek")


@pytest.mark.parametrize(
    ("field", "value"), [("ffn_dim", 0), ("num_experts", -1), ("num_experts", 10**9), ("intermediate_size", [8, "x"])]
)
def test_sizes_that_are_none_are_refused(field, value):
    with pytest.raises(EdgewiseError, match=rf"{field} in its config\.json is .* whole number"):
        check_sizes({field: value}, "odd")


def test_a_model_of_text_and_images_is_refused_by_its_parts(tmp_path):
    config = transformers.Gemma3Config(
        text_config=dict(GATED, head_dim=4, vocab_size=30),
        vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        ),
        mm_tokens_per_image=4,
        image_token_index=29,
    )
    says = r"architecture gemma3, which holds a text model \(gemma3_text\) beside parts for vision: .* by itself"
    with pytest.raises(EdgewiseError, match=says):
        refuse_multimodal(config.to_dict(), "gemma-3-4b")
    model = transformers.Gemma3ForConditionalGeneration(config)
    with pytest.raises(EdgewiseError, match=says):
        load_model(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(EdgewiseError, match=says):
        load_model(tmp_path)
    refuse_multimodal({"model_type": "llama", "quantization_config": {}}, "plain")
