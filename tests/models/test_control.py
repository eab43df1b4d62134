"""Folding value biases changes nothing but zero ablation; a permuted network has the same weights in other places."""

import dataclasses

import pytest
import tiny
import torch
from tiny import FAMILIES

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models import check, load_model
from edgewise.models.control import fold_norm_biases, fold_value_biases
from edgewise.patching import Experiment

WITH_VALUE_BIASES = ["gpt2", "llama-with-biases", "plain", "shortformer", "parallel"]


def whole(model, task):
    prompts = task.prompts
    return model.run_source(prompts.clean, prompts.mask, torch.arange(prompts.clean.shape[1])[None])[prompts.mask]


def circuits(graph):
    yield Circuit.full(graph)
    yield Circuit.empty(graph)
    names = Circuit.full(graph).names()
    yield Circuit.from_names(graph, [name for number, name in enumerate(names) if number % 3])


@pytest.mark.parametrize("family", WITH_VALUE_BIASES)
def test_folding_value_biases_shows_only_under_zero_ablation(family):
    model, task = FAMILIES[family](dtype=torch.float64), tiny.task()
    folded = fold_value_biases(model)
    check(folded, task.prompts.clean, task.prompts.mask)
    assert folded.config.folded_value_biases
    assert not model.config.folded_value_biases
    for ablation in ("resample", "mean", "zero"):
        one, other = (Experiment(each, task, ablation=ablation) for each in (model, folded))
        for number, circuit in enumerate(circuits(one.graph)):
            difference = (one.logits(circuit) - other.logits(circuit)).abs().max()
            if ablation == "zero" and number > 0:
                assert difference > 1e-3, "the biases stay when the heads go"
            else:
                assert difference < 1e-9


def test_folded_value_biases_stay_when_every_head_is_gone():
    model, task = FAMILIES["plain-attention-only"](dtype=torch.float64), tiny.task()
    folded = fold_value_biases(model)
    written = torch.zeros(model.config.d_model, dtype=torch.float64)
    for layer in tiny.layers_of(model):
        written += layer.bias
        for head in range(model.config.n_heads):
            written += layer.values.bias[head] @ layer.output.weight[head]
    experiment = Experiment(folded, task, ablation="zero", metric="l2")
    left = experiment.logits(Circuit.empty(experiment.graph))
    assert torch.allclose(left, model.logits(written).expand_as(left), atol=1e-9)


def test_loading_with_folded_value_biases_is_recorded():
    assert load_model("or-gate", fold_value_biases=True).config.folded_value_biases
    # The gate's heads write nothing but their value biases, so then there is no circuit to find.
    model, task = load_model("or-gate", fold_value_biases=True), tiny.task
    assert tiny.layers_of(model)[0].values.bias is None
    assert tiny.layers_of(model)[0].bias.tolist() == [2, 0]
    assert task


@pytest.mark.parametrize("family", FAMILIES)
def test_a_permuted_network_shuffles_heads_and_neurons_and_nothing_else(family):
    model = FAMILIES[family](dtype=torch.float64)
    before = {key: value.clone() for key, value in model.source.state_dict().items()}
    permuted = ew.permuted(model, 3)
    assert all(torch.equal(before[key], value) for key, value in model.source.state_dict().items())
    moved = 0
    for layer, other in zip(tiny.layers_of(model), tiny.layers_of(permuted), strict=True):
        for name in ("queries", "keys", "values"):
            mine, theirs = getattr(layer, name), getattr(other, name)
            for tensor, shuffled in ((mine.weight, theirs.weight), (mine.bias, theirs.bias)):
                if tensor is None:
                    continue
                order = [next(i for i, one in enumerate(tensor) if torch.equal(one, row)) for row in shuffled]
                assert sorted(order) == list(range(len(tensor)))
                moved += order != sorted(order)
        for tensor, shuffled in zip(layer.mlp_inputs, other.mlp_inputs, strict=True):
            assert torch.equal(*(torch.sort(one, dim=-1).values.sum(dim=-1) for one in (tensor, shuffled)))
            moved += not torch.equal(tensor, shuffled)
        assert torch.equal(layer.output.weight, other.output.weight)
        assert torch.equal(layer.bias, other.bias)
    assert moved > 2
    assert torch.equal(model.unembedding.weight, permuted.unembedding.weight)
    # It is a model like any other, read as its source computes it.
    prompts = tiny.prompts()
    check(permuted, prompts.clean, prompts.mask)
    assert (whole(model, tiny.task()) - whole(permuted, tiny.task())).abs().max() > 1e-3
    assert permuted.fingerprint() != model.fingerprint()


