"""The MIB benchmark's circuit track: attribution on the train split, files as it takes them, and its scores.

What is done is kept in a folder, and not done again:

    circuits/METHOD_ABLATION_LEVEL/CELL/importances.json  as the benchmark's code has them: a submission per method
    attribution/METHOD_ABLATION_LEVEL/CELL.json           how they were made
    scores/METHOD_ABLATION_LEVEL/CELL_SPLIT_SELECT.jsonl  what was measured, a line for every number
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, first_line
from edgewise.models import Decoder, load_model
from edgewise.runs.mib_cells import INTERP_BENCH, Cell, cells_of
from edgewise.runs.mib_plan import MibPlan
from edgewise.runs.mib_work import CellWork, MibResult, Progress
from edgewise.tasks import Task
from edgewise.tasks.mib import MibRows, load_mib_task

MARKS = ("circuits/*", "attribution/*", "scores/*")
"""Files that say of a folder that it is the benchmark's."""


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
        fingerprint = ""
        for cell in group:
            if began is not None:
                began(next(number), len(cells), cell.name)
            try:
                rows = _Data.of(cell, plan)
                for one in rows.all:
                    if why := begins(one):
                        raise EdgewiseError(why)
                if model is None:
                    model = _load(cell, plan)
                    fingerprint = model.fingerprint()  # a second per GB, once for all its methods and tasks
                train, test = rows.on(model, plan)
            except EdgewiseError as error:
                missing.append(("", cell.name, first_line(error)))
                continue
            for method in plan.methods:
                found = CellWork(folder, plan, method, cell, model, fingerprint, train, test, progress).result()
                if isinstance(found, str):
                    missing.append((method, cell.name, found))
                else:
                    results.append(found)
    return MibBoard(plan.split, tuple(results), tuple(missing))


def _load(cell: Cell, plan: MibPlan) -> Decoder:
    dtype: Any = plan.dtype or cell.dtype  # checked by load_model
    return load_model(cell.place(plan.data), device=plan.device, dtype=dtype)


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
