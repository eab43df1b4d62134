"""Models without their weights."""

import json

import pytest
import tiny
import torch
import transformers
from family_models import CONFIGS, family

from edgewise.errors import EdgewiseError
from edgewise.models import load_model, shapes
from edgewise.models.shapes import SHAPES, load_shape, parameters
from edgewise.patching.work import work_of

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "pythia-160m": 162_322_944,
    "pythia-1.4b": 1_414_647_808,
    "pythia-6.9b": 6_857_302_016,
    "smollm2-135m": 134_515_008,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "qwen3-8b": 8_190_735_360,
}
"""Parameters of the published models, as their cards and checkpoints say."""


@pytest.mark.parametrize("name", SHAPES)
def test_a_known_shape_has_as_many_parameters_as_its_model_was_published_with(name):
    assert parameters(load_shape(name)) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "edges"), [("gpt2", 32_923), ("smollm2-135m", 71_101), ("llama-3.2-1b", 196_633)])
def test_its_graph_is_the_models(name, edges):
    assert load_shape(name).graph().n_edges == edges


def test_no_weights_are_there():
    model = load_shape("llama-3.1-70b", "bfloat16")
    assert all(one.is_meta for one in model.source.parameters())
    assert model.dtype == torch.bfloat16


def configs():
    return {
        "gpt2": transformers.GPT2Config(n_layer=3, n_head=2, n_embd=16, vocab_size=50, n_positions=12),
        "llama": transformers.LlamaConfig(
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32, intermediate_size=40,
            vocab_size=60,
        ),
        "gemma2": transformers.Gemma2Config(
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32, intermediate_size=40,
            vocab_size=60, head_dim=8,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("family", configs())
def test_a_folder_or_its_config_gives_the_shape_of_the_model_built_from_it(family, tmp_path):
    config = configs()[family]
    config.save_pretrained(tmp_path)
    real = load_model(transformers.AutoModelForCausalLM.from_config(config))
    for given in (tmp_path, tmp_path / "config.json"):
        shape = load_shape(given)
        assert shape.config == real.config
        assert shape.graph() == real.graph()
        assert parameters(shape) == sum(one.numel() for one in real.source.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_familys_configuration_is_a_shape(name):
    real = family(name)
    shape = shapes._built(real.source.config.to_dict(), name, torch.float32)
    assert shape.config == real.config
    assert shape.graph() == real.graph()
    assert parameters(shape) == parameters(real)
    if not any(getattr(one, "routed", False) for one in real.components):
        assert work_of(shape, shape.graph(), 3, 6) == work_of(real, real.graph(), 3, 6)


@tiny.needs_shared
def test_a_real_models_folder_is_a_shape():
    folder = tiny.SHARED / "models" / "stories260k"
    assert parameters(load_shape(folder)) == parameters(load_model(folder))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mamba"}, "which edgewise does not support yet"),
        ({}, "of architecture None, which edgewise does not support yet"),
        ({"model_type": "llama", "hidden_size": -3}, "hidden_size in its config.json is -3"),
        ({"model_type": "gpt2", "n_head": 5, "n_embd": 16}, "n_embd in its config.json is 16"),
        ({"model_type": "llama", "hidden_act": "no-such"}, "transformers makes no model of it"),
        ({"model_type": "gpt2", "n_layer": 50, "n_head": 100_000, "n_embd": 100_000}, "pairs of them"),
    ],
)
def test_a_config_that_is_none_is_refused(config, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EdgewiseError, match=said):
        load_shape(tmp_path)


def test_no_code_of_a_checkpoint_is_asked_for(tmp_path):
    named = {"model_type": "gpt2", "n_layer": 2, "auto_map": {"AutoModelForCausalLM": "theirs--Model"}}
    (tmp_path / "config.json").write_text(json.dumps({**named, "_attn_implementation": "theirs/kernel"}))
    assert load_shape(tmp_path).config.n_layers == 2


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ("lama-3.1-70b", None, "did you mean 'llama-3.1-70b'"),
        ("", None, "unknown shape ''"),
        ("gpt2", "float17", "unknown dtype 'float17'; did you mean 'float16'"),
    ],
)
def test_names_that_are_none_are_refused_with_those_that_are(shape, dtype, said):
    with pytest.raises(EdgewiseError, match=said):
        load_shape(shape, dtype)
