"""What paths do to the metric, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from edgewise.evaluation import PathEffect
from edgewise.reports.words import metric_number, number, percent, worse


def path_table(effects: Sequence[PathEffect], metric: str) -> Table:
    """A row per path, and one for all together: the metric after, how far it moved, and the share of the way."""
    restored, (verb, of_metric) = effects[0].restored, worse(metric).split(" ", 1)
    moved = f"{'rise' if (verb == 'rise') != restored else 'fall'} {of_metric}"
    table = Table(box=None, pad_edge=False)
    table.add_column("path", style="bold", overflow="fold")
    for column in (metric, moved, "recovered" if restored else "lost"):
        table.add_column(column, justify="right")
    for effect in effects:
        name = effect.paths[0] if len(effect.paths) == 1 else "all together"
        change = number(-effect.effect if restored else effect.effect)
        share = "-" if effect.share is None else percent(effect.share)
        table.add_row(Text(name), metric_number(metric, effect.after), change, share)
    return table


def path_headline(effects: Sequence[PathEffect], metric: str, ablation: str) -> str:
    """Where the paths were patched, and what the metric is at both ends."""
    one = effects[0]
    before, other = metric_number(metric, one.before), metric_number(metric, one.other)
    if one.restored:
        return f"{metric} is {before} on the corrupted prompts and {other} on the clean ones; restored from there"
    return f"{metric} is {before} in the model and {other} in the ablated run; {ablation}-ablated"
