"""A scene as PNG or PDF, by matplotlib, which brings its own font and needs no system package."""

from __future__ import annotations

import io
import math

from edgewise.reports.scene import Box, Line, Scene, Words, printable

PNG_SCALE = 2.0
"""Pixels of the file for a pixel of the scene, so that words are sharp in print and on dense screens."""
MOST_PIXELS, LONGEST_SIDE = 60e6, 30_000
"""Of a file; of a larger picture a pixel has fewer."""


def to_png(scene: Scene) -> bytes:
    """The scene as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(scene)
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    # Without the version of the program that wrote it, the same scene is the same file.
    longest = max(scene.width, scene.height)
    scale = min(PNG_SCALE, math.sqrt(MOST_PIXELS / (scene.width * scene.height)), LONGEST_SIDE / longest)
    figure.savefig(data, format="png", dpi=72 * scale, metadata={"Software": None, "Title": printable(scene.title)})
    return data.getvalue()


def to_pdf(scene: Scene) -> bytes:
    """The scene as a PDF file, with its words as text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    with rc_context({"pdf.fonttype": 42}):
        figure = _figure(scene)
        FigureCanvasPdf(figure)
        data = io.BytesIO()
        about = {"CreationDate": None, "Producer": None, "Creator": None, "Title": printable(scene.title)}
        figure.savefig(data, format="pdf", metadata=about)
    return data.getvalue()


def _figure(scene: Scene):
    """The scene as a figure in which a pixel of the scene is a point."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    figure = Figure(figsize=(scene.width / 72, scene.height / 72), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    for order, part in enumerate(scene.parts):
        if isinstance(part, Words):
            axes.text(
                part.x,
                part.y,
                printable(part.text),
                fontsize=part.size,
                color=part.colour,
                ha={"start": "left", "middle": "center", "end": "right"}[part.anchor],
                va="baseline",
                weight="bold" if part.bold else "normal",
                family="DejaVu Sans",
                parse_math=False,  # a $ in a name is a $
                zorder=order,
            )
            continue
        style = (0, (4 / part.width if isinstance(part, Line) else 4, 3)) if part.dashed else "solid"
        if isinstance(part, Line):
            codes = [Path.MOVETO]
            for piece in part.pieces:
                codes += [Path.CURVE4] * 3 if len(piece) == 3 else [Path.LINETO]
            way = Path([part.start, *(point for piece in part.pieces for point in piece)], codes)
            patch = PathPatch(way, facecolor="none", edgecolor=part.colour, linewidth=part.width, alpha=part.opacity)
            patch.set_capstyle("round")
        else:
            assert isinstance(part, Box)
            patch = FancyBboxPatch(
                (part.x, part.y),
                part.width,
                part.height,
                boxstyle=f"round,pad=0,rounding_size={part.radius}" if part.radius else "square,pad=0",
                facecolor=part.fill,
                edgecolor=part.stroke,
                linewidth=part.stroke_width if part.stroke != "none" else 0,
            )
        patch.set_linestyle(style)
        patch.set_zorder(order)
        axes.add_patch(patch)
    return figure
