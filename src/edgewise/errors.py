"""What edgewise says when it cannot do what was asked."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from typing import Any


class EdgewiseError(Exception):
    """Something the person at the keyboard can put right.

    The message is a sentence in their own terms: what was wrong, and what would have been right. The command line
    prints it without a traceback and exits with code 2.
    """


class EdgewiseWarning(UserWarning):
    """Something worth knowing before a result is believed. The command line prints it as a sentence."""


MOST_QUOTED = 200
"""Characters of what someone gave that an error repeats."""


def shorten(text: str, limit: int = MOST_QUOTED) -> str:
    """A text, cut where it is so long that it would drown the sentence around it."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def quoted(value: object, limit: int = MOST_QUOTED) -> str:
    """What someone gave, as Python writes it, cut where it is too long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= limit else f"{value[:limit]!r}... ({len(value):,} characters)"
    try:
        return shorten(repr(value), limit)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "a number of thousands of digits"


def listed(sentences: Sequence[str], most: int = 10) -> str:
    """Sentences below each other: the first `most`, then how many more there are."""
    more = [f"and {len(sentences) - most:,} more"] if len(sentences) > most else []
    return "".join(f"\n  {sentence}" for sentence in (*sentences[:most], *more))


MOST_SEED = 2**63 - 1


def check_seed(seed: object, what: str = "the seed (--seed)") -> None:
    """Raise an EdgewiseError unless every generator takes `seed`; to some, -1 is the same as 1."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED:
        raise EdgewiseError(f"{what} should be a whole number from 0 to 2^63 - 1, not {quoted(seed, 40)}")


def near_matches(wrong: str, known: Iterable[str], count: int = 3) -> str:
    """A clause such as `; did you mean 'ioi'?`, or an empty string where nothing is close."""
    if len(wrong) > 1000:
        return ""
    by_lower_case = {name.lower(): name for name in known}
    close = [by_lower_case[name] for name in difflib.get_close_matches(wrong.lower(), by_lower_case, count, cutoff=0.5)]
    if not close:
        return ""
    return "; did you mean " + " or ".join(repr(name) for name in close) + "?"


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require_package(package: str, extra: str, what: str) -> Any:
    """A package of one of edgewise's extras, imported; an EdgewiseError that says what to install where it is not."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        why = "which is not installed" if isinstance(error, ModuleNotFoundError) else f"which does not load ({error})"
        raise EdgewiseError(
            f"{what}, edgewise needs the package {package!r}, {why}: pip install 'edgewise[{extra}]'"
        ) from None


def unknown(kind: str, wrong: str, known: Iterable[str]) -> EdgewiseError:
    """The error for a name that is none of the `known` ones: `unknown task 'iio'; did you mean 'ioi'? …`."""
    names = list(known)
    hint = near_matches(wrong, names)
    return EdgewiseError(f"unknown {kind} {quoted(wrong)}{hint} (known: {', '.join(names)})")
