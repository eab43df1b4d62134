"""Which head matters most, where it looks, what it reads there, and by which paths that reaches the answer.

python examples/follow_a_head.py
python examples/follow_a_head.py --model gpt2
"""

from __future__ import annotations

import argparse

import edgewise as ew
from edgewise.discovery import gradient_maps, heat_maps


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="tiny-ioi", help="a built-in model, a hub id, a folder")
    options.add_argument("--task", default="ioi")
    options.add_argument("--examples", type=int, default=16)
    options.add_argument("--gradient", action="store_true", help="estimate effects by gradients, for large models")
    asked = options.parse_args()

    model = ew.load_model(asked.model)
    task = ew.load_task(asked.task, model, examples=asked.examples)
    experiment = ew.Experiment(model, task, metric="logit_diff")
    maps = (gradient_maps if asked.gradient else heat_maps)(experiment)
    layer, head = divmod(int(maps.heads[1:].argmax()) + maps.heads.shape[1], maps.heads.shape[1])
    name = f"a{layer}.h{head}"
    print(f"{name} matters most of all heads behind the first layer: without it the logit difference falls by", end=" ")
    print(f"{float(maps.heads[layer, head]):.3f}")

    parts = ew.head_parts(experiment, name)
    place, key = 0, int(parts.keys[0])
    tokens = task.prompts.clean[int(task.prompts.scored_rows[place])].tolist()
    token = model.tokenizer.decode([tokens[key]]) if model.tokenizer is not None else str(tokens[key])
    share = float(parts.pattern[place, key])
    print(f"in the first prompt {share:.0%} of its attention is at position {key}, {token!r}")

    paths = [f"{name}->logits", *(f"input->{name}<{kind}>->logits" for kind in "qkv")]
    for effect in ew.patch_paths(experiment, *paths, together=False):
        lost = "" if effect.share is None else f" ({effect.share:.0%} of it)"
        print(f"  {'+'.join(effect.paths):28} costs {effect.effect:+.3f} of the logit difference{lost}")


if __name__ == "__main__":
    main()
