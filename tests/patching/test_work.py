"""Operations counted on models without weights, held to what torch's counter sees of the real functions."""

from dataclasses import replace

import pytest
import tiny
import torch
import transformers
from family_models import CONFIGS, family
from torch.utils.flop_counter import FlopCounterMode

from edgewise.discovery.attribution import along, attribute
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models import load_model
from edgewise.models.shapes import load_shape
from edgewise.patching import Experiment
from edgewise.patching.work import Counted, work_of

ROWS, POSITIONS = 3, 6


def plain_task():
    return tiny.task(rows=ROWS, longest=POSITIONS, ragged=False)


FAMILIES = {
    "gpt2": lambda: tiny.gpt2(dtype=torch.float64),
    "llama": lambda: tiny.llama(dtype=torch.float64),
    "one key/value head": lambda: tiny.llama(kv_heads=1, dtype=torch.float64),
    "parallel": lambda: family("gpt_neox"),
}


def counted(work):
    with Counted() as counter:
        work()
    return counter.flops


@pytest.mark.parametrize("name", FAMILIES)
def test_runs_take_what_is_counted_of_the_real_ones(name):
    model = FAMILIES[name]()
    experiment = Experiment(model, plain_task())
    work = work_of(model, experiment.graph, ROWS, POSITIONS)
    full = Circuit.full(experiment.graph)
    assert counted(lambda: experiment.logits(full)) == work.circuit_run
    assert counted(lambda: attribute(experiment, along(experiment, "inputs", 5), None)) == pytest.approx(
        work.attribution(5), rel=0.02
    )
    assert counted(experiment.clean) + work.vocabulary == work.forward


OF_EACH_KIND = ("gpt2", "gptj", "falcon", "mistral", "mixtral", "gemma2", "olmo2", "deepseek_v2", "gpt_oss")


@pytest.mark.parametrize("name", tiny.slow_unless(lambda name: name in OF_EACH_KIND, zip(CONFIGS)))
def test_every_family_is_counted_or_refused_as_a_mixture(name):
    model = family(name, torch.float64)
    experiment = Experiment(model, plain_task())
    if any(getattr(one, "routed", False) for one in model.components):
        with pytest.raises(EdgewiseError, match="mixture of experts"):
            work_of(model, experiment.graph, ROWS, POSITIONS)
        return
    work = work_of(model, experiment.graph, ROWS, POSITIONS)
    assert counted(lambda: experiment.logits(Circuit.full(experiment.graph))) == work.circuit_run
    assert counted(experiment.clean) + work.vocabulary == work.forward


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_forward_pass_takes_what_torchs_own_counter_sees_in_transformers_model(name):
    source = FAMILIES[name]().source
    source.set_attn_implementation("eager")
    tokens = torch.ones(ROWS, POSITIONS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        source(tokens, logits_to_keep=1)
    model = load_model(source)
    assert work_of(model, model.graph(), ROWS, POSITIONS).forward == counter.get_total_flops()


def test_a_forward_pass_of_a_long_known_shape_is_twice_its_weights_for_every_token():
    model = load_shape("llama-3.1-8b")
    work = work_of(model, model.graph(), 2, 10)
    in_layers = 32 * (4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14_336)
    looked_at = 32 * 2 * 32 * 128 * 10  # layers, scores and values, heads, d_head, keys of each query
    assert work.forward - work.vocabulary == 2 * 20 * (in_layers + looked_at)
    assert work.vocabulary == 2 * 2 * 4096 * 128_256


def test_a_candidate_takes_one_head_or_one_mlp():
    model = load_shape("gpt2")
    candidate = work_of(model, model.graph(), 1, 10).candidate
    assert candidate.sender == 2 * 10 * 64 * 768
    assert candidate.head == 2 * 10 * (4 * 64 * 768 + 2 * 64 * 10)
    assert candidate.mlp == 2 * 10 * 8 * 768**2
    assert candidate.vocabulary == 2 * 768 * 50_257


def test_work_grows_with_prompts_and_not_otherwise():
    model = load_shape("smollm2-135m")
    one, many = (work_of(model, model.graph(), rows, 7) for rows in (1, 12))
    assert replace(many, candidate=one.candidate) == replace(
        one, **{name: 12 * value for name, value in vars(one).items() if name != "candidate"}
    )
    assert many.candidate.head == 12 * one.candidate.head


def test_without_numbers_as_much_is_counted_as_with_them():
    config = dict(n_layer=2, n_head=2, n_embd=16, vocab_size=50, n_positions=16, bos_token_id=0, eos_token_id=0)
    real = load_model(transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)))
    from edgewise.models import shapes

    empty = shapes._built({"model_type": "gpt2", **config}, "small", torch.float32)
    assert work_of(empty, empty.graph(), 2, 8) == work_of(real, real.graph(), 2, 8)
