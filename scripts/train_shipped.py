"""Train the small models that ship with edgewise, one for each behaviour.

    python scripts/train_shipped.py tiny-greater-than
    python scripts/train_shipped.py all

A model learns from random weights on prompts drawn at random; some are held out. If too few of those come out right,
nothing is written and the exit status is 1. Each folder is written whole or not at all: the model, its tokenizer where
it has one, training.json with the settings and every measured figure, and README.md. The same seed, thread count and
torch version give the same weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from training import docstring, greater_than, induction, ioi, pronoun
from training.loop import Settings, train
from training.recipe import Recipe, training_record, write_folder

RECIPES: dict[str, Recipe[Any]] = {
    module.RECIPE.name: module.RECIPE for module in (ioi, greater_than, docstring, induction, pronoun)
}
SHIPPED = Path(__file__).resolve().parents[1] / "src/edgewise/models/shipped"
EVERY = 250


def make(recipe: Recipe[Any], settings: Settings, out: Path) -> bool:
    """Train, measure and write one model; False if it falls short and nothing is written."""
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    model = recipe.build_model()

    started, losses = time.monotonic(), []
    for step, loss in train(model, settings, lambda step, draws: recipe.batch_loss(model, step, settings, draws)):
        losses.append(loss)
        if (step + 1) % EVERY == 0:
            recent = sum(losses[-EVERY:]) / EVERY
            print(f"{recipe.name}  step {step + 1}  loss {recent:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    seconds = time.monotonic() - started

    figures = recipe.evaluate(model)
    print(json.dumps(figures, indent=2))
    missed = [(what, reached, needed) for what, reached, needed in recipe.bars(figures) if reached < needed]
    for what, reached, needed in missed:
        print(
            f"{recipe.name}: {what}: {reached:.4f}, and {needed} is needed: nothing written",
            file=sys.stderr,
        )
    if missed:
        return False
    write_folder(out, recipe, model, training_record(recipe, model, settings, figures, losses, seconds))
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the small models that ship with edgewise.")
    parser.add_argument("model", choices=(*RECIPES, "all"))
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the model's folder goes (default: as shipped)")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--seed", type=int, help="of weights and prompts (default: the recipe's)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the recipe's)")
    given = parser.parse_args()
    changes = {key: getattr(given, key) for key in ("steps", "seed", "threads") if getattr(given, key) is not None}
    if any(changes.get(key, 1) < 1 for key in ("steps", "threads")):
        parser.error("--steps and --threads must be at least 1")
    names = list(RECIPES) if given.model == "all" else [given.model]
    made = [make(RECIPES[name], replace(RECIPES[name].settings, **changes), given.out / name) for name in names]
    return 0 if all(made) else 1


if __name__ == "__main__":
    sys.exit(main())
