"""A memory limit is a bound: what torch allocates stays below it, and is not much less than the plan says."""

from itertools import product

import allocations
import pytest
import tiny
import torch

from edgewise.discovery import METHODS, attribution_patching
from edgewise.errors import EdgewiseError
from edgewise.models.neurons import by_neuron
from edgewise.patching import Ablation, Experiment, plan_memory
from edgewise.patching.constants import mean_constants
from edgewise.patching.memory import forward_in_pieces, memory_of
from edgewise.patching.optimal import learn_constants
from edgewise.runs import RunInterrupted, discover
from edgewise.tasks import Texts

WITHIN = 0.75
"""The least share of a plan that has to be allocated indeed."""


def shaped(name):
    model, task = allocations.SHAPES[name]()
    return model, task, memory_of(model, task, model.graph())


@pytest.mark.parametrize("shape", allocations.SHAPES)
def test_the_smallest_setting_to_start_with_is_what_one_candidate_at_a_time_takes(shape):
    model, task, plan = shaped(shape)
    peak = allocations.peak_of(lambda: discover(model, task, threshold=1e6, max_memory=plan.smallest))
    assert WITHIN * plan.smallest <= peak <= plan.smallest


@pytest.mark.parametrize("shape", [pytest.param("wide", marks=pytest.mark.slow), "long-prompts", "one-long-prompt"])
def test_attribution_takes_what_its_smallest_setting_says(shape):
    model, task, plan = shaped(shape)
    smallest = plan.smallest_for("gradients")
    peak = allocations.peak_of(lambda: discover(model, task, method="edge-attribution", edges=9, max_memory=smallest))
    assert WITHIN * smallest <= peak <= smallest


@pytest.mark.parametrize("method", ["attribution-patching", "head-importance", "information-flow", "relp", "exact"])
def test_other_methods_that_score_edges_stay_below_theirs(method):
    model, task, plan = shaped("long-prompts")
    smallest = plan.smallest_for(METHODS[method].memory)
    peak = allocations.peak_of(lambda: discover(model, task, method=method, edges=9, max_memory=int(1.1 * smallest)))
    assert peak <= 1.1 * smallest


@pytest.mark.parametrize(
    ("shape", "method"),
    tiny.slow_unless(
        lambda *case: case != ("wide", "edge-pruning"),
        product(("wide", "long-prompts"), ("subnetwork-probing", "edge-pruning")),
    ),
)
def test_methods_that_learn_masks_stay_below_theirs(shape, method):
    model, task, plan = shaped(shape)
    smallest = plan.smallest_for(METHODS[method].memory)
    options = {"steps": 2}
    peak = allocations.peak_of(
        lambda: discover(model, task, method=method, edges=9, options=options, max_memory=smallest)
    )
    assert peak <= smallest
    assert all(weight.grad is None for weight in model.source.parameters()), "nothing is left behind"


@pytest.mark.parametrize(
    "shape", tiny.slow_unless(lambda shape: shape not in ("one-row", "many-prompts"), zip(allocations.SHAPES))
)
def test_learning_constants_takes_what_its_smallest_setting_says(shape):
    model, task, _ = shaped(shape)
    plan = memory_of(model, task, model.graph(), learns=True)
    smallest = plan.smallest_for("runs")
    search = dict(threshold=1e6, engine="plain", ablation="optimal", max_memory=smallest)
    with pytest.raises(EdgewiseError, match="smallest setting"):
        plan_memory(model, task, model.graph(), smallest - 1, "runs", Ablation("optimal"))
    experiment = Experiment(model, task, ablation="zero")
    learning = allocations.peak_of(lambda: learn_constants(experiment, 0, rows_at_once=1, steps=1))
    assert learning <= plan.learned_row
    if shape in ("wide", "long-prompts", "one-long-prompt"):  # in the others an MLP without gates keeps less
        assert WITHIN * plan.learned_row <= learning
    if shape in ("long-prompts", "one-row"):
        assert allocations.peak_of(lambda: discover(model, task, **search)) <= smallest


@pytest.mark.parametrize("shape", allocations.SHAPES)
def test_a_mean_over_texts_takes_what_its_smallest_setting_says(shape):
    model, task, _ = shaped(shape)
    longest = 2 * task.prompts.clean.shape[1] if shape in ("one-long-prompt", "long-prompts") else 20
    longest = min(longest, model.config.n_context or longest)
    tokens = torch.ones(5, longest, dtype=torch.long)
    texts = Texts(tokens, tokens == 1, {})
    plan = memory_of(model, task, model.graph(), over=texts)
    peak = allocations.peak_of(lambda: mean_constants(model, texts.tokens, texts.mask, rows=1))
    assert peak <= plan.text_row
    if shape in ("wide", "many-prompts", "long-prompts", "one-long-prompt"):  # in others a few kB of sums are much
        assert WITHIN * plan.text_row <= peak
    needed = plan.smallest_for("runs")
    assert needed >= plan.text_row
    over = Ablation("mean", over=texts)
    assert plan_memory(model, task, model.graph(), needed, "runs", over).text_row == plan.text_row
    peak = allocations.peak_of(lambda: Experiment(model, task, ablation=over, max_memory=needed))
    assert peak <= needed


