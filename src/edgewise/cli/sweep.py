"""`edgewise sweep`: circuits of many sizes, by any methods, against what they keep."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.defaults import command_line
from edgewise.cli.loading import some_path
from edgewise.cli.options import MANY_WORKERS, JsonOption, StepsOption, asks, names_in
from edgewise.cli.printing import headline, kept_if_stopped, stdout_console
from edgewise.errors import EdgewiseError
from edgewise.files import write_text
from edgewise.runs.request import Request

MOST_SETTINGS = 10_000


@app.command(epilog="Example: edgewise sweep ioi --methods acdc,edge-attribution-ig,random --sizes 5,10,20,50,100")
@asks(
    *("ablation", "mean_over", "ablation_seed", "metric", "ports", "heads", "positions", "known"),
    *("absolute", "layer_order", "head_order"),
    *("ray", "cpus", "gpus"),
    workers=MANY_WORKERS,
)
def sweep(
    *,
    methods: Annotated[
        str, typer.Option(help="By commas (see: edgewise methods); random is the control: circuits of random paths.")
    ] = "acdc,edge-attribution-ig,random",
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="ACDC's, as in 0.1,0.01 or 1e-4:1:21 (21 from 1e-4 to 1, evenly on a log axis).", show_default=False
        ),
    ] = None,
    lambdas: Annotated[str | None, typer.Option(help="Subnetwork probing's, likewise.", show_default=False)] = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Numbers of edges for all other methods, likewise. Default: 1% to 50% of the graph."),
    ] = None,
    asked: Request = Request(),
    steps: StepsOption = None,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Measure every circuit on test prompts too.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps every circuit; a sweep that was stopped goes on there. Default: runs/TASK-sweep."
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Sweep methods over thresholds or sizes: how many edges each needs to keep how much of the behaviour."""
    from rich.console import Console

    from edgewise.discovery import ALIASES, METHODS, Order
    from edgewise.graph.eap_json import to_dict
    from edgewise.patching import Experiment
    from edgewise.reports import sweep_progress
    from edgewise.reports.sweep_plots import sweep_plots
    from edgewise.reports.tables import areas_line, series_rows, terminal_table
    from edgewise.runs import require_own
    from edgewise.runs.given import KNOWN, known_of
    from edgewise.runs.paper_rows import SIZES
    from edgewise.runs.sweep import LAMBDAS, MARKS, PAPER_THRESHOLDS, SweepPlan, on_others, series_csv
    from edgewise.runs.sweep import sweep as run

    asked.check()
    search = asked.search
    names = [ALIASES.get(name, name) for name in names_in(methods, "--methods")]
    given = {
        "acdc": PAPER_THRESHOLDS if thresholds is None else numbers(thresholds, "--thresholds"),
        "subnetwork-probing": LAMBDAS if lambdas is None else numbers(lambdas, "--lambdas"),
    }
    wanted = None if sizes is None else whole(numbers(sizes, "--sizes"), spread=":" in sizes)
    if steps is not None and not any("steps" in METHODS[name].options for name in names if name in METHODS):
        raise EdgewiseError(f"none of the methods {', '.join(names)} has --steps")

    modes = search.layer_order, search.head_order
    order = Order(*modes, search.seed if "shuffle" in modes else 0)
    if "acdc" not in names and (search.absolute or order != Order()):
        raise EdgewiseError(
            f"--absolute, --layer-order and --head-order are ACDC's; none of {', '.join(names)} has them"
        )

    def plan(name: str, n_edges: int) -> SweepPlan:
        takes = METHODS[name].options if name in METHODS else {}
        options = {"steps": steps} if steps is not None and "steps" in takes else {}
        own = wanted or tuple(dict.fromkeys(float(max(2, round(share * n_edges))) for share in SIZES))
        rule = {"order": order, "absolute": search.absolute} if name == "acdc" else {}
        return SweepPlan(name, given.get(name, own), options, seed=search.seed, **rule)

    for name in names:
        plan(name, 1000).check()
    loaded, prompts = asked.load()
    others = None
    if test:
        try:
            others = dataclasses.replace(asked.task, split="test").load(loaded, search.ablation or "resample")
        except EdgewiseError as error:
            typer.echo(f"edgewise: warning: no test prompts: {error}", err=True)
    folder = (some_path(out, "--out") if out is not None else Path("runs") / f"{prompts.name}-sweep").expanduser()
    require_own(folder, "a sweep", MARKS)
    ablation, graph = search.ablating(loaded, prompts), search.graph(loaded, prompts)
    experiment = Experiment(loaded, prompts, ablation=ablation, metric=search.metric, graph=graph)
    truth = prompts.known_circuit if search.known is None else known_of(search.known)
    known = None if truth is None else truth.on(experiment.graph)
    folder.mkdir(parents=True, exist_ok=True)
    with kept_if_stopped(folder), sweep_progress(Console(stderr=True, quiet=quiet)) as progress:
        plans = [plan(name, experiment.graph.n_edges) for name in names]
        found = run(
            experiment, plans, test=others, folder=folder, progress=progress(prompts.name), cluster=search.cluster()
        )
    write_text(folder / "sweep.csv", series_csv(found, known))
    title = f"{prompts.name} on {Path(loaded.name).name}"
    shown_on = experiment if others is None or known is None else on_others(experiment, others)
    value = None if known is None else shown_on.value(known)
    sweep_plots(found, experiment.metric.name, folder, title=title, known=known, known_value=value)
    if known is not None and search.known is not None:
        write_text(folder / KNOWN, json.dumps(to_dict(known)))
    write_text(folder / "command.txt", shlex.join(command_line()) + "\n")
    if as_json:
        from edgewise.runs.sweep import series_summary

        about = {"task": prompts.name, "model": loaded.name, "metric": experiment.metric.name, "folder": str(folder)}
        typer.echo(json.dumps({**about, "series": [series_summary(one, known) for one in found]}))
        return
    console = stdout_console()
    console.print(f"{headline(prompts, loaded)}\n", highlight=False, markup=False, soft_wrap=True)
    for one in found:
        rows = series_rows(one, experiment.metric.name, known)
        console.print(terminal_table(one.method, rows, right=0))
        if known is not None:
            console.print(areas_line(one, known), highlight=False, soft_wrap=True)
        console.print()
    console.print(
        f"written to {folder}: sweep.csv, plots, and a file per method", highlight=False, markup=False, soft_wrap=True
    )


