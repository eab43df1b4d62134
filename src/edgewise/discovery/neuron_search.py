"""ACDC by neurons or features: the algorithm of search.py over a shortlist of hidden units, heads and edges all there.

Walk from the last layer to the first, in each from the unit of the smallest score in the shortlist to that of the
largest (of equal ones the earlier first). A unit goes for good if the metric rises by less than the threshold when it
holds its ablated activation. Every test compares with the circuit as pruned so far, under the same rule as edges.

What is outside the shortlist is ablated from the start, as in searches of edges and nodes. Units of a layer that go
change what the layers behind it hold: those run again in every test, their features encoded anew.
"""

from __future__ import annotations

import numpy as np

from edgewise.discovery.engines import DEFAULT_ENGINE
from edgewise.discovery.found import Discovery, ProgressCallback
from edgewise.discovery.journal import Journal
from edgewise.discovery.order import Order
from edgewise.discovery.rule import Rule, check_budget
from edgewise.discovery.search import check_options
from edgewise.discovery.settled import SettledWalk, StartedFactory, engine_maker
from edgewise.discovery.walking import search
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, NeuronCircuit, of_neurons
from edgewise.patching import Experiment
from edgewise.patching.neuron_engine import NeuronEngine, PlainNeuronEngine

NEURON_ENGINES: dict[str, StartedFactory] = {"incremental": NeuronEngine, "plain": PlainNeuronEngine}
"""Engines by name: what makes one for an experiment, the units that are present, and bytes that it may use."""


def acdc_by_neuron(
    experiment: Experiment,
    threshold: float,
    *,
    order: Order | None = None,
    absolute: bool = False,
    budget: float | None = None,
    passes: int = 1,
    start: Circuit | None = None,
    engine: str | StartedFactory = DEFAULT_ENGINE,
    max_memory: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> Discovery:
    """Find a circuit of neurons, or of features, with ACDC; arguments as of `acdc`, `start` a circuit of such.

    A decision of the trace has the unit's name where those of other searches have the edge's.

    Args:
        order: units have none to choose; it is taken for the sake of those that have.

    Raises:
        EdgewiseError: as `acdc`; or the graph tells no units apart, or `start` is no circuit of them.
        Interrupted: as `acdc`.
    """
    check_options(threshold=threshold)
    check_budget(budget, passes)
    if not experiment.graph.neurons:
        raise EdgewiseError("the experiment's graph tells no neurons apart; make it with neurons=True")
    make = engine_maker(engine, NEURON_ENGINES, experiment, max_memory)
    if start is not None:
        start.require_graph(experiment.graph)
        if not isinstance(start, NeuronCircuit):
            raise EdgewiseError("a search of neurons chooses among neurons, and what it was to start from has edges")
    begun = NeuronCircuit.full(experiment.graph) if start is None else start
    walk = _Search(
        *(experiment, Rule(threshold, absolute, budget), passes, progress, journal),
        unit=begun.unit,
        walk=walk_of(begun),
        present=begun.neurons,
        make=make,
    )
    return search(walk, walk.walk[0][0], start)


def walk_of(start: NeuronCircuit) -> list[tuple[int, list[int]]]:
    """Layers in the order of a search, each with its units that are present, in the order in which they are tried."""
    scores = np.zeros(start.neurons.shape) if start.neuron_scores is None else np.abs(start.neuron_scores)
    layers = np.flatnonzero(start.neurons.any(axis=1))[::-1].tolist()
    numbers = {layer: np.flatnonzero(start.neurons[layer]) for layer in layers}
    return [(layer, one[np.argsort(scores[layer, one], kind="stable")].tolist()) for layer, one in numbers.items()]


class _Search(SettledWalk):
    """The walk over one graph's units, with what is still present of them: columns are layers."""

    @property
    def count(self) -> int:
        return self.graph.n_neurons

    def circuit(self) -> Circuit:
        return of_neurons(self.graph, self.present, self.scores)

    def _index(self, row: int, column: int) -> tuple[int, int]:
        return column, row

    def _name(self, row: int | None, column: int) -> str:
        assert row is not None
        return self.graph.unit_name(column, row)

    def _locate(self, name: str) -> tuple[int | None, int]:
        layer, number = self.graph.locate_unit(name)
        return number, layer
