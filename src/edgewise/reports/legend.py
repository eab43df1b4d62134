"""What stands around a picture: its title above, and below it what colours, widths and marks mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgewise.reports.scene import Box, Line, Words, shorten, text_width, wrap

Part = Line | Box | Words

TITLE, SMALL = 15.0, 11.0
GREY = "#5a5a5a"
ROW = 19.0
GAP = 18.0
"""Between two entries of a row."""


def heading(title: str, subtitle: str, left: float, room: float) -> tuple[list[Part], float]:
    """The title and what stands under it, and how much room they take."""
    parts: list[Part] = []
    y = 0.0
    for line in wrap(title, TITLE, room, bold=True):
        y += TITLE + 5
        parts.append(Words(left, y, line, TITLE, bold=True))
    for line in wrap(subtitle, SMALL, room):
        y += SMALL + 5
        parts.append(Words(left, y, line, SMALL, colour=GREY))
    return parts, y + 8 if parts else 0.0


class Legend:
    """Rows of entries under a picture, each row with what it is about in front."""

    def __init__(self, left: float, top: float, room: float) -> None:
        self.left, self.room = left, room
        self.y = top
        self.parts: list[Part] = []

    def lines(self, about: str, entries: Mapping[str, tuple[str, float, bool]]) -> None:
        """Entries with a piece of line: its colour, its width, whether it is dashed."""
        self._row(about, [(text, 26.0) for text in entries])
        for (x, y), (colour, width, dashed) in zip(self._starts, entries.values(), strict=True):
            start, end = (x, y - 4), (x + 20, y - 4)
            self.parts.append(Line(start, [(end,)], colour, width, dashed=dashed))

    def boxes(self, about: str, entries: Mapping[str, tuple[str, str, bool]]) -> None:
        """Entries with a small box: its fill, its border, whether that is dashed."""
        self._row(about, [(text, 22.0) for text in entries])
        for (x, y), (fill, stroke, dashed) in zip(self._starts, entries.values(), strict=True):
            self.parts.append(Box(x, y - 10, 16, 12, fill, stroke, radius=3, dashed=dashed))

    def note(self, text: str) -> None:
        """A sentence."""
        for line in wrap(text, SMALL, self.room):
            self.y += SMALL + 5
            self.parts.append(Words(self.left, self.y, line, SMALL, colour=GREY))

    def _row(self, about: str, entries: Sequence[tuple[str, float]]) -> None:
        """Words of one row, in as many lines as it takes, and where the samples before them go."""
        self.y += ROW
        self.parts.append(Words(self.left, self.y, about, SMALL, colour=GREY))
        first = x = self.left + text_width(about, SMALL) + GAP * 0.7
        self._starts: list[tuple[float, float]] = []
        for text, before in entries:
            shown = shorten(text, SMALL, self.left + self.room - first - before)
            width = before + text_width(shown, SMALL)
            if x > first and x + width > self.left + self.room:
                x = first
                self.y += ROW
            self._starts.append((x, self.y))
            self.parts.append(Words(x + before, self.y, shown, SMALL))
            x += width + GAP
