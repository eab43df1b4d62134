"""What takes long of a sweep, made side by side: ACDC's searches, threshold by threshold, and other methods' series.

Nothing is written here that the sweep by itself would not write. A search of ACDC goes into the journal of its series
when it comes back, from where the sweep takes its decisions over without measuring anything; another method's series is
written by the worker that makes it. So the sweep goes on afterwards as one that was stopped at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewise.discovery import Decision, Interrupted, Order, Progress, acdc
from edgewise.discovery.thresholds import alike
from edgewise.errors import EdgewiseError
from edgewise.patching import Experiment
from edgewise.runs.cluster import Cluster, Joined, Packed, come_in, come_next, unpacked
from edgewise.runs.journal import DecisionFile
from edgewise.runs.series import ENDING
from edgewise.runs.sweep import SweepPlan, SweepProgress, journal_path, sweep
from edgewise.tasks import Task

Decisions = tuple[Decision, ...]


def make_side_by_side(
    experiment: Experiment,
    plans: Sequence[tuple[SweepPlan, int]],
    test: Task | None,
    folder: Path,
    cluster: Cluster,
    progress: SweepProgress | None = None,
) -> None:
    """Make what a sweep has not made yet.

    Args:
        plans: what is to be swept, each with how many of its circuits are there.
        folder: the sweep's; all machines see it under the same path.

    Raises:
        EdgewiseError: there is no such cluster, or what a method raises.
    """
    if not plans:
        return
    cluster.require_reach(experiment.decoder.device)
    with cluster.joined() as joined:
        shared = joined.share((experiment, test))
        name = experiment.task.name
        acdc_plan: tuple[SweepPlan, int] | None = None
        for plan, done in plans:
            if plan.method == "acdc":
                acdc_plan = plan, done
            else:
                joined.start((plan.method,), f"{name}-{plan.method}", _series, shared, plan, folder.absolute())
        if acdc_plan is None:
            for _ in come_in(joined):
                pass
            return
        plan, done = acdc_plan
        journal = DecisionFile(journal_path(folder / f"acdc{ENDING}"), experiment.graph, several=True)
        try:
            _Thresholds(joined, shared, plan, plan.settings[done:], journal, name, progress).make()
        finally:
            journal.close()


class _Thresholds:
    """Searches at those thresholds of a sweep at which another one would not decide alike."""

    def __init__(
        self,
        joined: Joined,
        shared: Packed,
        plan: SweepPlan,
        wanted: Sequence[float],
        journal: DecisionFile,
        name: str,
        progress: SweepProgress | None,
    ) -> None:
        self.joined, self.shared, self.plan, self.journal, self.name = joined, shared, plan, journal, name
        self.wanted, self.progress = list(dict.fromkeys(map(float, wanted))), progress
        self.ended: dict[float, tuple[Decisions, float]] = {}
        self.begun: dict[float, Decisions] = {}  # the one that was stopped, with what it had decided
        if (last := journal.last()) is not None and last[0] in self.wanted:
            self.begun[last[0]] = tuple(last[1])
            journal.forget_last()
        for threshold in journal.thresholds():
            self.ended[threshold] = tuple(journal.search(threshold)), journal.seconds(threshold)

    def make(self) -> None:
        """Make them, wait for whatever else is under way, and leave all that the sweep needs in the journal."""
        while self._start() or self.joined.under_way:
            key, value = come_next(self.joined)
            if isinstance(key, float):
                self.ended[key] = value
                self.journal.keep(key, *value)
                if self.progress is not None:
                    known = sum(one in self.ended or self._known(one) is not None for one in self.wanted)
                    count = len(self.plan.settings)
                    self.progress(self.plan.method, count - len(self.wanted) + known, count)
        # The sweep goes by its own order: what a later threshold's search told is told by the earlier one there.
        before = [one for one in self.ended if one not in self.wanted]
        for threshold in self.wanted:
            if self._known(threshold, before) is not None:
                continue
            if threshold not in self.ended:
                found = self._known(threshold)
                assert found is not None
                self.ended[threshold] = self.ended[found]
                self.journal.keep(threshold, *self.ended[threshold])
            before.append(threshold)

    def _known(self, threshold: float, among: Sequence[float] | None = None) -> float | None:
        """A threshold whose search would decide alike."""
        for other in self.ended if among is None else among:
            low, high = alike(self.ended[other][0], other, absolute=self.plan.absolute)
            if low < threshold <= high:
                return other
        return None

    def _start(self) -> bool:
        """Give out as many searches as there are workers for; whether any was."""
        started = False
        while True:
            under_way = [key for key in self.joined.under_way if isinstance(key, float)]
            taken = [*under_way, *(one for one in self.ended if one in self.wanted)]
            left = [one for one in self.wanted if one not in taken and self._known(one) is None]
            if not left or len(under_way) >= self.joined.workers:
                return started
            chosen = next((one for one in left if one in self.begun), None) or self._farthest(left, taken)
            self.joined.start(
                chosen,
                f"{self.name}-acdc-{chosen:g}",
                _search,
                self.shared,
                chosen,
                self.plan.order,
                self.plan.absolute,
                self.begun.pop(chosen, ()),
            )
            started = True

    def _farthest(self, left: Sequence[float], taken: Sequence[float]) -> float:
        """The threshold farthest from those that have been searched, so that few decide alike; first the smallest."""
        if not taken:
            return min(left)
        places = [self.wanted.index(one) for one in taken]
        return max(left, key=lambda one: (min(abs(self.wanted.index(one) - at) for at in places), -one))


class _Before:
    """A journal of what was decided before, which keeps nothing itself."""

    def __init__(self, decisions: Decisions) -> None:
        self.decisions = decisions

    def thresholds(self) -> Sequence[float]:
        return ()

    def search(self, threshold: float) -> Sequence[Decision]:
        return self.decisions

    def cut(self, count: int) -> None: ...

    def add(self, decision: Decision) -> None: ...

    def flush(self, progress: Progress) -> None: ...


def _search(
    shared: Packed, threshold: float, order: Order, absolute: bool, decisions: Decisions
) -> tuple[Decisions, float]:
    """What ACDC decides at a threshold, and in how many seconds; in a worker."""
    experiment, _ = unpacked(shared, keep=True)
    try:
        found = acdc(experiment, threshold, order=order, absolute=absolute, journal=_Before(decisions))
    except Interrupted as stop:
        raise EdgewiseError(str(stop.__cause__)) from None
    return found.trace, found.seconds


def _series(shared: Packed, plan: SweepPlan, folder: Path) -> None:
    """Make a method's series; in a worker."""
    experiment, test = unpacked(shared, keep=True)
    sweep(experiment, [plan], test=test, folder=folder)
