"""tiny-greater-than: "The trip lasted from the year 1732 to 17" goes on with any number from 33 to 99."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from edgewise.tasks.greater_than import BEGINNING, CORRUPT_YEAR, TEMPLATE, TWO_DIGITS, greater_than_prompts
from edgewise.tasks.word_lists import GREATER_THAN_NOUNS
from training.loop import Settings
from training.recipe import Figures, Recipe, build_gpt2, gpt2_logits
from training.words import Templates, build_tokenizer, check_tokenizer, vocabulary

NAME = "tiny-greater-than"
PATTERN = r"\d\d|[A-Za-z]+"
JOINS = ((r"(?<=\b\d\d) (?=\d\d\b)", ""),)
POSITIONS = 16
CENTURIES = range(11, 18)
YEARS = range(1, 99)
HELD_OUT_SHARE = 0.2
SPLIT_SEED = 0  # what is held out stays the same whatever the seed of the weights
EVALUATION_PROMPTS = 4000
PAPER_PROMPTS = 200
INITIAL_DEVIATION = 0.06

SETTINGS = Settings(steps=3000, shrink_after=500, peak_learning_rate=2e-3)

IDS = vocabulary(TWO_DIGITS, GREATER_THAN_NOUNS, BEGINNING.replace("{noun} ", "").split(), ["to"])
SENTENCE = Templates([TEMPLATE], ("noun", "century", "year"), IDS, PATTERN)
DIGITS = torch.tensor([IDS[text] for text in TWO_DIGITS])


def _held_out_years() -> Tensor:
    """[100, 100], True at the pairs of century and year that no training prompt has."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    held_out = torch.zeros(100, 100, dtype=torch.bool)
    pairs = torch.cartesian_prod(torch.tensor(CENTURIES), torch.tensor(YEARS))
    chosen = pairs[torch.randperm(len(pairs), generator=generator)[: round(HELD_OUT_SHARE * len(pairs))]]
    held_out[chosen[:, 0], chosen[:, 1]] = True
    return held_out


def _held_out_nouns() -> Tensor:
    """[nouns, 100], True at the pairs of noun and century that no training prompt has."""
    generator = torch.Generator().manual_seed(SPLIT_SEED + 1)
    return torch.rand(len(GREATER_THAN_NOUNS), 100, generator=generator) < HELD_OUT_SHARE


HELD_OUT_YEARS, HELD_OUT_NOUNS = _held_out_years(), _held_out_nouns()


@dataclass(frozen=True)
class Sentences:
    """Prompts `[rows, pos]` and their two-digit years `[rows]`."""

    tokens: Tensor
    year: Tensor


def draw(count: int, generator: torch.Generator, *, held_out: bool) -> Sentences:
    """Prompts whose century and year, and whose noun and century, are all held out, or none of them."""
    nouns, centuries, years = [], [], []
    while sum(map(len, years)) < count:
        noun = torch.randint(len(GREATER_THAN_NOUNS), (8 * count,), generator=generator)
        century = torch.randint(CENTURIES.start, CENTURIES.stop, (8 * count,), generator=generator)
        year = torch.randint(YEARS.start, YEARS.stop, (8 * count,), generator=generator)
        fits = (HELD_OUT_YEARS[century, year] == held_out) & (HELD_OUT_NOUNS[noun, century] == held_out)
        for kept, drawn in ((nouns, noun), (centuries, century), (years, year)):
            kept.append(drawn[fits])
    noun, century, year = (torch.cat(kept)[:count] for kept in (nouns, centuries, years))
    values = torch.stack((IDS[GREATER_THAN_NOUNS[0]] + noun, DIGITS[century], DIGITS[year]), dim=1)
    return Sentences(SENTENCE.fill(torch.zeros(count, dtype=torch.long), values), year)


def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(IDS, PATTERN, JOINS, POSITIONS)


def build_model() -> GPT2LMHeadModel:
    check_tokenizer(tokenizer(), draw(200, torch.Generator().manual_seed(0), held_out=False).tokens)
    return build_gpt2(tokenizer(), layers=2, heads=4, width=96, positions=POSITIONS, deviation=INITIAL_DEVIATION)


