"""What a model says on a task's clean prompts, before anyone looks for a circuit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgewise.models import Decoder
from edgewise.models.forward import final_stream
from edgewise.tasks import Reference, Task, right_answers
from edgewise.tasks.task import NO_TOKEN


@dataclass(frozen=True)
class Said:
    """What the model says on one clean prompt.

    Attributes:
        places: how many places of the prompt are scored.
        right: at how many of them the answer is right; None on a task without answers.
        likeliest: the tokens it finds likeliest at the last scored place, and their probabilities; empty on a task
            whose outputs are numbers.
        outputs: those numbers at every scored place, `[places][outputs]`; empty on a task of tokens.
    """

    places: int
    right: int | None
    likeliest: tuple[tuple[str, float], ...]
    outputs: tuple[tuple[float, ...], ...]


@torch.no_grad()
def answers_of(model: Decoder, task: Task, likeliest: int = 3) -> list[Said]:
    """Run the model on the clean prompts and read its answers off, row by row."""
    prompts = task.prompts
    final = final_stream(model, prompts.clean, prompts.mask)
    logits = model.logits(final[prompts.scored_rows, prompts.scored_positions])
    reference = Reference.of(task, logits)
    right = right_answers(logits, reference)
    numbers = task.metric == "l2"
    rows = []
    for row in range(len(task)):
        at = (prompts.scored_rows == row).nonzero()[:, 0]
        top, outputs = (), ()
        if numbers:
            columns = range(logits.shape[1]) if task.outputs is None else task.outputs
            outputs = tuple(tuple(one) for one in logits[at][:, list(columns)].tolist())
        elif len(at):
            values, ids = logits[at[-1]].softmax(dim=-1).topk(min(likeliest, logits.shape[1]))
            top = tuple(
                (token_text(model, token), value) for value, token in zip(values.tolist(), ids.tolist(), strict=True)
            )
        rows.append(Said(len(at), None if right is None else int(right[at].sum()), top, outputs))
    return rows


def meaning_of_right(task: Task) -> str:
    """What it takes for an answer to count as right on a task that has answers (see `right_answers`)."""
    answers, wrong = task.prompts.answers, task.prompts.wrong
    if wrong is None:
        return "the answer is the likeliest token"
    if task.prompts.sequences is not None:
        return "the answer as a whole is likelier than the wrong one, whatever else the model finds likely"
    if answers is not None and bool(((answers != NO_TOKEN).sum(dim=-1) > 1).any()):
        return "the answers are likelier together than the wrong ones, whatever else the model finds likely"
    return "the answer is likelier than every wrong one, whatever else the model finds likely"


def token_text(model: Decoder, token: int) -> str:
    """A token as a person reads it; its number where the model has no tokenizer."""
    return str(token) if model.tokenizer is None else str(model.tokenizer.decode([token]))


def first_tokens(model: Decoder, task: Task) -> list[str]:
    """The first clean prompt's tokens as a person reads them; none where the model has no tokenizer."""
    if model.tokenizer is None:
        return []
    prompts = task.prompts
    return [token_text(model, token) for token in prompts.clean[0][prompts.mask[0]].tolist()]
