"""Would the same search find the same circuit again? From other examples, and in another order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from edgewise.discovery import OrderMode
from edgewise.errors import EdgewiseError
from edgewise.evaluation import mean_jaccard
from edgewise.evaluation.bootstrap import jaccard
from edgewise.evaluation.random_circuits import chosen_of, parts_of
from edgewise.graph import Circuit
from edgewise.models import Decoder
from edgewise.runs.cluster import Cluster, Packed, come_in, unpacked
from edgewise.runs.request import SearchRequest
from edgewise.runs.search import discover
from edgewise.tasks import Task

STABLE, STABLE_TIMES = 0.8, 100
"""The mean overlap of two, over as many samples, that Meloux et al. 2025 ask of a stable method."""


@dataclass(frozen=True)
class Stability:
    """Circuits found by one search again and again.

    Attributes:
        what: what changed from one to the next: `examples` or `order`.
        circuits: all of them.
        jaccard: the mean over pairs of |A and B| / |A or B| of their edges (nodes, of circuits of whole nodes).
        with_first: the same between each of them and the circuit that is looked into.
        common, union: how many edges (nodes) are in all of them, and in any.
        frequencies: edges (nodes) by the share of circuits that have them, the most frequent first.
    """

    what: str
    circuits: tuple[Circuit, ...]
    jaccard: float
    with_first: tuple[float, ...]
    common: int
    union: int
    frequencies: tuple[tuple[str, float], ...]


def by_examples(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    search: SearchRequest,
    *,
    times: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    cluster: Cluster | None = None,
) -> Stability:
    """Search again in bootstrap samples of the task's examples.

    Args:
        circuit: the one to look into.
        search: what it was found with.
        times: how many samples.
        cluster: where searches are made side by side.

    Raises:
        EdgewiseError: fewer than 2 times or examples, or whatever `discover` raises.
    """
    require_times(times)
    require_examples(task)
    searches = ((task.resampled(seed + number), search) for number in range(times))
    return compare_all("examples", circuit, [one for one, _ in search_again(model, searches, times, progress, cluster)])


def by_order(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    search: SearchRequest,
    *,
    times: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    cluster: Cluster | None = None,
) -> Stability:
    """Search again with ACDC in the paper's other orders of layers and heads, then in shuffled ones.

    Raises:
        EdgewiseError: the method is not ACDC, fewer than 2 times, or whatever `discover` raises.
    """
    require_times(times)
    if search.method != "acdc":
        raise EdgewiseError(f"only ACDC depends on an order of edges; the run used {search.method!r}")
    straight: tuple[OrderMode, ...] = ("normal", "reverse")
    modes: list[tuple[OrderMode, OrderMode]] = [(layers, heads) for layers in straight for heads in straight]
    modes = [mode for mode in modes if mode != (search.layer_order, search.head_order)]
    modes.extend(("shuffle", "shuffle") for _ in range(times - len(modes)))
    searches = (
        (task, replace(search, layer_order=layers, head_order=heads, seed=seed + number))
        for number, (layers, heads) in enumerate(modes[:times])
    )
    return compare_all("order", circuit, [one for one, _ in search_again(model, searches, times, progress, cluster)])


def search_again(
    model: Decoder,
    searches: Iterable[tuple[Task, SearchRequest]],
    times: int,
    progress: Callable[[int, int], None] | None = None,
    cluster: Cluster | None = None,
) -> list[tuple[Circuit, float]]:
    """What each of some searches finds, and its metric, in their order; with a cluster, made side by side."""
    if cluster is not None:
        cluster.require_reach(model.device)
        with cluster.joined() as joined:
            shared, by_number = joined.share(model), dict[int, tuple[Circuit, float]]()
            for number, (task, search) in enumerate(searches):
                joined.start(
                    number, f"{task.name}-{search.method}-again-{number + 1}", _found_there, shared, task, search
                )
            for number, one in come_in(joined):
                by_number[number] = one
                if progress is not None:
                    progress(len(by_number), times)
        return [by_number[number] for number in range(times)]
    found = []
    for task, search in searches:
        found.append(_found(model, task, search))
        if progress is not None:
            progress(len(found), times)
    return found


def _found(model: Decoder, task: Task, search: SearchRequest) -> tuple[Circuit, float]:
    run = discover(model, task, request=search)
    return run.circuit, run.metric


def _found_there(model: Packed, task: Task, search: SearchRequest) -> tuple[Circuit, float]:
    """The same in a worker."""
    return _found(unpacked(model, keep=True), task, search)


def compare_all(what: str, circuit: Circuit, found: list[Circuit]) -> Stability:
    """How far circuits agree with each other and with one of them all."""
    sets = [chosen_of(one) for one in found]
    counts = Counter(name for one in found for name in parts_of(one))
    every = np.stack(sets)
    mean = mean_jaccard(sets)
    return Stability(
        what=what,
        circuits=tuple(found),
        jaccard=1.0 if mean is None else mean,
        with_first=tuple(jaccard(one, chosen_of(circuit)) for one in sets),
        common=int(every.all(axis=0).sum()),
        union=int(every.any(axis=0).sum()),
        frequencies=tuple((name, count / len(found)) for name, count in counts.most_common()),
    )


def require_examples(task: Task) -> None:
    """Raise an EdgewiseError if there is one example, from which none can be drawn."""
    if len(task) < 2:
        raise EdgewiseError(f"examples can only be drawn anew where there are at least 2; task {task.name!r} has 1")


def require_times(times: int) -> None:
    """Raise an EdgewiseError if a search is not made again often enough to be compared."""
    if times < 2:
        raise EdgewiseError(f"a search should be made again at least 2 times to be compared, not {times}")
