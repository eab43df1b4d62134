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
from dataclasses import dataclass

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import continuation, encode_prompt, one_token
from edgewise.tasks.word_lists import DOCSTRING_NAMES, DOCSTRING_NOUNS

METRICS = ("kl_div", "logit_diff_max", "frac_correct", "logit_diff", "nll", "match_nll")
SEED_STRIDE = 1_000_003
"""Prompt i of seed s is drawn with Python's random seeded s * SEED_STRIDE + i."""


@dataclass(frozen=True)
class DocstringPrompt:
    """One pair of prompts. `wrong` are all argument names drawn but the right one, those of corrupted prompts too."""

    clean: str
    corrupt: str
    answer: str
    wrong: tuple[str, ...]


def docstring_prompts(count: int, seed: int = 0) -> list[DocstringPrompt]:
    """The first `count` prompts of a seed. Asking for more leaves the first ones as they are."""
    return [_draw(random.Random(seed * SEED_STRIDE + index)) for index in range(count)]


def _draw(generator: random.Random) -> DocstringPrompt:
    # The draws, and their order, that the original code makes. Three of the names are for corruptions other than this
    # one: they stand in no prompt, but count as wrong answers.
    function, *names = generator.sample(DOCSTRING_NAMES, 15)
    corrupt_middle, corrupt_described = names[1:4], names[4:6]
    middle, before, after = names[8:11], names[11:13], names[13:]
    description = generator.sample(DOCSTRING_NOUNS, 3)
    nouns = [generator.sample(DOCSTRING_NOUNS, 2) for _ in middle[:-1]]

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
    `docstring_metric`, and `frac_correct` its `docstring_stefan`. All variants are the paper's prompts.

    Raises:
        EdgewiseError: the model's tokenizer has no word for part of a prompt, or does not take every argument's name
            for one token.
    """
    prompts = docstring_prompts(2 * examples, seed)
    prompts = prompts[examples:] if split == "test" else prompts[:examples]
    # The names come first: one that is several tokens makes the prompts of a pair differ in length, too.
    token: dict[str, int] = {}
    for prompt in prompts:
        for name in (prompt.answer, *prompt.wrong):
            if name not in token:
                ids = continuation(model, prompt.clean, f" {name}")
                token[name] = one_token(model, ids, name, "docstring", "every argument's name to be one token")
    clean = [encode_prompt(model, prompt.clean, "docstring", bos=True) for prompt in prompts]
    corrupt = [encode_prompt(model, prompt.corrupt, "docstring", bos=True) for prompt in prompts]
    for prompt, ids, other in zip(prompts, clean, corrupt, strict=True):
        if len(ids) != len(other):
            raise EdgewiseError(
                "task 'docstring' needs the prompts of a pair to have the same number of tokens, and the tokenizer of "
                f"{model.name!r} makes {len(ids)} and {len(other)} of {prompt.clean!r} and {prompt.corrupt!r}"
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
    )
