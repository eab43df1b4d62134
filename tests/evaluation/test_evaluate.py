"""A circuit's figures are those of a whole run of it, and stand beside the model's and the ablated run's."""

import pytest
import tiny
import torch

from edgewise.discovery import acdc
from edgewise.errors import EdgewiseError
from edgewise.evaluation import Measured, evaluate
from edgewise.graph import Circuit
from edgewise.models.decoder import positions_of
from edgewise.patching import Experiment
from edgewise.tasks import METRICS


def source_logits(model, tokens, task):
    prompts = task.prompts
    logits = model.run_source(tokens, prompts.mask, positions_of(tokens))
    return logits[prompts.scored_rows, prompts.scored_positions]


def test_every_metric_of_model_and_ablated_run_is_that_of_the_source_model():
    model, task = tiny.llama(dtype=torch.float64), tiny.task()
    result = evaluate(model, task, Circuit.empty(model.graph()))
    clean = source_logits(model, task.prompts.clean, task)
    corrupt = source_logits(model, task.prompts.corrupt, task)
    p, q = clean.softmax(-1), corrupt.softmax(-1)
    divergence = (p * (p.log() - q.log())).sum(-1).mean().item()
    assert set(result.measured) == set(METRICS)
    kl = result.measured["kl_div"]
    assert divergence > 0.05
    assert kl.circuit == kl.ablated == pytest.approx(divergence, rel=1e-6)
    assert kl.full == pytest.approx(0, abs=1e-9)
    squares = result.measured["l2"]
    assert squares.ablated == pytest.approx(((clean - corrupt) ** 2).mean().item(), rel=1e-6)
    answers, wrong = task.prompts.answers, task.prompts.wrong
    difference = (clean.gather(1, wrong).mean(-1) - clean.gather(1, answers).mean(-1)).mean().item()
    assert result.measured["logit_diff"].full == pytest.approx(difference, rel=1e-6)


def test_evaluation_agrees_with_the_search_that_found_the_circuit():
    model, task = tiny.llama(layers=2), tiny.task()
    for ports in (True, False):
        found = acdc(Experiment(model, task, ports=ports), 0.03)
        result = evaluate(model, task, found.circuit)
        assert result.n_edges == found.circuit.n_edges > 3
        assert result.value == tiny.near(found.metric)
        assert result.n_graph_edges == found.circuit.graph.n_edges


def test_recovered_is_one_for_the_model_zero_for_nothing_and_none_where_there_is_no_way():
    assert Measured(circuit=0.0, full=0.0, ablated=2.0, target=0.0).recovered == 1.0
    assert Measured(circuit=2.0, full=0.0, ablated=2.0, target=0.0).recovered == 0.0
    assert Measured(circuit=0.5, full=0.0, ablated=2.0, target=0.0).recovered == 0.75
    assert Measured(circuit=-3.0, full=-4.0, ablated=0.0, target=-4.0).recovered == 0.75
    assert Measured(circuit=1.0, full=1.0, ablated=1.0, target=1.0).recovered is None
    # A permuted network's circuit is held against the model that it was made from.
    assert Measured(circuit=3.0, full=8.0, ablated=4.0, target=0.0).recovered == 0.25


def test_metrics_without_their_answers_are_left_out_and_refused_when_asked_for():
    import dataclasses

    model, task = tiny.gpt2(layers=1), tiny.task()
    task = dataclasses.replace(
        task, prompts=dataclasses.replace(task.prompts, wrong=None), why_no_answers="line 3: 'wrong' is null"
    )
    result = evaluate(model, task, Circuit.full(model.graph()))
    assert set(result.measured) == {"kl_div", "nll", "match_nll", "l2"}
    with pytest.raises(EdgewiseError, match="'logit_diff' needs wrong answers of one token each: line 3"):
        evaluate(model, task, Circuit.full(model.graph()), metric="logit_diff")


def test_a_circuit_of_another_model_is_refused():
    model, other = tiny.gpt2(), tiny.llama()
    with pytest.raises(EdgewiseError, match="over another graph: 3 layers of 4 heads over 2 key/value heads"):
        evaluate(model, tiny.task(), Circuit.full(other.graph()))
