"""A user's row on a model's tokens, and the places of it that are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgewise.tasks.jsonl import Row
from edgewise.tasks.task import Placed, Prompts, PromptText


@dataclass(frozen=True)
class Pair:
    """A row on the model's tokens.

    Attributes:
        answers, wrong: the tokens of each, or the reason why there are none.
        alignment: for each token of the clean prompt the one of the corrupted prompt that stands for it, or None.
        scored: tokens of the clean prompt that have to follow those before them; without any, answers follow its last.
        spans: tokens of the clean prompt by the name of the span that they are.
    """

    row: Row
    clean: list[int]
    corrupt: list[int]
    answers: list[list[int]] | str
    wrong: list[list[int]] | str
    alignment: list[int] | None = None
    scored: tuple[int, ...] = ()
    spans: Mapping[str, range] = field(default_factory=dict)


def one_place(pair: Pair) -> Placed:
    """Answers after the last token, or the tokens that are scored after those before them."""
    if pair.scored:
        places = [token - 1 for token in pair.scored]
        return Placed(
            pair.clean, pair.corrupt, places, [[pair.clean[token]] for token in pair.scored], None, pair.alignment
        )
    return Placed(
        pair.clean, pair.corrupt, [len(pair.clean) - 1], _joined(pair.answers), _joined(pair.wrong), pair.alignment
    )


def _joined(every: list[list[int]] | str) -> list[list[int]] | None:
    return None if isinstance(every, str) else [[token for ids in every for token in ids]]


def sequences(pairs: Sequence[Pair]) -> list[tuple[Placed, PromptText]]:
    """Each pair with its answer after it and, if all have one, once more with its wrong answer after it.

    At each place the next token of the one or the other is what counts.
    """
    found = []
    both = all(isinstance(pair.wrong, list) for pair in pairs)
    for number, pair in enumerate(pairs):
        text = pair.row.text
        found.append((_followed(pair, _only(pair.answers), number, True, both), text))
        if both:
            again = PromptText(text.clean, text.corrupt, wrong=text.wrong, row={})
            found.append((_followed(pair, _only(pair.wrong), number, False, both), again))
    return found


def _only(every: list[list[int]] | str) -> list[int]:
    assert not isinstance(every, str), "rows without answers are refused before"
    return every[0]


def _followed(pair: Pair, answer: Sequence[int], number: int, right: bool, both: bool) -> Placed:
    start, other = len(pair.clean), len(pair.corrupt)
    tokens, none = [[token] for token in answer], [[] for _ in answer]
    alignment = None if pair.alignment is None else [*pair.alignment, *range(other, other + len(answer) - 1)]
    return Placed(
        clean=[*pair.clean, *answer[:-1]],
        corrupt=[*pair.corrupt, *answer[:-1]],
        places=range(start - 1, start - 1 + len(answer)),
        answers=tokens if right else none,
        wrong=None if not both else none if right else tokens,
        alignment=alignment,
        pair=number,
    )


def sequence_metrics(prompts: Prompts) -> tuple[str, ...]:
    """The metrics that make sense where answers are sequences."""
    return ("kl_div", "nll", "match_nll", "l2") if prompts.wrong is None else ("kl_div", "log_prob_diff", "l2")
