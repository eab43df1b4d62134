"""Models come from names, folders and objects, and what cannot be loaded is refused in words."""

import json
import shutil

import pytest
import tiny
import torch
import transformers

from edgewise.errors import EdgewiseError
from edgewise.models import BUILT_IN, load_model


@pytest.fixture
def folder(tmp_path):
    tiny.gpt2().source.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_local_folder_loads_with_the_same_weights(folder):
    assert load_model(folder).fingerprint() == tiny.gpt2().fingerprint()


def test_fingerprints_tell_weights_and_dtypes_apart():
    first, other, double = tiny.gpt2(), tiny.gpt2(seed=1), tiny.gpt2(dtype=torch.float64)
    assert len({first.fingerprint(), other.fingerprint(), double.fingerprint()}) == 3


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_a_fingerprint_depends_on_every_number(dtype):
    model = tiny.gpt2(dtype=getattr(torch, dtype), layers=1)
    fingerprint = model.fingerprint()
    assert fingerprint.startswith("v2:")
    assert model.fingerprint() == fingerprint
    weight = model.source.transformer.h[0].attn.c_attn.weight.data
    for head in range(model.config.n_heads):  # the weights of one head's queries lie in a stripe
        kept = weight[:, 8 * head : 8 * head + 8].clone()
        weight[:, 8 * head : 8 * head + 8] = 0
        assert model.fingerprint() != fingerprint
        weight[:, 8 * head : 8 * head + 8] = kept
    assert model.fingerprint() == fingerprint
    for tensor in model.source.state_dict().values():
        number = tensor.view(-1)[-1].clone()
        tensor.view(-1)[-1] = torch.nextafter(number, torch.tensor(torch.inf, dtype=number.dtype))
        assert model.fingerprint() != fingerprint
        tensor.view(-1)[-1] = number


def test_a_fingerprint_is_of_the_numbers_and_not_of_how_they_lie_in_memory():
    model = tiny.gpt2()
    fingerprint, weight = model.fingerprint(), model.source.transformer.h[0].mlp.c_fc.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    assert model.fingerprint() == fingerprint


def test_a_model_shows_itself_in_one_line():
    assert repr(load_model("tiny-ioi")) == "Decoder('tiny-ioi': gpt2, 4 layers of 4 heads, float32 on cpu)"


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_dtypes_are_those_asked_for(folder, dtype):
    assert load_model(folder, dtype=dtype).dtype == getattr(torch, dtype)


def test_a_model_object_stays_in_its_dtype():
    source = tiny.gpt2(dtype=torch.float64).source
    assert load_model(source).dtype == torch.float64


def test_wrappers_are_taken_off():
    source = tiny.llama().source

    class Bridge(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.original_model = source

    assert load_model(Bridge()).source is source


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_model_loads(name):
    assert load_model(name).name == name


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_inner": 40}))
    with pytest.raises(
        EdgewiseError, match=r"tensor '\S+' has shape \[\d.*\], config.json asks for \[.*40.*other tensors"
    ):
        load_model(folder)


def change(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_layer", 10**6),
        ("n_layer", 0),
        ("n_layer", -1),
        ("n_layer", "two"),
        ("n_layer", True),
        ("n_head", -2),
        ("n_embd", 0),
        ("vocab_size", 10**12),
        ("n_positions", 1.5),
    ],
)
def test_a_size_that_is_none_is_refused_by_its_name_before_anything_is_built(folder, field, value):
    change(folder, **{field: value})
    with pytest.raises(EdgewiseError, match=rf"{field} in its config\.json is .* whole number from 1 to"):
        load_model(folder)


def test_heads_that_do_not_divide_the_width_are_refused(folder):
    change(folder, n_head=5)
    with pytest.raises(EdgewiseError, match=r"n_embd in its config\.json is 32, which n_head, 5, does not divide"):
        load_model(folder)


