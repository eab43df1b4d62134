"""What a search came to, with the record that makes it possible to run it again."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgewise.attached import attach
from edgewise.discovery import Decision, Discovery
from edgewise.evaluation import Evaluation, Outcome, evaluate
from edgewise.graph import Circuit, Graph, NeuronCircuit, as_shown
from edgewise.graph.eap_json import to_dict as circuit_to_dict
from edgewise.graph.groups import groups_found
from edgewise.models import BUILT_IN, Decoder
from edgewise.models.matmul import products_of
from edgewise.patching import Ablation, Constants, Experiment
from edgewise.patching.applied import Corrupt, applied
from edgewise.runs.constants import kept_constants
from edgewise.runs.folder import RunFolder
from edgewise.runs.given import kept_known, known_of
from edgewise.runs.hub import push_run
from edgewise.runs.reading import FORM, line_of, summary_of
from edgewise.runs.request import SearchRequest
from edgewise.runs.scores import scores_to_bytes
from edgewise.tasks import METRICS, Task
from edgewise.tasks.jsonl import digest, to_jsonl

if TYPE_CHECKING:
    from edgewise.runs.votes import Votes


@dataclass(frozen=True)
class Run:
    """A discovery, finished or interrupted (`record["finished"]`).

    Attributes:
        circuit: what was found.
        trace: every tested edge in order.
        scores: every edge's score by the method, as a circuit that has them, or None.
        discovery: the method's whole result.
        record: what `run.json` holds: settings, versions, counts, timings, metrics; how far an interrupted one got.
        task, model: on what.
        constants: what absent edges carry, where that was learned or is a mean over texts; else None.
    """

    discovery: Discovery
    record: dict[str, Any]
    task: Task
    model: Decoder
    constants: Constants | None = None
    report: ClassVar[Callable[..., Path]]
    """`run.report("page.html")` writes the run's page: `edgewise.report`, set where that is defined."""
    page: ClassVar[Callable[..., Any]]
    show: ClassVar[Callable[..., Any]]
    """`run.page()` is the page in a notebook; `run.show()` lets Python read what is chosen in it, too."""
    _repr_html_: ClassVar[Callable[..., str]]

    def __repr__(self) -> str:
        """`<Run: acdc on ioi in tiny-ioi; 31 of 527 edges, kl_div 0.0365>`"""
        settings, circuit = self.record["settings"], self.circuit
        end = "" if self.record["finished"] else ", interrupted"
        return (
            f"<Run: {settings['method']} on {self.task_name} in {settings['model']['name']}; {circuit.size:,} of "
            f"{circuit.most:,} {circuit.unit}, {settings['metric']} {self.metric:.4g}{end}>"
        )

    @property
    def circuit(self) -> Circuit:
        return self.discovery.circuit

    @property
    def trace(self) -> tuple[Decision, ...]:
        return self.discovery.trace

    @property
    def scores(self) -> Circuit | None:
        """The circuit with the method's score of every edge; None of a method that decides, as ACDC."""
        return None if self.record["result"].get("scoring") is None else self.circuit

    @property
    def task_name(self) -> str:
        return self.task.name

    @property
    def metric(self) -> float:
        """The circuit's metric, measured from scratch by a circuit run when the search had ended; lower is better."""
        return self.record["result"]["metric"]

    def evaluate(self, task: Task | None = None, **options: Any) -> Evaluation:
        """Measure the circuit on other prompts than it was found on, or on those (see `edgewise.evaluate`).

        `known` may be the path of a circuit, too.
        """
        settings = self.record["settings"]
        if settings["metric"] in METRICS:
            options = {"metric": settings["metric"], **options}
        if options.get("known") is not None:
            options["known"] = known_of(options["known"])
        ablation = Ablation(settings["ablation"], settings.get("ablation_seed", 0), None, self.constants)
        return evaluate(self.model, task or self.task, self.circuit, **{"ablation": ablation, **options})

    def applied(
        self,
        ablation: str | Ablation | Constants | None = None,
        *,
        model: Any = None,
        corrupt: Corrupt | None = None,
        complement: bool = False,
    ) -> AbstractContextManager[Any]:
        """The circuit in place of a live model's forward pass (see `edgewise.patching.applied`).

        Args:
            ablation: by default the run's own, with what it learned or took a mean over; `resample` where a corrupted
                prompt is given. A mean over prompts is over the run's.
            model: a live `transformers` model or a Decoder; by default the run's, which a loaded run loads for it.

        Raises:
            EdgewiseError: as `applied`; a run under `resample` needs a corrupted prompt, or another ablation.
        """
        own, task = self.record["settings"]["ablation"], None
        if not isinstance(ablation, Constants):
            given = Ablation.of(ablation or (own if corrupt is None else "resample"))
            if given.name == own and self.constants is not None:
                given = replace(given, constants=self.constants)
            if given.constants is None and given.name in ("mean", "mean-clean", "optimal"):
                task = self.task
            ablation = given
        on = self.model if model is None else model
        return applied(self.circuit, on, ablation, task=task, corrupt=corrupt, complement=complement)

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write `run.json`, `circuit.json` and `trace.jsonl`.

        And `scores.safetensors`, if the method scores edges; `prompts.jsonl`, for prompts of one's own;
        `constants.safetensors`, if absent edges carry what was learned, or a mean over texts; `known.json`, for a known
        circuit of one's own.

        Args:
            force: replace a run that the folder holds.

        Raises:
            EdgewiseError: the folder holds something already, or cannot be written.
        """
        with RunFolder.claim(Path(folder).expanduser(), force=force) as claimed:
            return claimed.finish(self.files())

    def vote(
        self,
        *,
        orders: int | None = None,
        bootstrap: int | None = None,
        votes: float = 0.5,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Votes:
        """Search again, in random orders or on examples drawn anew: the share of searches that keep each edge.

        As `edgewise.runs.votes.vote`, where the arguments are described.
        """
        from edgewise.runs.votes import vote  # which searches, and so imports this

        return vote(self, orders=orders, bootstrap=bootstrap, votes=votes, seed=seed, progress=progress)

    def push_to_hub(self, repository: str, *, private: bool = False, revision: str | None = None) -> str:
        """Put the run folder's files into a repository of the Hugging Face hub, with a card made of the record.

        `load_run("hub:owner/name")` gives it back. Where the model lies on this machine, and the command, are left out.

        Args:
            repository: `owner/name`, which is made if there is none.
            private: only when it is made.
            revision: the branch to commit to.

        Returns:
            The commit's address.

        Raises:
            EdgewiseError: no such name, nobody is logged in, or the hub cannot be reached or refuses.
        """
        return push_run(self, repository, private=private, revision=revision)

    def files(self) -> dict[str, str | bytes]:
        """The files of the run folder, by name."""
        files: dict[str, str | bytes] = {
            "run.json": json.dumps(self.record, indent=2) + "\n",
            "circuit.json": json.dumps(circuit_to_dict(self.circuit)),
            "trace.jsonl": "".join(line_of(decision) + "\n" for decision in self.trace),
        }
        if self.record["result"].get("scoring") is not None:
            files["scores.safetensors"] = scores_to_bytes(self.circuit)
        return {**files, **kept_prompts(self.task), **kept_constants(self.constants), **kept_known(self.task)}

    def summary(self) -> dict[str, Any]:
        """What `edgewise discover --json` prints, without the run folder."""
        return summary_of(self.record, self.circuit)


attach(Run, "edgewise.reports.notebook", "_repr_html_", "page", "show")


class RunInterrupted(KeyboardInterrupt):
    """A discovery was stopped before its end, by Ctrl-C or because it may use no more memory.

    Attributes:
        run: what was decided until then, which can be saved like a finished run.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


