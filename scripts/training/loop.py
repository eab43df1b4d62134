"""The training loop of the shipped models: AdamW, a cosine, and a group lasso that leaves a small circuit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from edgewise.models.plain_transformer import PlainTransformer

SMALLEST = 1e-12


@dataclass(frozen=True)
class Settings:
    """What a training run depends on, and what training.json records.

    Attributes:
        shrinkage, rivalry, shrink_after: how heads and MLPs are shortened (see `shrink`), and from which step on.
    """

    steps: int
    shrink_after: int
    seed: int = 0
    threads: int = 1
    batch: int = 64
    peak_learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    shrinkage: float = 0.05
    rivalry: float = 1.0


OPTIMIZER = "AdamW, betas 0.9 and 0.98, weight decay on the matrices of the blocks and an unembedding of its own"
SPARSITY = (
    "after shrink_after steps, a proximal group-lasso step on the output matrix of each head and MLP: its root mean "
    "square falls by learning rate * shrinkage per step, for heads times (the largest of its layer / its own) ** "
    "rivalry; a token embedding of its own is held at a root mean square of 1 meanwhile"
)


def writers(model: nn.Module) -> list[list[Tensor]]:
    """The output matrices of heads and MLPs, as views that may be changed in place.

    The heads of a layer are one group, and so is each MLP.
    """
    groups: list[list[Tensor]] = []
    if isinstance(model, GPT2LMHeadModel):
        for layer in range(model.config.n_layer):
            attention = model.get_parameter(f"transformer.h.{layer}.attn.c_proj.weight")  # [heads * d_head, d_model]
            groups.append(list(attention.detach().chunk(model.config.n_head)))
            groups.append([model.get_parameter(f"transformer.h.{layer}.mlp.c_proj.weight").detach()])
        return groups
    assert isinstance(model, PlainTransformer)
    for block in model.blocks:
        groups.append(list(block.attn.W_O.detach()))
        if block.mlp is not None:
            groups.append([block.mlp.W_out.detach()])
    return groups


def shrink(group: Sequence[Tensor], amount: float, rivalry: float) -> None:
    """Shorten each matrix by `amount` (in root mean square), at most to zero: the proximal step of a group lasso.

    Unlike weight decay it takes the same from a part that little depends on as from one that matters, so the former
    falls silent and a circuit of few parts is left. `rivalry` settles between parts that do the same: those smaller
    than the largest of their group lose more, by that power of the ratio.
    """
    sizes = [matrix.square().mean().sqrt().clamp_min(SMALLEST) for matrix in group]
    largest = torch.stack(sizes).max()
    for matrix, size in zip(group, sizes, strict=True):
        matrix.mul_((1 - amount * (largest / size) ** rivalry / size).clamp_min(0))


@torch.no_grad()
def hold_embedding(model: nn.Module) -> None:
    """Keep the root mean square of a separate token embedding at 1.

    Were it free to shrink with what heads write, the norms would make up for both, and shrinking would change nothing.
    An embedding tied to the unembedding cannot shrink for free, and is left alone.
    """
    if isinstance(model, PlainTransformer):
        embedding = model.embed.W_E
        embedding.div_(embedding.square().mean().sqrt())


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < settings.warmup_steps:
        return settings.peak_learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW that decays the matrices of the blocks, and the unembedding where it is not the embedding."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= 2 and not name.split(".")[-1].startswith("b_")
        to_decay = is_matrix and name.startswith(("transformer.h.", "blocks.", "unembed."))
        (decayed if to_decay else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.peak_learning_rate, betas=(0.9, 0.98))


def train(
    model: nn.Module, settings: Settings, batch_loss: Callable[[int, torch.Generator], Tensor]
) -> Iterator[tuple[int, float]]:
    """Train in place; yields (step, loss) after each step. `batch_loss` draws a step's batch and gives its loss."""
    optimizer = build_optimizer(model, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    groups = writers(model)
    model.train()
    for step in range(settings.steps):
        rate = learning_rate(step, settings)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        loss = batch_loss(step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step()
        hold_embedding(model)
        if step >= settings.shrink_after:
            for group in groups:
                shrink(group, rate * settings.shrinkage, settings.rivalry)
        yield step, loss.item()
    model.eval()


def initialize_plain(model: PlainTransformer, deviation: float) -> None:
    """Switch gradients on and start from normal random weights, biases at zero.

    Embeddings start at the size they are held at, positions likewise: else what a token is drowns where it stands.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(True)
        field = name.split(".")[-1]
        if field in ("W_E", "W_pos"):
            nn.init.normal_(parameter, std=1.0)
        elif field in ("W_O", "W_out"):
            nn.init.normal_(parameter, std=deviation / math.sqrt(2 * model.config.n_layers))
        elif field.startswith("W_"):
            nn.init.normal_(parameter, std=deviation)
