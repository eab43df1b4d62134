"""Greater-than: "The demonstrations lasted from the year 1289 to 12" -> any of "90" to "99".

Template, nouns and years are those of Hanna et al. 2023 as the ACDC paper's code has them; the corrupted prompt says
year "01", after which any end will do. Seed 0 draws the paper's prompts.

Most tokenizers do not read a year as century and rest. There the prompt goes up to the token with the year's third
digit, and years are those whose digits after that token are nines: then that token alone says whether the year is
later. "The war lasted from the year 1289 to 12" -> "9", not "0" to "8", where digits are tokens of their own; "… 1289
to " -> any of "129" to "199", not "100" to "128", where three are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.tasks.spans import spanned
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import (
    continuation,
    continuations,
    encode,
    encode_all,
    encode_prompts,
    require_words,
    show,
    single_tokens,
    unknown_words,
)
from edgewise.tasks.word_lists import GREATER_THAN_NOUNS, GREATER_THAN_YEARS

BEGINNING = "The {noun} lasted from the year"
TEMPLATE = BEGINNING + " {century}{year} to {century}"
CORRUPT_YEAR = "01"
TWO_DIGITS = tuple(f"{number:02}" for number in range(100))
METRICS = ("kl_div", "prob_diff", "logit_diff", "frac_correct", "nll", "match_nll")
FEWEST_NOUNS = FEWEST_YEARS = 5
PAPER_SEED = 54
PAPER_ROWS = 200


@dataclass(frozen=True)
class GreaterThanPrompt:
    """One sentence, such as that of `noun` "demonstrations", `century` "12" and `year` "89"."""

    noun: str
    century: str
    year: str

    @property
    def clean(self) -> str:
        """The sentence up to the two digits that have to follow."""
        return TEMPLATE.format(noun=self.noun, century=self.century, year=self.year)

    @property
    def corrupt(self) -> str:
        """The same with the year 01 of that century."""
        return TEMPLATE.format(noun=self.noun, century=self.century, year=CORRUPT_YEAR)

    @property
    def later(self) -> int:
        """The first two-digit number that is right."""
        return int(self.year) + 1


def greater_than_prompts(
    count: int,
    seed: int = 0,
    all_nouns: tuple[str, ...] = GREATER_THAN_NOUNS,
    all_years: tuple[str, ...] = GREATER_THAN_YEARS,
) -> list[GreaterThanPrompt]:
    """The first `count` prompts of a seed. Asking for more leaves the first ones as they are."""
    generator = torch.Generator().manual_seed((PAPER_SEED + seed) % 2**63)
    prompts: list[GreaterThanPrompt] = []
    while len(prompts) < count:
        # The original draws all nouns, then all years, for its 200 prompts. So more come in blocks of 200.
        nouns = torch.randint(0, len(all_nouns), (PAPER_ROWS,), generator=generator).tolist()
        years = torch.randint(0, len(all_years), (PAPER_ROWS,), generator=generator).tolist()
        for noun, index in zip(nouns, years, strict=True):
            year = all_years[index]
            prompts.append(GreaterThanPrompt(all_nouns[noun], year[:2], year[2:]))
    return prompts[:count]


@dataclass(frozen=True)
class Reading:
    """How a tokenizer reads years.

    Attributes:
        years: those of the paper's that can be used.
        note: the same in words.
        before: how many of a year's digits stand at the prompt's end.
        tokens: all that may follow there, in the order of their numbers, by what stands there.
        cut: how many tokens of a sentence with the whole year at its end are left off, or None where the sentence ends
            with the century and corrupted prompts get the token for 01 in place of the year's.
    """

    years: tuple[str, ...]
    note: str
    before: int
    tokens: dict[str, dict[str, int]]
    cut: int | None = None


def build_greater_than(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The greater-than task on a model's tokens: `examples` pairs, the first ones for validation, the next for test.

    Answers are the tokens of all later years, wrong answers those up to the year itself. So `prob_diff` is the paper's
    `greaterthan`: the probability of later years less that of others. All variants are the paper's prompts. Nouns and
    years that the tokenizer splits otherwise are left out.

    Raises:
        EdgewiseError: too few nouns are one token, no token of a year decides whether it is later, or the model's
            tokenizer has no word for part of a prompt.
    """
    task = "greater-than"
    nouns = single_tokens(model, "The", GREATER_THAN_NOUNS)
    total = len(GREATER_THAN_NOUNS)
    left_out = [require_words(model, task, len(nouns), total, FEWEST_NOUNS, "nouns", "one token")]
    noun = next(iter(nouns))
    encode_prompts(model, [f"{BEGINNING.format(noun=noun)} to"], task)
    reading = _by_century(model, noun) or _by_next_token(model, noun)
    found, total = 0 if reading is None else len(reading.years), len(GREATER_THAN_YEARS)
    if reading is None or found < FEWEST_YEARS:
        raise _unreadable(model, noun, found)
    left_out += [f"{found} of {total} years {reading.note}"] * (found < total)
    prompts = greater_than_prompts(2 * examples, seed, tuple(nouns), reading.years)
    prompts = prompts[examples:] if split == "test" else prompts[:examples]
    clean, corrupt = _pairs(model, prompts, reading)
    follow = [reading.tokens[f"{prompt.century}{prompt.year}"[: reading.before]] for prompt in prompts]
    right = [
        [text for text in texts if _is_later(text, prompt, reading)]
        for texts, prompt in zip(follow, prompts, strict=True)
    ]
    wrong = [
        [text for text in texts if not _is_later(text, prompt, reading)]
        for texts, prompt in zip(follow, prompts, strict=True)
    ]
    made = Task(
        name=task,
        prompts=last_token_prompts(
            clean,
            corrupt,
            [[ids[text] for text in texts] for ids, texts in zip(follow, right, strict=True)],
            [[ids[text] for text in texts] for ids, texts in zip(follow, wrong, strict=True)],
        ),
        text=tuple(
            PromptText(*_shown(prompt, reading), tuple(later), tuple(others))
            for prompt, later, others in zip(prompts, right, wrong, strict=True)
        ),
        metric="kl_div",
        metrics=METRICS,
        left_out=tuple(note for note in left_out if note),
    )
    begun = len(encode(model, BEGINNING.format(noun=noun)))
    return spanned(made, _spans(clean, corrupt, [nouns[prompt.noun] for prompt in prompts], begun))


