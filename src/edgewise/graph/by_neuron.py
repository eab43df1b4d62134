"""Circuits of neurons or features: every head and every edge is there, and of each layer the units that were chosen.

A neuron is a hidden unit of an MLP, `m3.n1207`, as it stands before the output projection; one that is not in the
circuit holds its ablated activation, wherever the MLP is read. The graph is one without port edges that says how many
neurons each MLP has (`Graph.neurons`), so that no circuit of neurons is taken for one of edges or nodes.

Where the graph has features (`Graph.features`), the units are those of a transcoder or a sparse autoencoder,
`m3.f1207`, and of each dictionary one more, `m3.error`: what its features do not explain. All else is the same, and
here, as in `neurons` and `neuron_scores`, a neuron may be either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph.circuit import Circuit, Floats
from edgewise.graph.graph import Bools, Graph


@dataclass(frozen=True, eq=False, repr=False)
class NeuronCircuit(Circuit):
    """A set of neurons of `graph`, and optionally a score for every neuron. All edges are present.

    Attributes:
        neurons: `[layers, neurons]`, which neurons are present; given nothing, all of them.
        neuron_scores: `[layers, neurons]` float64, how much each neuron matters by some method, or None.
    """

    neurons: Bools = None  # type: ignore[assignment] - filled below
    neuron_scores: Floats | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = (self.graph.n_layers, self.graph.neurons)
        if not self.graph.neurons or self.graph.ports or not np.array_equal(self.edges, self.graph.edges):
            raise EdgewiseError(
                "a circuit of neurons has every edge of a graph that tells neurons apart and has no port edges"
            )
        if self.neurons is None:
            object.__setattr__(self, "neurons", self.graph.units.copy())
        self._hold("neurons", shape, np.bool_)
        if (self.neurons & ~self.graph.units).any():
            raise EdgewiseError(f"a circuit has units that its graph ({self.graph.describe()}) does not")
        self._hold("neuron_scores", shape, np.float64)

    @classmethod
    def full(cls, graph: Graph) -> Self:
        """Every neuron present: the model itself."""
        return cls(graph, graph.edges, graph.port_edges)

    @classmethod
    def empty(cls, graph: Graph) -> Self:
        """No neuron present: every MLP writes what its ablated neurons do, and its projection's bias."""
        return replace(cls.full(graph), neurons=np.zeros((graph.n_layers, graph.neurons), dtype=bool))

    @property
    def size(self) -> int:
        return int(self.neurons.sum())

    @property
    def most(self) -> int:
        return self.graph.n_neurons

    @property
    def unit(self) -> str:
        return "features" if self.graph.features else "neurons"

    @property
    def present(self) -> Bools:
        """Neurons as one row `[layers * neurons]`, to count or compare."""
        return self.neurons.ravel()

    @property
    def by_layer(self) -> list[int]:
        """How many neurons of each layer are present."""
        return self.neurons.sum(axis=1).tolist()

    def names(self) -> list[str]:
        """Names of the neurons present, layer by layer."""
        return [self.graph.unit_name(layer, number) for layer, number in np.argwhere(self.neurons).tolist()]

    def nodes(self) -> list[str]:
        """Names of all nodes but the MLPs without a neuron, early to late, `logits` last."""
        told = range(self.graph.n_layers) if not self.graph.stream_features else ()
        bare = {f"m{layer}" for layer in told if self.graph.units[layer].any() and not self.by_layer[layer]}
        return [node.name for node in self.graph.sources if node.name not in bare] + ["logits"]

    def connected(self) -> Self:
        """The same: every edge is there, so all of it lies on a path."""
        return self

    def __contains__(self, name: str) -> bool:
        return bool(self.neurons[self.graph.locate_unit(name)])

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return self.size > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeuronCircuit):
            return False if isinstance(other, Circuit) else NotImplemented
        return self.graph.shape == other.graph.shape and np.array_equal(self.neurons, other.neurons)

    def __hash__(self) -> int:
        return hash((self.graph.shape, self.neurons.tobytes()))

    def __or__(self, other: Circuit) -> Self:
        return replace(self, neurons=self.neurons | self._of(other))

    def __and__(self, other: Circuit) -> Self:
        return replace(self, neurons=self.neurons & self._of(other))

    def __sub__(self, other: Circuit) -> Self:
        return replace(self, neurons=self.neurons & ~self._of(other))

    def __xor__(self, other: Circuit) -> Self:
        return replace(self, neurons=self.neurons ^ self._of(other))

    def __invert__(self) -> Self:
        return replace(self, neurons=self.graph.units & ~self.neurons)

    def __le__(self, other: Circuit) -> bool:
        return not (self.neurons & ~self._of(other)).any()

    def add(self, *names: str) -> Self:
        """This circuit and the neurons called `names`."""
        return self | of_neuron_names(self.graph, names)

    def remove(self, *names: str) -> Self:
        """This circuit without the neurons called `names`."""
        return self - of_neuron_names(self.graph, names)

    def _of(self, other: Circuit) -> Bools:
        self.require_graph(other.graph)
        if not isinstance(other, NeuronCircuit):
            raise EdgewiseError("the circuit has edges, where one of neurons is wanted")
        return other.neurons


