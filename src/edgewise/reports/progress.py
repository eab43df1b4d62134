"""How far a sweep has got: bars on a terminal, a line per finished series elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from edgewise.runs.sweep import SweepProgress


@contextmanager
def sweep_progress(console: Console) -> Iterator[Callable[[str], SweepProgress]]:
    """What is told of each row's circuits, by the row's name."""
    if not console.is_terminal:
        yield lambda name: _plain(console, name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:

        def of_row(name: str) -> SweepProgress:
            task = bar.add_task(name, total=None)

            def report(method: str, done: int, count: int) -> None:
                bar.update(task, description=f"{name}: {method}", completed=done, total=count)

            return report

        yield of_row


def _plain(console: Console, name: str) -> SweepProgress:
    started = time.perf_counter()

    def report(method: str, done: int, count: int) -> None:
        nonlocal started
        if done == count:
            now = time.perf_counter()
            console.print(
                f"{name}: {method}, {count} circuits in {now - started:.1f} s",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            started = now

    return report


@contextmanager
def section_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each part of a longer work, by what it is; nothing where there is no terminal."""
    if not console.is_terminal:
        yield lambda what, done, of: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done, total=of)

        yield report
