"""The command line: the library's verbs from the shell."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise import __version__
from edgewise.errors import EdgewiseError

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
ExamplesOption = Annotated[
    int | None, typer.Option(help="Prompt pairs to use. Default: the task's suggestion, or all rows of a file.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the prompts, and of shuffled orders.")]
VariantOption = Annotated[str, typer.Option(help="How the task's prompts are made (see: edgewise tasks).")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:0, … Default: CUDA where there is one.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32 (default), float64 or bfloat16.")]
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
        float | None, typer.Option(help="Keep an edge if the metric rises by at least this much without it.")
    ] = None,
    edges: Annotated[
        int | None, typer.Option(help="Instead of a threshold: search one that keeps at most this many edges.")
    ] = None,
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    seed: SeedOption = 0,
    variant: VariantOption = "default",
    ports: Annotated[
        bool,
        typer.Option("--ports/--no-ports", help="Test whether heads need their q, k and v at all, as the paper does."),
    ] = True,
    layer_order: Annotated[
        str, typer.Option(help="Parents' layers late to early (normal), reverse, or shuffle.")
    ] = "normal",
    head_order: Annotated[
        str, typer.Option(help="Parents' heads high to low (normal), reverse, or shuffle.")
    ] = "normal",
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Compare the size of the change, not the signed change.")
    ] = False,
    engine: Annotated[str, typer.Option(help="plain: one whole circuit run per tested edge.")] = "plain",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write. Default: runs/TASK-METHOD, numbered if that is taken.")
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Find the circuit that produces a task's behaviour in a model, and write a run folder."""
    from rich.console import Console

    from edgewise.discovery import METHODS
    from edgewise.errors import unknown
    from edgewise.reports import search_progress
    from edgewise.runs import RunFolder, require_free
    from edgewise.runs import discover as run_discovery

    # What can be refused before a model is loaded is refused now.
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if out is not None:
        out = out.expanduser()
        require_free(out)
    loaded, prompts = _load(task, model, examples, seed, "validation", variant, device, dtype)
    messages = Console(stderr=True)
    if not quiet:
        messages.print(_headline(prompts, loaded), highlight=False, markup=False, soft_wrap=True)
    claimed = RunFolder.claim(out) if out else RunFolder.claim_next(Path("runs") / f"{prompts.name}-{method}")
    with claimed as folder:
        with search_progress(Console(stderr=True, quiet=quiet), method) as progress:
            found = run_discovery(
                loaded,
                prompts,
                method=method,
                threshold=threshold,
                edges=edges,
                ablation=ablation,
                metric=metric,
                ports=ports,
                layer_order=layer_order,  # type: ignore[arg-type] - checked where it is used
                head_order=head_order,  # type: ignore[arg-type]
                seed=seed,
                absolute=absolute,
                engine=engine,
                progress=progress,
                command=["edgewise", *sys.argv[1:]],
            )
        written = folder.finish(found.files())
    if as_json:
        typer.echo(json.dumps({"task": prompts.name, **found.summary(), "run_dir": str(written)}))
        return
    _show_run(Console(), found, written)


