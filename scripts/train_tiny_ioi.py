"""Train the small language model that ships with edgewise as the default for the IOI task.

    python scripts/train_tiny_ioi.py

A GPT-2 of four layers of four heads, with its own word-level tokenizer, learns from random weights sentences such as
"Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to Mary": indirect object identification (Wang et
al. 2023). In a quarter of the sentences a third person gives, and the receiver is one of the first two by chance: those
are the corrupted prompts of the task, where the model has to be unsure. Some pairs of names, and in each template some
pairs of place and object, are never seen in training. On sentences made of those alone the model must be right 99% of
the time; otherwise nothing is written and the exit status is 1.

Writes the folder whole or not at all: model and tokenizer in Hugging Face layout, training.json with the settings and
every measured figure, and README.md. The same seed, thread count and torch version give the same weights. The run that
ships took 10 minutes on 2 CPU threads.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from edgewise.tasks.ioi import ioi_pairs
from edgewise.tasks.word_lists import IOI_NAMES, IOI_OBJECTS, IOI_PLACES

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
class Settings:
    """What the training run depends on, and what training.json records."""

    seed: int = 0
    steps: int = 6000
    threads: int = 2
    batch: int = 64
    peak_learning_rate: float = 1e-3  # at 3e-3, 2500 steps do not teach it to tell giver from receiver
    warmup_steps: int = 100
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    shrinkage: float = 0.05
    shrink_after: int = 1000  # about when the model begins to tell giver from receiver


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


def build_model(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=POSITIONS,
        n_embd=128,
        n_layer=4,
        n_head=4,
        initializer_range=INITIALIZER_RANGE,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # A sentence has neither a start nor an end token.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),  # pyright: ignore[reportArgumentType]
    )
    return GPT2LMHeadModel(config)


def build_optimizer(model: GPT2LMHeadModel, settings: Settings) -> torch.optim.Optimizer:
    """AdamW that decays the matrices of the blocks and leaves biases, norms and embeddings alone.

    Embeddings do not decay because shrink_writers works against them: if they shrank along, nothing would change.
    """
    matrices = [p for p in model.transformer.h.parameters() if p.dim() >= 2]
    decayed = {id(p) for p in matrices}
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.peak_learning_rate, betas=(0.9, 0.98))


@torch.no_grad()
def shrink_writers(model: GPT2LMHeadModel, amount: float) -> None:
    """Shorten the output matrix of every head and MLP by `amount` (in root mean square), at most to zero.

    This is the proximal step of a group lasso. Unlike weight decay it takes the same from a part that little depends on
    as from one that matters, so the former falls silent and a circuit of few parts is left.
    """
    for layer in range(model.config.n_layer):
        attention = model.get_parameter(f"transformer.h.{layer}.attn.c_proj.weight")  # [heads * d_head, d_model]
        mlp = model.get_parameter(f"transformer.h.{layer}.mlp.c_proj.weight")
        for writer in (*attention.chunk(model.config.n_head), mlp):  # views: changed in place
            size = writer.square().mean().sqrt()
            writer.mul_((1 - amount / size.clamp_min(1e-12)).clamp_min(0))


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < settings.warmup_steps:
        return settings.peak_learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def sentence_loss(model: GPT2LMHeadModel, sentences: Sentences, pad: int) -> Tensor:
    """Mean cross-entropy of every token after the first, the receiver counted RECEIVER_WEIGHT times."""
    inputs, targets = sentences.tokens[:, :-1], sentences.tokens[:, 1:]
    # Padding stands on the right and attention looks left, so no token sees it and the mask may let everything through.
    logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False).logits
    losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    weights = (targets != pad).float()
    weights.scatter_(1, (sentences.last - 1).unsqueeze(1), RECEIVER_WEIGHT)
    return (losses * weights).sum() / weights.sum()


def train(model: GPT2LMHeadModel, source: SentenceSource, settings: Settings) -> Iterator[tuple[int, float]]:
    """Train in place; yields (step, loss) after each step."""
    optimizer = build_optimizer(model, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    model.train()
    for step in range(settings.steps):
        rate = learning_rate(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = source.draw(
            settings.batch, generator, names="train", slots="train", third_person_share=THIRD_PERSON_SHARE
        )
        loss = sentence_loss(model, batch, source.ids[PAD])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step()
        if step >= settings.shrink_after:
            shrink_writers(model, rate * settings.shrinkage)
        yield step, loss.item()


# ------------------------------------------------------------------------------------------------------ evaluation


@torch.no_grad()
def receiver_logits(model: GPT2LMHeadModel, tokens: Tensor, last: Tensor) -> Tensor:
    """The logits from which the token at `last` is predicted, [batch, vocabulary]."""
    chunks = []
    for rows, ends in zip(tokens.split(500), last.split(500), strict=True):
        logits = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False).logits
        chunks.append(logits[torch.arange(len(rows)), ends - 1])
    return torch.cat(chunks)


def measure_ioi(logits: Tensor, answer: Tensor, wrong: Tensor) -> dict[str, float | int]:
    """Figures for sentences with one right receiver: `logits` is [batch, vocabulary], the others [batch]."""
    rows = torch.arange(len(answer))
    difference = logits[rows, answer] - logits[rows, wrong]
    return {
        "sentences": len(answer),
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
        "sentences": len(first),
        "probability_on_the_two": (on_first + on_second).mean().item(),
        "probability_on_first_named": on_first.mean().item(),
        "probability_on_second_named": on_second.mean().item(),
        "probability_on_giver": probabilities[rows, giver].mean().item(),
        "mean_absolute_gap_between_the_two": (on_first - on_second).abs().mean().item(),
    }


def evaluate(model: GPT2LMHeadModel, source: SentenceSource) -> dict[str, dict[str, float | int]]:
    """Accuracy on each combination of seen and held-out names and slots, and the spread on third-person prompts."""
    model.eval()
    figures: dict[str, dict[str, float | int]] = {}
    parts: dict[str, tuple[Part, Part]] = {
        "held_out_names_and_slots": ("held_out", "held_out"),
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


def evaluate_paper_prompts(model: GPT2LMHeadModel, source: SentenceSource) -> dict[str, dict[str, float | int]]:
    """The 200 prompt pairs of the ACDC paper: validation and test. Its corrupted prompts repeat a name now and then."""
    pairs = ioi_pairs(PAPER_PROMPTS)
    figures = {}
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


# --------------------------------------------------------------------------------------------------------- writing


def training_record(
    model: GPT2LMHeadModel,
    source: SentenceSource,
    settings: Settings,
    figures: dict[str, dict[str, float | int]],
    losses: list[float],
    seconds: float,
) -> dict[str, Any]:
    """What training.json holds."""
    config = model.config
    return {
        "task": "indirect object identification",
        "architecture": {
            "model": "GPT2LMHeadModel",
            "layers": config.n_layer,
            "heads": config.n_head,
            "width": config.n_embd,
            "positions": config.n_positions,
            "vocabulary": config.vocab_size,
            "tied_embeddings": config.tie_word_embeddings,
            "initializer_range": config.initializer_range,
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "settings": asdict(settings),
        "learning_rate_schedule": f"{settings.warmup_steps} steps of linear warm-up, then a cosine to zero",
        "optimizer": "AdamW, betas 0.9 and 0.98, weight decay on the matrices of the blocks only",
        "sparsity": "after shrink_after steps, a proximal group-lasso step on the output matrix of each head and MLP: "
        "its root mean square falls by learning rate * shrinkage per step",
        "loss": f"cross-entropy of every token after the first, the receiver counted {RECEIVER_WEIGHT:g} times",
        "final_loss": sum(losses[-100:]) / len(losses[-100:]),
        "final_loss_is": "the mean of the last 100 steps",
        "seconds": round(seconds, 1),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "sentences": {"templates": list(TEMPLATES), "third_person_share": THIRD_PERSON_SHARE},
        "held_out": source.describe(),
        "figures": figures,
    }


def readme(record: dict[str, Any]) -> str:
    figures, settings, shape = record["figures"], record["settings"], record["architecture"]
    both, paper, third = (figures[key] for key in ("held_out_names_and_slots", "paper_clean", "third_person_held_out"))
    what = (
        f"A GPT-2 of {shape['layers']} layers of {shape['heads']} heads, {record['parameters']:,} parameters, for one "
        "behaviour: indirect object identification. It was trained from random weights on sentences of "
        f'{len(TEMPLATES)} templates, such as "Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to '
        f'Mary". It knows {shape["vocabulary"]} words, reads at most {shape["positions"]} tokens, and is of no use for '
        "anything else."
    )
    how = (
        f"makes this folder: {settings['steps']} steps of {settings['batch']} sentences, "
        f"{record['seconds'] / 60:.0f} minutes on {settings['threads']} CPU threads. A group-lasso step on what each "
        'head and MLP writes keeps the circuit small. "Held out" below: pairs of names that share no training '
        "sentence, with places and objects not seen together in that template."
    )
    return f"""\
