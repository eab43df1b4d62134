"""`edgewise prompts` and `check`: what a search would be given."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.options import DeviceOption, DtypeOption, JsonOption, asks
from edgewise.cli.printing import headline, stdout_console
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.runs.request import Request


@app.command(epilog="Example: edgewise prompts greater-than --examples 3")
@asks("seed", examples="How many pairs to show. Default: 5, if there are as many.", seed="Seed of the prompts.")
def prompts(
    asked: Request,
    split: Annotated[str, typer.Option(help="validation: the prompts a search uses; test: others like them.")] = (
        "validation"
    ),
    as_json: JsonOption = False,
) -> None:
    """Show a task's prompt pairs, the answers, and what the model says."""
    from edgewise.evaluation.answers import answers_of, meaning_of_right
    from edgewise.patching.ablation import check_ablation
    from edgewise.reports import show_pair
    from edgewise.tasks import find_metric

    spec = dataclasses.replace(asked.task, split=split).check()
    examples = asked.task.examples
    # The number that a search takes decides where a built-in task's test prompts begin, and how some are paired; so it
    # is kept. In a file they begin after as many rows as are asked for.
    count = examples if spec is None and split == "test" else None
    wanted = dataclasses.replace(asked.task, examples=count, split=split)
    loaded, made = dataclasses.replace(asked, task=wanted).load(searching=False)
    if made.prompts.answers is None and made.why_no_answers and spec is None:
        typer.echo(f"edgewise: warning: metrics that need answers cannot be used: {made.why_no_answers}", err=True)
    if spec is not None and examples is not None and examples > len(made) and split == "validation":
        made = dataclasses.replace(wanted, examples=examples).load(loaded)
    try:
        check_ablation(made.ablation, made)
        find_metric(None, made)
    except EdgewiseError as error:
        warnings.warn(f"discover will refuse these prompts as they are: {error}", EdgewiseWarning, stacklevel=1)
    every = answers_of(loaded, made)
    shown = list(zip(made.text, every, strict=True))[: 5 if examples is None else examples]
    if as_json:
        parts = ("clean", "corrupt", "answers", "wrong")
        rows = [{**{part: getattr(pair, part) for part in parts}, **dataclasses.asdict(said)} for pair, said in shown]
        typer.echo(json.dumps({"task": made.name, "model": loaded.name, "split": split, "prompts": rows}))
        return
    console = stdout_console()
    console.print(f"{headline(made, loaded)}\n", highlight=False, markup=False, soft_wrap=True)
    for number, (pair, said) in enumerate(shown, start=1):
        show_pair(console, number, pair, said)
    right = [said.right for said in every if said.right is not None]
    if right:
        places = sum(said.places for said in every)
        console.print(
            f"right on {sum(right)} of {places} places of the {len(every)} clean prompts ({sum(right) / places:.0%});"
            f"\nright means that {meaning_of_right(made)}",
            highlight=False,
            soft_wrap=True,
        )


@app.command(epilog="Example: edgewise check HuggingFaceTB/SmolLM2-135M --dtype bfloat16")
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A built-in model, a Hugging Face id, or a folder.")],
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check on random tokens that edgewise reads a model right: its logits against the model's own."""
    from edgewise.models import load_model
    from edgewise.models.guard import TOLERANCE, check_on_random_tokens

    loaded = load_model(model, device=device, dtype=dtype)  # type: ignore[arg-type] - checked by load_model
    difference, rows, length = check_on_random_tokens(loaded)
    allowed = TOLERANCE[loaded.dtype]
    if as_json:
        found = {"model": loaded.name, "difference": difference, "allowed": allowed, "rows": rows, "tokens": length}
        typer.echo(json.dumps(found))
        return
    shape = loaded.graph(ports=False).describe()
    typer.echo(f"{loaded.name} ({loaded.config.architecture}): {shape}, {loaded.dtype_name} on {loaded.device}")
    typer.echo(
        f"edgewise reads it right: on {rows} random prompts of {length} token{'s' * (length != 1)} its logits differ "
        f"from the model's own by at most {difference:.1e} of their spread ({allowed:.0e} is allowed)"
    )