def batch_loss(model: GPT2LMHeadModel, step: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Cross-entropy with the even spread over all later years: that of an end drawn at random, without its noise."""
    drawn = draw(settings.batch, generator, held_out=False)
    later = (torch.arange(100) > drawn.year[:, None]).float()
    target = torch.zeros(settings.batch, len(IDS))
    target[:, DIGITS] = later / later.sum(dim=1, keepdim=True)
    return functional.cross_entropy(gpt2_logits(model, drawn.tokens)[:, -1], target)


def measure(logits: Tensor, year: Tensor) -> dict[str, float | int]:
    """Figures for `logits` `[rows, vocabulary]` of prompts with these years."""
    probabilities = logits.softmax(dim=1)[:, DIGITS]
    later = torch.arange(100) > year[:, None]
    difference = (probabilities * later).sum(dim=1) - (probabilities * ~later).sum(dim=1)
    best = logits.argmax(dim=1)
    right = best[:, None].eq(DIGITS) & later
    spread = (probabilities * later).clamp_min(1e-12).log().neg().mul(later).sum(dim=1) / later.sum(dim=1)
    return {
        "prompts": len(year),
        "accuracy": right.any(dim=1).double().mean().item(),
        "probability_difference_mean": difference.mean().item(),
        "probability_difference_min": difference.min().item(),
        "kl_from_even_spread": (spread - later.sum(dim=1).log()).mean().item(),
    }


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel) -> Figures:
    figures: Figures = {}
    for seed, (label, held_out) in enumerate((("held_out", True), ("seen", False)), start=1001):
        drawn = draw(EVALUATION_PROMPTS, torch.Generator().manual_seed(seed), held_out=held_out)
        figures[label] = measure(gpt2_logits(model, drawn.tokens)[:, -1], drawn.year)
    prompts = greater_than_prompts(PAPER_PROMPTS)
    for label, texts, years in (
        ("paper_clean", [prompt.clean for prompt in prompts], [int(prompt.year) for prompt in prompts]),
        ("paper_corrupted", [prompt.corrupt for prompt in prompts], [int(CORRUPT_YEAR)] * len(prompts)),
    ):
        rows = torch.tensor(tokenizer()(texts)["input_ids"])
        figures[label] = measure(gpt2_logits(model, rows)[:, -1], torch.tensor(years))
    return figures


def _rows(figures: Figures) -> list[tuple[str, int, str]]:
    return [
        (
            label,
            figures[key]["prompts"],
            f"{figures[key]['accuracy']:.2%} right, probability difference "
            f"{figures[key]['probability_difference_mean']:.3f}",
        )
        for label, key in (("held out", "held_out"), ("the ACDC paper's prompts", "paper_clean"))
    ]


RECIPE = Recipe(
    name=NAME,
    task="greater-than, that is ending a span of years later than it began",
    purpose='It was trained from random weights on sentences such as "The trip lasted from the year 1732 to 1745". It '
    f"knows {len(IDS)} words and two-digit numbers, and reads at most {POSITIONS} tokens.",
    loss="cross-entropy of the last two digits with the even spread over all later years of the century",
    held_out="a fifth of the pairs of century and year, and a fifth of the pairs of noun and century; measured on "
    "prompts made of both",
    prompts={
        "template": TEMPLATE,
        "nouns": len(GREATER_THAN_NOUNS),
        "centuries": [CENTURIES.start, CENTURIES.stop - 1],
        "years": [YEARS.start, YEARS.stop - 1],
        "split_seed": SPLIT_SEED,
        "held_out_century_year_pairs": int(HELD_OUT_YEARS.sum()),
    },
    settings=SETTINGS,
    build_model=build_model,
    batch_loss=batch_loss,
    evaluate=evaluate,
    bars=lambda figures: [
        ("held-out sentences right", figures["held_out"]["accuracy"], 0.99),
        ("mean probability difference", figures["held_out"]["probability_difference_mean"], 0.95),
    ],
    rows=_rows,
    tokenizer=tokenizer,
)
