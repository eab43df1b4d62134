"""What searches made again agree on, as lines and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewise.reports.tables import Rows
from edgewise.reports.words import metric_number, percent

WHAT = {"orders": "in random orders of edges", "examples": "on examples drawn anew"}


def stability_line(found: Mapping[str, Any]) -> str:
    """How far searches agree: with each other, with an interval, and with the run's own circuit."""
    searches, interval = found["searches"], found.get("interval")
    span = ""
    if interval is not None:
        span = f" ({found['confidence']:.0%} interval {interval['low']:.2f} to {interval['high']:.2f})"
    own = sum(one["jaccard"] for one in searches) / len(searches)
    sizes = [one["size"] for one in searches]
    return (
        f"{len(searches)} searches {WHAT.get(found['what'], found['what'])}: {min(sizes):,} to {max(sizes):,} "
        f"{found.get('unit', 'edges')}; two of them share {found['jaccard']:.2f} of what either has{span}, one of them "
        f"and the circuit above {own:.2f}"
    )


def stability_rows(found: Mapping[str, Any], metric: str) -> Rows:
    """The circuit at each vote: its size, its metric, how far it agrees with the run's own."""
    heading = ["kept by", str(found.get("unit", "edges")), metric, "shared with the circuit"]
    count = len(found["searches"])
    lines = list[list[str]]()
    for level in found["levels"]:
        vote = level["vote"]
        words = "all" if vote >= 1 else "any" if vote * count <= 1 + 1e-9 else f"{percent(vote)} or more"
        chosen = " (--votes)" if vote == found["vote"] else ""
        value = metric_number(metric, level["metric"])
        lines.append([words + chosen, f"{level['size']:,}", value, f"{level['jaccard']:.2f}"])
    return heading, lines
