"""What absent edges carry under every ablation, against the source model's own modules and against what is written."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from typing import get_args

import oracle
import pytest
import tiny
import torch
from family_models import InFloat64, family

import edgewise as ew
from edgewise.discovery import acdc, edge_attribution
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models.forward import forward
from edgewise.patching import ABLATIONS, Ablation, Experiment
from edgewise.patching.constants import mean_constants, moments
from edgewise.patching.noise import noised_embedding, noised_places
from edgewise.patching.optimal import learn_constants, without_nodes
from edgewise.runs.search_request import AblationName
from edgewise.tasks import METRICS, Prompts, Texts, read_texts
from edgewise.tasks.task import last_token_prompts, pad

KINDS = ("mean-clean", "mean-over", "noise", "optimal")
FAMILIES = ("gpt2", "llama", "gemma2", "olmo2")  # the heads of the last two are coupled


def texts(model) -> Texts:
    tokens, mask = pad([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7], [1, 8, 2, 8]], 8)
    return Texts(tokens, mask, {"file": "texts.jsonl", "sha256": ""})


def asked(kind: str, model) -> Ablation:
    return Ablation("mean", over=texts(model)) if kind == "mean-over" else Ablation(kind, seed=5)


EACH_KIND = list(zip(FAMILIES, ("optimal", "noise", "mean-clean", "mean-over"), strict=True))


@pytest.fixture(params=FAMILIES)
def model(request):
    with InFloat64():
        yield family(request.param, torch.float64)


@pytest.mark.parametrize(
    ("model", "kind"),
    tiny.slow_unless(
        lambda name, kind: name in ("gpt2", "gemma2") or (name, kind) in EACH_KIND, product(FAMILIES, KINDS)
    ),
    indirect=["model"],
)
def test_circuits_run_as_the_source_models_own_modules_say(model, kind):
    for number, paired in enumerate((True, False)):
        task = tiny.task(number, longest=5, paired=paired)
        experiment = Experiment(model, task, ablation=asked(kind, model), ports=paired)
        some = oracle.random_circuit(experiment.graph, number, 0.5)
        for circuit in (some, Circuit.full(experiment.graph), Circuit.empty(experiment.graph)):
            wanted = oracle.oracle_logits(experiment, circuit)
            most = max(1.0, float(wanted.detach().abs().max()))
            assert torch.allclose(experiment.logits(circuit), wanted, atol=1e-9 * most)
        assert abs(experiment.full()) < 1e-9
        assert experiment.ablated() == pytest.approx(experiment.value(Circuit.empty(experiment.graph)), abs=1e-9)
        assert experiment.ablated() > 1e-3


@pytest.mark.parametrize(
    ("model", "kind"),
    tiny.slow_unless(lambda *case: case in EACH_KIND, product(FAMILIES, KINDS)),
    indirect=["model"],
)
def test_both_engines_decide_alike(model, kind):
    number = KINDS.index(kind)
    task = tiny.task(number, rows=2, longest=4, paired=number % 2 == 0)
    experiment = Experiment(model, task, ablation=asked(kind, model))
    threshold = 0.02 * experiment.ablated()
    fast, slow = (acdc(experiment, threshold, engine=engine) for engine in ("incremental", "plain"))
    for ours, theirs in zip(fast.trace, slow.trace, strict=False):
        assert ours.edge == theirs.edge
        assert ours.after == pytest.approx(theirs.after, abs=1e-8, rel=1e-8)
        if ours.kept != theirs.kept:
            assert abs(theirs.effect - threshold) < 1e-6 * threshold
            break
    else:
        assert fast.circuit == slow.circuit
    assert 0 < slow.circuit.n_edges < experiment.graph.n_edges


@pytest.mark.parametrize("kind", KINDS)
def test_attribution_is_the_gradient_of_a_soft_mask(kind):
    model = tiny.gpt2(dtype=torch.float64, layers=2)
    experiment = Experiment(model, tiny.task(2, metric="logit_diff"), ablation=asked(kind, model))
    scored = edge_attribution(experiment).circuit
    edges, ports = oracle.mask_gradients(experiment)
    exists = experiment.graph.edges
    assert scored.scores[exists] == pytest.approx(edges[exists], abs=1e-9)
    assert scored.port_scores[experiment.graph.port_edges] == pytest.approx(
        ports[experiment.graph.port_edges], abs=1e-9
    )


# --- means ------------------------------------------------------------------------------------------------------------


def test_means_do_not_depend_on_padding_or_on_how_many_prompts_run_at_once():
    model, prompts = tiny.llama(dtype=torch.float64), tiny.prompts(rows=5)
    whole = mean_constants(model, prompts.clean, prompts.mask)
    wide, mask = (torch.nn.functional.pad(one, (0, 3)) for one in (prompts.clean, prompts.mask))
    for other in (
        mean_constants(model, prompts.clean, prompts.mask, rows=2),
        mean_constants(model, wide, mask),
        mean_constants(model, wide, mask, rows=1),
    ):
        torch.testing.assert_close(other.tensors(), whole.tensors())
    run = forward(model, prompts.clean, prompts.mask)
    _, deviations = moments(model, prompts.clean, prompts.mask, rows=2)
    for one, deviation in zip(run.codes, deviations[1:], strict=True):
        spread = one[prompts.mask].var(dim=0, correction=0).mean(dim=-1).sqrt()
        torch.testing.assert_close(deviation[:, 0], spread)


def test_the_constants_of_an_experiment_ablate_other_prompts_and_no_other_model():
    model = tiny.gpt2(dtype=torch.float64)
    first = Experiment(model, tiny.task(0), ablation=asked("mean-over", model))
    other = Experiment(model, tiny.task(1, rows=5), ablation=first.carried)
    for ours, theirs in zip(first.ablated_activations.codes, other.ablated_activations.codes, strict=True):
        assert torch.equal(ours[0, 0], theirs[4, 0])
    with pytest.raises(EdgewiseError, match="were made for another model"):
        Experiment(tiny.gpt2(layers=2), tiny.task(), ablation=first.carried)
    with pytest.raises(EdgewiseError, match="for ablation 'mean', not 'zero'"):
        Experiment(model, tiny.task(), ablation=Ablation("zero", over=texts(model)))


def test_texts_are_read_with_all_that_is_wrong_with_them_at_once(tmp_path):
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model, examples=3)
    one, other = (task.text[row].clean for row in (0, 1))
    path = tmp_path / "texts.jsonl"
    rows = [{"text": one}, {"clean": other, "corrupt": one, "answer": None, "wrong": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_texts(model, path)
    assert found.tokens[0, : int(found.mask[0].sum())].tolist() == task.prompts.clean[0].tolist()
    assert (len(found), found.settings["tokens"]) == (3, int(found.mask.sum()))
    assert read_texts(model, found.settings).settings == found.settings
    path.write_text(path.read_text() + '\n{"text": 3}\nnothing\n{"text": "Xylophones"}\n{"clean": "a"}\n[1]\n')
    with pytest.raises(EdgewiseError) as refused:
        read_texts(model, path)
    for part in ("5 of the 7 lines", "line 4: 'text' should be text, not 3", "line 5", "line 6: the tokenizer has no"):
        assert part in str(refused.value)
    for part in ("line 7: the field 'corrupt' is missing", "line 8: should be an object with 'text'"):
        assert part in str(refused.value)
    with pytest.raises(EdgewiseError, match="have changed since the run was made"):
        read_texts(model, found.settings)
    path.write_text("\n")
    with pytest.raises(EdgewiseError, match="is empty"):
        read_texts(model, path)


# --- noise ------------------------------------------------------------------------------------------------------------


def placed(clean, corrupt) -> Prompts:
    return last_token_prompts(clean, corrupt)


def test_noise_is_where_the_corrupted_prompt_differs_and_never_on_padding():
    prompts = placed([[1, 2, 3, 4], [5, 6], [7, 8, 9]], [[1, 9, 3, 3], [5, 6], [6, 8, 9]])
    differs = [[False, True, False, True], [False] * 4, [True, False, False, False]]
    assert noised_places(prompts).tolist() == differs
    for everywhere in (
        placed([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]]),  # nothing differs
        placed([[1, 2, 3], [4, 5]], [[1, 2], [4, 9, 9]]),  # nothing says what stands for what
    ):
        assert torch.equal(noised_places(everywhere), everywhere.mask)
    aligned = dataclasses.replace(placed([[1, 2, 3]], [[1, 4, 4, 3]]), alignment=torch.tensor([[0, 2, 3, 3]]))
    assert noised_places(aligned).tolist() == [[False, True, False, False]]


def test_noise_is_of_three_deviations_by_seed_and_not_changed_by_padding_or_later_rows():
    model = tiny.gpt2(dtype=torch.float64)
    clean, corrupt = [[1, 2, 3, 4], [5, 6]], [[1, 9, 3, 3], [7, 6]]
    prompts = placed(clean, corrupt)
    one = noised_embedding(model, prompts, 0, True)
    assert torch.equal(one, noised_embedding(model, prompts, 0, True))
    added = one - model.embed(prompts.clean, split=True)
    assert torch.equal((added[0] != 0).any(dim=-1), noised_places(prompts))
    assert not added[1].any(), "positions have none"
    assert not torch.equal(one, noised_embedding(model, prompts, 1, True))
    wider = dataclasses.replace(
        prompts,
        **{
            name: torch.nn.functional.pad(getattr(prompts, name), (0, 2))
            for name in ("clean", "corrupt", "mask", "corrupt_mask")
        },
    )
    assert torch.equal(noised_embedding(model, wider, 0, True)[:, :, :4], one)
    many = tiny.prompts(rows=60, longest=12)
    tokens = model.embed_parts(many.clean, torch.arange(12)[None])[0][noised_places(many)]
    drawn = (noised_embedding(model, many, 0, False) - model.embed(many.clean))[0][noised_places(many)]
    assert float((drawn.std() / tokens.std()).detach()) == pytest.approx(3.0, rel=0.03)
    more = placed([*clean, [3, 3, 3]], [*corrupt, [4, 4, 4]])
    drawn = noised_embedding(model, more, 0, False) - model.embed(more.clean)
    ratio = drawn[0, 0, 1] / (noised_embedding(model, prompts, 0, False) - model.embed(prompts.clean))[0, 0, 1]
    assert float(ratio.std().detach()) < 1e-9, "the same draws, in other units"


def test_noise_needs_embeddings_that_vary():
    model = tiny.gpt2()
    flat = dataclasses.replace(model, embed_parts=lambda tokens, at: (torch.zeros(*tokens.shape, 32),))
    with pytest.raises(EdgewiseError, match="do not vary"):
        noised_embedding(flat, tiny.prompts(), 0, False)


# --- learned constants ------------------------------------------------------------------------------------------------


def test_a_pass_without_nodes_is_the_circuit_without_their_edges(model):
    """Also where heads are coupled: a node that is ablated still has its share in the norm of their sum."""
    task = tiny.task(3, rows=2, longest=5)
    experiment = Experiment(model, task, ablation="optimal")
    graph, prompts, constants = experiment.graph, task.prompts, experiment.carried.constants
    present = torch.rand(2, len(graph.sources), generator=torch.Generator().manual_seed(0)) < 0.5
    final = without_nodes(model, graph, prompts, constants, present)
    logits = model.logits(final[prompts.scored_rows, prompts.scored_positions])
    for row in range(2):
        circuit = Circuit(graph, graph.edges & present[row].numpy()[:, None], graph.port_edges.copy())
        torch.testing.assert_close(logits[row], experiment.logits(circuit)[row], atol=1e-9, rtol=1e-9)


def test_what_is_learned_depends_on_the_seed_alone_and_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("edgewise.patching.optimal.ROWS", 3)
    model, task = tiny.llama(dtype=torch.float64, layers=2), tiny.task(rows=5)
    one, again, other = (
        Experiment(model, task, ablation=Ablation("optimal", seed)).carried.constants.tensors() for seed in (0, 0, 1)
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one, again, strict=True))
    assert not all(torch.equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))
    assert not any(tensor.requires_grad for tensor in one)
    assert all(weight.grad is None for weight in model.source.parameters())
    pieces = learn_constants(Experiment(model, task, ablation="zero"), 0, rows_at_once=2)
    torch.testing.assert_close(pieces.tensors(), one)


@pytest.mark.parametrize("metric", ["kl_div", "l2", "logit_diff"])
def test_learning_lowers_the_loss_of_circuits_drawn_at_random(metric, monkeypatch):
    """KL, or `l2` where that is the metric, over random sets of ablated nodes, from the means that it starts from."""
    monkeypatch.setattr("edgewise.patching.optimal.STEPS", 60)
    model, task = tiny.gpt2(layers=2, heads=2), tiny.task(rows=6, metric=metric)
    learned = Experiment(model, task, ablation="optimal")
    means = mean_constants(model, task.prompts.clean, task.prompts.mask)
    loss = METRICS["l2" if metric == "l2" else "kl_div"]
    generator, losses = torch.Generator().manual_seed(99), {"learned": 0.0, "means": 0.0}
    for _ in range(40):
        share = torch.rand(6, 1, generator=generator)
        present = torch.rand(6, len(learned.graph.sources), generator=generator) < share
        for name, constants in (("learned", learned.carried.constants), ("means", means)):
            final = without_nodes(model, learned.graph, task.prompts, constants, present)
            logits = model.logits(final[task.prompts.scored_rows, task.prompts.scored_positions])
            losses[name] += float(loss(logits, learned.reference).mean().detach())
    assert losses["learned"] < 0.8 * losses["means"]


def test_a_loss_that_is_no_number_is_said():
    model = tiny.gpt2()
    with torch.no_grad():
        model.source.transformer.wte.weight[:] = float("nan")
    with pytest.raises(EdgewiseError, match="at step 1 the loss of its constants is nan"):
        Experiment(model, tiny.task(), ablation="optimal")


def test_every_ablation_is_described():
    assert set(ABLATIONS) == set(get_args(AblationName))