def _spans(
    clean: Sequence[Sequence[int]], corrupt: Sequence[Sequence[int]], nouns: Sequence[int], begun: int
) -> list[dict[str, range]]:
    """The tokens of the noun, the year's century and the rest of it, and the end, as in Hanna et al. 2023."""
    differ = [at for ids, others in zip(clean, corrupt, strict=True) for at in range(len(ids)) if ids[at] != others[at]]
    rows = []
    for ids, noun in zip(clean, nouns, strict=True):
        at = list(ids).index(noun)
        row = {"noun": range(at, at + 1), "YY": range(min(differ), max(differ) + 1)}
        century = {"XX": range(begun, min(differ))} if begun < min(differ) else {}
        rows.append({**row, **century, "END": range(len(ids) - 1, len(ids))})
    return rows


def _is_later(text: str, prompt: GreaterThanPrompt, reading: Reading) -> bool:
    year = f"{prompt.century}{prompt.year}"
    return text > year[reading.before :][: len(text)]  # digits after these are nines, if there are any


def _shown(prompt: GreaterThanPrompt, reading: Reading) -> tuple[str, str]:
    """The prompts as text."""
    end = f"{prompt.century}{prompt.year}"[: reading.before]
    stem, other = (text.removesuffix(prompt.century) for text in (prompt.clean, prompt.corrupt))
    return stem + end, other + end


def _pairs(
    model: Decoder, prompts: Sequence[GreaterThanPrompt], reading: Reading
) -> tuple[list[list[int]], list[list[int]]]:
    if reading.cut is not None:
        whole = [prompt.year for prompt in prompts]
        clean, corrupt = (
            encode_prompts(model, [text + end for text, end in zip(texts, whole, strict=True)], "greater-than")
            for texts in ([prompt.clean for prompt in prompts], [prompt.corrupt for prompt in prompts])
        )
        return [ids[: -reading.cut] for ids in clean], [ids[: -reading.cut] for ids in corrupt]
    clean = encode_prompts(model, [prompt.clean for prompt in prompts], "greater-than")
    before = encode_all(model, [BEGINNING.format(noun=prompt.noun) for prompt in prompts])
    corrupt = []
    for prompt, ids, beginning in zip(prompts, clean, before, strict=True):
        at = len(beginning) + 1
        corrupt.append([*ids[:at], reading.tokens[prompt.century][CORRUPT_YEAR], *ids[at + 1 :]])
    return clean, corrupt


