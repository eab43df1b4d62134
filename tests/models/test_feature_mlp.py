"""MLPs and streams taken apart by dictionaries: all parts together are what the model writes, whatever those know."""

from __future__ import annotations

from dataclasses import replace

import dictionaries
import pytest
import tiny
import torch
from family_models import InFloat64, family

from edgewise.errors import EdgewiseError
from edgewise.models import permuted
from edgewise.models.dictionary import Place, place_of
from edgewise.models.feature_mlp import FeatureMLP, by_feature, has_features, taken_apart
from edgewise.models.neurons import by_neuron

PLACES = [
    Place(1, "stream"),
    Place(1, "normed"),
    Place(1, "normalized"),
    Place(1, "mlp"),
    Place(1, "behind", stream=True),
]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "olmo2", "mixtral", "granite"])
def test_features_error_and_bias_are_what_the_model_writes(name):
    with InFloat64():
        model = family(name, torch.float64)
        x = torch.randn(2, 3, model.config.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        for number, place in enumerate(PLACES):
            skip = 0.1 * torch.randn(x.shape[-1], x.shape[-1], dtype=torch.float64) if number == 0 else None
            kind = {1: dict(jump=True), 2: dict(k=5), 3: dict(centred=True)}.get(number, {})
            opened = by_feature(model, [dictionaries.random(model, place, skip=skip, **kind)])
            whole, apart = dictionaries.mlps(model)[1], dictionaries.mlps(opened)[1]
            assert isinstance(apart, FeatureMLP)
            assert dictionaries.mlps(opened)[0] is dictionaries.mlps(model)[0]
            code = apart.code({"mlp": x[:, :, None]}, None)
            assert torch.allclose(apart.write_total(code), whole.run(x), atol=1e-9)
            # Writing is linear: unit by unit, what it carries, and the bias.
            units = torch.eye(apart.n_neurons, dtype=torch.bool)
            spread = apart.spread(units) & (apart.spread(torch.zeros_like(units)) == 0)
            alone = apart.write(spread * code[0, 0, 0]).sum(dim=0)
            nothing = apart.write_total((apart.spread(torch.zeros_like(units[0])) * code[0, 0, 0])[None, None, None])[
                0, 0
            ]
            assert torch.allclose(alone + nothing, whole.run(x)[0, 0], atol=1e-9)
            some = torch.arange(code.shape[-1])[::3]
            assert torch.allclose(
                apart.write_some(some, code[0, 0, 0, some]),
                apart.write(torch.zeros_like(code[0, 0, 0]).index_put((some,), code[0, 0, 0, some])),
                atol=1e-9,
            )
            assert torch.allclose(apart.gathered(apart.spread(units).double()).argmax(dim=1), torch.arange(len(units)))


def test_what_a_transcoder_reads_is_called_as_in_transformer_lens():
    """Its `ln2.hook_normalized` is behind the gain and the bias of a LayerNorm, and before the gain of an RMSNorm."""
    with InFloat64():
        for name, gain in (("llama", lambda weight: weight), ("gemma2", lambda weight: 1 + weight)):
            model = family(name, torch.float64)
            x = 3 * torch.randn(4, model.config.d_model, dtype=torch.float64)
            read = {
                reads: dictionaries.mlps(by_feature(model, [dictionaries.random(model, Place(0, reads))]))[0].read
                for reads in ("stream", "normed", "normalized")
            }
            norm = dictionaries.mlps(model)[0].source.norm
            assert torch.equal(read["stream"](x), x)
            assert torch.equal(read["normed"](x), norm(x))
            assert torch.allclose(read["normalized"](x) * gain(norm.weight), norm(x), atol=1e-9)
            assert not torch.allclose(read["normalized"](x), norm(x), atol=1e-2)
        model = family("gpt2", torch.float64)
        opened = by_feature(model, [dictionaries.random(model, Place(0, "normalized"))])
        x = torch.randn(4, model.config.d_model, dtype=torch.float64)
        assert torch.equal(dictionaries.mlps(opened)[0].read(x), dictionaries.mlps(model)[0].source.norm(x))


def test_activation_functions_are_those_of_the_papers():
    model = tiny.plain(dtype=torch.float64)
    base = dictionaries.random(model, Place(0, "mlp"), features=6)
    made = replace(
        base, encoder=torch.eye(12, 6, dtype=torch.float64), encoder_bias=torch.zeros(6, dtype=torch.float64)
    )
    x = torch.tensor([[-3.0, -1.0, 0.5, 1.0, 2.0, 0.2] + [9.0] * 6], dtype=torch.float64)
    threshold = torch.tensor([0.0, -2.0, 0.6, 0.6, 0.6, 0.1], dtype=torch.float64)

    def held(**parts):
        return replace(made, **parts).encode(x)[0].tolist()

    assert held() == [0, 0, 0.5, 1, 2, 0.2]
    assert held(threshold=threshold) == [0, 0, 0, 1, 2, 0.2]
    assert held(threshold=threshold, signed=True) == [0, -1, 0, 1, 2, 0.2]
    assert held(k=2) == [0, 0, 0, 1, 2, 0]
    assert replace(made, k=5, signed=True).encode(x)[0].tolist() == [0, -1, 0.5, 1, 2, 0.2]
    off = replace(made, centred=True, decoder_bias=torch.full((12,), 0.5, dtype=torch.float64))
    assert off.encode(x)[0].tolist() == pytest.approx([0, 0, 0, 0.5, 1.5, 0])


@pytest.mark.parametrize(
    ("reads", "writes", "place"),
    [
        ("blocks.3.hook_resid_post", None, Place(3, "behind", stream=True)),
        ("blocks.3.hook_resid_pre", None, Place(2, "behind", stream=True)),
        ("blocks.0.hook_mlp_out", None, Place(0, "mlp")),
        ("blocks.7.ln2.hook_normalized", "blocks.7.hook_mlp_out", Place(7, "normalized")),
        ("blocks.7.mlp.hook_in", "blocks.7.mlp.hook_out", Place(7, "normed", before_norm=True)),
        ("hook_resid_mid", "hook_mlp_out", Place(None, "stream")),
    ],
)
def test_places_have_the_names_of_hooks(reads, writes, place):
    assert place_of(reads, writes, "it") == place


@pytest.mark.parametrize(
    ("reads", "writes", "why"),
    [
        ("blocks.3.attn.hook_z", None, "features at 'blocks.3.attn.hook_z' are none that edgewise knows"),
        ("blocks.3.hook_resid_mid", None, "are none that edgewise knows"),
        ("blocks.0.hook_resid_pre", None, "is the embedding"),
        ("blocks.3.hook_resid_mid", "blocks.4.hook_mlp_out", "transcoders of one layer's MLP"),
        ("blocks.3.hook_resid_mid", "blocks.3.hook_resid_post", "transcoders of one layer's MLP"),
        ("what is this?", None, "not the name of a hook"),
    ],
)
def test_other_places_are_refused(reads, writes, why):
    with pytest.raises(EdgewiseError, match=why):
        place_of(reads, writes, "it")


def test_dictionaries_that_do_not_fit_are_refused_in_a_sentence():
    model = tiny.gpt2(layers=2)
    one = dictionaries.random(model, Place(0, "mlp"))
    opened = by_feature(model, [one])
    parallel = tiny.FAMILIES["parallel"]()
    gemma = family("gemma2")
    for made, why in (
        (lambda: by_feature(model, []), "there is no dictionary"),
        (lambda: by_feature(model, [one, one]), "two dictionaries are of one layer"),
        (lambda: by_feature(model, [replace(one, place=Place(2, "mlp"))]), "of layer 2, and .* has MLPs in 2 layers"),
        (lambda: by_feature(tiny.plain(mlps=False, d_model=32), [one]), "has no MLPs"),
        (lambda: by_feature(tiny.plain(), [one]), "of vectors of 32 numbers, and .* has a residual stream of 12"),
        (
            lambda: by_feature(model, [one, replace(one, place=Place(1, "behind", stream=True))]),
            "search one kind at a time",
        ),
        (lambda: by_feature(opened, [one]), "taken apart by neurons or features already"),
        (lambda: by_feature(by_neuron(model), [one]), "taken apart by neurons or features already"),
        (lambda: by_feature(permuted(model, 1), [one]), "has its neurons permuted"),
        (
            lambda: by_feature(parallel, [dictionaries.random(parallel, Place(0, "behind", stream=True))]),
            "stands beside attention",
        ),
        (
            lambda: by_feature(gemma, [dictionaries.random(gemma, Place(0, "normed", before_norm=True))]),
            "has a norm or a factor behind it",
        ),
        (lambda: taken_apart(model, features=True), "is not taken apart by any"),
        (lambda: taken_apart(opened, features=False), "search it with --level feature"),
        (lambda: replace(one, encoder=one.encoder[:5]).check("it"), "'W_dec' should be of shape"),
        (lambda: replace(one, k=99).check("it"), "99 cannot be active at a time"),
        (lambda: replace(one, decoder_bias=one.decoder_bias * torch.nan).check("it"), "numbers that are none"),
    ):
        with pytest.raises(EdgewiseError, match=why):
            made()
    assert has_features(opened)
    assert taken_apart(opened, features=True) is opened
