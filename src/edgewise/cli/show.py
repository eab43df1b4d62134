"""`edgewise show`: a run again, as `discover` printed it. It needs no model, and does not wait for torch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.found import how_stopped, show_run
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption
from edgewise.cli.printing import stdout_console
from edgewise.errors import EdgewiseError, EdgewiseWarning


@app.command(epilog="Example: edgewise show runs/ioi-acdc")
def show(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.", autocompletion=completion.runs)
    ],
    as_json: JsonOption = False,
) -> None:
    """Print a run again as discover printed it, or how far its search has come."""
    from edgewise.runs.reading import read_record, read_run, read_trace, summary_of, unit_of
    from edgewise.runs.stability_file import read_stability
    from edgewise.runs.verdict import verdict

    folder = some_path(run, "the run").expanduser()
    record = read_record(folder)
    about: dict[str, Any] = {"task": Path(record["settings"]["task"]["task"]).stem}
    ended = {"settings": record["settings"], "run_dir": str(folder)}
    if (far := record.get("under_way")) is not None:
        if as_json:
            typer.echo(json.dumps({**about, "finished": False, "under_way": far, **ended}))
            return
        typer.echo(
            f"the search in {folder} has not ended: {far['decided']:,} of {far['of']:,} {unit_of(record)} are decided; "
            f"it still runs, or was killed and goes on with: edgewise resume {folder}"
        )
        return
    record, circuit = read_run(folder)
    try:
        if as_json:
            stopped = {} if record.get("finished", True) else {"finished": False, "stopped": record["stopped"]}
            stability = read_stability(folder)
            told = {} if stability is None else {"stability": stability}
            typer.echo(json.dumps({**about, **summary_of(record, circuit), **stopped, **told, "run_dir": str(folder)}))
        elif not record.get("finished", True):
            typer.echo(how_stopped(record, circuit, folder))
        else:
            console = stdout_console()
            trace = read_trace(folder, circuit.graph)
            with console.capture() as shown:
                show_run(console, record, circuit, trace, folder)
            if (failed := verdict(record, trace)) is not None:
                warnings.warn(failed, EdgewiseWarning, stacklevel=1)
            typer.echo(shown.get(), nl=False)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        lacks = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EdgewiseError(f"the run record of {str(folder)!r} is broken: {lacks}") from None
