"""Every adapter computes what its source model computes."""

import dataclasses

import pytest
import tiny
import torch
import transformers

from edgewise.errors import EdgewiseError
from edgewise.models import check, load_model
from edgewise.models.attention import Attention
from edgewise.models.decoder import positions_of
from edgewise.models.forward import forward
from edgewise.models.guard import random_prompts

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 0.1}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_decoder_gives_the_source_models_logits(family, dtype):
    model, prompts = tiny.FAMILIES[family](dtype=dtype), tiny.prompts(rows=5, longest=9)
    ours = model.logits(forward(model, prompts.clean, prompts.mask).streams[-1])[prompts.mask].double()
    wanted = model.run_source(prompts.clean, prompts.mask, positions_of(prompts.clean))[prompts.mask].double()
    assert wanted.std() > 0.1
    assert (ours - wanted).abs().max() <= TOLERANCE[dtype] * wanted.abs().max()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_padding_changes_nothing_for_a_shorter_prompt(family):
    model = tiny.FAMILIES[family](dtype=torch.float64)
    prompts = tiny.prompts(rows=3, longest=7)
    row = 2
    length = int(prompts.mask[row].sum())
    assert length < prompts.clean.shape[1]
    alone = forward(model, prompts.clean[row : row + 1, :length], prompts.mask[row : row + 1, :length])
    together = forward(model, prompts.clean, prompts.mask)
    assert torch.allclose(alone.streams[-1][0], together.streams[-1][row, :length], atol=1e-10)


def test_a_few_heads_give_the_same_as_all_heads():
    model = tiny.llama(dtype=torch.float64)
    attention, heads = tiny.layers_of(model)[1].attention, [3, 0]
    x = torch.randn(2, 5, 1, model.config.d_model, dtype=torch.float64)
    positions = torch.arange(5)[None]
    every = attention.projections(x, positions)
    for kind, asked in (("q", heads), ("k", [1, 1]), ("v", [1])):
        assert torch.allclose(attention.project(kind, x, positions, asked), every[kind][:, :, asked])
    own = x.expand(-1, -1, 2, -1)
    assert torch.allclose(attention.project("q", own, positions, heads), every["q"][:, :, heads])
    z = torch.randn(2, 5, 2, model.config.d_head, dtype=torch.float64)
    full = torch.zeros(2, 5, 4, model.config.d_head, dtype=torch.float64)
    full[:, :, heads] = z
    written = attention.write(full)
    for index, head in enumerate(heads):
        assert torch.allclose(attention.write_node(head, z[:, :, index]), written[:, :, head])
    assert torch.allclose(attention.write_total(full), written.sum(dim=2) + attention.bias)


def test_rotation_depends_on_the_positions_given():
    model = tiny.llama()
    x = torch.randn(1, 4, 1, model.config.d_model)
    layer = tiny.layers_of(model)[0]
    late = layer.query(x, torch.arange(4)[None] + 3)
    assert not torch.allclose(late, layer.query(x, torch.arange(4)[None]), atol=1e-3)


def test_heads_and_biases_add_up_to_the_attention_blocks_output():
    model = tiny.gpt2(dtype=torch.float64)
    block = model.source.transformer.h[1]
    x = torch.randn(2, 5, model.config.d_model, dtype=torch.float64)
    wanted = block.attn(block.ln_1(x))[0]
    layer, positions = tiny.layers_of(model)[1], torch.arange(5)[None]
    streams = x[:, :, None]
    z = layer.attend(
        layer.query(streams, positions),
        layer.key(streams, positions),
        layer.value(streams),
        tiny.first_allowed(model, torch.ones(2, 5, dtype=torch.bool)),
    )
    causal = layer.write(z).sum(dim=2) + layer.bias
    # called by itself, the block attends to everything, unless told otherwise: the last token sees the same either way
    assert torch.allclose(causal[:, -1], wanted[:, -1], atol=1e-10)


def test_gpt2_options_that_change_attention_scores_are_followed():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=3, n_head=2, n_embd=16, vocab_size=40, n_positions=16, scale_attn_by_inverse_layer_idx=True
    )
    config.bos_token_id = config.eos_token_id = 0
    model = load_model(tiny._loud(transformers.GPT2LMHeadModel(config)))
    prompts = tiny.prompts()
    assert check(model, prompts.clean, prompts.mask) < 1e-4


def _scaled(model, factor, layer=None):
    """The model with attention scores multiplied, in one layer or all."""
    return dataclasses.replace(
        model,
        components=tuple(
            dataclasses.replace(one, scale=factor * one.scale)
            if isinstance(one, Attention) and layer in (None, one.layer)
            else one
            for one in model.components
        ),
    )


def test_weights_are_views_of_the_source_models_own():
    for model in (tiny.gpt2(), tiny.llama()):
        pointers = {tensor.untyped_storage().data_ptr() for tensor in model.source.state_dict().values()}
        for layer in tiny.layers_of(model):
            for projection in (layer.queries, layer.keys, layer.values, layer.output):
                assert projection.weight.untyped_storage().data_ptr() in pointers


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 1), ("llama", 2)])
def test_the_guard_refuses_a_misread_model_and_names_the_layer(family, layer):
    model, prompts = tiny.FAMILIES[family](), tiny.prompts()
    assert check(model, prompts.clean, prompts.mask) < 1e-4
    wrong = _scaled(model, 1.1, layer)
    with pytest.raises(
        EdgewiseError, match=rf"differ by .* starting in layer {layer}: given the same input, head a{layer}\.h"
    ):
        check(wrong, prompts.clean, prompts.mask)


def test_the_guard_lets_half_precision_pass_but_not_a_wrong_model():
    model, prompts = tiny.gpt2(dtype=torch.bfloat16), tiny.prompts()
    check(model, prompts.clean, prompts.mask)
    with pytest.raises(EdgewiseError, match="does not compute what the model computes"):
        check(_scaled(model, 4), prompts.clean, prompts.mask)


@tiny.needs_shared
def test_the_real_llama_model_passes_the_guard():
    model = load_model(tiny.SHARED / "models" / "stories260k")
    ids = torch.tensor([model.tokenizer("Once upon a time, there was a little girl named Lily.")["input_ids"]])
    assert model.config.n_heads == 8
    assert model.config.n_kv_heads == 4
    assert check(model, ids, torch.ones_like(ids, dtype=torch.bool)) < 1e-5


def on_random_tokens(model):
    tokens = random_prompts(model)
    return check(model, tokens, torch.ones_like(tokens, dtype=torch.bool))


def test_a_model_without_a_task_is_checked_on_random_tokens_within_its_context():
    model = load_model("tracr-reverse")
    assert random_prompts(model).shape == (8, 6)
    assert on_random_tokens(model) < 1e-6
    model = tiny.gpt2()
    wrong = _scaled(model, 8**0.5)
    assert on_random_tokens(model) < 1e-4
    with pytest.raises(EdgewiseError, match="does not compute what the model computes"):
        on_random_tokens(wrong)
