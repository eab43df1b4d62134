"""The MIB benchmark's circuit track: attribution on the train split, files as it takes them, and its scores.

What is done is kept in a folder, and not done again:

    circuits/METHOD_ABLATION_LEVEL/CELL/importances.json  as the benchmark's code has them: a submission per method
    attribution/METHOD_ABLATION_LEVEL/CELL.json           how they were made
    scores/METHOD_ABLATION_LEVEL/CELL_SPLIT_SELECT.jsonl  what was measured, a line for every piece of the prompts

What is scored is what the file has.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from edgewise.discovery import METHODS, RANDOM, method_named, require_level
from edgewise.errors import EdgewiseError, check_seed, first_line, unknown
from edgewise.evaluation.mib import METRIC, MibRoc, MibScores, MibSelection, mib_auroc, mib_scores, pieces_of
from edgewise.files import write_text
from edgewise.graph import Circuit, load_circuit, of_nodes
from edgewise.graph.by_node import Level
from edgewise.graph.eap_json import to_dict
from edgewise.json_files import part
from edgewise.models import Decoder, load_model
from edgewise.patching import Ablation, Experiment, plan_memory
from edgewise.runs.lines import LinesFile
from edgewise.runs.mib_cells import INTERP_BENCH, REFERENCE, Cell, cells_of, interp_bench_folder
from edgewise.runs.mib_export import in_benchmark_graph
from edgewise.tasks import Task
from edgewise.tasks.mib import SPLITS, MibRows, MibSplit, load_mib_task

FORM = 1
MARKS = ("circuits/*", "attribution/*", "scores/*")
GREEDY = ("information-flow",)
"""Methods whose circuits the benchmark grows from the logits."""
TARGET = 0.05
"""The share of edges (nodes) that edge pruning's masks are pressed to, which its scores are learned with."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and of how much."""


