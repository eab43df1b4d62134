"""Dictionaries of features: transcoders in place of MLPs, and sparse autoencoders (SAEs), one for a layer.

A dictionary reads one vector of the model and predicts another as a sum of few of its directions:

    f = act(x W_enc + b_enc)        prediction = f W_dec + b_dec (+ x W_skip)

with act ReLU, JumpReLU (x where it is above a threshold of each feature's own, else 0) or TopK. A *transcoder* reads
what an MLP reads and predicts what it writes (Dunefsky et al. 2024); an *SAE* predicts what it reads, an MLP's output
or the residual stream behind a layer (Bricken et al. 2023). Where dictionaries read and write is called as in
TransformerLens, whose names their files have.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, quoted

Reads = Literal["stream", "normed", "normalized", "mlp", "behind"]
"""What is read: the stream before the MLP's norm; what the norm makes of it; the same, by TransformerLens' own name for
it, which in a root-mean-square norm stands before the gain; what the MLP writes; the stream behind the layer."""

_READS: dict[str, Reads] = {
    "hook_resid_mid": "stream",
    "hook_mlp_in": "stream",
    "mlp.hook_in": "normed",
    "ln2.hook_normalized": "normalized",
    "hook_mlp_out": "mlp",
    "mlp.hook_out": "mlp",
    "hook_resid_post": "behind",
}
_WRITES = {"hook_mlp_out": "mlp", "mlp.hook_out": "mlp", "hook_resid_post": "behind"}
_HOOK = re.compile(r"(?:blocks\.(?P<layer>\d{1,6})\.)?(?P<place>[\w.]+)")
_PRE = "hook_resid_pre"


@dataclass(frozen=True)
class Place:
    """Where a dictionary stands.

    Attributes:
        layer: None where its file does not say.
        reads: what it reads.
        stream: it predicts the residual stream behind the layer, not what the MLP writes.
        before_norm: it predicts what the MLP makes before a norm that stands behind it, if one does.
    """

    layer: int | None
    reads: Reads
    stream: bool = False
    before_norm: bool = False


def place_of(reads: str, writes: str | None, what: str) -> Place:
    """The place that two names of TransformerLens' hooks give, as in `blocks.3.ln2.hook_normalized`.

    Args:
        writes: None for an SAE, which predicts what it reads.
        what: the beginning of errors.

    Raises:
        EdgewiseError: they name nothing that an MLP or a layer has, or not the same layer.
    """
    layer, place = _taken(reads, what)
    out_layer, out = (layer, place) if writes is None else _taken(writes, what)
    if place not in _READS or out not in _WRITES:
        which = reads if place not in _READS else writes or reads
        raise EdgewiseError(
            f"{what}: features at {quoted(which)} are none that edgewise knows; a transcoder reads "
            "'hook_resid_mid', 'ln2.hook_normalized' or 'mlp.hook_in' and writes 'hook_mlp_out', an SAE stands at "
            "'hook_mlp_out', 'hook_resid_post' or 'hook_resid_pre'"
        )
    found = Place(layer, _READS[place], _WRITES[out] == "behind", out == "mlp.hook_out")
    if layer != out_layer or found.stream != (found.reads == "behind"):
        raise EdgewiseError(
            f"{what}: it reads {quoted(reads)} and writes {quoted(writes)}; edgewise takes transcoders of one "
            "layer's MLP, and SAEs, which predict what they read"
        )
    return found


def _taken(hook: str, what: str) -> tuple[int | None, str]:
    match = _HOOK.fullmatch(hook)
    if match is None:
        raise EdgewiseError(f"{what}: {quoted(hook)} is not the name of a hook, as in 'blocks.3.hook_resid_post'")
    layer = None if match["layer"] is None else int(match["layer"])
    if match["place"] == _PRE and layer is not None:
        if layer == 0:
            raise EdgewiseError(f"{what}: {quoted(hook)} is the embedding, whose features edgewise does not take apart")
        return layer - 1, "hook_resid_post"
    return layer, match["place"]


@dataclass(frozen=True, eq=False)
class Dictionary:
    """The features of one layer.

    Attributes:
        place: where it stands, its layer known.
        encoder: `[d_model, features]`; encoder_bias: `[features]`.
        decoder: `[features, d_model]`; decoder_bias: `[d_model]`.
        threshold: `[features]`, above which a feature of a JumpReLU is active; None for others.
        k: of a TopK, how many features may be active; 0 for others.
        signed: TopK and JumpReLU let negative numbers through too, as circuit-tracer's do; SAELens' do not.
        centred: the decoder's bias is taken off what it reads.
        skip: `[d_model, d_model]`, a linear map of what it reads that the prediction has besides, or None.
    """

    place: Place
    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    threshold: Tensor | None = None
    k: int = 0
    signed: bool = False
    centred: bool = False
    skip: Tensor | None = None

    @property
    def n_features(self) -> int:
        return self.encoder.shape[1]

    @property
    def d_model(self) -> int:
        return self.encoder.shape[0]

    @property
    def layer(self) -> int:
        assert self.place.layer is not None
        return self.place.layer

    def tensors(self) -> list[Tensor | None]:
        """All of its numbers, in the order of the fields."""
        return [getattr(self, name) for name in _TENSORS]

    def encode(self, x: Tensor) -> Tensor:
        """What its features hold: `[..., d_model]` -> `[..., features]`."""
        x = x.to(self.encoder.dtype)
        made = (x - self.decoder_bias if self.centred else x) @ self.encoder + self.encoder_bias
        if self.k:
            values, at = (made if self.signed else made.relu()).topk(self.k, dim=-1)
            return torch.zeros_like(made).scatter(-1, at, values)
        if self.threshold is None:
            return made.relu()
        return (made if self.signed else made.relu()) * (made > self.threshold)

    def to(self, device: torch.device, dtype: torch.dtype) -> Dictionary:
        """The same on a device, in a dtype."""
        there = {name: one for name in _TENSORS if (one := getattr(self, name)) is not None}
        return replace(self, **{name: one.detach().to(device, dtype) for name, one in there.items()})

    def check(self, what: str) -> None:
        """Refuse numbers that do not fit together, or are none.

        Raises:
            EdgewiseError: naming what.
        """
        if self.encoder.dim() != 2 or not self.encoder.numel():
            raise EdgewiseError(f"{what}: 'W_enc' should be a matrix, not of shape {list(self.encoder.shape)}")
        width, features = self.encoder.shape
        wanted = {
            "b_enc": (self.encoder_bias, [features]),
            "W_dec": (self.decoder, [features, width]),
            "b_dec": (self.decoder_bias, [width]),
            "threshold": (self.threshold, [features]),
            "W_skip": (self.skip, [width, width]),
        }
        for name, (tensor, shape) in wanted.items():
            if tensor is not None and list(tensor.shape) != shape:
                raise EdgewiseError(
                    f"{what}: {name!r} should be of shape {shape} beside {features:,} features of {width} numbers, not "
                    f"{list(tensor.shape)}"
                )
        if not 0 <= self.k <= features:
            raise EdgewiseError(f"{what}: of {features:,} features {self.k} cannot be active at a time")
        if not all(one is None or bool(one.isfinite().all()) for one in self.tensors()):
            raise EdgewiseError(f"{what}: it holds numbers that are none")


_TENSORS = ("encoder", "encoder_bias", "decoder", "decoder_bias", "threshold", "skip")


def fingerprint(dictionaries: list[Dictionary]) -> str:
    """A hash of every byte of some dictionaries, and of where they stand: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for one in dictionaries:
        digest.update(f"{one.place} {one.k} {one.signed} {one.centred}".encode())
        for tensor in one.tensors():
            if tensor is None:
                digest.update(b"none")
                continue
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
