"""How the hypothesis tests of a circuit are made, and how much of them there is time for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewise.errors import EdgewiseError, unknown

REFERENCES = ("outside", "whole")

FEWEST_PAIRS = 10
"""Fewer random edges say too little about which of the circuit's edges matter more."""


@dataclass(frozen=True)
class Options:
    """How the tests are made.

    Attributes:
        level: a p-value below it rejects.
        epsilon: how far from even the circuit's chance of outdoing the model may be.
        quantile: the share of random circuits that has to be outdone.
        circuits: how many random circuits.
        reference: where the random circuits of the partial necessity test are drawn: `outside` the circuit, or from the
            `whole` graph.
        permutations: of the independence test.
        seed: of everything random.
        seconds: about how long the tests may take, judged by their first runs; fewer random circuits and edges are
            tried if all would take longer. None for all.
    """

    level: float = 0.05
    epsilon: float = 0.1
    quantile: float = 0.9
    circuits: int = 100
    reference: str = "outside"
    permutations: int = 1000
    seed: int = 0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise EdgewiseError(f"a seed is a whole number of 0 or more, not {self.seed}")
        if not 0 < self.level < 1 or not 0 < self.quantile < 1 or not 0 <= self.epsilon < 0.5:
            raise EdgewiseError("level and quantile are between 0 and 1, epsilon from 0 to below 1/2")
        if self.reference not in REFERENCES:
            raise unknown("reference", self.reference, REFERENCES)
        if self.seconds is not None and not self.seconds > 0:
            raise EdgewiseError(f"the time for the tests should be above 0, not {self.seconds}")
        if self.circuits < self.fewest:
            raise EdgewiseError(
                f"with fewer than {self.fewest} random circuits no test at level {self.level} can find that a circuit "
                f"outdoes {self.quantile:.0%} of them; {self.circuits} were asked for"
            )
        if self.permutations < 1 / self.level:
            raise EdgewiseError(
                f"the independence test at level {self.level} needs at least "
                f"{int(np.ceil(1 / self.level))} permutations"
            )

    @property
    def fewest(self) -> int:
        """How many random circuits it takes to outdo them significantly."""
        return int(np.ceil(np.log(self.level) / np.log(self.quantile)))


@dataclass(frozen=True)
class Share:
    """How much of everything is run.

    Attributes:
        sufficiency, necessity: random circuits of these tests, a run each.
        pairs: random edges of the minimality test, two runs each.
        edges: of the circuit, that are removed one at a time.
    """

    sufficiency: int
    necessity: int
    pairs: int
    edges: int

    @property
    def runs(self) -> int:
        return self.sufficiency + self.necessity + 2 * self.pairs + self.edges


def affordable(runs: float, circuits: int, edges: int, fewest: int) -> Share:
    """What so many runs are spent on: everything if they suffice; else fewer random circuits, then fewer edges.

    A test that could find nothing with what is left for it gets nothing: partial necessity first, minimality next.

    Args:
        circuits, edges: how many random circuits and edges there would be.
        fewest: random circuits, below which no test finds anything.
    """
    pairs = circuits if edges else 0
    for number in range(circuits, fewest - 1, -1):
        share = Share(number, number, min(number, pairs), edges)
        if share.runs <= runs:
            return share
    pairs = min(pairs, FEWEST_PAIRS)
    for necessity in (fewest, 0):
        left = int(min(runs, 1e9)) - fewest - necessity - 2 * pairs
        if left >= min(edges, FEWEST_PAIRS):
            return Share(fewest, necessity, pairs, min(edges, left))
    return Share(fewest if runs >= fewest else 0, 0, 0, 0)
