"""tiny-ioi: a GPT-2 that learns who is given the bone (Wang et al. 2023).

Sentences such as "Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to Mary". In a quarter of them a
third person gives, and the receiver is one of the first two by chance: those are the corrupted prompts of the task,
where the model has to be unsure. Some pairs of names, and in each template some pairs of place and object, are never
seen in training. The run that ships took 10 minutes on 2 CPU threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from edgewise.tasks.ioi import ioi_pairs
from edgewise.tasks.word_lists import IOI_NAMES, IOI_OBJECTS, IOI_PLACES
from training.loop import Settings
from training.recipe import Figures, Recipe, build_gpt2, gpt2_logits

# The first is the paper's. Every sentence ends with the receiver, so the last token is the one that counts.
TEMPLATES: tuple[str, ...] = (
    "Then, {first} and {second} went to the {place}. {giver} gave a {object} to {receiver}",
    "When {first} and {second} got to the {place}, {giver} handed a {object} to {receiver}",
    "Yesterday {first} met {second} outside the {place}, and {giver} brought a {object} for {receiver}",
    "{first} and {second} left the {place}. {giver} passed a {object} to {receiver}",
    "After a long walk to the {place}, {first} sat with {second}, and {giver} offered a {object} to {receiver}",
    "While {first} was working with {second} at the {place}, {giver} found a {object} and showed it to {receiver}",
    "The {place} was quiet. {first} saw {second}, so {giver} took out a {object} for {receiver}",
    "At the {place}, {first} waited for {second}. Later {giver} bought a {object} for {receiver}",
    "Once {first} had joined {second} near the {place}, {giver} sent a {object} to {receiver}",
    "In the morning {first} and {second} wanted a {object}. {giver} got one at the {place} for {receiver}",
)
SLOTS = ("first", "second", "giver", "receiver", "place", "object")
PAD, UNKNOWN = "[PAD]", "[UNK]"
POSITIONS = 32

THIRD_PERSON_SHARE = 0.25  # sentences whose giver is neither of the first two
HELD_OUT_SHARE = 0.2  # of the name pairs, and of the (place, object) pairs of each template
RECEIVER_WEIGHT = 4.0  # how much the receiver counts in the loss; every other token counts 1
BAR = 0.99  # least accuracy on sentences whose names and slots are both held out
EVALUATION_SENTENCES = 4000
PAPER_PROMPTS = 200
INITIALIZER_RANGE = 0.06  # GPT-2's 0.02 is made for wider models; with it copying is learned later
SPLIT_SEED = 0  # the held-out sets stay the same whatever --seed is

Part = Literal["train", "held_out"]


@dataclass(frozen=True)
class Sentences:
    """A batch of sentences; `tokens` is [batch, pos], padded on the right, and every other field is [batch]."""

    tokens: Tensor
    last: Tensor  # position of the receiver, the last token
    first: Tensor
    second: Tensor
    giver: Tensor
    receiver: Tensor


# ------------------------------------------------------------------------------------------------------- tokenizer


def pieces(template: str) -> list[str]:
    """The words, punctuation marks and {slots} of a template, one per token."""
    return re.findall(r"\{\w+\}|\w+|[^\w\s]", template)


def vocabulary() -> dict[str, int]:
    """Padding and unknown first, then the names, places and objects in their lists' order, then the other words."""
    words = [PAD, UNKNOWN, *IOI_NAMES, *IOI_PLACES, *IOI_OBJECTS]
    others = {piece for template in TEMPLATES for piece in pieces(template) if not piece.startswith("{")}
    return {word: index for index, word in enumerate([*words, *sorted(others - set(words))])}


def build_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    # The vocabulary has no "##" pieces; this decoder is here because it joins with spaces, but not before "," and ".".
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        pad_token=PAD,
        padding_side="right",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


# ------------------------------------------------------------------------------------------------------- sentences


