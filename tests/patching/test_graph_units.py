"""Whole heads and spans: what circuits of such graphs mean, in every engine and method."""

import dataclasses

import numpy as np
import oracle
import pytest
import tiny
import torch
from family_models import InFloat64, family
from oracle import random_circuit
from twins import both, same_decisions

from edgewise.discovery import acdc, edge_attribution, exact_effects
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.patching import Experiment
from edgewise.tasks.spans import numbered

SPANS = ("early", "middle", "end")


def with_spans(task, seed=0):
    """A task whose prompts have their middle at random places, in one row of two tokens."""
    generator = np.random.default_rng(seed)
    rows = []
    for length in task.prompts.mask.sum(dim=1).tolist():
        first = int(generator.integers(1, length - 2))
        rows.append({"middle": range(first, first + 1 + (len(rows) == 1)), "end": range(length - 1, length)})
    _, at = numbered(task.prompts, rows)
    return dataclasses.replace(task, prompts=dataclasses.replace(task.prompts, spans=at), span_names=SPANS)


def experiment_of(name, positions, whole_heads, ablation="resample", seed=0, **options):
    made = tiny.FAMILIES.get(name)
    model = family(name, torch.float64, seed) if made is None else made(seed=seed, dtype=torch.float64, layers=2)
    task = with_spans(tiny.task(seed, longest=7, ragged=positions != "each"), seed)
    return Experiment(model, task, ablation=ablation, positions=positions, whole_heads=whole_heads, **options)


UNITS = [("together", True), ("spans", False), ("spans", True), ("each", False)]
COUPLED = ["gemma2", "olmo2"]


def units_of(every_run):
    """Each kind of unit in each family; only those of `every_run` are not slow."""
    return [
        pytest.param(name, *units, marks=[] if (name, *units) in every_run else pytest.mark.slow)
        for name in (*tiny.FAMILIES, *COUPLED)
        for units in UNITS
    ]


@pytest.fixture(autouse=True)
def _float64_throughout():
    with InFloat64():
        yield


MEANT = [
    *((name, *units) for name in ("gpt2", "gpt_neox", "bloom", "gptj") for units in UNITS),
    *((name, positions, False) for name in ("llama", "mistral", *COUPLED) for positions in ("spans", "each")),
]
ABLATED = ("resample", "zero", "mean")


@pytest.mark.parametrize(
    ("name", "positions", "whole", "ablation"),
    tiny.slow_unless(
        lambda *case: case[0] in ("gpt2", "gemma2") or case[3] == ABLATED[MEANT.index(case[:3]) % 3],
        ((*case, ablation) for case in MEANT for ablation in ABLATED),
    ),
)
def test_circuits_mean_what_the_models_own_modules_make_of_them(name, positions, whole, ablation):
    experiment = experiment_of(name, positions, whole, ablation)
    assert len(experiment.graph.spans) == {"together": 0, "spans": 3, "each": 7}[positions]
    assert torch.allclose(experiment.logits(Circuit.full(experiment.graph)), experiment.reference.logits, atol=1e-9)
    for seed in range(2):
        circuit = random_circuit(experiment.graph, seed, share=(0.3, 0.7)[seed])
        logits = experiment.logits(circuit)
        assert torch.allclose(logits, oracle.oracle_logits(experiment, circuit), atol=1e-9)
        assert (logits - experiment.reference.logits).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "parallel", "gemma2"])
def test_whole_heads_that_share_keys_are_three_edges_of_one_head(name):
    whole = experiment_of(name, "together", True)
    model = whole.decoder
    apart = Experiment(model, whole.task, graph=model.graph(ports=False, ungroup=True))
    circuit = random_circuit(whole.graph, 1, 0.5)
    columns = [whole.graph.input_index[place.owner] for place in apart.graph.inputs]
    same = Circuit(apart.graph, circuit.edges[:, columns], np.zeros(len(columns), dtype=bool))
    assert circuit.n_edges < same.n_edges
    assert torch.allclose(whole.logits(circuit), apart.logits(same), atol=1e-12)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama", "parallel", *COUPLED])
def test_an_edge_at_every_span_is_the_edge(name, whole):
    split = experiment_of(name, "spans", whole)
    lumped = Experiment(split.decoder, split.task, whole_heads=whole)
    assert split.graph.lumped == lumped.graph
    assert split.graph.n_edges == 3 * lumped.graph.n_edges
    circuit = random_circuit(lumped.graph, 3, 0.5)
    tied = Circuit(split.graph, circuit.edges.repeat(3, axis=1), circuit.ports.repeat(3))
    assert torch.allclose(split.logits(tied), lumped.logits(circuit), atol=1e-12)
    assert split.ablated() == pytest.approx(lumped.ablated(), abs=1e-12)


EXACT_EVERY_RUN = [("gpt2", "spans", False), ("llama", "spans", True), ("gemma2", "together", True)]


@pytest.mark.parametrize(("name", "positions", "whole"), units_of(EXACT_EVERY_RUN))
def test_attribution_is_the_gradient_of_masks(name, positions, whole):
    experiment = experiment_of(name, positions, whole, metric="logit_diff")
    edges, ports = oracle.mask_gradients(experiment)
    scored = edge_attribution(experiment).circuit
    assert np.abs(edges).max() > 1e-3
    assert np.allclose(scored.scores, edges, atol=1e-9)
    assert np.allclose(scored.port_scores, np.where(experiment.graph.port_edges, ports, 0), atol=1e-9)


