"""What errors say of what was given."""

from edgewise.errors import quoted, unknown


def test_what_is_short_is_quoted_whole():
    assert quoted("ioi") == "'ioi'"
    assert quoted(["a", 1]) == "['a', 1]"


def test_what_is_long_is_cut_short_and_its_length_is_said():
    assert quoted("x" * 10_000, 10) == "'xxxxxxxxxx'... (10,000 characters)"
    assert len(quoted([1] * 100_000)) < 300
    assert len(str(unknown("task", "x" * 100_000, ["ioi"]))) < 300


def test_a_number_too_long_to_write_is_described():
    assert quoted(10**5000) == "a number of thousands of digits"
    assert "thousands of digits" in quoted([10**5000])
