"""`edgewise evaluate`: measure a circuit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.early import waiting
from edgewise.cli.loading import load_any_circuit, some_path
from edgewise.cli.options import (
    CpusOption,
    DeviceOption,
    GpusOption,
    GroupsOption,
    JsonOption,
    KnownOption,
    ManyWorkersOption,
    RayOption,
    RevisionOption,
    RunAblationOption,
    RunDtypeOption,
    RunExamplesOption,
    RunMetricOption,
    RunModelOption,
    TrustLayoutOption,
)
from edgewise.cli.printing import Kept, exit_code, headline, sized, sized_in_nodes, stdout_console
from edgewise.errors import EdgewiseError
from edgewise.runs.request import ModelRequest, Request, SearchRequest, TaskRequest

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.graph import Circuit
    from edgewise.graph.groups import Groups
    from edgewise.models import Decoder
    from edgewise.runs.assess import Assessment
    from edgewise.tasks import Task, Truth


@app.command(epilog="Example: edgewise evaluate runs/ioi-acdc --split test")
def evaluate(
    circuit: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CIRCUIT",
            help="A run folder, or a circuit file of EAP-IG, AutoCircuit or Edge Pruning.",
            autocompletion=completion.circuits,
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="Task to measure on. Default: the run's own; needed for a circuit file.")
    ] = None,
    model: RunModelOption = None,
    revision: RevisionOption = None,
    trust_layout: TrustLayoutOption = False,
    ablation: RunAblationOption = None,
    metric: RunMetricOption = None,
    examples: RunExamplesOption = None,
    groups: GroupsOption = None,
    known: KnownOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the prompts. Default: the run's, or 0.")] = None,
    variant: Annotated[str | None, typer.Option(help="How the task's prompts are made. Default: the run's.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="validation: the prompts a search uses; test: others like them. Default: the run's."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Metrics and their intervals only: no tests, controls or benchmark.")
    ] = False,
    minutes: Annotated[
        float,
        typer.Option(help="About how long the tests may take; on a large model fewer random circuits are tried then."),
    ] = 5.0,
    full: Annotated[bool, typer.Option("--full", help="Make every test on everything, however long it takes.")] = False,
    rediscover: Annotated[
        int, typer.Option(help="Search again so often: from resampled examples, and for ACDC in other orders of edges.")
    ] = 0,
    workers: ManyWorkersOption = None,
    ray: RayOption = None,
    cpus: CpusOption = 1.0,
    gpus: GpusOption = 0.0,
    circuits: Annotated[int, typer.Option(help="Random circuits for tests and controls.")] = 100,
    resamples: Annotated[int, typer.Option(help="Bootstrap samples for intervals; 0 for none.")] = 2000,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    test_seed: Annotated[int, typer.Option(help="Seed of everything random in the tests.")] = 0,
    device: DeviceOption = None,
    dtype: RunDtypeOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Test a circuit's claim: its metrics with intervals, hypothesis tests, controls, the benchmark's measures."""
    waiting(f"loading {model or f'the model of {circuit}'}", quiet=quiet)
    from rich.console import Console

    from edgewise.evaluation import Bootstrap
    from edgewise.evaluation.effort import Options
    from edgewise.graph.groups import read_groups
    from edgewise.reports import section_progress
    from edgewise.runs import load_again, read_run
    from edgewise.runs.assess import AssessmentInterrupted, assess
    from edgewise.runs.cluster import Cluster
    from edgewise.runs.constants import ablation_of
    from edgewise.runs.given import known_of
    from edgewise.tasks import METRICS

    # What can be refused before a model is loaded is refused now.
    bootstrap = Bootstrap(resamples, confidence, test_seed)
    seconds = None if full else 60 * minutes
    options = Options(seed=test_seed) if quick else Options(circuits=circuits, seed=test_seed, seconds=seconds)
    if quick and full:
        raise EdgewiseError("--quick makes no tests and --full all of them: choose one")
    circuit = some_path(circuit, "the circuit")
    if rediscover < 0 or rediscover == 1:
        raise EdgewiseError(f"--rediscover should be 0 or at least 2, not {rediscover}")
    cluster = Cluster.asked(workers, ray, cpus, gpus)
    if cluster is not None and not rediscover:
        raise EdgewiseError("--workers and --ray are for searches that are made again: say how often with --rediscover")
    own = None if groups is None else read_groups(groups)
    truth = None if known is None else known_of(known)
    finished, scored, search, carried = True, False, None, None
    if not circuit.is_dir():
        found, settings = load_any_circuit(circuit), {}
        _require_fit(found, truth, own)
        # A file that scores edges it does not have ranks them all.
        scored = found.scores is not None and bool((found.scores[~found.edges] != 0).any())
        if task is None:
            raise EdgewiseError(f"{str(circuit)!r} is a circuit without a task: say which with --task")
        if rediscover:
            raise EdgewiseError("--rediscover needs a run folder: a circuit file does not say how it was found")
        measured_split = split or "validation"
        on = TaskRequest(task, examples, False, seed or 0, variant or "default", measured_split)
        loaded, prompts = Request(
            ModelRequest(model, device, dtype, revision=revision, trust_layout=trust_layout), on
        ).load(searching=False)
    else:
        record, found = read_run(circuit)
        _require_fit(found, truth, own)
        settings, finished = record["settings"], record.get("finished", True)
        scored = record["result"].get("scoring") is not None
        if metric is None and settings["metric"] not in METRICS:
            raise EdgewiseError(
                f"the run in {str(circuit)!r} used a metric of its own, {settings['metric']!r}; name one with --metric"
            )
        if rediscover:
            search = SearchRequest.from_dict(settings)
        measured_split = split or settings["task"].get("split", "validation")
        loaded, prompts = load_again(
            circuit,
            settings,
            task=task,
            model=model,
            examples=examples,
            seed=seed,
            split=measured_split,
            variant=variant,
            device=device,
            dtype=dtype,
            revision=revision,
            trust_layout=trust_layout,
        )
        if ablation is None:
            carried = ablation_of(circuit, settings, loaded, anew=model is not None)
    prompts = prompts.beside(found.graph, known=truth, groups=own)
    about = {"task": prompts.name, "model": loaded.name, "split": measured_split, "finished": finished}
    shown: Assessment | None = None

    def show(so_far: Assessment) -> None:
        nonlocal shown
        if as_json:
            return
        if shown is None:
            if not finished:
                typer.echo("note: this run was interrupted; its circuit still holds every edge that it had not come to")
            _show_headline(stdout_console(), so_far, prompts, loaded, measured_split)
        _show_sections(stdout_console(), so_far, shown)
        shown = so_far

    stopped: BaseException | None = None
    with section_progress(Console(stderr=True, quiet=quiet)) as progress:
        try:
            result = assess(
                loaded,
                prompts,
                found,
                ablation=ablation or carried,
                metric=metric or settings.get("metric"),
                scored=scored,
                scored_by=settings.get("metric"),
                search=search,
                rediscover=rediscover,
                cluster=cluster,
                quick=quick,
                bootstrap=bootstrap,
                options=options,
                progress=progress,
                found_so_far=show,
            )
        except AssessmentInterrupted as stop:
            result, stopped = stop.found, stop.__cause__
    if as_json:
        typer.echo(json.dumps({**about, "interrupted": stopped is not None, **result.to_dict()}))
    elif stopped is not None:
        show(result)
    elif result.evaluation.known is None:
        words = "no known circuit here, so no ROC; what the circuit recovers, tests and controls remain"
        stdout_console().print(words, style="dim")
    if stopped is not None:
        typer.echo("edgewise: interrupted; what was measured until then is printed, the rest was not made", err=True)
        raise Kept(exit_code(stopped))
    if result.hypotheses is not None and result.hypotheses.left_out is not None and not as_json:
        typer.echo("note: not everything was tried, for want of time; --minutes gives more, --full tries all")


def _require_fit(circuit: Circuit, known: Truth | None, groups: Groups | None) -> None:
    """Refuse, before a model is loaded, a known circuit or groups that are not of the circuit's graph."""
    from edgewise.graph.groups import read_groups

    if known is not None:
        known.on(circuit.graph)
    if groups is not None:
        read_groups(groups, circuit.graph)


def _show_headline(console: Console, found: Assessment, task: Task, model: Decoder, split: str) -> None:
    result = found.evaluation
    size = sized(result.n_edges, result.n_graph_edges, result.n_edges_connected, result.ablation)
    if result.unit in ("neurons", "features"):
        size = result.size
    if result.n_nodes is not None:
        size = sized_in_nodes(result.n_nodes, result.n_graph_nodes, result.n_edges)
    console.print(f"{size}, measured on {split} prompts", highlight=False, soft_wrap=True)
    console.print(f"{headline(task, model)}\n", highlight=False, markup=False, soft_wrap=True)


def _show_sections(console: Console, found: Assessment, shown: Assessment | None) -> None:
    from rich.text import Text

    from edgewise.reports import assessment_tables

    for part in assessment_tables(found, shown):
        console.print(part, soft_wrap=isinstance(part, Text))
    console.file.flush()
