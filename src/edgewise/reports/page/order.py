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
    span = np.arange(len(graph.inputs)) % graph.n_spans
    forward = np.full((len(graph.sources), graph.n_spans), -np.inf)
    forward[: graph.n_embeddings] = np.inf
    everywhere = np.array([graph.seen_through(column) == slice(None) for column in range(len(graph.inputs))])
    for row in range(graph.n_embeddings, len(graph.sources)):
        columns = list(graph.inputs_moving(graph.sources[row]))
        reached = np.minimum(strength[:, columns], forward[:, span[columns]]).max(axis=0)
        np.maximum.at(forward[row], span[columns], reached)
        forward[row] = np.maximum(forward[row], reached[everywhere[columns]].max(initial=-np.inf))
    backward = np.full(len(graph.inputs), -np.inf)
    logits = graph.columns("logits")
    backward[logits] = np.inf
    for column in range(logits.start - 1, -1, -1):
        rows, seen = list(graph.nodes_moved_by(graph.inputs[column])), graph.seen_through(column)
        backward[column] = np.minimum(strength[rows, seen], backward[None, seen]).max()
    edges = np.minimum(np.minimum(strength, forward[:, span]), backward[None, :])
    ports = np.where(graph.port_edges, edges.max(axis=0), -np.inf)
    return Entering(edges, ports)


def entering_nodes(graph: Graph, strength: Floats) -> Entering:
    """When each node enters, by its edge to the logits; the embedding comes with the first of the others."""
    own = np.where(graph.edges[:, -1], strength[:, -1], -np.inf)
    own[: graph.n_embeddings] = own[graph.n_embeddings :].max(initial=-np.inf)
    edges = np.full(graph.edges.shape, -np.inf)
    edges[:, -1] = own
    return Entering(edges, np.full(len(graph.inputs), -np.inf))


@dataclass(frozen=True)
class Replay:
    """ACDC's search again, from its trace.

    Attributes:
        gone: `[sources, inputs]`, after how many decisions an edge is no longer there, 0 where the search began without
            it; -1 where it stays.
        ports_gone: `[inputs]`, the same for port edges.
        present: edges there after 0, 1, 2, … decisions, port edges counted.
        metric: the metric then.
        passes: after how many decisions each pass began.
    """

    gone: NDArray[np.int64]
    ports_gone: NDArray[np.int64]
    present: list[int]
    metric: list[float]
    passes: list[int]


def replay(circuit: Circuit, steps: Sequence[Decision], metric_full: float, start: Circuit | None = None) -> Replay:
    """When each edge went: at its own decision, or untested, when the search came to a reader that nothing read.

    Args:
        circuit: what the search found, or had left when it was stopped.
        steps: its decisions, pass after pass.
        start: the edges it chose from; by default all of the graph's.
    """
    graph = circuit.graph
    gone = np.full(graph.edges.shape, -1, dtype=np.int64)
    ports_gone = np.full(graph.port_edges.shape, -1, dtype=np.int64)
    if start is not None:
        gone[graph.edges & ~start.edges] = 0
        ports_gone[graph.port_edges & ~start.ports] = 0
    passes = _walk_again(graph, steps, gone, ports_gone)
    # The last word is the circuit's: a trace may end before the walk does.
    gone[circuit.edges], ports_gone[circuit.ports] = -1, -1
    gone[graph.edges & ~circuit.edges & (gone < 0)] = len(steps)
    ports_gone[graph.port_edges & ~circuit.ports & (ports_gone < 0)] = len(steps)
    went = np.concatenate([gone[graph.edges], ports_gone[graph.port_edges]])
    falls = np.bincount(went[went >= 0], minlength=len(steps) + 1)[: len(steps) + 1]
    present = (graph.n_edges - np.cumsum(falls)).tolist()
    metric = [metric_full if not steps else steps[0].before]
    metric += [step.before if step.kept else step.after for step in steps]
    return Replay(gone, ports_gone, present, metric, passes)


def replay_nodes(
    circuit: Circuit, steps: Sequence[Decision], metric_full: float, start: Circuit | None = None
) -> Replay:
    """The same of a search of whole nodes, each of which is its edge to the logits here; other edges are none."""
    graph = circuit.graph
    gone = np.zeros(graph.edges.shape, dtype=np.int64)
    gone[:, -1] = -1 if start is None else np.where(start.edges[:, -1], -1, 0)
    passes: list[int] = []
    seen: set[str] = set()
    for now, step in enumerate(steps):
        if not passes or step.edge in seen:
            passes.append(now)
            seen = set()
        seen.add(step.edge)
        row, _ = graph.locate(step.edge)
        if not step.kept and row is not None:
            gone[row, -1] = now + 1
    went = gone[:, -1]
    falls = np.bincount(went[went >= 0], minlength=len(steps) + 1)[: len(steps) + 1]
    present = (len(graph.sources) - np.cumsum(falls)).tolist()
    metric = [metric_full if not steps else steps[0].before]
    metric += [step.before if step.kept else step.after for step in steps]
    return Replay(gone, np.zeros(len(graph.inputs), dtype=np.int64), present, metric, passes)


def _walk_again(
    graph: Graph, steps: Sequence[Decision], gone: NDArray[np.int64], ports_gone: NDArray[np.int64]
) -> list[int]:
    """Fill in what went when, and give after how many decisions each pass began.

    What a pass goes by without testing it is dead, and goes then; what it had not come to when the trace ends stays.
    """
    at = [graph.locate(step.edge) for step in steps]
    order = [visit for visit in visits(graph) if visit.kind != "node"]
    passes: list[int] = []
    now = 0
    while now < len(steps):
        passes.append(now)
        seen: set[str] = set()
        for visit in order:
            column = gone[:, visit.column] if visit.kind == "input" else ports_gone[visit.column : visit.column + 1]
            before = now
            while now < len(steps) and steps[now].edge not in seen:
                row, place = at[now]
                if place != visit.column or (row is None) != (visit.kind == "port"):
                    break
                seen.add(steps[now].edge)
                now += 1
                if not steps[now - 1].kept:
                    column[0 if row is None else row] = now
            if now == len(steps):
                return passes
            if now == before:
                column[column < 0] = now
        if now == passes[-1]:  # no search's trace: it tests what is not there to be tested
            break
    return passes
