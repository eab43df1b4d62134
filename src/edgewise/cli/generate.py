"""`edgewise generate`: what a model goes on with, and what a circuit of it does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.early import refuse_unknown, waiting
from edgewise.cli.loading import some_path
from edgewise.cli.options import (
    DeviceOption,
    JsonOption,
    RevisionOption,
    RunAblationOption,
    RunDtypeOption,
    RunModelOption,
    TrustLayoutOption,
)
from edgewise.cli.printing import stdout_console

ON_NEW_TEXT = ("zero", "mean", "mean-clean", "optimal")


@app.command(epilog='Example: edgewise generate runs/ioi-acdc "When John and Mary went to the store," --complement')
def generate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", autocompletion=completion.runs)],
    prompt: Annotated[str, typer.Argument(help="The text to go on with.")],
    complement: Annotated[
        bool, typer.Option("--complement", help="Also by everything but the circuit: what it is not needed for.")
    ] = False,
    tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 20,
    corrupt: Annotated[
        str | None,
        typer.Option(help="For ablation resample: the corrupted prompt, of as many tokens.", show_default=False),
    ] = None,
    ablation: RunAblationOption = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; above, tokens are drawn.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn; the same for each column.")] = 0,
    model: RunModelOption = None,
    revision: RevisionOption = None,
    trust_layout: TrustLayoutOption = False,
    device: DeviceOption = None,
    dtype: RunDtypeOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Generate text under a circuit, beside the model's own."""
    from rich.table import Table

    from edgewise.reports.words import visible
    from edgewise.runs import load_again, read_run
    from edgewise.runs.constants import ablation_of
    from edgewise.runs.generating import generate as generate_text

    refuse_unknown({"ablation": ablation})
    folder = some_path(run, "the run").expanduser()
    record, circuit = read_run(folder)
    settings = record["settings"]
    waiting(f"loading {model or settings['model']['name']}", quiet=quiet)
    split = settings["task"].get("split", "validation")
    loaded, task = load_again(
        folder,
        settings,
        split=split,
        model=model,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_layout=trust_layout,
    )
    own, note = settings["ablation"], ""
    name = ablation or ("resample" if corrupt is not None else own)
    if ablation is None and name not in ON_NEW_TEXT and corrupt is None:
        note = (
            f"ablation {name!r} says nothing about new text: absent edges carry the mean over the task's corrupted "
            "prompts (--ablation, --corrupt)"
        )
        name = "mean"
    carried = ablation_of(folder, settings, loaded, anew=model is not None) if name == own else name
    found = generate_text(
        loaded,
        circuit,
        prompt,
        ablation=carried,
        task=task,
        corrupt=corrupt,
        complement=complement,
        tokens=tokens,
        temperature=temperature,
        seed=seed,
    )
    if as_json:
        about = {"prompt": prompt, "ablation": name, "temperature": temperature, "seed": seed}
        typer.echo(json.dumps({**about, "texts": {key: dataclasses.asdict(one) for key, one in found.items()}}))
        return
    console = stdout_console()
    table = Table(title=visible(prompt), title_justify="left", show_lines=True, title_style="")
    for column in found:
        table.add_column(column)
    table.add_row(*(visible(one.text) for one in found.values()))
    shared = [f"the model's own for {one.as_model} of {len(one.tokens)} tokens" for one in list(found.values())[1:]]
    table.add_row(f"{len(found['model'].tokens)} tokens", *shared)
    console.print(table, markup=False, highlight=False)
    if note:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
