"""What methods would cost on a model that is not here, held to models that are."""

import re
from pathlib import Path

import allocations
import pytest
import tiny
import torch
import transformers

from edgewise.discovery import acdc
from edgewise.errors import EdgewiseError
from edgewise.models import load_model, shapes
from edgewise.models.shapes import load_shape
from edgewise.patching import Experiment, size
from edgewise.patching.memory import memory_of
from edgewise.patching.work import Counted, work_of
from edgewise.runs.shape_plan import Machine, plan_shape

SMALL = dict(n_layer=4, n_head=4, n_embd=32, vocab_size=100, n_positions=32, bos_token_id=0, eos_token_id=0)


def small():
    return shapes._built({"model_type": "gpt2", **SMALL}, "small", torch.float32)


def real():
    torch.manual_seed(0)
    return load_model(transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL)))


def test_memory_is_that_of_the_model_itself():
    planned = plan_shape(small(), prompts=5, tokens=9, kept=20)
    model = real()
    task = tiny.task(rows=5, longest=9, ragged=False)
    plan = memory_of(model, task, model.graph(), max_memory=1)
    on_device = ("block", "chunk", "limit")  # a CPU's caches are smaller
    differs = {name for name, value in vars(plan).items() if vars(planned.memory)[name] != value}
    assert differs <= set(on_device)
    assert planned.memory.smallest_for("gradients") == plan.smallest_for("gradients")
    assert planned.weights == sum(one.nbytes for one in model.source.parameters())
    assert planned.parameters == sum(one.numel() for one in model.source.parameters())


def test_the_memory_of_a_shape_is_enough_for_the_model():
    model, task = allocations.SHAPES["wide"]()
    planned = plan_shape(model, prompts=len(task), tokens=task.prompts.clean.shape[1], kept=5)
    assert planned.needed == memory_of(model, task, model.graph(), max_memory=1).smallest


def test_a_search_takes_about_what_is_counted_of_a_real_one():
    model = load_model(real().source.double())  # in float32 a CPU's products go where torch's counter does not see them
    experiment = Experiment(model, tiny.task(rows=4, longest=8, ragged=False))
    found = acdc(experiment, 0.2 * abs(experiment.full() - experiment.ablated()))
    assert 0 < found.circuit.n_edges < experiment.graph.n_edges
    with Counted() as counter:
        acdc(Experiment(model, experiment.task), found.threshold)
        experiment.logits(found.circuit)
    told = plan_shape(small(), prompts=4, tokens=8, kept=found.circuit.n_edges).costs["search"]
    assert told.tests is not None
    assert 1 / 3 < told.tests / found.tests < 3
    assert 1 / 3 < told.flops / counter.flops < 3


def test_recording_is_counted_right():
    model = load_model(real().source.double())
    task = tiny.task(rows=4, longest=8, ragged=False)
    with Counted() as counter:
        Experiment(model, task).clean()
    assert work_of(model, model.graph(), 4, 8).recording == pytest.approx(counter.flops, rel=0.02)


def test_exact_patching_tests_every_edge_and_a_search_that_keeps_everything_too():
    planned = plan_shape(small(), prompts=2, tokens=5, kept=small().graph().n_edges)
    edges = planned.graph.n_edges
    assert planned.costs["exact patching"].tests == edges
    assert planned.costs["search"].tests == edges
    assert planned.kept == edges


def test_a_shortlist_bounds_the_tests_and_its_scores_are_added():
    planned = plan_shape(small(), prompts=2, tokens=5, kept=20, within=60)
    assert planned.within is not None
    assert planned.kept < planned.within < planned.graph.n_edges
    costs = planned.costs
    assert costs["search"].tests <= planned.within
    assert costs["search and its scores"].flops == costs["search"].flops + costs["attribution"].flops
    assert "search and its scores" not in plan_shape(small(), prompts=2, tokens=5, kept=20).costs


def test_the_same_question_has_the_same_answer():
    one, other = (plan_shape(small(), kept=20, seed=3) for _ in range(2))
    assert one == other


def test_time_is_the_longer_of_operations_and_bytes():
    slow, narrow = Machine(flops=1e6, bandwidth=1e30), Machine(flops=1e30, bandwidth=1e6)
    for machine, of in ((slow, "flops"), (narrow, "bytes")):
        for cost in plan_shape(small(), kept=20, machine=machine).costs.values():
            assert cost.seconds == pytest.approx(getattr(cost, of) / 1e6)


