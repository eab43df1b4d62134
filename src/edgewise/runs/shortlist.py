"""Shortlists: the edges that a search chooses from, where those are not all of the graph's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.discovery import METHODS, StepProgress, at_most, without_dead_ends
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.graph.convert import onto
from edgewise.json_files import part
from edgewise.patching import Experiment
from edgewise.runs.given import read_circuit
from edgewise.runs.run import Run
from edgewise.runs.scores import load_scores
from edgewise.runs.series import unpacked

Within = int | str | Path | Circuit | Run
"""What a search chooses from."""
SCORED_BY = "edge-attribution-ig"
"""The method that scores edges for a shortlist of so many."""


def shortlist_of(within: Within, experiment: Experiment, *, progress: StepProgress | None = None) -> Circuit:
    """The edges that `within` stands for, without those that lead to nothing.

    A number stands for the circuit of at most so many edges, port edges counted, whose scores by edge attribution with
    integrated gradients are largest in size (`at_most`): an edge without which the metric is lower may be one that
    others are needed to make up for. Anything else holds a circuit over the experiment's graph; one without port edges
    gets those of the inputs that read something.

    Raises:
        EdgewiseError: there is no such circuit, it is of another graph, or nothing is in it.
    """
    graph = experiment.graph
    if isinstance(within, int):
        scored = METHODS[SCORED_BY].scores(experiment, progress=progress)
        found = at_most(scored.circuit, within, absolute=True).circuit
    else:
        found = _given(within, graph)
    found = without_dead_ends(graph, replace(found, scores=None, port_scores=None))
    if not found:
        raise EdgewiseError("the shortlist (--within) is empty: no edge in it leads to the logits; allow more")
    return found


def _given(within: Within, graph: Graph) -> Circuit:
    circuit = within
    if isinstance(circuit, str | Path):
        path = Path(circuit).expanduser()
        circuit = load_scores(path) if path.suffix == ".safetensors" else read_circuit(path, "the shortlist")
    circuit = getattr(circuit, "circuit", circuit)  # a run's
    if not isinstance(circuit, Circuit):
        raise EdgewiseError(f"a shortlist is a number of edges, a circuit, a run, or the path of one, not {circuit!r}")
    return onto(circuit, graph)


def unpacked_shortlist(kept: Any, graph: Graph) -> Circuit:
    """The shortlist that a run's record keeps.

    Raises:
        EdgewiseError: it keeps something else there.
    """
    try:
        return unpacked(part({"shortlist": kept}, "shortlist.edges", str, "the run record"), graph)
    except ValueError as error:
        raise EdgewiseError(f"the run record is broken: 'shortlist.edges': {error}") from None
