"""What coupled heads, caps and sinks take beyond a plain model is in the plan."""

import allocations
import pytest
import torch
import transformers

from edgewise import discover
from edgewise.models import load_model
from edgewise.patching.memory import memory_of

FAMILIES = {
    "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM, dict(head_dim=8, sliding_window=8)),
    "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM, {}),
    "gpt_oss": (
        transformers.GptOssConfig,
        transformers.GptOssForCausalLM,
        dict(head_dim=8, num_local_experts=2, num_experts_per_tok=1),
    ),
}


@pytest.mark.parametrize("family", ["gemma2", pytest.param("olmo2", marks=pytest.mark.slow), "gpt_oss"])
def test_searches_and_attribution_stay_below_their_limits(family):
    config, model, options = FAMILIES[family]
    torch.manual_seed(0)
    made = config(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=32,
        intermediate_size=64,
        vocab_size=100,
        max_position_embeddings=200,
        bos_token_id=0,
        eos_token_id=1,
        **options,
    )
    made._attn_implementation = "eager"
    decoder, task = load_model(model(made)), allocations.prompts(2, 150)
    plan = memory_of(decoder, task, decoder.graph())
    peak = allocations.peak_of(lambda: discover(decoder, task, threshold=1e6, max_memory=plan.smallest))
    assert 0.6 * plan.smallest <= peak <= plan.smallest
    limit = plan.smallest_for("gradients")
    peak = allocations.peak_of(lambda: discover(decoder, task, method="edge-attribution", edges=9, max_memory=limit))
    assert 0.5 * limit <= peak <= limit
