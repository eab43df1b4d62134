"""A picture as a list of lines, boxes and words, and its SVG text. No package is needed for it.

Widths of words are those of DejaVu Sans, which is wider than the fonts that stand in for it where it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgewise.reports.ways import Point

FONT = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Line:
    """A line: where it starts, then the three control points of each cubic piece, or the end of each straight one."""

    start: Point
    pieces: Sequence[tuple[Point, ...]]
    colour: str
    width: float
    opacity: float = 1.0
    dashed: bool = False
    says: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle with round corners; `x`, `y` are its top left."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = "none"
    stroke_width: float = 1.0
    radius: float = 0.0
    dashed: bool = False
    says: str = ""


@dataclass(frozen=True)
class Words:
    """A line of text. `x`, `y` are where its baseline starts, has its middle or ends."""

    x: float
    y: float
    text: str
    size: float
    anchor: str = "start"
    colour: str = "#1a1a1a"
    bold: bool = False


@dataclass(frozen=True)
class Scene:
    """What is drawn, the lowest first, on a white ground."""

    width: float
    height: float
    parts: tuple[Line | Box | Words, ...]
    title: str


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a text is at most, in pixels."""
    return sum(_WIDTHS.get(letter, 1000) for letter in text) * size / 1000 * (1.12 if bold else 1.0)


def shorten(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """The text, or as much of it as there is room for, with an ellipsis."""
    if text_width(text, size, bold=bold) <= room:
        return text
    while text and text_width(text + "…", size, bold=bold) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap(text: str, size: float, room: float, *, bold: bool = False) -> list[str]:
    """The text in lines that have room; a word that has none is cut."""
    lines: list[str] = []
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold=bold) <= room:
            lines[-1] = longer
        else:
            lines.append(shorten(word, size, room, bold=bold))
    return lines


def printable(text: str) -> str:
    """The text with a sign in place of what no picture can show and no XML may hold, such as control characters."""
    return re.sub("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def to_svg(scene: Scene) -> str:
    """The scene as SVG text. All words in it are escaped: a name that holds markup is shown, not obeyed."""
    width, height = _short(scene.width), _short(scene.height)
    title = escape(printable(scene.title))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="{FONT}">',
        f"<title>{title}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(_element(part) for part in scene.parts),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _element(part: Line | Box | Words) -> str:
    if isinstance(part, Words):
        weight = ' font-weight="bold"' if part.bold else ""
        anchor = "" if part.anchor == "start" else f' text-anchor="{part.anchor}"'
        return (
            f'<text x="{_short(part.x)}" y="{_short(part.y)}" font-size="{_short(part.size)}"{anchor}{weight} '
            f'fill="{part.colour}">{escape(printable(part.text))}</text>'
        )
    says = f"<title>{escape(printable(part.says))}</title>" if part.says else ""
    dashes = ' stroke-dasharray="4 3"' if part.dashed else ""
    if isinstance(part, Box):
        radius = f' rx="{_short(part.radius)}"' if part.radius else ""
        stroke = f' stroke="{part.stroke}" stroke-width="{_short(part.stroke_width)}"' if part.stroke != "none" else ""
        shape = (
            f'<rect x="{_short(part.x)}" y="{_short(part.y)}" width="{_short(part.width)}" '
            f'height="{_short(part.height)}"{radius} fill="{part.fill}"{stroke}{dashes}'
        )
        return f"{shape}>{says}</rect>" if says else f"{shape}/>"
    way = f"M{_pair(part.start)}" + "".join(
        ("C" if len(piece) == 3 else "L") + " ".join(_pair(point) for point in piece) for piece in part.pieces
    )
    opacity = f' stroke-opacity="{part.opacity:.2f}"' if part.opacity < 1 else ""
    shape = (
        f'<path d="{way}" fill="none" stroke="{part.colour}" stroke-width="{_short(part.width)}"{opacity}{dashes} '
        f'stroke-linecap="round"'
    )
    return f"{shape}>{says}</path>" if says else f"{shape}/>"


def _pair(point: Point) -> str:
    return ",".join(f"{value + 0.0:.1f}".removesuffix(".0") for value in point)


def _short(value: float) -> str:
    """A length with at most two digits behind the point."""
    return f"{value + 0.0:.2f}".rstrip("0").rstrip(".")


# DejaVu Sans, in thousandths of its size.
_WIDTHS = dict(
    zip(
        map(chr, range(32, 127)),
        [
            *(318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337),
            *(636, 636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531),
            *(1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787),
            *(603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500),
            *(500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612),
            *(635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838),
        ],
        strict=True,
    )
)
