"""`edgewise mib`: the MIB benchmark's circuit track by one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.cli.app import app
from edgewise.cli.completion import ABLATIONS, names
from edgewise.cli.loading import some_path
from edgewise.cli.options import (
    AgreementOption,
    AverageOption,
    DeviceOption,
    JsonOption,
    LambdaOption,
    LearningRateOption,
    MaxMemoryOption,
    MembersOption,
    PathOption,
    StepsOption,
    names_in,
)
from edgewise.cli.printing import kept_if_stopped, stdout_console
from edgewise.errors import EdgewiseError
from edgewise.files import write_text


@app.command(epilog="Example: edgewise mib --method eap-ig,eap --task ioi --model gpt2 --data FOLDER")
def mib(
    method: Annotated[
        str, typer.Option(help="Methods that score edges, by commas (see: edgewise methods); random is the control.")
    ] = "edge-attribution-ig",
    task: Annotated[
        str | None,
        typer.Option(
            help="Some tasks, by commas: ioi, mcqa, arithmetic_addition, arithmetic_subtraction, arc_easy, "
            "arc_challenge. Default: all."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Some models, by commas: gpt2, qwen2.5, gemma2, llama3, interpbench, from elsewhere as in "
            "llama3=FOLDER, or any others. Default: those five.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder with the datasets, each in a folder of its own name, as in FOLDER/ioi, and InterpBench's "
            "model in FOLDER/interpbench. Default: the hub.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="What circuits are scored on: validation, or test.")] = "validation",
    level: Annotated[str, typer.Option(help="edge, or node: the benchmark's node track.")] = "edge",
    ablation: Annotated[
        str, typer.Option(help="What attribution is about; scores are about resample.", autocompletion=names(ABLATIONS))
    ] = "resample",
    select: Annotated[
        str | None,
        typer.Option(
            help="How circuits are cut: top, greedy (grown from the logits) or ilp. Default: greedy for "
            "information-flow, else top, as in the benchmark."
        ),
    ] = None,
    train_examples: Annotated[
        int | None,
        typer.Option(help="Prompts to attribute on. Default: 1,000 of IOI, all of MCQA, 100 of all others."),
    ] = None,
    examples: Annotated[int | None, typer.Option(help="Prompts to score on. Default: all of the split.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what methods draw.")] = 0,
    path: PathOption = None,
    steps: StepsOption = None,
    regularisation: LambdaOption = None,
    learning_rate: LearningRateOption = None,
    members: MembersOption = None,
    average: AverageOption = None,
    agreement: AgreementOption = None,
    device: DeviceOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float64, bfloat16 or float16. Default: as in the benchmark, bfloat16 for qwen2.5, gemma2 "
            "and llama3, else float32."
        ),
    ] = None,
    max_memory: MaxMemoryOption = None,
    out: Annotated[
        Path, typer.Option(help="Folder that keeps importances and what was measured; what is there is not done again.")
    ] = Path("runs/mib"),
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run the MIB benchmark's circuit track: attribute on train prompts, write its files, and print CPR and CMD."""
    from rich.console import Console

    from edgewise.patching import parse_size
    from edgewise.reports.mib import MEASURES, board_markdown, board_rows, cell_lines, missing_lines
    from edgewise.reports.progress import section_progress
    from edgewise.reports.tables import terminal_table
    from edgewise.runs import require_own
    from edgewise.runs.mib import MARKS, run_mib
    from edgewise.runs.mib_plan import MibPlan

    given = dict(path=path, steps=steps, regularisation=regularisation, learning_rate=learning_rate)
    given |= dict(members=members, average=average, agreement=agreement)
    choices: Any = dict(split=split, level=level, select=select)  # checked by the plan
    plan = MibPlan(
        methods=tuple(names_in(method, "--method")),
        tasks=None if task is None else tuple(names_in(task, "--task")),
        models=None if model is None else tuple(names_in(model, "--model")),
        ablation=ablation,
        train_examples=train_examples,
        examples=examples,
        seed=seed,
        options={name: value for name, value in given.items() if value is not None},
        data=None if data is None else some_path(data, "--data"),
        device=device,
        dtype=dtype,
        max_memory=None if max_memory is None else parse_size(max_memory),
        **choices,
    )
    plan.check()
    out = some_path(out, "--out").expanduser()
    require_own(out, "the MIB benchmark", MARKS)
    messages = Console(stderr=True, quiet=quiet)

    def began(number: int, of: int, name: str) -> None:
        messages.print(f"cell {number} of {of}: {name}", highlight=False, markup=False, soft_wrap=True)

    with kept_if_stopped(out), section_progress(messages) as progress:
        board = run_mib(out, plan, progress=progress, began=began)
    left_out = missing_lines(board)
    if not board.results:
        raise EdgewiseError("\n  ".join(["nothing of the benchmark could be run:", *left_out]))
    write_text(out / "table.md", board_markdown(board))
    if as_json:
        typer.echo(json.dumps({**board.to_dict(), "folder": str(out)}))
        return
    console = stdout_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for title, measure in MEASURES.items():
        if (rows := board_rows(board, measure)) is not None:
            say(f"{title}, {split} split, by {level}s")
            console.print(terminal_table("", rows, right=1))
            console.print()
    for line in (*cell_lines(board), *left_out):
        say(line)
    say(f"\nwritten to {out}: table.md, and circuits/METHOD, a submission each")
