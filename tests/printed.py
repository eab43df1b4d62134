"""Figures as they are printed: the same but for the last digit, which a processor's rounding may turn over."""

from __future__ import annotations

import re

import pytest

DECIMAL = re.compile(r"-?\d+\.\d+")


def _rounds_to(ours: str, theirs: str) -> bool:
    """Whether two decimals are at most one apart in the last place of `theirs`."""
    return float(ours) == pytest.approx(float(theirs), rel=0, abs=1.01 * 10.0 ** -len(theirs.partition(".")[2]))


def same_but_for_rounding(printed: str, wanted: str) -> bool:
    """Whether two texts have the same words and whole numbers, and decimals that round alike."""
    if DECIMAL.sub("#", printed).split() != DECIMAL.sub("#", wanted).split():
        return False
    return all(map(_rounds_to, DECIMAL.findall(printed), DECIMAL.findall(wanted)))


def stands_in(page: str, said: str) -> bool:
    """Whether `said` is in a page, decimals aside, with decimals there that round to those in `said`."""
    pattern = DECIMAL.pattern.join(map(re.escape, DECIMAL.split(said)))
    return any(same_but_for_rounding(said, found[0]) for found in re.finditer(pattern, page))
