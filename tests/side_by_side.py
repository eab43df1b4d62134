"""A cluster in this process: work is done when it is asked for, in an order of its own, and some workers die."""

from __future__ import annotations

import contextlib
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

from edgewise.runs.cluster import Cluster, Lost, _at_work


class Shared:
    """Stands for what is packed; a worker has an object of its own."""

    def __init__(self, value: Any) -> None:
        self.value = value


class JoinedHere:
    def __init__(self, cluster: ClusterHere) -> None:
        self.cluster, self.ray = cluster, None
        self.workers = self.room = cluster.workers or 1
        self.started: list[tuple[Any, str, Callable[..., Any], tuple[Any, ...]]] = []

    def share(self, value: Any) -> Shared:
        return Shared(value)

    def start(self, key: Any, name: str, work: Callable[..., Any], *given: Any) -> None:
        self.cluster.names.append(name)
        self.started.append((key, name, work, given))

    @property
    def under_way(self) -> list[Any]:
        return [key for key, *_ in self.started]

    def next(self) -> tuple[Any, Any]:
        key, _, work, given = self.started.pop(self.cluster.chance.randrange(len(self.started)))
        for _ in range(1 + self.cluster.retries):
            if self.cluster.chance.random() >= self.cluster.dies:
                came = _at_work(".", 1, work, *given)
                return key, came if isinstance(came, Lost) else pickle.loads(pickle.dumps(came))
        return key, Lost("its workers died")


class ClusterHere(Cluster):
    """As `Cluster`, without Ray; `names` has what has been given out, `dies` how likely a worker dies of it."""

    def __init__(self, workers: int, *, seed: int = 0, dies: float = 0.0) -> None:
        super().__init__(workers)
        vars(self).update(chance=random.Random(seed), names=[], dies=dies)

    chance: random.Random
    names: list[str]
    dies: float

    @contextlib.contextmanager
    def joined(self) -> Iterator[Any]:
        yield JoinedHere(self)
