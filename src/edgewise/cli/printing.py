"""Where tables go, and what several commands print."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.models import Decoder
    from edgewise.tasks import Task


def json_number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def stdout_console() -> Console:
    """Where tables go. What is not a terminal has no width to keep to, unless COLUMNS gives it one."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=160)


class Kept(SystemExit):
    """The end of work that was stopped, when what it decided has been written and said."""


@contextmanager
def kept_if_stopped(folder: Path) -> Iterator[None]:
    """Say, when it is stopped, that what is done is kept in `folder` and goes on from there."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        code = exit_code(stop)
        why = f"stopped: {stop.__cause__}" if code == 2 else "interrupted"
        typer.echo(f"edgewise: {why}; circuits found so far are in {folder}, the same command goes on", err=True)
        raise Kept(code) from None


def exit_code(stop: BaseException | None) -> int:
    """What work that was stopped ends with: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 2 for want of memory."""
    if isinstance(stop, KeyboardInterrupt) and stop.__cause__ is not None:
        stop = stop.__cause__  # an interrupted search
    if isinstance(stop, SystemExit):
        return stop.code if isinstance(stop.code, int) else 1
    return 130 if isinstance(stop, KeyboardInterrupt) else 2


OF_A_RUN = ("resample", "noise")
"""Ablations whose ablated run is the model's own run on something, so that a node which reads nothing adds nothing."""


def sized(n_edges: int, n_graph_edges: int, n_connected: int, ablation: str) -> str:
    """A circuit's size in words, and how much of it lies on a path from the embedding."""
    size = f"{n_edges:,} of {n_graph_edges:,} edges"
    if ablation in OF_A_RUN or n_connected == n_edges:
        return f"{size} ({n_connected:,} on a path from the embedding to the logits)"
    return (
        f"{size} ({n_edges - n_connected:,} on no path from the embedding; what a node writes whatever it reads counts "
        f"too under {ablation} ablation)"
    )


def sized_in_nodes(n_nodes: int, n_graph_nodes: int, n_edges: int) -> str:
    """The size of a circuit of whole nodes in words."""
    return f"{n_nodes:,} of {n_graph_nodes:,} nodes ({n_edges:,} edge{'s' * (n_edges != 1)} between them)"


def headline(task: Task, model: Decoder) -> str:
    """The task and the model in a line."""
    from edgewise.reports.words import visible

    graph = model.graph(ports=False)
    changes = [
        *([f"permuted with seed {model.config.permuted_seed}"] if model.config.permuted_seed is not None else []),
        *(["norm biases folded"] if model.config.folded_norm_biases else []),
        *(["value biases folded"] if model.config.folded_value_biases else []),
    ]
    changed = f" ({', '.join(changes)})" if changes else ""
    shape = f"{graph.describe()}, {model.dtype_name} on {model.device}"
    return visible(f"{task.describe()}; model {model.name}{changed}: {shape}")
