"""Indirect object identification: "Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to" -> " Mary".

The template, word lists and pairing are those of the ACDC paper's code: one template with the indirect
object named first, and corrupted prompts that name three other people. A seed draws the same prompts as that code does
with seed 0, 1, 2, 3 for the prompts and the three replacements. `variant="distinct"` has the same clean prompts, and
corrupted ones that always name three different people, none of them in the clean one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewise.models import Decoder
from edgewise.tasks.spans import spanned
from edgewise.tasks.task import PromptText, Split, Task, last_token_prompts
from edgewise.tasks.tokens import known_words, require_words, single_tokens, split_of_one_length
from edgewise.tasks.word_lists import IOI_NAMES, IOI_OBJECTS, IOI_PLACES

TEMPLATE = "Then, {first} and {second} went to the {place}. {giver} gave a {thing} to"
FEWEST_NAMES = 10
METRICS = ("kl_div", "logit_diff", "prob_diff", "frac_correct", "nll", "match_nll")


@dataclass(frozen=True)
class IoiPrompt:
    """One sentence. `mentions` are the names in the order of the text: two people, the giver, who receives."""

    indirect_object: str
    subject: str
    mentions: tuple[str, str, str, str]
    place: str
    thing: str

    @property
    def text(self) -> str:
        """The sentence up to the name that has to follow."""
        first, second, giver, _ = self.mentions
        return TEMPLATE.format(first=first, second=second, giver=giver, place=self.place, thing=self.thing)


@dataclass(frozen=True)
class IoiWords:
    """What sentences are made of: the paper's words, or those of them that a tokenizer allows."""

    names: Sequence[str] = IOI_NAMES
    places: Sequence[str] = IOI_PLACES
    things: Sequence[str] = IOI_OBJECTS


ALL_WORDS = IoiWords()


def ioi_pairs(
    count: int, seed: int = 0, *, distinct: bool = False, words: IoiWords = ALL_WORDS
) -> list[tuple[IoiPrompt, IoiPrompt]]:
    """The first `count` clean and corrupted prompts of a seed. Asking for more leaves the first ones as they are.

    With `distinct`, corrupted prompts always name three different people who are not in the clean one.
    """
    clean = _draw(count, seed, words)
    if distinct:
        return list(zip(clean, _strangers(clean, _drawn_names(seed + 1, words)), strict=True))
    corrupt = _new_indirect_object(clean, _drawn_names(seed + 1, words))
    corrupt = _new_subject(corrupt, _drawn_names(seed + 2, words), everywhere=True)
    corrupt = _new_subject(corrupt, _drawn_names(seed + 3, words), everywhere=False)
    return list(zip(clean, corrupt, strict=True))


def _draw(count: int, seed: int, words: IoiWords) -> list[IoiPrompt]:
    # The draws, and their order, that the original code makes. Its template list has one entry, which costs a draw,
    # and it draws a third name that is never used.
    generator = random.Random((seed + 987654321) % 123456789)
    prompts = []
    for _ in range(count):
        generator.choice((TEMPLATE,))
        names: tuple[str, ...] = ("", "", "")
        while len(set(names)) < 3:
            names = tuple(generator.choice(words.names) for _ in range(3))
        receiver, subject = names[:2]
        place = generator.choice(words.places)
        thing = generator.choice(words.things)
        prompts.append(IoiPrompt(receiver, subject, (receiver, subject, subject, receiver), place, thing))
    return prompts


def _drawn_names(seed: int, words: IoiWords) -> Iterator[str]:
    generator = np.random.RandomState((seed + 345467) % 5432)  # the original's generator
    while True:
        yield words.names[generator.randint(len(words.names))]


def _new_indirect_object(prompts: list[IoiPrompt], names: Iterator[str]) -> list[IoiPrompt]:
    changed = []
    for prompt in prompts:
        name = next(name for name in names if name not in (prompt.indirect_object, prompt.subject))
        first, second, giver, receiver = (name if old == prompt.indirect_object else old for old in prompt.mentions)
        changed.append(replace(prompt, indirect_object=name, mentions=(first, second, giver, receiver)))
    return changed


