"""A family of models, declared: where it keeps its parts and how they compute. `Family.read` makes a Decoder of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError
from edgewise.models.attention import Attention, Rotation
from edgewise.models.components import MLP, Component, Projection, SourceModules, added
from edgewise.models.decoder import Decoder, DecoderConfig, Unembedding
from edgewise.models.dense import dense_weight
from edgewise.models.families import parts
from edgewise.models.neurons import apart, hollow

Embedding = Callable[[Any, Any], Callable[[Tensor, Tensor], tuple[Tensor, ...]]]
"""From a model's body and configuration, what makes the parts of an embedding from tokens and positions."""


@dataclass(frozen=True)
class Block:
    """What a declaration may look at: one layer of a model and where it stands.

    Attributes:
        model, body: the whole, and what holds its embedding and layers.
        layer, index: the layer's module and number.
        attention: its attention module.
        config: the model's configuration.
    """

    model: Any
    body: Any
    layer: Any
    index: int
    attention: Any
    config: Any

    @property
    def multiplier(self) -> float:
        """What every block's output is multiplied by before it is added (Granite)."""
        return getattr(self.config, "residual_multiplier", 1.0)

    @property
    def layer_type(self) -> str | None:
        types = getattr(self.config, "layer_types", None)
        return types[self.index] if types else None


def own_scaling(block: Block) -> float:
    """The factor on scores that the attention module names."""
    return float(block.attention.scaling)


def window(block: Block) -> int | None:
    """How far back a layer's tokens see: as its type says, or all layers alike where they have none."""
    size = getattr(block.config, "sliding_window", None)
    if block.layer_type is None:
        return size
    if block.layer_type not in ("full_attention", "sliding_attention"):
        raise EdgewiseError(
            f"layer {block.index} is of type {block.layer_type!r}, which is no attention that edgewise can take apart"
        )
    return size if block.layer_type == "sliding_attention" else None


def rotary(block: Block) -> Rotation:
    """By the model's one rotary embedding, in its half-split layout."""
    return parts.rotary(block.body.rotary_emb, block.layer_type)


def nothing(block: Block) -> None:
    """For what a family has not."""


def never(block: Block) -> bool:
    return False


