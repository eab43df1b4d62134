"""Parts of a prompt and their tokens: which are scored, and which of two prompts stand for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from edgewise.errors import EdgewiseError, quoted
from edgewise.models import Decoder


def tokens_of_parts(
    model: Decoder, text: str, ids: Sequence[int], parts: Sequence[str], side: str, special: bool = True
) -> list[range]:
    """The tokens of each part of a prompt, looked for from left to right.

    A token that reaches into a part is its, and so is one of the space before it.

    Args:
        ids: the prompt's tokens.
        side: as in "clean", for errors.
        special: whether the tokenizer put its special tokens before the prompt.

    Raises:
        EdgewiseError: the prompt has no such part, two parts share a token, or the tokenizer cannot say where its
            tokens stand.
    """
    offsets = _offsets(model, text, ids, special)
    found: list[range] = []
    at = 0
    for part in parts:
        begin = text.find(part, at)
        if begin < 0:
            after = f" after {quoted(text[:at], 60)}" if at else ""
            raise EdgewiseError(f"the {side} prompt has no {quoted(part, 60)}{after}")
        at, begin = begin + len(part), begin - text[:begin].endswith(" ")
        inside = [number for number, (first, stop) in enumerate(offsets) if first < at and begin < stop]
        if not inside:
            raise EdgewiseError(f"{quoted(part, 60)} has no token of the {side} prompt")
        found.append(range(inside[0], inside[-1] + 1))
    for number, (one, other) in enumerate(pairwise(found)):
        if one.stop > other.start:
            raise EdgewiseError(
                f"{quoted(parts[number], 60)} and {quoted(parts[number + 1], 60)} share a token of the {side} prompt"
            )
    return found


Part = str | tuple[str, int, int]
"""Part of a prompt: its text, or from where to where, in `tokens` or `characters`."""


def named_spans(
    model: Decoder, text: str, ids: Sequence[int], parts: Mapping[str, Part], special: bool = True
) -> dict[str, range]:
    """The tokens of each named part of a clean prompt.

    Raises:
        EdgewiseError: as `tokens_of_parts`; or the prompt has no such tokens or characters.
    """
    found = {}
    for name, part in parts.items():
        if isinstance(part, str):
            (found[name],) = tokens_of_parts(model, text, ids, [part], "clean", special)
            continue
        unit, first, stop = part
        inside = list(range(first, min(stop, len(ids))))
        most = len(ids) if unit == "tokens" else len(text)
        if unit == "characters":
            offsets = _offsets(model, text, ids, special)
            inside = [number for number, (begin, end) in enumerate(offsets) if begin < stop and first < end]
        if not inside or stop > most:
            raise EdgewiseError(f"span {name!r} is the {unit} {first} to {stop} of a clean prompt that has {most}")
        found[name] = range(inside[0], inside[-1] + 1)
    return found


def _offsets(model: Decoder, text: str, ids: Sequence[int], special: bool) -> list[tuple[int, int]]:
    """Where each token stands in the text; those before the text stand nowhere."""
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise EdgewiseError(
            f"the tokenizer of {model.name!r} cannot say where its tokens stand, which 'spans' and 'scored' need"
        )
    read = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)  # type: ignore[misc] - it is there
    own, where = list(read["input_ids"]), [(int(first), int(stop)) for first, stop in read["offset_mapping"]]
    before = 0 if list(ids[: len(own)]) == own[: len(ids)] else 1  # a BOS that the tokenizer does not put there itself
    if list(ids[before:]) != own[: len(ids) - before]:
        raise EdgewiseError(f"the tokenizer of {model.name!r} reads {quoted(text, 60)} now one way and now another")
    return [(0, 0)] * before + where[: len(ids) - before]


def aligned(clean: Sequence[range], corrupt: Sequence[range], n_clean: int, n_corrupt: int) -> list[int]:
    """For each token of a clean prompt the one of its corrupted prompt that stands for it.

    Between spans the prompts have as many tokens as each other. Spans end together: the last token of one stands for
    the last of the other, the one before for the one before, and where the corrupted one has no more, its first.

    Args:
        clean, corrupt: the tokens of the spans in each.

    Raises:
        EdgewiseError: the prompts differ in length between spans.
    """
    found: list[int] = []
    ends = (range(n_clean, n_clean), range(n_corrupt, n_corrupt))
    for ours, theirs in zip([*clean, ends[0]], [*corrupt, ends[1]], strict=True):
        start = found[-1] + 1 if found else 0
        between = ours.start - len(found), theirs.start - start
        if between[0] != between[1]:
            raise EdgewiseError(
                f"{'after' if ours.start == n_clean else 'before'} the spans, or between two of them, the clean prompt "
                f"has {between[0]} tokens where the corrupted one has {between[1]}"
            )
        found += range(start, theirs.start)
        found += [max(theirs.start, theirs.stop - len(ours) + number) for number in range(len(ours))]
    return found
