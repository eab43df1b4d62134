"""What a method is: what it does, what it costs, what it takes, how it runs and how it is swept.

ACDC gives a circuit; every other method gives a score per edge, from which a circuit is cut (selection.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.discovery.selection import at_most
from edgewise.discovery.units import Units
from edgewise.errors import EdgewiseError, quoted, unknown
from edgewise.graph import Circuit
from edgewise.graph.by_node import Level
from edgewise.patching import Experiment, MemoryKind

StepProgress = Callable[[int, int], None]
"""Called with how much of the work is done, and of how much."""

Found = tuple[float, Circuit, float | None]
"""Of a sweep: a setting, its circuit, and the setting whose search gave it, where that is another one."""

MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Scored:
    """What a scoring method found.

    Attributes:
        circuit: the full circuit with a score for every edge.
        details: how the scores were made, for the record.
        above: a score at which an edge is not needed.
        own: the circuit that the method itself rounds to, if it does.
        units: the scores of queries, keys, values and MLPs that those of edges follow from, if they do.
    """

    circuit: Circuit
    details: Mapping[str, Any] = field(default_factory=dict)
    above: float = 0.0
    own: Circuit | None = None
    units: Units | None = None


@dataclass(frozen=True)
class Option:
    """Something that a method takes besides the experiment.

    Attributes:
        default: what it is unless told otherwise; its type is the option's. None stands for what the request says.
        help: what it is, in a few words.
        least, most: bounds, both included.
        choices: the names that it may be.
        shell: the shell's option, where that has another name.
    """

    name: str
    default: Any
    help: str
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    shell: str = ""

    @property
    def type(self) -> type:
        return int if self.default is None else type(self.default)

    def check(self, value: Any, method: str) -> None:
        """Raise an EdgewiseError unless `value` is one that the option of a method may have."""
        what = f"{self.name}{f' ({self.shell})' if self.shell else ''} of method {method!r}"
        if self.choices:
            if value not in self.choices:
                raise unknown(self.name, value, self.choices)
            return
        if value is None and self.default is None:
            return
        kinds = (int, float) if self.type is float else (self.type,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.type is not bool):
            wanted = {int: "a whole number", float: "a number", bool: "True or False"}.get(self.type, "text")
            raise EdgewiseError(f"{what} should be {wanted}, not {quoted(value)}")
        if isinstance(value, int | float) and not self.least <= value <= self.most:
            bounds = [f"at least {self.least:,}"] if value < self.least else [f"at most {self.most:,}"]
            raise EdgewiseError(f"{what} should be {bounds[0]}, not {quoted(value)}")


STEPS_HELP = "how many steps masks are learned for"
SEED = Option("seed", 0, "of the noise that masks are learned with", least=0)


_CALLED: Mapping[Level, str] = {
    "edge": "edges",
    "node": "whole nodes",
    "neuron": "neurons",
    "feature": "features",
}


@dataclass(frozen=True)
class Method:
    """A way to find circuits.

    Attributes:
        cost: in passes through the model over all prompts.
        short: what papers call it, if that is another name.
        takes: what it takes besides the experiment.
        counts: what its progress counts.
        score: how it scores edges, called with an experiment, `progress` and its options by name; None for ACDC, which
            decides.
        score_nodes: likewise how it scores whole nodes, as scores on the circuit of all of them; None where it cannot.
        score_neurons: likewise how it scores neurons of MLPs, or features of dictionaries, as scores on a circuit of
            those that it scored.
        metric_units: its scores are in the metric's units, so that a task's threshold makes sense for them.
        units: its scores are of whole queries, keys, values and MLPs, so that edges of one score come and go together.
        sized: the size of a score without its sign means something.
        rounds: it has a circuit of its own, so that neither threshold nor number of edges is needed.
        memory: what takes memory in it (see `plan_memory`). One whose kind is `every edge` plans its own, and is told
            `max_memory`, bytes beyond the model's weights.
        by: what the settings are that it is swept over.
        sweep: how it is swept, if not by cutting its scores at numbers of edges: called with an experiment and the
            settings, and by name with its options, `order` and `absolute` (ACDC's), and `progress` (told of a
            `Progress`).
    """

    name: str
    summary: str
    cost: str
    paper: str
    when: str
    short: str | None = None
    takes: tuple[Option, ...] = ()
    counts: str = "prompts"
    score: Callable[..., Scored] | None = None
    score_nodes: Callable[..., Scored] | None = None
    score_neurons: Callable[..., Scored] | None = None
    metric_units: bool = True
    units: bool = False
    sized: bool = True
    rounds: bool = False
    memory: MemoryKind = "gradients"
    by: str = "edges"
    sweep: Callable[..., Iterator[Found]] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What it takes, by name, with the default."""
        return {option.name: option.default for option in self.takes}

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that it does not take, or that are out of bounds.

        Raises:
            EdgewiseError: naming the option.
        """
        takes = {option.name: option for option in self.takes}
        for name, value in options.items():
            if name not in takes:
                those = f"it takes: {', '.join(takes)}" if takes else "it takes none"
                raise EdgewiseError(f"method {self.name!r} has no option {name!r} ({those})")
            takes[name].check(value, self.name)

    def scores(
        self,
        experiment: Experiment,
        *,
        level: Level = "edge",
        max_memory: int | None = None,
        progress: StepProgress | None = None,
        **options: Any,
    ) -> Scored:
        """Every edge's (node's, neuron's) score, within so many bytes beyond the model's weights.

        Raises:
            EdgewiseError: whatever the method raises; or it does not score what is asked for.
        """
        score, kind = self.scorers[level], self.memory_for(level)
        if score is None:
            raise EdgewiseError(f"method {self.name!r} does not score {_CALLED[level]}")
        if self.memory == "every edge":
            options["max_memory"] = max_memory
        return score(experiment.within(max_memory, kind), progress=progress, **options)

    def memory_for(self, level: Level) -> MemoryKind:
        """What takes memory in it, by edges, nodes or neurons."""
        if level == "edge":
            return self.memory
        return "nodes" if self.memory in ("search", "every edge") else "gradients"

    @property
    def scorers(self) -> Mapping[Level, Callable[..., Scored] | None]:
        """How it scores what circuits of each level are made of; None where it does not."""
        return {
            "edge": self.score,
            "node": self.score_nodes,
            "neuron": self.score_neurons,
            "feature": self.score_neurons,
        }

    def finds(self, level: Level) -> bool:
        """Whether it can find circuits of a level; ACDC, which scores nothing, decides about all of them."""
        return self.scorers[level] is not None or self.score is None

    def circuits(
        self,
        experiment: Experiment,
        settings: Sequence[float],
        *,
        seed: int = 0,
        options: Mapping[str, Any],
        **search: Any,
    ) -> Iterator[Found]:
        """The circuit at each setting.

        `search` is what a sweep of the method's own takes (`order`, `absolute`, `progress`).
        """
        taken = {**self.options, **({"seed": seed} if "seed" in self.options else {}), **options}
        if self.sweep is not None:
            yield from self.sweep(experiment, settings, **taken, **search)
            return
        scored = None
        for size in settings:
            if "target" in taken:
                taken["target"], scored = int(size), None
            scored = scored or self.scores(experiment, **taken)
            yield size, at_most(scored.circuit, int(size), whole_ties=self.units, above=scored.above).circuit, None
