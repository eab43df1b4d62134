"""What is found out about a circuit, as tables for the terminal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgewise.evaluation import Evaluation
from edgewise.evaluation.bootstrap import FEWEST_EXAMPLES, Interval
from edgewise.evaluation.hypotheses import Hypotheses
from edgewise.evaluation.mib import MibScores
from edgewise.reports.groups import groups_table, known_table
from edgewise.reports.words import NEGATED, metric_number, percent, readers_value
from edgewise.runs.assess import Assessment
from edgewise.runs.stability import STABLE, STABLE_TIMES, Stability


def assessment_tables(found: Assessment, shown: Assessment | None = None) -> Iterator[RenderableType]:
    """Everything, section by section; what was `shown` already is left out."""
    if shown is None:
        yield from evaluation_tables(found.evaluation)
    if found.hypotheses is not None and (shown is None or shown.hypotheses is None):
        yield Text()
        yield tests_table(found.hypotheses)
        yield from _least_needed(found.hypotheses, found.evaluation.metric)
        yield from _random_circuits(found.hypotheses)
    if found.permuted is not None and (shown is None or shown.permuted is None):
        unit = found.evaluation.unit
        yield Text(f"controls: the same {unit} in a permuted network recover {percent(found.permuted)}")
    if found.mib is not None and (shown is None or shown.mib is None):
        yield Text()
        yield mib_table(found.mib)
        if found.mib_roc is not None:
            yield Text(f"AUROC against the known circuit {found.mib_roc.auroc:z.3f}")
    for stability in found.stability[len(shown.stability) if shown is not None else 0 :]:
        yield Text()
        yield from _stability_lines(stability)
    for note in found.notes[len(shown.notes) if shown is not None else 0 :]:
        yield Text(f"note: {note}")


def evaluation_tables(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Everything that was measured, beside intervals, what differs between examples, and the known circuit."""
    yield evaluation_table(evaluation)
    yield Text()
    yield without_table(evaluation)
    yield Text(direction_note(evaluation), style="dim")
    yield Text(interval_note(evaluation), style="dim")
    yield from _spread_lines(evaluation)
    if evaluation.known is not None:
        yield Text()
        yield known_table(evaluation.known, evaluation.groups)
        yield roc_table(evaluation)
    elif evaluation.groups:
        yield Text()
        yield groups_table(evaluation.groups)


def evaluation_table(evaluation: Evaluation) -> Table:
    """Every metric of the circuit beside those of the whole model and of no edge at all."""
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", overflow="fold")
    permuted = any(measured.target != measured.full for measured in evaluation.measured.values())
    whole = ["permuted model", "model"] if permuted else ["whole model"]
    for column in ("circuit", *whole, f"{evaluation.ablation}-ablated", "recovered"):
        table.add_column(column, justify="right", overflow="fold")
    for name, one in evaluation.measured.items():
        wholes = [one.full, one.target] if permuted else [one.full]
        numbers = [metric_number(name, value) for value in (one.circuit, *wholes, one.ablated)]
        recovered = "" if one.recovered is None else percent(one.recovered)
        table.add_row(Text(name), *numbers, recovered, style="bold" if name == evaluation.metric else None)
    accuracy = evaluation.accuracy
    if accuracy is not None:
        shares = [percent(value) for value in (accuracy.circuit, accuracy.full, *([1.0] if permuted else []))]
        kept = "" if accuracy.kept is None else percent(accuracy.kept)
        table.add_row("answered right", *shares[: 2 + permuted], percent(accuracy.ablated), kept)
    return table


def without_table(evaluation: Evaluation) -> Table:
    """What intervals the circuit's figures have, and what is left of the behaviour when the circuit is ablated."""
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", overflow="fold")
    for column in ("circuit between", "recovered between", "without the circuit", "completeness"):
        table.add_column(column, justify="right", overflow="fold")
    for name, one in evaluation.measured.items():
        table.add_row(
            Text(name),
            _between(_as_shown(name, one.interval), functools.partial(metric_number, name)),
            _between(one.recovered_interval, percent),
            metric_number(name, one.complement),
            "" if one.completeness is None else percent(one.completeness),
            style="bold" if name == evaluation.metric else None,
        )
    if evaluation.accuracy is not None:
        right = evaluation.accuracy
        table.add_row("answered right", _between(right.interval, percent), "", percent(right.complement), "")
    return table


def direction_note(evaluation: Evaluation) -> str:
    """Which metrics are better when they are higher, if there are any."""
    higher = [name for name in evaluation.measured if name in NEGATED]
    return f"lower is better, but for {', '.join(higher)}" if higher else "lower is better"


def interval_note(evaluation: Evaluation) -> str:
    """What the intervals are, if there are any."""
    if evaluation.measured[evaluation.metric].interval is None:
        few = f", fewer than {FEWEST_EXAMPLES}" if evaluation.examples < FEWEST_EXAMPLES else ""
        return f"no intervals ({evaluation.examples} example{'s' * (evaluation.examples != 1)}{few})"
    return f"{evaluation.confidence:.0%} intervals, bootstrapped over {evaluation.examples} examples"


