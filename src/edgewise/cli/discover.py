"""`edgewise discover`: find a circuit and write a run folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption, asks
from edgewise.cli.printing import OF_A_RUN, Kept, exit_code, headline, sized, sized_in_nodes, stdout_console
from edgewise.cli.signals import saving
from edgewise.errors import EdgewiseError
from edgewise.runs.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from edgewise.runs import Run, RunFolder


@app.command(epilog="Example: edgewise discover prompts.jsonl --model gpt2 --threshold 0.02 --out runs/mine")
@asks()
def discover(
    asked: Request,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write. Default: runs/TASK-METHOD, numbered if that is taken.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run that --out holds, once this one is done.")
    ] = False,
    log: Annotated[
        str | None,
        typer.Option(
            help="Also log the search to tensorboard or wandb, each an extra: pip install 'edgewise\\[tensorboard]'.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Find the circuit that produces a task's behaviour in a model, and write a run folder."""
    from rich.console import Console

    from edgewise.discovery import method_named
    from edgewise.reports import search_progress
    from edgewise.reports.tracking import both, require_log, tracking
    from edgewise.runs import RunFolder, require_free
    from edgewise.runs import discover as run_discovery

    # What can be refused before a model is loaded is refused now.
    spec = asked.check()
    asked.search.check_size(None if spec is None else spec.threshold)
    method = method_named(asked.search.method)
    require_log(log)
    if force and out is None:
        raise EdgewiseError("--force needs --out: without it a run has a folder of its own")
    if out is not None:
        out = some_path(out, "--out").expanduser()
        require_free(out, force=force)
    loaded, prompts = asked.load()
    claimed = (
        RunFolder.claim(out, force=force) if out else RunFolder.claim_next(Path("runs") / f"{prompts.name}-{method}")
    )
    with claimed as folder, tracking(log, folder.path) as tracked:
        messages = Console(stderr=True, quiet=quiet)
        name = str(asked.search.metric or prompts.metric)

        def search() -> Run:
            with search_progress(messages, method, headline(prompts, loaded), name) as progress:
                return run_discovery(
                    loaded,
                    prompts,
                    request=asked.search,
                    progress=both(progress, tracked),
                    command=["edgewise", *sys.argv[1:]],
                    out=folder,
                )

        found, written = keep(folder, search, tracked, messages)
    show(found, written, as_json=as_json)


def keep(folder: RunFolder, search: Callable[[], Run], tracked: Any, messages: Console) -> tuple[Run, Path]:
    """Make a search and write what it comes to into its folder, also when it is stopped half-way."""
    from edgewise.runs import RunInterrupted

    try:
        found = search()
    except RunInterrupted as stop:
        if tracked is not None:
            tracked.ended(stop.run.record)
        with saving():
            _say_stopped(stop.run, folder.finish(stop.run.files(), whole=False))
        raise Kept(exit_code(stop)) from None
    except (KeyboardInterrupt, SystemExit) as stop:  # when it had decided all, or before it decided any more
        if not folder.has_decisions:
            raise
        typer.echo(
            f"edgewise: interrupted; what was decided is in {folder.begun} and goes on with: edgewise resume "
            f"{folder.begun}",
            err=True,
        )
        raise Kept(exit_code(stop)) from None
    if tracked is not None:
        tracked.ended(found.record)
        messages.print(f"logged to {tracked.where}", highlight=False, markup=False, soft_wrap=True)
    with saving():
        return found, folder.finish(found.files())


def show(found: Run, written: Path, *, as_json: bool) -> None:
    """Print what a search has found."""
    if as_json:
        typer.echo(json.dumps({"task": found.task_name, **found.summary(), "run_dir": str(written)}))
        return
    _show_run(stdout_console(), found, written)


def _say_stopped(run: Any, written: Path) -> None:
    stopped, circuit, unit = run.record["stopped"], run.circuit, run.circuit.unit
    if stopped["whole"]:
        typer.echo(
            f"edgewise: {stopped['why']} at {stopped['at']}; the largest circuit of at most "
            f"{run.record['settings']['edges']:,} {unit} so far, of {circuit.size:,}, is kept in {written}; "
            f"edgewise resume {written} goes on",
            err=True,
        )
        return
    typer.echo(
        f"edgewise: {stopped['why']}. {stopped['decided']:,} of {stopped['of']:,} {unit} were decided, up to "
        f"{stopped['at']}; that much is kept in {written}, with every other {unit[:-1]} still in the circuit; edgewise "
        f"resume {written} goes on",
        err=True,
    )


