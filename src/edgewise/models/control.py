"""The same model changed on purpose: biases moved, or heads and neurons shuffled for a control experiment."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.models.attention import Attention
from edgewise.models.components import MLP, Component, Projection
from edgewise.models.decoder import Decoder
from edgewise.models.plain_transformer import PlainNorm


def fold_value_biases(decoder: Decoder) -> Decoder:
    """The same function with every head's value bias moved into what attention writes for no head.

    An attention pattern sums to 1, so the bias b_V of a head adds b_V W_O whatever the prompt. Folded, that belongs to
    no node and stays when the head is removed under `zero` ablation; unfolded it goes with the head. Nothing else
    differs: not the model's logits, and no other ablation. TransformerLens folds by default, so the ACDC paper's runs
    on GPT-2 and attn-only-4l did.

    Raises:
        EdgewiseError: the model has attention sinks, so its patterns sum to less.
    """

    def fold(component: Component) -> Component:
        if not isinstance(component, Attention) or component.values.bias is None:
            return component
        if component.sinks is not None:
            raise EdgewiseError(
                f"model {decoder.name!r} has attention sinks, so what a head's value bias adds depends on the prompt, "
                "and it cannot be counted to the layer"
            )
        share = component.n_heads // component.n_kv_heads
        biases = component.values.bias.repeat_interleave(share, dim=0)
        written = torch.einsum("hd,hdm->m", biases, component.output.weight)
        bias = component.bias + written * component.multiplier
        return replace(component, values=Projection(component.values.weight), bias=bias, folded=biases)

    with torch.no_grad():
        components = tuple(component.then(fold) for component in decoder.components)
    return replace(decoder, components=components, config=replace(decoder.config, folded_value_biases=True))


def fold_norm_biases(decoder: Decoder) -> Decoder:
    """The same function with the bias of each norm moved into the biases of the maps that read it.

    A map W with bias c reads `x + b` of a norm with bias b; of the norm without it, W with bias W b + c makes the same.
    Logits, queries, keys and values stay what they are, so circuits do too. It tells in two ways: a head's value bias
    then holds what the norm's bias adds to its values, which `fold_value_biases` moves on to the layer; and `permuted`
    shuffles it with the biases, apart from the weights. TransformerLens folds norms by default, and so the ACDC paper's
    runs on GPT-2 and attn-only-4l did. (It moves a norm's weight too, which is the same for all heads and neurons, so
    that changes neither.) The final norm, which no head or MLP reads, stays.

    Raises:
        EdgewiseError: value biases are folded already, the model is a permuted or quantised one, or a map has no bias.
    """
    if decoder.original is not None or decoder.config.folded_value_biases:
        raise EdgewiseError(
            f"the biases of norms of model {decoder.name!r} are to be folded before its value biases, and before it is "
            "permuted"
        )
    cannot = "its norms' biases cannot be folded"
    copied = _to_change(decoder, cannot, cannot)
    assert decoder.rebuild is not None
    folded: list[Tensor] = []
    with torch.no_grad():
        for component in copied.components:
            bias = _norm_bias(component.source.norm)
            if bias is None or not bool(bias.any()):
                continue
            for weight, own in _readers(component):
                if own is None:
                    raise EdgewiseError(
                        f"layer {component.layer} of model {decoder.name!r} has a norm with a bias before a map "
                        f"that has none, so {cannot}"
                    )
                own.detach().add_(torch.einsum("d,...de->...e", bias, weight))
            folded.append(bias)
        for bias in folded:  # at the end: blocks beside one another may share a norm
            bias.detach().zero_()
    copied = decoder.rebuild(copied.source)  # with views that nothing was written through
    config = replace(copied.config, folded_norm_biases=True)
    return replace(copied, config=config, **_kept(decoder))


def _kept(decoder: Decoder) -> dict[str, Any]:
    """What a model that is built again would not have."""
    return {"origin": decoder.origin, "offload_activations": decoder.offload_activations}


def _norm_bias(norm: nn.Module) -> Tensor | None:
    bias = norm.b if isinstance(norm, PlainNorm) else getattr(norm, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def _readers(component: Component) -> list[tuple[Tensor, Tensor | None]]:
    """Weight `[..., d_model, d_out]` and bias `[..., d_out]` of each map that reads a component's normed stream."""
    if isinstance(component, Attention):
        return [(one.weight, one.bias) for one in (component.queries, component.keys, component.values)]
    tensors = component.neurons if isinstance(component, MLP) else ()
    weights, biases = ([one for one in tensors if one.dim() == wanted] for wanted in (2, 1))
    if not weights or len(weights) != len(biases):
        return [(torch.empty(0), None)]
    return list(zip(weights, biases, strict=True))


