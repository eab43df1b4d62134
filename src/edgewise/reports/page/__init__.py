"""One self-contained page for a run, or for several runs of one graph.

`read_sources` reads the run folders, `measure` asks a run's model what only it can say, `make_page` gives the page as
text, and `write_page` writes it where nothing is yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgewise import __version__
from edgewise.reports.page.data import page_data
from edgewise.reports.page.html import render, require_free_file, write_page
from edgewise.reports.page.measure import measure
from edgewise.reports.page.source import Source, read_sources

__all__ = ["Source", "make_page", "measure", "read_sources", "require_free_file", "write_page"]


def make_page(sources: Sequence[Source], measured: Sequence[Mapping[str, Any]]) -> str:
    """The page of some runs over one graph, as HTML.

    Args:
        measured: for each run what `measure` gave, or `{"notes": [...]}` with sentences on why nothing was measured.
    """
    title = " · ".join(source.label for source in sources)
    return render(page_data(sources, measured, __version__), title)
