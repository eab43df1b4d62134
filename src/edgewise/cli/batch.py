"""`edgewise batch`: many searches from one file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption
from edgewise.cli.printing import kept_if_stopped
from edgewise.errors import EdgewiseError
from edgewise.files import write_text

if TYPE_CHECKING:
    from edgewise.runs.jobs import Job


@app.command(epilog="Example: edgewise batch searches.toml --out runs/batch --workers 4")
def batch(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What to search: a TOML file, or JSONL with a run a line."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder with a run folder for each; what has ended there stays. Default: runs/FILE."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Runs at a time, by Ray on this machine. Default: one after another, without it.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Join a Ray cluster, as in auto or ray://head:10001, to run there."),
    ] = None,
    cpus: Annotated[float, typer.Option(help="With Ray: CPUs that a run takes.")] = 1.0,
    gpus: Annotated[float, typer.Option(help="With Ray: GPUs that a run takes; 0.5 lets two share one.")] = 0.0,
    retries: Annotated[
        int, typer.Option(help="Times that a run is tried again whose worker died, or which crashed.")
    ] = 2,
    only: Annotated[
        str | None, typer.Option(help="Make a part of the runs, as in 3/8: every 8th from the 3rd on, for a job array.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which runs there are, and make none.")] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Make many searches, each in a run folder of its own; the same command goes on where it was stopped."""
    from rich.console import Console

    from edgewise.cli.printing import stdout_console
    from edgewise.reports.words import Sparing, metric_number
    from edgewise.runs import require_own
    from edgewise.runs.batch import MARKS, TABLE, Cluster, ask, by_ray, one_by_one, summary, table
    from edgewise.runs.jobs import read_jobs

    path = some_path(file, "the batch").expanduser()
    jobs = read_jobs(path)
    cluster = Cluster(workers, ray, cpus, gpus, retries)
    side_by_side = workers is not None or ray is not None
    if side_by_side:
        cluster.check()
    elif retries < 0:
        raise EdgewiseError(f"--retries should be 0 or more, not {retries}")
    mine = jobs if only is None else part_of(jobs, only)
    folder = (some_path(out, "--out") if out is not None else Path("runs") / path.stem).expanduser()
    if dry_run:
        if as_json:
            typer.echo(json.dumps({"runs": [{"run": job.name, **job.given} for job in mine]}))
            return
        for job in mine:
            typer.echo(f"{job.name}: {', '.join(f'{name} {value}' for name, value in job.given.items())}")
        return
    require_own(folder, "a batch", MARKS)
    ask(folder, jobs)
    messages, how, lines = Console(stderr=True, quiet=quiet), [], Sparing()
    came = {job.name: summary(folder / job.name) for job in jobs}
    with kept_if_stopped(folder):
        ended = by_ray(mine, folder, cluster) if side_by_side else one_by_one(mine, folder, retries)
        for one in ended:
            how.append(one)
            came[one.name] = summary(folder / one.name)
            said = f"{one.how}: {one.why}" if one.why else f"{one.how} in {one.seconds:.1f} s"
            if one.how == "there":
                said = "there already"
            if messages.is_terminal or one.how == "failed" or len(how) == len(mine) or lines.due():
                messages.print(f"{len(how)} of {len(mine)}  {one.name}: {said}", highlight=False, markup=False)
            write_text(folder / TABLE, table(came))
    # Others may have ended some in the meantime.
    came |= {name: summary(folder / name) for name, own in came.items() if own["finished"] != "yes"}
    write_text(folder / TABLE, table(came))
    failed = [one for one in how if one.how == "failed"]
    if as_json:
        rows = [{**dataclasses.asdict(one), **came[one.name]} for one in how]
        typer.echo(json.dumps({"folder": str(folder), "runs": rows}))
    else:
        console = stdout_console()
        for one in how:
            own = came[one.name]
            if own["finished"] == "yes":
                number = metric_number(own["metric"], own["value"])
                console.print(
                    f"{one.name}: {own['edges']:,} edges, {own['metric']} {number}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
        console.print(f"written to {folder}: a run folder each, and {TABLE}", highlight=False, markup=False)
    if failed:
        raise EdgewiseError(
            f"{len(failed)} of {len(mine)} runs failed, {failed[0].name!r} because: {failed[0].why}; the same command "
            "tries them again"
        )


def part_of(jobs: list[Job], only: str) -> list[Job]:
    """The runs that `3/8` stands for: every 8th, from the 3rd on.

    Raises:
        EdgewiseError: it stands for nothing.
    """
    number, _, of = only.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise EdgewiseError(f"--only should be like 3/8, the third of eight parts, not {only!r}")
    return jobs[int(number) - 1 :: int(of)]
