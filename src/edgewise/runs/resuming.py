"""Searches that go on where they were stopped."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.discovery import ProgressCallback
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.graph import Graph
from edgewise.models import Decoder
from edgewise.runs.bar import told
from edgewise.runs.constants import read_constants
from edgewise.runs.folder import RunFolder
from edgewise.runs.given import known_in
from edgewise.runs.loaded import load_again, load_run
from edgewise.runs.pruning import Stopped
from edgewise.runs.reading import read_record
from edgewise.runs.request import SearchRequest
from edgewise.runs.run import Run, versions
from edgewise.runs.search import kept, run_search
from edgewise.runs.search_request import Shard
from edgewise.runs.under_way import journal_of
from edgewise.tasks import Task


class Resumable:
    """A search in a run folder that was stopped: by a kill, Ctrl-C, the end of the power, or for want of memory.

    Its journal is this process's alone until it is closed.

    Attributes:
        folder: where it is, and where its end is to be written.
        record: what its `run.json` says.
        request: what was asked for.
    """

    def __init__(self, folder: Path, *, max_memory: int | None = None, **workers: Any) -> None:
        """
        Args:
            max_memory: by default as it was.
            workers: the request's fields about workers; by default there are none.

        Raises:
            EdgewiseError: it is no run folder, its search has ended, another process goes on with it, or it is none
                of ACDC.
        """
        self.record = read_record(folder)
        if self.record.get("finished", True):
            raise EdgewiseError(f"the search in {str(folder)!r} has ended; there is nothing to go on with")
        settings = self.record["settings"]
        self.request = SearchRequest.from_dict(settings)
        if self.request.method != "acdc":
            raise EdgewiseError(f"only searches of ACDC go on where they were stopped, not {self.request.method!r}")
        far: Mapping[str, Any] = self.record.get("under_way") or self.record.get("stopped") or {}
        limit = far.get("max_memory") if max_memory is None else max_memory
        known = known_in(folder, settings)
        self.request = replace(self.request, max_memory=limit, known=known, **workers)
        self.request.check()
        try:
            graph = Graph(**self.record["graph"])
        except (KeyError, TypeError) as error:
            raise EdgewiseError(f"the run record of {str(folder)!r} is broken: 'graph': {error}") from None
        self.folder = RunFolder.reopen(folder)
        self._journal = journal_of(folder, graph, settings)

    def __enter__(self) -> Resumable:
        return self

    def __exit__(self, *ended: object) -> None:
        self._journal.close()

    def load(self, device: str | None = None) -> tuple[Decoder, Task]:
        """Its model, by default on the device that it was on, and its task.

        Raises:
            EdgewiseError: they cannot be loaded, or have changed since.
        """
        settings, path = self.record["settings"], self.folder.path
        split, device = settings["task"].get("split", "validation"), device or settings["model"].get("device")
        return load_again(path, settings, split=split, device=device, searching=True)

    def require_same(self, model: Decoder) -> None:
        """Refuse a model that was not loaded by the record (`load` looks itself) and has other weights.

        Raises:
            EdgewiseError: it has.
        """
        if model.fingerprint() != self.record["settings"]["model"]["fingerprint"]:
            raise EdgewiseError(f"{model.name!r} is another model than the one that {str(self.folder.path)!r} is about")

    def search(self, model: Decoder, task: Task, progress: ProgressCallback | None = None) -> Run:
        """Go on with it; its end is the caller's to write.

        Raises:
            EdgewiseError: the model's graph is another one, or whatever `discover` raises.
            RunInterrupted: as `discover`.
        """
        graph = self.request.graph(model, task)
        if graph.shape != self._journal.graph.shape:
            raise EdgewiseError(f"the run record of {str(self.folder.path)!r} is broken: its graph is not the model's")
        then, now = self.record.get("versions") or {}, versions(model)
        changed = [f"{name} {then[name]}" for name in now if name in then and then[name] != now[name]]
        if changed:
            warnings.warn(
                f"the search was begun with {', '.join(changed)}; another version may round otherwise",
                EdgewiseWarning,
                stacklevel=2,
            )
        earlier = Stopped(self.record, self._journal)
        constants = read_constants(self.folder.path, self.record["settings"])
        return run_search(
            model, task, self.request, progress=progress, folder=self.folder, earlier=earlier, constants=constants
        )


def resume(
    folder: str | Path,
    *,
    model: Decoder | None = None,
    task: Task | None = None,
    device: str | None = None,
    max_memory: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    shard: Shard = "candidates",
    progress: ProgressCallback | bool | None = None,
) -> Run:
    """Go on with a search that was stopped, and write its end to its folder.

    What it had decided stands, but for an input that it was in the middle of. Circuit and trace are those of a search
    that was never stopped. Of a run that has ended, nothing is done again.

    Args:
        folder: that of a run which `discover` kept there (`out`), or the shell's.
        model, task: where they were made by hand; by default they are loaded as the record names them.
        device: by default the one that it was on.
        max_memory: by default as it was.
        workers, ray, cpus, gpus, shard: as of `discover`, whatever they were before.
        progress: called with a `Progress` as the search goes; True shows a bar, False nothing. By default there is a
            bar in notebooks alone.

    Raises:
        EdgewiseError: it is no run folder, another process goes on with it, model or prompts have changed, or whatever
            `discover` raises.
        RunInterrupted: as `discover`.
    """
    path = Path(folder).expanduser()
    if read_record(path).get("finished", True):
        return load_run(path)
    shared_out: dict[str, Any] = {"workers": workers, "ray": ray, "cpus": cpus, "gpus": gpus, "shard": shard}
    with Resumable(path, max_memory=max_memory, **shared_out) as stopped:
        if model is not None:
            stopped.require_same(model)
        if model is None or task is None:
            loaded = stopped.load(device)
            model, task = model or loaded[0], task or loaded[1]
        searched, on = model, task
        with told(progress, f"{stopped.request.method} on {on.name}") as tell:
            return kept(stopped.folder, lambda: stopped.search(searched, on, tell))
