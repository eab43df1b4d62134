"""What notebooks show of what edgewise gives: tables, differences, drawings, the page of a run.

Importing this gives `Task`, `Decoder`, `Circuit`, `Run`, `Evaluation`, `Series` and `Sweep` their `_repr_html_`, and
`Run` its `page` and `show`; each imports it when a notebook first asks (`edgewise.attached`). None of it needs Jupyter.
All text is escaped, and control characters are written out.
"""

from __future__ import annotations

import html
import io
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgewise.errors import EdgewiseError
from edgewise.evaluation import Evaluation
from edgewise.graph import Circuit, NeuronCircuit
from edgewise.graph.groups import GivenGroups
from edgewise.models import Decoder
from edgewise.models.features import features, whole
from edgewise.reports.by_neuron import neuron_table
from edgewise.reports.by_node import node_table
from edgewise.reports.circuits import circuit_table
from edgewise.reports.drawing import draw
from edgewise.reports.evaluation import evaluation_tables
from edgewise.reports.page import report
from edgewise.reports.prompts import differing
from edgewise.reports.words import metric_number, percent, visible, worse
from edgewise.runs import Run
from edgewise.runs.series import Series, Sweep
from edgewise.runs.verdict import verdict
from edgewise.tasks import PromptText, Task

PAIRS = 5
"""Prompt pairs of a task that are shown."""
DRAWN = 150
"""Edges of a run's circuit that are drawn, the strongest; the page has all."""
HEIGHT = 900
"""Of the page in a notebook, in pixels."""

_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
_NUMBER = _CELL.replace("text-align:left", "text-align:right")
_QUIET = "opacity:0.65"


# -- what there is to show ---------------------------------------------------------------------------------------------


def task_html(task: Task) -> str:
    """Its first pairs, with what differs marked, and the answers."""
    about = [f"metric {task.metric}", f"ablation {task.ablation}"]
    if task.threshold is not None:
        about.append(f"threshold {task.threshold:g}")
    if task.known_circuit is not None:
        about.append(f"a known circuit of {task.known_circuit.n_edges:,} edges")
    rows = [row for number, pair in enumerate(task.text[:PAIRS], start=1) for row in _pair(number, pair)]
    more = len(task.text) - PAIRS
    return _box(
        _title(task.describe()),
        _note("; ".join(about)),
        _table(("", "", "prompt", "answer", "not"), rows),
        _note(f"and {more:,} more" if more > 0 else ""),
    )


def _pair(number: int, pair: PromptText) -> list[list[str]]:
    clean, corrupt = differing(pair.clean, pair.corrupt)
    answers, wrong = (_escape(" / ".join(map(repr, texts[:4]))) for texts in (pair.answers, pair.wrong))
    return [
        [str(number), "clean", _marked(clean, "#009e73"), answers, wrong],
        ["", "corrupt", _marked(corrupt, "#d55e00"), "", ""],
    ]


def _marked(pieces: Iterable[tuple[str, bool]], colour: str) -> str:
    style = f"text-decoration:none;background:none;color:inherit;font-weight:bold;border-bottom:2px solid {colour}"
    texts = (f'<mark style="{style}">{_escape(part)}</mark>' if differs else _escape(part) for part, differs in pieces)
    return f'<span style="white-space:pre-wrap">{"".join(texts)}</span>'


def decoder_html(model: Decoder) -> str:
    """Its family and shape, and what it was taken to have, layer by layer."""
    config = model.config
    rows = [
        ["family", _escape(config.architecture)],
        ["graph", _escape(f"{model.graph().describe()}; {model.graph().n_edges:,} edges")],
        ["numbers", _escape(f"{model.dtype_name} on {model.device}")],
        ["ends", _escape("; ".join(whole(model)))],
    ]
    if model.original is not None:
        rows.append(["control", f"heads and neurons permuted, seed {config.permuted_seed}"])
    rows += [[_layers(numbers), _escape("; ".join(words))] for numbers, words in features(model)]
    return _box(_title(model.name), _table(("", "what edgewise takes it to have"), rows))


