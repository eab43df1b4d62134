"""What a person reads in the terminal: summaries of circuits and the live view of a search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from edgewise.discovery import HeatMaps, Plan, Progress, ProgressCallback
from edgewise.discovery.time_left import TimeLeft
from edgewise.reports.growth import growth
from edgewise.reports.words import Sparing, metric_number, number, visible
from edgewise.runs.shape_plan import ShapePlan
from edgewise.tasks import Task

SCREEN = 40
"""Lines that both heat maps may take together; of larger ones the strongest effects are listed."""
STRONGEST = 12
_HEAT_COLUMNS = 12
_TOKEN = 6


def heat_tables(maps: HeatMaps, task: Task, tokens: Sequence[str] = ()) -> Iterator[RenderableType]:
    """Layer by head (and MLP), and layer by position, the strongest effects marked; wide ones in several tables.

    Maps that would not fit on a screen come as lists of their strongest effects.

    Args:
        tokens: those of the first prompt, which stand above the positions.
    """
    n_layers, n_heads = maps.heads.shape
    titles = [*(f"h{head}" for head in range(n_heads)), *(["MLP"] if len(maps.mlps) else [])]
    rows = [
        [*maps.heads[layer].tolist(), *([maps.mlps[layer].item()] if len(maps.mlps) else [])]
        for layer in range(n_layers)
    ]
    places, length = maps.positions.tolist(), maps.positions.shape[1]
    labels = [visible(one.strip()) or repr(one)[1:-1] for one in tokens][:length]
    labels += [""] * (length - len(labels))
    parts = ("embedding",) if len(maps.embedding) == 1 else ("tokens", "positions")
    together = ", ".join(f"{name} {number(value)}" for name, value in zip(parts, maps.embedding.tolist(), strict=True))
    columns = [f"{place}\n{label[:_TOKEN]}" if any(labels) else str(place) for place, label in enumerate(labels)]
    lines = sum((n_layers + 2) * math.ceil(len(one) / _HEAT_COLUMNS) for one in (titles, columns))
    head, stream = f"layer x head ({together})", "layer x position of the stream that enters it; the first prompt is"
    if lines > SCREEN:
        names = [
            [f"m{layer}" if title == "MLP" else f"a{layer}.{title}" for title in titles] for layer in range(n_layers)
        ]
        yield Text(f"{head}: the {STRONGEST} strongest of {n_layers * len(titles):,}", style="italic")
        yield _strongest(
            ("part",),
            [
                ((name,), value)
                for one, row in zip(names, rows, strict=True)
                for name, value in zip(one, row, strict=True)
            ],
        )
        yield Text(f"{stream}", style="italic")
    else:
        yield Text(head, style="italic")
        yield from _heat_table(titles, rows)
        yield Text(stream, style="italic")
    yield Text(visible(task.text[0].clean), style="dim")
    if lines > SCREEN:
        yield Text(f"the {STRONGEST} strongest of {n_layers * length:,}", style="italic")
        cells = [
            ((str(layer), str(place), labels[place]), value)
            for layer, row in enumerate(places)
            for place, value in enumerate(row)
        ]
        yield _strongest(("layer", "position", "token"), cells)
    else:
        yield from _heat_table(columns, places)


def _strongest(columns: Sequence[str], cells: Sequence[tuple[Sequence[str], float]]) -> Table:
    """The cells of a map with the largest effects, by what they are."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, style="bold" if column == columns[0] else "", overflow="fold")
    table.add_column("effect", justify="right")
    largest = max((abs(value) for _, value in cells), default=0.0)
    for names, value in sorted(cells, key=lambda one: -abs(one[1]))[:STRONGEST]:
        table.add_row(*map(Text, names), _heat_cell(value, largest))
    return table