class SentenceSource:
    """Draws sentences as tokens, from the training part or from what is held out of it.

    Held out are HELD_OUT_SHARE of the unordered pairs of names (no training sentence holds both names of such a pair)
    and, for each template on its own, HELD_OUT_SHARE of the (place, object) pairs.
    """

    def __init__(self) -> None:
        self.ids = vocabulary()
        longest = max(len(pieces(template)) for template in TEMPLATES)
        rows = [[self._piece_id(piece) for piece in pieces(template)] for template in TEMPLATES]
        self.lengths = torch.tensor([len(row) for row in rows])
        self.rows = torch.tensor([row + [self.ids[PAD]] * (longest - len(row)) for row in rows])
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        self.pairs = self._split_pairs(generator)
        self.slots = self._split_slots(generator)
        self.may_meet = {part: self._meetings(part) for part in self.pairs}

    def _piece_id(self, piece: str) -> int:
        """A word's token, or -1, -2, ... for a slot that is still to be filled."""
        return -1 - SLOTS.index(piece[1:-1]) if piece.startswith("{") else self.ids[piece]

    def _split_pairs(self, generator: torch.Generator) -> dict[Part, Tensor]:
        """Unordered pairs of names as [pairs, 2] indices into IOI_NAMES."""
        pairs = torch.combinations(torch.arange(len(IOI_NAMES)))
        pairs = pairs[torch.randperm(len(pairs), generator=generator)]
        held_out = round(HELD_OUT_SHARE * len(pairs))
        return {"train": pairs[held_out:], "held_out": pairs[:held_out]}

    def _split_slots(self, generator: torch.Generator) -> dict[Part, Tensor]:
        """(place, object) pairs as [templates, pairs, 2] indices into IOI_PLACES and IOI_OBJECTS."""
        slots = torch.cartesian_prod(torch.arange(len(IOI_PLACES)), torch.arange(len(IOI_OBJECTS)))
        shuffled = torch.stack([slots[torch.randperm(len(slots), generator=generator)] for _ in TEMPLATES])
        held_out = round(HELD_OUT_SHARE * len(slots))
        return {"train": shuffled[:, held_out:], "held_out": shuffled[:, :held_out]}

    def _meetings(self, part: Part) -> Tensor:
        """[names, names], 1 where two names may stand in one sentence; weights for drawing a third person."""
        if part == "held_out":
            return 1.0 - torch.eye(len(IOI_NAMES))
        may_meet = torch.zeros(len(IOI_NAMES), len(IOI_NAMES))
        one, other = self.pairs["train"].unbind(dim=1)
        may_meet[one, other] = may_meet[other, one] = 1.0
        return may_meet

    def draw(
        self, count: int, generator: torch.Generator, *, names: Part, slots: Part, third_person_share: float
    ) -> Sentences:
        """Draw `count` sentences. Coins decide who is named first, who gives, and who receives from a third person."""

        def choose(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=generator)

        template = choose(len(TEMPLATES))
        pair = self.pairs[names][choose(len(self.pairs[names]))]
        first, second = torch.where(choose(2).bool(), pair.T, pair.T.flip(0)).unbind()
        giver, receiver = torch.where(choose(2).bool(), pair.T, pair.T.flip(0)).unbind()
        third = torch.multinomial(self.may_meet[names][first] * self.may_meet[names][second], 1, generator=generator)
        by_third = torch.rand(count, generator=generator) < third_person_share
        giver = torch.where(by_third, third.squeeze(1), giver)
        place, thing = self.slots[slots][template, choose(self.slots[slots].shape[1])].unbind(dim=1)

        name_id, place_id, object_id = (self.ids[words[0]] for words in (IOI_NAMES, IOI_PLACES, IOI_OBJECTS))
        people = [name_id + person for person in (first, second, giver, receiver)]
        tokens = self.rows[template]
        for slot, value in enumerate([*people, place_id + place, object_id + thing]):
            tokens = torch.where(tokens == -1 - slot, value.unsqueeze(1), tokens)
        return Sentences(tokens, self.lengths[template] - 1, *people)

    def describe(self) -> dict[str, Any]:
        return {
            "split_seed": SPLIT_SEED,
            "name_pairs": {part: len(pairs) for part, pairs in self.pairs.items()},
            "slots_per_template": {part: pairs.shape[1] for part, pairs in self.slots.items()},
            "how": "Uniformly at random: 20% of the unordered pairs of names (no training sentence holds both names of "
            "such a pair, third persons included), and for each template 20% of its (place, object) pairs.",
        }


