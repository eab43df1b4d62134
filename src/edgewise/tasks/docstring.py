"""Docstring: a Python function whose docstring goes through its arguments -> the name of the next one.

    def old(self, first, files, page, names, size, read):
        \"\"\"sector gap population

        :param page: message tree
        :param names: detail mine
        :param                                                                                        -> " size"

Template, word lists and draws are those of Heimersheim and Janiak 2023 as the ACDC paper's code has them. Corrupted
prompts (`random_random` there) have other names in the middle of the definition, and others again in the docstring.
Seed 0 draws the paper's prompts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.models import Decoder
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import known_words, require_words, single_tokens, split_of_one_length
from edgewise.tasks.word_lists import DOCSTRING_NAMES, DOCSTRING_NOUNS

METRICS = ("kl_div", "logit_diff_max", "frac_correct", "logit_diff", "nll", "match_nll")
FEWEST_NAMES = 15
FEWEST_NOUNS = 3
SEED_STRIDE = 1_000_003
"""Prompt i of seed s is drawn with Python's random seeded s * SEED_STRIDE + i."""


@dataclass(frozen=True)
class DocstringPrompt:
    """One pair of prompts. `wrong` are all argument names drawn but the right one, those of corrupted prompts too."""

    clean: str
    corrupt: str
    answer: str
    wrong: tuple[str, ...]


def docstring_prompts(
    count: int, seed: int = 0, names: Sequence[str] = DOCSTRING_NAMES, nouns: Sequence[str] = DOCSTRING_NOUNS
) -> list[DocstringPrompt]:
    """The first `count` prompts of a seed. Asking for more leaves the first ones as they are."""
    return [_draw(random.Random(seed * SEED_STRIDE + index), names, nouns) for index in range(count)]


def _draw(generator: random.Random, all_names: Sequence[str], all_nouns: Sequence[str]) -> DocstringPrompt:
    # The draws, and their order, that the original code makes. Three of the names are for corruptions other than this
    # one: they stand in no prompt, but count as wrong answers.
    function, *names = generator.sample(all_names, FEWEST_NAMES)
    corrupt_middle, corrupt_described = names[1:4], names[4:6]
    middle, before, after = names[8:11], names[11:13], names[13:]
    description = generator.sample(all_nouns, FEWEST_NOUNS)
    nouns = [generator.sample(all_nouns, 2) for _ in middle[:-1]]

    def text(defined: list[str], described: list[str]) -> str:
        return _text(function, [*before, *defined, *after], description, described, nouns)

    return DocstringPrompt(
        clean=text(middle, middle[:-1]),
        corrupt=text(corrupt_middle, corrupt_described),
        answer=middle[-1],
        wrong=tuple(name for name in names if name != middle[-1]),
    )


def _text(
    function: str, defined: list[str], description: list[str], described: list[str], nouns: list[list[str]]
) -> str:
    lines = [
        "",
        f"def {function}(self, {', '.join(defined)}):",
        f'    """{" ".join(description)}',
        "",
        *(f"    :param {name}: {' '.join(words)}" for name, words in zip(described, nouns, strict=True)),
        "    :param",
    ]
    return "\n".join(lines)


def build_docstring(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The docstring task on a model's tokens: `examples` pairs, the first ones for validation, the next for test.

    Prompts begin with a BOS token if the tokenizer has one, as the paper's do. `logit_diff_max` is the paper's
    `docstring_metric`, and `frac_correct` its `docstring_stefan`. All variants are the paper's prompts. Names that are
    not one token to the model are left out, and so are nouns that it has no word for.

    Raises:
        EdgewiseError: fewer names are one token than a prompt needs, or the model's tokenizer has no word for part of a
            prompt.
    """
    token = single_tokens(model, "    :param", DOCSTRING_NAMES)
    nouns = known_words(model, DOCSTRING_NOUNS)
    left_out = (
        require_words(model, "docstring", len(token), len(DOCSTRING_NAMES), FEWEST_NAMES, "names", "one token"),
        require_words(model, "docstring", len(nouns), len(DOCSTRING_NOUNS), FEWEST_NOUNS, "nouns", "known"),
    )
    names = [name for name in DOCSTRING_NAMES if name in token]

    def draw(count: int) -> list[DocstringPrompt]:
        return docstring_prompts(count, seed, names, nouns)

    prompts, clean, corrupt = split_of_one_length(
        model, draw, lambda prompt: (prompt.clean, prompt.corrupt), examples, split, "docstring", bos=True
    )
    return Task(
        name="docstring",
        prompts=last_token_prompts(
            clean,
            corrupt,
            [[token[prompt.answer]] for prompt in prompts],
            [[token[name] for name in prompt.wrong] for prompt in prompts],
        ),
        text=tuple(
            PromptText(prompt.clean, prompt.corrupt, (f" {prompt.answer}",), tuple(f" {name}" for name in prompt.wrong))
            for prompt in prompts
        ),
        metric="kl_div",
        metrics=METRICS,
        left_out=tuple(note for note in left_out if note),
    )
