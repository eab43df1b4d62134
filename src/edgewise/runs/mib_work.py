"""One method in one cell of the MIB benchmark: attributed, written, scored, and gone on with where it was stopped.

What is scored is what the file of importances has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.discovery import METHODS, RANDOM
from edgewise.errors import EdgewiseError, first_line
from edgewise.evaluation.mib import METRIC, MibRoc, MibScores, MibSelection, mib_auroc, mib_scores, pieces_of
from edgewise.files import read_bytes, write_text
from edgewise.graph import Circuit, load_circuit, of_nodes
from edgewise.graph.eap_json import to_dict
from edgewise.json_files import part
from edgewise.models import Decoder
from edgewise.patching import Ablation, Experiment, plan_memory
from edgewise.runs.lines import LinesFile
from edgewise.runs.mib_cells import INTERP_BENCH, REFERENCE, Cell
from edgewise.runs.mib_export import in_benchmark_graph
from edgewise.runs.mib_plan import MibPlan
from edgewise.tasks import Task
from edgewise.tasks.jsonl import digest

FORM = 1
TARGET = 0.05
"""The share of edges (nodes) that edge pruning's masks are pressed to, which its scores are learned with."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and of how much."""


@dataclass(frozen=True)
class MibResult:
    """What one method came to in one cell.

    Attributes:
        cell, title: its name, and in words.
        official: whether the benchmark has such a cell.
        scores: CPR and CMD; None of InterpBench's model.
        roc: AUROC of the edges against the reference circuit; None of all other models.
        train, scored_on: of the prompts that were attributed and scored on, how many there are and how many were left
            out, by why (`Task.settings`); None where none are needed.
        file: with the importances.
        seconds: that attribution and scoring took.
    """

    method: str
    level: str
    ablation: str
    select: str
    cell: str
    title: str
    official: bool
    model: str
    dtype: str
    split: str
    scores: MibScores | None
    roc: MibRoc | None
    train: Mapping[str, Any]
    scored_on: Mapping[str, Any] | None
    file: str
    seconds: tuple[float, float]


