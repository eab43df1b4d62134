"""MLPs taken apart by neuron: in every family their neurons add up to them, or it is said why they cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from family_models import CONFIGS, InFloat64, family

from edgewise.errors import EdgewiseError
from edgewise.models.components import MLP
from edgewise.models.neurons import NeuronMLP, by_neuron

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "deepseek_v2", "deepseek_v3", "gpt_oss")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in MIXTURES])
def test_an_mlp_is_the_sum_of_its_neurons_and_the_bias_that_none_owns(name):
    with InFloat64():
        model = family(name, torch.float64)
        opened = by_neuron(model)
        x = torch.randn(2, 3, model.config.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        for whole, apart in zip(model.components, opened.components, strict=True):
            if not isinstance(whole, MLP):
                assert apart is whole
                continue
            assert isinstance(apart, NeuronMLP)
            code = apart.code({"mlp": x[:, :, None]}, None)
            assert code.shape == (2, 3, 1, opened.graph().neurons)
            assert torch.allclose(apart.write_total(code), whole.run(x), atol=1e-9)
            # Writing is linear: neuron by neuron, and the bias.
            alone = apart.write(torch.diag(code[0, 0, 0])[None])
            nothing = apart.write_total(torch.zeros_like(code))[0, 0]
            assert torch.allclose(alone[0].sum(dim=0) + nothing, whole.run(x)[0, 0], atol=1e-9)
    assert by_neuron(opened) is opened


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_experts_are_refused(name):
    with pytest.raises(EdgewiseError, match=r"the MLP of layer \d of model .* is a mixture of experts"):
        by_neuron(family(name))


def test_what_has_no_neurons_to_tell_apart_says_so():
    with pytest.raises(EdgewiseError, match="has no MLPs, so no neurons"):
        by_neuron(tiny.plain(mlps=False))
    model = tiny.gpt2(layers=2)

    def changed(**parts):
        """The model with another MLP in its second layer."""
        mlp = model.components[3]
        return replace(model, components=(*model.components[:3], replace(mlp, **parts)))

    with pytest.raises(EdgewiseError, match=r"layer 1 .* of a kind whose neurons edgewise cannot tell apart"):
        by_neuron(changed(by_neuron=None))
    with pytest.raises(EdgewiseError, match=r"layer 1 .* does not write the sum of what its neurons write"):
        by_neuron(changed(run=lambda x: torch.tanh(model.components[3].run(x))))
    other = tiny.plain(d_model=32, d_mlp=16).components[1]
    with pytest.raises(EdgewiseError, match=r"MLPs of several widths \(16, 128\)"):
        by_neuron(replace(model, components=(*model.components[:3], other)))