def _layers(numbers: Sequence[int]) -> str:
    """`layers 0 to 3, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    said = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in runs)
    return f"layer{'s' * (len(numbers) > 1)} {said}"


def circuit_html(circuit: Circuit) -> str | None:
    """A circuit of which there is no drawing, as a table; None of the others, which notebooks draw."""
    if circuit._repr_svg_() is not None:
        return None
    table = neuron_table(circuit) if isinstance(circuit, NeuronCircuit) else circuit_table(circuit)
    return _box(_title(repr(circuit)), *map(_of_rich, [table]))


def run_html(run: Run) -> str:
    """What the search came to, whether that is enough, and the circuit."""
    record = run.record
    settings, result = record["settings"], record["result"]
    name, circuit = settings["metric"], run.circuit
    metric, full, ablated = (metric_number(name, result[key]) for key in ("metric", "metric_full", "metric_ablated"))
    rows = [
        ["found", f"{circuit.size:,} of {circuit.most:,} {circuit.unit}"],
        [_escape(name), f"{metric} (the model {full}, everything ablated {ablated})"],
    ]
    if result.get("recovered") is not None:
        rows.append(["recovered", percent(result["recovered"])])
    if result.get("accuracy") is not None:
        of_model = "" if result["accuracy_full"] is None else f" (the model {percent(result['accuracy_full'])})"
        rows.append(["answered right", f"{percent(result['accuracy'])}{of_model}"])
    if run.trace:
        rows.append(["tests", f"{result['tests']:,} in {result['seconds']:.1f} s"])
    if record["finished"]:
        said = verdict(record, run.trace)
    else:
        stopped = record["stopped"]
        decided = f"{stopped['decided']:,} of {stopped['of']:,} {circuit.unit} decided"
        said = f"{stopped['why']}: {decided}, up to {stopped['at']}"
    threshold = settings.get("threshold")
    how = "" if threshold is None else f" at threshold {threshold:g}"
    return _box(
        _title(f"{run.task_name} in {settings['model']['name']}"),
        _note(f"{settings['method']}{how}, ablation {settings['ablation']}"),
        _table((), rows),
        "" if said is None else f"<p><b>{_escape(said)}</b></p>",
        _picture(run),
        _note("run.page() shows all of it, run.save(folder) keeps it"),
    )


def _picture(run: Run) -> str:
    """The circuit's drawing; as a table where there is none."""
    circuit = run.circuit
    if isinstance(circuit, NeuronCircuit):
        return _of_rich(neuron_table(circuit))
    edges = DRAWN if circuit.scores is not None and circuit.n_edges > DRAWN and not circuit.whole_nodes else None
    effect = "score" if run.scores is not None else worse(run.record["settings"]["metric"])
    try:
        return draw(circuit, edges=edges, effect=effect, groups=run.task.named_groups or None)
    except EdgewiseError:
        return _of_rich(node_table(circuit) if circuit.whole_nodes else circuit_table(circuit))


def evaluation_html(evaluation: Evaluation) -> str:
    """Every table that `edgewise evaluate` prints of it."""
    return _box(
        _title(f"{evaluation.size} on {evaluation.examples} example{'s' * (evaluation.examples != 1)}"),
        *map(_of_rich, evaluation_tables(evaluation)),
    )


def series_html(series: Series) -> str:
    """A row per circuit: what gave it, its size, its metrics."""
    metrics = list(series.baseline)
    tested = [name for name in metrics if series.points and name in series.points[0].test_metrics]
    rows = [
        [
            f"{point.setting:.4g}",
            f"{point.circuit.n_edges:,}",
            *(metric_number(name, point.metrics[name]) for name in metrics),
            *(metric_number(name, point.test_metrics[name]) for name in tested),
        ]
        for point in series.points
    ]
    for what, at in (("the model", 0), ("everything ablated", 1)):
        rows.append(
            [what, "", *(metric_number(name, series.baseline[name][at]) for name in metrics), *("" for _ in tested)]
        )
    heads = [series.by, "edges", *metrics, *(f"{name} on test prompts" for name in tested)]
    return _box(_title(series.method), _table([_escape(head) for head in heads], rows, numbers_from=1))


def sweep_html(sweep: Sweep) -> str:
    """The series, one after another."""
    return "".join(map(series_html, sweep)) or _note("no series")


# -- the page ----------------------------------------------------------------------------------------------------------


