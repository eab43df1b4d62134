"""tiny-pronoun: "So Mary is a really great friend, isn't" goes on with "she"."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from edgewise.tasks.gender_pronoun import PRONOUNS, TEMPLATE
from edgewise.tasks.word_lists import FEMALE_NAMES, MALE_NAMES
from training.loop import Settings
from training.recipe import Figures, Recipe, build_gpt2, gpt2_logits
from training.words import Templates, build_tokenizer, check_tokenizer, vocabulary

NAME = "tiny-pronoun"
PATTERN = r"'\w+|\w+|[^\w\s]"
JOINS = ((r" (?=[',.?])", ""),)
POSITIONS = 24
# The first is the task's. Some have a second person, whom the pronoun does not stand for.
TEXTS: tuple[str, ...] = (
    TEMPLATE,
    "{name} is such a good cook, isn't",
    "I heard that {name} is back in town, isn't",
    "You know, {name} is always late, isn't",
    "So {name} is a really great friend of {other}, isn't",
    "My neighbour {name} is taller than {other}, isn't",
    "Today {name} met {other} at the station, because",
    "When {name} called {other} last night, I was told that",
    "We all like {name} a lot, because",
    "Yesterday {name} lost the keys, and now",
)
SLOTS = ("name", "other", "pronoun")
HELD_OUT_SHARE = 0.2
SPLIT_SEED = 0  # what is held out stays the same whatever the seed of the weights
EVALUATION_PROMPTS = 4000
INITIAL_DEVIATION = 0.06
OTHER_SHARE = 0.05

SETTINGS = Settings(steps=2000, shrink_after=400, peak_learning_rate=2e-3)

NAMES = (*MALE_NAMES, *FEMALE_NAMES)
PIECES = sorted({p for text in TEXTS for p in re.findall(PATTERN, re.sub(r"\{\w+\}", " ", text))})
IDS = vocabulary([pronoun.strip() for pronoun in PRONOUNS], NAMES, PIECES)
TEMPLATES = Templates([text + " {pronoun}" for text in TEXTS], SLOTS, IDS, PATTERN)
HE, SHE = (IDS[pronoun.strip()] for pronoun in PRONOUNS)


def _held_out() -> Tensor:
    """[templates, names], True at the pairs that no training prompt has."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    return torch.rand(len(TEXTS), len(NAMES), generator=generator) < HELD_OUT_SHARE


HELD_OUT = _held_out()
PARTS = {False: (~HELD_OUT).nonzero(), True: HELD_OUT.nonzero()}
"""Pairs of template and name, [pairs, 2]: those of training and those held out."""


@dataclass(frozen=True)
class Sentences:
    """Sentences `[rows, pos]` with their pronoun, which stands at `last` and is `answers`."""

    tokens: Tensor
    last: Tensor
    answers: Tensor


def draw(count: int, generator: torch.Generator, *, held_out: bool, template: int | None = None) -> Sentences:
    """Sentences whose template and name were held out together, or were not; of one template where one is given."""
    pairs = PARTS[held_out]
    if template is not None:
        pairs = pairs[pairs[:, 0] == template]
    which, name = pairs[torch.randint(len(pairs), (count,), generator=generator)].unbind(dim=1)
    other = (name + torch.randint(1, len(NAMES), (count,), generator=generator)) % len(NAMES)
    answers = torch.where(name < len(MALE_NAMES), HE, SHE)
    first = IDS[NAMES[0]]
    tokens = TEMPLATES.fill(which, torch.stack((first + name, first + other, answers), dim=1))
    return Sentences(tokens, TEMPLATES.lengths[which] - 1, answers)


def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(IDS, PATTERN, JOINS, POSITIONS)


def build_model() -> GPT2LMHeadModel:
    check_tokenizer(tokenizer(), draw(200, torch.Generator().manual_seed(0), held_out=False).tokens)
    return build_gpt2(tokenizer(), layers=2, heads=4, width=64, positions=POSITIONS, deviation=INITIAL_DEVIATION)


def pronoun_logits(model: GPT2LMHeadModel, drawn: Sentences) -> Tensor:
    """The logits `[rows, vocabulary]` from which the pronoun is predicted."""
    return gpt2_logits(model, drawn.tokens[:, :-1])[torch.arange(len(drawn.last)), drawn.last - 1]


def batch_loss(model: GPT2LMHeadModel, step: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Cross-entropy of the pronoun, which is the other one now and then: else the model grows surer without an end."""
    drawn = draw(settings.batch, generator, held_out=False)
    logits = pronoun_logits(model, drawn)
    other = HE + SHE - drawn.answers
    right, wrong = (functional.cross_entropy(logits, pronoun) for pronoun in (drawn.answers, other))
    return (1 - OTHER_SHARE) * right + OTHER_SHARE * wrong


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel) -> Figures:
    figures: Figures = {}
    for seed, (label, held_out, template) in enumerate(
        (("held_out", True, None), ("held_out_task", True, 0), ("seen", False, None)), start=1001
    ):
        generator = torch.Generator().manual_seed(seed)
        drawn = draw(EVALUATION_PROMPTS, generator, held_out=held_out, template=template)
        logits = pronoun_logits(model, drawn)
        difference = (logits[:, HE] - logits[:, SHE]) * torch.where(drawn.answers == HE, 1, -1)
        figures[label] = {
            "prompts": len(logits),
            "accuracy": (logits.argmax(dim=1) == drawn.answers).double().mean().item(),
            "logit_difference_mean": difference.mean().item(),
            "logit_difference_min": difference.min().item(),
            "nll": functional.cross_entropy(logits, drawn.answers).item(),
        }
    return figures


def _rows(figures: Figures) -> list[tuple[str, int, str]]:
    return [
        (
            label,
            figures[key]["prompts"],
            f"{figures[key]['accuracy']:.2%} right, logit difference {figures[key]['logit_difference_mean']:.1f}",
        )
        for label, key in (("held out", "held_out"), ("held out, the task's template", "held_out_task"))
    ]


RECIPE = Recipe(
    name=NAME,
    task="gender of a pronoun",
    purpose=f'It was trained from random weights on sentences of {len(TEXTS)} templates, such as "So Mary is a really '
    f"great friend, isn't she\", with {len(NAMES)} names. It knows {len(IDS)} words, and reads at most {POSITIONS} of "
    "them.",
    loss=f"cross-entropy of the pronoun, in {OTHER_SHARE:.0%} of the cases of the other one",
    held_out="a fifth of the pairs of template and name",
    prompts={
        "templates": list(TEXTS),
        "names": len(NAMES),
        "split_seed": SPLIT_SEED,
        "held_out_pairs": int(HELD_OUT.sum()),
    },
    settings=SETTINGS,
    build_model=build_model,
    batch_loss=batch_loss,
    evaluate=evaluate,
    bars=lambda figures: [
        ("held-out sentences right", figures["held_out"]["accuracy"], 0.99),
        ("held-out sentences of the task's template right", figures["held_out_task"]["accuracy"], 0.99),
    ],
    rows=_rows,
    tokenizer=tokenizer,
)
