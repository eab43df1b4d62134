"""Ray's actors as the workers of one search (see `discovery/spread.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from edgewise.discovery.spread import PIECES, Answer, Answering, Question, Spread, WorkerDied, shards
from edgewise.errors import EdgewiseError, first_line
from edgewise.patching import Experiment
from edgewise.patching.memory import memory_of
from edgewise.runs.cluster import Cluster, Joined, Packed, at_home, unpacked


class SearchWorker:
    """A worker's process: the experiment, its model included, and the engine that answers."""

    def __init__(self, packed: Packed, here: str, threads: int, by_place: bool) -> None:
        at_home(here, threads)
        self.answering: Answering | None = None
        self.error: EdgewiseError | None = None
        try:
            self.answering = Answering(unpacked(packed), by_place=by_place)
        except EdgewiseError as error:
            self.error = error

    def answer(self, question: Question) -> Answer:
        if self.answering is None:
            assert self.error is not None
            return self.error
        return self.answering.answer(question)


class RayWorkers:
    """Workers of one search, each an actor of Ray's, called as `ioi-acdc-worker-2` in its dashboard."""

    def __init__(
        self, joined: Joined, experiments: Sequence[Experiment], places: Sequence[Tensor] | None, count: int
    ) -> None:
        """
        Args:
            experiments: one for all workers, or one for each.
        """
        self.joined, self.places = joined, places
        self.task = experiments[0].task.name
        packed = [joined.share(one) for one in experiments]
        self._packed = packed * count if len(packed) == 1 else packed
        self._hired = [0] * count
        self._actors: list[Any] = [self._hire(worker) for worker in range(count)]
        self._asked: list[Any] = [None] * count

    def _hire(self, worker: int) -> Any:
        self._hired[worker] += 1
        again = f"-again-{self._hired[worker]}" if self._hired[worker] > 1 else ""
        cluster = self.joined.cluster
        actor = self.joined.ray.remote(SearchWorker).options(
            name=f"{self.task}-acdc-worker-{worker + 1}{again}", max_restarts=0, **cluster.resources
        )
        return actor.remote(self._packed[worker], str(Path.cwd()), self.joined.threads, self.places is not None)

    def __len__(self) -> int:
        return len(self._actors)

    def ask(self, worker: int, question: Question) -> None:
        """See `discovery.spread.Workers`."""
        self._asked[worker] = self._actors[worker].answer.remote(question)

    def answer(self, worker: int) -> Answer:
        """See `discovery.spread.Workers`."""
        ray = self.joined.ray
        try:
            return ray.get(self._asked[worker])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise WorkerDied(first_line(error)) from None

    def replace(self, worker: int) -> None:
        """See `discovery.spread.Workers`."""
        with suppress(Exception):  # it may be alive, and out of reach
            self.joined.ray.kill(self._actors[worker])
        self._actors[worker] = self._hire(worker)

    def dismiss(self) -> None:
        """End all of them."""
        for actor in self._actors:
            with suppress(Exception):
                self.joined.ray.kill(actor)


@contextmanager
def spread_by_ray(
    experiment: Experiment, cluster: Cluster, *, engine: str = "incremental", shard: str = "candidates"
) -> Iterator[Spread]:
    """What makes engines over workers of Ray's for searches of one experiment, for `acdc(engine=...)`.

    Args:
        cluster: where; if it does not say how many workers, there are as many as have room, up to 8.
        engine: what each of them measures with.
        shard: what is shared out, `candidates` or `prompts`.

    Raises:
        EdgewiseError: there is no such cluster, no room in it, or what cannot be shared out so.
    """
    cluster.require_reach(experiment.decoder.device)
    with cluster.joined() as joined:
        count = cluster.workers or min(joined.room, PIECES)
        if count > joined.room:
            raise EdgewiseError(f"{count} workers do not fit; there is room for {joined.room}")
        experiments, places = ([experiment], None) if shard == "candidates" else shards(experiment, count)
        workers = RayWorkers(joined, experiments, places, count)
        limit = memory_of(experiment.decoder, experiment.task, experiment.graph).limit
        on_cpu = experiment.decoder.device.type == "cpu"
        share = min(1.0, cluster.gpus) if not on_cpu else 1.0 if cluster.address else 1 / count
        try:
            yield Spread(workers, engine, None if limit is None else int(limit * share))
        finally:
            workers.dismiss()
