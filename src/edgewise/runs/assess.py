"""Everything that can be asked of a circuit, in one go: what `edgewise evaluate` prints."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.evaluation import Evaluation, evaluate_in
from edgewise.evaluation.bootstrap import Bootstrap
from edgewise.evaluation.effort import Options
from edgewise.evaluation.hypotheses import Hypotheses, TestsInterrupted, run_tests
from edgewise.evaluation.mib import METRIC, MibRoc, MibScores, mib_auroc, mib_scores
from edgewise.evaluation.share import share_of_way
from edgewise.graph import Circuit, OutputCircuit
from edgewise.models import Decoder, permuted
from edgewise.models.control import same_weights
from edgewise.patching import Ablation, Experiment
from edgewise.runs.cluster import Cluster
from edgewise.runs.request import SearchRequest
from edgewise.runs.stability import Stability, by_examples, by_order
from edgewise.tasks import Task

SectionProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and of how much."""


SectionFound = Callable[["Assessment"], None]
"""Called with what is known so far whenever a section is finished."""


@dataclass(frozen=True)
class Assessment:
    """What was found out about a circuit.

    Attributes:
        evaluation: its metrics, with intervals.
        hypotheses: the tests; None if they were left out.
        mib: the benchmark's areas; None without scores, or where they mean nothing.
        mib_roc: the benchmark's AUROC of the scores, where a circuit is known.
        permuted: the share that the same edges recover in a permuted network, from its own ablated run to the model (a
            control; about 0 is good), if that was measured.
        stability: the same search made again.
        notes: why what was asked for is missing.
    """

    evaluation: Evaluation
    hypotheses: Hypotheses | None = None
    mib: MibScores | None = None
    mib_roc: MibRoc | None = None
    permuted: float | None = None
    stability: tuple[Stability, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, fit for JSON: what is no number is None."""
        evaluation = self.evaluation
        found = {
            "metric_name": evaluation.metric,
            "metric": evaluation.measured[evaluation.metric].circuit,
            "metric_full": evaluation.measured[evaluation.metric].full,
            "metric_ablated": evaluation.measured[evaluation.metric].ablated,
            "metrics": {
                name: {**asdict(one), "recovered": one.recovered, "completeness": one.completeness}
                for name, one in evaluation.measured.items()
            },
            "per_example": None
            if evaluation.spread is None
            else {name: value.tolist() for name, value in asdict(evaluation.spread).items()},
            "accuracy": None if evaluation.accuracy is None else asdict(evaluation.accuracy),
            "roc": {name: asdict(point) for name, point in evaluation.roc.items()},
            "roc_by_group": {name: asdict(point) for name, point in evaluation.roc_by_group.items()},
            "groups": [asdict(one) for one in evaluation.groups] or None,
            "known_circuit": None if evaluation.known is None else asdict(evaluation.known),
            "n_edges": evaluation.n_edges,
            "n_edges_connected": evaluation.n_edges_connected,
            "n_graph_edges": evaluation.n_graph_edges,
            f"n_{evaluation.unit}": getattr(evaluation, f"n_{evaluation.unit}"),
            f"n_graph_{evaluation.unit}": getattr(evaluation, f"n_graph_{evaluation.unit}"),
            "ablation": evaluation.ablation,
            "examples": evaluation.examples,
            "confidence": evaluation.confidence,
            "hypotheses": None if self.hypotheses is None else asdict(self.hypotheses),
            "mib": None if self.mib is None else asdict(self.mib),
            "mib_auroc": None if self.mib_roc is None else self.mib_roc.auroc,
            "permuted": self.permuted,
            "notes": list(self.notes),
            "stability": [
                {
                    "what": one.what,
                    "sizes": [circuit.size for circuit in one.circuits],
                    "jaccard": one.jaccard,
                    "with_first": list(one.with_first),
                    "common": one.common,
                    "union": one.union,
                    "frequencies": dict(one.frequencies),
                }
                for one in self.stability
            ],
        }
        return _plain(found)


class AssessmentInterrupted(KeyboardInterrupt):
    """An assessment was stopped before its end; `found` holds what was found until then."""

    def __init__(self, found: Assessment) -> None:
        super().__init__("interrupted")
        self.found = found


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def assess(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    *,
    ablation: str | Ablation | None = None,
    metric: str | None = None,
    scored: bool = False,
    scored_by: str | None = None,
    search: SearchRequest | None = None,
    rediscover: int = 0,
    cluster: Cluster | None = None,
    quick: bool = False,
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 - frozen
    options: Options | None = None,
    progress: SectionProgress | None = None,
    found_so_far: SectionFound | None = None,
) -> Assessment:
    """Measure a circuit and put it to every test.

    Args:
        scored: the circuit's scores rank every edge of its graph, so that circuits of any size can be cut from them.
        scored_by: the metric that the scores are about, if it is known.
        search: what it was found with, to search again `rediscover` times, on a `cluster` side by side.
        quick: metrics and intervals only.
        options: of the tests, and the seed of controls and searches.
        found_so_far: called as sections are finished: metrics, tests and controls, the benchmark's measures, searches.

    Raises:
        EdgewiseError: as `evaluate`, `run_tests` and `discover`; or a search to make again that is not known.
        AssessmentInterrupted: Ctrl-C (or SIGTERM, where that ends the program) once there are metrics.
    """
    options = options or Options()
    if rediscover and search is None:
        raise EdgewiseError("only a run can be searched again, and this is a circuit file")

    def told(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else functools.partial(progress, what)

    experiment = Experiment(model, task, ablation=ablation, metric=metric, graph=circuit.graph)
    circuit = circuit.on(experiment.graph)
    found = Assessment(evaluate_in(experiment, circuit, bootstrap=bootstrap, progress=told("metrics")))

    def searched_again(what: str, found: Assessment) -> Assessment:
        assert search is not None
        search_all = by_examples if what == "examples" else by_order
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdgewiseWarning)  # said when the run was made
            one = search_all(
                model,
                task,
                circuit,
                search,
                times=rediscover,
                seed=options.seed,
                progress=told(f"other {what}"),
                cluster=cluster,
            )
        return replace(found, stability=(*found.stability, one))

    sections: list[Callable[[Assessment], Assessment]] = [lambda found: found]
    if isinstance(circuit, OutputCircuit):
        found, quick = replace(found, notes=_of_outputs(circuit, quick)), True
    if not quick:
        sections.append(lambda found: _tested(found, experiment, circuit, options, told("tests")))
        if scored:
            sections.append(
                lambda found: _benchmarked(found, model, task, circuit, scored_by, told("benchmark's measures"))
            )
    if search is not None and rediscover:
        sections.append(functools.partial(searched_again, "examples"))
        if search.method == "acdc" and not search.of_units:
            sections.append(functools.partial(searched_again, "orders"))
    try:
        for section in sections:
            found = section(found)
            if found_so_far is not None:
                found_so_far(found)
    except TestsInterrupted as stop:
        raise AssessmentInterrupted(replace(found, hypotheses=stop.found)) from stop.__cause__
    except (KeyboardInterrupt, SystemExit) as stop:
        raise AssessmentInterrupted(found) from stop
    return found


def _of_outputs(circuit: OutputCircuit, quick: bool) -> tuple[str, ...]:
    """What is to be said of a circuit whose nodes write only some output dimensions."""
    most = int(circuit.rows.sum()) * circuit.graph.d_model
    size = (
        f"the circuit's nodes write {circuit.n_outputs:,} of their {most:,} output dimensions (EAP-IG's neurons); "
        f"counted by these it has {circuit.weighted_edges:,.1f} edges"
    )
    none = "no tests, controls or benchmark's measures: they are about edges and nodes with all that they write"
    return (size,) if quick else (size, none)


def _tested(
    found: Assessment,
    experiment: Experiment,
    circuit: Circuit,
    options: Options,
    progress: Callable[[int, int], None] | None,
) -> Assessment:
    """With hypothesis tests and the control in a permuted network."""
    notes = list(found.notes)
    if len(experiment.task) > 1:
        found = replace(found, hypotheses=run_tests(experiment, circuit, options, progress=progress))
    else:
        notes.append("no tests and no random circuits: they need at least 2 examples")
    control = None
    if circuit.graph.features:
        notes.append("no permuted network: dictionaries are of the model as it is")
    elif experiment.decoder.original is None:
        control = _in_permuted(experiment, circuit, options.seed)
        if control is None:
            notes.append(
                "no permuted network: this model has nothing to permute, ablating everything changes nothing, or the "
                "texts that a mean was taken over are not there"
            )
    return replace(found, permuted=control, notes=tuple(notes))


def _benchmarked(
    found: Assessment,
    model: Decoder,
    task: Task,
    circuit: Circuit,
    scored_by: str | None,
    progress: Callable[[int, int], None] | None,
) -> Assessment:
    """With the benchmark's areas, or the reason why there are none."""
    notes = list(found.notes)
    known = task.known_circuit
    try:
        found = replace(found, mib=mib_scores(model, task, circuit, progress=progress))
        if known is not None and not circuit.whole_nodes:  # which is about edges
            found = replace(found, mib_roc=mib_auroc(circuit, known.on(circuit.graph)))
    except EdgewiseError as error:
        notes.append(f"no measures of the MIB benchmark: {error}")
    else:
        if scored_by not in (None, METRIC):
            notes.append(f"the {circuit.unit} were scored by {scored_by}, the benchmark's measures are about {METRIC}")
    return replace(found, notes=tuple(notes))


def _in_permuted(experiment: Experiment, circuit: Circuit, seed: int) -> float | None:
    """What share the same edges recover in the same network with its heads and neurons shuffled.

    None where shuffling leaves the network as it was, where there is nothing to recover, or where the texts that a mean
    was taken over are not there: what absent edges carry is worked out for the shuffled network.
    """
    model, carried = experiment.decoder, experiment.carried
    if carried.name == "mean" and carried.constants is not None and carried.over is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgewiseWarning)
        shuffled = permuted(model, seed)
    if same_weights(model, shuffled):
        return None
    control = Experiment(
        shuffled, experiment.task, ablation=carried.anew(), metric=experiment.metric, graph=circuit.graph
    )
    return share_of_way(control.value(circuit), control.ablated(), experiment.full())