def _new_subject(prompts: list[IoiPrompt], names: Iterator[str], *, everywhere: bool) -> list[IoiPrompt]:
    # The original draws these names without looking at those in use, and goes by the first (and the last) mention of
    # the subject's name. So now and then (15 of its 200 prompts) a corrupted prompt repeats a name or keeps one of the
    # clean prompt's, and then the "first mention" is the indirect object's.
    changed = []
    for prompt, name in zip(prompts, names, strict=False):
        mentions = list(prompt.mentions)
        last = len(mentions) - 1 - mentions[::-1].index(prompt.subject)
        mentions[mentions.index(prompt.subject)] = name
        if everywhere:
            mentions[last] = name
        first, second, giver, receiver = mentions
        subject = name if everywhere else prompt.subject
        changed.append(replace(prompt, subject=subject, mentions=(first, second, giver, receiver)))
    return changed


def _strangers(prompts: list[IoiPrompt], names: Iterator[str]) -> list[IoiPrompt]:
    changed = []
    for prompt in prompts:
        drawn: list[str] = []
        while len(drawn) < 3:
            name = next(names)
            if name not in (prompt.indirect_object, prompt.subject, *drawn):
                drawn.append(name)
        first, second, giver = drawn
        mentions = (first, second, giver, first)
        changed.append(replace(prompt, indirect_object=first, subject=second, mentions=mentions))
    return changed


def build_ioi(model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task:
    """The IOI task on a model's tokens: `examples` pairs, the first ones for validation, the next ones for test.

    All variants but `distinct` are the paper's prompts. Names that are not one token to the model are left out, and so
    are places and things that it has no word for.

    Raises:
        EdgewiseError: fewer than ten names are one token, or the model's tokenizer has no word for part of a prompt.
    """
    token = single_tokens(model, "Then,", IOI_NAMES)
    left_out = require_words(model, "ioi", len(token), len(IOI_NAMES), FEWEST_NAMES, "names", "one token")
    words = IoiWords([name for name in IOI_NAMES if name in token], *_known(model))

    def draw(count: int) -> list[tuple[IoiPrompt, IoiPrompt]]:
        return ioi_pairs(count, seed, distinct=variant == "distinct", words=words)

    pairs, clean, corrupt = split_of_one_length(
        model, draw, lambda pair: (pair[0].text, pair[1].text), examples, split, "ioi"
    )
    receivers, subjects = ([token[name] for name in names] for names in _of_each(pairs))
    task = Task(
        name="ioi",
        prompts=last_token_prompts(clean, corrupt, [[one] for one in receivers], [[one] for one in subjects]),
        text=tuple(
            PromptText(prompt.text, other.text, (f" {prompt.indirect_object}",), (f" {prompt.subject}",))
            for prompt, other in pairs
        ),
        metric="kl_div",
        metrics=METRICS,
        left_out=(left_out,) if left_out else (),
    )
    return spanned(task, [_spans(*row) for row in zip(clean, receivers, subjects, strict=True)])


def _of_each(pairs: Sequence[tuple[IoiPrompt, IoiPrompt]]) -> tuple[list[str], list[str]]:
    return [prompt.indirect_object for prompt, _ in pairs], [prompt.subject for prompt, _ in pairs]


def _spans(ids: Sequence[int], receiver: int, subject: int) -> dict[str, range]:
    """The tokens that Wang et al. 2022 tell apart: both names, what follows the subject, the subject again, the end."""
    first, second = [place for place, one in enumerate(ids) if one == subject][:2]
    places = {"IO": list(ids).index(receiver), "S1": first, "S1+1": first + 1, "S2": second, "END": len(ids) - 1}
    return {name: range(place, place + 1) for name, place in places.items()}


def _known(model: Decoder) -> tuple[Sequence[str], Sequence[str]]:
    places, things = known_words(model, IOI_PLACES), known_words(model, IOI_OBJECTS)
    # Without any, the paper's stay, and the prompt that cannot be read is named.
    return places or IOI_PLACES, things or IOI_OBJECTS
