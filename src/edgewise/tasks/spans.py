"""Spans: groups of positions that a search may tell apart, each with a name, in every prompt of a task.

An edge is then present at some spans and absent at others. A position is in one span; the real positions that a task
names none for are together in the span `rest`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, unknown
from edgewise.graph.names import REST
from edgewise.tasks.task import Prompts, Task

Positions = Literal["together", "each", "spans"]
"""Whether edges tell positions apart: not at all, every position, or the task's spans."""
POSITIONS: tuple[Positions, ...] = get_args(Positions)


def numbered(prompts: Prompts, rows: Sequence[Mapping[str, range]]) -> tuple[tuple[str, ...], Tensor]:
    """Names and numbers of spans (see `Prompts.spans`) from where each prompt has them, in tokens of the clean prompt.

    Names stand in the order in which the prompts have them, on average.

    Raises:
        EdgewiseError: a prompt lacks a span that others have, one lies outside its prompt, or two overlap.
    """
    names = [*rows[0]]
    length = prompts.mask.sum(dim=1).tolist()
    at = torch.where(prompts.mask, len(names), -1).cpu()
    for number, row in enumerate(rows):
        if set(row) != set(names):
            lacks, other = (names, row) if set(names) - set(row) else (row, names)
            name = next(one for one in lacks if one not in other)
            which = (number + 1, 1) if other is row else (1, number + 1)
            raise EdgewiseError(f"prompt {which[0]} has no span {name!r}, which prompt {which[1]} has")
        for index, name in enumerate(names):
            places = row[name]
            if not places or not 0 <= places.start < places.stop <= length[number]:
                raise EdgewiseError(
                    f"span {name!r} of prompt {number + 1} is {_words(places)}, where the prompt has the tokens 0 to "
                    f"{length[number] - 1}"
                )
            taken = at[number, places.start : places.stop]
            if bool((taken < len(names)).any()):
                other = names[int(taken.min())]
                raise EdgewiseError(f"spans {other!r} and {name!r} of prompt {number + 1} overlap")
            at[number, places.start : places.stop] = index
    used = [*names, REST] if bool((at == len(names)).any()) else names
    if REST in names:
        raise EdgewiseError(f"a span is called {REST!r}, which is what those positions are called that are in none")
    middle = torch.arange(at.shape[1], dtype=torch.float64).expand_as(at)
    order = sorted(range(len(used)), key=lambda index: (float(middle[at == index].mean()), index))
    new = torch.tensor([order.index(index) if index in order else -1 for index in range(len(names) + 1)] + [-1])
    return tuple(used[index] for index in order), new[at].to(prompts.mask.device)


def spanned(task: Task, rows: Sequence[Mapping[str, range]]) -> Task:
    """The task with spans of its own (see `numbered`)."""
    names, at = numbered(task.prompts, rows)
    return replace(task, prompts=replace(task.prompts, spans=at), span_names=names)


def _words(places: range) -> str:
    return f"tokens {places.start} to {places.stop - 1}" if places else "empty"


def every_position(prompts: Prompts) -> tuple[tuple[str, ...], Tensor]:
    """A span for each position, called by its number.

    Raises:
        EdgewiseError: the prompts differ in length.
    """
    lengths = prompts.mask.sum(dim=1)
    if int(lengths.min()) != int(lengths.max()):
        raise EdgewiseError(
            f"--positions each needs prompts of one length; these have {int(lengths.min())} to {int(lengths.max())} "
            "tokens. Name spans, or use --positions together"
        )
    at = torch.arange(prompts.mask.shape[1], device=prompts.mask.device).expand_as(prompts.mask)
    return tuple(str(one) for one in range(int(lengths[0]))), torch.where(prompts.mask, at, -1)


def told_apart(task: Task, positions: str) -> tuple[Task, tuple[str, ...]]:
    """The task with the spans that a search tells apart, and their names: none, each position, or the task's own.

    Raises:
        EdgewiseError: the task has no spans of its own; or as `every_position`.
    """
    if positions not in POSITIONS:
        raise unknown("way to tell positions apart", positions, POSITIONS)
    if positions == "together":
        return task, ()
    if positions == "each":
        names, at = every_position(task.prompts)
        task = replace(task, prompts=replace(task.prompts, spans=at), span_names=names)
    elif not task.span_names:
        raise EdgewiseError(
            f"task {task.name!r} names no spans; use --positions each, or say in your rows where they are"
        )
    return task, task.span_names


def with_spans(task: Task, spans: tuple[str, ...]) -> Task:
    """The task with the spans that a graph has, told by their names.

    Raises:
        EdgewiseError: the task has no such spans.
    """
    if not spans or spans == task.span_names:
        return task
    if spans == tuple(str(one) for one in range(len(spans))):
        each, names = told_apart(task, "each")
        if names == spans:
            return each
        raise EdgewiseError(
            f"the circuit has {len(spans)} positions, and the prompts of task {task.name!r} {len(names)}"
        )
    has = ", ".join(task.span_names) or "none"
    raise EdgewiseError(f"the circuit has the spans {', '.join(spans)}; task {task.name!r} has {has}")