class Page:
    """The page of a run, to be shown in a notebook.

    Attributes:
        html: the whole page, as `edgewise report` writes it.
        height: what it takes in a notebook, in pixels.
    """

    def __init__(self, page: str, height: int = HEIGHT) -> None:
        self.html, self.height = page, height

    def __repr__(self) -> str:
        return f"<Page of {len(self.html):,} characters; in a notebook it shows itself>"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, which can do nothing to the notebook around it."""
        return (
            f'<iframe sandbox="{SANDBOX}" srcdoc="{html.escape(self.html)}" title="the page of a run" '
            f'style="width:100%;height:{self.height}px;border:0;background:white"></iframe>'
        )


SANDBOX = "allow-scripts allow-downloads allow-modals"


def page(
    run: Run,
    *,
    prompts: int = 4,
    groups: GivenGroups | None = None,
    known: str | Path | Circuit | Run | None = None,
    height: int = HEIGHT,
    progress: Callable[[int, int], None] | None = None,
) -> Page:
    """The page of a run inside a notebook; `run.page()`.

    Args:
        prompts, groups, known, progress: as `edgewise.report` takes them.
        height: of the frame, in pixels.

    Raises:
        EdgewiseError: as `edgewise.report`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        report(run, file, prompts=prompts, groups=groups, known=known, progress=progress)
        return Page(file.read_text(encoding="utf-8"), height)


def show(run: Run, **options: Any) -> Any:
    """The page of a run inside a notebook, with what is chosen in it readable from Python; `run.show()`.

    It needs `pip install 'edgewise[notebook]'`.

        view = run.show()
        view           # click a head
        view.selected  # in the next cell: 'a3.h1'

    Args:
        options: as `page` takes them.

    Returns:
        A `View` (`edgewise.reports.notebook_view`).

    Raises:
        EdgewiseError: the extra is not installed; or as `page`.
    """
    try:
        from edgewise.reports.notebook_view import View
    except ImportError:
        raise EdgewiseError(
            "run.show() needs anywidget: pip install 'edgewise[notebook]'; run.page() shows the same page without it"
        ) from None
    made = page(run, **options)
    return View(html=made.html, height=made.height)


# -- HTML ----------------------------------------------------------------------------------------------------------


def _escape(text: str) -> str:
    return html.escape(visible(text))


def _box(*parts: str) -> str:
    return f'<div class="edgewise" style="line-height:1.4">{"".join(part for part in parts if part)}</div>'


def _title(text: str) -> str:
    return f"<div><b>{_escape(text)}</b></div>"


def _note(text: str) -> str:
    return f'<div style="{_QUIET}">{_escape(text)}</div>' if text else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """A table of cells that are HTML already."""

    def line(cells: Sequence[str], tag: str) -> str:
        styles = (_NUMBER if numbers_from is not None and at >= numbers_from else _CELL for at in range(len(cells)))
        return "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell, style in zip(cells, styles, strict=True))

    head = f"<thead><tr>{line(heads, 'th')}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<table style="border-collapse:collapse;margin:4px 0">{head}<tbody>{body}</tbody></table>'


def _of_rich(shown: RenderableType) -> str:
    """What the terminal shows, as HTML."""
    if isinstance(shown, Group):
        return "".join(map(_of_rich, shown.renderables))
    if isinstance(shown, Text):
        return f"<div>{_escape(shown.plain)}</div>" if shown.plain.strip() else "<br>"
    if isinstance(shown, Table):
        heads = [_cell(column.header) for column in shown.columns]
        rows = zip(*(map(_cell, column.cells) for column in shown.columns), strict=True)
        title = f"<div><i>{_cell(shown.title)}</i></div>" if shown.title is not None else ""
        numbers = next((at for at, column in enumerate(shown.columns) if column.justify == "right"), None)
        return title + _table(heads, [list(row) for row in rows], numbers_from=numbers)
    console = Console(file=io.StringIO(), width=120)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return f"<pre>{_escape(console.file.getvalue())}</pre>"


def _cell(cell: RenderableType) -> str:
    text = Text.from_markup(cell) if isinstance(cell, str) else cell
    return _escape(text.plain) if isinstance(text, Text) else _of_rich(text)


Task._repr_html_ = task_html
Decoder._repr_html_ = decoder_html
Circuit._repr_html_ = circuit_html
Run._repr_html_ = run_html
Evaluation._repr_html_ = evaluation_html
Series._repr_html_ = series_html
Sweep._repr_html_ = sweep_html
Run.page = page
Run.show = show
