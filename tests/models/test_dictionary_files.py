"""Dictionaries in the layouts in which they are published, read back; and files that are not what they should be."""

from __future__ import annotations

import json
from dataclasses import replace

import dictionaries
import numpy as np
import pytest
import tiny
import torch
from dictionaries import circuit_tracer, tensors
from safetensors.torch import save_file

from edgewise.errors import EdgewiseError
from edgewise.models.dictionary import Dictionary, Place, fingerprint
from edgewise.models.dictionary_files import read_dictionaries

MODEL = tiny.gpt2(layers=2)
HOOKS = {
    Place(1, "normalized"): ("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"),
    Place(1, "behind", stream=True): ("blocks.1.hook_resid_post", None),
}


def sae_lens(folder, one: Dictionary, **config) -> None:
    folder.mkdir(parents=True)
    reads, writes = HOOKS[one.place]
    told = {"architecture": "standard", "metadata": {"hook_name": reads, "hook_name_out": writes}, **config}
    (folder / "cfg.json").write_text(json.dumps(told))
    save_file(tensors(one), folder / "sae_weights.safetensors")


def same(found: Dictionary, one: Dictionary) -> bool:
    return fingerprint([found]) == fingerprint([one])


SAE = dictionaries.random(MODEL, Place(1, "behind", stream=True))
TRANSCODER = dictionaries.random(MODEL, Place(1, "normalized"), jump=True)
SKIP = 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("one", "config"),
    [
        (replace(SAE, centred=True), {}),
        (replace(SAE, k=3), dict(architecture="topk", k=3, apply_b_dec_to_input=False)),
        (replace(SAE, threshold=TRANSCODER.threshold), dict(architecture="jumprelu", apply_b_dec_to_input=False)),
        (replace(TRANSCODER, threshold=None), dict(architecture="transcoder")),
        (TRANSCODER, dict(architecture="jumprelu_transcoder", normalize_activations="none")),
        (replace(TRANSCODER, threshold=None, skip=SKIP), dict(architecture="skip_transcoder")),
    ],
)
def test_sae_lens_folders_are_read(one, config, tmp_path):
    sae_lens(tmp_path / "a", one, **config)
    (found,) = read_dictionaries(tmp_path / "a")
    assert same(found, one)
    (again,) = read_dictionaries(tmp_path)  # a folder of such folders
    assert same(again, one)


def test_older_sae_lens_files_have_other_names(tmp_path):
    sae_lens(tmp_path / "a", replace(SAE, k=4, centred=True))
    config = dict(hook_point="blocks.1.hook_resid_post", activation_fn_str="topk", activation_fn_kwargs={"k": 4})
    (tmp_path / "a" / "cfg.json").write_text(json.dumps(config))
    assert same(*read_dictionaries(tmp_path / "a"), replace(SAE, k=4, centred=True))


def test_circuit_tracers_folders_are_read(tmp_path):
    layers = [replace(TRANSCODER, place=Place(layer, "stream"), signed=True) for layer in (0, 1)]
    circuit_tracer(tmp_path / "a", *layers)
    assert all(same(*pair) for pair in zip(read_dictionaries(tmp_path / "a"), layers, strict=True))
    few = replace(layers[0], threshold=None, k=5, skip=SKIP)
    circuit_tracer(tmp_path / "b", few, text="activation: topk\nk: 5\n")
    assert same(*read_dictionaries(tmp_path / "b"), few)
    # Files that its config lists, Gemma Scope's among them, whose encoder lies the other way.
    np.savez(tmp_path / "params.npz", **{name: one.numpy() for name, one in tensors(layers[1]).items()})
    circuit_tracer(tmp_path / "c", layers[0], text="transcoders: [layer_0.safetensors, ../params.npz]\n")
    assert all(same(*pair) for pair in zip(read_dictionaries(tmp_path / "c"), layers, strict=True))


def test_gemma_scopes_files_say_where_they_stand_by_their_folders(tmp_path):
    for kind, place in (
        ("res", Place(1, "behind", stream=True)),
        ("mlp", Place(1, "mlp")),
        ("transcoders", Place(1, "normalized")),
    ):
        folder = tmp_path / f"gemma-scope-2b-pt-{kind}" / "layer_1" / "width_16k" / "average_l0_59"
        folder.mkdir(parents=True)
        one = replace(TRANSCODER, place=place)
        np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors(one).items()})
        assert same(*read_dictionaries(folder), one)
        assert same(*read_dictionaries(folder / "params.npz"), one)


