"""The command line: the library's verbs from the shell."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise import __version__
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.files import read_bytes
from edgewise.process import tune_process

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.models import Decoder
    from edgewise.tasks import Task

# torch and transformers take seconds to import, so every command imports what it needs when it runs.

app = typer.Typer(
    name="edgewise",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find the circuit in a transformer that produces a behaviour, and check that it does.",
    epilog="Start with: edgewise discover ioi",
)

TaskArgument = Annotated[
    str,
    typer.Argument(metavar="TASK", help="A built-in task (see: edgewise tasks) or a JSONL file.", show_default=False),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A built-in model, a Hugging Face id, or a folder. Default: the task's own."),
]
MetricOption = Annotated[str | None, typer.Option(help="What is measured; lower is better. Default: the task's.")]
AblationOption = Annotated[
    str | None,
    typer.Option(help="What an absent edge carries: resample, zero, mean, mean-positional. Default: the task's."),
]
RunModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Measure on another model. Default: the run's; of a file, the task's."),
]
RunMetricOption = Annotated[str | None, typer.Option(help="What is measured first. Default: the run's, or the task's.")]
RunAblationOption = Annotated[
    str | None, typer.Option(help="What an absent edge carries. Default: the run's, or the task's.")
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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgewise {__version__}")
        raise typer.Exit


@app.callback()
def edgewise(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: edgewise discover prompts.jsonl --model gpt2 --threshold 0.02 --out runs/mine")
def discover(
    task: TaskArgument,
    model: ModelOption = None,
    method: Annotated[str, typer.Option(help="See: edgewise methods.")] = "acdc",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Keep an edge if the metric rises by at least this much without it (methods that score edges: if its "
            "score is at least this). Default: the task's; a file has none.",
            show_default=False,
        ),
    ] = None,
    edges: Annotated[
        int | None, typer.Option(help="Instead of a threshold: a circuit of at most this many edges.")
    ] = None,
    share: Annotated[float | None, typer.Option(help="The same as a share of the graph's edges, as in 0.05.")] = None,
    select: Annotated[
        str,
        typer.Option(
            help="How scores become that many edges: at-most (pruned to at most so many), top (so many, then pruned), "
            "greedy (so many, grown from the logits, then pruned); the last two do not count port edges."
        ),
    ] = "at-most",
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    seed: SeedOption = 0,
    variant: VariantOption = "default",
    ports: PortsOption = True,
    layer_order: LayerOrderOption = "normal",
    head_order: HeadOrderOption = "normal",
    absolute: AbsoluteOption = False,
    engine: EngineOption = "incremental",
    max_memory: MemoryOption = None,
    path: PathOption = None,
    steps: StepsOption = None,
    regularisation: LambdaOption = None,
    learning_rate: LearningRateOption = None,
    method_variant: MethodVariantOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    fold_value_biases: FoldOption = False,
    permuted: PermutedOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write. Default: runs/TASK-METHOD, numbered if that is taken.")
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Find the circuit that produces a task's behaviour in a model, and write a run folder."""
    from rich.console import Console

    from edgewise.patching import parse_size
    from edgewise.reports import search_progress
    from edgewise.runs import RunFolder, RunInterrupted, check_request, require_free
    from edgewise.runs import discover as run_discovery
    from edgewise.tasks import check_request as check_task

    given = {
        "path": path,
        "steps": steps,
        "regularisation": regularisation,
        "learning_rate": learning_rate,
        "variant": method_variant,
    }
    options = {name: value for name, value in given.items() if value is not None}
    # What can be refused before a model is loaded is refused now.
    spec = check_task(task, examples, "validation", variant)
    check_request(
        method=method,
        threshold=threshold,
        edges=edges,
        suggested=None if spec is None else spec.threshold,
        ablation=ablation,
        metric=metric,
        layer_order=layer_order,
        head_order=head_order,
        engine=engine,
        options=options,
        share=share,
        select=select,
        absolute=absolute,
    )
    limit = None if max_memory is None else parse_size(max_memory)
    if out is not None:
        out = _some_path(out, "--out").expanduser()
        require_free(out)
    loaded, prompts = _load(
        task, model, examples, seed, "validation", variant, device, dtype, fold_value_biases, permuted
    )
    claimed = RunFolder.claim(out) if out else RunFolder.claim_next(Path("runs") / f"{prompts.name}-{method}")
    with claimed as folder:
        messages = Console(stderr=True, quiet=quiet)
        try:
            with search_progress(messages, method, _headline(prompts, loaded)) as progress:
                found = run_discovery(
                    loaded,
                    prompts,
                    method=method,
                    threshold=threshold,
                    edges=edges,
                    share=share,
                    select=select,
                    ablation=ablation,
                    metric=metric,
                    ports=ports,
                    layer_order=layer_order,  # type: ignore[arg-type] - checked where it is used
                    head_order=head_order,  # type: ignore[arg-type]
                    seed=seed,
                    absolute=absolute,
                    engine=engine,
                    max_memory=limit,
                    options=options,
                    progress=progress,
                    command=["edgewise", *sys.argv[1:]],
                )
        except RunInterrupted as stop:
            written = folder.finish(stop.run.files())
            _say_stopped(stop.run, written)
            raise _Kept(_exit_code(stop.__cause__)) from None
        written = folder.finish(found.files())
    if as_json:
        typer.echo(json.dumps({"task": prompts.name, **found.summary(), "run_dir": str(written)}))
        return
    _show_run(_console(), found, written)


