"""What a circuit of features means: a hand-made replacement by hooks on the source model, and neurons as features."""

from __future__ import annotations

import dictionaries
import numpy as np
import pytest
import tiny
import torch

from edgewise.discovery import METHODS, acdc_by_neuron
from edgewise.errors import EdgewiseError
from edgewise.graph import NeuronCircuit, of_neurons
from edgewise.models.decoder import positions_of
from edgewise.models.dictionary import Place
from edgewise.models.feature_mlp import by_feature
from edgewise.patching import Experiment
from edgewise.patching.neuron_running import neuron_run

EXACT = tiny.plain(dtype=torch.float64, layers=2, activation="relu", normalization="LN")
TASK = tiny.task(rows=2)
SCORERS = ["exact", "edge-attribution", "edge-attribution-ig", "clean-corrupted", "relp"]


def pair(ablation: str) -> tuple[Experiment, Experiment]:
    """The same question of neurons, and of features that are these neurons."""
    return tuple(
        Experiment(model, TASK, ablation=ablation, metric="logit_diff", neurons=True)
        for model in (EXACT, by_feature(EXACT, dictionaries.exact(EXACT)))
    )  # type: ignore[return-value]


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean", "noise"])
def test_transcoders_made_of_an_mlps_own_weights_give_what_its_neurons_do(ablation):
    neurons, features = pair(ablation)
    some = np.random.default_rng(0).random((2, 16)) < 0.5
    with_errors = np.concatenate([some, np.ones((2, 1), dtype=bool)], axis=1)
    wanted = neurons.logits(of_neurons(neurons.graph, some))
    assert torch.allclose(features.logits(of_neurons(features.graph, with_errors)), wanted, atol=1e-9)
    assert features.ablated() == pytest.approx(neurons.ablated(), abs=1e-9)
    for method in SCORERS if ablation == "resample" else ["edge-attribution"]:
        of_neuron = METHODS[method].scores(neurons, level="neuron").circuit.neuron_scores
        of_feature = METHODS[method].scores(features, level="feature").circuit.neuron_scores
        assert np.abs(of_feature[:, :-1] - of_neuron).max() < 1e-9
        assert np.abs(of_feature[:, -1]).max() < 1e-9  # nothing is left over
        assert np.abs(of_neuron).max() > 1e-3
    threshold = float(np.median(np.abs(of_neuron)))
    found, same = (acdc_by_neuron(one, threshold) for one in (neurons, features))
    assert 0 < found.circuit.size < 32
    assert [name.replace(".n", ".f") for name in found.circuit.names()] == [
        name for name in same.circuit.names() if "error" not in name
    ]


class ByHand:
    """A circuit of features on the source model alone: hooks replace what one layer gives, prompt by prompt.

    What is recorded on the clean and on the corrupted prompts is the layer's features and error; the run again encodes
    what reaches the layer anew.
    """

    def __init__(self, case: Experiment, module: torch.nn.Module) -> None:
        self.case, self.module, self.prompts = case, module, case.task.prompts
        self.one = next(one.dictionary for one in case.decoder.components if getattr(one, "n_features", 0))

    def run(self, tokens, change):
        """Logits, with what the module gives replaced by `change(what it reads, what it gives)`."""

        def hook(module, given, out):
            vector = out[0] if isinstance(out, tuple) else out
            made = change(given[0], vector)
            return (made, *out[1:]) if isinstance(out, tuple) else made

        handle = self.module.register_forward_hook(hook)
        try:
            with torch.no_grad():
                return self.case.decoder.run_source(tokens, torch.ones_like(tokens).bool(), positions_of(tokens))
        finally:
            handle.remove()

    def split(self, reads, gives):
        held = self.one.encode(gives if self.one.place.reads in ("mlp", "behind") else reads)
        return held, gives - held @ self.one.decoder - self.one.decoder_bias

    def logits(self, present):
        kept = {}
        for name, tokens in (("clean", self.prompts.clean), ("corrupt", self.prompts.corrupt)):

            def keep(reads, gives, name=name):
                kept[name] = self.split(reads, gives)
                return gives

            self.run(tokens, keep)

        def replaced(reads, gives):
            held, _ = self.split(reads, gives)
            held = torch.where(present[:-1], held, kept["corrupt"][0])
            error = kept["clean" if present[-1] else "corrupt"][1]
            return held @ self.one.decoder + self.one.decoder_bias + error

        whole = self.run(self.prompts.clean, replaced)
        return whole[self.prompts.scored_rows, self.prompts.scored_positions]


