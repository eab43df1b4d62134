"""How far a search is, as a bar in a notebook (or where one is asked for), by tqdm."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgewise.discovery import Progress, ProgressCallback

SECONDS = 1.0
"""A search that is over sooner shows no bar."""


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, whatever shows it."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


@contextmanager
def told(progress: ProgressCallback | bool | None, what: str) -> Iterator[ProgressCallback | None]:
    """What a search tells of its progress to: a function, or a bar, which is gone when the search is.

    Args:
        progress: a function; True for a bar, False for none; None for one in a notebook alone.
        what: is searched, to stand before the bar.
    """
    if progress is None:
        progress = in_notebook()
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        bar = _Bar(what)
        try:
            yield bar
        finally:
            bar.close()


class _Bar:
    """A bar, which begins again with each part of a search: scores, another threshold, another pass."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.part: tuple[Any, ...] = ()
        self.bar: Any = None

    def __call__(self, now: Progress) -> None:
        from tqdm.auto import tqdm

        steps = math.isnan(now.metric)
        part = (now.at if steps else None, now.attempt, now.passes)
        if part != self.part:
            self.close()
            said = f"{self.what}: {now.at}" if steps else self.what
            self.bar = tqdm(total=now.edges - now.absent, desc=said, leave=False, delay=SECONDS)
            self.part = part
        self.bar.total = now.edges - now.absent
        if not steps:
            self.bar.set_postfix_str(f"{now.kept:,} kept, metric {now.metric:.4g}", refresh=False)
        self.bar.update(now.decided - now.absent - self.bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