def permuted(decoder: Decoder, seed: int) -> Decoder:
    """A network with the same weights in the wrong places: the ACDC paper's control (its reset networks).

    In every layer the queries', keys' and values' weights and biases are each permuted over heads, and the weights and
    biases into the MLP's neurons over neurons, all independently; output weights, norms and embeddings stay. One
    generator makes the permutations, in the order of the original's code (weights of q, k, v, then biases, then the
    MLP, layer by layer), so on the same weights a seed gives the same network as there. (The paper's weights of GPT-2
    and attn-only-4l had biases of norms and values folded: `fold_norm_biases`, then `fold_value_biases`, then this.)

    A model of one head and one neuron a layer (tracr-xproportion) has nothing to shuffle; a warning says so. Mixtures
    of experts stay as they are.

    `original` of the result is the model it was made from: KL divergence and other comparisons with the whole model are
    comparisons with that one, as in the paper.

    Raises:
        EdgewiseError: the seed is no whole number from 0 to 2^63 - 1, or the model is a permuted one, or quantised, or
            keeps its queries' weights among others in groups (Falcon 40B).
    """
    if decoder.original is not None:
        raise EdgewiseError(f"model {decoder.name!r} is a permuted one already")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        shown = "one of many digits" if isinstance(seed, int) and abs(seed) > 10**30 else repr(seed)
        raise EdgewiseError(f"the seed of a permutation should be a whole number from 0 to 2^63 - 1, not {shown}")
    copied = _to_change(decoder, "its heads and neurons cannot be shuffled", "its heads cannot be shuffled")
    assert decoder.rebuild is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for component, given in zip(copied.components, decoder.components, strict=True):
            if isinstance(component, Attention) and isinstance(given, Attention):
                if decoder.config.folded_value_biases and component.values.bias is not None:
                    component.bias.detach().copy_(given.bias)  # folded from the heads in their right order
                    component.values.bias.detach().zero_()
                projections = (component.queries, component.keys, component.values)
                for projection in projections:
                    _shuffle(projection.weight, 0, generator)
                for projection in projections:
                    if projection.bias is not None:
                        _shuffle(projection.bias, 0, generator)
            elif isinstance(component, MLP):
                for tensor in component.neurons:
                    _shuffle(tensor, -1, generator)
    copied = decoder.rebuild(copied.source)  # with views that nothing was written through
    if decoder.config.folded_value_biases:
        copied = fold_value_biases(copied)
    if same_weights(decoder, copied):
        warnings.warn(
            f"permuting {decoder.name!r} with seed {seed} left it as it was, so this is no control", EdgewiseWarning, 3
        )
    config = replace(copied.config, permuted_seed=seed, folded_norm_biases=decoder.config.folded_norm_biases)
    return replace(copied, config=config, original=decoder, **_kept(decoder))


def _to_change(decoder: Decoder, cannot: str, cannot_heads: str) -> Decoder:
    """A copy of a model whose weights can be changed through what its components show of them.

    Raises:
        EdgewiseError: there can be none; it says what `cannot` be done, or not with heads.
    """
    if getattr(decoder.source, "is_quantized", False):
        raise EdgewiseError(f"model {decoder.name!r} is quantised: {cannot}")
    if "device_map" in decoder.origin:
        raise EdgewiseError(
            f"model {decoder.name!r} lies on several devices or is offloaded: {cannot} there. Load it without a device "
            "map"
        )
    if decoder.rebuild is None:
        raise EdgewiseError(f"model {decoder.name!r} was not loaded by load_model, so it cannot be made again")
    copied = decoder.rebuild(copy.deepcopy(decoder.source))
    own = {tensor.untyped_storage().data_ptr() for tensor in copied.source.state_dict().values()}
    for component in copied.components:
        projections = (component.queries, component.keys, component.values) if isinstance(component, Attention) else ()
        if any(one.weight.untyped_storage().data_ptr() not in own for one in projections):
            raise EdgewiseError(
                f"model {decoder.name!r} keeps the weights of its queries among those of keys and values, in groups, "
                f"so {cannot_heads} in place"
            )
    return copied


def same_weights(decoder: Decoder, other: Decoder) -> bool:
    """Whether a model and a copy of it have the same weights, as after a permutation that had nothing to shuffle."""
    theirs = other.source.state_dict()
    return all(torch.equal(theirs[name], weight) for name, weight in decoder.source.state_dict().items())


def _shuffle(tensor: Tensor, dim: int, generator: torch.Generator) -> None:
    # In place, since adapters hold views of the source model's own tensors.
    order = torch.randperm(tensor.shape[dim], generator=generator).to(tensor.device)
    tensor.detach().copy_(tensor.index_select(dim, order))
