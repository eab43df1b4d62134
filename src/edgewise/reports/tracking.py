"""Searches logged to TensorBoard or Weights & Biases, for those who watch their runs there. Off unless asked for.

Both are extras: `pip install 'edgewise[tensorboard]'` (or `wandb`). A step is as many tests as were made until then,
over all thresholds tried; logged are the metric, the edges kept, decided and to come, and the threshold. When the run
has ended, its figures are added as they stand in `run.json`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from edgewise.discovery import Progress, ProgressCallback
from edgewise.errors import EdgewiseError, first_line, unknown

EVERY = 0.2
"""Seconds between two logged steps."""

SUMMARY = ("n_edges", "n_edges_connected", "metric", "metric_full", "metric_ablated", "tests", "seconds")


class Log(Protocol):
    """Where numbers go."""

    where: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def summary(self, step: int, values: Mapping[str, float], settings: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in a folder beside the run's."""

    def __init__(self, run: Path) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        folder, number = run.with_name(f"{run.name}.tensorboard"), 1
        while folder.exists():
            number += 1
            folder = run.with_name(f"{run.name}.tensorboard-{number}")
        self.where = str(folder)
        self.writer = writer(log_dir=str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"search/{name}", value, step)

    def summary(self, step: int, values: Mapping[str, float], settings: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"run/{name}", value, step)
        # As a block of code: names from users' data are shown as they are.
        text = "".join(f"    {line}\n" for line in json.dumps(settings, indent=2, default=str).splitlines())
        self.writer.add_text("run/settings", text, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of the project `edgewise`, or of the one that WANDB_PROJECT names."""

    def __init__(self, run: Path) -> None:
        wandb = importlib.import_module("wandb")
        try:
            self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", "edgewise"), name=run.name)
        except Exception as error:
            raise EdgewiseError(
                f"Weights & Biases cannot be logged to: {first_line(error)} (WANDB_MODE=offline needs no account)"
            ) from None
        self.where = "Weights & Biases"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({f"search/{name}": value for name, value in values.items()}, step=step)

    def summary(self, step: int, values: Mapping[str, float], settings: Mapping[str, Any]) -> None:
        self.run.config.update(dict(settings))
        self.run.summary.update({f"run/{name}": value for name, value in values.items()})

    def close(self) -> None:
        self.run.finish()


LOGS: dict[str, tuple[str, type[TensorBoard] | type[WeightsAndBiases]]] = {
    "tensorboard": ("TensorBoard", TensorBoard),
    "wandb": ("Weights & Biases", WeightsAndBiases),
}
"""Where a search can be logged, by the name of the package it takes."""


class Tracking:
    """One search on its way into a log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.where = log.where
        self.step, self.before, self.attempt, self.last = 0, 0, 1, -math.inf

    def report(self, progress: Progress) -> None:
        """Log a step, if the last one is some time ago or this is the end of a threshold."""
        if progress.attempt != self.attempt:
            self.attempt, self.before = progress.attempt, self.step
        self.step = self.before + progress.tests
        now = time.perf_counter()
        if now - self.last < EVERY and progress.decided < progress.edges:
            return
        self.last = now
        values = {
            "metric": progress.metric,
            "edges_kept": progress.kept,
            "edges_decided": progress.decided,
            "edges_to_come": progress.edges - progress.decided,
            "threshold": progress.threshold,
        }
        self.log.scalars(self.step, {name: value for name, value in values.items() if math.isfinite(value)})

    def ended(self, record: Mapping[str, Any]) -> None:
        """Add what `run.json` says: figures and settings."""
        result = record["result"]
        values = {name: float(result[name]) for name in SUMMARY if isinstance(result.get(name), (int, float))}
        self.log.summary(self.step, values, record["settings"])


def require_log(name: str | None) -> None:
    """Refuse a log that cannot be written, before anything is loaded.

    Raises:
        EdgewiseError: an unknown name, or a package that is not installed; the message says how to install it.
    """
    if name is None:
        return
    if name not in LOGS:
        raise unknown("log", name, LOGS)
    if importlib.util.find_spec(name) is None:
        raise EdgewiseError(
            f"logging to {LOGS[name][0]} needs the package {name!r}, which is not installed: pip install "
            f"'edgewise[{name}]'"
        )


@contextmanager
def tracking(name: str | None, run: Path) -> Iterator[Tracking | None]:
    """A log of a search whose run folder is `run`; None where none is wanted.

    Raises:
        EdgewiseError: as `require_log`, or the log cannot be opened.
    """
    require_log(name)
    if name is None:
        yield None
        return
    log: Log = LOGS[name][1](run)
    try:
        yield Tracking(log)
    finally:
        log.close()


def both(one: ProgressCallback, other: Tracking | None) -> ProgressCallback:
    """Tell the view and the log."""
    if other is None:
        return one

    def report(progress: Progress) -> None:
        one(progress)
        other.report(progress)

    return report
