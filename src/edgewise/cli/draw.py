"""`edgewise draw`: a circuit as a picture. It needs no model, and does not wait for torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.loading import load_any_circuit, some_path
from edgewise.cli.options import GroupsOption, JsonOption
from edgewise.errors import EdgewiseError
from edgewise.reports.words import readers_value, worse

if TYPE_CHECKING:
    from edgewise.graph import Circuit


@app.command(epilog="Example: edgewise draw runs/ioi-acdc --out ioi.png")
def draw(
    circuit: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, or a circuit file of EAP-IG (JSON or .pt).",
            show_default=False,
            autocompletion=completion.circuits,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; its ending says as what: .svg, .png or .pdf. Default: circuit.svg (with --collapse "
            "groups.svg) in the run's folder; of a circuit file, its name ending in .svg.",
            show_default=False,
        ),
    ] = None,
    edges: Annotated[
        int | None, typer.Option(help="Draw only so many edges, the strongest.", show_default=False)
    ] = None,
    groups: GroupsOption = None,
    collapse: Annotated[
        bool,
        typer.Option("--collapse", help="Draw each group as one box, and all edges between two of them as one line."),
    ] = False,
    no_columns: Annotated[
        bool,
        typer.Option(
            "--no-columns",
            help="Draw all spans of positions together, with a line for each span of an edge. Default: a column for "
            "each span, where a circuit tells positions apart.",
        ),
    ] = False,
    title: Annotated[
        str | None, typer.Option(help="What stands above. Default: the task and the model.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a circuit: layers from bottom to top, edges as wide as their effect, coloured by what they lead into."""
    from edgewise.reports.drawing import draw as draw_circuit
    from edgewise.reports.drawing import require_format
    from edgewise.runs import read_run

    given = some_path(circuit, "the run").expanduser()
    if not given.exists():
        raise EdgewiseError(f"{str(given)!r}: there is no such run folder or circuit file")
    target = some_path(out, "--out").expanduser() if out is not None else _default(given, collapse)
    require_format(target)
    if target.exists():
        raise EdgewiseError(f"the file {str(target)!r} is there already; nothing is overwritten, so choose another")
    if edges is not None and edges < 1:
        raise EdgewiseError(f"--edges should be at least 1, not {edges}")
    if given.is_dir():
        record, found = read_run(given)
        found, notes = _what_there_is(given, record, found)
        about: dict[str, Any] = {"title": _title(record), "subtitle": _subtitle(record, found), "notes": notes}
        about |= {"groups": _groups(record) if groups is None else groups, "effect": _effect(record)}
    else:
        found = load_any_circuit(given)
        about = {"title": given.name, "subtitle": f"{found.size:,} of {found.most:,} {found.unit}"}
        about |= {"groups": groups}
    if title is not None:
        about["title"] = title
    draw_circuit(found, target, edges=edges, collapse=collapse, columns=not no_columns, **about)
    if as_json:
        about = {"circuit": str(given), "unit": found.unit, "size": found.size, "strongest": edges}
        typer.echo(json.dumps({"file": str(target), **about}))
        return
    typer.echo(f"drawn to {target}")
    if edges is None and not collapse and found.n_edges > PAGEFUL and not found.whole_nodes:
        typer.echo(f"{found.n_edges:,} edges are more than fit a page: --edges {PAGEFUL} draws the strongest")


PAGEFUL = 100
"""With more edges a drawing is taller than a page."""


def _default(given: Path, collapse: bool) -> Path:
    if given.is_dir():
        return given / ("groups.svg" if collapse else "circuit.svg")
    return given.with_suffix(".groups.svg" if collapse else ".svg")


def _what_there_is(run: Path, record: dict[str, Any], circuit: Circuit) -> tuple[Circuit, list[str]]:
    """The circuit, and what must be said of it: of a search that was stopped, only what it had decided to keep."""
    if record.get("finished", True):
        return circuit, []
    from edgewise.graph import Circuit, of_node_names
    from edgewise.runs import read_trace

    last = {decision.edge: decision.kept for decision in read_trace(run, circuit.graph)}  # of several passes
    named = of_node_names if circuit.whole_nodes else Circuit.from_names
    decided = named(circuit.graph, [name for name, kept in last.items() if kept]) & circuit
    decided = decided.with_scores(circuit.scores, circuit.port_scores) if circuit.scores is not None else decided
    stopped = record.get("stopped")
    stopped = stopped if isinstance(stopped, dict) else {}
    counts = [stopped.get(key) for key in ("decided", "of")]
    unit = circuit.unit
    how_far = f", {counts[0]:,} of {counts[1]:,} {unit} decided" if all(type(one) is int for one in counts) else ""
    at = f" at {stopped['at']}" if "at" in stopped else ""
    return decided, [
        f"The search was stopped{at}{how_far}: these are the {unit} it had kept; those it had not come to are not "
        "drawn."
    ]


def _title(record: dict[str, Any]) -> str:
    settings = record["settings"]
    task, model = (Path(name).name or name for name in (settings["task"]["task"], settings["model"]["name"]))
    permuted = settings["model"].get("permuted_seed")
    return f"{task} in {model}" + ("" if permuted is None else f", permuted with seed {permuted}")


def _subtitle(record: dict[str, Any], circuit: Circuit) -> str:
    settings, result = record["settings"], record["result"]
    how = str(settings.get("method", "acdc"))
    threshold = settings.get("threshold")
    if isinstance(threshold, (int, float)):
        how += f" at threshold {threshold:z.4g}"
    parts = [how, f"{circuit.size:,} of {circuit.most:,} {circuit.unit}"]
    numbers = [result.get(key) for key in ("metric", "metric_ablated")]
    if record.get("finished", True) and all(isinstance(number, (int, float)) for number in numbers):
        metric, ablated = (readers_value(settings["metric"], number) for number in numbers)
        parts.append(f"{settings['metric']} {metric:z.4g} ({ablated:z.3g} with every {circuit.unit[:-1]} ablated)")
    return "; ".join(parts)


def _effect(record: dict[str, Any]) -> str:
    settings = record["settings"]
    method = settings.get("method", "acdc")
    return f"{worse(settings['metric'])} without it" if method == "acdc" else f"score by {method}"


def _groups(record: dict[str, Any]) -> dict[str, Any] | None:
    """The run's groups of nodes: its user's own, or those of the known circuit that it was compared with."""
    from edgewise.runs.given import groups_in

    if own := groups_in(record["settings"]):
        return dict(own)
    known = record["result"].get("known_circuit")
    try:
        return {group["group"]: group["members"] for group in known["groups"]} or None if known else None
    except (KeyError, TypeError):
        raise EdgewiseError("the run record is broken: 'result.known_circuit' holds no groups of components") from None