@pytest.mark.slow
def test_devices_are_as_few_as_will_do_and_hold_it():
    shape = load_shape("llama-3.1-8b", "bfloat16")
    counts = []
    for memory in (80 * 10**9, 10 * 10**9, 5 * 10**9):
        planned = plan_shape(shape, prompts=2, tokens=8, kept=20, machine=Machine(memory=memory))
        assert planned.fits
        count = planned.machine.devices
        assert count * memory > planned.weights
        counts.append(count)
        if memory == 10 * 10**9:
            fewer = Machine(memory=memory, devices=count - 1)
            assert not plan_shape(shape, prompts=2, tokens=8, kept=20, machine=fewer).fits
    assert counts == sorted(counts)
    assert counts[0] == 1 < counts[1] < counts[2]
    assert not plan_shape(shape, prompts=2, tokens=8, kept=20, machine=Machine(memory=10**9)).fits


def test_between_devices_a_stream_crosses_each_boundary():
    shape = small()
    one, two, four = (plan_shape(shape, prompts=3, tokens=5, kept=20, machine=Machine(devices=n)) for n in (1, 2, 4))
    assert all(cost.moved == 0 for cost in one.costs.values())
    stream = 3 * 5 * 32 * 4
    assert two.costs["forward pass"].moved == stream
    assert four.costs["forward pass"].moved == 3 * stream
    # Every node before a boundary is read behind it: the embedding and two layers of four heads and an MLP.
    assert two.costs["circuit run"].moved == (1 + 2 * 5) * stream
    assert any("never measured on several GPUs" in said for said in two.assumptions)
    assert not any("several GPUs" in said for said in one.assumptions)


def test_prompts_take_no_memory_here_however_many_and_long():
    planned = plan_shape(load_shape("smollm2-135m"), prompts=10**6, tokens=10**6, kept=20)
    assert planned.memory.stream == 10**12 * 576 * 4
    assert not planned.fits


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(prompts=0), "--examples should be a whole number from 1"),
        (dict(tokens=-1), "--tokens should be"),
        (dict(tokens=33), "has 32 positions, and --tokens is 33"),
        (dict(kept=0), "--kept should be"),
        (dict(kept=10**6), "--kept should be a whole number from 1 to"),
        (dict(kept=50, within=40), "--within should be a whole number from 50"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(asked, said):
    with pytest.raises(EdgewiseError, match=said):
        plan_shape(small(), **asked)


@pytest.mark.parametrize("wrong", [dict(flops=0), dict(flops=float("nan")), dict(bandwidth=-1.0), dict(devices=0)])
def test_a_machine_that_is_none_is_refused(wrong):
    with pytest.raises(EdgewiseError, match="should be a"):
        Machine(**wrong)


def test_a_mixture_of_experts_is_refused_in_a_sentence():
    mixture = dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    shape = shapes._built({"model_type": "mixtral", "intermediate_size": 16, **mixture}, "mixed", torch.bfloat16)
    with pytest.raises(EdgewiseError, match="model 'mixed' is a mixture of experts"):
        plan_shape(shape, kept=5)


ROW = re.compile(r"^\| ([a-z0-9.-]+) \| ([\d,]+) \| .*$", re.MULTILINE)
SCALE = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text()
LARGE = dict.fromkeys(("gemma-2-9b", "llama-3.1-8b", "llama-3.1-70b"), pytest.mark.slow)
ROWS = [pytest.param(*found.group(1, 0), marks=LARGE.get(found[1], ())) for found in ROW.finditer(SCALE)]


def test_the_page_has_its_table():
    assert len(ROWS) == 6


@pytest.mark.parametrize(("shape", "row"), ROWS)
def test_the_table_of_the_page_is_what_is_printed(shape, row):
    planned = plan_shape(load_shape(shape, "bfloat16"), within=5000)
    costs = planned.costs
    cells = [shape, f"{planned.graph.n_edges:,}", size(planned.weights), size(planned.needed), planned.machine.devices]
    for name in ("forward pass", "attribution", "search", "exact patching"):
        cells.append(f"{costs[name].flops:.1e}")
    assert row == f"| {' | '.join(map(str, cells))} | {costs['search and its scores'].seconds:.2g} s |"
