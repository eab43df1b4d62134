"""What all plots share: a figure with a paper's defaults, the words of axes, colours, and how it is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edgewise.files import write_bytes
from edgewise.reports.drawing import require_format

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Okabe and Ito's colours with a marker each, so that curves can be told apart in black and white too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

METRIC_WORDS = {
    "kl_div": "KL divergence from the model (nats)",
    "logit_diff": "minus the logit difference (logits)",
    "logit_diff_max": "minus the logit difference (logits)",
    "log_prob_diff": "minus the difference in log-probability (nats)",
    "prob_diff": "minus the difference in probability",
    "nll": "negative log-likelihood (nats)",
    "match_nll": "negative log-likelihood above the model's (nats)",
    "l2": "mean squared difference from the model (logits²)",
    "frac_correct": "minus the share of right answers",
}

STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.8,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "text.parse_math": False,  # a $ in a name is a $
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "edgewise",  # the same plot is the same file
    "svg.fonttype": "none",
}


class Plot(Figure):
    """A matplotlib figure that a notebook shows by itself."""

    def _repr_png_(self) -> bytes:
        return _written(self, ".png")


def figure(width: float, height: float, **options: Any) -> Plot:
    """A figure of so many inches; its axes do not overlap."""
    return Plot(figsize=(width, height), layout="constrained", facecolor="white", **options)


def metric_words(metric: str) -> str:
    """A metric with its unit, as an axis says it."""
    return METRIC_WORDS.get(metric, metric)


def count_in_powers(axis: Axis, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis: every power of ten, and numbers between them where there is room."""
    subs = (1.0, 2.0, 3.0, 5.0, 7.0) if high < 10 * low else (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def finished(plot: Plot, path: str | Path | None) -> Plot:
    """The plot, and the file it is written to if there is to be one: .svg, .pdf or .png.

    Raises:
        EdgewiseError: another ending, or a file that cannot be written.
    """
    if path is not None:
        write_bytes(Path(path), _written(plot, require_format(Path(path))))
    return plot


def _written(plot: Plot, suffix: str) -> bytes:
    about: dict[str, dict[str, Any]] = {
        ".svg": {"Date": None, "Creator": None},
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        ".png": {"Software": None},
    }
    data = io.BytesIO()
    with rc_context(STYLE):
        plot.savefig(data, format=suffix[1:], dpi=200, metadata=about[suffix])
    return data.getvalue()
