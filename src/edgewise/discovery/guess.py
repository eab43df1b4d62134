"""Guess, then check: the decisions of a one-by-one search, from measurements made many at a time.

A block of candidates is measured at once, each as if the guesses before it were right; answers are taken in order until
the first wrong guess. What is left of a block that was cut short stood on a wrong footing, but makes the best guess for
the next one. What is guessed, and how many candidates a block is best made of, follows from how likely each edge is to
stay (foresight.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgewise.discovery.foresight import Foresight
from edgewise.patching import Engine, Removed

Removable = Callable[[float, float], bool]
"""Whether an edge goes, from the metric with it and without it."""

Answer = tuple[int | None, float, float, bool]
"""An edge's row (None for the port edge), the metric before and after, and whether it is gone."""

SURE = 0.97
"""How often an edge goes or stays as it would have on a wrong footing."""


ONE_CANDIDATE = 1.0
"""What a block costs beside its candidates, in candidates, with an engine whose `block_costs` does not say."""


def decide(
    engine: Engine,
    column: int,
    rows: Sequence[int | None],
    current: float,
    removable: Removable,
    foresight: Foresight,
) -> Iterator[Answer]:
    """Try edges into one input in order, and remove those that may go: `removable(before, after)`.

    Args:
        rows: of the edge matrix; `[None]` for the port edge.
        current: the metric of what is present now.
        foresight: how likely each is to stay; whoever takes the answers tells it of them.
    """
    if list(rows) == [None]:
        (after,) = engine.measure(column, [(None,)])
        gone = removable(current, after)
        if gone:
            engine.commit(column, (None,))
        yield None, current, after, gone
        return
    known: dict[int | None, float] = {}  # how likely rows are to stay that a block cut short has measured
    remaining, start = list(rows), getattr(engine, "block_costs", ONE_CANDIDATE)
    while remaining:
        tried = remaining[: engine.at_once(column)]
        stays = [known[row] if row in known else foresight.chance(row, column) for row in tried]
        tried = tried[: best_length(stays, start)]
        guesses = [chance < 0.5 for chance in stays[: len(tried)]]
        metrics = engine.measure(column, _candidates(tried, guesses))
        footing = current  # the metric of what the next row of the block was computed on
        removed: Removed = ()
        answers: list[Answer] = []
        for row, after, guess in zip(tried, metrics, guesses, strict=True):
            before, gone = current, removable(current, after)
            answers.append((row, before, after, gone))
            if gone:
                current, removed = after, (*removed, row)
            footing = after if guess else footing
            if gone != guess:
                break
        done = len(answers)
        engine.commit(column, removed)
        yield from answers
        for row, after, guess in zip(tried[done:], metrics[done:], guesses[done:], strict=True):
            known[row] = 1 - SURE if removable(footing, after) else SURE
            footing = after if guess else footing
        remaining = remaining[done:]


def best_length(stays: Sequence[float], start: float) -> int:
    """How many candidates of a block give most answers for what it costs.

    Args:
        stays: how likely each is to stay; the likelier of the two is guessed.
        start: what a block costs besides, in candidates.
    """
    length, best, answers, reached = 1, 0.0, 0.0, 1.0
    for number, chance in enumerate(stays, start=1):
        answers += reached  # it is an answer if all guesses before it were right
        if answers / (start + number) >= best:
            length, best = number, answers / (start + number)
        reached *= max(chance, 1 - chance)
    return length


def _candidates(rows: Sequence[int | None], guesses: Sequence[bool]) -> list[Removed]:
    """Each row gone, with those before it that are guessed to go."""
    gone: Removed = ()
    candidates = []
    for row, guess in zip(rows, guesses, strict=True):
        candidates.append((*gone, row))
        gone = candidates[-1] if guess else gone
    return candidates
