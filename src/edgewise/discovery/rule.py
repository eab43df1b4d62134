"""When an edge goes: the paper's rule, and a bound on the metric as a whole beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgewise.errors import EdgewiseError


@dataclass(frozen=True)
class Rule:
    """Whether an edge goes, from the metric with it and without it.

    Attributes:
        threshold: the paper's: it goes if the metric rises by less than this.
        absolute: the size of the change counts, not the signed change.
        budget: and only if the metric is below this without it. None, as in the paper: whatever it has come to.
    """

    threshold: float
    absolute: bool = False
    budget: float | None = None

    def removes(self, before: float, after: float) -> bool:
        """A metric that is not a number removes nothing; the search stops there and says so."""
        change = abs(after - before) if self.absolute else after - before
        return change < self.threshold and (self.budget is None or after < self.budget)

    def check_start(self, metric: float) -> None:
        """Refuse a budget that is spent before any edge is tested.

        Raises:
            EdgewiseError: with the metric there.
        """
        if self.budget is not None and not metric < self.budget:
            raise EdgewiseError(
                f"the budget (--budget) is {self.budget:g}, and the metric is {metric:.4g} before any edge is tested; "
                "give one above that"
            )


def check_budget(budget: float | None, passes: int) -> None:
    """Refuse a budget that is no finite number, or fewer passes than one.

    Raises:
        EdgewiseError: one of these.
    """
    if budget is not None and not math.isfinite(budget):
        raise EdgewiseError(f"the budget (--budget) should be a finite number, not {budget}")
    if not 1 <= passes <= MOST_PASSES:
        raise EdgewiseError(f"--passes should be from 1 to {MOST_PASSES}, not {passes}")


MOST_PASSES = 100