@app.command(epilog="Example: edgewise plan prompts.jsonl --model gpt2 --threshold 0.02")
def plan(
    task: TaskArgument,
    model: ModelOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="The threshold to plan for. Default: the task's; without one, several sizes of circuit."),
    ] = None,
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    seed: SeedOption = 0,
    variant: VariantOption = "default",
    ports: PortsOption = True,
    layer_order: LayerOrderOption = "normal",
    head_order: HeadOrderOption = "normal",
    absolute: AbsoluteOption = False,
    max_memory: MemoryOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    fold_value_biases: FoldOption = False,
    permuted: PermutedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a discovery would cost (edges, memory, time) from a short calibration, without running it."""
    from edgewise.patching import parse_size
    from edgewise.runs import check_request, plan_discovery
    from edgewise.tasks import check_request as check_task

    spec = check_task(task, examples, "validation", variant)
    check_request(
        threshold=threshold,
        suggested=0.0,  # a plan needs no threshold
        ablation=ablation,
        metric=metric,
        layer_order=layer_order,
        head_order=head_order,
    )
    limit = None if max_memory is None else parse_size(max_memory)
    loaded, prompts = _load(
        task, model, examples, seed, "validation", variant, device, dtype, fold_value_biases, permuted
    )
    planned = plan_discovery(
        loaded,
        prompts,
        threshold=threshold if threshold is not None or spec is None else spec.threshold,
        ablation=ablation,
        metric=metric,
        ports=ports,
        layer_order=layer_order,  # type: ignore[arg-type] - checked where it is used
        head_order=head_order,  # type: ignore[arg-type]
        seed=seed,
        absolute=absolute,
        max_memory=limit,
    )
    if as_json:
        typer.echo(json.dumps(_plan_summary(planned, prompts, loaded)))
        return
    _show_plan(_console(), planned, prompts, loaded)


@app.command(epilog="Example: edgewise patch ioi --metric logit_diff")
def patch(
    task: TaskArgument,
    model: ModelOption = None,
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    seed: SeedOption = 0,
    variant: VariantOption = "default",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    fold_value_biases: FoldOption = False,
    permuted: PermutedOption = None,
    out: Annotated[Path | None, typer.Option(help="Also write the tensors to this file, in safetensors form.")] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Ablate every head, MLP and position by itself and show how much the metric rises: where to look first."""
    from rich.console import Console

    from edgewise.discovery import heat_maps
    from edgewise.patching import Experiment
    from edgewise.reports import heat_tables, step_progress
    from edgewise.runs import check_request
    from edgewise.runs.scores import save_heat_maps
    from edgewise.tasks import check_request as check_task

    check_task(task, examples, "validation", variant)
    check_request(suggested=0.0, ablation=ablation, metric=metric)
    if out is not None and (out := _some_path(out, "--out").expanduser()).exists():
        raise EdgewiseError(f"the file {str(out)!r} is there already; nothing is overwritten, so choose another")
    loaded, prompts = _load(
        task, model, examples, seed, "validation", variant, device, dtype, fold_value_biases, permuted
    )
    experiment = Experiment(loaded, prompts, ablation=ablation, metric=metric)
    with step_progress(Console(stderr=True, quiet=quiet), "patching") as progress:
        maps = heat_maps(experiment, progress=progress)
    if out is not None:
        save_heat_maps(out, maps)
    if as_json:
        found = {key: value.tolist() for key, value in vars(maps).items()}
        about = {"task": prompts.name, "model": loaded.name, "metric": experiment.metric.name}
        typer.echo(json.dumps({**about, "ablation": experiment.ablation, **found}))
        return
    console = _console()
    console.print(f"{_headline(prompts, loaded)}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"rise of {experiment.metric.name} when a part is {experiment.ablation}-ablated\n",
        highlight=False,
        soft_wrap=True,
    )
    for table in heat_tables(maps, prompts):
        console.print(table)


