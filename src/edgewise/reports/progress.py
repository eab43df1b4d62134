"""How far a sweep has got: bars on a terminal, a line per finished series elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from edgewise.reports.terminal import duration
from edgewise.reports.words import Sparing
from edgewise.runs.sweep import SweepProgress


@contextmanager
def sweep_progress(console: Console) -> Iterator[Callable[[str], SweepProgress]]:
    """What is told of each row's circuits, by the row's name."""
    if not console.is_terminal:
        lines = Sparing()
        yield lambda name: _plain(console, name, lines)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:

        def of_row(name: str) -> SweepProgress:
            task = bar.add_task(name, total=None)

            def report(method: str, done: int, count: int) -> None:
                bar.update(task, description=f"{name}: {method}", completed=done, total=count)

            return report

        yield of_row


def _plain(console: Console, name: str, lines: Sparing) -> SweepProgress:
    started = time.perf_counter()

    def report(method: str, done: int, count: int) -> None:
        nonlocal started
        if done == count:
            now = time.perf_counter()
            if lines.due():
                said = f"{name}: {method}, {count} circuits in {now - started:.1f} s"
                console.print(said, highlight=False, markup=False, soft_wrap=True)
            started = now

    return report


@contextmanager
def section_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """How far each part of a longer work is, by what it is, and about how long it will still take.

    A bar on a terminal, which is gone when its part is done, so that results can be printed in between; elsewhere a
    line now and then.
    """
    view = _Sections(console)
    try:
        yield view.report
    finally:
        view.end()


class _Sections:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.what, self.started, self.lines, self.from_done = "", 0.0, Sparing(), 0
        self.bar: Bar | None = None

    def report(self, what: str, done: int, of: int) -> None:
        now = time.perf_counter()
        if what != self.what:
            self.end()
            # The first step is over when it is told of, so time is counted from there.
            self.what, self.started, self.lines, self.from_done = what, now, Sparing(first=False), done
            if self.console.is_terminal and done < of:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[left]}"),
                )
                left = TextColumn("{task.fields[left]}")
                self.bar = Bar(*columns, left, console=self.console, transient=True)
                self.bar.add_task(what, total=of, completed=done, left="")
                self.bar.start()
        left = ""
        if done > self.from_done:
            seconds = (now - self.started) * (of - done) / (done - self.from_done)
            left = f"about {duration(seconds)} left"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, total=of, left=left)
        elif left and done < of and not self.console.is_terminal and self.lines.due():
            self.console.print(f"{what}: {done:,} of {of:,}, {left}", highlight=False, markup=False, soft_wrap=True)
        if done >= of:
            self.end()

    def end(self) -> None:
        """Take the bar away."""
        self.what = ""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
