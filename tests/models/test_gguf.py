"""A .gguf file is read as the folder that it was made from, and a run's record says what was undone."""

import json
import sys

import numpy as np
import pytest
import tiny
import torch

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.models import check, load_model
from edgewise.runs import load_run

FIELDS = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "head_count",
    "num_key_value_heads": "head_count_kv",
    "rms_norm_eps": "layer_norm_rms_eps",
    "vocab_size": "vocab_size",
}
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(path, source, kind="F32", *, architecture="llama", tokenizer=None, extra=(), **fields):
    """A Llama as a .gguf file: its weights in F32, F16 or Q8_0, its norms in F32."""
    gguf = pytest.importorskip("gguf")
    config = source.config.to_dict() | fields
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    for field, called in FIELDS.items():
        getattr(writer, f"add_{called}")(config[field])
    if tokenizer is not None:
        _write_tokenizer(writer, json.loads(tokenizer.read_text()))

    def interleaved(weight, heads):
        return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)

    for name, tensor in source.state_dict().items():
        module, weight = name.removesuffix(".weight"), tensor.float()
        if module == "lm_head" and config["tie_word_embeddings"]:
            continue
        if "q_proj" in name:
            weight = interleaved(weight, config["num_attention_heads"])
        if "k_proj" in name:
            weight = interleaved(weight, config["num_key_value_heads"])
        if module in NAMES:
            called = NAMES[module]
        else:
            layer, part = module.removeprefix("model.layers.").split(".", 1)
            called = f"blk.{layer}.{PARTS[part]}"
        values, of = weight.contiguous().numpy(), gguf.GGMLQuantizationType.F32
        if values.ndim == 2 and kind == "F16":
            values, of = values.astype(np.float16), gguf.GGMLQuantizationType.F16
        elif values.ndim == 2 and kind == "Q8_0" and values.shape[1] % 32 == 0:
            of = gguf.GGMLQuantizationType.Q8_0
            values = gguf.quants.quantize(values, of)
        writer.add_tensor(f"{called}.weight", values, raw_dtype=of)
    for called in extra:
        writer.add_tensor(called, np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer, kept):
    """A sentencepiece-like tokenizer, as those of Llamas are."""
    words = sorted(kept["model"]["vocab"], key=kept["model"]["vocab"].get)
    rank = {"".join(pair): place for place, pair in enumerate(kept["model"]["merges"])}
    special = {"<unk>": 2, "<s>": 3, "</s>": 3}
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(rank.get(word, 10**6)) for word in words])
    writer.add_token_types([special.get(word, 6 if word.startswith("<0x") else 1) for word in words])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


@pytest.fixture(scope="module")
def source():
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    return tiny.llama().source


def test_plain_weights_are_those_of_the_model_and_others_are_near(source, tmp_path, capfd):
    plain = load_model(write(tmp_path / "plain.gguf", source))
    assert plain.fingerprint() == load_model(source).fingerprint()
    assert plain.origin["gguf"]["quantisation"] == "F32"
    assert not plain.origin["gguf"]["dequantised"]
    assert plain.tokenizer is None
    quantised = load_model(write(tmp_path / "q8.gguf", source, "Q8_0"), dtype="bfloat16")
    about = quantised.origin["gguf"]
    assert (about["quantisation"], about["dequantised"]) == ("Q8_0", True)
    assert about["tensors"]["Q8_0"] > 10
    assert quantised.dtype == torch.bfloat16
    for name, weight in source.state_dict().items():
        found = quantised.source.state_dict()[name].float()
        assert torch.allclose(found, weight, atol=0.02 * weight.abs().max().item()), name
    prompts = tiny.prompts()
    check(quantised, prompts.clean, prompts.mask)
    assert capfd.readouterr().err == ""


def test_a_run_says_where_its_weights_are_from_and_loads_them_again(source, tmp_path, monkeypatch):
    path = write(tmp_path / "model.gguf", source, "Q8_0")
    monkeypatch.chdir(tmp_path)
    model = load_model("model.gguf")
    task = ew.load_task("induction", model, examples=4)
    run = ew.discover(model, task, threshold=0.5)
    said = run.record["settings"]["model"]
    assert said["gguf"]["file"] == str(path)
    run.save(tmp_path / "run")
    monkeypatch.chdir("/")
    assert load_run(tmp_path / "run").model.fingerprint() == model.fingerprint()


@tiny.needs_shared
@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_a_real_model_keeps_its_circuit(kind, tmp_path, source):
    folder = tiny.SHARED / "models" / "stories260k"
    rows = folder / "gender_pronoun.jsonl"
    model = load_model(folder)
    path = write(tmp_path / "stories.gguf", model.source, kind, tokenizer=folder / "tokenizer.json")
    from_file = load_model(path)

    def circuit(model):
        return ew.discover(model, ew.load_task(rows, model, examples=4), method="edge-attribution", edges=40).circuit

    assert circuit(from_file).names() == circuit(model).names()


def test_without_the_packages_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for package in ("accelerate", "gguf"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EdgewiseError, match=r"needs the package '\w+', .*pip install 'edgewise\[gguf\]'"):
            load_model(tmp_path / "model.gguf")


def test_what_cannot_be_read_is_refused_in_words(source, tmp_path):
    with pytest.raises(EdgewiseError, match="no such file"):
        load_model(tmp_path / "none.gguf")
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"nothing of the kind" * 10)
    with pytest.raises(EdgewiseError, match=r"weights of model .* cannot be read"):
        load_model(path)
    with pytest.raises(
        EdgewiseError, match=r"transformers 5\S* cannot read .*of architecture rwkv7, from GGUF.*folder"
    ):
        load_model(write(tmp_path / "rwkv.gguf", source, architecture="rwkv7"))
    with pytest.raises(EdgewiseError, match="num_hidden_layers is 9, and the checkpoint has 3 layers"):
        load_model(write(tmp_path / "deep.gguf", source, num_hidden_layers=9))
    with pytest.raises(EdgewiseError, match=r"is on this machine: a revision \('main'\)"):
        load_model(write(tmp_path / "here.gguf", source), revision="main")


def test_scaled_rotary_positions_that_transformers_passes_by_are_warned_of(source, tmp_path):
    path = write(tmp_path / "scaled.gguf", source, extra=["rope_freqs.weight"])
    with pytest.warns(ew.EdgewiseWarning, match=r"rotary positions from GGUF \(rope_freqs\.weight\)"):
        assert load_model(path).origin["gguf"]["ignored"] == ["rope_freqs.weight"]
