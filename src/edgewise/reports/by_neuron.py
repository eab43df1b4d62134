"""Circuits of neurons and of features as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from edgewise.graph import NeuronCircuit
from edgewise.reports.words import percent

SHOWN = 6
"""Neurons of a layer that are named in its row."""


def neuron_table(circuit: NeuronCircuit) -> Table:
    """From the logits down, how many neurons (features) of each layer are there, and which are the strongest."""
    graph, first = circuit.graph, "layer" if circuit.graph.features else "MLP"
    table = Table(title="the circuit, from the logits down", title_justify="left", box=None, pad_edge=False)
    for column in (first, circuit.unit, "the strongest"):
        table.add_column(column, style="bold" if column == first else "", overflow="fold")
    counts, strongest = graph.units.sum(axis=1), _strongest(circuit)
    for layer in np.flatnonzero(counts)[::-1].tolist():
        best = [graph.unit_name(at, number) for at, number in strongest if at == layer][:SHOWN]
        names = "  ".join(name.partition(".")[2] for name in best)
        of_layer = graph.unit_name(layer, 0).partition(".")[0]
        table.add_row(of_layer, f"{circuit.by_layer[layer]:,} of {counts[layer]:,}", names)
    return table


def fit_line(fits: Sequence[Mapping[str, Any]]) -> str:
    """What dictionaries explain, in words; at most `SHOWN` of them one by one."""
    worst = sorted(fits, key=lambda one: one["explained"])[:SHOWN]
    each = ", ".join(f"{one['name']} {percent(one['explained'])}" for one in sorted(worst, key=fits.index))
    active = sum(one["active"] for one in fits) / len(fits)
    least = "" if len(worst) == len(fits) else ", the least of all"
    return (
        f"of the variance of what they predict, features explain on these prompts: {each}{least}; {active:,.1f} of a "
        "layer are active at a token"
    )


def strongest_neurons(circuit: NeuronCircuit, count: int = 8, *, absolute: bool = False) -> Table:
    """The circuit's neurons with the largest scores above 0 (of any sign, if `absolute`)."""
    assert circuit.neuron_scores is not None
    table = Table(title=f"strongest {circuit.unit}", title_justify="left", box=None, pad_edge=False)
    table.add_column(circuit.unit[:-1], overflow="fold")
    table.add_column(Text("score"), justify="right", overflow="fold")
    scores = circuit.neuron_scores
    shown = [place for place in _strongest(circuit) if absolute or scores[place] > 0]
    for layer, number in shown[:count]:
        table.add_row(circuit.graph.unit_name(layer, number), f"{scores[layer, number]:+z.4g}")
    return table


def _strongest(circuit: NeuronCircuit) -> list[tuple[int, int]]:
    """Layers and numbers of the neurons that are present, the largest scores first."""
    places = np.argwhere(circuit.neurons)
    if circuit.neuron_scores is not None:
        sizes = np.abs(circuit.neuron_scores[circuit.neurons])
        places = places[np.argsort(-sizes, kind="stable")]
    return [(layer, number) for layer, number in places.tolist()]