@pytest.mark.parametrize(
    ("shape", "method"),
    [
        pytest.param(shape, method, marks=pytest.mark.slow if shape == "wide" and method != "edge-attribution" else [])
        for shape, method in [
            *(("wide", one) for one in ("acdc", "exact", "edge-attribution", "edge-pruning")),
            *(("long-prompts", one) for one in ("exact", "edge-pruning")),
            ("one-long-prompt", "acdc"),
        ]
    ],
)
def test_methods_by_nodes_stay_below_theirs(shape, method):
    model, task, _ = shaped(shape)
    plan = memory_of(model, task, model.graph(ports=False))
    smallest = plan.smallest_for(METHODS[method].memory_for("node"))
    choice = dict(threshold=0.0) if method == "acdc" else dict(edges=9)
    options = {"steps": 2} if method == "edge-pruning" else {}
    search = dict(level="node", method=method, options=options, max_memory=smallest, **choice)
    assert allocations.peak_of(lambda: discover(model, task, **search)) <= smallest
    with pytest.raises(EdgewiseError, match=r"smallest setting .* is --max-memory"):
        discover(model, task, **{**search, "max_memory": smallest - 1})


@pytest.mark.parametrize(("shape", "method"), [("wide", "exact"), ("one-long-prompt", "relp")])
def test_methods_by_neurons_stay_below_theirs(shape, method):
    model, task, _ = shaped(shape)
    model = by_neuron(model)
    plan = memory_of(model, task, model.graph(ports=False))
    smallest = max(plan.smallest_for(kind) for kind in ("gradients", METHODS[method].memory_for("neuron")))
    within = 12 if method == "exact" else None
    search = dict(level="neuron", method=method, neurons=9, within=within, max_memory=smallest)
    peak = allocations.peak_of(lambda: discover(model, task, **search))
    assert WITHIN * smallest <= peak <= smallest
    with pytest.raises(EdgewiseError, match=r"smallest setting .* is --max-memory"):
        discover(model, task, **{**search, "max_memory": smallest - 1})


@pytest.mark.parametrize("share", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_a_search_stays_below_its_limit_or_ends_there_and_with_the_largest_it_always_ends(share):
    model, task, plan = shaped("long-prompts")
    limit = int(plan.smallest + share * (plan.largest - plan.smallest))
    ended = []

    def search():
        try:
            ended.append(discover(model, task, threshold=0.0, max_memory=limit).circuit.n_edges)
        except RunInterrupted:
            return

    assert allocations.peak_of(search) <= limit
    assert ended or share < 1


@pytest.mark.parametrize("method", METHODS)
def test_a_limit_that_is_too_small_is_refused_with_the_smallest_that_does_before_anything_is_run(method, monkeypatch):
    model, task, plan = shaped("one-long-prompt")
    smallest = plan.smallest_for(METHODS[method].memory)
    monkeypatch.setattr("edgewise.runs.search.Experiment", lambda *_, **__: pytest.fail("it was not refused"))
    choice = dict(threshold=0.1) if method == "acdc" else dict(edges=9)
    with pytest.raises(EdgewiseError, match=r"smallest setting .* is --max-memory"):
        discover(model, task, method=method, max_memory=smallest - 1, **choice)
    assert plan_memory(model, task, model.graph(), smallest, METHODS[method].memory).limit == smallest


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean", "mean-clean", "noise"])
def test_recording_in_pieces_of_rows_records_the_same(ablation):
    model, task = tiny.llama(layers=2), tiny.task(rows=5)
    whole, pieces = (Experiment(model, task, ablation=ablation, max_memory=limit) for limit in (None, 1))
    assert (whole.recorded_at_once, pieces.recorded_at_once) == (5, 1)
    torch.testing.assert_close(pieces.reference.logits, whole.reference.logits)
    for name, tensors in vars(whole.ablated_activations).items():
        torch.testing.assert_close(getattr(pieces.ablated_activations, name), tensors)
    torch.testing.assert_close(vars(pieces.clean()), vars(whole.clean()))
    two = forward_in_pieces(model, task.prompts.clean, task.prompts.mask, rows=2)
    torch.testing.assert_close(two.streams, whole.clean().streams)


def test_nobodys_experiment_is_changed_by_a_limit():
    model, task = tiny.gpt2(layers=1), tiny.task()
    experiment = Experiment(model, task)
    before = vars(experiment).copy()
    narrow = experiment.within(1)
    assert narrow.rows_at_once() == 1 < experiment.rows_at_once()
    assert narrow.ablated_activations is experiment.ablated_activations
    attribution_patching(narrow)
    assert vars(experiment) == before