@dataclass(frozen=True)
class MibPlan:
    """What is asked for.

    Attributes:
        methods: those that score, by name or short name, or `random`.
        tasks, models: as `cells_of` takes them.
        split: on which circuits are scored.
        level: `edge` or `node`.
        ablation: what attribution is about; scores are always about the corrupted prompts.
        select: how circuits are cut; by default as the benchmark does: `greedy` for information flow routes, else
            `top`.
        train_examples: of the train split; by default as many as the benchmark takes of the task.
        examples: of the split; by default all.
        seed: of what methods draw.
        options: of the methods that take them.
        data: a folder with a folder for each dataset, instead of the hub.
        dtype: of all models; by default the benchmark's.
    """

    methods: tuple[str, ...] = ("edge-attribution-ig",)
    tasks: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    split: MibSplit = "validation"
    level: Level = "edge"
    ablation: str = "resample"
    select: MibSelection | None = None
    train_examples: int | None = None
    examples: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    device: str | None = None
    dtype: str | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(one if one == RANDOM else method_named(one) for one in self.methods))

    def check(self) -> None:
        """Refuse what no model is needed to refuse.

        Raises:
            EdgewiseError: an unknown name, a method that scores nothing, or an option that no method takes.
        """
        check_seed(self.seed)
        if not self.methods:
            raise EdgewiseError("there is nothing to run without a method")
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        if self.level not in ("edge", "node"):
            raise unknown("level of the benchmark's circuits", self.level, ("edge", "node"))
        if self.select is not None and self.select not in get_args(MibSelection):
            raise unknown("way to choose edges", self.select, get_args(MibSelection))
        if self.level == "node" and self.select not in (None, "top"):
            raise EdgewiseError(f"--select {self.select} chooses edges, and circuits are of nodes (--level node)")
        for what, count in (("--train-examples", self.train_examples), ("--examples", self.examples)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise EdgewiseError(f"{what} should be a whole number from 1, not {count}")
        for name in self.methods:
            if name == RANDOM:
                continue
            if METHODS[name].score is None:
                raise EdgewiseError(
                    f"method {name!r} decides about edges and ranks none, so the benchmark cannot score it"
                )
            require_level(name, self.level)
            METHODS[name].check(self._own(name))
        for name in self.options:
            if not any(name in METHODS[method].options for method in self.methods if method != RANDOM):
                raise EdgewiseError(f"none of the methods {', '.join(self.methods)} takes {name!r}")
        if self.data is not None and not self.data.expanduser().is_dir():
            raise EdgewiseError(f"there is no folder {str(self.data)!r} with the benchmark's data")

    def taken(self, method: str) -> dict[str, Any]:
        """What a method is called with, by name."""
        options = {} if method == RANDOM else METHODS[method].options
        return {
            **options,
            **({"seed": self.seed} if "seed" in options or method == RANDOM else {}),
            **self._own(method),
        }

    def _own(self, method: str) -> dict[str, Any]:
        takes = () if method == RANDOM else METHODS[method].options
        return {name: value for name, value in self.options.items() if name in takes}

    def selection(self, method: str) -> MibSelection:
        if self.select is not None:
            return self.select
        return "greedy" if method in GREEDY and self.level == "edge" else "top"

    def label(self, method: str) -> str:
        """The folder of a method's circuits, as the benchmark's code calls it."""
        return f"{method}_{'patching' if self.ablation == 'resample' else self.ablation}_{self.level}"


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


@dataclass(frozen=True)
class MibBoard:
    """The benchmark's table, as far as it could be run.

    Attributes:
        missing: method (empty: all of them), cell, and why it was left out.
    """

    split: str
    results: tuple[MibResult, ...]
    missing: tuple[tuple[str, str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_mib(
    folder: Path,
    plan: MibPlan,
    *,
    progress: Progress | None = None,
    began: Callable[[int, int, str], None] | None = None,
) -> MibBoard:
    """Attribute, write and score, cell by cell; a cell that cannot be run is left out, and says why.

    Args:
        folder: where everything is kept; what is there is not done again.
        began: called when a cell begins, with its number, how many there are, and its name.

    Raises:
        EdgewiseError: as `MibPlan.check` and `cells_of`, or a folder that holds what was made otherwise.
    """
    plan.check()
    cells, absent = cells_of(plan.tasks, plan.models)
    missing = [("", name, why) for name, why in absent]
    results: list[MibResult] = []
    number = itertools.count(1)
    begins = functools.cache(_begin)  # the hub is asked once for each dataset
    for _, group in itertools.groupby(cells, key=lambda cell: cell.model):
        model: Decoder | None = None
        for cell in group:
            if began is not None:
                began(next(number), len(cells), cell.name)
            try:
                rows = _Data.of(cell, plan)
                for one in rows.all:
                    if why := begins(one):
                        raise EdgewiseError(why)
                model = model or _load(cell, plan)
                train, test = rows.on(model, plan)
            except EdgewiseError as error:
                missing.append(("", cell.name, first_line(error)))
                continue
            for method in plan.methods:
                found = _Work(folder, plan, method, cell, model, train, test, progress).result()
                if isinstance(found, str):
                    missing.append((method, cell.name, found))
                else:
                    results.append(found)
    return MibBoard(plan.split, tuple(results), tuple(missing))


def _load(cell: Cell, plan: MibPlan) -> Decoder:
    source = interp_bench_folder(plan.data) if cell.source is None else cell.source
    dtype: Any = plan.dtype or cell.dtype  # checked by load_model
    return load_model(source, device=plan.device, dtype=dtype)


def _begin(rows: MibRows) -> str:
    """Why there is no first row, or nothing."""
    try:
        return "" if next(iter(rows), None) is not None else f"{rows.origin} has no rows"
    except EdgewiseError as error:
        return first_line(error)


@dataclass(frozen=True)
class _Data:
    """The rows of a cell, found before its model is loaded; InterpBench's scores need none."""

    train: MibRows
    test: MibRows | None
    examples: int | None

    @classmethod
    def of(cls, cell: Cell, plan: MibPlan) -> _Data:
        needed = cell.model != INTERP_BENCH
        train = MibRows.of(cell.task, "train", plan.data)
        test = MibRows.of(cell.task, plan.split, plan.data) if needed else None
        examples = cell.task.train_examples if plan.train_examples is None else plan.train_examples
        return cls(train, test, examples)

    @property
    def all(self) -> list[MibRows]:
        return [rows for rows in (self.train, self.test) if rows is not None]

    def on(self, model: Decoder, plan: MibPlan) -> tuple[Task, Task | None]:
        train = load_mib_task(self.train, model, self.examples)
        return train, None if self.test is None else load_mib_task(self.test, model, plan.examples)


@dataclass
class _Work:
    """One method in one cell."""

    folder: Path
    plan: MibPlan
    method: str
    cell: Cell
    model: Decoder
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
            "model": {"dtype": self.model.dtype_name, "fingerprint": self.model.fingerprint()},
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
        path = Path(self.cell.source or interp_bench_folder(self.plan.data)) / REFERENCE
        reference = load_circuit(path)
        return mib_auroc(circuit, reference)

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
        earlier = [part(line, "measured", list, lines.named) for line in _after_first(lines)]
        started = time.perf_counter()

        def measured(row: Sequence[float]) -> None:
            nonlocal started
            now = time.perf_counter()
            lines.append({"measured": list(row), "seconds": round(now - started, 3)})
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
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _random(full: Circuit, level: str, seed: int) -> Circuit:
    """Importances drawn evenly from -1 to 1, the benchmark's own control."""
    generator = np.random.default_rng(seed)
    if level == "node":
        count = len(full.graph.sources)
        return of_nodes(full.graph, np.ones(count, dtype=bool), generator.uniform(-1, 1, count))
    return full.with_scores(np.where(full.graph.edges, generator.uniform(-1, 1, full.graph.edges.shape), 0.0))
