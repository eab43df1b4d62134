"""Numbers and texts as readers see them: nothing is minus zero, higher is better where that is what a metric's name
says, and no text of a user's moves the cursor."""

from __future__ import annotations

import math
import re
import time

NEGATED = ("logit_diff", "logit_diff_max", "log_prob_diff", "prob_diff", "frac_correct")
"""Metrics of which a search takes the negative, since lower is better there. Readers see them as their names say."""


LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal to draw on."""


class Sparing:
    """Says of lines that come in any number which are to be written to a log: the first, then one now and then.

    Args:
        first: False if something stands there already, so that the first line has to wait, too.
    """

    def __init__(self, *, first: bool = True) -> None:
        self._written = -math.inf if first else time.monotonic()

    def due(self) -> bool:
        """Whether a line may be written now."""
        now = time.monotonic()
        if now - self._written < LINE_EVERY:
            return False
        self._written = now
        return True


def number(value: float) -> str:
    """A metric as people read it: four decimals, and powers of ten where those would say nothing."""
    if value == 0 or abs(value) >= 5e-5:
        return f"{value:z.4f}"
    return "0.0000" if abs(value) < 1e-6 else f"{value:.1e}"


def percent(value: float) -> str:
    """A share as people read it."""
    return f"{value:z.1%}"


def readers_value(metric: str, value: float) -> float:
    """A metric's value as its name says it: a logit difference is the answers' logits less the wrong answers'."""
    return -value if metric in NEGATED else value


def metric_number(metric: str, value: float) -> str:
    """A metric's value as people read it, from the value that a search has."""
    shown = readers_value(metric, value)
    return percent(shown) if metric == "frac_correct" else number(shown)


def worse(metric: str) -> str:
    """What a metric does where something that mattered is gone: `rise of kl_div`, `fall of logit_diff`."""
    return f"{'fall' if metric in NEGATED else 'rise'} of {metric}"


def visible(text: str) -> str:
    """A user's text with every control character written out, so that a terminal obeys none: `\\x1b[2J`.

    Line ends and tabs stay. Signs that turn the direction of writing are written out too.
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


# Control characters of both sets, line separators, marks and overrides of direction, and halves of characters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