@app.command(epilog="Example: edgewise evaluate runs/ioi-acdc --split test")
def evaluate(
    circuit: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CIRCUIT", help="A run folder, or a circuit file in EAP-IG's JSON form.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Task to measure on. Default: the run's own; needed for a circuit file.")
    ] = None,
    model: RunModelOption = None,
    ablation: RunAblationOption = None,
    metric: RunMetricOption = None,
    examples: RunExamplesOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the prompts. Default: the run's, or 0.")] = None,
    variant: Annotated[str | None, typer.Option(help="How the task's prompts are made. Default: the run's.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="validation: the prompts a search uses; test: others like them. Default: the run's."),
    ] = None,
    device: DeviceOption = None,
    dtype: RunDtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a circuit from scratch: its metrics beside the whole model's and the ablated run's."""
    from edgewise.evaluation import evaluate as measure
    from edgewise.graph import load_circuit
    from edgewise.runs import load_run
    from edgewise.tasks import METRICS

    finished = True
    if not circuit.is_dir():
        found, settings = load_circuit(_some_path(circuit, "the circuit")), {}
        if task is None:
            raise EdgewiseError(f"{str(circuit)!r} is a circuit without a task: say which with --task")
        measured_split = split or "validation"
        loaded, prompts = _load(task, model, examples, seed or 0, measured_split, variant or "default", device, dtype)
    else:
        record, found = load_run(circuit)
        settings, finished = record["settings"], record.get("finished", True)
        if metric is None and settings["metric"] not in METRICS:
            raise EdgewiseError(
                f"the run in {str(circuit)!r} used a metric of its own, {settings['metric']!r}; name one with --metric"
            )
        measured_split = split or settings["task"].get("split", "validation")
        loaded, prompts = _load_again(
            circuit, settings, task, model, examples, seed, measured_split, variant, device, dtype
        )
    result = measure(
        loaded,
        prompts,
        found,
        ablation=ablation or settings.get("ablation"),
        metric=metric or settings.get("metric"),
    )
    if as_json:
        measured = {
            name: {key: _json_number(value) for key, value in dataclasses.asdict(one).items()}
            | {"recovered": _json_number(one.recovered)}
            for name, one in result.measured.items()
        }
        main = result.measured[result.metric]
        typer.echo(
            json.dumps(
                {
                    "task": prompts.name,
                    "model": loaded.name,
                    "n_edges": result.n_edges,
                    "n_edges_connected": result.n_edges_connected,
                    "n_graph_edges": result.n_graph_edges,
                    "metric_name": result.metric,
                    "metric": main.circuit,
                    "metric_full": main.full,
                    "metric_ablated": main.ablated,
                    "metrics": measured,
                    "known_circuit": None if result.known is None else dataclasses.asdict(result.known),
                    "ablation": result.ablation,
                    "split": measured_split,
                    "examples": len(prompts),
                    "finished": finished,
                }
            )
        )
        return
    if not finished:
        typer.echo("note: this run was interrupted; its circuit still holds every edge that it had not come to")
    _show_evaluation(_console(), result, prompts, loaded, measured_split)


@app.command(epilog="Example: edgewise tasks")
def tasks(as_json: JsonOption = False) -> None:
    """List the built-in tasks."""
    from rich.table import Table

    from edgewise.tasks import KNOWN_CIRCUITS, TASKS

    if as_json:
        rows = [
            {
                "name": spec.name,
                "summary": spec.summary,
                "model": spec.model,
                "paper_model": spec.paper_models[0] if spec.paper_models else None,
                "examples": spec.examples,
                "threshold": spec.threshold,
                "ablation": spec.ablation,
                "metrics": list(spec.metrics),
                "variants": list(spec.variants),
                "known_circuit": KNOWN_CIRCUITS[spec.name].n_edges if spec.name in KNOWN_CIRCUITS else None,
                "source": spec.source,
            }
            for spec in TASKS.values()
        ]
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
    for spec in TASKS.values():
        known = KNOWN_CIRCUITS.get(spec.name)
        paper = "" if spec.model in spec.paper_models else "".join(f"\n({name})" for name in spec.paper_models[:1])
        variants = f"; variants {' '.join(spec.variants[1:])}" if spec.variants[1:] else ""
        about = f"metrics {' '.join(spec.metrics)}; ablation {spec.ablation}"
        table.add_row(
            spec.name,
            f"{spec.model}{paper}",
            "" if known is None else f"{known.n_edges:,} edges",
            f"{spec.summary} [dim]({spec.source})\n{about}{variants}[/dim]",
        )
    console = _console()
    console.print(table)
    console.print(
        "\nKnown circuits are those in the paper's models; the first metric is the default. To see a task's prompts: "
        "edgewise prompts TASK.\nYour own: a JSONL file with clean, corrupt, answer and wrong on every line.",
        highlight=False,
        soft_wrap=True,
    )


@app.command(epilog="Example: edgewise prompts greater-than --examples 3")
def prompts(
    task: TaskArgument,
    model: ModelOption = None,
    examples: Annotated[
        int | None, typer.Option(help="How many pairs to show. Default: 5, if there are as many.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    split: Annotated[str, typer.Option(help="validation: the prompts a search uses; test: others like them.")] = (
        "validation"
    ),
    variant: VariantOption = "default",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a task's prompt pairs, the answers, and what the model says."""
    from edgewise.evaluation import answers_of
    from edgewise.reports import show_pair
    from edgewise.tasks import check_request, load_task

    check_request(task, examples, split, variant)
    # The number that a search takes decides where the test prompts begin, and how some are paired; so it is kept.
    loaded, made = _load(task, model, None, seed, split, variant, device, dtype)
    if examples is not None and examples > len(made) and split == "validation":
        made = load_task(task, loaded, examples=examples, seed=seed, variant=variant)
    every = answers_of(loaded, made)
    shown = list(zip(made.text, every, strict=True))[: 5 if examples is None else examples]
    if as_json:
        rows = [{**dataclasses.asdict(pair), **dataclasses.asdict(said)} for pair, said in shown]
        typer.echo(json.dumps({"task": made.name, "model": loaded.name, "split": split, "prompts": rows}))
        return
    console = _console()
    console.print(f"{_headline(made, loaded)}\n", highlight=False, markup=False, soft_wrap=True)
    for number, (pair, said) in enumerate(shown, start=1):
        show_pair(console, number, pair, said)
    right = [said.right for said in every if said.right is not None]
    if right:
        places = sum(said.places for said in every)
        console.print(
            f"right on {sum(right)} of {places} places of the {len(every)} clean prompts ({sum(right) / places:.0%})",
            highlight=False,
            soft_wrap=True,
        )


@app.command(epilog="Example: edgewise models")
def models(as_json: JsonOption = False) -> None:
    """List the built-in models and the architectures that can be loaded."""
    from rich.table import Table

    from edgewise.models import BUILT_IN
    from edgewise.models.huggingface import ADAPTERS
    from edgewise.models.transformer_lens import ALIASES

    if as_json:
        built_in = [{"name": model.name, "description": model.description} for model in BUILT_IN.values()]
        found = {"built_in": built_in, "architectures": sorted(ADAPTERS), "transformer_lens": ALIASES}
        typer.echo(json.dumps(found))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("built-in model", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for model in BUILT_IN.values():
        table.add_row(model.name, model.description)
    console = _console()
    console.print(table)
    names = ", ".join(sorted(ADAPTERS))
    console.print(
        f"\nHugging Face ids and folders of these architectures: {names}.\nIds and folders in TransformerLens' format; "
        f"short names of some: {', '.join(ALIASES)}.",
        highlight=False,
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
    shape = loaded.config.graph(ports=False).describe()
    typer.echo(f"{loaded.name} ({loaded.config.architecture}): {shape}, {loaded.dtype_name} on {loaded.device}")
    typer.echo(
        f"edgewise reads it right: on {rows} random prompts of {length} token{'s' * (length != 1)} its logits differ "
        f"from the model's own by at most {difference:.1e} of their spread ({allowed:.0e} is allowed)"
    )


@app.command(epilog="Example: edgewise methods")
def methods(as_json: JsonOption = False) -> None:
    """List the methods, metrics and ablations."""
    from rich.table import Table

    from edgewise.discovery import METHODS
    from edgewise.patching import ABLATIONS
    from edgewise.tasks import METRICS

    groups = {
        "metric": {metric.name: metric.summary for metric in METRICS.values()},
        "ablation": ABLATIONS,
    }
    if as_json:
        about = ("summary", "cost", "paper", "when", "options")
        listed = {name: {key: getattr(method, key) for key in about} for name, method in METHODS.items()}
        typer.echo(json.dumps({"methods": listed, **{f"{kind}s": names for kind, names in groups.items()}}))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("method", "what it does", "cost in passes over the prompts", "when to use it"):
        table.add_column(column, overflow="fold", no_wrap=column == "method")
    for method in METHODS.values():
        table.add_row(method.name, f"{method.summary} [dim]({method.paper})[/dim]", method.cost, method.when)
    _console().print(table, "")
    console = _console()
    for kind, names in groups.items():
        table = Table(box=None, pad_edge=False)
        table.add_column(kind, overflow="fold", min_width=16)
        table.add_column("", overflow="fold")
        for name, summary in names.items():
            table.add_row(name, summary)
        console.print(table)
        console.print()


def _load(
    task: str,
    model: str | None,
    examples: int | None,
    seed: int,
    split: str,
    variant: str,
    device: str | None,
    dtype: str | None,
    fold_value_biases: bool = False,
    permuted: int | None = None,
) -> tuple[Decoder, Task]:
    from edgewise.models import load_model
    from edgewise.tasks import check_request, load_task

    spec = check_request(task, examples, split, variant)
    if model is None:
        if spec is None:
            raise EdgewiseError("prompts from a file need a model: say which with --model")
        model = spec.default_model(variant)
    loaded = load_model(model, device=device, dtype=dtype, fold_value_biases=fold_value_biases)  # type: ignore[arg-type] - checked by load_model
    if permuted is not None:
        loaded = loaded.permuted(permuted)
    prompts = load_task(task, loaded, examples=examples, seed=seed, split=split, variant=variant)  # type: ignore[arg-type]
    return loaded, prompts


def _load_again(
    run: Path,
    settings: dict[str, Any],
    task: str | None,
    model: str | None,
    examples: int | None,
    seed: int | None,
    split: str,
    variant: str | None,
    device: str | None,
    dtype: str | None,
) -> tuple[Decoder, Task]:
    """Model and task of a run, except where the user asks for others; refused if they have changed since."""
    ran_on, ran_with = settings["task"], settings["model"]
    same_weights = model is None and dtype in (None, ran_with["dtype"])
    folded, permuted = ran_with.get("folded_value_biases", False), ran_with.get("permuted_seed")
    if model is not None:
        permuted = None
    else:
        model = ran_with.get("folder") or ran_with["name"]
        dtype = dtype or ran_with["dtype"]
    name = None
    rows = None
    if task is None or task == ran_on["task"]:
        if split == "test" and examples is not None and examples < ran_on["examples"]:
            # The test prompts come after the run's own: those of a smaller number would be among the searched ones.
            examples, rows = ran_on["examples"], examples
        name = Path(ran_on["task"]).stem
        task, split = _prompts_of(run, ran_on, examples, split)
        examples = ran_on["examples"] if examples is None else examples
        seed = ran_on.get("seed", 0) if seed is None else seed
        variant = ran_on.get("variant", "default") if variant is None else variant
    loaded, prompts = _load(
        task, model, examples, seed or 0, split, variant or "default", device, dtype, folded, permuted
    )
    if same_weights and loaded.fingerprint() != ran_with["fingerprint"]:
        raise EdgewiseError(
            f"model {loaded.name!r} has other weights now than when {str(run)!r} was made (fingerprint "
            f"{loaded.fingerprint()}, then {ran_with['fingerprint']}); to measure the circuit on it all the same, name "
            "it with --model"
        )
    if rows is not None:
        prompts = prompts.first(rows)
    return loaded, prompts if name is None else dataclasses.replace(prompts, name=name)


def _prompts_of(run: Path, ran_on: dict[str, Any], examples: int | None, split: str) -> tuple[str, str]:
    """Task and split to load for a run; prompts from a file are those kept with it, unless others are wanted."""
    if "sha256" not in ran_on:
        return ran_on["task"], split
    kept = run / "prompts.jsonl"
    if split == ran_on.get("split", "validation") and kept.is_file() and (examples or 0) <= ran_on["examples"]:
        return str(kept), "validation"  # every row that was kept is of the run's split
    original = ran_on.get("file", ran_on["task"])
    _same_prompts(original, ran_on["sha256"], run)
    return original, split


def _same_prompts(task: str, digest: str, run: Path) -> None:
    from edgewise.tasks.jsonl import file_digest

    if file_digest(read_bytes(Path(task), "the prompt file")) != digest:
        raise EdgewiseError(
            f"the prompt file {task!r} has changed since {str(run)!r} was made; to measure the circuit on it all the "
            "same, name it with --task"
        )


def _some_path(path: Path, what: str) -> Path:
    # Typer turns an empty text into the current folder.
    if str(path) == "." and "" in sys.argv:
        raise EdgewiseError(f"{what} is empty")
    return path


def _json_number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _console() -> Console:
    """Where tables go. What is not a terminal has no width to keep to, unless COLUMNS gives it one."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=160)


class _Kept(SystemExit):
    """The end of a search that was stopped, when what it decided has been written and said."""


def _exit_code(cause: BaseException | None) -> int:
    """What a search that was stopped ends with: 130 for Ctrl-C, 143 for SIGTERM, 2 for want of memory."""
    if isinstance(cause, SystemExit):
        return cause.code if isinstance(cause.code, int) else 1
    return 130 if isinstance(cause, KeyboardInterrupt) else 2


def _say_stopped(run: Any, written: Path) -> None:
    stopped = run.record["stopped"]
    typer.echo(
        f"edgewise: {stopped['why']}. {stopped['decided']:,} of {stopped['of']:,} edges were decided, up to "
        f"{stopped['at']}; that much is kept in {written}, with every other edge still in the circuit",
        err=True,
    )


def _headline(task: Task, model: Decoder) -> str:
    graph = model.config.graph(ports=False)
    changes = [
        *([f"permuted with seed {model.config.permuted_seed}"] if model.config.permuted_seed is not None else []),
        *(["value biases folded"] if model.config.folded_value_biases else []),
    ]
    changed = f" ({', '.join(changes)})" if changes else ""
    return f"{task.describe()}; model {model.name}{changed}: {graph.describe()}, {model.dtype_name} on {model.device}"


def _show_run(console: Console, found: Any, written: Path) -> None:
    from edgewise.reports import circuit_table, highest_scores, known_table, strongest_edges
    from edgewise.reports.terminal import number

    result, settings = found.record["result"], found.record["settings"]
    whole = "whole" if settings["model"]["permuted_seed"] is None else "permuted"
    scoring = result["scoring"]
    if scoring is None:
        cut = f" at threshold {settings['threshold']:.4g}"
    else:
        cut = f", scores down to {scoring['cut']:.4g}" if found.circuit and scoring["cut"] is not None else ""
    console.print(
        f"kept {result['n_edges']:,} of {result['n_graph_edges']:,} edges ({result['n_edges_connected']:,} on a path "
        f"from the embedding to the logits){cut}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"{settings['metric']} {number(result['metric'])}; the {whole} model has {number(result['metric_full'])}, with "
        f"every edge ablated {number(result['metric_ablated'])}",
        highlight=False,
        soft_wrap=True,
    )
    if abs(result["metric_full"] - result["metric_ablated"]) < 1e-9:
        console.print(
            "note: ablating every edge leaves the metric as it is, so no edge can matter",
            highlight=False,
            soft_wrap=True,
        )
    if scoring is None:
        off = abs(result["metric"] - result["metric_in_search"])
        how = (
            f"{result['tests']:,} edges tested in {result['seconds']:.1f} s; measured again from scratch, the metric "
            f"is {'what the search had' if off == 0 else f'within {off:.0e} of what the search had'}"
        )
    else:
        details = {name: value for name, value in scoring.items() if name not in ("rule", "cut", "taken", "dangling")}
        words = "".join(f", {name.replace('_', ' ')} {value}" for name, value in details.items())
        how = (
            f"scored by {settings['method']}{words} in {result['seconds']:.1f} s; {scoring['taken']:,} edges taken, "
            f"{scoring['dangling']:,} of them dropped because they lay on no path"
        )
    console.print(f"{how}\n", highlight=False, soft_wrap=True)
    # Under resampling, edges on no path from the embedding carry nothing; under other ablations they may.
    connected = found.circuit.connected()
    shown = connected if connected and settings["ablation"] == "resample" else found.circuit
    console.print(circuit_table(shown))
    console.print()
    console.print(strongest_edges(found.trace) if scoring is None else highest_scores(found.circuit))
    if found.task.known_circuit is not None:
        console.print()
        console.print(known_table(found.task.known_circuit.compare(found.circuit)))
    console.print(f"\nwritten to {written}", highlight=False, markup=False, soft_wrap=True)


def _plan_summary(planned: Any, task: Task, model: Decoder) -> dict[str, Any]:
    memory = planned.memory
    return {
        "task": task.name,
        "model": model.name,
        "n_edges": planned.graph.n_edges,
        "n_inputs": len(planned.graph.inputs),
        "memory": {
            "recorded": memory.recorded,
            "smallest": memory.smallest,
            "largest": memory.largest,
            "limit": memory.limit,
            "candidates": memory.candidates(1, 0, 0),
        },
        "seconds_per_candidate": dataclasses.asdict(planned.costs),
        "edges_into_logits": None if planned.first is None else {"all": planned.first[0], "kept": planned.first[1]},
        "estimates": [dataclasses.asdict(one) for one in planned.estimates],
    }


def _show_plan(console: Console, planned: Any, task: Task, model: Decoder) -> None:
    from edgewise.patching import size
    from edgewise.reports import plan_table

    graph, memory = planned.graph, planned.memory

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(_headline(task, model))
    say(
        f"{graph.n_edges:,} edges into {len(graph.inputs):,} inputs; edges into nodes that nothing reads are not tested"
    )
    say(
        f"memory beyond the model: {size(memory.recorded)} recorded, {size(memory.smallest)} to start with, at most "
        f"{size(memory.largest)} if every edge stays; "
        f"{memory.candidates(1, 0, 0)} candidates at once"
    )
    if planned.first is None:
        say("time, by how many of the nodes stay in the circuit:\n")
    else:
        every, kept = planned.first
        say(f"at this threshold {kept} of the {every} edges into the logits stay; time, if as many nodes do:\n")
    console.print(plan_table(planned))


def _show_evaluation(console: Console, result: Any, task: Task, model: Decoder, split: str) -> None:
    from edgewise.reports import evaluation_table, known_table

    console.print(
        f"{result.n_edges:,} of {result.n_graph_edges:,} edges ({result.n_edges_connected:,} on a path from the "
        f"embedding to the logits), measured on {split} prompts",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{_headline(task, model)}\n", highlight=False, markup=False, soft_wrap=True)
    console.print(evaluation_table(result))
    if result.known is not None:
        console.print()
        console.print(known_table(result.known))


def main() -> None:
    """The `edgewise` command: what a user can put right becomes one sentence and exit code 2, never a traceback."""
    tune_process()
    warnings.showwarning = _say_warning
    warnings.simplefilter("always", EdgewiseWarning)
    # What other libraries have to say is for programmers; what stops a command comes as an error all the same.
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    # Being asked to end (SIGTERM) is the same as Ctrl-C, but for the exit code.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except EdgewiseError as error:
        _fail(f"edgewise: {error}", 2)
    except KeyboardInterrupt:
        _fail(_INTERRUPTED, 130)
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        _fail(f"edgewise: cannot use{where}: {error.strerror or error}", 2)
    except SystemExit as end:
        if end.code == 130 and not isinstance(end, _Kept):  # typer has already turned Ctrl-C into this
            typer.echo(_INTERRUPTED, err=True)
        raise


def _say_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """A warning as a sentence. Those of other libraries are for programmers, and are left out."""
    if issubclass(category, EdgewiseWarning):
        typer.echo(f"edgewise: warning: {message}", err=True)


_INTERRUPTED = "edgewise: interrupted; nothing was written"


def _fail(message: str, code: int) -> None:
    typer.echo(message, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
