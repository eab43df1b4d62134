"""Many searches, each in a run folder of its own: one after another, or side by side on many machines by Ray.

A folder keeps what was asked for (batch.json) and how each run ended (batch.csv, remade from the runs themselves). What
has ended there is not done again, and what was stopped goes on. A run is locked while it is searched, so that several
drivers may share the work of one folder.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgewise.errors import EdgewiseError, quoted
from edgewise.files import read_text, write_text
from edgewise.models import Decoder
from edgewise.patching import OutOfMemoryError
from edgewise.runs.cluster import Cluster, Lost
from edgewise.runs.folder import InUseError, RunFolder, lock, remove_leftovers
from edgewise.runs.jobs import Job
from edgewise.runs.reading import read_record
from edgewise.runs.request import ModelRequest, Request
from edgewise.runs.resuming import resume
from edgewise.runs.run import RunInterrupted
from edgewise.runs.search import kept, run_search

ASKED, TABLE = "batch.json", "batch.csv"
MARKS = (ASKED,)
"""What a folder of a batch has."""

How = Literal["done", "resumed", "there", "elsewhere", "failed"]
"""Searched now; gone on with; there already; searched by another process just now; or not to be had."""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        name: the run's.
        how: what was done.
        why: it failed, or is somebody else's.
        seconds: that this took.
    """

    name: str
    how: How
    why: str = ""
    seconds: float = 0.0


def ask(folder: Path, jobs: Sequence[Job]) -> None:
    """Keep what was asked for. Runs of before may be left out or joined by others, but not be asked for differently.

    Raises:
        EdgewiseError: a run of that name was asked for with other settings, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".batch.lock", wait=True):
        path = folder / ASKED
        before: dict[str, Any] = {}
        if path.exists():
            try:
                before = dict(json.loads(read_text(path, "the batch's record"))["runs"])
            except (ValueError, KeyError, TypeError) as error:
                raise EdgewiseError(f"the batch's record {str(path)!r} is broken: {error}") from None
        now = {job.name: json.loads(json.dumps(dict(job.given))) for job in jobs}
        for name, given in now.items():
            if name in before and before[name] != given:
                changed = sorted(
                    one for one in {*before[name], *given} if before[name].get(one, _NO) != given.get(one, _NO)
                )
                raise EdgewiseError(
                    f"run {quoted(name)} in {str(folder)!r} was asked for with another {' and '.join(changed)}; give "
                    "it another name, or the batch another folder (--out)"
                )
        write_text(path, json.dumps({"runs": {**before, **now}}, indent=2) + "\n")


_NO = object()


@contextlib.contextmanager
def _alone(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file; what it protects is this process's alone, or an InUseError."""
    with path.open("wb") as file:
        while True:
            try:
                lock(file, path)
                break
            except InUseError:
                if not wait:
                    raise
                time.sleep(0.05)
        yield


def run_job(job: Job, folder: Path) -> Ended:
    """Make one run of a batch, or go on with it, or leave it as it is.

    Raises nothing that the run's settings are to blame for: that is told in what is returned.
    """
    locked, started, why = folder / f".{job.name}.lock", time.perf_counter(), ""
    try:
        with _alone(locked):
            how: How = _search(job, folder / job.name)
    except InUseError as error:
        how, why = "elsewhere", str(error)
    except EdgewiseError as error:
        how, why = "failed", str(error)
    except RunInterrupted as stop:
        if not isinstance(stop.__cause__, OutOfMemoryError):
            raise
        how, why = "failed", str(stop)
    else:
        with contextlib.suppress(OSError):
            locked.unlink()
    return Ended(job.name, how, why, time.perf_counter() - started)


def _search(job: Job, path: Path) -> How:
    if (path / "run.json").exists():
        if read_record(path).get("finished", True):
            return "there"
        resume(path)
        return "resumed"
    asked = job.request
    model = _model(asked)
    task = asked.task.load(model, asked.search.ablation or "resample")
    remove_leftovers(path)
    command = ["edgewise", "batch", job.name]
    with RunFolder.claim(path) as claimed:
        kept(claimed, lambda: run_search(model, task, asked.search, command=command, folder=claimed))
    return "done"


_LOADED: dict[tuple[ModelRequest, str], Decoder] = {}


def _model(asked: Request) -> Decoder:
    """The model of a run; the one before it stays if it is the same."""
    spec = asked.check()
    key = (asked.model, asked.task.task if asked.model.model is None else "")
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = asked.model.load(spec, asked.task.variant)
    return _LOADED[key]


def one_by_one(jobs: Sequence[Job], folder: Path, retries: int = 0) -> Iterator[Ended]:
    """Make the runs in this process. One that fails for no fault of its settings is tried so many times more."""
    for job in jobs:
        for left in reversed(range(retries + 1)):
            try:
                yield run_job(job, folder)
                break
            except Exception as error:  # whatever happens to one, the others are made
                _LOADED.clear()
                if not left:
                    yield Ended(job.name, "failed", f"{type(error).__name__}: {error}")


def by_ray(jobs: Sequence[Job], folder: Path, cluster: Cluster) -> Iterator[Ended]:
    """Make the runs as tasks of Ray, which gives them out, and tries those again whose worker died.

    The folder has to be one that every machine of the cluster sees under the same path. In Ray's dashboard a run has
    its own name.

    Raises:
        EdgewiseError: there is no cluster at that address, or a run has workers of its own.
    """
    for job in jobs:
        if job.request.search.cluster() is not None:
            raise EdgewiseError(
                f"run {quoted(job.name)} asks for workers of its own; runs that are made side by side have none, or "
                "leave out --workers and --ray"
            )
    with cluster.joined() as joined:
        for job in jobs:
            joined.start(job.name, job.name, run_job, job, folder.absolute())
        while joined.under_way:
            name, ended = joined.next()
            yield Ended(name, "failed", ended.why) if isinstance(ended, Lost) else ended


def table(came: Mapping[str, Mapping[str, Any]]) -> str:
    """What has come of each run (`summary`), by its name, as CSV."""
    written = io.StringIO()
    rows = csv.DictWriter(written, ["run", "finished", "edges", "metric", "value", "recovered", "tests", "seconds"])
    rows.writeheader()
    for name, one in came.items():
        rows.writerow({"run": name, **one})
    return written.getvalue()


def summary(path: Path) -> Mapping[str, Any]:
    """What one run has come to: whether it has ended, its edges, metric and seconds."""
    if not (path / "run.json").exists():
        return {"finished": "no"}
    record = read_record(path)
    if not record.get("finished", True):
        return {"finished": "no"}
    result = record["result"]
    return {
        "finished": "yes",
        "edges": result["n_edges"],
        "metric": record["settings"]["metric"],
        "value": result["metric"],
        "recovered": result["recovered"],
        "tests": result["tests"],
        "seconds": result["seconds"],
    }
