"""What a search tells while it goes, and what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from edgewise.graph import Circuit, Decision


@dataclass(frozen=True)
class Progress:
    """How far a search has got: edges decided of all, kept so far, tests made, and the metric now.

    `attempt` counts the thresholds tried when a circuit of a wanted size is searched, and `passes` the passes; `tests`
    is of all passes of this attempt, everything else of this pass. Of the decided, `absent` were not there when this
    pass began: they are outside the shortlist, or went in a pass before. `layers` says of the others into each layer,
    and last of those into the logits, how many were kept, how many dropped and how many are to come; it is empty for
    methods that take no edge by itself. `to_come` says of the tests how many are certain to come, how many are likely
    to, and by how much the live nodes, which a test runs through, multiply. `resumed` of the tests were made before, in
    a search that was stopped.
    """

    decided: int
    edges: int
    kept: int
    tests: int
    metric: float
    at: str
    threshold: float
    attempt: int = 1
    layers: tuple[tuple[int, int, int], ...] = ()
    to_come: tuple[float, float, float] = (0.0, 0.0, 1.0)
    passes: int = 1
    resumed: int = 0
    absent: int = 0
    unit: str = "edges"


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Discovery:
    """What a search found.

    Attributes:
        circuit: the edges kept; scores are their effects when last tested, 0 for edges that fell without a test.
        trace: every tested edge (node, of a search of whole nodes) in order, pass after pass.
        metric, metric_full, metric_ablated: of the circuit, the whole model, and no edge at all.
        threshold: the one that gave this circuit.
        seconds: wall time of the search.
        tests: edges tested, over all thresholds tried.
        tried: where a size was wanted, every threshold tried to its end and the size of its circuit.
        passes: of each pass that was made to its end, how many edges it tested and how many were left.
        metric_start: the metric before any edge was tested: of what the search was to start from, or the whole model.
    """

    circuit: Circuit
    trace: tuple[Decision, ...]
    metric: float
    metric_full: float
    metric_ablated: float
    threshold: float
    seconds: float
    tests: int
    tried: tuple[tuple[float, int], ...] = field(default=())
    passes: tuple[tuple[int, int], ...] = field(default=())
    metric_start: float = math.nan


class Interrupted(KeyboardInterrupt):
    """A search was stopped before its end, by Ctrl-C or because it may use no more memory.

    Attributes:
        discovery: what it decided until then; every edge it had not come to is still in the circuit. Where a size was
            wanted and a search before it had found a circuit that small: the largest of those.
        progress: how far it got.
        whole: whether `discovery` is such a search, which came to its end.
    """

    def __init__(self, discovery: Discovery, progress: Progress, *, whole: bool = False) -> None:
        super().__init__(f"stopped with {progress.decided:,} of {progress.edges:,} {progress.unit} decided")
        self.discovery, self.progress, self.whole = discovery, progress, whole
