"""PEFT adapters are merged into the model that they were trained on: from a folder, or out of a live model's copy."""

import json
import sys

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.models import check, load_model
from edgewise.models.decoder import positions_of
from edgewise.runs import load_run


def adapted(source, **options):
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], **options)
    model = peft.get_peft_model(source, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return model.eval()


def logits(model):
    prompts = tiny.prompts()
    return model(input_ids=prompts.clean, attention_mask=prompts.mask.long()).logits[prompts.mask].detach()


def own_logits(decoder):
    prompts = tiny.prompts()
    return decoder.run_source(prompts.clean, prompts.mask, positions_of(prompts.clean))[prompts.mask].detach()


@pytest.fixture
def folders(tmp_path):
    """A base model's folder, its adapter's, and the logits of both together."""
    source = tiny.llama().source
    source.save_pretrained(tmp_path / "base")
    model = adapted(source)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter", logits(model)


def change(folder, **fields):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | fields))


def test_an_adapters_folder_is_its_model_with_the_adapter_merged(folders, tmp_path):
    base, adapter, wanted = folders
    model, prompts = load_model(adapter), tiny.prompts()
    assert torch.allclose(own_logits(model), wanted, atol=1e-4)
    assert not torch.allclose(own_logits(load_model(base)), wanted, atol=1e-1)
    check(model, prompts.clean, prompts.mask)
    run = ew.discover(model, ew.load_task("induction", model, examples=4), method="edge-attribution", edges=20)
    said = run.record["settings"]["model"]
    assert said["adapter"] == {"base": str(base), "kind": "LORA"}
    run.save(tmp_path / "run")
    assert load_run(tmp_path / "run").model.fingerprint() == model.fingerprint()


def test_a_live_model_is_read_with_its_adapter_and_stays_as_it_is():
    live = adapted(tiny.llama().source)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in live.state_dict().items()}
    wanted, prompts = logits(live), tiny.prompts()
    model = load_model(live)
    check(model, prompts.clean, prompts.mask)
    assert torch.allclose(own_logits(model), wanted, atol=1e-4)
    inside = live.get_base_model().model
    assert model.source.model.norm.weight.data_ptr() == inside.norm.weight.data_ptr()  # shared, not copied
    load_model(live, dtype="float64")
    after = live.state_dict()
    assert list(after) == list(before)
    for name, (place, tensor) in before.items():
        assert after[name].data_ptr() == place, name
        assert torch.equal(after[name], tensor), name
    assert torch.equal(logits(live), wanted)


def test_over_quantised_weights_a_live_adapter_is_read_where_it_is():
    source = tiny.llama().source
    source.is_quantized = True
    live = adapted(source)
    model, prompts = load_model(live), tiny.prompts()
    assert model.source is live.get_base_model()
    check(model, prompts.clean, prompts.mask)


def test_an_adapter_that_is_no_change_of_weights_is_refused():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, token_dim=32, num_layers=3)
    config.num_attention_heads = 4
    with pytest.raises(EdgewiseError, match="PROMPT_TUNING, which is more than a change of the model's weights"):
        load_model(peft.get_peft_model(tiny.llama().source, config))


def test_adapters_that_cannot_be_read_are_refused_in_words(folders, monkeypatch):
    base, adapter, _ = folders
    change(adapter, base_model_name_or_path=None)
    with pytest.raises(EdgewiseError, match="should name the model that it is an adapter of"):
        load_model(adapter)
    change(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(EdgewiseError, match="which is an adapter too"):
        load_model(adapter)
    change(adapter, base_model_name_or_path=str(base / "nowhere"))
    with pytest.raises(EdgewiseError, match=r"is an adapter of '\S+nowhere': .*there is no such folder"):
        load_model(adapter)
    change(adapter, base_model_name_or_path=str(base), megatron_config={"a": 1}, megatron_core="os")
    with pytest.raises(EdgewiseError, match="an adapter for Megatron's layers"):
        load_model(adapter)
    change(adapter, megatron_config=None)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: tensor[:1].contiguous() for name, tensor in weights.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(EdgewiseError, match="cannot be put into its model"):
        load_model(adapter)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EdgewiseError, match=r"needs the package 'peft', .*pip install 'edgewise\[peft\]'"):
        load_model(adapter)