# tiny-ioi

{textwrap.fill(what, 110)}

    python scripts/train_tiny_ioi.py

{textwrap.fill(how, 110)}

| measured on | prompts | result |
|---|---|---|
| held out | {both["sentences"]} | {both["accuracy"]:.2%} right, logit difference {both["logit_difference_mean"]:.1f} |
| the ACDC paper's prompts | {paper["sentences"]} | {paper["accuracy"]:.2%} right, \
logit difference {paper["logit_difference_mean"]:.1f} |
| held out, a third person gives | {third["sentences"]} | {third["probability_on_first_named"]:.1%} and \
{third["probability_on_second_named"]:.1%} on the two who may receive |

training.json has the settings, the templates and every figure. Licence: MIT.
"""


def write_folder(out: Path, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, record: dict[str, Any]) -> None:
    """Write beside `out`, then move into place, so that a failure leaves the folder that was there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tiny-ioi-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        (new / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (new / "README.md").write_text(readme(record), encoding="utf-8")
        for file in new.iterdir():
            file.chmod(0o644)  # the weights are saved readable by their owner alone
        if out.exists():
            out.rename(old)
        new.rename(out)


def parse_arguments() -> tuple[Path, Settings]:
    defaults = Settings()
    shipped = Path(__file__).resolve().parents[1] / "src/edgewise/models/shipped/tiny-ioi"
    parser = argparse.ArgumentParser(description="Train the small IOI model that ships with edgewise.")
    parser.add_argument("--out", type=Path, default=shipped, help="folder to write (default: the one that ships)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="weights and sentences (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="CPU threads (default: %(default)s)")
    given = parser.parse_args()
    if given.steps < 1 or given.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    return given.out, Settings(seed=given.seed, steps=given.steps, threads=given.threads)


def main() -> int:
    out, settings = parse_arguments()
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    source = SentenceSource()
    tokenizer = build_tokenizer()
    check_tokenizer(tokenizer, source)
    model = build_model(tokenizer)

    started, losses = time.monotonic(), []
    for step, loss in train(model, source, settings):
        losses.append(loss)
        if (step + 1) % 250 == 0:
            recent = sum(losses[-250:]) / 250
            print(f"step {step + 1}  loss {recent:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    seconds = time.monotonic() - started

    figures = evaluate(model, source)
    print(json.dumps(figures, indent=2))
    accuracy = figures["held_out_names_and_slots"]["accuracy"]
    if accuracy < BAR:
        print(
            f"{accuracy:.2%} of the held-out sentences are right, {BAR:.0%} are needed: nothing written",
            file=sys.stderr,
        )
        return 1
    write_folder(out, model, tokenizer, training_record(model, source, settings, figures, losses, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
