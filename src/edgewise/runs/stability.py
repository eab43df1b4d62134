"""Would the same search find the same circuit again? From other examples, and in another order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.evaluation import mean_jaccard
from edgewise.evaluation.bootstrap import jaccard
from edgewise.graph import Circuit
from edgewise.models import Decoder
from edgewise.runs.run import discover
from edgewise.tasks import Task

STABLE, STABLE_TIMES = 0.8, 100
"""The mean overlap of two, over as many samples, that Meloux et al. 2025 ask of a stable method."""


@dataclass(frozen=True)
class Stability:
    """Circuits found by one search again and again.

    Attributes:
        what: what changed from one to the next: `examples` or `order`.
        circuits: all of them.
        jaccard: the mean over pairs of |A and B| / |A or B| of their edges.
        with_first: the same between each of them and the circuit that is looked into.
        common, union: how many edges are in all of them, and in any.
        frequencies: edges by the share of circuits that have them, the most frequent first.
    """

    what: str
    circuits: tuple[Circuit, ...]
    jaccard: float
    with_first: tuple[float, ...]
    common: int
    union: int
    frequencies: tuple[tuple[str, float], ...]


def search_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `discover` was given for a run, from its record, but for model and task.

    Raises:
        EdgewiseError: the run used a metric of the user's own.
    """
    from edgewise.tasks import METRICS

    if settings["metric"] not in METRICS:
        raise EdgewiseError(f"the run used a metric of its own, {settings['metric']!r}, so it cannot be searched again")
    own = {name: settings[name] for name in ("method", "ablation", "metric", "ports", "absolute", "engine")}
    own.update(layer_order=settings["layer_order"], head_order=settings["head_order"], seed=settings["order_seed"])
    if settings["edges"] is not None:
        own.update(edges=settings["edges"], select=settings.get("select") or "at-most")
    elif settings["threshold"] is not None:
        own["threshold"] = settings["threshold"]
    own["options"] = {
        name: value for name, value in settings["method_options"].items() if name not in ("seed", "target")
    }
    return own


def by_examples(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    settings: Mapping[str, Any],
    *,
    times: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Stability:
    """Search again in bootstrap samples of the task's examples.

    Args:
        circuit: the one to look into.
        settings: of the search, as `search_settings` gives them.
        times: how many samples.

    Raises:
        EdgewiseError: fewer than 2 times or examples, or whatever `discover` raises.
    """
    _require(times)
    if len(task) < 2:
        raise EdgewiseError(f"examples can only be drawn anew where there are at least 2; task {task.name!r} has 1")
    searches = ((task.resampled(seed + number), settings) for number in range(times))
    return compare_all("examples", circuit, _searched(model, searches, times, progress))


def by_order(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    settings: Mapping[str, Any],
    *,
    times: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Stability:
    """Search again with ACDC in the paper's other orders of layers and heads, then in shuffled ones.

    Raises:
        EdgewiseError: the method is not ACDC, fewer than 2 times, or whatever `discover` raises.
    """
    _require(times)
    if settings["method"] != "acdc":
        raise EdgewiseError(f"only ACDC depends on an order of edges; the run used {settings['method']!r}")
    own = (settings["layer_order"], settings["head_order"])
    modes = [(layers, heads) for layers in ("normal", "reverse") for heads in ("normal", "reverse")]
    modes = [mode for mode in modes if mode != own]
    modes += [("shuffle", "shuffle")] * (times - len(modes))
    searches = (
        (task, {**settings, "layer_order": layers, "head_order": heads, "seed": seed + number})
        for number, (layers, heads) in enumerate(modes[:times])
    )
    return compare_all("order", circuit, _searched(model, searches, times, progress))


def _searched(
    model: Decoder,
    searches: Iterable[tuple[Task, Mapping[str, Any]]],
    times: int,
    progress: Callable[[int, int], None] | None,
) -> list[Circuit]:
    found = []
    for task, settings in searches:
        found.append(discover(model, task, **settings).circuit)
        if progress is not None:
            progress(len(found), times)
    return found


def compare_all(what: str, circuit: Circuit, found: list[Circuit]) -> Stability:
    """How far circuits agree with each other and with one of them all."""
    sets = [one.present for one in found]
    counts = Counter(name for one in found for name in one.names())
    every = np.stack(sets)
    mean = mean_jaccard(sets)
    return Stability(
        what=what,
        circuits=tuple(found),
        jaccard=1.0 if mean is None else mean,
        with_first=tuple(jaccard(one, circuit.present) for one in sets),
        common=int(every.all(axis=0).sum()),
        union=int(every.any(axis=0).sum()),
        frequencies=tuple((name, count / len(found)) for name, count in counts.most_common()),
    )


def _require(times: int) -> None:
    if times < 2:
        raise EdgewiseError(f"a search should be made again at least 2 times to be compared, not {times}")
