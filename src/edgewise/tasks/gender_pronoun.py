"""Gender of a pronoun: "So Mary is a really great friend, isn't" -> " she".

The template is that of the ACDC paper's appendix K. The corrupted prompt has a name of the other gender. The names are
ours: those of the IOI task that nearly always tell the gender.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from edgewise.errors import EdgewiseError
from edgewise.models import Decoder
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import check_length, continuation, encode, encode_all, one_token, show, unknown_words
from edgewise.tasks.word_lists import FEMALE_NAMES, MALE_NAMES

TEMPLATE = "So {name} is a really great friend, isn't"
PRONOUNS = (" he", " she")
METRICS = ("kl_div", "logit_diff", "prob_diff", "frac_correct", "nll", "match_nll")


def gender_pairs(lengths: dict[str, int], seed: int = 0) -> list[tuple[str, str]]:
    """All pairs of a clean and a corrupted name that can be had, in the order of a seed.

    A pair has one name of each gender, both as long as each other; male and female clean names take turns, and no
    name comes as the clean one again before all others have.

    Args:
        lengths: tokens of each name that may be used.
    """
    generator = random.Random(seed)
    male = [name for name in MALE_NAMES if name in lengths]
    female = [name for name in FEMALE_NAMES if name in lengths]
    turns = zip(
        _pairs_of(male, female, lengths, generator), _pairs_of(female, male, lengths, generator), strict=True
    )  # there are as many of either kind: a pair turned round is one of the other kind
    return [pair for turn in turns for pair in turn]


def _pairs_of(
    clean: Sequence[str], corrupt: Sequence[str], lengths: dict[str, int], generator: random.Random
) -> list[tuple[str, str]]:
    others = {name: [other for other in corrupt if lengths[other] == lengths[name]] for name in clean}
    for names in others.values():
        generator.shuffle(names)
    order = generator.sample(clean, len(clean))
    return [(name, others[name][turn]) for turn in range(len(corrupt)) for name in order if turn < len(others[name])]


def build_gender_pronoun(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The pronoun task on a model's tokens: `examples` pairs, the first ones for validation, the next for test.

    Names may be several tokens; those that the tokenizer does not know are left out.

    Raises:
        EdgewiseError: the model's tokenizer has no word for part of the template, does not have " he" and " she" as one
            token each, or knows too few names.
    """
    frame = TEMPLATE.format(name="").replace("  ", " ")
    if unknown_words(model, encode(model, frame)):
        raise EdgewiseError(
            f"task 'gender-pronoun' cannot run on {model.name!r}: its tokenizer has no word for part of {frame!r}"
        )
    prompts = _known(model, (*MALE_NAMES, *FEMALE_NAMES))
    all_names = len(MALE_NAMES) + len(FEMALE_NAMES)
    pairs = gender_pairs({name: len(ids) for name, ids in prompts.items()}, seed)
    if len(pairs) < 2 * examples:
        raise EdgewiseError(
            f"task 'gender-pronoun' needs {2 * examples} pairs of a male and a female name of as many tokens "
            f"({examples} examples for validation and as many for test), and the tokenizer of {model.name!r} allows "
            f"{len(pairs)}: it knows {len(prompts)} of the {all_names} names"
        )
    pairs = pairs[examples : 2 * examples] if split == "test" else pairs[:examples]
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        check_length(model, prompts[name], f"the prompt {TEMPLATE.format(name=name)!r}")
    sentence, needs = TEMPLATE.format(name=pairs[0][0]), "' he' and ' she' to be one token each"
    he, she = (
        one_token(model, continuation(model, sentence, pronoun), pronoun, "gender-pronoun", needs)
        for pronoun in PRONOUNS
    )
    if he == she:
        raise EdgewiseError(
            f"task 'gender-pronoun' needs ' he' and ' she' to be different tokens, and the tokenizer of {model.name!r} "
            f"has {show(model, [he])} for both"
        )
    male = [clean in MALE_NAMES for clean, _ in pairs]
    return Task(
        name="gender-pronoun",
        prompts=last_token_prompts(
            [prompts[clean] for clean, _ in pairs],
            [prompts[corrupt] for _, corrupt in pairs],
            [[he if is_male else she] for is_male in male],
            [[she if is_male else he] for is_male in male],
        ),
        text=tuple(
            PromptText(
                TEMPLATE.format(name=clean),
                TEMPLATE.format(name=corrupt),
                PRONOUNS[:1] if is_male else PRONOUNS[1:],
                PRONOUNS[1:] if is_male else PRONOUNS[:1],
            )
            for (clean, corrupt), is_male in zip(pairs, male, strict=True)
        ),
        metric="kl_div",
        metrics=METRICS,
        left_out=(f"{len(prompts)} of {all_names} names are known",) if len(prompts) < all_names else (),
    )


def _known(model: Decoder, names: Iterable[str]) -> dict[str, list[int]]:
    """The tokens of each name's prompt, for the names that the tokenizer knows."""
    names = list(names)
    prompts = encode_all(model, [TEMPLATE.format(name=name) for name in names])
    return {name: ids for name, ids in zip(names, prompts, strict=True) if not unknown_words(model, ids)}
