"""Which of the tasks that have a name a model can do, and how often it is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgewise.errors import EdgewiseError
from edgewise.evaluation.answers import answers_of
from edgewise.models import Decoder
from edgewise.tasks import TASKS, TaskSpec, make_task, share_by_chance


@dataclass(frozen=True)
class Ability:
    """How a model does on a task.

    Attributes:
        task: its name.
        why_not: why the model cannot do it at all; empty where it can.
        examples: how many prompts it was given.
        right, places: at how many of the scored places it is right; None on a task without answers.
        chance: the share that guessing gets right.
        left_out: what of the task's words is left out for the model's tokenizer.
    """

    task: str
    why_not: str = ""
    examples: int = 0
    right: int | None = None
    places: int = 0
    chance: float = 0.0
    left_out: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """The share of places where the model is right."""
        return None if self.right is None else self.right / self.places


def abilities(model: Decoder, examples: int = 16, seed: int = 0) -> Iterator[Ability]:
    """For each task in turn, whether a model can do it and how often it is right on a task's first prompts."""
    for spec in TASKS.values():
        yield ability(model, spec, examples, seed)


def ability(model: Decoder, spec: TaskSpec, examples: int, seed: int = 0) -> Ability:
    """How a model does on the first `examples` prompts of a task, or as many as there are."""
    count = min(examples, spec.most_examples)
    try:
        task = make_task(spec, model, count, seed=seed)
    except EdgewiseError as error:
        return Ability(spec.name, why_not=str(error))
    said = answers_of(model, task, likeliest=0)
    right = [one.right for one in said if one.right is not None]
    places = sum(one.places for one in said)
    return Ability(
        task=spec.name,
        examples=len(task),
        right=sum(right) if right else None,
        places=places,
        chance=share_by_chance(task),
        left_out=task.left_out,
    )