def _heat_table(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> Iterator[Table]:
    largest = max((abs(value) for row in rows for value in row), default=0.0)
    for first in range(0, len(columns), _HEAT_COLUMNS):
        part = slice(first, first + _HEAT_COLUMNS)
        table = Table(box=None, pad_edge=False)
        table.add_column("layer", justify="right", style="bold")
        for column in columns[part]:
            table.add_column(Text(column), justify="right", no_wrap=True)
        for layer, row in reversed(list(enumerate(rows))):
            table.add_row(str(layer), *(_heat_cell(value, largest) for value in row[part]))
        yield table


def _heat_cell(value: float, largest: float) -> Text:
    share = abs(value) / largest if largest else 0.0
    style = "dim" if share < 0.01 else "bold" if share > 0.3 else ""
    colour = " red" if value > 0 else " blue"
    return Text("." if share < 0.001 else f"{value:z.2f}", style=(style + colour if share >= 0.1 else style).strip())


def plan_table(plan: Plan) -> Table:
    """What a search would cost: for several sizes of circuit, or at the least, as is likely, and perhaps."""
    table = Table(box=None, pad_edge=False)
    by_share = plan.estimates[0].share is not None
    for column in ("nodes that stay" if by_share else "", "edges tested", "time"):
        table.add_column(column, justify="right", overflow="fold")
    cases = ("at the least", "likely", "perhaps") if len(plan.estimates) > 1 else ("tried to its end",)
    for number_, one in enumerate(plan.estimates):
        case = cases[number_] if one.share is None else f"{one.share:.1%}"
        table.add_row(case, f"{one.tests:,}", f"about {duration(max(1.0, one.seconds))}")
    return table


def shape_table(plan: ShapePlan) -> Table:
    """What methods would cost on a model of some shape: operations, bytes, time."""
    table = Table(box=None, pad_edge=False)
    across = (plan.machine.devices or 1) > 1
    for column in ("", "tests", "FLOPs", "bytes read", *(["between devices"] if across else []), "time"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for name, cost in plan.costs.items():
        moved = [f"{cost.moved:.2g}"] if across else []
        tests = "" if cost.tests is None else f"{cost.tests:,}"
        table.add_row(name, tests, f"{cost.flops:.2g}", f"{cost.bytes:.2g}", *moved, _roughly(cost.seconds))
    return table


def _roughly(seconds: float) -> str:
    """A time of any length."""
    if seconds < 1:
        return f"{max(1.0, 1000 * seconds):.0f} ms"
    return duration(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:,.0f} days"


@contextmanager
def step_progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, for work that is so many steps; elsewhere a line at its start and now and then."""
    bar = Bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    if not console.is_terminal:
        lines = Sparing(first=False)
        console.print(f"{what} ...", highlight=False, markup=False, soft_wrap=True)

        def report(done: int, of: int) -> None:
            if lines.due():
                console.print(f"{what}: {done:,} of {of:,}", highlight=False, markup=False, soft_wrap=True)

        yield report
        return
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def search_progress(console: Console, what: str, headline: str = "", metric: str = "") -> Iterator[ProgressCallback]:
    """A live view of a search on a terminal; elsewhere a plain line now and then.

    `headline` is printed when the search has really started, so that a refusal before stands alone; `metric` is what
    the search measures, by name.
    """
    view = _LiveView(console, what, metric) if console.is_terminal else _PlainView(console, what, metric)
    said = False

    def report(progress: Progress) -> None:
        nonlocal said
        if not said:
            said = True
            if headline:
                console.print(headline, highlight=False, markup=False, soft_wrap=True)
            view.start()
        view.report(progress)

    try:
        yield report
    finally:
        if said:
            view.stop()


def _decided(progress: Progress) -> int:
    """Edges decided of those that this pass began with."""
    return progress.decided - progress.absent


def _edges(progress: Progress) -> int:
    return progress.edges - progress.absent


class _View:
    """The clock that both views share.

    It starts anew with every threshold that a search for a wanted size tries, and when a search follows its scores.
    """

    def __init__(self, console: Console, what: str, metric: str = "") -> None:
        self.console, self.what, self.metric = console, what, metric
        self.attempt, self.scoring = 1, False
        self.started, self.left = time.perf_counter(), TimeLeft()

    def seconds(self, progress: Progress) -> float:
        """Time since this attempt began."""
        now = time.perf_counter()
        scoring = math.isnan(progress.metric)
        if progress.attempt != self.attempt or (self.scoring and not scoring):
            self.started, self.left = now, TimeLeft()
        self.attempt, self.scoring = progress.attempt, scoring
        return max(now - self.started, 1e-9)

    def title(self, progress: Progress) -> str:
        title = self.what
        if progress.attempt > 1:
            title += f", try {progress.attempt} (threshold {progress.threshold:.3g})"
        return f"{title}, pass {progress.passes}" if progress.passes > 1 else title

    def words(self, progress: Progress, seconds: float) -> str:
        if math.isnan(progress.metric):  # a method that scores edges
            so_far = f"{progress.decided:,} of {progress.edges:,} {progress.at}"
            if not progress.decided:
                return so_far
            return f"{so_far}, about {duration(seconds * (progress.edges / progress.decided - 1))} left"
        made = progress.tests - progress.resumed
        low, high = self.left.range(seconds, made, progress.to_come)
        # There is no pace yet when a search has only begun.
        pace = "" if seconds < 0.05 else f", {made / seconds:.0f} tests/s, {about(low, high)} left"
        return (
            f"{_decided(progress):,} of {_edges(progress):,} {progress.unit} decided, {progress.kept:,} kept, metric "
            f"{metric_number(self.metric, progress.metric)}, at {progress.at}{pace}"
        )


class _LiveView(_View):
    """A bar, a line of words and the growing circuit that change in place, and vanish when the search ends."""

    def start(self) -> None:
        self.bar = Bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=self.console)
        self.task = self.bar.add_task(self.what, total=None)
        self.line, self.drawn = Text(""), 0.0
        self.live = Live(Group(self.bar, self.line), console=self.console, transient=True, refresh_per_second=8)
        self.live.start()

    def report(self, progress: Progress) -> None:
        seconds, now = self.seconds(progress), time.perf_counter()
        if now - self.drawn < 0.1 and progress.decided < progress.edges:
            return
        self.drawn = now
        self.bar.update(
            self.task, completed=_decided(progress), total=_edges(progress), description=self.title(progress)
        )
        self.line.plain = self.words(progress, seconds)
        if progress.layers:
            self.live.update(Group(self.bar, self.line, growth(progress.layers, self.console)))

    def stop(self) -> None:
        self.live.stop()


class _PlainView(_View):
    """A line every few seconds, for logs and pipes."""

    def start(self) -> None:
        self.lines = Sparing(first=False)

    def report(self, progress: Progress) -> None:
        seconds = self.seconds(progress)
        if self.lines.due():
            said = f"{self.title(progress)}: {self.words(progress, seconds)}"
            self.console.print(said, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        pass


def about(low: float, high: float) -> str:
    """A time that is not known well: `about 3 min`, or `2 min to 5 min`."""
    least, most = duration(low), duration(high)
    return f"about {duration((low + high) / 2)}" if high < 1.5 * low or least == most else f"{least} to {most}"


def duration(seconds: float) -> str:
    """A time as people say it: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
