"""The page of a run as a widget that tells Python what is chosen in it. It needs anywidget (`edgewise[notebook]`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from edgewise.reports.notebook import HEIGHT, SANDBOX


class View(anywidget.AnyWidget):
    """The page of a run in a notebook.

    Attributes:
        selected: the node or edge that is chosen in the page, by its name (`a3.h1`, `a0.h1->a3.h1<q>`); None where
            nothing is. It can be watched: `view.observe(function, "selected")`.
        html: the page.
        height: of its frame, in pixels.
    """

    _esm = Path(__file__).parent / "page" / "view.js"
    html = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(HEIGHT).tag(sync=True)
    sandbox = traitlets.Unicode(SANDBOX).tag(sync=True)
    selected = traitlets.Unicode(None, allow_none=True).tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    def __repr__(self) -> str:
        return f"<View: {self.selected or 'nothing'} is chosen>"
