"""One search over several workers, each of which has the model: the same decisions, sooner.

The search asks `SpreadEngine` what it would ask any engine. What is asked at once is cut into pieces, workers measure
them side by side, each with an engine of its own, and answers come back in the order of what was asked. What has gone
is kept as a list of steps, in the search's order. Every question carries those that its worker has not been told, and
none is told anything else, so all engines are in one state, and a worker that takes the place of one that died comes to
it, too.

How a block is cut does not depend on how many workers there are, and what a worker answers depends on piece and steps
alone. So any number of workers, dead ones included, gives the same bits. One engine by itself measures larger pieces,
which round otherwise in the last digits: decisions are the same but for near ties.

Where there are many prompts, they can be shared out instead: each worker has some rows, and answers with the values at
their scored places, of which the mean is taken in the order of the rows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edgewise.discovery.engines import StartsFromCircuit, make_engine
from edgewise.discovery.node_search import NODE_ENGINES
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.graph.graph import Bools
from edgewise.patching import Engine, Experiment, OutOfMemoryError, Removed
from edgewise.patching.engine import PlaceEngine, means
from edgewise.patching.memory import MOST_CANDIDATES

PIECES = 8
"""Pieces that what is asked at once is cut into: so many workers at most have something to do."""

MOST_DEATHS = 5
"""Workers that may die of one question, one after another, before the search is given up."""

Step = tuple[int, Removed | None]
"""Edges that went at an input; None where the search began to ask about it."""

Piece = tuple[Removed, ...]
MakeEngine = Callable[[Experiment], Engine]


@dataclass(frozen=True)
class Question:
    """What a worker is asked.

    Attributes:
        make: makes the engine of a search that begins; None where it goes on.
        steps: what the search has done since this worker's last question.
        column: an input (a component, where nodes are searched).
        pieces: what to measure there, each by itself.
    """

    make: MakeEngine | None
    steps: tuple[Step, ...]
    column: int
    pieces: tuple[Piece, ...]


Answer = list[np.ndarray] | EdgewiseError
"""Of each piece the metric, `[candidates]`, or, where prompts are shared out, its values at the worker's scored places,
`[candidates, scored]`. Or why there is none."""


class WorkerDied(Exception):  # noqa: N818 - nothing went wrong that a user could mend
    """A worker is gone, with what it was asked."""


class Workers(Protocol):
    """Workers by number, each of which has an `Answering`; Ray's are in runs/workers.py.

    Attributes:
        places: where prompts are shared out, of each worker the scored places of its rows, by number; else None.
    """

    places: Sequence[Tensor] | None

    def __len__(self) -> int: ...

    def ask(self, worker: int, question: Question) -> None:
        """Give a worker something to do, and do not wait for it."""
        ...

    def answer(self, worker: int) -> Answer:
        """Wait for the answer to what it was asked last.

        Raises:
            WorkerDied: there will be none.
        """
        ...

    def replace(self, worker: int) -> None:
        """Put a worker that knows nothing yet in the place of one that died."""
        ...


class Answering:
    """What a worker does: it has an experiment, and an engine that is told what the search does."""

    def __init__(self, experiment: Experiment, *, by_place: bool = False) -> None:
        """
        Args:
            experiment: of the worker's rows.
            by_place: whether answers are values at places.
        """
        self.experiment, self.by_place = experiment, by_place
        self.engine: Engine | None = None

    def answer(self, question: Question) -> Answer:
        try:
            if question.make is not None:
                self.engine = None  # its memory is free before another is made
                self.engine = question.make(self.experiment)
            assert self.engine is not None
            for column, removed in question.steps:
                if removed is None:
                    self.engine.at_once(column)
                else:
                    self.engine.commit(column, removed)
            return [self._measure(question.column, piece) for piece in question.pieces]
        except EdgewiseError as error:
            return error

    def _measure(self, column: int, piece: Piece) -> np.ndarray:
        assert self.engine is not None
        step, found = max(1, self.engine.at_once(column)), []
        for first in range(0, len(piece), step):
            some = piece[first : first + step]
            if self.by_place:
                engine: PlaceEngine = self.engine  # type: ignore[assignment] - edgewise's own are
                found.append(engine.values(column, some).cpu().numpy())
            else:
                found.append(np.array(self.engine.measure(column, some)))
        return np.concatenate(found)


class SpreadEngine:
    """An engine whose measurements are made by several workers (see `patching.Engine`).

    Attributes:
        steps: what the search has done so far.
        died: how many workers have been replaced.
    """

    def __init__(self, workers: Workers, make: MakeEngine) -> None:
        self.workers, self.make = workers, make
        self.steps: list[Step] = []
        self.told = [-1] * len(workers)  # how many of the steps each knows; -1: not even that a search has begun
        self.opened: int | None = None
        self.died = 0

    def at_once(self, column: int) -> int:
        """How many candidates to ask about at once; a worker cuts its own further, if its memory says so."""
        self._open(column)
        return MOST_CANDIDATES

    def _open(self, column: int) -> None:
        """The search asks about an input from here on."""
        if column != self.opened:
            self.steps.append((column, None))
            self.opened = column

    def measure(self, column: int, candidates: Sequence[Removed]) -> list[float]:
        """See `patching.Engine`.

        Raises:
            OutOfMemoryError: a worker has no room, or one after another died of the same question.
        """
        self._open(column)
        if self.workers.places is not None:
            values = self._answers(column, [(tuple(candidates),)] * len(self.workers))
            return means(_in_order([torch.tensor(one[0]) for one in values], self.workers.places))
        answers = self._answers(column, shared_out(candidates, len(self.workers)))
        return [value for one in answers for piece in one for value in piece.tolist()]

    def commit(self, column: int, removed: Removed) -> None:
        """See `patching.Engine`."""
        if removed:
            self.steps.append((column, removed))

    def _answers(self, column: int, pieces: Sequence[tuple[Piece, ...]]) -> list[list[np.ndarray]]:
        """What each worker says of its pieces; one that has none is told the steps all the same."""
        for worker, own in enumerate(pieces):
            self._ask(worker, column, own)
        return [self._answer(worker, column, own) for worker, own in enumerate(pieces)]

    def _ask(self, worker: int, column: int, pieces: tuple[Piece, ...]) -> None:
        told = self.told[worker]
        steps = tuple(self.steps[max(told, 0) :])
        self.workers.ask(worker, Question(self.make if told < 0 else None, steps, column, pieces))
        self.told[worker] = len(self.steps)

    def _answer(self, worker: int, column: int, pieces: tuple[Piece, ...]) -> list[np.ndarray]:
        for left in reversed(range(MOST_DEATHS + 1)):
            try:
                answer = self.workers.answer(worker)
            except WorkerDied as death:
                if not left:
                    raise OutOfMemoryError(  # the likeliest reason; and what was decided is kept
                        f"{MOST_DEATHS + 1} workers died one after another of the same question, most likely for want "
                        f"of memory ({death}). Use fewer workers on a machine, or fewer prompts with --examples"
                    ) from None
                self.died += 1
                self.workers.replace(worker)
                self.told[worker] = -1
                self._ask(worker, column, pieces)
            else:
                if isinstance(answer, EdgewiseError):
                    raise answer
                return answer
        raise AssertionError("it answers, or dies once too often")


def shared_out(candidates: Sequence[Removed], workers: int) -> list[tuple[Piece, ...]]:
    """Candidates in pieces that do not depend on how many workers there are, some that follow each other for each."""
    size = max(1, -(-len(candidates) // PIECES))
    pieces = [tuple(candidates[first : first + size]) for first in range(0, len(candidates), size)]
    each, more = divmod(len(pieces), workers)
    firsts = [number * each + min(number, more) for number in range(workers + 1)]
    return [tuple(pieces[first:stop]) for first, stop in itertools.pairwise(firsts)]


def _in_order(values: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Each worker's values `[candidates, its places]` in the places of all, `[candidates, scored]`."""
    every = torch.empty(len(values[0]), sum(map(len, places)), dtype=torch.float64)
    for own, at in zip(values, places, strict=True):
        every[:, at] = own
    return every


