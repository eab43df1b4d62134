"""Shortlists: the edges that a search chooses from, where those are not all of the graph's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.discovery import METHODS, StepProgress, at_most, choose_neurons, choose_nodes, without_dead_ends
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, NeuronCircuit, OutputCircuit, of_neuron_names
from edgewise.graph.by_node import Level
from edgewise.graph.convert import onto
from edgewise.json_files import part
from edgewise.patching import Experiment, plan_memory
from edgewise.runs.given import read_circuit
from edgewise.runs.run import Run
from edgewise.runs.scores import load_scores
from edgewise.runs.series import deflated, inflated, packed, unpacked

Within = int | str | Path | Circuit | Run
"""What a search chooses from."""
SCORED_BY = "edge-attribution-ig"
"""The method that scores edges for a shortlist of so many."""


def shortlist_of(
    within: Within, experiment: Experiment, *, level: Level = "edge", progress: StepProgress | None = None
) -> Circuit:
    """The edges that `within` stands for, without those that lead to nothing; with level `node`, the nodes.

    A number stands for the circuit of at most so many edges, port edges counted, whose scores by edge attribution with
    integrated gradients are largest in size (`at_most`): an edge without which the metric is lower may be one that
    others are needed to make up for. Anything else holds a circuit over the experiment's graph; one without port edges
    gets those of the inputs that read something. A search of edges may be made among those of whole nodes, of which the
    ones into absent nodes lead to nothing; one of nodes chooses among whole nodes only.

    Raises:
        EdgewiseError: there is no such circuit, it is of another graph, or nothing is in it; or it is one of edges, and
            nodes are searched.
    """
    graph = experiment.graph
    if level == "node":
        return _nodes(within, experiment, progress)
    if isinstance(within, int):
        scored = METHODS[SCORED_BY].scores(experiment, progress=progress)
        found = at_most(scored.circuit, within, absolute=True).circuit
    else:
        found = _given(within, graph)
    scores = found.scores if isinstance(within, int) else None  # in the metric's units: they help a search to guess
    found = without_dead_ends(graph, replace(found, scores=scores, port_scores=None, whole_nodes=False))
    if not found:
        raise EdgewiseError("the shortlist (--within) is empty: no edge in it leads to the logits; allow more")
    return found


def _nodes(within: Within, experiment: Experiment, progress: StepProgress | None) -> Circuit:
    if isinstance(within, int):
        scored = METHODS[SCORED_BY].scores(experiment, level="node", progress=progress)
        found = choose_nodes(scored.circuit, count=within, absolute=True).circuit
    else:
        found = _given(within, experiment.graph)
        if not found.whole_nodes:
            raise EdgewiseError(
                "a search of nodes (--level node) chooses among whole nodes, and the shortlist (--within) is a circuit "
                f"of {found.n_edges:,} edges; give a number of nodes, or a run that was made with --level node"
            )
    if not found:
        raise EdgewiseError("the shortlist (--within) is empty: it has no node")
    return replace(found, scores=None, port_scores=None)


def neurons_within(
    within: Within, experiment: Experiment, max_memory: int | None = None, progress: StepProgress | None = None
) -> NeuronCircuit:
    """The neurons or features that `within` stands for: the best by attribution, by size, or those of such a circuit.

    Raises:
        EdgewiseError: attribution does not fit into `max_memory`; there is no such circuit, it is of another graph or
            of edges or nodes, or it has no neuron.
    """
    level = "feature" if experiment.graph.features else "neuron"
    if isinstance(within, int):
        plan_memory(experiment.decoder, experiment.task, experiment.graph, max_memory, "gradients")
        scored = METHODS[SCORED_BY].scores(experiment, level=level, max_memory=max_memory, progress=progress)
        found = choose_neurons(scored.circuit, count=within, absolute=True).circuit
    else:
        found = _circuit_of(within)
    if not isinstance(found, NeuronCircuit):
        raise EdgewiseError(
            f"with --level {level} the shortlist (--within) is a number of {level}s, or a run that was made with "
            f"--level {level}, not a circuit of {found.size:,} {found.unit}"
        )
    found.require_graph(experiment.graph)
    if not found:
        raise EdgewiseError(f"the shortlist (--within) is empty: it has no {level}")
    return found


def _given(within: Within, graph: Graph) -> Circuit:
    circuit = _circuit_of(within)
    if isinstance(circuit, NeuronCircuit):
        raise EdgewiseError(
            f"the shortlist (--within) is a circuit of {circuit.unit}, which has every edge; give one of edges or of "
            "nodes"
        )
    if isinstance(circuit, OutputCircuit):
        raise EdgewiseError(
            "nodes of the shortlist (--within) write only some output dimensions (neurons), which no search keeps to"
        )
    return onto(circuit, graph)


def _circuit_of(within: Within) -> Circuit:
    circuit = within
    if isinstance(circuit, str | Path):
        path = Path(circuit).expanduser()
        circuit = load_scores(path) if path.suffix == ".safetensors" else read_circuit(path, "the shortlist")
    circuit = getattr(circuit, "circuit", circuit)  # a run's
    if not isinstance(circuit, Circuit):
        raise EdgewiseError(f"a shortlist is a number of edges, a circuit, a run, or the path of one, not {circuit!r}")
    return circuit


def packed_shortlist(shortlist: Circuit) -> dict[str, Any]:
    """What a record keeps of a shortlist.

    Its edges, with their scores in single precision if it has them, or the names of its neurons or features, the
    strongest first.
    """
    if not isinstance(shortlist, NeuronCircuit):
        kept: dict[str, Any] = {"n_edges": shortlist.n_edges, "edges": packed(shortlist)}
        if shortlist.whole_nodes:
            kept["n_nodes"] = shortlist.size
        if shortlist.scores is not None:
            kept["scores"] = deflated(shortlist.scores[shortlist.edges].astype("<f4").tobytes())
        return kept
    places = np.argwhere(shortlist.neurons)
    if shortlist.neuron_scores is not None:
        places = places[np.argsort(-np.abs(shortlist.neuron_scores[shortlist.neurons]), kind="stable")]
    names = [shortlist.graph.unit_name(layer, number) for layer, number in places.tolist()]
    return {f"n_{shortlist.unit}": len(names), shortlist.unit: names}


def unpacked_shortlist(kept: Any, graph: Graph, level: Level = "edge") -> Circuit:
    """The shortlist that a run's record keeps; of neurons or features, with scores that put them in the same order.

    Raises:
        EdgewiseError: it keeps something else there.
    """
    if level in ("neuron", "feature"):
        try:
            names = part({"shortlist": kept}, f"shortlist.{level}s", list, "the run record")
            found, scores = of_neuron_names(graph, names), np.zeros((graph.n_layers, graph.neurons))
            for place, name in enumerate(names):
                scores[graph.locate_unit(name)] = len(names) - place
            return replace(found, neuron_scores=scores)
        except (EdgewiseError, TypeError) as error:
            raise EdgewiseError(f"the run record is broken: 'shortlist.{level}s': {error}") from None
    try:
        found = unpacked(part({"shortlist": kept}, "shortlist.edges", str, "the run record"), graph)
        found = replace(found, whole_nodes=level == "node")
    except (EdgewiseError, ValueError) as error:
        raise EdgewiseError(f"the run record is broken: 'shortlist.edges': {error}") from None
    return found if kept.get("scores") is None else _with_scores(found, kept)


def _with_scores(found: Circuit, kept: dict[str, Any]) -> Circuit:
    text = part({"shortlist": kept}, "shortlist.scores", str, "the run record")
    try:
        data = inflated(text, 4 * int(found.edges.sum()))
        if data is None:
            raise ValueError("they are not one for each edge")
    except ValueError as error:
        raise EdgewiseError(f"the run record is broken: 'shortlist.scores': {error}") from None
    scores = np.zeros(found.edges.shape)
    scores[found.edges] = np.frombuffer(data, dtype="<f4")
    return found.with_scores(scores)