def numbers(text: str, option: str) -> tuple[float, ...]:
    """`0.1,0.01`, or `low:high:count` for as many numbers evenly on a logarithmic axis.

    Raises:
        EdgewiseError: something else.
    """
    try:
        if ":" in text:
            low, high, count = text.split(":")
            first, last, steps = float(low), float(high), int(count)
            if not (0 < first < math.inf and 0 < last < math.inf and 1 < steps <= MOST_SETTINGS):
                raise ValueError
            return tuple(first * (last / first) ** (step / (steps - 1)) for step in range(steps))
        found = tuple(float(one) for one in text.split(",") if one.strip())
        if not found or not all(math.isfinite(one) for one in found):
            raise ValueError
        return found
    except ValueError:
        raise EdgewiseError(
            f"{option} takes numbers by commas, or LOW:HIGH:COUNT with both above 0 and a count of 2 to "
            f"{MOST_SETTINGS:,}, not {text!r}"
        ) from None


def whole(sizes: tuple[float, ...], *, spread: bool) -> tuple[float, ...]:
    """Sizes as whole numbers, each once; those of LOW:HIGH:COUNT are rounded.

    Raises:
        EdgewiseError: a size that someone typed is no whole number.
    """
    for size in sizes:
        if not spread and size != int(size):
            raise EdgewiseError(f"--sizes takes whole numbers of edges, not {size:g}")
    return tuple(dict.fromkeys(float(round(size)) for size in sizes))
