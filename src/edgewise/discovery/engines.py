"""Engines by name, and engines that start from a circuit instead of the whole model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from edgewise.discovery.order import visits
from edgewise.graph import Circuit
from edgewise.patching import Engine, Experiment, IncrementalEngine, PlainEngine, PrunedEngine

EngineFactory = Callable[[Experiment, int | None], Engine]
"""Makes an engine for an experiment that may use so many bytes, or None."""


class StartsFromCircuit(ABC):
    """What makes engines, as an `EngineFactory` does, and can start them from any circuit itself."""

    @abstractmethod
    def __call__(self, experiment: Experiment, max_memory: int | None, start: Circuit | None = None) -> Engine:
        """An engine in which the edges of `start` are present, by default all."""


ENGINES: dict[str, EngineFactory] = {
    "incremental": IncrementalEngine,
    "plain": PlainEngine,
}
"""Engines by name."""

DEFAULT_ENGINE = "incremental"


def make_engine(
    engine: str | EngineFactory, experiment: Experiment, max_memory: int | None, start: Circuit | None = None
) -> Engine:
    """An engine in which the edges of `start` are present, by default all.

    One of a user's own is told which edges are not before it is asked anything, input after input in the order of the
    search; then that order begins again.
    """
    if isinstance(engine, StartsFromCircuit):
        return engine(experiment, max_memory, start)
    if start is None or start == Circuit.full(experiment.graph):
        return (ENGINES[engine] if isinstance(engine, str) else engine)(experiment, max_memory)
    if engine == "incremental":
        return PrunedEngine(experiment, start, max_memory)
    made = make_engine(engine, experiment, max_memory)
    gone = ~start
    for visit in visits(experiment.graph):
        if visit.kind == "port" and gone.ports[visit.column]:
            made.commit(visit.column, (None,))
        elif visit.kind == "input" and gone.edges[:, visit.column].any():
            made.commit(visit.column, tuple(gone.edges[:, visit.column].nonzero()[0].tolist()))
    return made
