"""ACDC as a run: from a shortlist if one is wanted, kept in a folder as it goes, on from where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgewise.discovery import (
    Discovery,
    Order,
    Progress,
    ProgressCallback,
    StepProgress,
    acdc,
    acdc_by_neuron,
    acdc_by_node,
    acdc_with_edges,
)
from edgewise.graph import Circuit
from edgewise.patching import Experiment
from edgewise.runs.constants import kept_constants
from edgewise.runs.folder import RunFolder
from edgewise.runs.given import kept_known
from edgewise.runs.journal import DecisionFile
from edgewise.runs.request import SearchRequest
from edgewise.runs.run import heading, kept_prompts, settings_of, versions
from edgewise.runs.shortlist import neurons_within, packed_shortlist, shortlist_of, unpacked_shortlist
from edgewise.runs.under_way import keep_going, seconds_before
from edgewise.runs.workers import spread_by_ray


@dataclass(frozen=True)
class Stopped:
    """A search that was stopped and goes on.

    Attributes:
        record: what its `run.json` says.
        journal: what it decided.
    """

    record: dict[str, Any]
    journal: DecisionFile


class Pruning:
    """A search of ACDC, kept in a folder as it goes where there is one.

    Attributes:
        command: what asked for it first.
        more: what the record has of it besides settings and result.
    """

    def __init__(
        self,
        experiment: Experiment,
        asked: SearchRequest,
        folder: RunFolder | None,
        earlier: Stopped | None,
        command: Sequence[str] | None,
    ) -> None:
        self.experiment, self.asked, self.folder, self.earlier = experiment, asked, folder, earlier
        self.more: dict[str, Any] = {}
        if earlier is None:
            self.settings, self.command, self.before = settings_of(asked, experiment), command, 0.0
            return
        record, device = earlier.record, str(experiment.decoder.device)
        self.command, self.before = record["command"], seconds_before(record)
        self.settings = {**record["settings"], "model": {**record["settings"]["model"], "device": device}}
        self.more["resumed"] = record.get("resumed", 0) + 1
        if "shortlist" in record:
            self.more["shortlist"] = record["shortlist"]

    def settings_at(self, threshold: float) -> dict[str, Any]:
        """The settings, with the threshold that the search came to."""
        return {**self.settings, "threshold": threshold}

    def timed(self, found: Discovery) -> Discovery:
        """What was found, with the time that it took before it was stopped."""
        if "shortlist" in self.more:
            self.more["shortlist"] = {**self.more["shortlist"], "metric": found.metric_start}
        return replace(found, seconds=self.before + found.seconds)

    def run(self, progress: ProgressCallback | None) -> Discovery:
        asked = self.asked
        options: dict[str, Any] = dict(
            order=Order(asked.layer_order, asked.head_order, asked.seed),
            absolute=asked.absolute,
            budget=asked.budget,
            passes=asked.passes,
            start=self._start(progress),
            engine=asked.engine,
            max_memory=asked.max_memory,
            progress=progress,
        )
        cluster = asked.cluster()
        if cluster is not None:
            with spread_by_ray(self.experiment, cluster, engine=asked.engine, shard=asked.shard) as spread:
                return self._search({**options, "engine": spread if asked.level == "edge" else spread.of_nodes})
        return self._search(options)

    def _search(self, options: dict[str, Any]) -> Discovery:
        asked, experiment = self.asked, self.experiment
        journal = self._journal()
        try:
            search = {"edge": acdc, "node": acdc_by_node}.get(asked.level, acdc_by_neuron)
            if asked.count is not None:
                return acdc_with_edges(experiment, asked.count, journal=journal, search=search, **options)
            assert asked.threshold is not None
            return search(experiment, asked.threshold, journal=journal, **options)
        finally:
            if journal is not None:
                journal.close()

    def _start(self, progress: ProgressCallback | None) -> Circuit | None:
        """The shortlist, if there is one; that of a search that goes on is the one it had."""
        if self.asked.within is None:
            return None
        graph = self.experiment.graph
        if "shortlist" in self.more:
            return unpacked_shortlist(self.more["shortlist"], graph, self.asked.level)
        report = told_in_steps(progress, "prompts")
        if self.asked.of_units:
            found = neurons_within(self.asked.within, self.experiment, self.asked.max_memory, report)
        else:
            experiment = self.experiment.within(self.asked.max_memory, "gradients")
            found = shortlist_of(self.asked.within, experiment, level=self.asked.level, progress=report)
        self.more["shortlist"] = packed_shortlist(found)
        return unpacked_shortlist(self.more["shortlist"], graph, self.asked.level)  # as a search that goes on has it

    def _journal(self) -> DecisionFile | None:
        if self.folder is None:
            return None
        record = {**heading(self.settings, self.command, self.experiment.graph), "result": {}}
        record |= {"versions": versions(self.experiment.decoder), **self.more}
        return keep_going(
            self.folder,
            record,
            files={
                **kept_prompts(self.experiment.task),
                **kept_constants(self.experiment.carried.constants),
                **kept_known(self.experiment.task),
            },
            max_memory=self.asked.max_memory,
            before=self.before,
            journal=None if self.earlier is None else self.earlier.journal,
        )


def told_in_steps(progress: ProgressCallback | None, what: str) -> StepProgress:
    """What is told of steps, and tells it in a search's words."""

    def report(done: int, of: int) -> None:
        if progress is not None:
            progress(Progress(done, of, 0, done, math.nan, what, math.nan))

    return report
