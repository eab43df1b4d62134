"""Prompt pairs as people read them: what differs between clean and corrupted, the answer, what the model says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from rich.console import Console
from rich.text import Text

from edgewise.evaluation import Said
from edgewise.reports.words import visible
from edgewise.tasks import PromptText

Pieces = list[tuple[str, bool]]
"""Parts of a text in order, and whether each differs from the other text."""


_INDENT = 13
"""Columns before a prompt; its other lines are moved in as far."""


def differing(clean: str, corrupt: str) -> tuple[Pieces, Pieces]:
    """Both texts cut where they differ: word against word, or as they match best if one has more words."""
    words = [re.findall(r"\w+|\s+|[^\w\s]", text) for text in (clean, corrupt)]
    if len(words[0]) == len(words[1]):
        pairs = list(zip(*words, strict=True))
        return [(one, one != other) for one, other in pairs], [(other, one != other) for one, other in pairs]
    cut: tuple[Pieces, Pieces] = ([], [])
    for tag, *ends in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side in (0, 1):
            part = "".join(words[side][ends[2 * side] : ends[2 * side + 1]])
            if part:
                cut[side].append((part, tag != "equal"))
    return cut


def show_pair(console: Console, number: int, pair: PromptText, said: Said) -> None:
    """Print one pair. Where there are no colours, what differs stands in [brackets]."""

    def line(label: str, *parts: tuple[str, str]) -> None:
        text = Text(f"{'' if label != 'clean' else number:>3}  {label:<8}", style="dim")
        for part, style in parts:
            text.append(visible(part).replace("\n", "\n" + " " * _INDENT), style=f"not dim {style}")
        console.print(text, soft_wrap=True, highlight=False)

    clean, corrupt = differing(pair.clean, pair.corrupt)
    for label, pieces, colour in (("clean", clean, "bold green"), ("corrupt", corrupt, "bold red")):
        marked = [(part if console.color_system or not differs else f"[{part}]", differs) for part, differs in pieces]
        line(label, *((part, colour if differs else "") for part, differs in marked))
    if pair.answers:
        line("answer", (_some(pair.answers), "bold"), (f"   not {_some(pair.wrong)}" if pair.wrong else "", ""))
    elif pair.wrong:  # where answers are sequences, a wrong one has a row of its own
        line("wrong", (_some(pair.wrong), "bold"))
    line("model", (_says(said), ""))
    console.print()


def _some(texts: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(repr(text) for text in texts[:most])
    return shown if len(texts) <= most else f"{shown}, … ({len(texts)} in all)"


def _says(said: Said) -> str:
    if said.outputs:
        return "  ".join("(" + ", ".join(f"{value:z.2f}" for value in place) + ")" for place in said.outputs)
    verdict = ""
    if said.right is not None:
        verdict = f"{said.right} of {said.places} right" if said.places != 1 else ("right" if said.right else "wrong")
    says = ", ".join(f"{token!r} {share:.0%}" for token, share in said.likeliest)
    where = "; at the last place " if said.places > 1 else ": "
    return f"{verdict}{where}{says}" if verdict else says
