"""The circuit as it grows: for every layer a bar of the edges kept, dropped and to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

Counts = tuple[int, int, int]
"""Edges into a layer (or the logits): kept, dropped, to come."""

BAR = 30
AROUND = 4
"""Lines that are left for the rest of what is on the screen."""


def growth(layers: Sequence[Counts], console: Console) -> Text:
    """A line for every layer from the logits down; where there is no room for all, layers that are alike are one line.

    Args:
        layers: of every layer, the first first, and last of the logits.
    """
    text = Text(no_wrap=True, overflow="crop")
    room = max(5, console.height - AROUND)
    plain = console.options.ascii_only
    rows = [("logits", layers[-1]), *((str(layer), layers[layer]) for layer in reversed(range(len(layers) - 1)))]
    shown = list(_fitted(rows, room))
    names = max(len("layer"), *(len(name) for name, _ in shown))
    numbers = max(len(f"{count:,}") for _, counts in shown for count in counts)
    columns = "".join(f"{word:>{max(numbers, len(word)) + 2}}" for word in ("kept", "dropped", "to come"))
    text.append(f"{'layer':<{names}}  {' ' * BAR}{columns}", style="dim")
    for name, (kept, dropped, left) in shown:
        text.append(f"\n{name:<{names}}  ")
        text.append_text(_bar(kept, dropped, left, plain))
        for word, count, style in (("kept", kept, "green"), ("dropped", dropped, ""), ("to come", left, "dim")):
            width = max(numbers, len(word)) + 2
            text.append(f"{count:>{width},}" if count else " " * width, style)
    return text


def _bar(kept: int, dropped: int, left: int, plain: bool) -> Text:
    """Cells in proportion; what is there at all has one."""
    total = max(1, kept + dropped + left)
    cells = [max(count > 0, int(BAR * count / total)) for count in (kept, dropped)]
    cells.append(BAR - sum(cells))
    if cells[2] < (left > 0):
        cells[1] -= 1
        cells[2] += 1
    if not left:  # what was rounded away
        cells[1 if dropped else 0] += cells[2]
        cells[2] = 0
    bar = Text()
    for count, sign, style in zip(cells, "#-." if plain else "█─·", ("green", "grey50", "grey37"), strict=True):
        bar.append(sign * count, style)
    return bar


def _fitted(rows: Sequence[tuple[str, Counts]], room: int) -> Iterator[tuple[str, Counts]]:
    """All rows if there is room; else those around the layer that the search is at, and the others in one row each."""
    if len(rows) <= room:
        yield from rows
        return
    at = next((number for number, (_, (_, _, left)) in enumerate(rows) if left), len(rows) - 1)
    first = min(max(1, at - (room - 2) // 2), len(rows) - (room - 2))
    last = first + room - 2
    above, below = rows[:first], rows[last:]
    for some, shown in ((above, rows[first:last]), (below, [])):
        if some:
            name = some[0][0] if len(some) == 1 else f"{some[0][0]} to {some[-1][0]}"
            yield name, (sum(c[0] for _, c in some), sum(c[1] for _, c in some), sum(c[2] for _, c in some))
        yield from shown
