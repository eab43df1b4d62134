"""`edgewise discover`: find a circuit and write a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.app import app
from edgewise.cli.defaults import command_line
from edgewise.cli.found import how_stopped, show_run
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption, asks
from edgewise.cli.printing import Kept, exit_code, headline, stdout_console
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
    orders: Annotated[
        int | None,
        typer.Option(
            help="Search again so often in random orders of edges (ACDC): which edges the searches agree on.",
            show_default=False,
        ),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(help="The same on examples drawn anew, with replacement, so often.", show_default=False),
    ] = None,
    votes: Annotated[
        float | None,
        typer.Option(
            help="With --orders or --bootstrap: the share of searches that keep an edge of votes.json. Default: 0.5.",
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
    from edgewise.runs.votes import check_votes

    # What can be refused before a model is loaded is refused now.
    spec = asked.check()
    asked.search.check_size(None if spec is None else spec.threshold)
    method = method_named(asked.search.method)
    again = orders is not None or bootstrap is not None
    share = 0.5 if votes is None else votes
    if again:
        check_votes(method, orders, bootstrap, share)
    elif votes is not None:
        raise EdgewiseError("--votes says which edges are kept of searches made again: give --orders or --bootstrap")
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
                    command=command_line(),
                    out=folder,
                )

        found, written = keep(folder, search, tracked, messages)
    if again:
        _search_again(found, written, orders, bootstrap, share, asked.search.seed, messages)
    show(found, written, as_json=as_json)


def _search_again(
    found: Run,
    written: Path,
    orders: int | None,
    bootstrap: int | None,
    votes: float,
    seed: int,
    messages: Console,
) -> None:
    """Search again, and put into the run's folder what the searches agree on."""
    from edgewise.reports import section_progress

    try:
        with section_progress(messages) as progress:
            told = found.vote(
                orders=orders,
                bootstrap=bootstrap,
                votes=votes,
                seed=seed,
                progress=lambda done, of: progress("searching again", done, of),
            )
    except (KeyboardInterrupt, SystemExit) as stop:
        typer.echo(
            f"edgewise: interrupted while searching again, of which nothing is kept; the run itself is in {written}",
            err=True,
        )
        raise Kept(exit_code(stop)) from None
    with saving():
        told.save(written)


def keep(folder: RunFolder, search: Callable[[], Run], tracked: Any, messages: Console) -> tuple[Run, Path]:
    """Make a search and write what it comes to into its folder, also when it is stopped half-way."""
    from edgewise.runs import RunInterrupted

    try:
        found = search()
    except RunInterrupted as stop:
        if tracked is not None:
            tracked.ended(stop.run.record)
        with saving():
            written = folder.finish(stop.run.files(), whole=False)
            typer.echo(f"edgewise: {how_stopped(stop.run.record, stop.run.circuit, written)}", err=True)
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
    from edgewise.runs.stability_file import read_stability

    if as_json:
        stability = read_stability(written)
        told = {} if stability is None else {"stability": stability}
        typer.echo(json.dumps({"task": found.task_name, **found.summary(), **told, "run_dir": str(written)}))
        return
    show_run(stdout_console(), found.record, found.circuit, found.trace, written)
