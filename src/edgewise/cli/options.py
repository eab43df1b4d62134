"""Options that several commands take, each declared and described once."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli.completion import ABLATIONS, METHODS, METRICS, MODELS, TASKS, names
from edgewise.errors import EdgewiseError

TaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="A built-in task (see: edgewise tasks) or a JSONL file.",
        show_default=False,
        autocompletion=names(TASKS),
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A built-in model, a Hugging Face id, or a folder. Default: the task's own.",
        autocompletion=names(MODELS),
    ),
]
MethodOption = Annotated[str, typer.Option(help="See: edgewise methods.", autocompletion=names(METHODS))]
MetricOption = Annotated[
    str | None,
    typer.Option(help="What is measured; lower is better. Default: the task's.", autocompletion=names(METRICS)),
]
AblationOption = Annotated[
    str | None,
    typer.Option(
        help="What an absent edge carries: resample, zero, mean, mean-positional. Default: the task's.",
        autocompletion=names(ABLATIONS),
    ),
]
RunModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Measure on another model. Default: the run's; of a file, the task's.",
        autocompletion=names(MODELS),
    ),
]
RunMetricOption = Annotated[
    str | None,
    typer.Option(help="What is measured first. Default: the run's, or the task's.", autocompletion=names(METRICS)),
]
RunAblationOption = Annotated[
    str | None,
    typer.Option(
        help="What an absent edge carries. Default: the run's, or the task's.", autocompletion=names(ABLATIONS)
    ),
]
RunExamplesOption = Annotated[
    int | None, typer.Option(help="Prompt pairs to use. Default: the run's; of a file, the task's.")
]
RunDtypeOption = Annotated[
    str | None, typer.Option(help="float32, float64 or bfloat16. Default: the run's, or float32.")
]
ExamplesOption = Annotated[
    int | None, typer.Option(help="Prompt pairs to use. Default: the task's suggestion, or all rows of a file.")
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out rows of your own file that are not right, rather than refuse them."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the prompts, of shuffled orders, and of learned masks.")]
VariantOption = Annotated[str, typer.Option(help="How the task's prompts are made (see: edgewise tasks).")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:0, ... Default: CUDA where there is one.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32 (default), float64 or bfloat16.")]
FoldOption = Annotated[
    bool,
    typer.Option(
        "--fold-value-biases",
        help="Count heads' value biases to their layer, so that they stay when a head is removed under zero ablation "
        "(as in the paper's runs on GPT-2).",
    ),
]
PermutedOption = Annotated[
    int | None,
    typer.Option(
        help="A control: shuffle the model's heads and neurons with this seed, and compare with the model as it was.",
        show_default=False,
    ),
]
PathOption = Annotated[
    str | None, typer.Option(help="edge-attribution-ig: what moves along the path, inputs (default) or activations.")
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        help="edge-attribution-ig: points of the path (5); subnetwork-probing, edge-pruning: steps (3000, 300)."
    ),
]
LambdaOption = Annotated[
    float | None, typer.Option("--lambda", help="subnetwork-probing: weight of the regulariser (50); more keeps less.")
]
LearningRateOption = Annotated[
    float | None, typer.Option(help="subnetwork-probing, edge-pruning: Adam's rate (0.001, 0.1).")
]
MethodVariantOption = Annotated[
    str | None,
    typer.Option(help="head-importance, subnetwork-probing: published, as the paper's numbers were made."),
]
PortsOption = Annotated[
    bool,
    typer.Option("--ports/--no-ports", help="Test whether heads need their q, k and v at all, as the paper does."),
]
LayerOrderOption = Annotated[str, typer.Option(help="Parents' layers late to early (normal), reverse, or shuffle.")]
HeadOrderOption = Annotated[str, typer.Option(help="Parents' heads high to low (normal), reverse, or shuffle.")]
AbsoluteOption = Annotated[
    bool, typer.Option("--absolute", help="Compare the size of the change, not the signed change.")
]
EngineOption = Annotated[
    str, typer.Option(help="incremental, or plain: one whole circuit run per tested edge, to check the other one.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(help="Memory to use beyond the model's weights, as in 3GB. Default: what the machine has."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def names_in(text: str, option: str) -> list[str]:
    """The names in an option that takes several, by commas.

    Raises:
        EdgewiseError: there is none, or one comes twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise EdgewiseError(f"{option} names nothing")
    for name in names:
        if names.count(name) > 1:
            raise EdgewiseError(f"{option} names {name!r} twice")
    return names
