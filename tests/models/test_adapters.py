"""Every adapter computes what its source model computes."""

import dataclasses

import pytest
import tiny
import torch
import transformers

from edgewise.errors import EdgewiseError
from edgewise.models import check, load_model
from edgewise.models.decoder import positions_of
from edgewise.models.forward import forward
from edgewise.models.guard import check_on_random_tokens

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
    layer, heads = model.layers[1], [3, 0]
    x = torch.randn(2, 5, 1, model.config.d_model, dtype=torch.float64)
    positions = torch.arange(5)[None]
    all_queries = layer.query(x, positions)
    assert torch.allclose(layer.query(x, positions, heads), all_queries[:, :, heads])
    assert torch.allclose(layer.key(x, positions, [1, 1]), layer.key(x, positions)[:, :, [1, 1]])
    z = torch.randn(2, 5, 2, model.config.d_head, dtype=torch.float64)
    full = torch.zeros(2, 5, 4, model.config.d_head, dtype=torch.float64)
    full[:, :, heads] = z
    assert torch.allclose(layer.write(z, heads), layer.write(full)[:, :, heads])


def test_rotation_depends_on_the_positions_given():
    model = tiny.llama()
    x = torch.randn(1, 4, 1, model.config.d_model)
    late = model.layers[0].query(x, torch.arange(4)[None] + 3)
    assert not torch.allclose(late, model.layers[0].query(x, torch.arange(4)[None]), atol=1e-3)


def test_heads_and_biases_add_up_to_the_attention_blocks_output():
    model = tiny.gpt2(dtype=torch.float64)
    block = model.source.transformer.h[1]
    x = torch.randn(2, 5, model.config.d_model, dtype=torch.float64)
    wanted = block.attn(block.ln_1(x))[0]
    layer, positions = model.layers[1], torch.arange(5)[None]
    streams = x[:, :, None]
    z = layer.attend(
        layer.query(streams, positions),
        layer.key(streams, positions),
        layer.value(streams),
        model.allowed(torch.ones(2, 5, dtype=torch.bool)),
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


def test_weights_are_views_of_the_source_models_own():
    for model in (tiny.gpt2(), tiny.llama()):
        pointers = {tensor.untyped_storage().data_ptr() for tensor in model.source.state_dict().values()}
        for layer in model.layers:
            for projection in (layer.queries, layer.keys, layer.values, layer.output):
                assert projection.weight.untyped_storage().data_ptr() in pointers


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 1), ("llama", 2)])
def test_the_guard_refuses_a_misread_model_and_names_the_layer(family, layer):
    model, prompts = tiny.FAMILIES[family](), tiny.prompts()
    assert check(model, prompts.clean, prompts.mask) < 1e-4
    layers = list(model.layers)
    layers[layer] = dataclasses.replace(layers[layer], scale=layers[layer].scale * 1.1)
    wrong = dataclasses.replace(model, layers=tuple(layers))
    with pytest.raises(
        EdgewiseError, match=rf"differ by .* starting in layer {layer}: given the same input, head a{layer}\.h"
    ):
        check(wrong, prompts.clean, prompts.mask)


def test_the_guard_lets_half_precision_pass_but_not_a_wrong_model():
    model, prompts = tiny.gpt2(dtype=torch.bfloat16), tiny.prompts()
    check(model, prompts.clean, prompts.mask)
    layers = [dataclasses.replace(layer, scale=4 * layer.scale) for layer in model.layers]
    with pytest.raises(EdgewiseError, match="does not compute what the model computes"):
        check(dataclasses.replace(model, layers=tuple(layers)), prompts.clean, prompts.mask)


@tiny.needs_shared
def test_the_real_llama_model_passes_the_guard():
    model = load_model(tiny.SHARED / "models" / "stories260k")
    ids = torch.tensor([model.tokenizer("Once upon a time, there was a little girl named Lily.")["input_ids"]])
    assert model.config.n_heads == 8
    assert model.config.n_kv_heads == 4
    assert check(model, ids, torch.ones_like(ids, dtype=torch.bool)) < 1e-5


def test_a_model_without_a_task_is_checked_on_random_tokens_within_its_context():
    difference, rows, length = check_on_random_tokens(load_model("tracr-reverse"))
    assert (rows, length) == (8, 6)
    assert difference < 1e-6
    model = tiny.gpt2()
    wrong = dataclasses.replace(model, layers=tuple(dataclasses.replace(one, scale=1.0) for one in model.layers))
    assert check_on_random_tokens(model)[0] < 1e-4
    with pytest.raises(EdgewiseError, match="does not compute what the model computes"):
        check_on_random_tokens(wrong)
