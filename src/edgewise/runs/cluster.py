"""Where work is made side by side: by Ray, on this machine or on a cluster that it joins.

Ray gives the work out and tries what was lost again. What is here is what edgewise asks of it: a cluster to work on,
objects that workers share, tasks with names that people recognise, and errors in a user's words.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from edgewise.errors import EdgewiseError, first_line


@dataclass(frozen=True)
class Cluster:
    """Where work is made side by side.

    Attributes:
        workers: at a time where Ray is started here; where it is joined, as many as it has room for.
        address: of a Ray cluster to join, `auto` for the one that this machine belongs to; None starts Ray here.
        cpus, gpus: that a worker takes; a part of a GPU lets several share it.
        retries: how often work is tried again whose worker died, or which failed for no fault of its settings.
    """

    workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 2

    @classmethod
    def asked(cls, workers: int | None, address: str | None, cpus: float = 1.0, gpus: float = 0.0) -> Self | None:
        """What is asked for; None where no workers are.

        Raises:
            EdgewiseError: as `check`.
        """
        if workers is None and address is None:
            if (cpus, gpus) != (1.0, 0.0):
                raise EdgewiseError("--cpus and --gpus are about workers: say how many with --workers")
            return None
        cluster = cls(workers, address, cpus, gpus)
        cluster.check()
        return cluster

    def check(self) -> None:
        """Refuse what Ray could not be asked for.

        Raises:
            EdgewiseError: a number that is none, or Ray is not installed.
        """
        if self.workers is not None and self.workers < 1:
            raise EdgewiseError(f"--workers should be at least 1, not {self.workers}")
        if not (0 < self.cpus < math.inf and 0 <= self.gpus < math.inf):
            raise EdgewiseError(
                f"a worker takes more than 0 CPUs and 0 or more GPUs, not {self.cpus:g} and {self.gpus:g}"
            )
        if self.retries < 0:
            raise EdgewiseError(f"--retries should be 0 or more, not {self.retries}")
        require_ray()

    def require_reach(self, device: torch.device) -> None:
        """Raise an EdgewiseError if a model is on a GPU and workers would have none."""
        if device.type != "cpu" and not self.gpus:
            raise EdgewiseError(
                f"the model is on {device} and workers have no GPU: give each one, or a part of it, as in --gpus 0.5, "
                "or use --device cpu"
            )

    @property
    def resources(self) -> dict[str, float]:
        """What a worker takes, as Ray is asked for it."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    @contextlib.contextmanager
    def joined(self) -> Iterator[Joined]:
        """The cluster, started or joined; what this process started or joined, it leaves at the end.

        Raises:
            EdgewiseError: Ray does not start, there is no cluster at the address, or it has no room for one worker.
        """
        ray = require_ray()
        own = not ray.is_initialized()  # a session of Ray that the caller has is used, and left as it is
        if own:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self.address is not None:
                options["address"] = self.address
            else:
                options["num_cpus"] = math.ceil((self.workers or 1) * self.cpus)
            try:
                with _handlers_kept():
                    ray.init(**options)
            except Exception as error:  # Ray raises nothing narrower where a node is too slow to start
                what = "Ray did not start" if self.address is None else f"no Ray cluster at {self.address!r}"
                raise EdgewiseError(f"{what}: {first_line(error)}") from None
        try:
            yield Joined(ray, self)
        finally:
            if own:
                ray.shutdown()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Within it signals may get other handlers, as from Ray, whose SIGTERM ends a process where it stands."""
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ours.items():
                if handler is not None:  # one that C code had set, which Python cannot set again
                    signal.signal(number, handler)


def require_ray() -> Any:
    """Ray itself.

    Raises:
        EdgewiseError: it is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise EdgewiseError(
            "several workers need Ray, which is not installed: pip install 'edgewise[ray]'; without --workers and "
            "--ray everything is done in this process, one after another"
        ) from None
    return ray


@dataclass(frozen=True)
class Packed:
    """An object as workers share it: written once, with each tensor's memory once, however many tensors look into it.

    Attributes:
        data: bytes.
        key: tells it from others in this cluster.
    """

    data: np.ndarray
    key: str


def pack(value: Any, key: str = "") -> Packed:
    """An object for `unpacked`, wherever its classes and functions were defined."""
    ray, file = require_ray(), io.BytesIO()
    torch.save(value, file, pickle_module=ray.cloudpickle)
    return Packed(np.frombuffer(file.getvalue(), dtype=np.uint8), key)


