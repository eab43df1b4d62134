"""What a log says of a sweep: a line now and then."""

from __future__ import annotations

import io

from rich.console import Console

from edgewise.reports import words
from edgewise.reports.progress import sweep_progress


def test_of_many_series_that_end_at_once_a_log_names_the_first(monkeypatch) -> None:
    def lines() -> list[str]:
        written = io.StringIO()
        with sweep_progress(Console(file=written)) as progress:
            for row in ("ioi", "docstring"):
                for method in ("acdc", "exact"):
                    progress(row)(method, 7, 7)
        return written.getvalue().splitlines()

    assert lines() == ["ioi: acdc, 7 circuits in 0.0 s"]
    monkeypatch.setattr(words, "LINE_EVERY", 0.0)
    assert len(lines()) == 4
