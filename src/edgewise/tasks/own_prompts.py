"""A user's own rows on a model's tokens: what is wrong with each, which are used, and the task they make."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgewise.errors import EdgewiseError, EdgewiseWarning, listed, quoted
from edgewise.models import Decoder
from edgewise.tasks.alignment import aligned, named_spans, tokens_of_parts
from edgewise.tasks.jsonl import Row, Rows
from edgewise.tasks.metrics import METRICS
from edgewise.tasks.pairs import Pair, one_place, sequence_metrics, sequences
from edgewise.tasks.spans import spanned
from edgewise.tasks.task import Split, Task, placed_prompts
from edgewise.tasks.tokens import (
    check_length,
    continuation,
    continuations,
    conversation,
    encode,
    encode_all,
    encode_bare,
    show,
    unknown_words,
)

MOST_CHARACTERS = 128
"""Of a prompt, for each token that the model reads: what has more is refused before a tokenizer works on it."""
MOST_TOKENS = 2**17
"""What a model without a limit of its own is taken to read, for the same purpose."""

_LENGTHS = ", the corrupted one"


def build_own(
    model: Decoder,
    rows: Rows,
    *,
    examples: int | None,
    split: Split,
    skip_bad: bool = False,
    ablation: str | None = None,
) -> Task:
    """A task from a user's rows: all of them, or the first `examples` (for `test`, the next ones).

    The last token of each clean prompt is scored, unless a row says which parts are. The two prompts of a pair may
    differ in length, but then they cannot be patched position by position: ablation `resample` refuses them unless the
    row says which spans stand for each other; `zero` and `mean` do not.

    Args:
        skip_bad: leave out rows that are not right rather than refuse them, pairs of two lengths among them unless
            `ablation` takes those, and rows without one-token answers where others have them.
        ablation: what the prompts are for, if it is known: `resample` refuses pairs of two lengths here.

    Raises:
        EdgewiseError: some rows are not right (the message lists them), or there are fewer than asked for.
    """
    pairs_only = ablation == "resample" or (skip_bad and ablation is None)
    # A file with broken lines is refused, so what else is wrong is looked for in all of it.
    candidates = rows.good if skip_bad or rows.bad else _choose(rows.good, rows, examples, split)
    pairs, found = _checked(model, candidates, pairs_only)
    whole = any(pair.row.answer_tokens == "all" for pair in pairs)
    bad = {**rows.bad, **found, **(_no_sequence(pairs) if whole else {})}
    if skip_bad:
        bad.update(_without_answers(pairs))
        pairs = [pair for pair in pairs if pair.row.number not in bad]
    if bad and not (skip_bad and pairs):
        raise _refusal(rows, bad, skip_bad)
    if skip_bad:
        if bad:
            warnings.warn(_left_out(rows, bad), EdgewiseWarning, stacklevel=3)
        pairs = _choose(pairs, rows, examples, split, len(bad))
    _warn_of_spaces(model, rows, pairs)
    placed = sequences(pairs) if whole else [(one_place(pair), pair.row.text) for pair in pairs]
    for row, _ in placed:
        check_length(model, list(row.clean), "a clean prompt with its answer")
    prompts = placed_prompts([row for row, _ in placed])
    task = Task(
        name=rows.name,
        prompts=prompts,
        text=tuple(text for _, text in placed),
        metric="kl_div",
        metrics=sequence_metrics(prompts) if whole else tuple(METRICS),
        settings={
            **rows.settings,
            "examples": len(pairs),
            "split": split,
            **({"skip_bad": True, "left_out": sorted(bad)} if skip_bad else {}),
        },
        why_no_answers=_why_no_answers(rows, pairs),
    )
    if not any(pair.spans for pair in pairs):
        return task
    return spanned(task, [pairs[at if row.pair is None else row.pair].spans for at, (row, _) in enumerate(placed)])


# --- which rows -------------------------------------------------------------------------------------------------------


def _choose(among: Sequence[Any], rows: Rows, examples: int | None, split: Split, left_out: int = 0) -> list[Any]:
    if examples is None:
        if split == "test":
            raise EdgewiseError(
                f"{rows.origin}: there is no test split of its own; with examples N (--examples N), the first N rows "
                "are searched and the next N tested"
            )
        return list(among)
    needed = 2 * examples if split == "test" else examples
    if len(among) < needed:
        usable = " that can be used" if left_out else ""
        test = f" {examples} to search, and the next {examples} for the test split" if split == "test" else ""
        raise EdgewiseError(
            f"{rows.origin} has {_count(len(among), 'row')}{usable}, fewer than the {needed} asked for"
            f"{':' if test else ''}{test}"
        )
    return list(among[examples:needed] if split == "test" else among[:examples])


def _checked(model: Decoder, rows: Sequence[Row], pairs_only: bool) -> tuple[list[Pair], dict[int, str]]:
    """The rows that can be used, and what is wrong with the others by number."""
    bad: dict[int, str] = {}
    rows = _rendered(model, rows, bad)
    bad.update({row.number: why for row in rows if (why := _too_long(model, row))})
    rows = [row for row in rows if row.number not in bad]
    clean, corrupt = _encoded(model, rows, "clean"), _encoded(model, rows, "corrupt")
    answers = _answers(model, rows, clean, "answer", [row.text.answers for row in rows])
    wrong = _answers(model, rows, clean, "wrong", [row.text.wrong for row in rows])
    pairs = []
    for parts in zip(rows, clean, corrupt, answers, wrong, strict=True):
        pair = Pair(*parts)
        try:
            pairs.append(_with_parts(model, pair))
            why = _trouble(model, pairs[-1], pairs_only)
        except EdgewiseError as error:
            why = str(error)
        if why:
            bad[pair.row.number] = why
    return [pair for pair in pairs if pair.row.number not in bad], bad


def _rendered(model: Decoder, rows: Sequence[Row], bad: dict[int, str]) -> list[Row]:
    """The rows with their messages as the model reads them; those that cannot be go to `bad`."""
    found = []
    for row in rows:
        if row.messages is not None:
            try:
                clean, corrupt = (conversation(model, messages) for messages in row.messages)
            except EdgewiseError as error:
                bad[row.number] = str(error)
                continue
            row = replace(row, text=replace(row.text, clean=clean, corrupt=corrupt))
        found.append(row)
    return found


def _encoded(model: Decoder, rows: Sequence[Row], side: str) -> list[list[int]]:
    plain = iter(encode_all(model, [getattr(row.text, side) for row in rows if row.messages is None]))
    rendered = iter(encode_bare(model, [getattr(row.text, side) for row in rows if row.messages is not None]))
    return [next(plain if row.messages is None else rendered) for row in rows]


def _with_parts(model: Decoder, pair: Pair) -> Pair:
    """The pair with what its row says about parts of it."""
    row, special = pair.row, pair.row.messages is None
    if row.scored:
        parts = tokens_of_parts(model, row.text.clean, pair.clean, row.scored, "clean", special)
        pair = replace(pair, scored=tuple(token for part in parts for token in part if token))
        if not pair.scored:
            raise EdgewiseError("what is scored is the first token, which nothing stands before")
    if row.spans and len(pair.clean) != len(pair.corrupt):
        clean, corrupt = (
            tokens_of_parts(model, text, ids, [span[side] for span in row.spans], name, special)
            for side, (text, ids, name) in enumerate(
                ((row.text.clean, pair.clean, "clean"), (row.text.corrupt, pair.corrupt, "corrupted"))
            )
        )
        pair = replace(pair, alignment=aligned(clean, corrupt, len(pair.clean), len(pair.corrupt)))
    if row.parts:
        pair = replace(pair, spans=named_spans(model, row.text.clean, pair.clean, row.parts, special))
    return pair


def _too_long(model: Decoder, row: Row) -> str:
    reads = model.config.n_context or MOST_TOKENS
    texts = {"clean prompt": row.text.clean, "corrupt prompt": row.text.corrupt}
    texts |= {f"answer {quoted(text, 20)}": text for text in (*row.text.answers, *row.text.wrong)}
    for what, text in texts.items():
        if len(text) > MOST_CHARACTERS * reads:
            return (
                f"the {what} has {len(text):,} characters; model {model.name!r} reads at most {reads:,} tokens, and "
                f"{MOST_CHARACTERS} characters for each are looked at"
            )
    return ""


def _trouble(model: Decoder, pair: Pair, pairs_only: bool) -> str:
    for side, ids, text in (
        ("clean", pair.clean, pair.row.text.clean),
        ("corrupt", pair.corrupt, pair.row.text.corrupt),
    ):
        try:
            check_length(model, ids, f"the {side} prompt")
        except EdgewiseError as error:
            return str(error)
        if unknown_words(model, ids):
            return f"the {side} prompt has words that the tokenizer of {model.name!r} does not know: {quoted(text)}"
    if pairs_only and pair.alignment is None and len(pair.clean) != len(pair.corrupt):
        clean, corrupt = _differing(pair.clean, pair.corrupt)
        return (
            f"the clean prompt has {_count(len(pair.clean), 'token')}{_LENGTHS} {len(pair.corrupt)}: "
            f"{show(model, clean)} against {show(model, corrupt)}"
        )
    if (
        isinstance(pair.answers, list)
        and isinstance(pair.wrong, list)
        and any(one in pair.wrong for one in pair.answers)
    ):
        several = pair.row.answer_tokens == "all" and "s" * (len(pair.answers[0]) != 1)
        return f"the same token{several or ''} {'are' if several else 'is'} both an answer and a wrong answer"
    return ""


def _differing(one: list[int], other: list[int]) -> tuple[list[int], list[int]]:
    """Both without what they begin and end with alike."""
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    alike = next(
        (at for at, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), min(len(one), len(other))
    )
    return one[: len(one) - alike], other[: len(other) - alike]


# --- answers ----------------------------------------------------------------------------------------------------------


def _answers(
    model: Decoder, rows: Sequence[Row], clean: Sequence[list[int]], name: str, texts: Sequence[tuple[str, ...]]
) -> list[list[list[int]] | str]:
    """For each row the tokens of its answers that count, or the reason why not all can be used."""
    asked = [(row, text) for row, every in enumerate(texts) for text in every]
    tokens = continuations(model, [(clean[row], rows[row].text.clean, text) for row, text in asked])
    found: list[list[list[int]] | str] = [[] if every else f"{name!r} is null" for every in texts]
    for (row, text), ids in zip(asked, tokens, strict=True):
        so_far = found[row]
        if isinstance(so_far, str):
            continue
        counts = rows[row].answer_tokens
        if ids and (counts != "one" or len(ids) == 1) and not unknown_words(model, ids):
            so_far.append(ids[:1] if counts == "first" else ids)
        else:
            reason = f"is {len(ids)} tokens {show(model, ids)}" if len(ids) != 1 else "is an unknown word"
            found[row] = f"{name} {quoted(text)} {reason} to the tokenizer of {model.name!r}"
    # Two spellings of one token are one answer.
    return [
        every if isinstance(every, str) else [list(ids) for ids in dict.fromkeys(map(tuple, every))] for every in found
    ]


def _no_sequence(pairs: Sequence[Pair]) -> dict[int, str]:
    """The pairs that have no place among those whose answers count as a whole, and why."""
    bad = {}
    for pair in pairs:
        if pair.row.scored:
            bad[pair.row.number] = "'scored' cannot stand beside rows with 'answer_tokens': 'all'"
        elif isinstance(pair.answers, str):
            bad[pair.row.number] = f"{pair.answers}, and other rows have 'answer_tokens': 'all'"
        elif len(pair.answers) > 1 or (isinstance(pair.wrong, list) and len(pair.wrong) > 1):
            bad[pair.row.number] = "with 'answer_tokens': 'all' a row has one answer, and one wrong answer at most"
    return bad


def _without_answers(pairs: Sequence[Pair]) -> dict[int, str]:
    """The pairs without answers, and why, where other pairs have them; likewise wrong answers."""
    bad: dict[int, str] = {}
    for side in ("wrong", "answers"):
        without = {
            pair.row.number: why
            for pair in pairs
            if isinstance(why := getattr(pair, side), str) and not (pair.row.scored and side == "answers")
        }
        if len(without) < len(pairs):
            bad.update(without)
    return bad


def _why_no_answers(rows: Rows, pairs: Sequence[Pair]) -> str:
    """The rows for whose sake the task has no answers, or no wrong ones."""
    for side in ("answers", "wrong"):
        why = {
            pair.row.number: one
            for pair in pairs
            if isinstance(one := getattr(pair, side), str) and not (pair.row.scored and side == "answers")
        }
        if why:
            return _sentences(rows, why)
    return ""


# --- what is said -----------------------------------------------------------------------------------------------------


def _refusal(rows: Rows, bad: dict[int, str], skipped: bool) -> EdgewiseError:
    leave = "no row is left" if skipped else "leave such rows out with skip_bad (--skip-bad)"
    if not skipped and any(_LENGTHS in why for why in bad.values()):
        leave = (
            "ablation 'resample' swaps activations position by position, so the prompts of a pair need one number of "
            f"tokens: make them equal, say in 'spans' which parts stand for each other, use ablation 'mean' or "
            f"'zero', or {leave}"
        )
    return EdgewiseError(f"{_sentences(rows, bad)}{'; ' if len(bad) == 1 else chr(10)}{leave}")


def _sentences(rows: Rows, bad: dict[int, str]) -> str:
    """`mine.jsonl, line 3: …`, or all of them below each other."""
    if len(bad) == 1:
        (number, why), *_ = bad.items()
        return f"{rows.origin}, {rows.unit} {number}: {why}"
    sentences = [f"{rows.unit} {number}: {bad[number]}" for number in sorted(bad)]
    return f"{rows.origin}: {len(bad):,} of {len(rows):,} rows are not right:{listed(sentences)}"


def _left_out(rows: Rows, bad: dict[int, str]) -> str:
    numbers = sorted(bad)
    some = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    return (
        f"left out {len(bad):,} of {_count(len(rows), 'row')} of {rows.origin} ({rows.unit}{'s' * (len(bad) != 1)} "
        f"{some}); the first because {bad[numbers[0]]}"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _warn_of_spaces(model: Decoder, rows: Rows, pairs: Sequence[Pair]) -> None:
    """Say where a space stands at a prompt's end that should stand before the answer.

    Models write a space as part of the word after it, so such prompts and answers are other tokens than those that the
    model would write itself. Only what makes other tokens for this tokenizer counts.
    """
    late = [pair for pair in pairs for text in (pair.row.text.clean,) if text.endswith(" ") and text.strip()]
    if late and encode(model, late[0].row.text.clean.rstrip(" ")) != late[0].clean:
        first = late[0].row
        warnings.warn(
            f"{_count(len(late), 'clean prompt')} of {rows.origin} end{'s' * (len(late) == 1)} in a space "
            f"({rows.unit} {first.number}), which the model reads as a token of its own; put it before the answer "
            "instead",
            EdgewiseWarning,
            stacklevel=4,
        )
    bare = [
        (pair.row, answer)
        for pair in pairs
        for answer in (*pair.row.text.answers, *pair.row.text.wrong)
        if _wants_space(pair.row.text.clean, answer)
    ]
    if bare:
        row, answer = bare[0]
        spaced = continuation(model, row.text.clean, f" {answer}")
        if len(spaced) == 1 and spaced != continuation(model, row.text.clean, answer):
            warnings.warn(
                f"{_count(len(bare), 'answer')} of {rows.origin} stand{'s' * (len(bare) == 1)} without a space before "
                f"{'it' if len(bare) == 1 else 'them'} ({rows.unit} {row.number}: {quoted(answer, 40)}), and are other "
                f"tokens than the model would write after a word; write {quoted(f' {answer}', 40)}",
                EdgewiseWarning,
                stacklevel=4,
            )


def _wants_space(prompt: str, answer: str) -> bool:
    """Whether `answer` begins a word where scripts with spaces have one before it."""
    last, first = prompt[-1], answer[0]
    word = first.isdigit() or first.upper() != first.lower()
    before = last in ".,;:!?)%" or last.isdigit() or last.upper() != last.lower()
    return word and before and not (last.isdigit() and first.isdigit())