def _show_run(console: Console, found: Any, written: Path) -> None:
    from edgewise.graph import NeuronCircuit
    from edgewise.graph.groups import groups_found
    from edgewise.reports import circuit_table, groups_table, highest_scores, known_table, strongest_edges
    from edgewise.reports.by_neuron import neuron_table, strongest_neurons
    from edgewise.reports.by_node import node_table, strongest_nodes
    from edgewise.reports.words import metric_number, percent, worse

    result, settings = found.record["result"], found.record["settings"]
    shortlist = found.record.get("shortlist")
    whole = "whole" if settings["model"]["permuted_seed"] is None else "permuted"
    scoring = result["scoring"]
    if scoring is None:
        cut = f" at threshold {settings['threshold']:z.4g}"
    else:
        cut = f", scores down to {scoring['cut']:z.4g}" if found.circuit and scoring["cut"] is not None else ""
    circuit, unit = found.circuit, found.circuit.unit
    size = sized(result["n_edges"], result["n_graph_edges"], result["n_edges_connected"], settings["ablation"])
    if circuit.whole_nodes:
        size = sized_in_nodes(result["n_nodes"], result["n_graph_nodes"], result["n_edges"])
    if isinstance(circuit, NeuronCircuit):
        size = f"{circuit.size:,} of {circuit.most:,} neurons, beside all heads and edges"
    console.print(f"kept {size}{cut}", highlight=False, soft_wrap=True)
    name = settings["metric"]
    if shortlist is not None:
        console.print(
            f"searched within {shortlist[f'n_{unit}']:,} {unit}, whose {name} is "
            f"{metric_number(name, shortlist['metric'])}",
            highlight=False,
            soft_wrap=True,
        )
    metric, full, ablated = (metric_number(name, result[key]) for key in ("metric", "metric_full", "metric_ablated"))
    console.print(
        f"{name} {metric}; the {whole} model has {full}, with every {unit[:-1]} ablated {ablated}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if result["recovered"] is not None:
        answers = ""
        if result["accuracy"] is not None:
            answers = f"; answered right {percent(result['accuracy'])}, by the model {percent(result['accuracy_full'])}"
        console.print(
            f"recovered {percent(result['recovered'])} (0% is every {unit[:-1]} ablated, 100% the model){answers}",
            highlight=False,
            soft_wrap=True,
        )
    if abs(result["metric_full"] - result["metric_ablated"]) < 1e-9:
        console.print(
            f"note: ablating every {unit[:-1]} leaves the metric as it is, so no {unit[:-1]} can matter",
            highlight=False,
            soft_wrap=True,
        )
    if scoring is None:
        off = abs(result["metric"] - result["metric_in_search"])
        how = (
            f"{result['tests']:,} {unit} tested in {result['seconds']:.1f} s; measured again from scratch, the metric "
            f"is {'what the search had' if off == 0 else f'within {off:.0e} of what the search had'}"
        )
    else:
        details = {name: value for name, value in scoring.items() if name not in ("rule", "cut", "taken", "dangling")}
        words = "".join(f", {name.replace('_', ' ')} {value}" for name, value in details.items())
        how = f"scored by {settings['method']}{words} in {result['seconds']:.1f} s; {scoring['taken']:,} {unit} taken"
        if unit == "edges":
            how += f", {scoring['dangling']:,} of them dropped because they lay on no path"
    console.print(f"{how}\n", highlight=False, soft_wrap=True)
    # Under these, edges on no path from the embedding carry nothing; under other ablations they may.
    if isinstance(circuit, NeuronCircuit):
        console.print(neuron_table(circuit))
        console.print()
        console.print(strongest_neurons(circuit, absolute=settings["absolute"]))
        console.print(f"\nwritten to {written}", highlight=False, markup=False, soft_wrap=True)
        return
    connected = circuit.connected()
    shown = connected if connected and settings["ablation"] in OF_A_RUN and unit == "edges" else circuit
    console.print(node_table(circuit) if circuit.whole_nodes else circuit_table(shown))
    console.print()
    if circuit.whole_nodes:
        by = "score" if scoring is not None else worse(name)
        console.print(strongest_nodes(circuit, by, absolute=settings["absolute"]))
    elif scoring is None:
        console.print(strongest_edges([one for one in found.trace if one.edge in circuit], name))
    else:
        console.print(highest_scores(circuit, absolute=settings["absolute"]))
    own = groups_found(found.task.groups, found.circuit)
    if found.task.known_circuit is not None:
        console.print()
        console.print(known_table(found.task.known_circuit.compare(found.circuit), own))
    elif own:
        console.print()
        console.print(groups_table(own))
    console.print(f"\nwritten to {written}", highlight=False, markup=False, soft_wrap=True)
