"""`edgewise prompts` and `check`: what a search would be given."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import Annotated, Any

import typer

from edgewise.cli.app import app
from edgewise.cli.options import DeviceOption, DtypeOption, JsonOption, RevisionOption, TrustLayoutOption, asks
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
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A built-in model, a Hugging Face id, a folder, or a .gguf file.")
    ],
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    revision: RevisionOption = None,
    trust_layout: TrustLayoutOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check on random tokens that edgewise reads a model right, and say what it took the model to have."""
    import torch

    from edgewise.models import features, load_model
    from edgewise.models.guard import compare, random_prompts, require_right

    wanted: Any = dtype  # checked by load_model
    loaded = load_model(model, device=device, dtype=wanted, revision=revision, trust_layout=trust_layout)
    windows = features.windows(loaded)
    reached = [window for window in windows if window < MOST_CHECKED]
    tokens = random_prompts(loaded, length=max([16, *(window + 4 for window in reached)]))
    found = compare(loaded, tokens, torch.ones_like(tokens, dtype=torch.bool))
    require_right(loaded, found)
    rows, length = tokens.shape
    worst, alike = found.by_layer(), features.features(loaded)
    missed = [window for window in windows if length <= window]
    if as_json:
        said = {
            "model": loaded.name,
            "architecture": loaded.config.architecture,
            "dtype": loaded.dtype_name,
            "difference": found.difference,
            "allowed": found.tolerance,
            "rows": rows,
            "tokens": length,
            "whole": features.whole(loaded),
            "features": [{"layers": numbers, "has": words} for numbers, words in alike],
            "layers": {layer: part._asdict() for layer, part in worst.items()},
            "windows_not_reached": missed,
        }
        typer.echo(json.dumps(said))
        return
    shape = loaded.graph(ports=False).describe()
    typer.echo(f"{loaded.name} ({loaded.config.architecture}): {shape}, {loaded.dtype_name} on {loaded.device}\n")
    typer.echo(f"What edgewise takes it to have: {', '.join(features.whole(loaded))}.")
    for numbers, words in alike:
        typer.echo(f"  {_layers(numbers)}: {'; '.join(words)}")
    typer.echo(
        "\nThe part of each layer that differs most, given the same input (share of its size, and what is allowed):"
    )
    for layer, part in worst.items():
        typer.echo(f"  layer {layer}: {part.what} by {part.difference:.1e} ({part.allowed:.0e})")
    typer.echo(
        f"\nedgewise reads it right: on {rows} random prompts of {length} token{'s' * (length != 1)} its logits differ "
        f"from the model's own by at most {found.difference:.1e} of their spread ({found.tolerance:.0e} is allowed)"
    )
    if missed:
        typer.echo(f"Not met by prompts so short: a window of {', '.join(f'{window:,}' for window in missed)} tokens")


MOST_CHECKED = 512
"""Windows of at most so many tokens are checked with prompts that are longer."""


def _layers(numbers: list[int]) -> str:
    """`layer 3`, `layers 0-11`, `layers 0, 2, 4 and 9 more`."""
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]}-{numbers[-1]}"
    shown = ", ".join(map(str, numbers[:6]))
    return f"layers {shown}{f' and {len(numbers) - 6} more' if len(numbers) > 6 else ''}"
