"""What runs a circuit, of whatever kind it is: of edges, of neurons, of output dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from edgewise.graph import Circuit, Graph, NeuronCircuit, OutputCircuit
from edgewise.models import Decoder
from edgewise.patching.ablation import Ablated
from edgewise.patching.neuron_running import neuron_run
from edgewise.patching.output_running import OutputRun
from edgewise.patching.running import circuit_run

Runner = Callable[[Tensor, Tensor, Ablated, "Tensor | None"], Tensor]
"""Tokens and mask `[batch, pos]`, what is ablated there, spans or None -> the final stream `[batch, pos, d_model]`."""


def runner_of(decoder: Decoder, graph: Graph, circuit: Circuit) -> Runner:
    """What runs a circuit of `graph` on some rows of prompts; of neurons, on a Decoder that tells them apart."""
    device = decoder.device
    if isinstance(circuit, NeuronCircuit):
        present = torch.from_numpy(circuit.neurons.copy()).to(device)
        return lambda tokens, mask, ablated, spans: neuron_run(decoder, tokens, mask, ablated, present)
    edges = torch.from_numpy(circuit.edges.copy()).to(device)
    ports = torch.from_numpy(circuit.ports.copy()).to(device)
    if isinstance(circuit, OutputCircuit):
        outputs, inverted = torch.from_numpy(circuit.outputs.copy()).to(device), circuit.inverted
        return lambda tokens, mask, ablated, spans: OutputRun(
            decoder, graph, tokens, mask, ablated, edges, ports, outputs, inverted
        ).run()
    return lambda tokens, mask, ablated, spans: circuit_run(decoder, graph, tokens, mask, ablated, edges, ports, spans)


def fitted(decoder: Decoder, graph: Graph) -> Graph | None:
    """A graph as the model has it, coupled heads and width included; None if the model has no such graph.

    A graph with a key and a value input per query head is the model's, too.
    """
    if graph.split_embedding and not decoder.config.position_embedding:
        return None
    for ungroup in (False, True):
        own = decoder.graph(
            ports=graph.ports,
            split_embedding=graph.split_embedding,
            ungroup=ungroup,
            whole_heads=graph.whole_heads,
            spans=graph.spans,
        )
        if own.shape == graph.shape:
            return replace(graph, coupled=own.coupled, d_model=own.d_model)
    return None
