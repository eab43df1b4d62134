"""Text that a model goes on with, beside what it goes on with under a circuit and under the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewise.errors import EdgewiseError, check_seed
from edgewise.graph import Circuit
from edgewise.models import Decoder
from edgewise.models.decoder import positions_of
from edgewise.patching import Ablation, Constants
from edgewise.patching.applied import Corrupt, TextCircuit
from edgewise.tasks import Task
from edgewise.tasks.tokens import check_length, encode

MODEL, CIRCUIT, COMPLEMENT = "model", "circuit", "complement"

NextLogits = Callable[[Tensor], Tensor]
"""Token ids `[1, pos]` -> logits of what comes next `[d_vocab]`."""


@dataclass(frozen=True)
class Continuation:
    """What comes after a prompt.

    Attributes:
        tokens: ids, without the prompt's.
        text: the same as text.
        probabilities: of each token when it was taken, as the model itself or the circuit has them.
        as_model: how many tokens from the start on are those that the model itself goes on with.
    """

    tokens: tuple[int, ...]
    text: str
    probabilities: tuple[float, ...]
    as_model: int


def generate(
    decoder: Decoder,
    circuit: Circuit,
    prompt: str,
    *,
    ablation: str | Ablation | Constants | None = None,
    task: Task | None = None,
    corrupt: Corrupt | None = None,
    complement: bool = False,
    tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Continuation]:
    """Go on with a prompt: by the model, by the circuit, and, if asked to, by everything but the circuit.

    Args:
        ablation, task, corrupt: as in `patching.applied`; the corrupted prompt has to be as long as the prompt.
        tokens: how many to go on with at most; the tokenizer's end of text ends it sooner, and so does the model's
            longest prompt.
        temperature: 0 takes the likeliest token; above, tokens are drawn, each column with the same random numbers.

    Returns:
        `model`, `circuit` and perhaps `complement`, in this order.

    Raises:
        EdgewiseError: the model has no tokenizer, the prompt is empty or too long, or as `patching.applied`.
    """
    if tokens < 1:
        raise EdgewiseError(f"at least one token can be generated, not {tokens}")
    if not 0 <= temperature < float("inf"):
        raise EdgewiseError(f"the temperature should be 0 or more, not {temperature}")
    check_seed(seed)
    ids = encode(decoder, prompt)
    check_length(decoder, ids, "the prompt")
    limit = decoder.config.n_context
    if limit is not None:
        tokens = min(tokens, limit - len(ids))
        if tokens < 1:
            raise EdgewiseError(
                f"the prompt has {len(ids)} tokens, as many as model {decoder.name!r} reads: none can follow"
            )
    if isinstance(corrupt, str):
        other = encode(decoder, corrupt)
        if len(other) != len(ids):
            raise EdgewiseError(
                f"the corrupted prompt has {len(other)} tokens and the prompt {len(ids)}: ablation 'resample' swaps "
                "activations position by position, so they should have one length"
            )
        corrupt = other
    kinds = {CIRCUIT: False, **({COMPLEMENT: True} if complement else {})}
    runs: dict[str, NextLogits] = {MODEL: _own(decoder)}
    for name, rest in kinds.items():
        run = TextCircuit(circuit, decoder, ablation, task=task, corrupt=corrupt, complement=rest)
        runs[name] = _of_circuit(run)
    return _side_by_side(decoder, runs, ids, tokens, temperature, seed)


def _own(decoder: Decoder) -> NextLogits:
    def logits(ids: Tensor) -> Tensor:
        return decoder.run_source(ids, torch.ones_like(ids, dtype=torch.bool), positions_of(ids))[0, -1]

    return logits


def _of_circuit(run: TextCircuit) -> NextLogits:
    return lambda ids: run.decoder.logits(run.final_stream(ids)[0, -1])


@torch.no_grad()
def _side_by_side(
    decoder: Decoder, runs: Mapping[str, NextLogits], ids: list[int], tokens: int, temperature: float, seed: int
) -> dict[str, Continuation]:
    found: dict[str, Continuation] = {}
    for name, logits in runs.items():
        taken, probabilities = _go_on(decoder, logits, ids, tokens, temperature, seed)
        own = found[MODEL].tokens if found else taken
        alike = next((at for at, pair in enumerate(zip(own, taken, strict=False)) if pair[0] != pair[1]), None)
        tokenizer: Any = decoder.tokenizer
        # Decoded behind the prompt, as tokenizers drop the space of a text's first word.
        text = tokenizer.decode([*ids, *taken])[len(tokenizer.decode(ids)) :]
        shared = min(len(own), len(taken)) if alike is None else alike
        found[name] = Continuation(tuple(taken), text, tuple(probabilities), shared)
    return found


def _go_on(
    decoder: Decoder, logits_of: NextLogits, ids: list[int], tokens: int, temperature: float, seed: int
) -> tuple[list[int], list[float]]:
    generator = torch.Generator().manual_seed(seed)
    end, taken, probabilities = getattr(decoder.tokenizer, "eos_token_id", None), list[int](), list[float]()
    for _ in range(tokens):
        logits = logits_of(torch.tensor([[*ids, *taken]], device=decoder.device)).cpu().double()
        chances = torch.softmax(logits, dim=-1)
        if temperature == 0:
            token = int(logits.argmax())
        else:
            drawn = torch.rand(1, generator=generator, dtype=torch.float64)
            reached = torch.softmax(logits / temperature, dim=-1).cumsum(dim=-1)
            token = min(int((reached < drawn * reached[-1]).sum()), len(logits) - 1)
        taken.append(token)
        probabilities.append(float(chances[token]))
        if token == end:
            break
    return taken, probabilities
