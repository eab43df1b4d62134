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


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
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


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
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
    config = transformers.GPTNeoXConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "neox")
    with pytest.raises(EdgewiseError, match=r"gpt_neox.*supported: gpt2, llama"):
        load_model(tmp_path / "neox")
    with pytest.raises(EdgewiseError, match="gpt_neox"):
        load_model(transformers.GPTNeoXForCausalLM(config))


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


def test_a_file_or_a_missing_folder_is_no_model(folder, tmp_path):
    with pytest.raises(EdgewiseError, match="is a file"):
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