@pytest.mark.parametrize(("name", "positions", "whole"), units_of(EXACT_EVERY_RUN))
def test_exact_patching_is_a_run_without_each_edge(name, positions, whole):
    experiment = experiment_of(name, positions, whole, metric="logit_diff")
    graph, scored = experiment.graph, exact_effects(experiment).circuit
    full, value = Circuit.full(graph), experiment.full()
    names = graph.names()
    for name in [names[index] for index in np.random.default_rng(0).integers(0, len(names), 16)]:
        row, column = graph.locate(name)
        effect = experiment.value(full.remove(name)) - value
        assert (scored.port_scores[column] if row is None else scored.scores[row, column]) == pytest.approx(
            effect, abs=1e-9
        )


def test_counts_at_the_shapes_of_published_models():
    """Counted one input at a time, from what may come before it."""
    small = Graph(12, 12, whole_heads=True)
    assert small.n_edges == 11_611  # Conmy et al. 2023, Fig. 1
    before_heads = [1 + 13 * layer for layer in range(12)]
    assert small.n_edges == sum(12 * count + count + 12 for count in before_heads) + 157
    llama = Graph(16, 32, whole_heads=True)  # Llama-3.2-1B: 32 query heads over 8
    before_heads = [1 + 33 * layer for layer in range(16)]
    assert llama.n_edges == sum(33 * count + 32 for count in before_heads) + 1 + 33 * 16
    shared = Graph(16, 32, 8)
    split = Graph(16, 32, 8, spans=("IO", "S1", "S2", "END"))
    assert shared.n_edges == sum((32 + 8 + 8) * count + count + 32 for count in before_heads) + 1 + 33 * 16
    assert split.n_edges == 4 * shared.n_edges == int(split.edges.sum())
    assert Graph(12, 12, ports=True, spans=("a", "b")).n_edges == 2 * 32_923


def test_a_head_without_a_letter_needs_whole_heads():
    with pytest.raises(EdgewiseError, match=r"say which: 'a1\.h0<q>', 'a1\.h0<k>' or 'a1\.h0<v>'"):
        Graph(2, 2).locate("input->a1.h0")
    assert Graph(2, 2, whole_heads=True).locate("input->a1.h0")[0] == 0
    with pytest.raises(EdgewiseError, match=r"no input 'a1\.h0<q>'"):
        Graph(2, 2, whole_heads=True).locate("input->a1.h0<q>")
    with pytest.raises(EdgewiseError, match=r"split by position here; say where, as in 'm0@end'"):
        Graph(2, 2, spans=("start", "end")).locate("input->m0")
    with pytest.raises(EdgewiseError, match="no input 'm0@END'"):
        Graph(2, 2, spans=("start", "end")).locate("input->m0@END")


def test_dead_ends_are_found_by_span():
    graph = Graph(2, 1, spans=("a", "b"))
    chain = ["input->a0.h0<v>@a", "a0.h0->m1@b", "m1->logits@b"]
    circuit = Circuit.from_names(graph, chain)
    assert circuit.connected() == circuit  # the value is seen from later positions
    assert not Circuit.from_names(graph, ["input->m0@a", "m0->logits@b"]).connected()
    assert Circuit.from_names(graph, ["input->a0.h0<q>@a", "a0.h0->logits@b"]).connected().n_edges == 0


SEARCHED_EVERY_RUN = [
    *(("gpt2", *units) for units in UNITS[:2]),
    ("llama", "spans", True),
    ("parallel", "together", True),
    ("gemma2", "spans", True),
    ("plain-attention-only", "each", False),
]


@pytest.mark.parametrize(("name", "positions", "whole"), units_of(SEARCHED_EVERY_RUN))
def test_searches_take_the_decisions_of_the_twin(name, positions, whole):
    assert 0 < searched(name, positions, whole, 0.1) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("positions", "whole"), UNITS)
@pytest.mark.parametrize("name", [*tiny.FAMILIES, *COUPLED])
def test_large_circuits_too(name, positions, whole):
    assert searched(name, positions, whole, 0.01) > 0.01


def searched(name, positions, whole, share):
    """The share of edges that a search and its twin keep, at a threshold of a share of what there is to lose."""
    experiment = experiment_of(name, positions, whole, seed=1)
    threshold = share * abs(experiment.full() - experiment.ablated())
    fast, slow = both(experiment, threshold)
    assert same_decisions(fast, slow, torch.float64, says=(name, positions, whole, share))
    start = slow.circuit.connected()
    if start:  # not at a high threshold
        again = acdc(experiment, threshold, start=start, passes=2)
        judged = acdc(experiment, threshold, start=start, passes=2, engine="plain")
        assert same_decisions(again, judged, torch.float64, says=(name, positions, whole, share, "passes"))
    return slow.circuit.n_edges / experiment.graph.n_edges


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_with_one_span_all_is_as_without_spans_and_a_search_bit_for_bit(name):
    together = experiment_of(name, "together", False, seed=2)
    everywhere = torch.where(together.task.prompts.mask, 0, -1)
    prompts = dataclasses.replace(together.task.prompts, spans=everywhere)
    task = dataclasses.replace(together.task, prompts=prompts, span_names=("all",))
    one = Experiment(together.decoder, task, positions="spans")
    assert one.graph.spans == ("all",)
    threshold = 0.1 * abs(together.full() - together.ablated())
    searches = [acdc(experiment, threshold) for experiment in (one, together)]
    assert 0 < searches[0].circuit.n_edges < one.graph.n_edges
    traces = [[(step.before, step.after, step.kept) for step in search.trace] for search in searches]
    assert traces[0] == traces[1]
    assert np.array_equal(searches[0].circuit.edges, searches[1].circuit.edges)
    scores = [edge_attribution(experiment).circuit.scores for experiment in (one, together)]
    assert np.allclose(*scores, rtol=1e-12, atol=1e-15)  # places are summed in one product or one after another
