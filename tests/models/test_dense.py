"""The dense weights of a linear map are exact, whatever module computes it."""

import pytest
import tiny
import torch
import transformers
from torch import nn

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.models import check, load_model, permuted
from edgewise.models.dense import CHUNK, dense_weight


class Quantised(nn.Module):
    """A linear map kept as whole numbers of 8 bits and a scale per output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("numbers", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
        self.rows = 0

    def forward(self, x):
        self.rows = max(self.rows, x.shape[-2])
        return nn.functional.linear(x, self.numbers.to(x.dtype) * self.scale.to(x.dtype), self.bias)


class Low(nn.Module):
    """A linear map with another of low rank beside it, as an adapter is."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.in_features = linear, linear.in_features
        self.down = nn.Linear(linear.in_features, 2, bias=False)

    def forward(self, x):
        beside = self.down(x).sum(dim=-1, keepdim=True)
        return self.base_layer(x) + beside


def test_an_ordinary_linear_and_a_conv1d_give_their_own_tensors():
    linear, conv = nn.Linear(3, 5), transformers.pytorch_utils.Conv1D(5, 3)
    weight, bias = dense_weight(linear)
    assert weight is linear.weight
    assert bias is linear.bias
    weight, bias = dense_weight(conv)
    assert weight.shape == (5, 3)
    assert weight.data_ptr() == conv.weight.data_ptr()
    assert bias is conv.bias
    assert dense_weight(nn.Linear(3, 5, bias=False))[1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_quantised_linear_gives_the_weight_that_it_computes_with(dtype, bias):
    torch.manual_seed(0)
    linear = nn.Linear(2 * CHUNK + 3, 7, bias=bias)
    if bias:
        linear.bias.data += 1e4  # so large that a sum with it would round the weights away
    module = Quantised(linear).to(dtype)
    module.numbers = module.numbers.to(torch.int8)
    weight, offset = dense_weight(module)
    assert weight.dtype == dtype
    assert torch.equal(weight, module.numbers.to(dtype) * module.scale)
    assert module.rows <= CHUNK
    if offset is None:
        assert not bias
    else:
        assert torch.equal(offset, module.bias)


def test_an_adapter_around_a_linear_is_in_its_weight_and_hooks_are_not():
    torch.manual_seed(0)
    linear = nn.Linear(6, 4)
    module = Low(linear)
    handle = module.base_layer.register_forward_hook(lambda *_: None)
    weight, bias = dense_weight(module)
    handle.remove()
    assert torch.allclose(weight, linear.weight + module.down.weight.sum(dim=0), atol=1e-6)
    assert torch.equal(bias, linear.bias)
    assert module.base_layer.bias is linear.bias


def test_the_dtype_of_the_model_around_it_can_be_said():
    module = Quantised(nn.Linear(4, 4, bias=False))
    assert dense_weight(module, torch.float16)[0].dtype == torch.float16
    module.compute_dtype = torch.bfloat16
    assert dense_weight(module)[0].dtype == torch.bfloat16


def test_what_is_no_linear_map_is_refused():
    with pytest.raises(EdgewiseError, match="weights of a GELU: it has no in_features"):
        dense_weight(nn.GELU())
    broken = Quantised(nn.Linear(4, 4))
    broken.in_features = 3
    with pytest.raises(EdgewiseError, match="weights of a Quantised: it cannot be called by itself"):
        dense_weight(broken)


def quantised_llama(bias=True):
    """A tiny Llama whose linear maps inside layers are all quantised, as transformers loads such models."""
    source = tiny.llama(bias=bias).source
    for layer in source.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if type(child) is nn.Linear:
                    setattr(block, name, Quantised(child))
    source.is_quantized = True
    return source


def test_a_quantised_model_is_read_and_searched_as_it_is():
    source = quantised_llama()
    model, prompts = load_model(source), tiny.prompts()
    assert model.source is source
    assert check(model, prompts.clean, prompts.mask) < 1e-4
    run = ew.discover(model, tiny.task(), threshold=0.05)
    by_one = ew.discover(model, tiny.task(), threshold=0.05, engine="plain")
    assert run.circuit.names() == by_one.circuit.names()
    assert 0 < run.circuit.n_edges < run.circuit.graph.n_edges


def test_a_quantised_model_keeps_its_dtype():
    with pytest.raises(EdgewiseError, match="LlamaForCausalLM is quantised, so it cannot be converted"):
        load_model(quantised_llama(), dtype="bfloat16")


def test_a_quantised_model_is_not_shuffled():
    with pytest.raises(EdgewiseError, match="is quantised: its heads and neurons cannot be shuffled"):
        permuted(load_model(quantised_llama()), 0)
