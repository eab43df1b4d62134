"""Models inside other libraries' objects are found, and read as those objects compute them."""

import pytest
import tiny
import torch

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models import check, load_model
from edgewise.models.decoder import positions_of
from edgewise.patching import Experiment


def tokenizer_folder(folder):
    import tokenizers
    import transformers

    words = {f"t{number}": number for number in range(tiny.VOCABULARY)}
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0")),
        unk_token="t0",
        bos_token="t0",
        eos_token="t0",
        pad_token="t1",
    )
    made.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def bridge(family, folder):
    """A live TransformerLens bridge over a tiny random model, and that model's own logits on the prompts."""
    module = pytest.importorskip("transformer_lens.model_bridge")
    tokenizer = tokenizer_folder(folder)
    source = tiny.FAMILIES[family]().source
    prompts = tiny.prompts()
    before = source(input_ids=prompts.clean, attention_mask=prompts.mask.long()).logits.detach()
    source.save_pretrained(folder)
    made = module.TransformerBridge.boot_transformers(str(folder), hf_model=source, tokenizer=tokenizer, device="cpu")
    return made, before


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_live_bridge_is_read_before_and_after_compatibility_mode(family, tmp_path):
    made, before = bridge(family, tmp_path)
    prompts = tiny.prompts()
    at = positions_of(prompts.clean)

    model = load_model(made)
    assert check(model, prompts.clean, prompts.mask) < 1e-4
    assert torch.allclose(
        model.run_source(prompts.clean, prompts.mask, at)[prompts.mask], before[prompts.mask], atol=1e-4
    )
    plain = model.fingerprint()

    made.enable_compatibility_mode()  # weights are folded and centred inside the bridge
    folded = load_model(made)
    assert check(folded, prompts.clean, prompts.mask) < 1e-4
    found = folded.run_source(prompts.clean, prompts.mask, at).log_softmax(dim=-1)
    assert torch.allclose(found[prompts.mask], before.log_softmax(dim=-1)[prompts.mask], atol=1e-4)
    assert folded.fingerprint() != plain
    experiment = Experiment(folded, tiny.task())
    assert abs(experiment.value(Circuit.full(experiment.graph))) < 1e-4

    # What a hook of the bridge changes is seen: here, head 1 of layer 1 is removed.
    def remove(z, hook):
        z = z.clone()
        z.view(*z.shape[:2], model.config.n_heads, -1)[:, :, 1] = 0
        return z

    made.blocks[1].attn.o.hook_in.add_hook(remove)
    with pytest.raises(EdgewiseError, match=r"does not compute what the model computes"):
        check(folded, prompts.clean, prompts.mask)


def test_a_model_inside_nnsight_is_found():
    nnsight = pytest.importorskip("nnsight")
    source, prompts = tiny.gpt2().source, tiny.prompts()
    tokenizer = type("Tokenizer", (), {"pad_token": "x", "padding_side": "left"})()
    wrapped = nnsight.LanguageModel(source, tokenizer=tokenizer)
    model = load_model(wrapped)
    assert model.source is source
    assert check(model, prompts.clean, prompts.mask) < 1e-4


def test_a_model_inside_nnterp_is_found_and_loaded(tmp_path):
    nnterp = pytest.importorskip("nnterp", exc_type=ImportError)
    source, prompts = tiny.llama().source, tiny.prompts()
    tokenizer_folder(tmp_path)
    source.save_pretrained(tmp_path)
    model = load_model(nnterp.StandardizedTransformer(str(tmp_path)))
    assert check(model, prompts.clean, prompts.mask) < 1e-4
    assert model.fingerprint() == load_model(tmp_path).fingerprint()


def test_compiled_and_parallel_modules_are_taken_off():
    source = tiny.gpt2().source
    assert load_model(torch.compile(source)).source is source
    assert load_model(torch.nn.DataParallel(source)).source is source


def test_what_is_no_model_or_has_no_weights_is_refused():
    with pytest.raises(EdgewiseError, match="a dict is not a model"):
        load_model({"lm_head": 1})
    with pytest.raises(EdgewiseError, match="are not loaded"):
        load_model(tiny.gpt2().source.to("meta"))
