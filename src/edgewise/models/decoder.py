"""The one narrow waist: every engine stands on `Decoder`, and every architecture is one adapter that builds it.

A `Decoder` is a list of components (components.py) between an embedding and an unembedding. It holds references to the
source model's own tensors and calls its own norms and MLPs. What it computes for itself is attention, split by head,
because that is what a circuit takes apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgewise.attached import attach
from edgewise.graph import Graph
from edgewise.models.attention import Attention
from edgewise.models.components import MLP, Component, stream_dtype
from edgewise.models.offloaded import tensors_of
from edgewise.models.recorded import Offloaded


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a model, as far as a circuit is concerned.

    Attributes:
        architecture: the adapter's name, as in `gpt2`.
        d_vocab: width of the output.
        n_tokens: how many tokens can go in; the same as `d_vocab` in most models.
        n_context: longest prompt in tokens, or None where there is no limit.
        mlps: whether layers have an MLP.
        d_mlp: width of their hidden layer; only for estimates of memory.
        position_embedding: positions are added to the embedding, so that it can be split into `tok` and `pos`.
        folded_value_biases: heads' value biases have been moved into the layer's bias (`fold_value_biases`).
        folded_norm_biases: norms' biases have been moved into the maps that read them (`fold_norm_biases`).
        permuted_seed: seed of the shuffled heads and neurons, in a control network (`permuted`).
    """

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_tokens: int
    n_context: int | None = None
    mlps: bool = True
    d_mlp: int = 0
    position_embedding: bool = False
    folded_value_biases: bool = False
    folded_norm_biases: bool = False
    permuted_seed: int | None = None

    @property
    def share(self) -> int:
        """How many query heads share a key/value head."""
        return self.n_heads // self.n_kv_heads