@app.command(epilog="Example: edgewise evaluate runs/ioi-acdc --split test")
def evaluate(
    circuit: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CIRCUIT", help="A run folder, or a circuit file in EAP-IG's JSON form.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Task to measure on. Default: the run's own; needed for a circuit file.")
    ] = None,
    model: ModelOption = None,
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the prompts. Default: the run's, or 0.")] = None,
    variant: Annotated[str | None, typer.Option(help="How the task's prompts are made. Default: the run's.")] = None,
    split: Annotated[
        str, typer.Option(help="validation: the prompts a search uses; test: others like them.")
    ] = "validation",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a circuit from scratch: its metrics beside the whole model's and the ablated run's."""
    from rich.console import Console

    from edgewise.evaluation import evaluate as measure
    from edgewise.graph import load_circuit
    from edgewise.runs import load_run

    record: dict[str, Any] = {}
    if circuit.is_dir():
        record, found = load_run(circuit)
    else:
        found = load_circuit(circuit)
        if task is None:
            raise EdgewiseError(f"{str(circuit)!r} is a circuit without a task: say which with --task")
    settings = record.get("settings", {})
    ran_on = settings.get("task", {})
    if record and task is None:
        task = ran_on["task"]
        kept = circuit / "prompts.jsonl"
        if "sha256" in ran_on and split == "validation" and examples is None and kept.is_file():
            task = str(kept)
        else:
            examples = ran_on["examples"] if examples is None else examples
        seed = ran_on.get("seed", 0) if seed is None else seed
        variant = ran_on.get("variant", "default") if variant is None else variant
    if record and model is None:
        model = settings["model"]["folder"] or settings["model"]["name"]
        dtype = settings["model"]["dtype"] if dtype is None else dtype
    assert task is not None
    loaded, prompts = _load(task, model, examples, seed or 0, split, variant or "default", device, dtype)
    if record and settings["model"]["name"] == loaded.name and settings["model"]["dtype"] == _dtype_name(loaded):
        _same_weights(settings["model"]["fingerprint"], loaded, circuit)
    result = measure(
        loaded,
        prompts,
        found,
        ablation=ablation or settings.get("ablation"),
        metric=metric or settings.get("metric"),
    )
    if as_json:
        measured = {
            name: dataclasses.asdict(one) | {"recovered": one.recovered} for name, one in result.measured.items()
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
                    "ablation": result.ablation,
                    "split": split,
                    "examples": len(prompts),
                }
            )
        )
        return
    _show_evaluation(Console(), result, prompts, loaded, split)


@app.command(epilog="Example: edgewise tasks")
def tasks(as_json: JsonOption = False) -> None:
    """List the built-in tasks."""
    from rich.console import Console
    from rich.table import Table

    from edgewise.tasks import TASKS

    if as_json:
        rows = [
            {
                "name": spec.name,
                "summary": spec.summary,
                "model": spec.model,
                "examples": spec.examples,
                "threshold": spec.threshold,
                "ablation": spec.ablation,
                "variants": list(spec.variants),
                "source": spec.source,
            }
            for spec in TASKS.values()
        ]
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("task", "what it is", "default model", "threshold", "ablation", "variants", "from"):
        table.add_column(column, no_wrap=column == "task")
    for spec in TASKS.values():
        table.add_row(
            spec.name,
            spec.summary,
            spec.model,
            f"{spec.threshold:g}",
            spec.ablation,
            ", ".join(spec.variants),
            spec.source,
        )
    console = Console()
    console.print(table)
    console.print("\nYour own: a JSONL file with clean, corrupt, answer and wrong on every line.", highlight=False)


@app.command(epilog="Example: edgewise models")
def models(as_json: JsonOption = False) -> None:
    """List the built-in models and the architectures that can be loaded."""
    from rich.console import Console
    from rich.table import Table

    from edgewise.models import BUILT_IN
    from edgewise.models.huggingface import ADAPTERS

    if as_json:
        built_in = [{"name": model.name, "description": model.description} for model in BUILT_IN.values()]
        typer.echo(json.dumps({"built_in": built_in, "architectures": sorted(ADAPTERS)}))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("built-in model", no_wrap=True)
    table.add_column("what it is")
    for model in BUILT_IN.values():
        table.add_row(model.name, model.description)
    console = Console()
    console.print(table)
    names = ", ".join(sorted(ADAPTERS))
    console.print(f"\nHugging Face ids and folders of these architectures: {names}.", highlight=False)


@app.command(epilog="Example: edgewise check HuggingFaceTB/SmolLM2-135M --dtype bfloat16")
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A built-in model, a Hugging Face id, or a folder.")],
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check on random tokens that edgewise reads a model right: its logits against the model's own."""
    from edgewise.models import load_model
    from edgewise.models.guard import check_on_random_tokens

    loaded = load_model(model, device=device, dtype=dtype)  # type: ignore[arg-type] - checked by load_model
    difference, rows, length = check_on_random_tokens(loaded)
    if as_json:
        typer.echo(json.dumps({"model": loaded.name, "difference": difference, "rows": rows, "tokens": length}))
        return
    graph = loaded.config.graph()
    typer.echo(
        f"{loaded.name} ({loaded.config.architecture}, {_dtype_name(loaded)} on {loaded.device}): {graph.describe()}: "
        f"{graph.n_edges:,} edges"
    )
    typer.echo(
        f"edgewise's logits differ from the model's own by at most {difference:.1e} of their spread "
        f"({rows} random prompts of {length} tokens)"
    )


