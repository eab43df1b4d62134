"""What is asked for of the MIB benchmark: methods, cells, how many prompts, and how circuits are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from edgewise.discovery import METHODS, RANDOM, method_named, require_level
from edgewise.errors import EdgewiseError, check_seed, unknown
from edgewise.evaluation.mib import MibSelection
from edgewise.graph.by_node import Level
from edgewise.patching import ABLATIONS
from edgewise.tasks.mib import SPLITS, MibSplit

GREEDY = ("information-flow",)
"""Methods whose circuits the benchmark grows from the logits."""


@dataclass(frozen=True)
class MibPlan:
    """What is asked for.

    Attributes:
        methods: those that score, by name or short name, or `random`.
        tasks, models: as `cells_of` takes them.
        split: on which circuits are scored.
        level: `edge` or `node`.
        ablation: what attribution is about; scores are always about the corrupted prompts.
        select: how circuits are cut; by default as the benchmark does: `greedy` for information flow routes, else
            `top`.
        train_examples: of the train split; by default as many as the benchmark takes of the task.
        examples: of the split; by default all.
        seed: of what methods draw.
        options: of the methods that take them.
        data: a folder with a folder for each dataset, instead of the hub.
        dtype: of all models; by default the benchmark's.
    """

    methods: tuple[str, ...] = ("edge-attribution-ig",)
    tasks: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    split: MibSplit = "validation"
    level: Level = "edge"
    ablation: str = "resample"
    select: MibSelection | None = None
    train_examples: int | None = None
    examples: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    device: str | None = None
    dtype: str | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(one if one == RANDOM else method_named(one) for one in self.methods))

    def check(self) -> None:
        """Refuse what no model is needed to refuse.

        Raises:
            EdgewiseError: an unknown name, a method that scores nothing, or an option that no method takes.
        """
        check_seed(self.seed)
        if not self.methods:
            raise EdgewiseError("there is nothing to run without a method")
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        if self.level not in ("edge", "node"):
            raise unknown("level of the benchmark's circuits", self.level, ("edge", "node"))
        if self.ablation not in ABLATIONS:
            raise unknown("ablation", self.ablation, ABLATIONS)
        if self.select is not None and self.select not in get_args(MibSelection):
            raise unknown("way to choose edges", self.select, get_args(MibSelection))
        if self.level == "node" and self.select not in (None, "top"):
            raise EdgewiseError(f"--select {self.select} chooses edges, and circuits are of nodes (--level node)")
        for what, count in (("--train-examples", self.train_examples), ("--examples", self.examples)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise EdgewiseError(f"{what} should be a whole number from 1, not {count}")
        for name in self.methods:
            if name == RANDOM:
                continue
            if METHODS[name].score is None:
                raise EdgewiseError(
                    f"method {name!r} decides about edges and ranks none, so the benchmark cannot score it"
                )
            require_level(name, self.level)
            METHODS[name].check(self._own(name))
        for name in self.options:
            if not any(name in METHODS[method].options for method in self.methods if method != RANDOM):
                raise EdgewiseError(f"none of the methods {', '.join(self.methods)} takes {name!r}")
        if self.data is not None and not self.data.expanduser().is_dir():
            raise EdgewiseError(f"there is no folder {str(self.data)!r} with the benchmark's data")

    def taken(self, method: str) -> dict[str, Any]:
        """What a method is called with, by name."""
        options = {} if method == RANDOM else METHODS[method].options
        return {
            **options,
            **({"seed": self.seed} if "seed" in options or method == RANDOM else {}),
            **self._own(method),
        }

    def _own(self, method: str) -> dict[str, Any]:
        takes = () if method == RANDOM else METHODS[method].options
        return {name: value for name, value in self.options.items() if name in takes}

    def selection(self, method: str) -> MibSelection:
        if self.select is not None:
            return self.select
        return "greedy" if method in GREEDY and self.level == "edge" else "top"

    def label(self, method: str) -> str:
        """The folder of a method's circuits, as the benchmark's code calls it."""
        return f"{method}_{'patching' if self.ablation == 'resample' else self.ablation}_{self.level}"