def of_neurons(graph: Graph, neurons: Bools, scores: Floats | None = None) -> NeuronCircuit:
    """The circuit of the neurons that are True in `neurons` `[layers, neurons]`, with a score for each, or none.

    Raises:
        EdgewiseError: the graph has port edges or tells no neurons apart, or the shapes are others.
    """
    return NeuronCircuit(graph, graph.edges, graph.port_edges, neurons=neurons, neuron_scores=scores)


def of_neuron_names(graph: Graph, names: Iterable[str]) -> NeuronCircuit:
    """The circuit of the neurons, or features, called `names`, as in `["m3.n1207", "m0.n4"]`.

    Raises:
        EdgewiseError: a name is no neuron of `graph`.
    """
    found = np.zeros((graph.n_layers, graph.neurons), dtype=bool)
    for name in names:
        found[graph.locate_unit(name)] = True
    return of_neurons(graph, found)


def require_edges(circuit: Circuit, what: str) -> None:
    """Raise an EdgewiseError if a circuit is one of neurons or features, which `what` cannot take.

    Args:
        what: the beginning of the sentence, as in `there is no picture`.
    """
    if isinstance(circuit, NeuronCircuit):
        raise EdgewiseError(
            f"{what} of a circuit of {circuit.unit}, which has every head and every edge; discover prints its "
            f"{circuit.unit}, circuit.json lists them, and evaluate and compare measure it"
        )


def neurons_to_dict(circuit: NeuronCircuit) -> dict[str, Any]:
    """What a circuit file says of neurons, MLP by MLP: which are in the graph, by number, and every neuron's score.

    Of features, of each layer that has a dictionary, by the name that stands before the dot: which are in the graph,
    whether the `error` is, and the scores of those whose score is not 0.
    """
    found: dict[str, Any] = {}
    for layer, there in enumerate(circuit.neurons):
        scores = None if circuit.neuron_scores is None else circuit.neuron_scores[layer].tolist()
        if not circuit.graph.features:
            found[f"m{layer}"] = {"in_graph": np.flatnonzero(there).tolist()}
            if scores is not None:
                found[f"m{layer}"]["scores"] = scores
        elif count := circuit.graph.features[layer]:
            name = circuit.graph.units_name(layer)
            found[name] = {"in_graph": np.flatnonzero(there[:count]).tolist(), "error": bool(there[count])}
            if scores is not None:
                found[name]["scores"] = {str(at): one for at, one in enumerate(scores[:count]) if one}
                found[name]["error_score"] = scores[count]
    return found


def neurons_from_dict(graph: Graph, edges: Bools, listed: Mapping[str, Any], what: str) -> NeuronCircuit:
    """The circuit of neurons, or features, that a file lists, beside the edges that it has in the graph.

    Raises:
        EdgewiseError: an MLP is missing or unknown, a neuron or a score is none, or some edges are left out.
    """
    units = "features" if graph.features else "neurons"
    if not graph.neurons or graph.ports or (edges != graph.edges).any():
        raise EdgewiseError(
            f"{what}: it lists {units}, so every edge of a graph of {units} without port edges should be in the graph"
        )
    neurons, scores = np.zeros((2, graph.n_layers, graph.neurons))
    layers = [layer for layer in range(graph.n_layers) if graph.units[layer].any()]
    names = [graph.units_name(layer) for layer in layers]
    if list(listed) != names:
        of = "layers" if graph.features else "MLPs"
        raise EdgewiseError(f"{what}: {units!r} should list the {of} {names[0]} to {names[-1]} in their order")
    scored = any("scores" in one for one in listed.values() if isinstance(one, Mapping))
    for layer, (name, one) in zip(layers, listed.items(), strict=True):
        there = one.get("in_graph") if isinstance(one, Mapping) else None
        count = graph.features[layer] if graph.features else graph.neurons
        every = range(count)
        if not isinstance(there, list) or not all(type(number) is int and number in every for number in there):
            raise EdgewiseError(f"{what}: {units} of {name!r} in the graph should be numbers below {count:,}")
        neurons[layer, there] = 1
        if graph.features:
            if not isinstance(one.get("error"), bool):
                raise EdgewiseError(f"{what}: {name!r} should say whether its 'error' is in the graph, true or false")
            neurons[layer, count] = one["error"]
        if scored:
            own = (_feature_scores if graph.features else _neuron_scores)(one, count, f"{what}: {name!r}")
            scores[layer, : len(own)] = own
    return of_neurons(graph, neurons > 0, scores if scored else None)


def _neuron_scores(one: Mapping[str, Any], count: int, what: str) -> list[float]:
    """What a file lists of one MLP, a score for each neuron."""
    own = one.get("scores")
    if not isinstance(own, list) or len(own) != count or not all(_is_number(score) for score in own):
        raise EdgewiseError(f"{what} should have 'scores', a finite number for each neuron")
    return own


def _feature_scores(one: Mapping[str, Any], count: int, what: str) -> list[float]:
    """What a file lists of one dictionary: a score for each feature, those that it leaves out 0, then the error's."""
    own, numbers = one.get("scores"), [str(number) for number in range(count)]
    if not isinstance(own, Mapping) or not all(_is_number(score) for score in (*own.values(), one.get("error_score"))):
        raise EdgewiseError(f"{what} should have finite 'scores' by number, and an 'error_score'")
    if strangers := set(own) - set(numbers):
        raise EdgewiseError(f"{what} has a score of {quoted(min(strangers))}, which is no feature")
    return [*(own.get(number, 0.0) for number in numbers), one["error_score"]]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
