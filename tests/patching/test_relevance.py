"""RelP: forward values stay, and gradients are those of a model whose norms and activations are straight lines."""

import numpy as np
import pytest
import tiny
import torch
from tiny import FAMILIES
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2CLS, ACT2FN

from edgewise.discovery import edge_attribution, relp
from edgewise.errors import EdgewiseError
from edgewise.models.plain_config import ACTIVATIONS
from edgewise.patching import Experiment
from edgewise.patching.relevance import relevance_rules


def gradient(function, x):
    x = x.clone().requires_grad_()
    with relevance_rules():
        value = function(x)
    plain = function(x.detach())
    assert torch.allclose(value, plain, atol=1e-12)
    return torch.autograd.grad(value.sum(), x)[0]


def inputs(seed=0):
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_norms_scale_is_a_constant():
    x, weight, bias = inputs(), inputs(1)[0], inputs(2)[0]
    found = gradient(lambda x: functional.layer_norm(x, (8,), weight, bias), x)
    scale = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    wanted = (weight - weight.mean()) / scale
    assert torch.allclose(found, wanted, atol=1e-12)
    norm = nn.LayerNorm(8).double()
    assert torch.allclose(gradient(norm, x), torch.zeros_like(x), atol=1e-9), "equal weights: what is centred sums to 0"
    rms = gradient(lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5), x)
    assert torch.allclose(rms, torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5).expand_as(x), atol=1e-12)


@pytest.mark.parametrize("function", [functional.gelu, functional.silu, functional.relu, nn.GELU(approximate="tanh")])
def test_an_activation_is_its_input_times_a_constant(function):
    x = inputs()
    assert torch.allclose(gradient(function, x), function(x) / x, atol=1e-12)
    slope = gradient(function, torch.zeros(1, dtype=torch.float64))
    assert slope.isfinite().all()


NOT_ZERO_AT_ZERO = {"sigmoid", "laplace", "sqrtsoftplus"}


@pytest.mark.parametrize("name", sorted(ACT2CLS))
def test_the_rule_holds_for_every_activation_of_transformers_however_it_is_written(name):
    function, x = ACT2FN[name].double(), inputs()
    if name in NOT_ZERO_AT_ZERO:
        with relevance_rules(), pytest.raises(EdgewiseError, match=rf"no rule for .* {type(function).__name__}"):
            function(x)
        return
    found = gradient(function, x)
    assert torch.allclose(found, (function(x) / x).detach(), atol=1e-9)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)  # at 0 the ratio is the slope
    around = (function(torch.full_like(x, 1e-3)) - function(torch.full_like(x, -1e-3)))[0] / 2e-3
    assert gradient(function, x)[0].item() == pytest.approx(around.item(), abs=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
def test_the_rule_holds_for_every_activation_of_a_plain_transformer(name, gated):
    if gated and name == "solu_ln":
        return
    mlp = tiny.plain(dtype=torch.float64, layers=1, activation=name, gated_mlp=gated).source.blocks[0].mlp
    function, x = mlp.activation, inputs()
    assert torch.allclose(gradient(function, x), function(x) / x, atol=1e-9)
    x = torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    through = mlp.W_gate if gated else mlp.W_in
    hidden = x @ through + (0 if gated else mlp.b_in)
    ratio = function(hidden) / hidden
    if gated:  # half to each side
        wanted = (ratio * (x @ mlp.W_in) * mlp.W_out.sum(dim=1)) @ through.T / 2
        wanted += (function(hidden) * mlp.W_out.sum(dim=1)) @ mlp.W_in.T / 2
    elif name != "solu_ln":
        wanted = (ratio * mlp.W_out.sum(dim=1)) @ through.T
    else:
        return
    assert torch.allclose(gradient(mlp, x), wanted, atol=1e-9)


def test_the_rules_end_with_their_block():
    x = inputs().requires_grad_()
    plain = torch.autograd.grad(nn.GELU()(x).sum(), x)[0]
    with pytest.raises(EdgewiseError), relevance_rules():
        nn.Sigmoid()(x)
    assert torch.equal(torch.autograd.grad(nn.GELU()(x).sum(), x)[0], plain)


def test_a_product_of_activations_gives_half_to_each():
    x = inputs()
    found = gradient(lambda x: (2 * x) * (3 * x + 1), x)
    assert torch.allclose(found, (2 * (3 * x + 1) + 3 * (2 * x)) / 2, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_differ_from_plain_gradients_where_there_is_something_to_bend(family):
    experiment = Experiment(FAMILIES[family](dtype=torch.float64), tiny.task(), metric="logit_diff")
    plain, found = edge_attribution(experiment).circuit.scores, relp(experiment).circuit.scores
    assert np.abs(found).max() > 1e-3
    if family == "plain-attention-only":  # no norm, no MLP
        assert np.abs(found - plain).max() < 1e-12
    else:
        assert np.abs(found - plain).max() > 1e-3


def test_on_a_relu_network_without_norms_relp_is_plain_attribution():
    model = tiny.plain(dtype=torch.float64, layers=2, activation="relu")
    experiment = Experiment(model, tiny.task(), ablation="zero", metric="logit_diff")
    found = relp(experiment).circuit
    wanted = edge_attribution(experiment).circuit
    # ReLU's slope is its ratio, and there is no norm: both are the same thing.
    assert np.abs(found.scores - wanted.scores).max() < 1e-12
    assert np.abs(found.scores).max() > 1e-2