def describe_model(model: Decoder) -> dict[str, Any]:
    """What tells this model from another: name, folder if it has one, dtype, device, architecture, fingerprint.

    And where it came from: a `revision` of the hub; of a `gguf` file its path and quantisation, which is undone; of an
    `adapter` the model that it was merged into. And what was done to it: whether biases of values and norms were
    folded, which changes what zero ablation means, and the seed with which heads and neurons were shuffled.
    """
    folder = Path(model.name).expanduser()
    return {
        "name": model.name,
        "folder": str(folder.resolve()) if model.name not in BUILT_IN and folder.is_dir() else None,
        "architecture": model.config.architecture,
        "dtype": model.dtype_name,
        "device": str(model.device),
        "fingerprint": model.fingerprint(),
        "folded_value_biases": model.config.folded_value_biases,
        **({"folded_norm_biases": True} if model.config.folded_norm_biases else {}),
        "permuted_seed": model.config.permuted_seed,
        **model.origin,
    }


def versions(model: Decoder | None = None) -> dict[str, str]:
    """Versions of what a result depends on; with a model that has large products on CPU, whose those are."""
    packages = ("edgewise", "torch", "transformers", "numpy")
    found = {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
    products = None if model is None else products_of(model)
    return found if products is None else {**found, "products": products}


def settings_of(asked: SearchRequest, experiment: Experiment) -> dict[str, Any]:
    """What was searched, where and on what, as the record keeps it."""
    task = experiment.task
    kept = {"kept_sha256": digest(to_jsonl(task.text).encode())} if _keeps(task) else {}
    names: dict[str, Any] = {"ablation": experiment.ablation, "metric": experiment.metric.name}
    search = replace(asked, **names)
    if experiment.carried.over is not None:
        search = replace(search, mean_over=experiment.carried.over.settings)
    return {**search.to_dict(), "task": {**task.settings, **kept}, "model": describe_model(experiment.decoder)}


def record_of(
    settings: dict[str, Any],
    found: Discovery,
    command: Sequence[str] | None,
    outcome: Outcome,
    accuracy: float | None,
    task: Task,
    model: Decoder,
) -> dict[str, Any]:
    """All of `run.json`."""
    known, circuit = task.known_circuit, found.circuit
    shown, groups = as_shown(circuit), groups_found(task.groups, circuit)
    sizes: dict[str, Any] = {f"n_{circuit.unit}": circuit.size, f"n_graph_{circuit.unit}": circuit.most}
    if isinstance(circuit, NeuronCircuit):
        sizes[f"{circuit.unit}_by_layer"] = circuit.by_layer
    return {
        **heading(settings, command, circuit.graph),
        "result": {
            **({} if circuit.unit == "edges" else sizes),
            "n_edges": shown.n_edges,
            "n_edges_connected": shown.n_edges_connected,
            "n_graph_edges": circuit.graph.n_edges,
            "metric": outcome.metric,
            "metric_in_search": found.metric,
            "metric_full": found.metric_full,
            "metric_ablated": found.metric_ablated,
            "recovered": outcome.recovered,
            "accuracy": outcome.accuracy,
            "accuracy_full": accuracy,
            "known_circuit": None if known is None else asdict(known.compare(circuit)),
            "groups": [asdict(one) for one in groups] or None,
            "tests": found.tests,
            "seconds": round(found.seconds, 3),
            "tried": [{"threshold": threshold, f"n_{circuit.unit}": size} for threshold, size in found.tried],
            "passes": [{"tests": tests, f"n_{circuit.unit}": size} for tests, size in found.passes],
        },
        "versions": versions(model),
    }


def heading(settings: dict[str, Any], command: Sequence[str] | None, graph: Graph) -> dict[str, Any]:
    """What `run.json` says first: what was asked for, when, and over which graph."""
    return {
        "form": FORM,
        "finished": True,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command) if command is not None else None,
        "settings": settings,
        "graph": asdict(graph),
    }


def kept_prompts(task: Task) -> dict[str, str]:
    """The file of a user's own prompts, by its name; no file for others."""
    return {"prompts.jsonl": to_jsonl(task.text)} if _keeps(task) else {}


def _keeps(task: Task) -> bool:
    """Whether the prompts are a user's own, and are kept with the run."""
    return "sha256" in task.settings
