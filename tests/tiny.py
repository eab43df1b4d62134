"""Tiny random models of every architecture, and prompts for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import transformers
from lacking import NO_BUNDLER as NO_BUNDLER
from lacking import NO_CHROMIUM as NO_CHROMIUM
from lacking import NO_SHARED, SHARED
from torch import Tensor

from edgewise.models import Decoder, load_model
from edgewise.models.attention import Attention
from edgewise.models.components import MLP
from edgewise.models.plain_config import PlainTransformerConfig
from edgewise.models.plain_transformer import PlainTransformer
from edgewise.tasks import METRICS
from edgewise.tasks.task import Prompts, PromptText, Task, last_token_prompts

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)


def slow_unless(fast: Callable[..., bool], cases: Iterable[Sequence[Any]]) -> list[Any]:
    """Parameters for all cases; those for which `fast(*case)` does not hold are among the slow tests."""
    return [
        pytest.param(*case, marks=[] if fast(*case) else pytest.mark.slow, id="-".join(map(str, case)))
        for case in cases
    ]


def in_turn(names: Sequence[str], options: Sequence[Sequence[Any]], whole: Sequence[str] = ()) -> list[Any]:
    """Parameters for every name with all options. Those in `whole` have all in every run, the others one, in turn."""
    fast = {(name, tuple(options[number % len(options)])) for number, name in enumerate(names)}
    cases = ((name, *option) for name in names for option in options)
    return slow_unless(lambda name, *option: name in whole or (name, option) in fast, cases)


VOCABULARY = 40


def gpt2(seed: int = 0, dtype: torch.dtype = torch.float32, layers: int = 3, heads: int = 4) -> Decoder:
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        n_layer=layers,
        n_head=heads,
        n_embd=8 * heads,
        vocab_size=VOCABULARY,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    return load_model(_loud(transformers.GPT2LMHeadModel(config)), dtype=dtype)


def llama(
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 2,
    bias: bool = False,
) -> Decoder:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        hidden_size=8 * heads,
        intermediate_size=48,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        attention_bias=bias,
        mlp_bias=bias,
        bos_token_id=0,
        eos_token_id=0,
    )
    return load_model(_loud(transformers.LlamaForCausalLM(config)), dtype=dtype)


def plain(
    seed: int = 0, dtype: torch.dtype = torch.float32, *, mlps: bool = True, layers: int = 3, **choices: Any
) -> Decoder:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = dict(n_heads=2, d_model=12, d_head=5, d_mlp=16 if mlps else 0, n_context=32)
    kinds: dict[str, Any] = dict(d_vocab=VOCABULARY, d_vocab_out=VOCABULARY - 3, activation="gelu")
    config = PlainTransformerConfig(n_layers=layers, **{**sizes, **kinds, **choices})
    return load_model(_loud(PlainTransformer(config)), dtype=dtype)


def _loud(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough, biases included, that every part of the model matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.dim() == 1 else 0.9 * parameter.shape[-1] ** -0.5
            parameter.add_(scale * torch.randn_like(parameter))
    return model


FAMILIES: dict[str, Callable[..., Decoder]] = {
    "gpt2": gpt2,
    "llama": llama,
    "llama-with-biases": lambda **kwargs: llama(bias=True, kv_heads=1, **kwargs),
    "plain": plain,
    "plain-attention-only": lambda **kwargs: plain(mlps=False, **kwargs),
    "plain-bidirectional": lambda **kwargs: plain(causal=False, **kwargs),
    "shortformer": lambda **kwargs: plain(mlps=False, normalization="LN", positions="shortformer", **kwargs),
    "parallel": lambda n_heads=4, n_kv_heads=2, **kwargs: plain(
        **dict(normalization="RMS", positions="rotary", rotary_dim=4, n_heads=n_heads, n_kv_heads=n_kv_heads),
        **dict(gated_mlp=True, parallel=True, scale_by_layer=True, **kwargs),
    ),
}


def near(value: float | dict[str, float]) -> Any:
    """What a metric in float32 is equal to if it was worked out another way, or with a processor's own order of sums.

    Logits of order 1 to 10 are sums of some hundred terms, each rounded to 6e-8 of its size, so a metric made of them
    is right to a few 1e-6 of its size, or of 1 where it is smaller than the logits.
    """
    return pytest.approx(value, rel=1e-5, abs=1e-5)


def prompts(seed: int = 0, rows: int = 3, longest: int = 6, ragged: bool = True, paired: bool = True) -> Prompts:
    """Random clean and corrupted prompts with two answers and one wrong answer each."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(1, VOCABULARY - 3, (length,), generator=generator).tolist()

    lengths = [longest - (row % 3 if ragged else 0) for row in range(rows)]
    clean = [ids(length) for length in lengths]
    corrupt = [ids(length if paired else max(1, longest - length)) for length in lengths]
    return last_token_prompts(clean, corrupt, [ids(2) for _ in lengths], [ids(1) for _ in lengths])


def task(seed: int = 0, *, split_embedding: bool = False, metric: str = "kl_div", **kwargs) -> Task:
    made = prompts(seed, **kwargs)
    return Task(
        name="random",
        prompts=made,
        text=tuple(
            PromptText(str(row.tolist()), str(other.tolist()))
            for row, other in zip(made.clean, made.corrupt, strict=True)
        ),
        metric=metric,
        metrics=tuple(METRICS),
        split_embedding=split_embedding,
    )


class Layer:
    """One layer of a Decoder as a textbook has it, for oracles written out a second time."""

    def __init__(self, attention: Attention, mlp: MLP | None) -> None:
        self.attention, self.bias = attention, attention.bias
        self.mlp = None if mlp is None else mlp.run
        self.mlp_inputs = () if mlp is None else mlp.neurons
        self.queries, self.keys, self.values, self.output = (
            attention.queries,
            attention.keys,
            attention.values,
            attention.output,
        )

    def query(self, x: Tensor, at: Tensor) -> Tensor:
        return self.attention.project("q", x, at)

    def key(self, x: Tensor, at: Tensor) -> Tensor:
        return self.attention.project("k", x, at)

    def value(self, x: Tensor) -> Tensor:
        return self.attention.project("v", x, torch.zeros(1, 1, dtype=torch.long))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        return self.attention.code({"q": q, "k": k, "v": v}, allowed)

    def write(self, z: Tensor) -> Tensor:
        return self.attention.write(z)


def layers_of(model: Decoder) -> list[Layer]:
    mlps = {one.layer: one for one in model.components if isinstance(one, MLP)}
    return [Layer(one, mlps.get(one.layer)) for one in model.components if isinstance(one, Attention)]


def by_layer(model: Decoder, of_components: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What attention blocks have and what MLPs have, layer by layer, of a list with an entry per component."""
    pairs = list(zip(model.components, of_components, strict=True))
    return tuple([given for one, given in pairs if isinstance(one, kind)] for kind in (Attention, MLP))  # type: ignore[return-value]


def first_allowed(model: Decoder, mask: Tensor) -> Tensor:
    """Which tokens see which, in a model whose layers are all alike."""
    return next(one for one in model.allowed(mask) if one is not None)
