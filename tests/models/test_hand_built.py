"""The hand-built models against tracr's compiled weights, and against what their programs compute in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.models.hand_built import (
    HAND_BUILT,
    OR_GATE_TOKENS,
    TRACR_REVERSE_TOKENS,
    TRACR_XPROPORTION_TOKENS,
    or_gate,
    tracr_reverse,
    tracr_xproportion,
    tracr_xproportion_compiled,
)
from edgewise.models.plain_config import PlainTransformerConfig
from edgewise.models.plain_transformer import PlainTransformer

SHARED_MODELS = Path(__file__).parents[3] / "shared" / "models"

COMPILED = {"tracr-reverse": tracr_reverse, "tracr-xproportion": tracr_xproportion_compiled}


def tracr_file(model: str, name: str) -> dict[str, Tensor]:
    path = SHARED_MODELS / model / name
    if not path.exists():
        pytest.skip(tiny.NO_SHARED)
    return load_file(path)


def tracr_model(model: str, config: PlainTransformerConfig, dtype: torch.dtype) -> PlainTransformer:
    """tracr's own weights in a PlainTransformer."""
    source = PlainTransformer(config).to(dtype)
    source.load_state_dict({key: value.to(dtype) for key, value in tracr_file(model, "model.safetensors").items()})
    return source


def all_strings(ids: range, length: int) -> Tensor:
    """Every string over `ids`: [len(ids) ** length, length]."""
    return torch.tensor(list(itertools.product(ids, repeat=length)))


def encode(prompts: Iterable[Sequence[str]], vocabulary: tuple[str, ...]) -> Tensor:
    """Prompts of one length: [batch, pos]."""
    return torch.tensor([[vocabulary.index(word) for word in prompt] for prompt in prompts])


def random_model(**changes: object) -> PlainTransformer:
    sizes: dict = {
        "n_layers": 2,
        "n_heads": 3,
        "d_model": 10,
        "d_head": 4,
        "d_mlp": 7,
        "d_vocab": 11,
        "d_vocab_out": 5,
        "n_context": 8,
        "activation": "gelu_new",
    }
    model = PlainTransformer(PlainTransformerConfig(**{**sizes, **changes})).to(torch.float64)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    return model


# --- tracr's programs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("length", [*range(1, 6), pytest.param(6, marks=pytest.mark.slow)])
def test_rebuilt_weights_compute_what_tracrs_compute_on_every_token_string(
    name: str, dtype: torch.dtype, length: int
) -> None:
    ours = COMPILED[name](dtype)
    tracr = tracr_model(name, ours.config, dtype)
    tokens = all_strings(range(ours.config.d_vocab), length)
    expected = tracr(tokens)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", COMPILED)
def test_the_plain_forward_pass_gives_tracrs_recorded_outputs(name: str) -> None:
    recorded = tracr_file(name, "io.safetensors")
    config = COMPILED[name]().config
    logits = tracr_model(name, config, torch.float32)(recorded["tokens"])
    torch.testing.assert_close(logits, recorded["outputs"], atol=1e-6, rtol=0)


