"""Models and prompts for the benchmarks: shapes of well-known models with random weights.

Components' sizes are heavy-tailed (each head's and MLP's output is scaled by exp of a normal variable), which gives
sparse circuits, as in trained models; plain random weights give circuits of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from edgewise.models import Decoder, load_model
from edgewise.tasks.task import PromptText, Task, last_token_prompts

GPT2: dict[str, dict[str, int]] = {
    "4 layers x 4 heads, width 128": {"n_layer": 4, "n_head": 4, "n_embd": 128, "vocab_size": 512},
    "GPT-2 small": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "GPT-2 medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "GPT-2 large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "GPT-2 XL": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}
LLAMA: dict[str, dict[str, int]] = {
    "Llama, 2 layers x 4 heads, width 64": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "vocab_size": 512,
    },
    "SmolLM2 135M": {
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "Llama 3.2 1B": {
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "vocab_size": 128256,
    },
    "Llama 3.1 8B": {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
}
CONTEXT = 128


@dataclass(frozen=True)
class Case:
    """One model and its prompts; `layers` other than the shape's own where that is varied."""

    shape: str
    rows: int
    length: int
    layers: int = 0
    dtype: str = "float32"
    spread: float = 1.0


def make_model(case: Case, device: str = "cpu") -> Decoder:
    """The shape with random weights, its components' sizes heavy-tailed with standard deviation `spread` in the log."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            source = _gpt2(case) if case.shape in GPT2 else _llama(case)
    finally:
        torch.set_default_dtype(before)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight, heads in _writers(source):
            factors = (case.spread * torch.randn(heads, generator=generator)).exp()
            weight.unflatten(0, (heads, -1)).mul_(factors.to(weight)[:, None, None])
    return load_model(source, device=device, dtype=case.dtype)  # type: ignore[arg-type] - one of three names


def _gpt2(case: Case) -> Any:
    shape: dict[str, Any] = {"vocab_size": 50257, **GPT2[case.shape]}
    if case.layers:
        shape["n_layer"] = case.layers
    config = transformers.GPT2Config(**shape, n_positions=CONTEXT, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def _llama(case: Case) -> Any:
    shape: dict[str, Any] = dict(LLAMA[case.shape])
    if case.layers:
        shape["num_hidden_layers"] = case.layers
    config = transformers.LlamaConfig(**shape, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=0)
    return transformers.LlamaForCausalLM(config)


def _writers(source: Any) -> list[tuple[torch.Tensor, int]]:
    """Each weight that writes to the residual stream, `[in, d_model]`, and to how many heads it belongs (an MLP: 1)."""
    found = []
    if hasattr(source, "transformer"):
        for block in source.transformer.h:
            found += [(block.attn.c_proj.weight, source.config.n_head), (block.mlp.c_proj.weight, 1)]
    else:
        for block in source.model.layers:
            found += [
                (block.self_attn.o_proj.weight.T, source.config.num_attention_heads),
                (block.mlp.down_proj.weight.T, 1),
            ]
    return found


def make_task(model: Decoder, case: Case) -> Task:
    """Random clean and corrupted tokens; the metric is KL at the last one."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, case.rows, case.length)
    clean, corrupt = torch.randint(0, model.config.n_tokens, shape, generator=generator).tolist()
    task = Task(
        name="random",
        prompts=last_token_prompts(clean, corrupt),
        text=tuple(PromptText("", "") for _ in range(case.rows)),
        metric="kl_div",
        metrics=("kl_div",),
    )
    return Task(**{**vars(task), "prompts": task.prompts.to(model.device)})
