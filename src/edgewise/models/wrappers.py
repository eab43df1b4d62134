"""Models inside other libraries' objects: TransformerLens bridges, nnsight, nnterp and PEFT models, compiled modules.

What they hold is found by their kind, not by what they answer to: most of them pass questions on to what is inside, and
so pass for a model themselves.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from edgewise.models.attention import Attention
from edgewise.models.components import Component, SourceModules
from edgewise.models.decoder import Decoder
from edgewise.models.peft_adapter import is_peft, merged_copy
from edgewise.models.transformer_lens import from_hooked


def unwrap(model: Any) -> Any:
    """The model inside a wrapper, or a TransformerLens bridge as it is; anything else as it is."""
    for _ in range(4):
        inner = _inside(model)
        if inner is model:
            return model
        model = inner
    return model


def _inside(model: Any) -> Any:
    kinds = {kind.__name__ for kind in type(model).__mro__ if kind.__module__.split(".")[0] == "nnsight"}
    if kinds & {"Envoy", "NNsight"}:
        if getattr(model, "dispatched", True) is False:
            model.dispatch()  # its weights are not loaded until they are needed
        return vars(model)["_module"]
    if isinstance(model, nn.Module) and "_orig_mod" in model._modules:  # torch.compile
        return model._modules["_orig_mod"]
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return model.module
    if is_bridge(model):
        return model
    if is_peft(model):
        return merged_copy(model)
    inside = getattr(model, "original_model", None) if isinstance(model, nn.Module) else getattr(model, "_model", None)
    if isinstance(inside, nn.Module):
        return inside
    hooked = from_hooked(model, type(model).__name__)
    return model if hooked is None else hooked


def is_bridge(model: Any) -> bool:
    """Whether a model is a `TransformerBridge` of TransformerLens."""
    return any(
        kind.__name__ == "TransformerBridge" and kind.__module__.startswith("transformer_lens")
        for kind in type(model).__mro__
    )


def adapt_bridge(bridge: Any, name: str, tokenizer: Any, adapt: Callable[..., Decoder]) -> Decoder:
    """A Decoder over a live `TransformerBridge`, in compatibility mode or not.

    A bridge puts its own modules between those of a `transformers` model, and in compatibility mode changes their
    weights: norms folded into what reads them, writing weights centred, value biases moved. The Decoder reads the same
    weights without what lies between, and is held against the bridge itself, part by part, whenever a task is loaded.
    """
    original = bridge.original_model
    original.eval()
    bare = _bare(original)
    for block, bridged in zip(getattr(getattr(bare, "transformer", None), "h", ()), bridge.blocks, strict=False):
        _join_queries_keys_values(block.attn, bridged.attn)
    decoder = adapt(bare, name, tokenizer)

    def heard(component: Component) -> Component:
        block = bridge.blocks[component.layer]
        attention = SourceModules(block.ln1, block.attn, block.attn.o)
        source = attention if isinstance(component, Attention) else SourceModules(block.ln2, block.mlp)
        return replace(component, source=source)

    def run(tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        out = original(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=positions.expand_as(tokens),
            use_cache=False,
        )
        return out.logits

    components = tuple(heard(component) for component in decoder.components)
    return replace(decoder, run_source=run, components=components, source_norm=bridge.ln_final)


def _bare(module: nn.Module) -> Any:
    """The same modules with the same parameters, without a bridge's own between them and without hooks."""
    while "_original_component" in module._modules:
        inner = module._modules["_original_component"]
        assert inner is not None
        module = inner
    bare = copy.copy(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        setattr(bare, hooks, OrderedDict())
    bare._modules = {key: None if part is None else _bare(part) for key, part in module._modules.items()}
    return bare


def _join_queries_keys_values(attention: Any, bridged: Any) -> None:
    # GPT-2's one projection for all three: a bridge computes with three of its own, and changes only those.
    parts = [_bare(getattr(bridged, letter)) for letter in "qkv"]
    joined = copy.copy(attention.c_attn)
    joined._parameters = {
        "weight": nn.Parameter(torch.cat([part.weight.detach().T for part in parts], dim=1), requires_grad=False),
        "bias": nn.Parameter(torch.cat([part.bias.detach() for part in parts]), requires_grad=False),
    }
    attention._modules["c_attn"] = joined
