"""What edgewise took a model to have, in words, layer by layer: which norms, positions, windows, caps, experts."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgewise.models.attention import Attention, HeadNorm, Scale
from edgewise.models.components import MLP, Component
from edgewise.models.decoder import Decoder


def features(decoder: Decoder) -> list[tuple[list[int], tuple[str, ...]]]:
    """Layers that are alike, and what each of them has; in the order in which they first come."""
    found: dict[tuple[str, ...], list[int]] = {}
    layers: dict[int, list[str]] = {}
    for component in decoder.components:
        layers.setdefault(component.layer, []).extend(_words(component, decoder.config.position_embedding))
    for layer, words in layers.items():
        found.setdefault(tuple(words), []).append(layer)
    return [(numbers, words) for words, numbers in found.items()]


def whole(decoder: Decoder) -> tuple[str, ...]:
    """What it took the embedding and the unembedding to have."""
    words = ["positions are learned and embedded" if decoder.config.position_embedding else "tokens alone are embedded"]
    words.append(f"{_norm(decoder.source_norm or decoder.final_norm)} before the logits")
    if not decoder.unembedding.linear:
        words.append("capped logits")
    return tuple(words)


def windows(decoder: Decoder) -> list[int]:
    """The windows of its layers, each once."""
    return sorted({one.window for one in decoder.components if isinstance(one, Attention) and one.window is not None})


def _words(component: Component, positions_embedded: bool) -> list[str]:
    if isinstance(component, Attention):
        return _attention(component, positions_embedded)
    return _mlp(component) if isinstance(component, MLP) else []


def _attention(one: Attention, positions_embedded: bool) -> list[str]:
    heads = f"{one.n_heads} head{'s' * (one.n_heads != 1)}"
    if one.n_kv_heads < one.n_heads:
        heads += f" over {one.n_kv_heads} key/value head{'s' * (one.n_kv_heads != 1)}"
    words = [f"{_before(one)}attention of {heads} of width {one.output.weight.shape[-2]}"]
    words += list(one.notes)
    if one.slopes is not None:
        words.append("scores fall with distance (ALiBi)")
    elif one.rotation is None and one.query_key_positions is None and not positions_embedded:
        words.append("no positions in attention")
    for name, norm in (("queries", one.query_norm), ("keys", one.key_norm)):
        if norm is not None:
            words.append(f"{name} normed {_over(norm)}")
    if one.window is not None:
        words.append(f"window of {one.window:,} tokens")
    if one.softcap is not None:
        words.append(f"scores capped at {one.softcap:g}")
    if one.sinks is not None:
        words.append("a sink per head")
    if not one.causal:
        words.append("both directions")
    if one.after is not None:
        words.append("heads coupled by a norm over their sum")
    if one.multiplier != 1:
        words.append(f"what it writes times {one.multiplier:g}")
    return words


def _mlp(one: MLP) -> list[str]:
    what = "mixture of experts" if one.routed else "MLP"
    beside = " beside attention" if one.beside else ""
    return [f"{_before(one)}{what}{beside}"]


def _before(component: Component) -> str:
    source = component.source
    if source.norm in (source.block, source.projection) or "norm" not in type(source.norm).__name__.lower():
        return ""
    return f"{_norm(source.norm)}, then "


def _norm(module: nn.Module | Any) -> str:
    name = type(module).__name__.lower()
    if "rms" in name:
        return "RMS norm"
    return "layer norm" if "layernorm" in name.replace("_", "") else "no norm" if "identity" in name else "norm"


def _over(norm: HeadNorm | Scale) -> str:
    return "over all heads together, which couples them" if isinstance(norm, Scale) else "head by head"