_UNPACKED: dict[str, Any] = {}


def unpacked(packed: Packed, *, keep: bool = False) -> Any:
    """What was packed; tensors of a GPU are on the one that this process was given.

    Args:
        keep: until something else is kept, so that a process which is asked again has it.

    Raises:
        EdgewiseError: this process cannot make it.
    """
    if keep and packed.key in _UNPACKED:
        return _UNPACKED[packed.key]
    _UNPACKED.clear()

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else storage.cuda()

    try:
        value = torch.load(io.BytesIO(packed.data.tobytes()), map_location=place, weights_only=False)
    except (ImportError, AttributeError) as error:
        raise EdgewiseError(f"a worker lacks what the search uses: {error}; install it there, too") from None
    if keep:
        _UNPACKED[packed.key] = value
    return value


class Joined:
    """A cluster that work can be given to."""

    def __init__(self, ray: Any, cluster: Cluster) -> None:
        """
        Raises:
            EdgewiseError: it has no room for one worker.
        """
        self.ray, self.cluster = ray, cluster
        self._here = str(Path.cwd())
        self._under_way: dict[Any, Any] = {}
        has = ray.cluster_resources()
        room = [has.get("CPU", 0.0) / cluster.cpus]
        if cluster.gpus:
            room.append(has.get("GPU", 0.0) / cluster.gpus)
        self.room = int(min(room) + 1e-9)
        """How many workers it has room for."""
        if self.room < (wanted := 1 if cluster.address is not None else cluster.workers or 1):
            raise EdgewiseError(
                f"{wanted} workers of {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs do not fit: there are "
                f"{has.get('CPU', 0.0):g} CPUs and {has.get('GPU', 0.0):g} GPUs"
            )

    @property
    def workers(self) -> int:
        """How many things are best under way at once."""
        return min(self.room, self.cluster.workers or self.room)

    @property
    def threads(self) -> int:
        return max(1, int(self.cluster.cpus))

    def share(self, value: Any) -> Any:
        """An object for all tasks: an argument of `start` that arrives as `Packed`."""
        return self.ray.put(pack(value, os.urandom(8).hex()))

    def start(self, key: Any, name: str, work: Callable[..., Any], *given: Any) -> None:
        """Give out `work(*given)`, which Ray's dashboard shows by its name."""
        task = self.ray.remote(_at_work).options(
            name=name, max_retries=self.cluster.retries, retry_exceptions=True, **self.cluster.resources
        )
        self._under_way[task.remote(self._here, self.threads, work, *given)] = key

    @property
    def under_way(self) -> list[Any]:
        """The keys of what has been given out and has not come back."""
        return list(self._under_way.values())

    def next(self) -> tuple[Any, Any]:
        """The key of what comes back next, and what it came to: a `Lost` where it failed every time."""
        (ready,), _ = self.ray.wait(list(self._under_way), num_returns=1)
        key = self._under_way.pop(ready)
        try:
            return key, self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            return key, Lost(why_of(error))


@dataclass(frozen=True)
class Lost:
    """Work that came to nothing, and why."""

    why: str


def why_of(error: BaseException) -> str:
    """What an error of Ray's comes down to, in a line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def come_next(joined: Joined) -> tuple[Any, Any]:
    """The key of what comes back next, and what it came to.

    Raises:
        EdgewiseError: it failed.
    """
    key, value = joined.next()
    if isinstance(value, Lost):
        raise EdgewiseError(value.why)
    return key, value


def come_in(joined: Joined) -> Iterator[tuple[Any, Any]]:
    """Everything that is under way, as it comes back.

    Raises:
        EdgewiseError: some of it failed.
    """
    while joined.under_way:
        yield come_next(joined)


def _at_work(here: str, threads: int, work: Callable[..., Any], *given: Any) -> Any:
    """Work in a worker, where relative paths mean what they do to whoever asked."""
    at_home(here, threads)
    try:
        return work(*given)
    except EdgewiseError as error:  # would be no other the next time
        return Lost(str(error))
    except KeyboardInterrupt as stop:  # a search that has no memory left ends so
        return Lost(str(stop.__cause__ or stop) or "interrupted")


def at_home(here: str, threads: int) -> None:
    """Make this process one that works for another: in its folder, with so many threads."""
    torch.set_num_threads(threads)
    with contextlib.suppress(OSError):
        os.chdir(here)
