"""`edgewise report`: a page to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import DeviceOption, GroupsOption, JsonOption, KnownOption, RevisionOption
from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    from edgewise.reports.page import Source


@app.command(epilog="Example: edgewise report runs/ioi-acdc")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run folder, or several of one graph.", autocompletion=completion.runs),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write. Default: report.html in the run's folder; of several runs, here."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Measure on this model. Default: each run's own.")
    ] = None,
    revision: RevisionOption = None,
    no_model: Annotated[
        bool,
        typer.Option("--no-model", help="Load no model: no attention patterns, nothing measured prompt by prompt."),
    ] = False,
    prompts: Annotated[int, typer.Option(help="How many prompts to show attention patterns for.")] = 4,
    groups: GroupsOption = None,
    known: KnownOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Make one HTML page of a run, or of several side by side, that opens from disk and needs no network."""
    from edgewise.reports.page import make_page, read_sources, require_free_file, write_page
    from edgewise.runs.given import known_of

    if prompts < 1:
        raise EdgewiseError(f"--prompts should be at least 1, not {prompts}")
    if no_model and (model, revision, device) != (None, None, None):
        raise EdgewiseError(
            "--no-model leaves nothing for --model, --revision and --device to say; give one or the other"
        )
    folders = [some_path(run, "the run folder").expanduser() for run in runs]
    sources = read_sources(folders, groups=groups, known=None if known is None else known_of(known))
    target = Path("report.html") if len(folders) > 1 else folders[0] / "report.html"
    target = target if out is None else some_path(out, "--out").expanduser()
    require_free_file(target)
    measured = [_measured(source, (model, revision), no_model, prompts, device, quiet) for source in sources]
    page = make_page(sources, measured)
    write_page(target, page)
    if as_json:
        notes = list(dict.fromkeys(note for one in measured for note in one.get("notes", ())))
        about = {"file": str(target), "bytes": len(page.encode()), "runs": [str(one) for one in folders]}
        typer.echo(json.dumps({**about, "notes": notes}))
        return
    typer.echo(f"written to {target} ({len(page.encode()) / 1e6:.2f} MB)")


def _measured(
    source: Source, named: tuple[str | None, str | None], no_model: bool, prompts: int, device: str | None, quiet: bool
) -> dict[str, Any]:
    """What the run's model says of it; where that cannot be had, a note why not, for the page and for the terminal."""
    if no_model:
        return {"notes": ["Made without the model (--no-model): no attention patterns, nothing prompt by prompt."]}
    from rich.console import Console

    from edgewise.reports import step_progress
    from edgewise.reports.page import measure
    from edgewise.runs import load_again

    model, revision = named
    settings, console = source.settings, Console(stderr=True, quiet=quiet)
    try:
        split = settings["task"].get("split", "validation")
        with step_progress(console, f"measuring {source.label}") as progress:
            loaded, task = load_again(
                source.folder, settings, model=model, revision=revision, split=split, device=device
            )
            found = measure(source, loaded, task, prompts=prompts, progress=progress)
    except EdgewiseError as error:
        typer.echo(f"edgewise: note: the page is made without the model: {error}", err=True)
        return {"notes": [f"No attention patterns, and nothing prompt by prompt: {error}."]}
    if model is not None:
        found["notes"].append(f"What is shown prompt by prompt was measured on {model!r}, which --model named.")
    return found
