"""The sizes of a plain transformer and the choices it leaves open, its activation functions among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError, unknown

Activation = Literal["relu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "solu", "solu_ln", "xielu"]
Normalization = Literal["LN", "LNPre", "RMS", "RMSPre"]
PositionType = Literal["standard", "shortformer", "rotary"]


def _gelu_tanh(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")


def _gelu_fast(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x)))  # sqrt(2/pi) to ten digits


def _solu(x: Tensor) -> Tensor:
    return x * x.softmax(dim=-1)


def _xielu(x: Tensor) -> Tensor:
    """xIELU (arXiv 2411.13010) with its fixed default parameters: alphas 0.8, beta 0.5."""
    below = 0.8 * (torch.expm1(x.clamp_max(-1e-6)) - x)
    return torch.where(x > 0, 0.8 * x * x, below) + 0.5 * x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_fast,
    "gelu_pytorch_tanh": _gelu_tanh,
    "silu": nn.functional.silu,
    "solu": _solu,
    "solu_ln": _solu,  # with a norm behind it
    "xielu": _xielu,
}
NORMALIZATIONS = ("LN", "LNPre", "RMS", "RMSPre")
POSITION_TYPES = ("standard", "shortformer", "rotary")


@dataclass(frozen=True)
class PlainTransformerConfig:
    """The sizes of a `PlainTransformer` and the choices it leaves open.

    Attributes:
        d_mlp: 0 means attention only: the blocks then have no MLP at all.
        attention_scale: attention scores are divided by sqrt(d_head), or by `attention_divisor` where that is given.
        scale_by_layer: and by the layer's number, from 1.
        n_kv_heads: key/value heads that query heads share, or None for one each.
        normalization: the norm before attention, before the MLP and before the unembedding: LayerNorm (`LN`),
            LayerNorm without weights (`LNPre`), the same two of root-mean-square norm, or None for none.
        final_rms: the last norm is a root-mean-square norm whatever the others are.
        positions: `standard` adds learned positions to the embedding, `shortformer` to what queries and keys are made
            of in every layer, after the norm; `rotary` turns queries and keys.
        rotary_dim: how many of a head's dimensions are turned; None for all.
        rotary_adjacent_pairs: dimensions 0 and 1 make a pair, 2 and 3, …; else those half of `rotary_dim` apart.
        gated_mlp: activation(x W_gate) * (x W_in) + b_in instead of activation(x W_in + b_in).
        parallel: attention and MLP of a block read the same stream.
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_context: int
    activation: Activation = "relu"
    causal: bool = True
    attention_scale: bool = True
    attention_divisor: float | None = None
    scale_by_layer: bool = False
    n_kv_heads: int | None = None
    normalization: Normalization | None = None
    final_rms: bool = False
    epsilon: float = 1e-5
    positions: PositionType = "standard"
    rotary_dim: int | None = None
    rotary_base: float = 10_000.0
    rotary_adjacent_pairs: bool = False
    gated_mlp: bool = False
    parallel: bool = False

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "d_vocab_out", "n_context"):
            if getattr(self, name) < 1:
                raise EdgewiseError(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.d_mlp < 0:
            raise EdgewiseError(f"d_mlp is {self.d_mlp}; it has to be 0 (no MLPs) or more")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.normalization is not None and self.normalization not in NORMALIZATIONS:
            raise unknown("normalization", self.normalization, NORMALIZATIONS)
        if self.positions not in POSITION_TYPES:
            raise unknown("kind of positions", self.positions, POSITION_TYPES)
        if self.n_heads % self.key_value_heads:
            raise EdgewiseError(f"{self.n_heads} heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.positions == "rotary" and (self.turned % 2 or not 0 < self.turned <= self.d_head):
            raise EdgewiseError(f"rotary_dim is {self.turned}; it has to be even and at most d_head, {self.d_head}")
        if self.gated_mlp and self.activation == "solu_ln":
            raise EdgewiseError("a gated MLP cannot have the activation solu_ln")

    @property
    def key_value_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def turned(self) -> int:
        """How many dimensions of a head rotary positions turn."""
        return self.d_head if self.rotary_dim is None else self.rotary_dim

    def divisor(self, layer: int) -> float:
        """What attention scores of a layer are divided by."""
        divisor = 1.0
        if self.attention_scale:
            divisor = math.sqrt(self.d_head) if self.attention_divisor is None else self.attention_divisor
        return divisor * (layer + 1) if self.scale_by_layer else divisor