def test_a_file_by_itself_is_told_where_it_stands(tmp_path):
    save_file(tensors(TRANSCODER), tmp_path / "any.safetensors")
    hooks = ",".join(HOOKS[TRANSCODER.place])
    assert same(*read_dictionaries(tmp_path / "any.safetensors", hooks), TRANSCODER)
    # Gemma Scope 2 writes small letters, and its skip the other way.
    named = {"w_enc": TRANSCODER.encoder, "w_dec": TRANSCODER.decoder, "affine_skip_connection": SKIP}
    rest = {name: one for name, one in tensors(TRANSCODER).items() if name not in ("W_enc", "W_dec")}
    save_file({**named, **rest}, tmp_path / "params.safetensors")
    assert same(*read_dictionaries(tmp_path, hooks), replace(TRANSCODER, skip=SKIP))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (dict(architecture="gated"), "of SAELens' architecture 'gated'; edgewise reads standard, jumprelu"),
        (dict(normalize_activations="layer_norm"), "has 'normalize_activations' 'layer_norm'"),
        (dict(metadata={}), "does not say where its features are"),
        (dict(metadata={"hook_name": "blocks.0.attn.hook_z"}), "none that edgewise knows"),
        (dict(metadata={"hook_name": "hook_resid_post"}), "does not say of which layer"),
        (dict(architecture="transcoder"), "does not say what its transcoder predicts"),
        (dict(architecture="jumprelu"), "which has a threshold"),
        (dict(architecture="topk"), "with k None"),
        (dict(activation_fn="tanh"), "activation 'tanh'"),
    ],
)
def test_what_sae_lens_has_and_edgewise_does_not_is_refused(config, why, tmp_path):
    sae_lens(tmp_path / "a", SAE, **config)
    with pytest.raises(EdgewiseError, match=why):
        read_dictionaries(tmp_path / "a")


def test_broken_files_are_refused_in_a_sentence(tmp_path):
    circuit_tracer(tmp_path / "empty")
    circuit_tracer(
        tmp_path / "far", text="transcoders: ['hf://google/gemma-scope-2b-pt-transcoders/layer_0/params.npz']\n"
    )
    circuit_tracer(tmp_path / "missing", text="transcoders: [layer_0.safetensors]\n")
    circuit_tracer(tmp_path / "odd", text="activation: softplus\n")
    for name, text in (("cross", "model_kind: cross_layer_transcoder\n"), ("broken", "a: [\n"), ("list", "[1]\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    sae_lens(tmp_path / "torn", SAE)
    (tmp_path / "torn" / "sae_weights.safetensors").write_bytes(b"12345678")
    save_file({**tensors(SAE), "other": torch.ones(1)}, tmp_path / "other.safetensors")
    save_file({"W_enc": torch.ones(2, 2)}, tmp_path / "few.safetensors")
    save_file(tensors(SAE), tmp_path / "bare.safetensors")
    np.savez(tmp_path / "pickled.npz", W_enc=np.array([{}], dtype=object))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "text.txt").write_text("?")
    hooks = "blocks.1.hook_resid_post"
    for name, given, why in (
        ("empty", None, "no layer_0.safetensors or others beside it"),
        ("far", None, "download the files"),
        ("missing", None, "there is no file 'layer_0.safetensors'"),
        ("odd", None, "activation 'softplus'"),
        ("cross", None, "kind 'cross_layer_transcoder'; edgewise reads 'transcoder_set'"),
        ("broken", None, "is not YAML"),
        ("list", None, "kind None"),
        ("torn", None, "is broken"),
        ("torn", hooks, "--dictionary-hooks is for files that do not"),
        ("other.safetensors", hooks, "a tensor 'other'"),
        ("few.safetensors", hooks, "no tensor 'b_enc'"),
        ("bare.safetensors", None, "does not say where its features are: give it as --dictionary-hooks"),
        ("bare.safetensors", "hook_resid_post", "does not say where its features are"),
        ("pickled.npz", hooks, "is broken"),
        ("nothing", None, "is a folder without a dictionary"),
        ("text.txt", hooks, "no .npz or .safetensors file"),
        ("absent.npz", hooks, "there is no file 'absent.npz'"),
    ):
        with pytest.raises(EdgewiseError, match=why) as caught:
            read_dictionaries(tmp_path / name, given)
        assert "\n" not in str(caught.value)