def _as_shown(metric: str, interval: Interval | None) -> Interval | None:
    """An interval whose low end is the one that is shown lower."""
    return Interval(interval.high, interval.low) if interval is not None and metric in NEGATED else interval


def _between(interval: Interval | None, shown: Callable[[float], str]) -> str:
    return "" if interval is None else f"{shown(interval.low)} and {shown(interval.high)}"


def _spread_lines(evaluation: Evaluation) -> Iterator[Text]:
    spread = evaluation.spread
    if spread is None or evaluation.examples < 2:
        return
    name = evaluation.metric
    values = sorted(readers_value(name, value) for value in spread.quantiles())
    low, first, middle, third, high = (metric_number(name, readers_value(name, value)) for value in values)
    yield Text(f"{name} by example: lowest {low}, quartiles {first} {middle} {third}, highest {high}")
    shares = spread.quantiles("recovered")
    if shares:
        low, first, middle, third, high = map(percent, shares)
        yield Text(f"recovered by example: lowest {low}, quartiles {first} {middle} {third}, highest {high}")


def roc_table(evaluation: Evaluation) -> Table:
    """The circuit's point against the known circuit: all of it, and the edges that touch each group."""
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(("against it", "found", "true positive rate", "false positive rate", "precision")):
        table.add_column(column, justify="right" if index else "left")
    points = {**evaluation.roc, **{f"edges at {name}": point for name, point in evaluation.roc_by_group.items()}}
    for name, point in points.items():
        rates = (point.true_positive_rate, point.false_positive_rate, point.precision)
        table.add_row(Text(name), f"{point.n_found:,}", *(f"{rate:.3f}" for rate in rates))
    return table


def tests_table(found: Hypotheses) -> Group:
    """Every hypothesis test, its p-value and its verdict."""
    table = Table(box=None, pad_edge=False)
    for column in ("test", "passed", "p", "verdict"):
        table.add_column(column, overflow="fold", justify="right" if column == "p" else "left")
    for test in found.tests:
        passed = "-" if test.passed is None else "yes" if test.passed else "no"
        p_value = (
            "" if test.p_value is None else f"{test.p_value:.3f}" if test.p_value >= 5e-4 else f"{test.p_value:.0e}"
        )
        table.add_row(test.name, passed, p_value, Text(test.verdict))
    return Group(_title(f"hypothesis tests (Shi et al. 2024), scores by {found.score}"), table)


def _title(text: str) -> Text:
    return Text(text, style="italic", no_wrap=True, overflow="ignore")


def _least_needed(found: Hypotheses, metric: str, count: int = 5) -> Iterator[Text]:
    spare = [one for one in found.effects if one.needed is False]
    if spare:
        names = ", ".join(f"{one.edge} ({readers_value(metric, one.rise):+z.4f})" for one in spare[:count])
        more = f" and {len(spare) - count:,} more" if len(spare) > count else ""
        yield Text(f"not needed (the metric's change without them): {names}{more}")
    if found.left_out is not None:
        yield Text(found.left_out)


def _random_circuits(found: Hypotheses) -> Iterator[Text]:
    if found.random:
        ordered = sorted(found.random)
        low, most = found.random_edges
        size = f"{low:,}" if low == most else f"{low:,} to {most:,}"
        yield Text()
        yield Text(
            f"controls: {len(ordered)} random circuits of {size} {found.unit} recover "
            f"{percent(ordered[len(ordered) // 2])} (median), {percent(ordered[-1])} at most"
        )


def mib_table(found: MibScores) -> Group:
    """The benchmark's faithfulness at every size, and its areas."""
    areas = (
        f"CPR {found.cpr:z.3f} (log axis {found.cpr_log:z.3f}), CMD {found.cmd:z.3f} (log axis {found.cmd_log:z.3f})"
    )
    table = Table(box=None, pad_edge=False)
    for column in (
        f"share of {found.unit}",
        "asked",
        "left, by score",
        "faithfulness",
        "left, by size",
        "faithfulness",
    ):
        table.add_column(column, justify="right")
    for one, other in zip(found.signed, found.absolute, strict=True):
        table.add_row(
            f"{one.share:.1%}",
            f"{one.asked:,}",
            f"{one.n_edges:,}",
            f"{one.faithfulness:z.3f}",
            f"{other.n_edges:,}",
            f"{other.faithfulness:z.3f}",
        )
    return Group(_title(f"MIB benchmark on {found.metric}: {areas}"), table)


def _stability_lines(found: Stability) -> Iterator[Text]:
    sizes, unit = [circuit.size for circuit in found.circuits], found.circuits[0].unit
    words = {"examples": "from resampled examples", "order": f"in other orders of {unit}"}
    yield Text(
        f"searched again {len(sizes)} times {words[found.what]}: {min(sizes):,} to {max(sizes):,} {unit}, "
        f"{found.common:,} in all and {found.union:,} in any"
    )
    yield Text(
        f"overlap (Jaccard) of two of them {found.jaccard:.3f} on average, of this circuit with them "
        f"{sum(found.with_first) / len(found.with_first):.3f} (a stable method has more than {STABLE} over "
        f"{STABLE_TIMES} samples)"
    )
