"""The MIB benchmark's table as the terminal and Markdown show it: a line per method, a column per task and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgewise.reports.tables import Rows, markdown_table
from edgewise.reports.words import percent
from edgewise.runs.mib import MibBoard
from edgewise.runs.mib_work import MibResult

MEASURES: dict[str, Callable[[MibResult], float | None]] = {
    "CPR (higher is better)": lambda one: None if one.scores is None else one.scores.cpr,
    "CMD (0 is best)": lambda one: None if one.scores is None else one.scores.cmd,
    "AUROC of edges (1 is best)": lambda one: None if one.roc is None else one.roc.auroc,
}
ON_A_LOG_AXIS: dict[str, Callable[[MibResult], float | None]] = {
    "CPR on a logarithmic axis": lambda one: None if one.scores is None else one.scores.cpr_log,
    "CMD on a logarithmic axis": lambda one: None if one.scores is None else one.scores.cmd_log,
}


def board_rows(board: MibBoard, measure: Callable[[MibResult], float | None]) -> Rows | None:
    """One measure of every method in every cell that has it; None where no cell has."""
    values = {(one.method, one.title): measure(one) for one in board.results}
    titles = list(dict.fromkeys(title for (_, title), value in values.items() if value is not None))
    if not titles:
        return None
    methods = list(dict.fromkeys(one.method for one in board.results))
    rows = [[method, *(_number(values.get((method, title))) for title in titles)] for method in methods]
    return ["method", *titles], rows


def cell_lines(board: MibBoard) -> Iterator[str]:
    """What each cell was run on, and which rows of its dataset were left out."""
    for one in {result.cell: result for result in board.results}.values():
        said = [f"attributed on {_prompts(one.train)}"]
        if one.scored_on is not None:
            said.append(f"scored on {_prompts(one.scored_on)} of the {one.split} split")
        if one.scores is not None and one.scores.accuracy is not None:
            said.append(f"of which the model gets {percent(one.scores.accuracy)} right")
        mark = "" if one.official else ", no cell of the benchmark"
        yield f"{one.cell} ({one.model}, {one.dtype}{mark}): {', '.join(said)}"


def missing_lines(board: MibBoard) -> list[str]:
    """What was left out, by why."""
    reasons: dict[str, list[str]] = {}
    for method, cell, why in board.missing:
        reasons.setdefault(why, []).append(f"{method} in {cell}" if method else cell)
    return [f"left out: {', '.join(names)}: {why}" for why, names in reasons.items()]


def board_markdown(board: MibBoard) -> str:
    """All of that as a Markdown page."""
    parts = []
    for title, measure in {**MEASURES, **ON_A_LOG_AXIS}.items():
        if (rows := board_rows(board, measure)) is not None:
            parts.append(f"{title}\n\n{markdown_table(rows)}")
    return "\n".join([*parts, *(f"* {line}" for line in (*cell_lines(board), *missing_lines(board)))]) + "\n"


def _prompts(settings: object) -> str:
    assert isinstance(settings, dict)
    left_out = ", ".join(f"{count:,} {why}" for why, count in settings["left_out"].items())
    return f"{settings['examples']:,} prompts{f' ({left_out} left out)' if left_out else ''}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
