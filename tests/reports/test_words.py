"""Numbers and texts as readers see them."""

import re
from pathlib import Path

import pytest

import edgewise
from edgewise.reports.words import NEGATED, metric_number, number, percent, readers_value, visible, worse
from edgewise.tasks import METRICS

SOURCE = Path(edgewise.__file__).parent


@pytest.mark.parametrize("value", [-0.0, -1e-9, -4e-7, -0.00001])
def test_nothing_is_minus_zero(value):
    assert not re.fullmatch(r"-[0.]+%?", number(value))
    assert not re.fullmatch(r"-[0.]+%?", percent(value))
    for name in METRICS:
        assert not re.fullmatch(r"-[0.]+%?", metric_number(name, value))
        assert not re.fullmatch(r"-[0.]+%?", metric_number(name, -value))


def test_numbers_that_count_keep_their_sign():
    assert (number(-0.25), number(-3e-5), percent(-0.22)) == ("-0.2500", "-3.0e-05", "-22.0%")


def test_no_number_that_can_be_negative_is_printed_without_care_for_minus_zero():
    """A signed format (`+.4f`) has a `z`; so has every format of tables and plots that could round to minus zero."""
    files = [*SOURCE.glob("cli/*.py"), *SOURCE.glob("reports/*.py")]
    for path in files:
        assert not re.findall(r"\{[^{}\n]*:\+\.\d[fge]\}", path.read_text()), path


def test_metrics_read_as_their_names_say():
    assert set(NEGATED) == {name for name, metric in METRICS.items() if metric.summary.startswith("minus ")}
    assert metric_number("frac_correct", -1.0) == "100.0%"
    assert metric_number("logit_diff", -5.421) == "5.4210"
    assert metric_number("kl_div", 0.0365) == "0.0365"
    assert readers_value("nll", 2.0) == 2.0
    assert (worse("kl_div"), worse("prob_diff")) == ("rise of kl_div", "fall of prob_diff")


def test_control_characters_of_a_text_are_written_out():
    assert visible("a\x1b]0;title\x07b\x1b[2J") == "a\\x1b]0;title\\x07b\\x1b[2J"
    assert visible("\r\x9b1m\u202e\ud800") == "\\r\\x9b1m\\u202e\\ud800"
    plain = "Ünïcode, 日本語,\ttabs\nand line ends 👩‍🔬"
    assert visible(plain) == plain
