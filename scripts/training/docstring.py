"""tiny-docstring: attention alone that goes on with the next argument a docstring has to describe."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from edgewise.models.plain_config import PlainTransformerConfig
from edgewise.models.plain_transformer import PlainTransformer
from edgewise.tasks.docstring import docstring_prompts
from edgewise.tasks.word_lists import DOCSTRING_NAMES, DOCSTRING_NOUNS
from training.loop import Settings, initialize_plain
from training.recipe import Figures, Recipe
from training.words import Templates, build_tokenizer, check_tokenizer, vocabulary

NAME = "tiny-docstring"
BOS = "[BOS]"
PATTERN = r'\n+ *(?:"""|:)?|\w+|\):|[,(:]'
# Decoded text has a space between any two tokens; these take away those that are too many.
JOINS = ((r"(?<=\S) (?=[\n,(:)])", ""), (r"(?<=\() |(?<=\n) (?=def)", ""), (r'(?<=""") ', ""), (r"(?<=    :) ", ""))
POSITIONS = 48

# How many arguments stand before and after the three that count, how many words each description has, and how many each
# argument's. The task has 2, 1, 3, 2 and 2 of them. They vary so that the place alone does not tell the answer.
BEFORE, AFTER, DESCRIPTION, WORDS = (1, 2, 3), (0, 1, 2), (2, 3, 4), (1, 2, 3)
TASK_SHAPE = (2, 1, 3, 2, 2)
SHAPES = list(itertools.product(BEFORE, AFTER, DESCRIPTION, WORDS, WORDS))
MOST_NOUNS = max(DESCRIPTION) + 2 * max(WORDS)
UNDEFINED_SHARE = 0.25  # prompts that describe arguments which the function does not have
HELD_OUT_SHARE = 0.1  # of the ordered pairs of names
SPLIT_SEED = 0  # what is held out stays the same whatever the seed of the weights
EVALUATION_PROMPTS = 2000
PAPER_PROMPTS = 100
INITIAL_DEVIATION = 0.1

SETTINGS = Settings(steps=8000, shrink_after=2500, peak_learning_rate=2e-3, shrinkage=0.05)

NAME_SLOTS = ("function", "a", "b", "c", *(f"before{i}" for i in range(3)), *(f"after{i}" for i in range(2)))
DESCRIBED_SLOTS = ("first", "second", "third")
NOUN_SLOTS = tuple(f"noun{i}" for i in range(MOST_NOUNS))
SLOTS = (*NAME_SLOTS, *DESCRIBED_SLOTS, *NOUN_SLOTS)


def template(before: int, after: int, description: int, first_words: int, second_words: int) -> str:
    """The task's prompt with so many arguments and words, and the answer behind it."""
    arguments = [*(f"before{i}" for i in range(before)), "a", "b", "c", *(f"after{i}" for i in range(after))]
    nouns = iter(NOUN_SLOTS)

    def words(count: int) -> str:
        return " ".join(f"{{{next(nouns)}}}" for _ in range(count))

    lines = [
        "",
        f"def {{function}}(self, {', '.join(f'{{{name}}}' for name in arguments)}):",
        f'    """{words(description)}',
        "",
        f"    :param {{first}}: {words(first_words)}",
        f"    :param {{second}}: {words(second_words)}",
        "    :param {third}",
    ]
    return "\n".join(lines)


TEXTS = [template(*shape) for shape in SHAPES]
PIECES = sorted({p for text in TEXTS for p in re.findall(PATTERN, re.sub(r"\{\w+\}", " ", text))})
IDS = vocabulary([BOS], DOCSTRING_NAMES, DOCSTRING_NOUNS, PIECES)
TEMPLATES = Templates(["{bos}" + text for text in TEXTS], (*SLOTS, "bos"), IDS, PATTERN)
NAME_IDS = torch.tensor([IDS[name] for name in DOCSTRING_NAMES])
NOUN_IDS = torch.tensor([IDS[noun] for noun in DOCSTRING_NOUNS])
DESCRIBED_AT = torch.stack(
    [(TEMPLATES.rows == -1 - SLOTS.index(slot)).long().argmax(dim=1) for slot in DESCRIBED_SLOTS], dim=1
)
"""[templates, 3]: where the three described arguments stand."""


def _held_out() -> Tensor:
    """[names, names], True where no training prompt has the second right after the first among its arguments."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    names = len(DOCSTRING_NAMES)
    held_out = torch.rand(names, names, generator=generator) < HELD_OUT_SHARE
    return held_out.fill_diagonal_(False)


HELD_OUT = _held_out()
CANDIDATES = 6  # drawn for each prompt wanted; those with a pair that is held out are thrown away


@dataclass(frozen=True)
class Docstrings:
    """Prompts `[rows, pos]` and what has to be predicted where.

    Attributes:
        described: `[rows, 3]`: where the three described arguments stand; each is predicted one place earlier.
        answers: `[rows, 3]`: what should be predicted there.
        defined: `[rows, vocabulary]`, True at the function's arguments.
    """

    tokens: Tensor
    described: Tensor
    answers: Tensor
    defined: Tensor


def draw(
    count: int,
    generator: torch.Generator,
    *,
    held_out: bool,
    undefined_share: float = 0.0,
    shape: tuple[int, ...] | None = None,
) -> Docstrings:
    """Prompts whose second and third argument that counts are a pair held out, or that have no such pair at all."""
    names = len(DOCSTRING_NAMES)
    rows = count if held_out else CANDIDATES * count
    keys = torch.rand(rows, names, generator=generator)
    if held_out:  # the pair is moved to the front of the order
        pairs = HELD_OUT.nonzero()
        pair = pairs[torch.randint(len(pairs), (rows,), generator=generator)]
        keys.scatter_(1, pair, torch.tensor([-2.0, -1.0]).expand(rows, 2))
    order = keys.argsort(dim=1)[:, : len(NAME_SLOTS) + 2]
    b, c, a, *others = order.unbind(dim=1)
    function, before0, before1, before2, after0, after1, *undefined = others
    which = torch.randint(len(SHAPES), (rows,), generator=generator)
    if shape is not None:
        which.fill_(SHAPES.index(shape))  # pyright: ignore[reportArgumentType]
    before = torch.tensor([one[0] for one in SHAPES])[which]
    after = torch.tensor([one[1] for one in SHAPES])[which]

    if not held_out:
        seen = HELD_OUT[a, b] | HELD_OUT[b, c]
        last = torch.stack((before0, before1, before2))[before - 1, torch.arange(rows)]
        seen |= HELD_OUT[last, a]
        seen |= (before > 1) & HELD_OUT[before0, before1]
        seen |= (before > 2) & HELD_OUT[before1, before2]
        seen |= (after > 0) & HELD_OUT[c, after0]
        seen |= (after > 1) & HELD_OUT[after0, after1]
        kept = (~seen).nonzero().squeeze(1)[:count]
        assert len(kept) == count, "too few prompts without a pair that is held out"
    else:
        kept = torch.arange(count)

    is_undefined = torch.rand(rows, generator=generator) < undefined_share
    first = torch.where(is_undefined, undefined[0], a)
    second = torch.where(is_undefined, undefined[1], b)
    arguments = torch.stack((before0, before1, before2, a, b, c, after0, after1), dim=1)
    present = torch.ones_like(arguments, dtype=torch.bool)
    present[:, 1], present[:, 2] = before > 1, before > 2
    present[:, 6], present[:, 7] = after > 0, after > 1
    third = c
    nouns = torch.rand(rows, len(DOCSTRING_NOUNS), generator=generator).topk(MOST_NOUNS, dim=1).indices
    values = torch.cat(
        (
            NAME_IDS[torch.stack((function, a, b, c, before0, before1, before2, after0, after1), dim=1)[kept]],
            NAME_IDS[torch.stack((first, second, third), dim=1)[kept]],
            NOUN_IDS[nouns[kept]],
            torch.full((count, 1), IDS[BOS]),
        ),
        dim=1,
    )
    defined = torch.zeros(count, len(IDS)).scatter_add_(1, NAME_IDS[arguments[kept]], present[kept].float()) > 0
    answers = NAME_IDS[torch.stack((first, second, third), dim=1)]
    answers[is_undefined] = -1
    tokens = TEMPLATES.fill(which[kept], values)
    return Docstrings(tokens, DESCRIBED_AT[which[kept]], answers[kept], defined)


def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(IDS, PATTERN, JOINS, POSITIONS, bos=BOS)


CONFIG = PlainTransformerConfig(
    n_layers=3,
    n_heads=4,
    d_model=96,
    d_head=24,
    d_mlp=0,
    d_vocab=len(IDS),
    d_vocab_out=len(IDS),
    n_context=POSITIONS,
    normalization="LN",
    positions="standard",
)


def build_model() -> PlainTransformer:
    check_tokenizer(tokenizer(), draw(200, torch.Generator().manual_seed(0), held_out=False).tokens)
    model = PlainTransformer(CONFIG)
    initialize_plain(model, INITIAL_DEVIATION)
    return model


def batch_loss(model: PlainTransformer, step: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Cross-entropy of the three described arguments.

    The first can be any of the function's, and so can the third where the second is none of them: there the target is
    an even spread.
    """
    drawn = draw(settings.batch, generator, held_out=False, undefined_share=UNDEFINED_SHARE)
    stream = model.ln_final(model.streams(drawn.tokens[:, :-1])[-1])
    rows = torch.arange(settings.batch)[:, None]
    logs = model.unembed(stream[rows, drawn.described - 1]).log_softmax(dim=2)  # [rows, 3, vocabulary]
    spread = drawn.defined.float()
    targets = (spread / spread.sum(dim=1, keepdim=True))[:, None].expand(-1, 3, -1).clone()
    told = drawn.answers >= 0
    told[:, 0] = False
    targets[told] = functional.one_hot(drawn.answers[told], len(IDS)).float()
    losses = -(targets * logs).sum(dim=2)
    losses[:, 1] *= told[
        :, 1
    ]  # after an argument that the function does not have comes another one, which is no target
    return losses.sum() / settings.batch


@torch.no_grad()
def third_logits(model: PlainTransformer, drawn: Docstrings) -> Tensor:
    """The logits `[rows, vocabulary]` from which the third described argument is predicted."""
    rows = torch.arange(len(drawn.tokens))
    stream = model.ln_final(model.streams(drawn.tokens[:, :-1])[-1])
    return model.unembed(stream[rows, drawn.described[:, 2] - 1])


def measure(logits: Tensor, answers: Tensor) -> dict[str, float | int]:
    """Figures for `logits` `[rows, vocabulary]` with right answers `[rows]`, against all other names of variables."""
    right = logits.gather(1, answers[:, None]).squeeze(1)
    others = logits.scatter(1, answers[:, None], -torch.inf)
    difference = right - others.amax(dim=1)
    return {
        "prompts": len(answers),
        "accuracy": (difference > 0).double().mean().item(),
        "logit_difference_mean": difference.mean().item(),
        "nll": functional.cross_entropy(logits, answers).item(),
    }


@torch.no_grad()
def evaluate(model: PlainTransformer) -> Figures:
    figures: Figures = {}
    for seed, (label, held_out, shape) in enumerate(
        (
            ("held_out", True, TASK_SHAPE),
            ("held_out_all_shapes", True, None),
            ("seen", False, TASK_SHAPE),
        ),
        start=1001,
    ):
        generator = torch.Generator().manual_seed(seed)
        drawn = draw(EVALUATION_PROMPTS, generator, held_out=held_out, shape=shape)
        figures[label] = measure(third_logits(model, drawn), drawn.answers[:, 2])
    generator = torch.Generator().manual_seed(1004)
    drawn = draw(EVALUATION_PROMPTS, generator, held_out=False, undefined_share=1.0, shape=TASK_SHAPE)
    probabilities = third_logits(model, drawn).softmax(dim=1)
    figures["undefined"] = {
        "prompts": len(probabilities),
        "probability_on_arguments": (probabilities * drawn.defined).sum(dim=1).mean().item(),
        "highest_probability_mean": probabilities.amax(dim=1).mean().item(),
    }
    figures["paper"] = _paper_figures(model)
    return figures


def _paper_figures(model: PlainTransformer) -> dict[str, float | int]:
    """The paper's 100 prompts: the right argument against the 13 wrong ones, and against every token."""
    prompts = docstring_prompts(PAPER_PROMPTS)
    encode = tokenizer()
    rows = torch.tensor([[IDS[BOS], *encode.encode(prompt.clean)] for prompt in prompts])
    logits = model(rows)[:, -1]
    answers = torch.tensor([IDS[prompt.answer] for prompt in prompts])
    wrong = torch.tensor([[IDS[name] for name in prompt.wrong] for prompt in prompts])
    difference = logits.gather(1, answers[:, None]).squeeze(1) - logits.gather(1, wrong).amax(dim=1)
    return measure(logits, answers) | {
        "accuracy_against_13_names": (difference > 0).double().mean().item(),
        "logit_difference_against_13_names": difference.mean().item(),
    }


def _rows(figures: Figures) -> list[tuple[str, int, str]]:
    table = [
        (
            label,
            figures[key]["prompts"],
            f"{figures[key]['accuracy']:.2%} right, logit difference {figures[key]['logit_difference_mean']:.1f}",
        )
        for label, key in (
            ("held out", "held_out"),
            ("held out, more or fewer arguments and words", "held_out_all_shapes"),
            ("the ACDC paper's prompts", "paper"),
        )
    ]
    unsure = figures["undefined"]
    return [
        *table,
        (
            "described arguments that are not defined",
            unsure["prompts"],
            f"{unsure['probability_on_arguments']:.1%} on the arguments, at most "
            f"{unsure['highest_probability_mean']:.1%} on one",
        ),
    ]


RECIPE = Recipe(
    name=NAME,
    task="docstring, that is naming the argument that a Python docstring has to describe next",
    purpose="It was trained from random weights on functions whose docstring goes through three arguments. It knows "
    f"{len(IDS)} words and marks, and reads at most {POSITIONS} of them.",
    loss="cross-entropy of the three described arguments; for the first, and where described arguments are not "
    "defined, with an even spread over the function's arguments",
    held_out="a tenth of the ordered pairs of names, which never follow each other in training; measured on prompts "
    "whose answer and the argument before it are such a pair",
    prompts={
        "template": template(*TASK_SHAPE),
        "arguments_before": list(BEFORE),
        "arguments_after": list(AFTER),
        "words_of_description": list(DESCRIPTION),
        "words_of_an_argument": list(WORDS),
        "share_with_undefined_arguments": UNDEFINED_SHARE,
        "split_seed": SPLIT_SEED,
        "held_out_pairs": int(HELD_OUT.sum()),
        "initial_deviation": INITIAL_DEVIATION,
    },
    settings=SETTINGS,
    build_model=build_model,
    batch_loss=batch_loss,
    evaluate=evaluate,
    bars=lambda figures: [
        ("held-out prompts right", figures["held_out"]["accuracy"], 0.95),
        ("the ACDC paper's prompts right", figures["paper"]["accuracy_against_13_names"], 0.95),
    ],
    rows=_rows,
    tokenizer=tokenizer,
)
