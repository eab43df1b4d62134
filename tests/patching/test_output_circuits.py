"""What a circuit means whose nodes write only some output dimensions, against a naive reading of its definition."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import tiny
import torch
from family_models import InFloat64, family

from edgewise.evaluation import evaluate
from edgewise.graph import Circuit, OutputCircuit, complement, of_nodes
from edgewise.graph.by_output import with_outputs
from edgewise.patching import Experiment
from edgewise.runs.assess import assess


def random_outputs(circuit: Circuit, seed: int = 0) -> OutputCircuit:
    shape = (len(circuit.graph.sources), circuit.graph.d_model)
    return with_outputs(circuit, np.random.default_rng(seed).random(shape) < 0.5)


@pytest.mark.parametrize(
    ("name", "ablation", "ports"),
    [("gpt2", "resample", True), ("llama", "zero", False), ("gptj", "mean", True), ("gemma2", "resample", False)],
)
def test_an_edge_carries_the_dimensions_that_its_sender_writes(name, ablation, ports):
    with InFloat64():
        task = tiny.task(rows=2)
        case = Experiment(family(name, torch.float64), task, ablation=ablation, ports=ports)
        edges = oracle.random_circuit(case.graph, 1, 0.6)
        for circuit in (random_outputs(edges), ~random_outputs(edges)):
            found = case.logits(circuit)
            assert torch.allclose(found, oracle.oracle_logits(case, circuit), atol=1e-9)
            assert (found - case.logits(edges)).abs().max() > 1e-3


def test_all_dimensions_are_the_circuit_itself_and_none_the_ablated_run():
    case = Experiment(tiny.gpt2(layers=2, dtype=torch.float64), tiny.task(), ports=False)
    edges = oracle.random_circuit(case.graph, 1, 0.6)
    every = with_outputs(edges, np.ones((len(case.graph.sources), case.graph.d_model)))
    none = with_outputs(edges, np.zeros_like(every.outputs))
    assert torch.allclose(case.logits(every), case.logits(edges), atol=1e-9)
    assert torch.allclose(case.logits(~every), case.logits(~edges), atol=1e-9)
    assert torch.allclose(case.logits(none), case.logits(Circuit.empty(case.graph)), atol=1e-9)
    assert torch.allclose(case.logits(~none), case.logits(Circuit.full(case.graph)), atol=1e-9)


def test_what_is_left_of_whole_nodes_keeps_the_embedding():
    case = Experiment(tiny.gpt2(layers=2, dtype=torch.float64), tiny.task(), ports=False)
    rows = np.random.default_rng(2).random(len(case.graph.sources)) < 0.6
    nodes = of_nodes(case.graph, rows | (np.arange(len(rows)) == 0))
    every = with_outputs(nodes, np.ones((len(rows), case.graph.d_model)))
    assert torch.allclose(case.logits(complement(every)), case.logits(complement(nodes)), atol=1e-9)


def test_such_a_circuit_is_measured_and_not_tested():
    model, task = tiny.gpt2(layers=2), tiny.task()
    case = Experiment(model, task, ports=False)
    circuit = random_outputs(oracle.random_circuit(case.graph, 1, 0.6))
    found = evaluate(model, task, circuit)
    one = found.measured[found.metric]
    assert one.circuit == tiny.near(case.value(circuit))
    assert one.complement == tiny.near(case.value(~circuit))
    assert (one.full, one.ablated) == (tiny.near(0.0), tiny.near(case.ablated()))
    assessed = assess(model, task, circuit, scored=True)
    assert assessed.hypotheses is None
    assert assessed.mib is None
    assert f"write {circuit.n_outputs:,} of their" in assessed.notes[0]
    assert "no tests" in assessed.notes[1]