@pytest.mark.parametrize("layers", [1, 2, 4, 1000])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_checkpoint_of_more_or_fewer_layers_is_refused_at_once(folder, layers, kind):
    if kind == "bin":
        torch.save(tiny.gpt2().source.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    change(folder, n_layer=layers)
    with pytest.raises(EdgewiseError, match=rf"n_layer is {layers}, and the checkpoint has 3 layers"):
        load_model(folder)


def test_an_embedding_that_is_not_in_the_file_is_refused_before_memory_is_taken(folder):
    change(folder, vocab_size=10**9)
    with pytest.raises(EdgewiseError, match=r"an embedding of 1,000,000,000 tokens by 32 is not in a checkpoint of"):
        load_model(folder)


def test_a_tensor_too_many_is_refused_by_name_but_not_what_old_versions_saved_beside(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    old = {"transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32)}
    save_file(weights | old, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(folder)
    save_file(weights | {"transformer.extra.weight": torch.ones(3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        EdgewiseError, match=r"tensor 'transformer\.extra\.weight' of the checkpoint has no place in it"
    ):
        load_model(folder)


@pytest.mark.parametrize("outside", ["../model.safetensors", "/etc/passwd", "..", ["model.safetensors"]])
def test_an_index_that_leads_out_of_its_folder_is_refused(folder, outside):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": outside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EdgewiseError, match="it should be one in the same folder"):
        load_model(folder)


def test_code_of_a_folder_is_neither_run_nor_asked_about(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    marker = tmp_path / "code-ran"
    (folder / "odd.py").write_text(f"open({str(marker)!r}, 'w')\nclass OddConfig: pass\n")
    change(folder, model_type="odd", auto_map={"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.Odd"})
    with pytest.raises(EdgewiseError, match=r"config\.json cannot be used"):
        load_model(folder)
    change(folder, model_type="gpt2")
    load_model(folder)  # as transformers' own GPT-2
    assert not marker.exists()


def test_the_attention_that_a_config_asks_for_is_not_fetched(folder):
    change(folder, attn_implementation="some-hub/kernel", _attn_implementation="some-hub/kernel")
    assert load_model(folder).source.config._attn_implementation == "sdpa"


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(EdgewiseError, match="has no weights"):
        load_model(folder)


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(EdgewiseError, match=r"no config\.json"):
        load_model(folder)


def test_truncated_weights_are_refused(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(EdgewiseError, match=r"weights of model .* cannot be read"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["n_layer"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EdgewiseError, match=r"do not fit its config\.json"):
        load_model(folder)


def test_an_unsupported_architecture_is_refused_by_name_with_those_supported(tmp_path):
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=20)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    with pytest.raises(EdgewiseError, match=r"mamba.*supported: bloom, cohere, .*gpt2, .*llama"):
        load_model(tmp_path / "mamba")
    with pytest.raises(EdgewiseError, match="mamba"):
        load_model(transformers.MambaForCausalLM(config))


def test_a_body_without_its_language_model_head_is_refused():
    body = tiny.gpt2().source.transformer
    with pytest.raises(EdgewiseError, match="GPT2Model"):
        load_model(body)


def test_an_unknown_name_is_refused_with_near_matches():
    with pytest.raises(EdgewiseError, match=r"cannot find model 'tracr-revers'.*did you mean 'tracr-reverse'"):
        load_model("tracr-revers")


def test_unknown_devices_and_dtypes_are_refused():
    with pytest.raises(EdgewiseError, match="unknown device 'gpu9'"):
        load_model("or-gate", device="gpu9")
    with pytest.raises(EdgewiseError, match="unknown dtype 'float31'; did you mean 'float32'"):
        load_model("or-gate", dtype="float31")


def test_apples_gpus_are_taken_where_there_are_any_but_not_for_float64(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(EdgewiseError, match="device 'mps': torch finds no Apple GPU"):
        load_model("or-gate", device="mps")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(EdgewiseError, match="device 'mps' has no float64"):
        load_model("tiny-ioi", device="mps", dtype="float64")
    for double in ("or-gate", tiny.gpt2(dtype=torch.float64).source):
        with pytest.raises(EdgewiseError, match="device 'mps' has no float64"):
            load_model(double, device="mps")
    moved = []
    monkeypatch.setattr("edgewise.models.load._moved", lambda model, *given: moved.append(given) or model)
    load_model("tiny-ioi", device="mps")
    assert moved == [(torch.device("mps"), None)]


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_checkpoint_of_another_dtype_is_converted_piece_by_piece(tmp_path, stored, dtype, monkeypatch):
    monkeypatch.setattr("edgewise.models.converted.CHUNK_BYTES", 500)
    source = tiny.gpt2(dtype=getattr(torch, stored)).source
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    found = load_model(tmp_path, dtype=dtype).source
    for name, weight in source.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight.to(getattr(torch, dtype))), name
    assert found.lm_head.weight is found.transformer.wte.weight


def test_what_is_not_from_the_hub_has_no_revision(folder):
    with pytest.raises(EdgewiseError, match=r"is on this machine: a revision \('main'\) is for models from the hub"):
        load_model(folder, revision="main")
    with pytest.raises(EdgewiseError, match="'tiny-ioi', which comes with edgewise, has no revision"):
        load_model("tiny-ioi", revision="main")
    with pytest.raises(EdgewiseError, match="a model object has no revision"):
        load_model(tiny.gpt2().source, revision="main")
    with pytest.raises(EdgewiseError, match="the revision should be the name"):
        load_model("some/model", revision=" ")


def test_a_file_or_a_missing_folder_is_no_model(folder, tmp_path):
    with pytest.raises(EdgewiseError, match=r"is a file, and no \.gguf file"):
        load_model(folder / "config.json")
    with pytest.raises(EdgewiseError, match="no such folder"):
        load_model(tmp_path / "nowhere")


def test_a_pickled_checkpoint_that_runs_code_is_not_run(folder, tmp_path):
    marker = tmp_path / "code-ran"

    class Harmful:
        def __reduce__(self):
            return (shutil.copy, (str(folder / "config.json"), str(marker)))

    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(EdgewiseError, match="cannot be read"):
        load_model(folder)
    assert not marker.exists()
