"""Path patching measured: what the metric becomes if only what flows along a path is ablated, or restored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewise.errors import EdgewiseError
from edgewise.evaluation.share import share_of_way
from edgewise.graph.names import EdgePath, parse_path
from edgewise.patching import Experiment
from edgewise.patching.paths import check_restore, endings, path_logits
from edgewise.tasks import mean_over_places


@dataclass(frozen=True)
class PathEffect:
    """What some paths do to the metric, which is lower where the model does better.

    Attributes:
        paths: the names of those that were patched together.
        before: the metric of the run in which nothing is patched: the model's, or that on the corrupted prompts.
        after: with the paths patched.
        other: of the other end: the ablated run's, or the model's.
        restored: whether the paths were restored in the run on the corrupted prompts, not ablated in the model's.
    """

    paths: tuple[str, ...]
    before: float
    after: float
    other: float
    restored: bool = False

    @property
    def effect(self) -> float:
        """after - before."""
        return self.after - self.before

    @property
    def share(self) -> float | None:
        """The share of the way from `before` to `other` that the paths go; None where that is no way at all.

        Of paths that are restored, the share of the behaviour that they recover; of ablated ones, that they lose.
        """
        return share_of_way(self.after, self.before, self.other)


def patch_paths(
    experiment: Experiment,
    *paths: EdgePath | str,
    restore: bool = False,
    together: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[PathEffect]:
    """Patch each path by itself and then, where there are several, all of them together.

    Args:
        paths: as in `a9.h6->a10.h0<q>`, after which the run goes on as it does, or `a9.h6->a10.h0<q>->logits`, which
            moves nothing but that path (see `edgewise.patching.paths`).
        restore: run the corrupted prompts, and restore what the clean ones have along the path.
        together: patch all of them together too.
        progress: called with how many runs are done, and of how many.

    Returns:
        One effect per path and, last, that of all of them together.

    Raises:
        EdgewiseError: there is no path, one twice, one that the model has not, or nothing to restore from; the metric
            is not a finite number.
    """
    read = [parse_path(path) if isinstance(path, str) else path for path in paths]
    names = [path.name for path in read]
    if not read:
        raise EdgewiseError("say which path is patched, as in 'a0.h1->a5.h5<q>->logits'")
    for name in names:
        if names.count(name) > 1:
            raise EdgewiseError(f"the path {name!r} is there twice")
    if restore:
        check_restore(experiment)
    for path in read:  # before anything is run
        endings(experiment.decoder, experiment.graph, path)
    sets = [[path] for path in read] + ([read] if together and len(read) > 1 else [])

    def value(patched: Sequence[EdgePath], done: int) -> float:
        logits = path_logits(experiment, patched, restore=restore)
        found = mean_over_places(experiment.metric(logits, experiment.reference))
        if not math.isfinite(found):
            raise EdgewiseError(
                f"metric {experiment.metric.name!r} came out as {found} with "
                f"{' and '.join(path.name for path in patched) or 'nothing'} patched, so nothing can be compared"
            )
        if progress is not None:
            progress(done, len(sets) + 1)
        return found

    before = value([], 1)
    other = experiment.full() if restore else experiment.ablated()
    return [
        PathEffect(tuple(path.name for path in one), before, value(one, done), other, restore)
        for done, one in enumerate(sets, start=2)
    ]
