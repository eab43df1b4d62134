"""One self-contained page for a run, or for several runs of one graph.

`report` does it all for a run in hand. `read_sources` reads the run folders, `measure` asks a run's model what only it
can say, `make_page` gives the page as text, and `write_page` writes it where nothing is yet. `write_gallery` writes a
folder of pages, with one that leads to them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise import __version__
from edgewise.graph import Circuit
from edgewise.graph.groups import GivenGroups
from edgewise.reports.page.data import page_data
from edgewise.reports.page.gallery import require_free_folder, write_gallery
from edgewise.reports.page.html import render, require_free_file, write_page
from edgewise.reports.page.measured import measure
from edgewise.reports.page.source import Source, read_sources
from edgewise.runs import Run
from edgewise.runs.given import known_of

__all__ = [
    "Source",
    "make_page",
    "measure",
    "read_sources",
    "report",
    "require_free_file",
    "require_free_folder",
    "write_gallery",
    "write_page",
]


def report(
    run: Run,
    path: str | Path,
    *,
    prompts: int = 4,
    groups: GivenGroups | None = None,
    known: str | Path | Circuit | Run | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the page of a run to `path`; `run.report(path)` is the same.

    Args:
        prompts: how many prompts to show attention patterns for.
        groups: groups of nodes of one's own (names and nodes, or a JSON or TOML file of them), instead of the run's.
        known: the true circuit to hold the run against: a circuit, a run, or the path of one, instead of the run's.
        progress: called with how much of the measuring is done, and of how much.

    Returns:
        The file.

    Raises:
        EdgewiseError: there is such a file already, or it cannot be written; or `groups` or `known` do not fit.
    """
    target = Path(path).expanduser()
    require_free_file(target)
    with tempfile.TemporaryDirectory() as folder:
        saved = run.save(Path(folder) / f"{run.task_name}-{run.record['settings']['method']}")
        sources = read_sources([saved], groups=groups, known=None if known is None else known_of(known))
    measured = measure(sources[0], run.model, run.task, prompts=prompts, progress=progress)
    sources = [replace(sources[0], folder=Path(saved.name))]  # no folder holds it that one could name
    write_page(target, make_page(sources, [measured]))
    return target


Run.report = report


def make_page(sources: Sequence[Source], measured: Sequence[Mapping[str, Any]]) -> str:
    """The page of some runs over one graph, as HTML.

    Args:
        measured: for each run what `measure` gave, or `{"notes": [...]}` with sentences on why nothing was measured.
    """
    title = " · ".join(source.label for source in sources)
    return render(page_data(sources, measured, __version__), title)
