"""What a circuit has of groups of nodes, as tables for the terminal. None of this waits for torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgewise.graph.groups import GroupFound

if TYPE_CHECKING:
    from edgewise.tasks import Comparison


def known_table(known: Comparison, own: Sequence[GroupFound] = ()) -> Group:
    """What a circuit has of the known one, and of each group of components: the known circuit's or the user's own."""
    return groups_table(own or known.groups, known_title(known.source, known.found, known.n_edges))


def known_title(source: str, found: int, n_edges: int) -> str:
    """How many edges of the known circuit were found."""
    return f"known circuit ({source}): {found:,} of its {n_edges:,} edges found"


def groups_table(groups: Sequence[GroupFound], title: str = "groups of nodes") -> Group:
    """What a circuit has of each group."""
    heading = Text(title, style="italic", no_wrap=True, overflow="ignore")
    if not groups:
        return Group(heading)
    table = Table(box=None, pad_edge=False)
    for column in ("components", "found", "which", "not found"):
        table.add_column(column, overflow="fold")
    for group in groups:
        missed = [name for name in group.members if name not in group.found]
        share = f"{len(group.found)} of {len(group.members)}"
        table.add_row(Text(group.group), share, " ".join(group.found), Text(" ".join(missed), style="dim"))
    return Group(heading, table)
