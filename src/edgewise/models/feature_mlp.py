"""MLPs, and the residual stream behind them, taken apart by the features of a dictionary, and what those leave over.

A layer's code is its features' activations, then its *error*, d_model numbers: what the layer writes less what its
dictionary predicts. So what it writes is f W_dec + b_dec + error (+ x W_skip), which is what the model writes, whatever
the dictionary is worth; b_dec belongs to no feature.

    transcoder       f from what the MLP reads        error = MLP(x) - prediction
    SAE of an MLP    f from what the MLP writes       likewise
    SAE of a stream  f from r = x + MLP(x)            error = r - prediction; the layer writes prediction + error - x,
                                                      so that behind it nothing is left of the stream but these

The error reads nothing: in a circuit run it is that of the model's own run on the same prompt, a constant, and where
it is ablated that of the ablated run. So all that goes through the layer in such a run goes through its features, which
are encoded anew from the stream there (and through W_skip, which belongs to no unit). An error worked out anew would be
the MLP over again: with every feature gone it would still carry whatever changes what the MLP reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.graph.names import InputKind
from edgewise.models.attention import Scale
from edgewise.models.components import MLP, Component, stream_dtype
from edgewise.models.decoder import Decoder
from edgewise.models.dictionary import Dictionary, fingerprint
from edgewise.models.families.parts import epsilon
from edgewise.models.neurons import NeuronMLP, by_neuron


@dataclass(frozen=True, kw_only=True)
class FeatureMLP(NeuronMLP):
    """An MLP whose code is `[batch, pos, 1, features + d_model (+ d_model)]`.

    Last in the code of an SAE of the stream stands what is taken off it, -x; of a transcoder with a skip, x W_skip. It
    belongs to no unit, and is this run's own whatever is ablated.

    Attributes:
        dictionary: its features; output, bias: its decoder's.
        read: `[..., d_model]`, the stream before the MLP's norm, -> what a transcoder reads; None of an SAE, which
            reads what the MLP writes.
    """

    dictionary: Dictionary
    read: Callable[[Tensor], Tensor] | None

    @property
    def n_features(self) -> int:
        return self.dictionary.n_features

    @property
    def of_stream(self) -> bool:
        return self.dictionary.place.stream

    @property
    def n_neurons(self) -> int:
        return self.n_features + 1

    @property
    def carries(self) -> bool:
        """Whether something stands behind the error in its code."""
        return self.of_stream or self.dictionary.skip is not None

    def act(
        self, projections: Mapping[InputKind, Tensor], allowed: Tensor | None, which: Sequence[int] | None = None
    ) -> Tensor:
        x = projections["mlp"][:, :, 0]
        written = self.run(x).to(self.output.dtype)
        parts = self._parts(x, written)
        predicted = parts[0] @ self.output + self.dictionary.decoder_bias
        error = written - sum(parts[1:], predicted)
        return torch.cat([parts[0], error, *parts[1:]], dim=-1)[:, :, None]

    def with_error(self, projections: Mapping[InputKind, Tensor], error: Tensor) -> Tensor:
        """Its code with an error that is given, `[batch, pos, 1, d_model]`."""
        x = projections["mlp"][:, :, 0]
        parts = self._parts(x, None if self.read is not None else self.run(x).to(self.output.dtype))
        return torch.cat([parts[0], error[:, :, 0], *parts[1:]], dim=-1)[:, :, None]

    def _parts(self, x: Tensor, written: Tensor | None) -> list[Tensor]:
        """What its features hold, and what it carries, of the stream that it reads and what the MLP writes."""
        if self.read is not None:
            read = self.read(x)
            skip = self.dictionary.skip
            return [self.dictionary.encode(read), *([] if skip is None else [read.to(skip.dtype) @ skip])]
        assert written is not None
        x = x.to(written.dtype)
        if self.of_stream:
            return [self.dictionary.encode(x + written), -x]
        return [self.dictionary.encode(written)]

    def error_of(self, code: Tensor) -> Tensor:
        """The error in a code, `[..., d_model]`."""
        return code[..., self.n_features : self.n_features + self.output.shape[1]]

    def target_of(self, code: Tensor) -> Tensor:
        """What its dictionary predicts, prediction and error together: `[batch, pos, d_model]`."""
        written = self.write_total(code)
        return written - self._split(code[:, :, 0])[-1] if self.of_stream else written

    def spread(self, units: Tensor) -> Tensor:
        width = self.output.shape[1]
        shares = [units[..., :-1], units[..., -1:].expand(*units.shape[:-1], width)]
        carried = torch.ones_like(shares[1])
        return torch.cat([*shares, *([carried] if self.carries else [])], dim=-1)

    def gathered(self, numbers: Tensor) -> Tensor:
        return torch.cat([numbers[..., : self.n_features], self.error_of(numbers).sum(dim=-1, keepdim=True)], dim=-1)

    def write(self, code: Tensor) -> Tensor:
        features, *vectors = self._split(code)
        return sum(vectors, features @ self.output)

    def write_some(self, which: Tensor, code: Tensor) -> Tensor:
        direct = which >= self.n_features
        rows = code.new_zeros(len(which), self.output.shape[1])
        rows[~direct] = self.output[which[~direct]]
        rows[direct, (which[direct] - self.n_features) % self.output.shape[1]] = 1
        return code @ rows

    def write_total(self, code: Tensor) -> Tensor:
        return self.write(code[:, :, 0]) + self.dictionary.decoder_bias

    def _split(self, code: Tensor) -> list[Tensor]:
        width = self.output.shape[1]
        return list(code.split([self.n_features, *[width] * (1 + self.carries)], dim=-1))


def by_feature(
    decoder: Decoder, dictionaries: Sequence[Dictionary], origin: Mapping[str, str] | None = None
) -> Decoder:
    """The same model with the layers that have a dictionary taken apart by its features.

    Args:
        origin: what a run's record says of where they came from.

    Raises:
        EdgewiseError: there is none, two are of one layer, or one is of none that the model has; they are of the stream
            and of MLPs, or of vectors of another width; or the MLPs are taken apart already, permuted, or elsewhere.
    """
    name = f"model {decoder.name!r}"
    found = {one.layer: one.to(decoder.device, stream_dtype(decoder.dtype)) for one in dictionaries}
    mlps = {one.layer: one for one in decoder.components if isinstance(one, MLP)}
    if any(isinstance(one, NeuronMLP) for one in mlps.values()):
        raise EdgewiseError(f"{name} is taken apart by neurons or features already")
    if decoder.original is not None:
        raise EdgewiseError(f"{name} has its neurons permuted, and dictionaries are of the model as it was")
    if not found or len(found) < len(dictionaries):
        raise EdgewiseError("two dictionaries are of one layer" if found else "there is no dictionary")
    if len({one.place.stream for one in found.values()}) > 1:
        raise EdgewiseError("some dictionaries are of the residual stream and some of MLPs: search one kind at a time")
    for layer, one in found.items():
        if layer not in mlps:
            has = f"MLPs in {len(mlps)} layers" if mlps else "no MLPs"
            raise EdgewiseError(f"a dictionary is of layer {layer}, and {name} has {has}")
        if one.d_model != decoder.config.d_model:
            raise EdgewiseError(
                f"the dictionary of layer {layer} is of vectors of {one.d_model:,} numbers, and {name} has a residual "
                f"stream of {decoder.config.d_model:,}"
            )
    components = tuple(
        _opened(one, found[one.layer], decoder) if isinstance(one, MLP) and one.layer in found else one
        for one in decoder.components
    )
    about = {**(origin or {}), "fingerprint": fingerprint(list(dictionaries))}
    return replace(decoder, components=components, origin={**decoder.origin, "dictionary": about})


def has_features(decoder: Decoder) -> bool:
    """Whether a model is taken apart by features."""
    return any(isinstance(one, FeatureMLP) for one in decoder.components)


def taken_apart(decoder: Decoder, *, features: bool) -> Decoder:
    """The model taken apart by neuron, or one that is taken apart by feature already.

    Raises:
        EdgewiseError: as `by_neuron`; or one of them is asked for, and the model is the other.
    """
    if has_features(decoder) != features:
        raise EdgewiseError(
            f"the circuit is of features, and model {decoder.name!r} is not taken apart by any: measure the run, which "
            "says where its dictionary is, or take the model apart by it in Python (by_feature)"
            if features
            else f"model {decoder.name!r} is taken apart by features; search it with --level feature"
        )
    return decoder if features else by_neuron(decoder)


def _opened(mlp: MLP, dictionary: Dictionary, decoder: Decoder) -> Component:
    where, place = f"the MLP of layer {mlp.layer} of model {decoder.name!r}", dictionary.place
    if hasattr(mlp, "home"):
        raise EdgewiseError(f"{where} has its weights on another device or offloaded: features need them in one place")
    if place.stream and mlp.beside:
        raise EdgewiseError(
            f"{where} stands beside attention, so that no step makes the stream behind the layer of the one before it; "
            "edgewise takes transcoders and SAEs of MLPs there"
        )
    if place.before_norm and mlp.by_neuron is not None:
        whole = mlp.by_neuron()
        if isinstance(whole, NeuronMLP) and (whole.after is not None or whole.multiplier != 1.0):
            raise EdgewiseError(
                f"{where} has a norm or a factor behind it, and its dictionary predicts what stands before that "
                "('mlp.hook_out'); edgewise takes those of what is added to the stream ('hook_mlp_out')"
            )
    return FeatureMLP(
        **{one.name: getattr(mlp, one.name) for one in fields(mlp)},
        activate=dictionary.encode,
        output=dictionary.decoder,
        bias=dictionary.decoder_bias,
        dictionary=dictionary,
        read=None if place.reads in ("mlp", "behind") else _reader(mlp, dictionary, decoder),
    )


def _reader(mlp: MLP, dictionary: Dictionary, decoder: Decoder) -> Callable[[Tensor], Tensor]:
    """What a transcoder reads, of the stream before the MLP's norm."""
    norm, reads = mlp.source.norm, dictionary.place.reads
    # Without a norm before the MLP, the first module is none, or the MLP itself.
    if reads == "stream" or isinstance(norm, nn.Identity) or any(one.dim() > 1 for one in norm.parameters()):
        return lambda x: x
    if reads == "normed" or _centres(norm, decoder):
        return norm
    scale = Scale(torch.ones(()), epsilon(norm))
    return lambda x: x * scale.of(x.to(stream_dtype(x.dtype)).square().mean(dim=-1, keepdim=True)).to(x.dtype)


@torch.no_grad()
def _centres(norm: Callable[[Tensor], Tensor], decoder: Decoder) -> bool:
    """Whether a norm takes the mean off, as LayerNorm does."""
    x = torch.linspace(-1, 1, decoder.config.d_model, dtype=decoder.dtype, device=decoder.device)
    return torch.allclose(norm(x), norm(x + 1), atol=1e-2)
