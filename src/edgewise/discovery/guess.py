"""Guess, then check: the decisions of a one-by-one search, from measurements made many at a time.

Most edges go. So a block of candidates is measured at once, each as if the guesses before it were right; answers are
taken in order until the first wrong guess. What is left of a block that was cut short stood on a wrong footing, but
makes the best guess for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgewise.patching import Engine, Removed

Removable = Callable[[float, float], bool]
"""Whether an edge goes, from the metric with it and without it."""

Answer = tuple[int | None, float, float, bool]
"""An edge's row (None for the port edge), the metric before and after, and whether it is gone."""


def decide(
    engine: Engine, column: int, rows: Sequence[int | None], current: float, removable: Removable
) -> Iterator[Answer]:
    """Try edges into one input in order, and remove those that may go: `removable(before, after)`.

    Args:
        rows: of the edge matrix; `[None]` for the port edge.
        current: the metric of what is present now.
    """
    if list(rows) == [None]:
        (after,) = engine.measure(column, [(None,)])
        gone = removable(current, after)
        if gone:
            engine.commit(column, (None,))
        yield None, current, after, gone
        return
    stays: set[int | None] = set()  # rows that a block cut short has shown to matter
    remaining, block = list(rows), engine.at_once(column)
    while remaining:
        tried = remaining[:block]
        guesses = [row not in stays for row in tried]
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
        for row, after in zip(tried[done:], metrics[done:], strict=True):
            guessed_gone = row not in stays
            (stays.discard if removable(footing, after) else stays.add)(row)
            footing = after if guessed_gone else footing
        remaining = remaining[done:]
        block = min(engine.at_once(column), 2 * block if done == len(tried) else max(4, done)) if remaining else 0


def _candidates(rows: Sequence[int | None], guesses: Sequence[bool]) -> list[Removed]:
    """Each row gone, with those before it that are guessed to go."""
    gone: Removed = ()
    candidates = []
    for row, guess in zip(rows, guesses, strict=True):
        candidates.append((*gone, row))
        gone = candidates[-1] if guess else gone
    return candidates