@app.command(epilog="Example: edgewise methods")
def methods(as_json: JsonOption = False) -> None:
    """List the methods, metrics and ablations."""
    from rich.console import Console
    from rich.table import Table

    from edgewise.discovery import METHODS
    from edgewise.patching import ABLATIONS
    from edgewise.tasks import METRICS

    groups = {
        "method": METHODS,
        "metric": {metric.name: metric.summary for metric in METRICS.values()},
        "ablation": ABLATIONS,
    }
    if as_json:
        typer.echo(json.dumps({f"{kind}s": names for kind, names in groups.items()}))
        return
    console = Console()
    for kind, names in groups.items():
        table = Table(box=None, pad_edge=False)
        table.add_column(kind, no_wrap=True, min_width=16)
        table.add_column("")
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
) -> tuple[Decoder, Task]:
    from edgewise.models import load_model
    from edgewise.tasks import find_spec, load_task

    spec = find_spec(task)
    if model is None:
        if spec is None:
            if not Path(task).exists():
                raise EdgewiseError(f"the prompt file {task!r}: there is no such file")
            raise EdgewiseError("prompts from a file need a model: say which with --model")
        model = spec.default_model(variant)
    loaded = load_model(model, device=device, dtype=dtype)  # type: ignore[arg-type] - checked by load_model
    prompts = load_task(task, loaded, examples=examples, seed=seed, split=split, variant=variant)  # type: ignore[arg-type]
    return loaded, prompts


def _dtype_name(model: Decoder) -> str:
    return str(model.dtype).removeprefix("torch.")


def _same_weights(fingerprint: str, model: Decoder, run: Path) -> None:
    if model.fingerprint() != fingerprint:
        raise EdgewiseError(
            f"model {model.name!r} has other weights now than when {str(run)!r} was made (fingerprint "
            f"{model.fingerprint()}, then {fingerprint}); name the model with --model to measure on it all the same"
        )


def _headline(task: Task, model: Decoder) -> str:
    graph = model.config.graph(ports=False)
    return f"{task.describe()}; model {model.name}: {graph.describe()}, {_dtype_name(model)} on {model.device}"


def _show_run(console: Console, found: Any, written: Path) -> None:
    from edgewise.reports import circuit_table, strongest_edges
    from edgewise.reports.terminal import number

    result, settings = found.record["result"], found.record["settings"]
    console.print(
        f"kept {result['n_edges']:,} of {result['n_graph_edges']:,} edges ({result['n_edges_connected']:,} on a path "
        f"from the embedding to the logits) at threshold {settings['threshold']:.4g}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"{settings['metric']} {number(result['metric'])}; the whole model has {number(result['metric_full'])}, with "
        f"every edge ablated {number(result['metric_ablated'])}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{result['tests']:,} edges tested in {result['seconds']:.1f} s\n", highlight=False)
    console.print(circuit_table(found.circuit))
    console.print()
    console.print(strongest_edges(found.trace))
    console.print(f"\nwritten to {written}", highlight=False, markup=False, soft_wrap=True)


def _show_evaluation(console: Console, result: Any, task: Task, model: Decoder, split: str) -> None:
    from edgewise.reports import evaluation_table

    console.print(
        f"{result.n_edges:,} of {result.n_graph_edges:,} edges ({result.n_edges_connected:,} on a path from the "
        f"embedding to the logits), measured on {split} prompts",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{_headline(task, model)}\n", highlight=False, markup=False, soft_wrap=True)
    console.print(evaluation_table(result))


def main() -> None:
    """The `edgewise` command: errors that a user can put right become one sentence and exit code 2."""
    try:
        app()
    except EdgewiseError as error:
        typer.echo(f"edgewise: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("edgewise: interrupted; nothing was written", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