def shards(experiment: Experiment, count: int) -> tuple[list[Experiment], list[Tensor]]:
    """An experiment in so many parts, each of some rows, and the scored places of each.

    Raises:
        EdgewiseError: there are fewer rows than parts, or one has no scored place.
    """
    prompts, rows = experiment.task.prompts, len(experiment.task)
    if rows < count:
        raise EdgewiseError(f"{rows} prompts cannot be shared out among {count} workers; use fewer, or candidates")
    firsts = [number * rows // count for number in range(count + 1)]
    bounds = list(itertools.pairwise(firsts))
    scored = prompts.scored_rows.cpu()
    places = [((scored >= first) & (scored < stop)).nonzero()[:, 0] for first, stop in bounds]
    if not all(map(len, places)):
        raise EdgewiseError(f"with {count} workers one would have prompts without a scored place; use fewer")
    return [experiment.of_rows(first, stop) for first, stop in bounds], places


class Spread(StartsFromCircuit):
    """What makes engines over workers, for `acdc(engine=...)` and `acdc_by_node(engine=...)`.

    Attributes:
        workers: theirs has to be the experiment that is searched.
        engine: what each of them measures with, by name.
        max_memory: bytes that each may use beyond the model's weights, unless the search says so.
    """

    def __init__(self, workers: Workers, engine: str, max_memory: int | None = None) -> None:
        self.workers, self.engine, self.max_memory = workers, engine, max_memory

    def __call__(self, experiment: Experiment, max_memory: int | None, start: Circuit | None = None) -> SpreadEngine:
        """An engine in which the edges of `start` are present, by default all."""
        limit = self.max_memory if max_memory is None else max_memory
        return SpreadEngine(
            self.workers, functools.partial(_edge_engine, engine=self.engine, max_memory=limit, start=start)
        )

    def of_nodes(self, experiment: Experiment, start: Bools, max_memory: int | None) -> SpreadEngine:
        """An engine for a search by nodes, in which those of `start` are present."""
        limit = self.max_memory if max_memory is None else max_memory
        return SpreadEngine(
            self.workers, functools.partial(_node_engine, engine=self.engine, max_memory=limit, start=start.copy())
        )


def _edge_engine(experiment: Experiment, *, engine: str, max_memory: int | None, start: Circuit | None) -> Engine:
    return make_engine(engine, experiment, max_memory, start)


def _node_engine(experiment: Experiment, *, engine: str, max_memory: int | None, start: Bools) -> Engine:
    return NODE_ENGINES[engine](experiment, start, max_memory)
