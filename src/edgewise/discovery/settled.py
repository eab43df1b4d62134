"""Searches whose order no decision changes: of nodes (node_search.py), of neurons and features (neuron_search.py)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgewise.discovery.found import Progress, ProgressCallback
from edgewise.discovery.journal import Journal
from edgewise.discovery.rule import Rule
from edgewise.discovery.walking import SearchWalk
from edgewise.errors import unknown
from edgewise.graph import Decision
from edgewise.graph.graph import Bools
from edgewise.patching import Engine, Experiment

StartedFactory = Callable[[Experiment, Bools, "int | None"], Engine]
"""What makes an engine for an experiment, what is present, and bytes that it may use."""


def engine_maker(
    engine: str | StartedFactory,
    engines: Mapping[str, StartedFactory],
    experiment: Experiment,
    max_memory: int | None,
) -> Callable[[Bools], Engine]:
    """What makes the engine that was asked for, one of `engines` by name or another, for what is present.

    Raises:
        EdgewiseError: there is no engine of that name.
    """
    if isinstance(engine, str) and engine not in engines:
        raise unknown("engine", engine, engines)
    make = engines[engine] if isinstance(engine, str) else engine
    return lambda present: make(experiment, present, max_memory)


class SettledWalk(SearchWalk):
    """A search whose order no decision changes, over what has a name and is present or not.

    Attributes:
        walk: columns in the order of the search, each with rows that are tried one after another.
        present, scores: what is present now, and the effects measured, each at its `_index`.
    """

    def __init__(
        self,
        experiment: Experiment,
        rule: Rule,
        passes: int,
        progress: ProgressCallback | None,
        journal: Journal | None,
        *,
        unit: str,
        walk: Sequence[tuple[int, Sequence[int]]],
        present: Bools,
        make: Callable[[Bools], Engine],
    ) -> None:
        super().__init__(experiment, rule, passes, progress, journal)
        self.unit, self.walk, self._make = unit, walk, make
        self.present, self.scores = present.copy(), np.zeros(present.shape)

    @abstractmethod
    def _index(self, row: int, column: int) -> Any:
        """Where `present` and `scores` have it."""

    def left(self) -> int:
        return int(self.present.sum())

    def _begin_pass(self) -> None:
        super()._begin_pass()
        column, rows = self.walk[0]
        self.at = self._name(rows[0], column)

    def _make_engine(self) -> Engine:
        return self._make(self.present)

    def _walk(self) -> None:
        for column, rows in self.walk:
            self._try([row for row in rows if self.present[self._index(row, column)]], column)

    def _take(self, decision: Decision, row: int | None, column: int) -> None:
        super()._take(decision, row, column)
        self.at = decision.edge

    def _write(self, row: int | None, column: int) -> None:
        super()._write(row, column)
        assert row is not None
        at, decision = self._index(row, column), self.trace[-1]
        self.present[at], self.scores[at] = decision.kept, decision.effect

    def progress_at(self, name: str) -> Progress:
        left = float(self.count - self.decided)
        return replace(super().progress_at(name), to_come=(left, left, 1.0))
