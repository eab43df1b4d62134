"""Intervals that hold what they should as often as they say."""

import numpy as np
import pytest

from edgewise.errors import EdgewiseError
from edgewise.evaluation import Bootstrap, Interval, mean_jaccard
from edgewise.evaluation.bootstrap import interval_of, jaccard, share_interval


def mean(values, axis=-1):
    return values.mean(axis=axis)


def ratio(above, below, axis=-1):
    return above.sum(axis=axis) / below.sum(axis=axis)


@pytest.mark.parametrize(("kind", "truth"), [("normal", 2.0), ("skewed", 1.0), ("ratio", 0.5)])
def test_intervals_cover_the_truth_as_often_as_they_say(kind, truth):
    generator = np.random.default_rng(5)
    rounds, held = 300, 0
    for number in range(rounds):
        if kind == "normal":
            columns, statistic = (generator.normal(2.0, 3.0, 40),), mean
        elif kind == "skewed":
            columns, statistic = (generator.exponential(1.0, 60),), mean
        else:
            below = generator.uniform(1, 3, 40)
            columns, statistic = (below * 0.5 + generator.normal(0, 0.3, 40), below), ratio
        interval = interval_of(statistic, columns, Bootstrap(resamples=400, confidence=0.9, seed=number))
        held += truth in interval
    # 90% of 300 with three standard deviations of room below; short of it is what small skewed samples are known for.
    assert 0.84 <= held / rounds <= 0.96


def test_intervals_are_those_of_a_seed():
    columns = (np.random.default_rng(0).normal(size=20),)
    first, again, other = (interval_of(mean, columns, Bootstrap(seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first.low < columns[0].mean() < first.high


def test_where_there_is_nothing_to_resample():
    assert interval_of(mean, (np.arange(7.0),), Bootstrap()) is None, "too few for an interval that holds what it says"
    assert interval_of(mean, (np.arange(8.0),), Bootstrap()) is not None
    assert interval_of(mean, (np.arange(20.0),), Bootstrap(resamples=0)) is None
    assert interval_of(mean, (np.full(10, 0.25),), Bootstrap()) == Interval(0.25, 0.25)
    assert interval_of(mean, (np.append(np.arange(9.0), np.nan),), Bootstrap()) is None


def test_the_interval_of_a_share_holds_where_all_are_right():
    """Wilson's: 10 of 10 right says at least 72%, not 100%; the values are those of statsmodels' and R's."""
    whole = share_interval(1.0, 10, Bootstrap())
    assert (whole.low, whole.high) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1))
    half = share_interval(0.5, 20, Bootstrap())
    assert (half.low, half.high) == (pytest.approx(0.2993, abs=1e-4), pytest.approx(0.7007, abs=1e-4))
    assert share_interval(0.0, 10, Bootstrap()).low == 0
    assert share_interval(1.0, 7, Bootstrap()) is None
    generator = np.random.default_rng(0)
    held = [0.95 in share_interval(generator.binomial(20, 0.95) / 20, 20, Bootstrap()) for _ in range(1000)]
    assert 0.9 < np.mean(held) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 1.0},
        {"confidence": 0.0},
        {"resamples": 100},
        {"resamples": -5},
        {"resamples": 10**9},
        {"seed": -1},
    ],
)
def test_intervals_that_make_no_sense_are_refused(options):
    with pytest.raises(EdgewiseError, match=r"between 0 and 1|needs 200 to 1,000,000 resamples|0 or more"):
        Bootstrap(**options)


def test_overlap_of_sets():
    one, other = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert jaccard(one, other) == pytest.approx(1 / 3)
    assert jaccard(one, one) == 1
    assert jaccard(one & other & False, one & False) == 1, "two empty sets are the same"
    assert mean_jaccard([one, one, other]) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert mean_jaccard([one]) is None