@pytest.mark.parametrize("reads", ["normed", "mlp", "behind"])
def test_a_circuit_of_features_is_what_hooks_on_the_source_model_give(reads):
    task, model = tiny.task(rows=2, ragged=False), tiny.gpt2(dtype=torch.float64, layers=2)
    one = dictionaries.random(model, Place(0, reads, stream=reads == "behind"), k=6)
    case = Experiment(by_feature(model, [one]), task, metric="logit_diff", ablation="resample")
    block, prompts = model.source.transformer.h[0], task.prompts
    by_hand = ByHand(case, block if reads == "behind" else block.mlp)
    full, logits = NeuronCircuit.full(case.graph), []
    some = full.neurons & (np.random.default_rng(1).random(full.neurons.shape) < 0.5)
    for error in (True, False):
        some[0, -1] = error
        logits.append(case.logits(of_neurons(case.graph, some)))
        assert torch.allclose(logits[-1], by_hand.logits(torch.from_numpy(some[0].copy())), atol=1e-9)
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    whole = model.run_source(prompts.clean, prompts.mask, positions_of(prompts.clean))
    assert torch.allclose(case.logits(full), whole[prompts.scored_rows, prompts.scored_positions], atol=1e-9)


@pytest.mark.parametrize(
    ("place", "choices"),
    [
        (Place(0, "normed"), dict(jump=True)),
        (Place(1, "stream"), dict(skip=0.1 * torch.eye(32, dtype=torch.float64))),
        (Place(0, "behind", stream=True), dict(k=5)),
    ],
)
def test_scores_and_searches_of_features_agree_with_masks_and_with_circuit_runs(place, choices):
    model = tiny.gpt2(dtype=torch.float64, layers=2)
    others = [dictionaries.random(model, Place(1, "mlp"), seed=1)] if place == Place(0, "normed") else []
    opened = by_feature(model, [dictionaries.random(model, place, **choices), *others])
    case = Experiment(opened, TASK, metric="logit_diff")
    assert case.full() == pytest.approx(Experiment(model, TASK, metric="logit_diff").full(), abs=1e-9)
    full, prompts = NeuronCircuit.full(case.graph), TASK.prompts
    mask = torch.ones(full.neurons.shape, dtype=torch.float64, requires_grad=True)
    final = neuron_run(case.decoder, prompts.clean, prompts.mask, case.ablated_activations, mask)
    logits = case.decoder.logits(final[prompts.scored_rows, prompts.scored_positions])
    (gradient,) = torch.autograd.grad(case.metric(logits, case.reference).mean(), mask)
    estimated = METHODS["edge-attribution"].scores(case, level="feature").circuit.neuron_scores
    assert np.abs(estimated + gradient.numpy())[full.neurons].max() < 1e-9
    exact = METHODS["exact"].scores(case, level="feature").circuit.neuron_scores
    some = [*full.names()[::4], full.names()[-1]]
    wanted = [case.value(full.remove(name)) - case.full() for name in some]
    assert [exact[case.graph.locate_unit(name)] for name in some] == pytest.approx(wanted, abs=1e-9)
    assert np.abs(wanted).max() > 1e-3
    threshold = float(np.quantile(np.abs(exact[full.neurons]), 0.7))
    fast = acdc_by_neuron(case, threshold, passes=2, start=of_neurons(case.graph, full.neurons, exact))
    slow = acdc_by_neuron(case, threshold, passes=2, start=of_neurons(case.graph, full.neurons, exact), engine="plain")
    assert fast.circuit == slow.circuit
    assert [one.after for one in fast.trace] == pytest.approx([one.after for one in slow.trace], abs=1e-9)
    assert fast.metric == pytest.approx(case.value(fast.circuit), abs=1e-9)
    assert 0 < fast.circuit.size < full.size


def test_constants_are_not_learned_for_features():
    opened = by_feature(EXACT, dictionaries.exact(EXACT))
    with pytest.raises(EdgewiseError, match="not of features and errors; take 'mean'"):
        Experiment(opened, TASK, ablation="optimal")
    with pytest.raises(EdgewiseError, match="is not taken apart by any"):
        Experiment(EXACT, TASK, graph=opened.graph(ports=False))
