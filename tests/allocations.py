"""How much memory torch really takes: every allocation on CPU, added up as it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tiny
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from edgewise.models import Decoder, load_model
from edgewise.tasks.task import Task


def peak_of(work: Callable[[], Any]) -> int:
    """The most bytes that tensors held at any moment of some work, beyond those there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = work()
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [one for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]"]
    del kept
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def gpt2(layers: int, heads: int, d_model: int, vocabulary: int, positions: int) -> Decoder:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=layers, n_head=heads, n_embd=d_model, vocab_size=vocabulary, n_positions=positions, bos_token_id=0
    )
    return load_model(transformers.GPT2LMHeadModel(config))


def llama(layers: int, heads: int, kv_heads: int, d_model: int, vocabulary: int, positions: int) -> Decoder:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        hidden_size=d_model,
        intermediate_size=3 * d_model,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        bos_token_id=0,
    )
    return load_model(transformers.LlamaForCausalLM(config))


def prompts(rows: int, positions: int) -> Task:
    return tiny.task(rows=rows, longest=positions, ragged=False)


SHAPES: dict[str, Callable[[], tuple[Decoder, Task]]] = {
    "many-prompts": lambda: (gpt2(4, 4, 64, 200, 32), prompts(50, 16)),
    "long-prompts": lambda: (gpt2(2, 4, 32, 100, 300), prompts(3, 300)),
    "one-long-prompt": lambda: (llama(2, 8, 2, 32, 100, 400), prompts(1, 400)),
    "wide": lambda: (llama(3, 4, 4, 256, 300, 40), prompts(4, 40)),
    "large-vocabulary": lambda: (gpt2(2, 2, 32, 20_000, 16), prompts(12, 10)),
    "attention-only": lambda: (tiny.plain(mlps=False, layers=2, n_heads=8, d_model=64), prompts(30, 30)),
    "one-row": lambda: (gpt2(6, 8, 64, 100, 40), prompts(1, 30)),
}
"""Models and prompts in which different things take the most."""
