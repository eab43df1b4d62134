"""`edgewise report`: a page to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
    from edgewise.tasks.known import Truth


@app.command(epilog="Example: edgewise report runs/ioi-acdc")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run folder, or several of one graph.", autocompletion=completion.runs),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, or the folder of a gallery. Default: report.html in the run's folder; of several "
            "runs, here; gallery."
        ),
    ] = None,
    gallery: Annotated[
        bool,
        typer.Option(
            "--gallery",
            help="A folder of pages, one for each run, with a first page that leads to them. Runs may be of different "
            "models; a folder of runs stands for all of them.",
        ),
    ] = False,
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
    named = (model, revision)
    _check_options(named, no_model, prompts, device)
    truth = None
    if known is not None:
        from edgewise.runs.given import known_of

        truth = known_of(known)
    folders = [some_path(run, "the run folder").expanduser() for run in runs]
    wanted = None if out is None else some_path(out, "--out").expanduser()

    def measured(source: Source) -> dict[str, Any]:
        return _measured(source, named, no_model, prompts, device, quiet)

    if gallery:
        _gallery(folders, wanted or Path("gallery"), measured, truth, groups, as_json=as_json)
    else:
        _page(folders, wanted, measured, truth, groups, as_json=as_json)


def _check_options(named: tuple[str | None, str | None], no_model: bool, prompts: int, device: str | None) -> None:
    if prompts < 1:
        raise EdgewiseError(f"--prompts should be at least 1, not {prompts}")
    if no_model and (*named, device) != (None, None, None):
        raise EdgewiseError(
            "--no-model leaves nothing for --model, --revision and --device to say; give one or the other"
        )


def _page(
    folders: list[Path],
    out: Path | None,
    measured: Callable[[Source], dict[str, Any]],
    known: Truth | None,
    groups: str | None,
    *,
    as_json: bool,
) -> None:
    """One page, of a run or of several over one graph."""
    from edgewise.reports.page import make_page, read_sources, require_free_file, write_page

    sources = read_sources(folders, groups=groups, known=known)
    target = out or (Path("report.html") if len(folders) > 1 else folders[0] / "report.html")
    require_free_file(target)
    found = [measured(source) for source in sources]
    page = make_page(sources, found)
    write_page(target, page)
    if as_json:
        notes = list(dict.fromkeys(note for one in found for note in one.get("notes", ())))
        about = {"file": str(target), "bytes": len(page.encode()), "runs": [str(one) for one in folders]}
        typer.echo(json.dumps({**about, "notes": notes}))
        return
    typer.echo(f"written to {target} ({len(page.encode()) / 1e6:.2f} MB)")


def _gallery(
    folders: list[Path],
    target: Path,
    measured: Callable[[Source], dict[str, Any]],
    known: Truth | None,
    groups: str | None,
    *,
    as_json: bool,
) -> None:
    """A page for each run, and one that leads to them."""
    from edgewise.reports.page import require_free_folder, write_gallery

    require_free_folder(target)
    sources = [source for folder in folders for source in _sources_in(folder, known, groups)]
    files = write_gallery(target, ((source, measured(source)) for source in sources))
    size = sum(file.stat().st_size for file in files)
    if as_json:
        about = {"folder": str(target), "bytes": size, "files": [file.name for file in files]}
        typer.echo(json.dumps({**about, "runs": [str(source.folder) for source in sources]}))
        return
    pages = f"{len(sources)} circuit{'' if len(sources) == 1 else 's'}"
    typer.echo(f"{pages} written to {target} ({size / 1e6:.2f} MB); open {files[0]}")


def _sources_in(folder: Path, known: Truth | None, groups: str | None) -> Iterator[Source]:
    """The run in a folder; or all runs in it that a page can show, with a note on others."""
    from edgewise.reports.page import read_sources
    from edgewise.runs.kept import kept_runs

    if (folder / "run.json").is_file() or not folder.is_dir():
        yield from read_sources([folder], groups=groups, known=known)
        return
    for one in kept_runs(folder):
        try:
            yield from read_sources([Path(one.run)], groups=groups, known=known)
        except EdgewiseError as error:
            typer.echo(f"edgewise: note: left out: {error}", err=True)


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