def of_tokens(tokens: str, norm: str | None = None) -> Embedding:
    """An embedding of tokens alone, normed or not, times the multiplier that some configurations have."""

    def of(body: Any, config: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        embedding, factor = at(body, tokens), getattr(config, "embedding_multiplier", 1.0)
        normed = nn.Identity() if norm is None else at(body, norm)
        return lambda ids, positions: (_times(normed(embedding(ids)), factor),)

    return of


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x * factor


@dataclass(frozen=True, kw_only=True)
class Family:
    """How models of one `model_type` are read. The defaults are Llama's.

    Attributes:
        body, layers, final_norm: where the layers stand, under the model and under its body; the norm behind them.
        embed: makes the embedding of a body: tokens, positions -> its parts.
        position_embedding: that has two parts, tokens and positions.
        attention, output: the attention module of a layer, and its map back into the stream.
        adds: the module whose output the layer adds to the stream; by default the attention module, or `after`.
        split, heads: its queries, keys and values by head, and how many of them.
        norm: the norm before it; None where it reads the stream as it is.
        after: the norm over what it writes, or None; `offset` is what such norms add to their weight.
        query_norm, key_norm: its norms of queries and keys, where they are there.
        scale, window, rotation, slopes: see `Attention`.
        mlp, mlp_norm, mlp_after: the MLP or mixture of experts, the norm before and the norm after it.
        mlp_adds: the module whose output the layer adds; by default the MLP, or `mlp_after`.
        mlp_runs: how the MLP is run on what its norm gives.
        parallel: whether attention and MLP read the same stream.
        neurons, out: the MLP's linear maps into its neurons and out of them, where it is no mixture.
        logits_factor: what logits are multiplied by.
        refuse: words about a configuration that is not supported, or None.
    """

    body: str = "model"
    layers: str = "layers"
    final_norm: str | None = "norm"
    embed: Embedding = field(default=of_tokens("embed_tokens"))
    position_embedding: bool = False
    attention: str = "self_attn"
    output: str = "o_proj"
    adds: str | None = None
    split: parts.Split = field(default=parts.apart("q_proj", "k_proj", "v_proj"))
    heads: Callable[[Block], parts.Heads] = lambda block: head_counts(block)
    norm: Callable[[Block], str | None] | str | None = "input_layernorm"
    after: str | None = None
    offset: float = 0.0
    query_norm: str = "q_norm"
    key_norm: str = "k_norm"
    scale: Callable[[Block], float] = own_scaling
    window: Callable[[Block], int | None] = window
    rotation: Callable[[Block], Rotation | None] = rotary
    slopes: Callable[[Block], Tensor | None] = nothing
    mlp: str = "mlp"
    mlp_norm: Callable[[Block], str | None] | str | None = "post_attention_layernorm"
    mlp_after: str | None = None
    mlp_adds: str | None = None
    mlp_runs: Callable[[Any], Callable[[Tensor], Any]] = lambda mlp: mlp
    parallel: Callable[[Block], bool] = never
    neurons: tuple[str, ...] = ("gate_proj", "up_proj")
    out: str = "down_proj"
    logits_factor: Callable[[Any], float] = lambda config: 1.0
    refuse: Callable[[Any], str | None] = lambda config: None

    def read(self, model: Any, name: str, tokenizer: Any = None) -> Decoder:
        """A Decoder over a `transformers` model of this family."""
        config = model.config
        if reason := self.refuse(config):
            raise EdgewiseError(f"model {name!r} ({config.model_type}) cannot be read: {reason}")
        body = at(model, self.body)
        components = [self.component(model, index) for index in range(2 * len(at(body, self.layers)))]
        first = components[0]
        assert isinstance(first, Attention)
        tokens = model.get_input_embeddings().weight
        weight, bias = dense_weight(model.lm_head, model.dtype)
        final_norm = nn.Identity() if self.final_norm is None else at(body, self.final_norm)
        factor, cap = self.logits_factor(config), getattr(config, "final_logit_softcapping", None)
        return Decoder(
            name=name,
            config=DecoderConfig(
                architecture=config.model_type,
                n_layers=len(components) // 2,
                n_heads=first.n_heads,
                n_kv_heads=first.n_kv_heads,
                d_model=first.output.weight.shape[-1],
                d_head=first.output.weight.shape[-2],
                d_vocab=weight.shape[0],
                n_tokens=tokens.shape[0],
                n_context=getattr(config, "max_position_embeddings", None),
                d_mlp=_mlp_width(config),
                position_embedding=self.position_embedding,
            ),
            components=tuple(components),
            embed_parts=self.embed(body, config),
            final_norm=final_norm if factor == 1.0 else parts.Factor(final_norm, factor),
            unembedding=Unembedding(weight, bias, None if cap is None else parts.softcap(cap)),
            source=model,
            run_source=logits_of(model),
            source_norm=final_norm,
            tokenizer=tokenizer,
            reread=self.component,
        )

    def component(self, model: Any, index: int) -> Component:
        """One of a model's components by its number: each layer has its attention, then its MLP."""
        body = at(model, self.body)
        layer = at(body, self.layers)[index // 2]
        block = Block(model, body, layer, index // 2, at(layer, self.attention), model.config)
        return self._mlp(block) if index % 2 else self._attention(block)

    def _attention(self, block: Block) -> Attention:
        attention = block.attention
        heads = replace(self.heads(block), dtype=block.model.dtype)
        queries, keys, values = self.split(attention, heads)
        output = at(attention, self.output)
        before = _named(block, self.norm)
        after = None if self.after is None else at(block.layer, self.after)
        adds = at(attention, self.adds) if self.adds else attention if after is None else after
        multiplier, rotation = block.multiplier, self.rotation(block)
        written, bias = dense_weight(output, heads.dtype)
        bias = torch.zeros_like(written[:, 0]) if bias is None else bias
        return Attention(
            layer=block.index,
            source=SourceModules(before or attention, adds, output, factor=multiplier),
            norm=before or nn.Identity(),
            queries=queries,
            keys=keys,
            values=values,
            output=Projection(written.T.unflatten(0, (heads.queries, -1))),
            bias=bias if multiplier == 1.0 else bias * multiplier,
            scale=self.scale(block),
            softcap=_maybe(attention, "attn_logit_softcapping"),
            window=self.window(block),
            rotation=rotation,
            slopes=self.slopes(block),
            sinks=_maybe(attention, "sinks"),
            query_norm=parts.head_norm(_maybe(attention, self.query_norm), heads.queries, heads.width, self.offset),
            key_norm=parts.head_norm(_maybe(attention, self.key_norm), heads.keys, heads.width, self.offset),
            after=None if after is None else parts.scale_of(after, self.offset),
            multiplier=multiplier,
            notes=() if rotation is None else (positions_note(block),),
        )

    def _mlp(self, block: Block) -> MLP:
        mlp, before = at(block.layer, self.mlp), _named(block, self.mlp_norm)
        after = None if self.mlp_after is None else at(block.layer, self.mlp_after)
        multiplier = block.multiplier
        inner = self.mlp_runs(mlp)

        def run(x: Tensor) -> Tensor:
            made = added(inner(x if before is None else before(x)))
            return _times(made if after is None else after(made), multiplier)

        adds = at(mlp, self.mlp_adds) if self.mlp_adds else mlp if after is None else after
        return MLP(
            layer=block.index,
            source=SourceModules(before or mlp, adds, factor=multiplier),
            beside=self.parallel(block),
            run=run,
            neurons=parts.into_neurons(mlp, self.neurons),
            routed=hasattr(mlp, "experts"),
            by_neuron=(lambda: self._by_neuron(block)) if hasattr(mlp, self.out) else None,
        )

    def _by_neuron(self, block: Block) -> MLP:
        mlp, before = at(block.layer, self.mlp), _named(block, self.mlp_norm)
        after = None if self.mlp_after is None else at(block.layer, self.mlp_after)
        inner = self.mlp_runs(hollow(mlp, self.out))
        weight, bias = dense_weight(getattr(mlp, self.out), block.model.dtype)
        if after is not None and bias is not None:
            raise EdgewiseError(
                f"the MLP of layer {block.index} has a norm behind a bias of its output projection, so what the bias "
                "adds depends on its neurons, and they cannot be told apart"
            )
        return apart(
            self._mlp(block),
            activate=lambda x: added(inner(x if before is None else before(x))),
            output=weight.T,
            bias=bias,
            after=None if after is None else parts.scale_of(after, self.offset),
            multiplier=block.multiplier,
        )


def positions_note(block: Block) -> str:
    """What a configuration says of rotary positions, in words."""
    said: Any = getattr(block.config, "rope_parameters", None) or {}
    said = said.get(block.layer_type, said) or {}
    words = [f"base {said['rope_theta']:g}"] if "rope_theta" in said else []
    words += [f"scaled as {said['rope_type']}"] if said.get("rope_type", "default") != "default" else []
    words += [f"{said['partial_rotary_factor']:.0%} of each head"] if said.get("partial_rotary_factor", 1) != 1 else []
    return f"rotary positions ({', '.join(words)})" if words else "rotary positions"


def at(module: Any, path: str) -> Any:
    """What stands under a module at a dotted path, itself at an empty one."""
    for name in path.split(".") if path else ():
        module = getattr(module, name)
    return module


def _maybe(module: Any, name: str) -> Any:
    return getattr(module, name, None)


def _named(block: Block, name: Callable[[Block], str | None] | str | None) -> Any:
    name = name(block) if callable(name) else name
    return None if name is None else at(block.layer, name)


def head_counts(block: Block) -> parts.Heads:
    """As the configuration and the attention module say."""
    config = block.config
    queries = config.num_attention_heads
    width = next(
        (getattr(block.attention, name) for name in ("head_dim", "head_size") if hasattr(block.attention, name)),
        config.hidden_size // queries,
    )
    return parts.Heads(queries, getattr(config, "num_key_value_heads", None) or queries, width)


def _mlp_width(config: Any) -> int:
    for name in ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"):
        if isinstance(width := getattr(config, name, None), int):
            return width
    return 4 * config.hidden_size


def logits_of(model: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The source model's own logits, from tokens, mask and positions."""
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def run(tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        named: Mapping[str, Any] = {"position_ids": positions.expand_as(tokens)} if takes_positions else {}
        return model(input_ids=tokens, attention_mask=mask.long(), use_cache=False, **named).logits

    return run