def _by_century(model: Decoder, noun: str) -> Reading | None:
    """Years of two tokens, century and rest, the first of which ends the prompt, as GPT-2 reads them."""
    prompt = GreaterThanPrompt(noun, GREATER_THAN_YEARS[0][:2], GREATER_THAN_YEARS[0][2:])
    end = encode(model, prompt.clean)
    digits = continuations(model, [(end, prompt.clean, text) for text in TWO_DIGITS])
    tokens = {text: ids[0] for text, ids in zip(TWO_DIGITS, digits, strict=True) if len(ids) == 1}
    if not _all_tokens(model, tokens, TWO_DIGITS):
        return None
    before = encode(model, BEGINNING.format(noun=noun))
    sentences = [TEMPLATE.format(noun=noun, century=year[:2], year=year[2:]) for year in GREATER_THAN_YEARS]
    years = []
    for year, ids in zip(GREATER_THAN_YEARS, encode_all(model, sentences), strict=True):
        century = ids[-1:]
        if ids[: len(before) + 2] == [*before, *century, tokens[year[2:]]]:
            years.append(year)
    if len(years) < FEWEST_YEARS:
        return None
    return Reading(
        tuple(years), "are a token of the century and one of the rest", 2, {year[:2]: tokens for year in years}
    )


def _by_next_token(model: Decoder, noun: str) -> Reading | None:
    """Years that are split alike, and of whose digits the token with the third one decides."""
    sentences = {
        year: TEMPLATE.format(noun=noun, century=year[:2], year=year[2:]) + year[2:] for year in GREATER_THAN_YEARS
    }
    groups: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for year, ids in zip(sentences, encode_all(model, list(sentences.values())), strict=True):
        pieces = _digits_at_end(model, ids, year)
        start = 0
        for number, piece in enumerate(pieces):
            stop = start + len(piece)
            if start <= 2 < stop and year[2] != "9" and set(year[stop:]) <= {"9"}:
                groups[start, stop, len(pieces) - number].append(year)
            start = stop
    for (start, stop, cut), years in sorted(groups.items(), key=lambda group: -len(group[1])):
        following = {
            end: _following(model, noun, next(year for year in years if year.startswith(end)), start, stop, cut)
            for end in dict.fromkeys(year[:start] for year in years)
        }
        tokens = {end: ids for end, ids in following.items() if ids}
        kept = tuple(year for year in years if year[:start] in tokens and _same_length(model, noun, year))
        if kept:
            return Reading(kept, "are decided by their next token", start, tokens, cut)
    return None


def _digits_at_end(model: Decoder, ids: Sequence[int], year: str) -> list[str]:
    """The tokens of the year that a sentence ends with, as text; none where digits share one with something else."""
    pieces: list[str] = []
    for token in reversed(ids):
        pieces.insert(0, str(model.tokenizer.decode([token])).strip())  # type: ignore[union-attr] - encoded by it
        if "".join(pieces) == year:
            return pieces
        if not year.endswith("".join(pieces)):
            return []
    return []


def _following(model: Decoder, noun: str, year: str, start: int, stop: int, cut: int) -> dict[str, int]:
    """The tokens of all numbers that may stand from digit `start` to `stop` of a year; empty unless each is one."""
    width = stop - start
    numbers = [f"{number:0{width}}" for number in range(10**width)]
    if start == 0:  # years have no leading zeros, and the prompt says no digit of them: any year of the millennium
        numbers = [number for number in numbers if number[0] == year[0]]
    stem = TEMPLATE.format(noun=noun, century=year[:2], year=year[2:]).removesuffix(year[:2]) + year[:start]
    before = encode(model, stem + year[start:])[:-cut]
    found = {}
    for number, ids in zip(numbers, encode_all(model, [stem + one + year[stop:] for one in numbers]), strict=True):
        if len(ids) != len(before) + cut or ids[: len(before)] != before:
            return {}
        found[number] = ids[len(before)]
    return found if _all_tokens(model, found, numbers) else {}


def _all_tokens(model: Decoder, tokens: dict[str, int], texts: Sequence[str]) -> bool:
    """Whether each of `texts` is a token of its own."""
    ids = list(tokens.values())
    return len(set(ids)) == len(texts) and not unknown_words(model, ids)


def _same_length(model: Decoder, noun: str, year: str) -> bool:
    prompt = GreaterThanPrompt(noun, year[:2], year[2:])
    clean, corrupt = encode_all(model, [prompt.clean, prompt.corrupt])
    return len(clean) == len(corrupt)


def _unreadable(model: Decoder, noun: str, found: int) -> EdgewiseError:
    stem, year = BEGINNING.format(noun=noun), "1289"
    pieces = show(model, continuation(model, stem, f" {year}"))
    return EdgewiseError(
        f"task 'greater-than' cannot run on {model.name!r}: it needs years whose later ones can be told by one token, "
        f"such as ['12', '89'] or ['1', '2', '8', '9'] with '00' to '99' or '0' to '9' for one token each, and at "
        f"least {FEWEST_YEARS} of them; of {len(GREATER_THAN_YEARS)} years this model's tokenizer allows {found}, and "
        f"has {pieces} for {year}"
    )