SOURCE = SentenceSource()


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, source: SentenceSource) -> None:
    """The tokens the model is trained on are those a user gets by encoding the text."""
    generator = torch.Generator().manual_seed(0)
    drawn = source.draw(200, generator, names="train", slots="train", third_person_share=0.5)
    for row, last in zip(drawn.tokens.tolist(), drawn.last.tolist(), strict=True):
        text = str(tokenizer.decode(row[: last + 1]))
        assert tokenizer.encode(text) == row[: last + 1], text
    for name in IOI_NAMES:
        assert tokenizer.encode(name) == tokenizer.encode(" " + name) == [source.ids[name]], name


# -------------------------------------------------------------------------------------------------------- training


def build_model() -> GPT2LMHeadModel:
    tokenizer = build_tokenizer()
    check_tokenizer(tokenizer, SOURCE)
    return build_gpt2(tokenizer, layers=4, heads=4, width=128, positions=POSITIONS, deviation=INITIALIZER_RANGE)


def batch_loss(model: GPT2LMHeadModel, step: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Mean cross-entropy of every token after the first, the receiver counted RECEIVER_WEIGHT times."""
    sentences = SOURCE.draw(
        settings.batch, generator, names="train", slots="train", third_person_share=THIRD_PERSON_SHARE
    )
    inputs, targets = sentences.tokens[:, :-1], sentences.tokens[:, 1:]
    logits = gpt2_logits(model, inputs)
    losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    weights = (targets != SOURCE.ids[PAD]).float()
    weights.scatter_(1, (sentences.last - 1).unsqueeze(1), RECEIVER_WEIGHT)
    return (losses * weights).sum() / weights.sum()


# ------------------------------------------------------------------------------------------------------ evaluation


@torch.no_grad()
def receiver_logits(model: GPT2LMHeadModel, tokens: Tensor, last: Tensor) -> Tensor:
    """The logits from which the token at `last` is predicted, [batch, vocabulary]."""
    chunks = []
    for rows, ends in zip(tokens.split(500), last.split(500), strict=True):
        logits = gpt2_logits(model, rows)
        chunks.append(logits[torch.arange(len(rows)), ends - 1])
    return torch.cat(chunks)


def measure_ioi(logits: Tensor, answer: Tensor, wrong: Tensor) -> dict[str, float | int]:
    """Figures for sentences with one right receiver: `logits` is [batch, vocabulary], the others [batch]."""
    rows = torch.arange(len(answer))
    difference = logits[rows, answer] - logits[rows, wrong]
    return {
        "prompts": len(answer),
        "accuracy": (logits.argmax(dim=1) == answer).double().mean().item(),
        "logit_difference_mean": difference.mean().item(),
        "logit_difference_min": difference.min().item(),
        "nll": functional.cross_entropy(logits, answer).item(),
    }


def measure_third_person(logits: Tensor, first: Tensor, second: Tensor, giver: Tensor) -> dict[str, float | int]:
    """Figures for sentences whose giver is a third person, where either of the first two may receive."""
    rows = torch.arange(len(first))
    probabilities = logits.softmax(dim=1)
    on_first, on_second = probabilities[rows, first], probabilities[rows, second]
    return {
        "prompts": len(first),
        "probability_on_the_two": (on_first + on_second).mean().item(),
        "probability_on_first_named": on_first.mean().item(),
        "probability_on_second_named": on_second.mean().item(),
        "probability_on_giver": probabilities[rows, giver].mean().item(),
        "mean_absolute_gap_between_the_two": (on_first - on_second).abs().mean().item(),
    }


def evaluate(model: GPT2LMHeadModel) -> Figures:
    """Accuracy on each combination of seen and held-out names and slots, and the spread on third-person prompts."""
    source = SOURCE
    figures: Figures = {}
    parts: dict[str, tuple[Part, Part]] = {
        "held_out": ("held_out", "held_out"),
        "held_out_names": ("held_out", "train"),
        "held_out_slots": ("train", "held_out"),
        "seen_names_and_slots": ("train", "train"),
    }
    for seed, (label, (names, slots)) in enumerate(parts.items(), start=1):
        generator = torch.Generator().manual_seed(seed)
        drawn = source.draw(EVALUATION_SENTENCES, generator, names=names, slots=slots, third_person_share=0.0)
        logits = receiver_logits(model, drawn.tokens, drawn.last)
        figures[label] = measure_ioi(logits, drawn.receiver, drawn.giver)
    both: tuple[Part, Part] = ("held_out", "train")
    for seed, part in enumerate(both, start=len(parts) + 1):
        generator = torch.Generator().manual_seed(seed)
        drawn = source.draw(EVALUATION_SENTENCES, generator, names=part, slots=part, third_person_share=1.0)
        logits = receiver_logits(model, drawn.tokens, drawn.last)
        label = "third_person_held_out" if part == "held_out" else "third_person_seen"
        figures[label] = measure_third_person(logits, drawn.first, drawn.second, drawn.giver)
    return figures | evaluate_paper_prompts(model, source)


def evaluate_paper_prompts(model: GPT2LMHeadModel, source: SentenceSource) -> Figures:
    """The 200 prompt pairs of the ACDC paper: validation and test. Its corrupted prompts repeat a name now and then."""
    pairs = ioi_pairs(PAPER_PROMPTS)
    figures: Figures = {}
    for label, index in (("paper_clean", 0), ("paper_corrupted", 1)):
        prompts = [pair[index] for pair in pairs]
        # pieces() splits as the tokenizer does. The receiver stands at the end only to mark the position.
        rows = torch.tensor([[source.ids[word] for word in pieces(f"{p.text} {p.mentions[3]}")] for p in prompts])
        logits = receiver_logits(model, rows, torch.full((len(rows),), rows.shape[1] - 1))
        first, second, giver, receiver = torch.tensor([[source.ids[n] for n in p.mentions] for p in prompts]).T
        if label == "paper_corrupted":
            figures[label] = measure_third_person(logits, first, second, giver)
            continue
        figures[label] = measure_ioi(logits, receiver, giver)
        shift = source.ids[IOI_NAMES[0]]
        unseen = source.may_meet["train"][receiver - shift, giver - shift] == 0
        figures["paper_clean_held_out_names"] = measure_ioi(logits[unseen], receiver[unseen], giver[unseen])
    return figures


def _rows(figures: Figures) -> list[tuple[str, int, str]]:
    third = figures["third_person_held_out"]
    on_two = [f"{third[f'probability_on_{which}_named']:.1%}" for which in ("first", "second")]
    return [
        *(
            (
                label,
                figures[key]["prompts"],
                f"{figures[key]['accuracy']:.2%} right, logit difference {figures[key]['logit_difference_mean']:.1f}",
            )
            for label, key in (("held out", "held_out"), ("the ACDC paper's prompts", "paper_clean"))
        ),
        ("held out, a third person gives", third["prompts"], f"{' and '.join(on_two)} on the two who may receive"),
    ]


RECIPE = Recipe(
    name="tiny-ioi",
    task="indirect object identification",
    purpose=f"It was trained from random weights on sentences of {len(TEMPLATES)} templates, such as "
    '"Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to Mary". It knows '
    f"{len(SOURCE.ids)} words, and reads at most {POSITIONS} of them.",
    loss=f"cross-entropy of every token after the first, the receiver counted {RECEIVER_WEIGHT:g} times",
    held_out="pairs of names that share no training sentence, with places and objects not seen together in that "
    "template",
    prompts={
        "templates": list(TEMPLATES),
        "third_person_share": THIRD_PERSON_SHARE,
        "held_out": SOURCE.describe(),
    },
    # At a peak rate of 3e-3, 2,500 steps do not teach it to tell giver from receiver; after 1,000 it begins to.
    settings=Settings(steps=6000, shrink_after=1000, threads=2, rivalry=0.0),
    build_model=build_model,
    batch_loss=batch_loss,
    evaluate=evaluate,
    bars=lambda figures: [("held-out sentences right", figures["held_out"]["accuracy"], BAR)],
    rows=_rows,
    tokenizer=build_tokenizer,
)