def test_the_seed_decides_and_the_draws_are_those_of_the_papers_code():
    model = tiny.gpt2(dtype=torch.float64, layers=2)
    assert (
        ew.permuted(model, 5).fingerprint()
        == ew.permuted(model, 5).fingerprint()
        != ew.permuted(model, 6).fingerprint()
    )
    permuted, heads, neurons = ew.permuted(model, 5), model.config.n_heads, model.config.d_mlp
    torch.manual_seed(5)  # what the original does: one global generator, tensor by tensor
    for layer, other in zip(tiny.layers_of(model), tiny.layers_of(permuted), strict=True):
        for part in ("weight", "bias"):
            for name in ("queries", "keys", "values"):
                wanted = getattr(getattr(layer, name), part)[torch.randperm(heads)]
                assert torch.equal(getattr(getattr(other, name), part), wanted)
        for tensor, shuffled in zip(layer.mlp_inputs, other.mlp_inputs, strict=True):
            assert torch.equal(shuffled, tensor[..., torch.randperm(neurons)])


def test_with_folded_value_biases_what_was_folded_stays_in_place():
    model = tiny.gpt2(dtype=torch.float64)
    folded = fold_value_biases(model)
    permuted = ew.permuted(folded, 4)
    assert permuted.config.folded_value_biases
    for layer, other in zip(tiny.layers_of(folded), tiny.layers_of(permuted), strict=True):
        assert other.values.bias is None
        assert torch.allclose(layer.bias, other.bias)
    prompts = tiny.prompts()
    check(permuted, prompts.clean, prompts.mask)


def test_a_permuted_network_is_held_against_the_model_it_was_made_from():
    model, task = tiny.gpt2(dtype=torch.float64), tiny.task()
    permuted = ew.permuted(model, 2)
    assert permuted.original is model
    experiment = Experiment(permuted, task)
    prompts = task.prompts
    own, other = (
        each.run_source(prompts.clean, prompts.mask, torch.arange(prompts.clean.shape[1])[None])[
            prompts.scored_rows, prompts.scored_positions
        ].log_softmax(dim=-1)
        for each in (model, permuted)
    )
    wanted = (own.exp() * (own - other)).sum(dim=-1).mean().item()
    assert wanted > 0.01
    assert experiment.full() == pytest.approx(wanted)
    with pytest.raises(EdgewiseError, match="a permuted one already"):
        ew.permuted(permuted, 1)


@pytest.mark.parametrize("seed", [-1, 10**22, 2**63, True, 1.0])
def test_seeds_of_a_permutation_are_whole_numbers_that_a_generator_takes(seed):
    with pytest.raises(EdgewiseError, match=r"should be a whole number from 0 to 2\^63 - 1, not"):
        ew.permuted(tiny.gpt2(), seed)


# -- biases of norms ---------------------------------------------------------------------------------------------------