@dataclass(frozen=True)
class Unembedding:
    """The map to logits: weight `[d_vocab, d_model]` and bias `[d_vocab]`, the source model's own.

    Attributes:
        finish: what is done to the logits in the end, as a softcap; None where the map is linear, which lets metrics
            go without most of the vocabulary.
    """

    weight: Tensor
    bias: Tensor | None = None
    finish: Callable[[Tensor], Tensor] | None = None

    @property
    def linear(self) -> bool:
        return self.finish is None

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., d_model]` -> `[..., d_vocab]`."""
        logits = nn.functional.linear(x, self.weight, self.bias)
        return logits if self.finish is None else self.finish(logits)


@dataclass(frozen=True)
class Decoder:
    """A source model behind the one interface that every engine uses.

    Attributes:
        name: what the user called it: a hub id, a folder, a built-in name.
        config: its shape.
        components: its attention blocks and MLPs, in the order in which they write.
        embed_parts: tokens and positions `[batch, pos]` -> `(token part, position part)` or `(whole,)`, each
            `[batch, pos, d_model]`.
        final_norm: the source model's final norm, on `[..., d_model]`.
        unembedding: the source model's map from there to logits.
        source: the source model.
        run_source: tokens, attention mask and positions `[batch, pos]` -> the source model's own logits.
        source_norm: the source model's own module of the final norm, where `final_norm` is a copy of it.
        tokenizer: the model's tokenizer, or None.
        why_no_tokenizer: the reason, for errors.
        origin: what a run's record says of where the model came from, beside its name.
        original: the model that this one is a permuted copy of; comparisons are with that one.
        rebuild: makes a Decoder, as this one was made, over a copy of the source model.
        reread: makes one of its components, by its number, of a copy of the source model; None where only `rebuild`
            can.
        offload_activations: whether what is recorded of it is kept in the CPU's memory.
    """

    name: str
    config: DecoderConfig
    components: tuple[Component, ...]
    embed_parts: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    final_norm: nn.Module
    unembedding: Unembedding
    source: nn.Module
    run_source: Callable[[Tensor, Tensor, Tensor], Tensor]
    source_norm: nn.Module | None = None
    tokenizer: Any = field(default=None, repr=False)
    why_no_tokenizer: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    original: Decoder | None = field(default=None, repr=False)
    rebuild: Callable[[nn.Module], Decoder] | None = field(default=None, repr=False, compare=False)
    reread: Callable[[Any, int], Component] | None = field(default=None, repr=False, compare=False)
    offload_activations: bool = field(default=False, repr=False, compare=False)
    _repr_html_: ClassVar[Callable[..., str]]
    """What notebooks show: `edgewise.reports.notebook`, set where that is defined."""

    @property
    def device(self) -> torch.device:
        return self.unembedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unembedding.weight.dtype

    @property
    def dtype_name(self) -> str:
        """As it is asked for: `float32`, `float64`, `bfloat16`, `float16`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def records_elsewhere(self) -> bool:
        """Whether what is recorded is kept on another device than it is made on."""
        return self.offload_activations and self.device.type != "cpu"

    def recording(self) -> Any:
        """Where what is recorded of a run goes, an entry per component (`Recorded`)."""
        return Offloaded(self.device) if self.records_elsewhere else []

    def embed(self, tokens: Tensor, positions: Tensor | None = None, *, split: bool = False) -> Tensor:
        """The embedding `[parts, batch, pos, d_model]`: two parts, `tok` and `pos`, if `split`, else their sum."""
        parts = self.embed_parts(tokens, positions_of(tokens) if positions is None else positions)
        if split and len(parts) != 2:
            raise ValueError(f"{self.config.architecture} adds no positions to its embedding, so it cannot be split")
        return torch.stack(parts) if split else sum(parts[1:], parts[0])[None]

    @property
    def causal(self) -> bool:
        """Whether every token sees only itself and those before it."""
        return all(one.causal for one in self.components if isinstance(one, Attention))

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """For each component, the one before which the stream that it reads stands: itself, unless it is `beside`."""
        reads: list[int] = []
        for index, component in enumerate(self.components):
            reads.append(reads[-1] if component.beside else index)
        return tuple(reads)

    def graph(
        self,
        *,
        ports: bool = True,
        split_embedding: bool = False,
        ungroup: bool = False,
        whole_heads: bool = False,
        spans: tuple[str, ...] = (),
    ) -> Graph:
        """The graph of this model's components.

        Args:
            ungroup: give every query head a key and a value input of its own.
            whole_heads: give every query head one input only, and no port edges.
            spans: names of groups of positions that edges tell apart.
        """
        ungroup = ungroup or whole_heads
        attention = [component for component in self.components if isinstance(component, Attention)]
        mlps = [component for component in self.components if isinstance(component, MLP)]
        return Graph(
            len(attention),
            attention[0].n_heads,
            n_kv_heads=attention[0].n_heads if ungroup else attention[0].n_kv_heads,
            mlps=bool(mlps),
            parallel=any(mlp.beside for mlp in mlps),
            coupled=any(component.coupled for component in attention),
            split_embedding=split_embedding,
            ports=ports and not whole_heads,
            d_model=self.config.d_model,
            whole_heads=whole_heads,
            spans=spans,
            neurons=max((mlp.n_neurons for mlp in mlps), default=0),
            features=tuple(mlp.n_features for mlp in mlps) if any(mlp.n_features for mlp in mlps) else (),
            stream_features=any(mlp.of_stream for mlp in mlps),
        )

    def allowed(self, mask: Tensor) -> list[Tensor | None]:
        """Per component, which tokens each token may look at, from the mask of real ones (see `Component`)."""
        by_sight: dict[Hashable, Tensor | None] = {}
        for component in self.components:
            if component.sight not in by_sight:
                by_sight[component.sight] = component.allowed(mask)
        return [by_sight[component.sight] for component in self.components]

    def logits(self, x: Tensor) -> Tensor:
        """Final norm and unembedding of residual streams `[..., d_model]`, in float32 at least."""
        logits = self.unembedding(self.final_norm(x.to(self.dtype)))
        return logits.to(stream_dtype(logits.dtype))

    def fingerprint(self) -> str:
        """A hash of every byte of the weights, and of their names, shapes and dtypes: `v2:` and 32 hexadecimal digits.

        About a second per GB. Ask once and pass the answer on: it is never kept, since weights can change.
        Fingerprints without `v2:` are of edgewise 0.1, which looked at samples.
        """
        digest, seen = hashlib.sha256(), dict[object, str]()
        for name, tensor, place in tensors_of(self.source):
            if place not in seen:  # tied tensors are hashed once
                flat: Any = tensor.detach().reshape(-1).contiguous().cpu().view(torch.uint8)
                seen[place] = hashlib.sha256(memoryview(flat.numpy())).hexdigest()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {seen[place]}".encode())
        return f"v2:{digest.hexdigest()[:32]}"

    def __repr__(self) -> str:
        """Name, architecture, shape, dtype and device in one line."""
        shape = self.graph(ports=False).describe()
        return f"Decoder({self.name!r}: {self.config.architecture}, {shape}, {self.dtype_name} on {self.device})"


attach(Decoder, "edgewise.reports.notebook", "_repr_html_")


def positions_of(tokens: Tensor) -> Tensor:
    """0, 1, 2, … for each of `tokens` `[batch, pos]`, as `[1, pos]`. Prompts are padded on the right."""
    return torch.arange(tokens.shape[1], device=tokens.device)[None]
