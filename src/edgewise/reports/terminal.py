"""What a person reads in the terminal: summaries of circuits and the live view of a search."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from edgewise.discovery import Decision, Progress, ProgressCallback
from edgewise.evaluation import Evaluation
from edgewise.graph import Circuit

PLAIN_LINE_EVERY = 5.0
"""Seconds between progress lines where there is no terminal to draw on."""


def circuit_table(circuit: Circuit) -> Table:
    """Layer by layer from the logits down: each head with how many edges each of its inputs keeps, and the MLP.

    Only edges on a path from the embedding to the logits are shown.
    """
    circuit = circuit.connected()
    graph = circuit.graph
    counts = dict(zip([place.name for place in graph.inputs], circuit.edges.sum(axis=0).tolist(), strict=True))
    shared = graph.n_kv_heads < graph.n_heads
    table = Table(title="the circuit, from the logits down", title_justify="left", box=None, pad_edge=False)
    table.add_column("layer", style="bold", no_wrap=True)
    table.add_column("heads: edges into query, key, value")
    if graph.mlps:
        table.add_column("MLP: edges", no_wrap=True)
    table.add_row("logits", _senders(circuit), *([""] if graph.mlps else []))
    nodes = set(circuit.nodes())
    for layer in reversed(range(graph.n_layers)):
        heads = []
        for head in range(graph.n_heads):
            name = f"a{layer}.h{head}"
            if name in nodes or circuit.edges[graph.source_index[name]].any():
                columns = graph.inputs_of(graph.node(name))
                kept = [
                    f"{graph.inputs[column].kind}{counts[graph.inputs[column].name]}"
                    for column in columns
                    if counts[graph.inputs[column].name] and not (shared and graph.inputs[column].shared)
                ]
                heads.append(f"[bold]h{head}[/bold] {' '.join(kept)}".rstrip())
        if shared:
            heads += _shared_inputs(circuit, layer, counts)
        mlp = counts.get(f"m{layer}", 0)
        if heads or mlp:
            cells = [f"m{layer}: {mlp}" if mlp else ""] if graph.mlps else []
            table.add_row(str(layer), "   ".join(heads), *cells)
    embeddings = [node.name for node in graph.sources[: graph.n_embeddings]]
    reads = [f"{name} feeds {int(circuit.edges[graph.source_index[name]].sum())}" for name in embeddings]
    table.add_row("embed", ", ".join(reads), *([""] if graph.mlps else []))
    return table


def _senders(circuit: Circuit) -> str:
    names = [edge.source.name for edge in circuit.edges_into(circuit.graph.inputs[-1])]
    if not names:
        return "nothing is read: the circuit is empty"
    shown = ", ".join(names[::-1][:10])
    return f"read {len(names)}: {shown}{', …' if len(names) > 10 else ''}"


def _shared_inputs(circuit: Circuit, layer: int, counts: dict[str, int]) -> Iterator[str]:
    """Keys and values that several query heads share, as `g1 k3 v2`."""
    for group in range(circuit.graph.n_kv_heads):
        kept = [
            f"{kind}{counts[f'a{layer}.g{group}<{kind}>']}"
            for kind in ("k", "v")
            if counts[f"a{layer}.g{group}<{kind}>"]
        ]
        if kept:
            yield f"[bold]g{group}[/bold] {' '.join(kept)}"


def strongest_edges(trace: Sequence[Decision], count: int = 8) -> Table:
    """The kept edges whose removal raised the metric most, at the moment they were tested."""
    table = Table(title="strongest edges", title_justify="left", box=None, pad_edge=False)
    table.add_column("edge", no_wrap=True)
    table.add_column("metric rises by", justify="right")
    kept = [decision for decision in trace if decision.kept]
    for decision in sorted(kept, key=lambda one: -abs(one.effect))[:count]:
        table.add_row(Text(decision.edge), f"{decision.effect:+.4f}")
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Every metric of the circuit beside those of the whole model and of no edge at all."""
    table = Table(box=None, pad_edge=False)
    table.add_column("metric (lower is better)", no_wrap=True)
    for column in ("circuit", "whole model", f"all {evaluation.ablation}-ablated", "recovered"):
        table.add_column(column, justify="right")
    for name, measured in evaluation.measured.items():
        recovered = "" if measured.recovered is None else f"{measured.recovered:.1%}"
        numbers = [number(value) for value in (measured.circuit, measured.full, measured.ablated)]
        table.add_row(Text(name), *numbers, recovered, style="bold" if name == evaluation.metric else None)
    return table


def number(value: float) -> str:
    """A metric as people read it: four decimals, and powers of ten where those would say nothing."""
    if value == 0 or abs(value) >= 5e-5:
        return f"{value:.4f}"
    return "0.0000" if abs(value) < 1e-6 else f"{value:.1e}"


@contextmanager
def search_progress(console: Console, what: str) -> Iterator[ProgressCallback]:
    """A live view of a search on a terminal; elsewhere a plain line now and then."""
    if console.is_terminal:
        with _live(console, what) as report:
            yield report
    else:
        yield _plain(console, what)


@contextmanager
def _live(console: Console, what: str) -> Iterator[ProgressCallback]:
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("edges decided"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task(what, total=None)
    line = Text("")
    started, drawn = time.perf_counter(), 0.0
    with Live(Group(bar, line), console=console, transient=True, refresh_per_second=8):

        def report(progress: Progress) -> None:
            nonlocal drawn
            now = time.perf_counter()
            if now - drawn < 0.1 and progress.decided < progress.edges:
                return
            drawn = now
            bar.update(task, completed=progress.decided, total=progress.edges)
            line.plain = _words(progress, now - started)

        yield report


def _plain(console: Console, what: str) -> ProgressCallback:
    started = time.perf_counter()
    last = started

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last < PLAIN_LINE_EVERY:
            return
        last = now
        left = (now - started) * (progress.edges - progress.decided) / max(1, progress.decided)
        console.print(
            f"{what}: {progress.decided:,} of {progress.edges:,} edges decided, {_words(progress, now - started)}, "
            f"about {left:.0f} s left",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    return report


def _words(progress: Progress, seconds: float) -> str:
    rate = progress.tests / max(seconds, 1e-9)
    return f"{progress.kept:,} kept, metric {number(progress.metric)}, at {progress.at}, {rate:.0f} tests/s"
