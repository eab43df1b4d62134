"""The guard sees one head or MLP that is missing or a little off, in every dtype, and lets intact models pass."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny
import torch
from torch import nn

import edgewise as ew
from edgewise import load_task
from edgewise.errors import EdgewiseError
from edgewise.models import BUILT_IN, check, load_model
from edgewise.models.control import fold_value_biases
from edgewise.models.guard import compare, random_prompts

SLIGHT = {"float64": 1.001, "float32": 1.001, "bfloat16": 1.1}
WRONG = "does not compute what the model computes"


@contextmanager
def scaled_heads(model, heads: list[tuple[int, int]], factor: float) -> Iterator[None]:
    """The source model with what these heads compute multiplied, as people do it: by hooks."""

    def hook_for(head):
        def hook(_, given):
            z = given[0].clone()
            (z if z.dim() == 4 else z.unflatten(-1, (model.config.n_heads, -1)))[:, :, head] *= factor
            return (z,)

        return hook

    modules = [tiny.layers_of(model)[layer].attention.source.projection for layer, _ in heads]
    handles = [
        module.register_forward_pre_hook(hook_for(head)) for module, (_, head) in zip(modules, heads, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def off(model, prompts) -> set[str]:
    """The names of the parts that differ by more than rounding does, each compared given its own input."""
    with torch.no_grad():
        return {
            part.what for part in compare(model, prompts.clean, prompts.mask).parts if part.difference > part.allowed
        }


@pytest.mark.parametrize("dtype", SLIGHT)
@pytest.mark.parametrize("name", ["tiny-ioi", "tiny-docstring"])
def test_every_head_is_missed_when_it_is_gone_or_a_little_larger(name, dtype):
    model = load_model(name, dtype=dtype)
    prompts = load_task(name.removeprefix("tiny-"), model, examples=2).prompts
    heads = [(layer, head) for layer in range(model.config.n_layers) for head in range(model.config.n_heads)]
    for factor in (0.0, SLIGHT[dtype]):
        with scaled_heads(model, heads, factor):
            assert off(model, prompts) == {f"head a{layer}.h{head}" for layer, head in heads}
    wanted = rf"{WRONG}: .*layer 1: given the same input, head a1\.h0 differs"
    with scaled_heads(model, [(1, 0)], 0.0), pytest.raises(EdgewiseError, match=wanted):
        check(model, prompts.clean, prompts.mask)
    assert not off(model, prompts)


class Times(nn.Module):
    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x):
        return self.inner(x) * self.factor


@pytest.mark.parametrize("dtype", SLIGHT)
def test_every_mlp_is_missed_when_it_is_gone_or_a_little_larger(dtype):
    model = load_model("tiny-ioi", dtype=dtype)
    prompts = load_task("ioi", model, examples=2).prompts
    blocks = model.source.transformer.h
    mlps = [block.mlp for block in blocks]

    def heard_anew(component):
        block = blocks[component.layer].mlp
        return (
            component
            if component.kinds != ("mlp",)
            else dataclasses.replace(component, source=dataclasses.replace(component.source, block=block))
        )

    for factor in (0.0, SLIGHT[dtype]):
        for block, mlp in zip(blocks, mlps, strict=True):
            # The Decoder calls the model's own MLP, with its hooks; one that is replaced later is another.
            block.mlp = Times(mlp, factor)
        listening = dataclasses.replace(model, components=tuple(map(heard_anew, model.components)))
        assert off(listening, prompts) == {f"MLP m{layer}" for layer in range(len(mlps))}
        with pytest.raises(EdgewiseError, match=rf"{WRONG}.*layer 0"):
            check(model, prompts.clean, prompts.mask)  # which still listens to the old ones
    for block, mlp in zip(blocks, mlps, strict=True):
        block.mlp = mlp
    handles = [mlp.register_forward_hook(lambda _, x, out: 0 * out) for mlp in mlps]
    assert not off(model, prompts), "a hook on an MLP is part of the MLP for edgewise too"
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("dtype", SLIGHT)
@pytest.mark.parametrize("family", ["gpt2", "llama", "parallel"])
def test_a_change_between_the_parts_is_seen(family, dtype):
    model = tiny.FAMILIES[family](dtype=getattr(torch, dtype))
    prompts = tiny.prompts(rows=5, longest=9)
    attention, mlp = tiny.by_layer(model, [component.source for component in model.components])
    for module in (attention[1].norm, mlp[2].norm, model.final_norm):
        handle = module.register_forward_pre_hook(lambda _, given: (1.1 * given[0],))
        with pytest.raises(EdgewiseError, match=WRONG):
            check(model, prompts.clean, prompts.mask)
        handle.remove()
    handle = attention[2].block.register_forward_hook(
        lambda _, given, out: 1.1 * out if isinstance(out, torch.Tensor) else (1.1 * out[0], *out[1:])
    )
    with pytest.raises(EdgewiseError, match=r"layer 2: given the same input, what the heads of layer 2 write together"):
        check(model, prompts.clean, prompts.mask)
    handle.remove()
    check(model, prompts.clean, prompts.mask)


def random_tokens(model, rows=4, length=12, seed=0):
    length = min(length, model.config.n_context or length)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, model.config.n_tokens, (rows, length), generator=generator)
    return tokens, torch.ones_like(tokens, dtype=torch.bool)


@pytest.mark.parametrize("dtype", SLIGHT)
def test_intact_models_pass_with_room_to_spare(dtype):
    kind = getattr(torch, dtype)
    models = [load_model(name, dtype=kind) for name in BUILT_IN]
    models += [make(dtype=kind) for make in tiny.FAMILIES.values()]
    models += [fold_value_biases(tiny.llama(dtype=kind, bias=True)), ew.permuted(load_model("tiny-ioi", dtype=kind), 1)]
    for scale in (0.01, 30.0):  # large and small activations
        for make in (tiny.gpt2, tiny.llama):
            source = make(dtype=kind).source
            source.get_input_embeddings().weight.data *= scale
            models.append(load_model(source))
    for model in models:
        tokens, mask = random_tokens(model)
        check(model, tokens, mask)
        worst = max(part.difference / max(part.allowed, 1e-300) for part in compare(model, tokens, mask).parts)
        assert worst < 0.75, (model.name, worst)


def test_a_softmax_in_another_precision_is_still_the_model():
    model = tiny.llama(dtype=torch.float64)
    eager = copy.deepcopy(model.source)
    eager.set_attn_implementation("eager")  # takes its softmax in float32
    check(load_model(eager), *random_tokens(model))


@tiny.needs_shared
@pytest.mark.parametrize("dtype", SLIGHT)
def test_the_real_llama_model_passes_and_without_a_head_does_not(dtype):
    model = load_model(tiny.SHARED / "models" / "stories260k", dtype=dtype)
    tokens = random_prompts(model)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    check(model, tokens, mask)
    for factor in (0.0, SLIGHT[dtype]):
        with scaled_heads(model, [(3, 5)], factor), pytest.raises(EdgewiseError, match=r"head a3\.h5"):
            check(model, tokens, mask)


def test_a_model_that_goes_round_its_own_modules_is_refused():
    model = tiny.gpt2()
    block = model.source.transformer.h[1]
    block.mlp = nn.Identity()
    block.forward = lambda hidden_states, *args, **kwargs: hidden_states
    with pytest.raises(EdgewiseError, match="does not compute layer 1 by its own modules"):
        check(model, *random_tokens(model))
