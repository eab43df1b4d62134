"""Greater-than: "The demonstrations lasted from the year 1289 to 12" -> any of "90" to "99".

Template, nouns and years are those of Hanna et al. 2023 as the ACDC paper's code has them; the corrupted prompt says
year "01", after which any end will do. Seed 0 draws the paper's prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import continuation, encode, encode_prompt, one_token, show
from edgewise.tasks.word_lists import GREATER_THAN_NOUNS, GREATER_THAN_YEARS

BEGINNING = "The {noun} lasted from the year"
TEMPLATE = BEGINNING + " {century}{year} to {century}"
CORRUPT_YEAR = "01"
TWO_DIGITS = tuple(f"{number:02}" for number in range(100))
METRICS = ("kl_div", "prob_diff", "logit_diff", "frac_correct", "nll", "match_nll")
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


def greater_than_prompts(count: int, seed: int = 0) -> list[GreaterThanPrompt]:
    """The first `count` prompts of a seed. Asking for more leaves the first ones as they are."""
    generator = torch.Generator().manual_seed((PAPER_SEED + seed) % 2**63)
    prompts: list[GreaterThanPrompt] = []
    while len(prompts) < count:
        # The original draws all nouns, then all years, for its 200 prompts. So more come in blocks of 200.
        nouns = torch.randint(0, len(GREATER_THAN_NOUNS), (PAPER_ROWS,), generator=generator).tolist()
        years = torch.randint(0, len(GREATER_THAN_YEARS), (PAPER_ROWS,), generator=generator).tolist()
        for noun, index in zip(nouns, years, strict=True):
            year = GREATER_THAN_YEARS[index]
            prompts.append(GreaterThanPrompt(GREATER_THAN_NOUNS[noun], year[:2], year[2:]))
    return prompts[:count]


def build_greater_than(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The greater-than task on a model's tokens: `examples` pairs, the first ones for validation, the next for test.

    Answers are the tokens of all later two-digit numbers, wrong answers those up to the year itself. So `prob_diff` is
    the paper's `greaterthan`. All variants are the paper's prompts.

    Raises:
        EdgewiseError: the model's tokenizer does not split years into century and rest, does not have all of "00" to
            "99" as one token each, or has no word for part of a prompt.
    """
    prompts = greater_than_prompts(2 * examples, seed)
    prompts = prompts[examples:] if split == "test" else prompts[:examples]
    clean = [encode_prompt(model, prompt.clean, "greater-than") for prompt in prompts]
    digits = _two_digit_tokens(model, prompts[0])
    corrupt = [_corrupt(model, prompt, ids, digits) for prompt, ids in zip(prompts, clean, strict=True)]
    return Task(
        name="greater-than",
        prompts=last_token_prompts(
            clean,
            corrupt,
            [digits[prompt.later :] for prompt in prompts],
            [digits[: prompt.later] for prompt in prompts],
        ),
        text=tuple(
            PromptText(prompt.clean, prompt.corrupt, TWO_DIGITS[prompt.later :], TWO_DIGITS[: prompt.later])
            for prompt in prompts
        ),
        metric="kl_div",
        metrics=METRICS,
    )


def _two_digit_tokens(model: Decoder, prompt: GreaterThanPrompt) -> list[int]:
    """The ids of "00" to "99" as they stand after a century."""
    needs = "each of '00' to '99' to be one token after a century"
    tokens = [
        one_token(model, continuation(model, prompt.clean, text), text, "greater-than", needs) for text in TWO_DIGITS
    ]
    if len(set(tokens)) != len(tokens):
        raise EdgewiseError(
            f"task 'greater-than' needs '00' to '99' to be different tokens; the tokenizer of {model.name!r} has only "
            f"{len(set(tokens))} for them"
        )
    return tokens


def _corrupt(model: Decoder, prompt: GreaterThanPrompt, clean: list[int], digits: Sequence[int]) -> list[int]:
    """The clean prompt's ids with the two digits of its year replaced, once those are known to be a token."""
    before = encode(model, BEGINNING.format(noun=prompt.noun))
    century = continuation(model, prompt.clean.removesuffix(f" {prompt.century}"), f" {prompt.century}")
    wanted = [*century, digits[int(prompt.year)]]
    year = clean[len(before) :][: len(wanted)]
    if len(century) != 1 or clean[: len(before)] != before or year != wanted or clean[-1] != century[0]:
        whole = continuation(model, BEGINNING.format(noun=prompt.noun), f" {prompt.century}{prompt.year}")
        raise EdgewiseError(
            f"task 'greater-than' needs a year to be two tokens, such as [' {prompt.century}', '{prompt.year}'], and "
            f"the century at the end to be the first of them; for {prompt.century}{prompt.year} the tokenizer of "
            f"{model.name!r} has {show(model, whole)} and {show(model, century)}"
        )
    return [*clean[: len(before) + 1], digits[int(CORRUPT_YEAR)], *clean[len(before) + 2 :]]
