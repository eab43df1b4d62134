"""A transformers that computes something else tomorrow is caught: five changes, one part each."""

import pytest
import tiny
import torch
from family_models import source
from transformers.models.gemma2 import modeling_gemma2 as gemma2
from transformers.models.mistral import modeling_mistral as mistral

from edgewise.errors import EdgewiseError
from edgewise.models import check, load_model


def refused(model, match):
    prompts = tiny.prompts(rows=4, longest=9)
    with pytest.raises(EdgewiseError, match=match):
        check(model, prompts.clean, prompts.mask)


@pytest.fixture(params=["gemma2", "mistral"])
def intact(request):
    model, prompts = load_model(source(request.param)), tiny.prompts(rows=4, longest=9)
    check(model, prompts.clean, prompts.mask)
    return model


def test_the_models_are_right_as_they_are(intact):
    assert intact.config.architecture in ("gemma2", "mistral")


def test_a_norms_offset(monkeypatch):
    model = load_model(source("gemma2"))

    def forward(self, x):
        return (self._norm(x.float()) * (1.02 + self.weight.float())).type_as(x)

    monkeypatch.setattr(gemma2.Gemma2RMSNorm, "forward", forward)
    refused(model, "layer 0: given the same input, what the heads of layer 0 write together differs")


def changed_attention(monkeypatch, module, **changes):
    plain = module.eager_attention_forward

    def forward(attention, query, key, value, mask, **named):
        return plain(attention, query, key, value, mask, **{**named, **changes})

    monkeypatch.setattr(module, "eager_attention_forward", forward)


def test_the_scale_of_scores(monkeypatch):
    model = load_model(source("mistral"))
    changed_attention(monkeypatch, mistral, scaling=6**-0.5 * 1.02)
    refused(model, r"layer 0: given the same input, head a0\.h\d differs")


def test_the_cap_of_scores(monkeypatch):
    model = load_model(source("gemma2"))
    changed_attention(monkeypatch, gemma2, softcap=1.6)
    refused(model, r"layer 0: given the same input, head a0\.h\d differs")


def test_the_window(monkeypatch):
    model = load_model(source("mistral"))
    plain = mistral.create_sliding_window_causal_mask

    def wider(config, **named):
        config.sliding_window += 1
        try:
            return plain(config=config, **named)
        finally:
            config.sliding_window -= 1

    monkeypatch.setattr(mistral, "create_sliding_window_causal_mask", wider)
    refused(model, r"layer 0: given the same input, head a0\.h\d differs")


def test_the_base_of_rotations(monkeypatch):
    model = load_model(source("mistral"))
    plain = mistral.apply_rotary_pos_emb

    def turned_further(q, k, cosine, sine, **named):
        angle = torch.atan2(sine, cosine) * 1.1
        return plain(q, k, angle.cos(), angle.sin(), **named)

    monkeypatch.setattr(mistral, "apply_rotary_pos_emb", turned_further)
    refused(model, r"layer 0: given the same input, head a0\.h\d differs")
