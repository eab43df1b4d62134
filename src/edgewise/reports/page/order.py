"""In what order edges come and go: a score's threshold falling, or ACDC's decisions one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.discovery import visits
from edgewise.graph import Circuit, Decision, Graph
from edgewise.graph.circuit import Floats


@dataclass(frozen=True)
class Entering:
    """The highest threshold at which each edge is in the circuit that by-threshold selection gives.

    An edge is in as soon as it, and every edge on some path through it from the embedding to the logits, is strong
    enough: so this is the widest such path's weakest edge. -inf where no path leads through it.

    Attributes:
        edges: `[sources, inputs]`; ports: `[inputs]`, a port edge coming with the first edge behind it.
    """

    edges: Floats
    ports: Floats

    def sizes(self, thresholds: Sequence[float]) -> list[int]:
        """Edges of the circuit at each threshold, port edges counted."""
        every = np.sort(np.concatenate([self.edges.ravel(), self.ports.ravel()]))
        return [int(len(every) - np.searchsorted(every, threshold, side="left")) for threshold in thresholds]

    def at(self, graph: Graph, threshold: float) -> Circuit:
        """The circuit at a threshold."""
        return Circuit(graph, self.edges >= threshold, self.ports >= threshold)


def entering(graph: Graph, strength: Floats) -> Entering:
    """When each edge enters as the threshold on `strength` `[sources, inputs]` falls."""
    strength = np.where(graph.edges, strength, -np.inf)
    forward = np.full(len(graph.sources), -np.inf)
    forward[: graph.n_embeddings] = np.inf
    for row in range(graph.n_embeddings, len(graph.sources)):
        columns = list(graph.inputs_of(graph.sources[row]))
        forward[row] = np.minimum(strength[:, columns], forward[:, None]).max()
    backward = np.full(len(graph.inputs), -np.inf)
    backward[-1] = np.inf
    for column in range(len(graph.inputs) - 2, -1, -1):
        rows = list(graph.nodes_reading(graph.inputs[column]))
        backward[column] = np.minimum(strength[rows], backward[None, :]).max()
    edges = np.minimum(np.minimum(strength, forward[:, None]), backward[None, :])
    ports = np.where(graph.port_edges, edges.max(axis=0), -np.inf)
    return Entering(edges, ports)


@dataclass(frozen=True)
class Replay:
    """ACDC's search again, from its trace.

    Attributes:
        gone: `[sources, inputs]`, after how many decisions an edge is no longer there; -1 where it stays.
        ports_gone: `[inputs]`, the same for port edges.
        present: edges there after 0, 1, 2, … decisions, port edges counted.
        metric: the metric then.
    """

    gone: NDArray[np.int64]
    ports_gone: NDArray[np.int64]
    present: list[int]
    metric: list[float]


def replay(circuit: Circuit, steps: Sequence[Decision], metric_full: float) -> Replay:
    """When each edge went: at its own decision, or untested, when the search came to a reader that nothing read."""
    graph = circuit.graph
    gone = np.full(graph.edges.shape, -1, dtype=np.int64)
    ports_gone = np.full(graph.port_edges.shape, -1, dtype=np.int64)
    decided = {step.edge: index for index, step in enumerate(steps, start=1)}
    last_at: dict[tuple[str, int], int] = {}
    for step in steps:
        row, column = graph.locate(step.edge)
        index = decided[step.edge]
        last_at["port" if row is None else "input", column] = index
        if step.kept:
            continue
        if row is None:
            ports_gone[column] = index
        else:
            gone[row, column] = index
    now = 0
    for visit in visits(graph):
        if visit.kind == "node":
            continue
        now = max(now, last_at.get((visit.kind, visit.column), 0))
        if visit.kind == "port":
            if not circuit.ports[visit.column] and ports_gone[visit.column] < 0:
                ports_gone[visit.column] = now
        else:
            untested = graph.edges[:, visit.column] & ~circuit.edges[:, visit.column] & (gone[:, visit.column] < 0)
            gone[untested, visit.column] = now
    went = np.concatenate([gone[graph.edges], ports_gone[graph.port_edges]])
    falls = np.bincount(went[went >= 0], minlength=len(steps) + 1)[: len(steps) + 1]
    present = (graph.n_edges - np.cumsum(falls)).tolist()
    metric = [metric_full if not steps else steps[0].before]
    metric += [step.before if step.kept else step.after for step in steps]
    return Replay(gone, ports_gone, present, metric)