def with_norms(model, seed=0):
    """The same model with norms that multiply and add something."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.source.modules():
        if type(module).__name__ in ("LayerNorm", "PlainNorm"):
            for tensor in module.parameters():
                tensor.data.add_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) / 2)
    return model


@pytest.mark.parametrize("family", ["gpt2", "plain", "shortformer", "parallel", "llama"])
def test_folding_the_biases_of_norms_changes_nothing_by_itself(family):
    model, task = with_norms(FAMILIES[family](dtype=torch.float64)), tiny.task()
    folded = fold_norm_biases(model)
    assert folded.config.folded_norm_biases
    assert not model.config.folded_norm_biases
    check(folded, task.prompts.clean, task.prompts.mask)
    assert (whole(model, task) - whole(folded, task)).abs().max() < 1e-9
    one, other = (Experiment(each, task, ablation="zero") for each in (model, folded))
    for circuit in circuits(one.graph):
        assert (one.logits(circuit) - other.logits(circuit)).abs().max() < 1e-9


def by_the_originals_recipe(model, seed):
    """Weights of a tiny GPT-2 folded and centred as TransformerLens does it, and shuffled as the paper's code does."""
    heads, width = model.config.n_heads, model.config.d_head
    state = {key: value.clone() for key, value in model.source.state_dict().items()}
    torch.manual_seed(seed)
    for layer in range(model.config.n_layers):
        at = f"transformer.h.{layer}."

        def folded(norm, name, at=at):
            weight, bias = state[f"{at}{name}.weight"], state[f"{at}{name}.bias"]
            bias = bias + state[f"{at}{norm}.bias"] @ weight
            weight = state[f"{at}{norm}.weight"][:, None] * weight
            return weight - weight.mean(dim=0), bias

        weight, bias = folded("ln_1", "attn.c_attn")
        weights = [one.unflatten(1, (heads, width)) for one in weight.chunk(3, dim=1)]
        biases = [one.unflatten(0, (heads, width)) for one in bias.chunk(3)]
        state[f"{at}attn.c_proj.bias"] += biases[2].flatten() @ state[f"{at}attn.c_proj.weight"]
        biases[2] = torch.zeros_like(biases[2])
        weights = [one[:, torch.randperm(heads)] for one in weights]
        biases = [one[torch.randperm(heads)] for one in biases]
        state[f"{at}attn.c_attn.weight"] = torch.cat([one.flatten(1) for one in weights], dim=1)
        state[f"{at}attn.c_attn.bias"] = torch.cat([one.flatten() for one in biases])
        weight, bias = folded("ln_2", "mlp.c_fc")
        state[f"{at}mlp.c_fc.weight"] = weight[:, torch.randperm(weight.shape[1])]
        state[f"{at}mlp.c_fc.bias"] = bias[torch.randperm(len(bias))]
        for norm in ("ln_1", "ln_2"):
            state[f"{at}{norm}.weight"].fill_(1)
            state[f"{at}{norm}.bias"].zero_()
    return state


def test_with_biases_folded_a_permuted_network_is_the_one_that_the_papers_code_makes():
    model, task = with_norms(tiny.gpt2(dtype=torch.float64)), tiny.task()
    permuted = ew.permuted(fold_value_biases(fold_norm_biases(model)), 7)
    assert permuted.config.folded_norm_biases
    ours = whole(permuted, task)
    unfolded = whole(ew.permuted(model, 7), task)
    model.source.load_state_dict(by_the_originals_recipe(model, 7))
    wanted = whole(model, task)
    assert (ours - wanted).abs().max() < 1e-9
    assert (unfolded - wanted).abs().max() > 1e-3, "without folding it is another network"


def test_biases_of_norms_are_folded_first_and_only_where_they_can_go():
    folded = fold_value_biases(tiny.gpt2())
    for late in (folded, ew.permuted(tiny.gpt2(), 1)):
        with pytest.raises(EdgewiseError, match="folded before its value biases, and before it is permuted"):
            fold_norm_biases(late)
    model = with_norms(tiny.gpt2())
    mlp = model.components[1]
    assert len(mlp.neurons) == 2
    bare = dataclasses.replace(mlp, neurons=mlp.neurons[:1])
    object.__setattr__(model, "rebuild", lambda source: dataclasses.replace(model, components=(bare,)))
    with pytest.raises(EdgewiseError, match="has a norm with a bias before a map that has none"):
        fold_norm_biases(model)
