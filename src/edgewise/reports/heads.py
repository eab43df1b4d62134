"""What a head's scores are made of, and what it writes, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from edgewise.discovery import HeadParts
from edgewise.reports.words import percent, visible
from edgewise.tasks import Task

STRONGEST = 10
"""Rows of each table."""


def head_tables(parts: HeadParts, task: Task, tokens: Sequence[str] = ()) -> Iterator[RenderableType]:
    """The strongest pairs, the strongest parts of each side, and the strongest values by token.

    Args:
        tokens: those of the first prompt, which positions are named by.
    """
    places = len(parts.queries)
    attention = parts.pattern.gather(1, parts.keys[:, None]).mean().item()
    common = int(parts.keys.mode().values)
    share = (parts.keys == common).double().mean().item()
    where = f"position {common}{_named(tokens, common)}"
    yield Text(
        f"{places:,} place{'s' * (places != 1)}; the key is that at {where} in {percent(share)} of them, with "
        f"{attention:.2f} of the attention on average"
    )
    score = parts.pairs.sum().item()
    above = parts.above_mean.sum().item()
    yield Text(
        f"its score, {score:z.3f}, is {above:z.3f} above the mean of all keys seen, by part of query x of key", "italic"
    )
    yield _strongest(
        ("query", "key"),
        [
            ((one, other), (parts.above_mean[row, column].item(), parts.pairs[row, column].item()))
            for row, one in enumerate(parts.parts)
            for column, other in enumerate(parts.parts)
        ],
        ("above mean", "score"),
    )
    yield Text("the same by part of the query, and by part of the key", "italic")
    sides = torch.stack((parts.above_mean.sum(dim=1), parts.above_mean.sum(dim=0)), dim=1)
    yield _strongest(
        ("part",),
        [((name,), tuple(row)) for name, row in zip(parts.parts, sides.tolist(), strict=True)],
        ("by query", "by key"),
    )
    if parts.values is None or parts.direct is None:
        return
    over = "the wrong answers'" if task.prompts.wrong is not None else "the mean logit"
    yield Text(
        f"it adds {parts.direct.mean().item():z.3f} to the answers' logits over {over}, straight; by part of the value "
        "x token",
        "italic",
    )
    mean = parts.values.mean(dim=0)
    yield _strongest(
        ("part", "position", "token"),
        [
            ((name, str(place), _token(tokens, place)), (mean[row, place].item(),))
            for row, name in enumerate(parts.parts)
            for place in range(mean.shape[1])
        ],
        ("adds",),
    )


def _token(tokens: Sequence[str], place: int) -> str:
    return visible(tokens[place].strip()) or repr(tokens[place])[1:-1] if place < len(tokens) else ""


def _named(tokens: Sequence[str], place: int) -> str:
    return f" ({_token(tokens, place)} in the first prompt)" if place < len(tokens) else ""


def _strongest(
    names: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[float]]], columns: Sequence[str]
) -> Table:
    """The rows with the largest numbers, a total under them."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, style="bold" if not number else "", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    of_all = [max((abs(values[number]) for _, values in rows), default=0.0) for number in range(len(columns))]
    leading = columns if columns[-1] == "by key" else columns[:1]
    ordered = sorted(rows, key=lambda row: -max(abs(value) for value in row[1][: len(leading)]))
    for labels, values in ordered[:STRONGEST]:
        cells = [_cell(value, largest) for value, largest in zip(values, of_all, strict=True)]
        table.add_row(*map(Text, labels), *cells)
    rest = [sum(values[number] for _, values in ordered[STRONGEST:]) for number in range(len(columns))]
    if len(ordered) > STRONGEST:
        table.add_row(f"{len(ordered) - STRONGEST:,} more", *[""] * (len(names) - 1), *(f"{one:z.3f}" for one in rest))
    return table


def _cell(value: float, largest: float) -> Text:
    share = abs(value) / largest if largest else 0.0
    colour = " red" if value > 0 else " blue"
    style = "dim" if share < 0.01 else "bold" if share > 0.3 else ""
    return Text(f"{value:z.3f}", style=(style + colour if share >= 0.1 else style).strip())
