"""tiny-induction: two layers of attention that go on with a repeated string of random tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgewise.models.attention import Attention
from edgewise.models.forward import forward
from edgewise.models.plain import adapt_plain
from edgewise.models.plain_config import PlainTransformerConfig
from edgewise.models.plain_transformer import PlainTransformer
from edgewise.tasks.induction import LENGTH, induction_mask, repeated_tokens
from training.loop import Settings, initialize_plain
from training.recipe import Figures, Recipe

NAME = "tiny-induction"
TOKENS = 64
BOS = 0
POSITIONS = 48
BOS_SHARE = 0.5
SHORTEST, LONGEST = LENGTH // 4, LENGTH // 2
INITIAL_DEVIATION = 0.1
EVALUATION_ROWS = 2000

SETTINGS = Settings(steps=3000, shrink_after=500, peak_learning_rate=3e-3, shrinkage=0.1)

CONFIG = PlainTransformerConfig(
    n_layers=2,
    n_heads=4,
    d_model=64,
    d_head=32,
    d_mlp=0,
    d_vocab=TOKENS,
    d_vocab_out=TOKENS,
    n_context=POSITIONS,
    normalization="LN",
    positions="shortformer",
)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of tokens `[count, POSITIONS]`, and where the next token is to be told, `[count, POSITIONS - 1]`.

    A row is a string of different tokens again and again, after up to LONGEST tokens that it does not hold: so what
    comes before matters at every place. Half of the rows begin with BOS, which the others may hold like any token: the
    model gets to see both.
    """
    period = torch.randint(SHORTEST, LONGEST + 1, (count, 1), generator=generator)
    lead = torch.randint(LONGEST + 1, (count, 1), generator=generator)
    begins = torch.rand(count, 1, generator=generator) < BOS_SHARE
    order = torch.rand(count, TOKENS, generator=generator)
    order[:, BOS] += begins.squeeze(1) * 2.0  # comes last, so that nothing of the row has it
    order = order.argsort(dim=1)
    place = torch.arange(POSITIONS) - begins.long()
    index = torch.where(place < lead, LONGEST + place, (place - lead) % period)
    tokens = order.gather(1, index)
    return torch.where(place < 0, BOS, tokens), (place >= lead + period)[:, :-1]


def build_model() -> PlainTransformer:
    model = PlainTransformer(CONFIG)
    initialize_plain(model, INITIAL_DEVIATION)
    return model


def batch_loss(model: PlainTransformer, step: int, settings: Settings, generator: torch.Generator) -> Tensor:
    tokens, told = draw(settings.batch, generator)
    return functional.cross_entropy(model(tokens[:, :-1])[told], tokens[:, 1:][told])


@torch.no_grad()
def patterns(model: PlainTransformer, tokens: Tensor) -> list[Tensor]:
    """What each layer's heads look at, `[rows, heads, query, key]`."""
    decoder = adapt_plain(model, NAME)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    run, allowed, found = forward(decoder, tokens, mask, keep_projections=True), decoder.allowed(mask), []
    for component, see, projected in zip(decoder.components, allowed, run.projections, strict=True):
        if isinstance(component, Attention) and see is not None:
            found.append(component.pattern(projected["q"], projected["k"], see))
    return found


def head_scores(model: PlainTransformer, tokens: Tensor) -> dict[str, dict[str, float]]:
    """For each head how much it writes, and how much it looks where heads of the two roles look.

    `previous_token`: mean attention to the token before, over all tokens but the first. `induction`: mean attention, at
    the places whose next token has followed before, to the token after the last time the current token stood there.
    `induction_any`: the same for all times that it stood there.
    """
    mask = induction_mask(tokens)
    length = tokens.shape[1]
    same = (tokens[:, :, None] == tokens[:, None, :]).tril(diagonal=-1)
    after = torch.zeros_like(same)
    after[:, :, 1:] = same[:, :, :-1]
    last = after & (torch.arange(length) == (after * torch.arange(length)).amax(dim=2, keepdim=True))
    scores: dict[str, dict[str, float]] = {}
    for layer, pattern in enumerate(patterns(model, tokens)):
        output = model.blocks[layer].attn.W_O
        for head in range(pattern.shape[1]):
            looks = pattern[:, head]
            scores[f"a{layer}.h{head}"] = {
                "output_size": output[head].square().mean().sqrt().item(),
                "previous_token": looks.diagonal(offset=-1, dim1=1, dim2=2).mean().item(),
                "induction": (looks * last).sum(dim=2)[mask].mean().item(),
                "induction_any": (looks * after).sum(dim=2)[mask].mean().item(),
            }
    return scores


@torch.no_grad()
def evaluate(model: PlainTransformer) -> Figures:
    figures: Figures = {}
    for seed, (label, first) in enumerate((("held_out", None), ("held_out_with_bos", BOS)), start=1):
        generator = torch.Generator().manual_seed(1000 + seed)
        tokens = repeated_tokens(EVALUATION_ROWS, LENGTH, TOKENS, generator, first=first)
        told = induction_mask(tokens)[:, :-1]
        logits, answers = model(tokens)[:, :-1][told], tokens[:, 1:][told]
        figures[label] = {
            "rows": len(tokens),
            "predictions": len(answers),
            "accuracy": (logits.argmax(dim=1) == answers).double().mean().item(),
            "nll": functional.cross_entropy(logits, answers).item(),
        }
        if first is None:
            figures["heads"] = head_scores(model, tokens[:500])
    return figures


def _rows(figures: Figures) -> list[tuple[str, int, str]]:
    told = [
        (label, figures[key]["rows"], f"{figures[key]['accuracy']:.2%} of {figures[key]['predictions']} tokens right")
        for label, key in (("held out", "held_out"), ("held out, with BOS", "held_out_with_bos"))
    ]
    heads = [
        (
            f"head {head}",
            500,
            f"previous-token score {one['previous_token']:.2f}, induction score {one['induction']:.2f}",
        )
        for head, one in figures["heads"].items()
        if one["output_size"] > 0
    ]
    return told + heads


def _least_score(figures: Figures, layer: str, score: str) -> float:
    """The least of a layer's heads that write anything."""
    heads = figures["heads"].items()
    return min((one[score] for head, one in heads if head.startswith(layer) and one["output_size"] > 0), default=0.0)


RECIPE = Recipe(
    name=NAME,
    task="induction, that is going on with a string of tokens that has been there before",
    purpose=f"It was trained from random weights on random tokens of which a part is repeated. It knows {TOKENS} "
    f"tokens, of which 0 may begin a prompt, reads at most {POSITIONS} of them, and has no tokenizer.",
    loss="cross-entropy of the tokens that a repetition tells",
    held_out="rows of another seed; there are too many for any to come twice",
    prompts={
        "period": [SHORTEST, LONGEST],
        "tokens_before": [0, LONGEST],
        "share_with_bos": BOS_SHARE,
        "initial_deviation": INITIAL_DEVIATION,
    },
    settings=SETTINGS,
    build_model=build_model,
    batch_loss=batch_loss,
    evaluate=evaluate,
    bars=lambda figures: [
        ("held-out tokens right", figures["held_out"]["accuracy"], 0.99),
        ("held-out tokens right, with BOS", figures["held_out_with_bos"]["accuracy"], 0.99),
        ("previous-token score of layer 0", _least_score(figures, "a0", "previous_token"), 0.6),
        ("induction score of layer 1", _least_score(figures, "a1", "induction"), 0.6),
    ],
    rows=_rows,
)
