"""A model of an unknown family is read like a known one only where it computes the same."""

import pytest
import tiny
import torch
import transformers
from family_models import _LLAMA

from edgewise.discovery import acdc
from edgewise.errors import EdgewiseError
from edgewise.models import load_model
from edgewise.patching import Experiment


def unknown(stem: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{stem}Config")(**_LLAMA, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return tiny._loud(getattr(transformers, f"{stem}ForCausalLM")(config).eval())


def test_a_llama_under_another_name_is_read_when_asked_for(tmp_path):
    source = unknown("Arcee")  # Llama's attention, with an MLP of its own
    with pytest.raises(EdgewiseError, match=r"arcee.*--trust-layout"):
        load_model(source)
    model = load_model(source, trust_layout=True)
    assert model.origin == {"read_as": "llama"}
    assert model.config.architecture == "arcee"
    found = acdc(Experiment(model, tiny.task(rows=2, longest=4)), 0.02)
    assert 0 < found.circuit.n_edges < found.circuit.graph.n_edges
    source.save_pretrained(tmp_path)
    assert load_model(tmp_path, trust_layout=True).origin == {"read_as": "llama"}


def test_a_post_norm_model_under_another_name_has_coupled_heads():
    model = load_model(unknown("FlexOlmo"), trust_layout=True)
    assert model.origin == {"read_as": "olmo2"}
    assert model.graph().coupled


def test_one_that_computes_otherwise_is_refused_with_the_nearest():
    with pytest.raises(EdgewiseError, match=r"glm4.*computes otherwise.*nearest is llama.*head a0\.h0 differs"):
        load_model(unknown("Glm4"), trust_layout=True)
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=20)
    with pytest.raises(EdgewiseError, match="mamba, and its modules lie as in no family"):
        load_model(transformers.MambaForCausalLM(config), trust_layout=True)


def test_a_known_family_is_read_as_it_is():
    assert load_model(tiny.llama().source, trust_layout=True).origin == {}