def test_our_xproportion_gives_tracrs_recorded_outputs() -> None:
    recorded = tracr_file("tracr-xproportion", "io.safetensors")
    logits = tracr_xproportion()(recorded["tokens"])
    torch.testing.assert_close(logits, recorded["outputs"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("letters", "pads"), [(n, pads) for n in range(1, 5) for pads in range(6 - n)])
def test_our_xproportion_agrees_with_the_compiled_mechanism_on_every_valid_input(letters: int, pads: int) -> None:
    strings = all_strings(range(2, 6), letters)
    bos = torch.full((len(strings), 1), TRACR_XPROPORTION_TOKENS.index("BOS"))
    padding = torch.full((len(strings), pads), TRACR_XPROPORTION_TOKENS.index("pad"))
    tokens = torch.cat([bos, strings, padding], dim=1)
    ours, compiled = tracr_xproportion()(tokens), tracr_xproportion_compiled()(tokens)
    torch.testing.assert_close(ours[:, : letters + 1], compiled[:, : letters + 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", range(1, 6))
def test_reverse_reverses_every_list(dtype: torch.dtype, length: int) -> None:
    lists = list(itertools.product("123", repeat=length))
    logits = tracr_reverse(dtype)(encode([("BOS", *letters) for letters in lists], TRACR_REVERSE_TOKENS))
    expected = torch.tensor(
        [[[float(letter == output) for output in "123"] for letter in reversed(letters)] for letters in lists]
    )
    torch.testing.assert_close(logits[:, 1:], expected.to(dtype), atol=1e-5, rtol=0)
    assert logits[:, 0].abs().max() < 1e-5


@pytest.mark.parametrize("build", [tracr_xproportion, tracr_xproportion_compiled])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", range(1, 5))
def test_xproportion_is_the_fraction_of_x_so_far_for_every_string(
    build: Callable[..., PlainTransformer], dtype: torch.dtype, length: int
) -> None:
    strings = list(itertools.product("wxyz", repeat=length))
    logits = build(dtype)(encode([("BOS", *letters) for letters in strings], TRACR_XPROPORTION_TOKENS))
    fractions = [
        [0.0] + [float(Fraction(letters[:end].count("x"), end)) for end in range(1, length + 1)] for letters in strings
    ]
    torch.testing.assert_close(logits[..., 0], torch.tensor(fractions, dtype=dtype), atol=1e-6, rtol=0)
    for output in (1, 2, 3):
        at_its_position = torch.arange(length + 1) == output
        assert torch.equal(logits[..., output], at_its_position.to(dtype).expand(len(strings), -1))


def test_our_xproportion_gives_0_at_bos_even_when_every_letter_is_x() -> None:
    logits = tracr_xproportion()(encode([["BOS", "x", "x", "x", "x", "pad"]], TRACR_XPROPORTION_TOKENS))[0, :, 0]
    assert logits[0].abs() < 1e-6
    torch.testing.assert_close(logits[1:5], torch.ones(4), atol=1e-6, rtol=0)


def test_our_xproportion_needs_the_letters_in_the_key_to_leave_bos_out() -> None:
    model = tracr_xproportion()
    letter_channel = model.config.d_head - 1
    model.blocks[1].attn.W_K[:, :, letter_channel] = 0
    logits = model(encode([["BOS", "x", "x", "x", "x"]], TRACR_XPROPORTION_TOKENS))[0, 1:, 0]
    torch.testing.assert_close(logits, torch.tensor([1 / 2, 2 / 3, 3 / 4, 4 / 5]), atol=1e-6, rtol=0)


# --- the OR gate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "output"), [((), 0.0), ((0,), 1.0), ((1,), 1.0), ((0, 1), 1.0)])
def test_the_or_gate_is_1_as_long_as_a_head_writes(heads: tuple[int, ...], output: float) -> None:
    model = or_gate()
    for head in {0, 1} - set(heads):
        model.blocks[0].attn.W_O[head] = 0
    assert model(torch.zeros(1, 1, dtype=torch.long)).tolist() == [[[output]]]


def test_the_or_gate_without_its_mlp_gives_0() -> None:
    model = or_gate()
    model.blocks[0].mlp = None
    assert model(torch.zeros(1, 1, dtype=torch.long)).tolist() == [[[0.0]]]


def test_no_constant_of_a_hand_built_model_is_left_without_an_owner() -> None:
    for build in HAND_BUILT.values():
        model = build()
        assert all(block.attn.b_O.abs().max() == 0 for block in model.blocks)
        assert model.unembed.b_U.abs().max() == 0


def test_the_registry_builds_every_model_in_the_dtype_asked_for() -> None:
    sizes = {
        name: (model.config.n_layers, model.config.n_heads, model.config.d_vocab, model.config.d_vocab_out)
        for name, model in ((name, build()) for name, build in HAND_BUILT.items())
    }
    assert sizes == {
        "tracr-reverse": (4, 1, len(TRACR_REVERSE_TOKENS), 3),
        "tracr-xproportion": (2, 1, len(TRACR_XPROPORTION_TOKENS), 4),
        "tracr-xproportion-compiled": (2, 1, len(TRACR_XPROPORTION_TOKENS), 4),
        "or-gate": (1, 2, len(OR_GATE_TOKENS), 1),
    }
    for name, build in HAND_BUILT.items():
        default = torch.float64 if name == "or-gate" else torch.float32
        assert {parameter.dtype for parameter in build().parameters()} == {default}
        assert {parameter.dtype for parameter in build(torch.bfloat16).parameters()} == {torch.bfloat16}


# --- the plain transformer itself -------------------------------------------------------------------------------------


def by_hand(model: PlainTransformer, tokens: list[int]) -> list[list[float]]:
    """One prompt's logits, number by number, with no tensor operation in common with the model."""
    config = model.config
    weights = {name: value.tolist() for name, value in model.state_dict().items()}

    def affine(x: list[float], matrix: list[list[float]], bias: list[float]) -> list[float]:
        return [b + sum(x[i] * matrix[i][j] for i in range(len(x))) for j, b in enumerate(bias)]

    def add(x: list[float], y: list[float]) -> list[float]:
        return [a + b for a, b in zip(x, y, strict=True)]

    def gelu_new(x: float) -> float:
        return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    stream = [add(weights["embed.W_E"][token], weights["pos_embed.W_pos"][place]) for place, token in enumerate(tokens)]
    for layer in range(config.n_layers):
        prefix = f"blocks.{layer}."
        written = [list(weights[prefix + "attn.b_O"]) for _ in tokens]
        for head in range(config.n_heads):
            q, k, v = (
                [
                    affine(x, weights[f"{prefix}attn.W_{kind}"][head], weights[f"{prefix}attn.b_{kind}"][head])
                    for x in stream
                ]
                for kind in "QKV"
            )
            for place in range(len(tokens)):
                seen = range(place + 1) if config.causal else range(len(tokens))
                scale = math.sqrt(config.d_head) if config.attention_scale else 1
                exponentials = [
                    math.exp(sum(a * b for a, b in zip(q[place], k[key], strict=True)) / scale) for key in seen
                ]
                z = [
                    sum(e * v[key][i] for e, key in zip(exponentials, seen, strict=True)) / sum(exponentials)
                    for i in range(config.d_head)
                ]
                written[place] = affine(z, weights[prefix + "attn.W_O"][head], written[place])
        stream = [add(x, y) for x, y in zip(stream, written, strict=True)]
        if config.d_mlp:
            hidden = [affine(x, weights[prefix + "mlp.W_in"], weights[prefix + "mlp.b_in"]) for x in stream]
            stream = [
                add(x, affine([gelu_new(n) for n in h], weights[prefix + "mlp.W_out"], weights[prefix + "mlp.b_out"]))
                for x, h in zip(stream, hidden, strict=True)
            ]
    return [affine(x, weights["unembed.W_U"], weights["unembed.b_U"]) for x in stream]


@pytest.mark.parametrize("d_mlp", [0, 7])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attention_scale", [True, False])
def test_the_plain_transformer_equals_the_formula_written_out_number_by_number(
    d_mlp: int, causal: bool, attention_scale: bool
) -> None:
    model = random_model(d_mlp=d_mlp, causal=causal, attention_scale=attention_scale)
    tokens = [3, 1, 4, 1, 5, 9]
    expected = torch.tensor(by_hand(model, tokens), dtype=torch.float64)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(model(torch.tensor([tokens]))[0], expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_under_the_mask_changes_nothing_at_the_real_tokens(causal: bool, side: str) -> None:
    model = random_model(causal=causal)
    tokens = torch.tensor([[3, 1, 4, 1]])
    padding = torch.tensor([[9, 9, 9]])
    real, unreal = torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(padding, dtype=torch.bool)
    places, no_places = torch.arange(4)[None], torch.zeros_like(padding)
    order = (1, 0) if side == "left" else (0, 1)

    def joined(real_part: Tensor, padding_part: Tensor) -> Tensor:
        return torch.cat([(real_part, padding_part)[part] for part in order], dim=1)

    mask = joined(real, unreal)
    logits = model(joined(tokens, padding), joined(places, no_places), mask)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[mask], model(tokens)[0], atol=1e-12, rtol=0)


def test_position_ids_choose_the_position_embeddings() -> None:
    model = random_model()
    tokens = torch.tensor([[3, 1, 4, 1]])
    order = torch.tensor([2, 0, 3, 1])
    expected = model(tokens, torch.arange(4)[None])
    torch.testing.assert_close(model(tokens), expected, atol=0, rtol=0)
    assert (model(tokens, order[None]) - expected).abs().max() > 0.1
    moved = random_model()
    moved.pos_embed.W_pos[:4] = model.pos_embed.W_pos[order]
    torch.testing.assert_close(model(tokens, order[None]), moved(tokens), atol=0, rtol=0)


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(EdgewiseError, match="9 tokens are too many: this model has 8 positions"):
        random_model()(torch.zeros(1, 9, dtype=torch.long))


def test_an_unknown_activation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EdgewiseError, match="unknown activation 'rellu'; did you mean 'relu'"):
        random_model(activation="rellu")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_the_plain_transformer_works_in_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    model = random_model()
    tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    expected = model(tokens, attention_mask=mask)
    logits = model.to(dtype)(tokens, attention_mask=mask)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.double(), expected, atol=tolerance, rtol=tolerance)


def test_parameters_carry_transformer_lens_names() -> None:
    names = set(random_model(n_layers=1).state_dict())
    attention = {f"blocks.0.attn.{kind}_{which}" for kind in "Wb" for which in "QKVO"}
    mlp = {f"blocks.0.mlp.{name}" for name in ("W_in", "b_in", "W_out", "b_out")}
    around = {"embed.W_E", "pos_embed.W_pos", "unembed.W_U", "unembed.b_U"}
    assert names == attention | mlp | around
    assert set(random_model(n_layers=1, d_mlp=0).state_dict()) == attention | around
