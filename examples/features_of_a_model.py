"""Train a transcoder for every MLP of a model on a task's prompts, and find the circuit over their features.

python examples/features_of_a_model.py
python examples/features_of_a_model.py --model gpt2 --task ioi --features 2048 --steps 2000

The transcoders are written as circuit-tracer has them, so that the shell takes them, too:

edgewise discover gender-pronoun --level feature --dictionary transcoders --within 200 --threshold 0.01
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

import edgewise as ew
from edgewise.models.components import MLP
from edgewise.models.forward import forward


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="tiny-pronoun", help="a built-in model, a hub id, a folder")
    options.add_argument("--task", default="gender-pronoun", help="a built-in task")
    options.add_argument("--layers", type=int, nargs="+", help="whose MLPs get transcoders; by default all")
    options.add_argument("--features", type=int, default=256, help="of each layer")
    options.add_argument("--steps", type=int, default=800, help="of training, for each layer")
    options.add_argument("--sparsity", type=float, default=0.02, help="weight of the features' sum beside the error")
    options.add_argument("--texts", type=int, default=256, help="prompts to train on")
    options.add_argument("--examples", type=int, help="prompt pairs to search on; by default the task's")
    options.add_argument("--within", type=int, default=100, help="units that ACDC tries")
    options.add_argument("--threshold", type=float, default=0.02)
    options.add_argument("--transcoders", type=Path, default=Path("transcoders"), help="a folder for them")
    options.add_argument("--out", default="runs/features", help="a folder for the run")
    asked = options.parse_args()

    model = ew.load_model(asked.model)
    texts = ew.load_task(asked.task, model, examples=asked.texts, seed=1).prompts
    with torch.no_grad():
        run = forward(model, texts.clean, texts.mask)
    asked.transcoders.mkdir(parents=True, exist_ok=True)
    for index, mlp in enumerate(model.components):
        if not isinstance(mlp, MLP) or (asked.layers is not None and mlp.layer not in asked.layers):
            continue
        reads = run.streams[model.reads[index]][texts.mask]
        writes = run.codes[index][:, :, 0][texts.mask]
        tensors, left, active = trained(reads, writes, asked.features, asked.steps, asked.sparsity)
        save_file(tensors, asked.transcoders / f"layer_{mlp.layer}.safetensors")
        print(f"layer {mlp.layer}: {active:.1f} of {asked.features} features active at a time, {left:.1%} unexplained")
    (asked.transcoders / "config.yaml").write_text(
        "model_kind: transcoder_set\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )

    task = ew.load_task(asked.task, model, examples=asked.examples)
    found = ew.discover(
        model,
        task,
        level="feature",
        dictionary=asked.transcoders,
        within=asked.within,
        threshold=asked.threshold,
        out=asked.out,
    )
    print(found)
    for step in sorted(found.trace, key=lambda step: -step.effect)[:8]:
        print(f"  {step.edge:12} {task.metric} rises by {step.effect:.3f} without it")
    unseen = ew.load_task(asked.task, found.model, examples=asked.examples, split="test")
    print("on other prompts:", found.evaluate(unseen))


def trained(
    x: torch.Tensor, y: torch.Tensor, features: int, steps: int, sparsity: float
) -> tuple[dict[str, torch.Tensor], float, float]:
    """A ReLU transcoder from what an MLP reads to what it writes, both `[tokens, d_model]`.

    Returns:
        Its tensors by circuit-tracer's names; what share of the variance of `y` it leaves; how many features are active
        at a token on average.
    """
    generator = torch.Generator().manual_seed(0)
    x, y = x.float().cpu(), y.float().cpu()
    centre, scale, size = x.mean(dim=0), x.std(), y.std()
    encoder = (torch.randn(features, x.shape[1], generator=generator) * x.shape[1] ** -0.5).requires_grad_()
    decoder = (torch.randn(features, y.shape[1], generator=generator) * features**-0.5).requires_grad_()
    bias, offset = torch.zeros(features, requires_grad=True), torch.zeros(y.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([encoder, decoder, bias, offset], lr=3e-3)
    inputs, targets = (x - centre) / scale, (y - y.mean(dim=0)) / size
    length = targets.norm(dim=1).mean()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        rows = torch.randint(len(x), (512,), generator=generator)
        hidden = (inputs[rows] @ encoder.T + bias).relu()
        error = (hidden @ decoder + offset - targets[rows]).square().sum(dim=1).mean()
        loss = error / targets.shape[1] + sparsity * (hidden * decoder.norm(dim=1)).sum(dim=1).mean() / length
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        hidden = (inputs @ encoder.T + bias).relu()
        left = (hidden @ decoder + offset - targets).square().sum() / targets.square().sum()
        tensors = {
            "W_enc": encoder / scale,
            "b_enc": bias - encoder @ centre / scale,
            "W_dec": decoder * size,
            "b_dec": offset * size + y.mean(dim=0),
        }
        active = (hidden > 0).float().sum(dim=1).mean()
    return {name: one.detach().contiguous() for name, one in tensors.items()}, float(left), float(active)


if __name__ == "__main__":
    main()