@dataclass
class CellWork:
    """One method in one cell.

    Attributes:
        fingerprint: the model's.
    """

    folder: Path
    plan: MibPlan
    method: str
    cell: Cell
    model: Decoder
    fingerprint: str
    train: Task
    test: Task | None
    progress: Progress | None

    def result(self) -> MibResult | str:
        """What it comes to, or why it does not."""
        plan, cell = self.plan, self.cell
        if cell.model == INTERP_BENCH and plan.level == "node":
            return "the benchmark's AUROC is about edges, not nodes"
        kept = self._kept()
        try:
            seconds = self._attribute() if kept is None else kept
        except EdgewiseError as error:
            return first_line(error)
        select = plan.selection(self.method)
        circuit = load_circuit(self.file)
        started = time.perf_counter()
        roc, scores, earlier = None, None, 0.0
        if self.test is None:
            try:
                roc = self._against_reference(circuit)
            except EdgewiseError as error:
                return first_line(error)
        else:
            lines = self._lines(select, circuit)
            earlier = sum(part(line, "seconds", float, lines.named) for line in _after_first(lines))
            try:
                scores = self._score(circuit, select, lines)
            except EdgewiseError as error:
                return first_line(error)
        return MibResult(
            method=self.method,
            level=plan.level,
            ablation=plan.ablation,
            select=select,
            cell=cell.name,
            title=cell.title,
            official=cell.official,
            model=self.model.name,
            dtype=self.model.dtype_name,
            split=plan.split,
            scores=scores,
            roc=roc,
            train=dict(self.train.settings),
            scored_on=None if self.test is None else dict(self.test.settings),
            file=str(self.file),
            seconds=(seconds, earlier + time.perf_counter() - started),
        )

    @property
    def file(self) -> Path:
        return self.folder / "circuits" / self.plan.label(self.method) / self.cell.name / "importances.json"

    @property
    def record(self) -> Path:
        return self.folder / "attribution" / self.plan.label(self.method) / f"{self.cell.name}.json"

    @property
    def about(self) -> dict[str, Any]:
        """What makes importances what they are, as JSON has it."""
        about = {
            "form": FORM,
            "method": self.method,
            "options": self.plan.taken(self.method),
            "metric": METRIC,
            "model": {"dtype": self.model.dtype_name, "fingerprint": self.fingerprint},
            "prompts": dict(self.train.settings),
        }
        return json.loads(json.dumps(about))

    def _kept(self) -> float | None:
        """How long attribution took whose importances are there; None where it has not been made.

        Raises:
            EdgewiseError: it was made otherwise, or the importances are not what it gave.
        """
        found = LinesFile(self.record, "the attribution")
        if found.lines is None:
            return None
        line = found.lines[0][1] if found.lines else {}
        found.require({key: value for key, value in line.items() if key not in ("sha256", "seconds")}, self.about)
        if not self.file.is_file() or _digest(self.file) != line.get("sha256"):
            raise EdgewiseError(f"{str(self.file)!r} is not what {found.named} says; remove both to make them again")
        return float(part(line, "seconds", float, found.named))

    def _attribute(self) -> float:
        """Score all edges (nodes) and write that down. Returns how long it took, in seconds."""
        started = time.perf_counter()
        circuit = in_benchmark_graph(self._importances())
        for path in (self.file, self.record):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps(to_dict(circuit)))
        seconds = time.perf_counter() - started
        LinesFile(self.record, "the attribution").begin(
            {**self.about, "sha256": _digest(self.file), "seconds": round(seconds, 3)}
        )
        return seconds

    def _importances(self) -> Circuit:
        plan, model = self.plan, self.model
        graph = model.graph(ports=False, ungroup=True)
        options = plan.taken(self.method)
        if self.method == RANDOM:
            return _random(Circuit.full(graph), plan.level, options["seed"])
        method = METHODS[self.method]
        if options.get("target", 0) is None:
            count = len(graph.sources) if plan.level == "node" else graph.n_edges
            options["target"] = max(2, round(TARGET * count))
        ablation = Ablation.of(plan.ablation)
        kind = method.memory_for(plan.level)
        plan_memory(model, self.train, graph, plan.max_memory, kind, ablation)  # before anything is recorded
        experiment = Experiment(
            model, self.train, metric=METRIC, ablation=ablation, graph=graph, max_memory=plan.max_memory
        )
        found = method.scores(
            experiment,
            level=plan.level,
            max_memory=plan.max_memory,
            progress=self._told(f"{self.method}, {method.counts}"),
            **options,
        )
        return found.circuit

    def _against_reference(self, circuit: Circuit) -> MibRoc:
        return mib_auroc(circuit, load_circuit(Path(self.cell.place(self.plan.data)) / REFERENCE))

    def _lines(self, select: str, circuit: Circuit) -> LinesFile:
        """The file with what was measured, begun if it was not there.

        Raises:
            EdgewiseError: it is about other importances, prompts or pieces of them.
        """
        assert self.test is not None
        about = {
            "form": FORM,
            "select": select,
            "importances": _digest(self.file),
            "model": self.about["model"],
            "prompts": dict(self.test.settings),
            "pieces": [list(one) for one in pieces_of(self.model, self.test, circuit, self.plan.max_memory)],
        }
        name = f"{self.cell.name}_{self.plan.split}_{select}.jsonl"
        path = self.folder / "scores" / self.plan.label(self.method) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found = LinesFile(path, "the list of scores")
        if found.lines:
            found.require(found.lines[0][1], about)
        else:
            found.begin(about)
        return found

    def _score(self, circuit: Circuit, select: MibSelection, lines: LinesFile) -> MibScores:
        assert self.test is not None
        earlier = [float(part(line, "measured", float, lines.named)) for line in _after_first(lines)]
        started = time.perf_counter()

        def measured(value: float) -> None:
            nonlocal started
            now = time.perf_counter()
            lines.append({"measured": value, "seconds": round(now - started, 3)})
            started = now

        return mib_scores(
            self.model,
            self.test,
            circuit,
            select=select,
            max_memory=self.plan.max_memory,
            earlier=earlier,
            measured=measured,
            progress=self._told(f"{self.method}, circuits on {self.plan.split} prompts"),
        )

    def _told(self, what: str) -> Callable[[int, int], None] | None:
        if self.progress is None:
            return None
        progress = self.progress
        return lambda done, of: progress(f"{self.cell.name}: {what}", done, of)


def _after_first(lines: LinesFile) -> Iterator[dict[str, Any]]:
    return (line for _, line in (lines.lines or [])[1:])


def _digest(path: Path) -> str:
    return digest(read_bytes(path, "the importances"))


def _random(full: Circuit, level: str, seed: int) -> Circuit:
    """Importances drawn evenly from -1 to 1, the benchmark's own control."""
    generator = np.random.default_rng(seed)
    if level == "node":
        count = len(full.graph.sources)
        return of_nodes(full.graph, np.ones(count, dtype=bool), generator.uniform(-1, 1, count))
    return full.with_scores(np.where(full.graph.edges, generator.uniform(-1, 1, full.graph.edges.shape), 0.0))
