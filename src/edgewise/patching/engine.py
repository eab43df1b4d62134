"""What a search asks of an engine, and the engine that judges all others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from edgewise.graph import Circuit
from edgewise.graph.graph import Bools
from edgewise.models.precision import in_float64
from edgewise.patching.experiment import Experiment

Removed = tuple[int | None, ...]
"""Edges into one input that go together: rows of the edge matrix, in order; None for the port edge."""


class Engine(Protocol):
    """Measures circuits for a search, and knows neither threshold nor rule. All edges are present when it starts.

    A search asks about inputs in the order in which it goes through them, later ones first, and an input's port edge
    before the edges into it.
    """

    def at_once(self, column: int) -> int:
        """How many candidates of an input are best asked about at once."""
        ...

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        """The metric of what is present now without some edges into one input, for each candidate by itself.

        The empty candidate is what is present now. The port edge is asked about alone.
        """
        ...

    def commit(self, column: int, removed: Removed) -> None:
        """Remove edges into one input for good."""
        ...


class PlaceEngine(Engine, Protocol):
    """An engine that can also say what a candidate comes to at each place, as those of edgewise's own can."""

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """What `measure` takes the mean of: `[candidates, scored]`, in float64."""
        ...


def means(values: Tensor) -> list[float]:
    """The metric of each candidate, from its values at the scored places `[candidates, scored]`, in float64."""
    return values.mean(dim=1).tolist()


class PlainRuns(ABC):
    """One whole circuit run per candidate: slow, simple, and the judge of faster engines."""

    experiment: Experiment

    @abstractmethod
    def without(self, column: int, removed: Removed) -> Circuit:
        """The circuit that is present now without what a candidate says."""

    def at_once(self, column: int) -> int:
        return 1

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        return [self.experiment.value(self.without(column, removed)) for removed in candidates]

    def values(self, column: int, candidates: Sequence[Removed]) -> Tensor:
        """See `PlaceEngine`."""
        return torch.stack([in_float64(self.experiment.values(self.without(column, one))) for one in candidates])


class PlainEngine(PlainRuns):
    """Plain runs of circuits of edges."""

    def __init__(self, experiment: Experiment, max_memory: int | None = None) -> None:
        self.experiment = experiment.within(max_memory)
        self.edges = experiment.graph.edges.copy()
        self.ports = experiment.graph.port_edges.copy()

    def without(self, column: int, removed: Removed) -> Circuit:
        edges, ports = self.edges.copy(), self.ports.copy()
        _remove(edges, ports, column, removed)
        return Circuit(self.experiment.graph, edges, ports)

    def commit(self, column: int, removed: Removed) -> None:
        _remove(self.edges, self.ports, column, removed)


def _remove(edges: Bools, ports: Bools, column: int, removed: Removed) -> None:
    for row in removed:
        if row is None:
            ports[column] = False
        else:
            edges[row, column] = False
