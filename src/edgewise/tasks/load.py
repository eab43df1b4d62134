"""Tasks by name, and how to load one for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from edgewise.errors import EdgewiseError, check_seed, quoted, unknown
from edgewise.models import Decoder, check
from edgewise.registry import Registry
from edgewise.tasks import docstring, gender_pronoun, greater_than, hand_built, induction, ioi
from edgewise.tasks.docstring import build_docstring
from edgewise.tasks.gender_pronoun import build_gender_pronoun
from edgewise.tasks.greater_than import build_greater_than
from edgewise.tasks.hand_built import build_or_gate, build_tracr_reverse, build_tracr_xproportion
from edgewise.tasks.induction import build_induction
from edgewise.tasks.ioi import build_ioi
from edgewise.tasks.jsonl import Rows, read_rows, rows_of
from edgewise.tasks.known import known_circuit
from edgewise.tasks.own_prompts import build_own
from edgewise.tasks.tables import Dataset, read_dataset
from edgewise.tasks.task import Split, Task

MOST_CHECKED = 512
"""Prompts on which edgewise's reading of the model is compared with the model: of more, so many from first to last."""


class Builder(Protocol):
    """Makes a task's prompts on a model's tokens."""

    def __call__(self, model: Decoder, *, examples: int, seed: int, split: Split, variant: str) -> Task: ...


@dataclass(frozen=True)
class TaskSpec:
    """A task that has a name.

    Attributes:
        model: the built-in model it runs on unless told otherwise.
        metrics: the metrics that make sense, the default first.
        paper_models: names of the model that the ACDC paper ran it on, the usual one first.
        paper_threshold, paper_examples: what a search there uses unless told otherwise: the paper's own.
        examples: how many pairs, unless told otherwise.
        most_examples: how many there are, for each split, or how many are made at most.
        ablation, threshold: what a search uses unless told otherwise.
        variants: the ways of making its prompts, `default` first.
        variant_models: models for some variants, where it is not `model`.
    """

    name: str
    summary: str
    source: str
    model: str
    build: Builder
    examples: int
    threshold: float
    metrics: tuple[str, ...]
    paper_models: tuple[str, ...] = ()
    paper_threshold: float | None = None
    paper_examples: int | None = None
    ablation: str = "resample"
    most_examples: int = 10_000
    variants: tuple[str, ...] = ("default",)
    variant_models: Mapping[str, str] = field(default_factory=dict)

    def default_model(self, variant: str = "default") -> str:
        """The built-in model that `variant` runs on."""
        return self.variant_models.get(variant, self.model)

    def examples_for(self, model: str) -> int:
        """How many pairs to take on a model, unless told otherwise."""
        return self.paper_examples if self.paper_examples and model in self.paper_models else self.examples

    def threshold_for(self, model: str) -> float:
        """The threshold to search with on a model, unless told otherwise."""
        return self.paper_threshold if self.paper_threshold and model in self.paper_models else self.threshold


_GPT2 = ("gpt2", "openai-community/gpt2")
_ATTN_ONLY_4L = ("attn-only-4l", "NeelNanda/Attn_Only_4L512W_C4_Code")
_REDWOOD = ("redwood_attn_2l", "ArthurConmy/redwood_attn_2l")

_OWN = (
    TaskSpec(
        name="ioi",
        summary="indirect object: who is given the bone?",
        source="Wang et al. 2023; ACDC paper",
        model="tiny-ioi",
        build=build_ioi,
        examples=32,
        threshold=0.01,
        metrics=ioi.METRICS,
        paper_models=_GPT2,
        paper_threshold=0.0575,
        paper_examples=100,
        variants=("default", "paper", "distinct"),
    ),
    TaskSpec(
        name="greater-than",
        summary="which years end later than 1289?",
        source="Hanna et al. 2023; ACDC paper",
        model="tiny-greater-than",
        build=build_greater_than,
        examples=32,
        threshold=0.01,
        metrics=greater_than.METRICS,
        paper_models=_GPT2,
        paper_threshold=0.01585,
        paper_examples=100,
        variants=("default", "paper"),
    ),
    TaskSpec(
        name="docstring",
        summary="the next argument that a docstring names",
        source="Heimersheim and Janiak 2023; ACDC paper",
        model="tiny-docstring",
        build=build_docstring,
        examples=20,
        threshold=0.01,
        metrics=docstring.METRICS,
        paper_models=_ATTN_ONLY_4L,
        paper_threshold=0.095,
        paper_examples=50,
        variants=("default", "paper"),
    ),
    TaskSpec(
        name="induction",
        summary="what followed this token before?",
        source="Olsson et al. 2022; ACDC paper",
        model="tiny-induction",
        build=build_induction,
        examples=24,
        threshold=0.01,
        metrics=induction.METRICS,
        paper_models=_REDWOOD,
        paper_threshold=0.1,
        paper_examples=50,
        variants=("default", "once", "paper"),
    ),
    TaskSpec(
        name="gender-pronoun",
        summary="he or she?",
        source="ACDC paper, appendix K",
        model="tiny-pronoun",
        build=build_gender_pronoun,
        examples=24,
        threshold=0.01,
        metrics=gender_pronoun.METRICS,
        paper_models=_GPT2,
        paper_threshold=0.05,
        paper_examples=100,
    ),
    TaskSpec(
        name="tracr-reverse",
        summary="reverse a list of three",
        source="Lindner et al. 2023; ACDC paper",
        model="tracr-reverse",
        build=build_tracr_reverse,
        examples=6,
        most_examples=6,
        threshold=0.01,
        metrics=hand_built.METRICS,
        paper_models=("tracr-reverse",),
        ablation="zero",
        variants=("default", "published"),
    ),
    TaskSpec(
        name="tracr-xproportion",
        summary="share of x among the letters so far",
        source="Lindner et al. 2023; ACDC paper",
        model="tracr-xproportion",
        build=build_tracr_xproportion,
        examples=50,
        most_examples=128,
        threshold=0.01,
        metrics=hand_built.METRICS,
        paper_models=("tracr-xproportion",),
        ablation="zero",
        variants=("default", "paper", "published"),
        variant_models={"paper": "tracr-xproportion-compiled", "published": "tracr-xproportion-compiled"},
    ),
    TaskSpec(
        name="or-gate",
        summary="two heads, either of which is enough",
        source="ACDC paper, appendix M",
        model="or-gate",
        build=build_or_gate,
        examples=1,
        most_examples=1,
        threshold=0.01,
        metrics=hand_built.METRICS,
        paper_models=("or-gate",),
        ablation="zero",
    ),
)

TASKS: Registry[TaskSpec] = Registry(
    "task", "edgewise.tasks", lambda thing: isinstance(thing, TaskSpec), {spec.name: spec for spec in _OWN}
)


def register_task(spec: TaskSpec) -> None:
    """Make a task known by its name, to `load_task` and the command line of this process.

    Raises:
        EdgewiseError: the name is taken.
    """
    TASKS.add(getattr(spec, "name", ""), spec)


def find_spec(task: str | Path) -> TaskSpec | None:
    """The built-in task called `task`, or None where `task` is a JSONL file.

    Raises:
        EdgewiseError: it is neither.
    """
    name = str(task)
    if not name.strip():
        raise EdgewiseError("the task's name is empty")
    if name in TASKS:
        return TASKS[name]
    if _exists(name) or name.endswith((".jsonl", ".json")) or "/" in name:
        return None
    raise unknown("task", name, TASKS)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except PermissionError:  # whoever reads it says so
        return True
    except (OSError, ValueError):  # no file has so long a name, or a null in it
        return False


def check_request(
    task: str | Path | None, examples: int | None, split: str, variant: str, seed: int = 0, skip_bad: bool = False
) -> TaskSpec | None:
    """What `find_spec` gives, once the rest of a request for a task makes sense; needs no model.

    Args:
        task: None for a list of rows.

    Raises:
        EdgewiseError: an unknown task, split or variant, a number of examples that the task does not have, or a seed
            that is none.
    """
    spec = None if task is None else find_spec(task)
    check_seed(seed)
    if examples is not None and (not isinstance(examples, int) or isinstance(examples, bool) or examples < 1):
        raise EdgewiseError(f"examples (--examples) should be a whole number from 1, not {quoted(examples)}")
    if split not in ("validation", "test"):
        raise unknown("split", split, ("validation", "test"))
    if spec is None:
        if variant != "default":
            raise EdgewiseError(f"prompts of one's own have no variants, so {quoted(variant)} cannot be chosen")
        if task is not None and not _exists(str(task)):
            raise EdgewiseError(f"the prompt file {quoted(str(task), 500)}: there is no such file")
        return None
    if variant not in spec.variants:
        raise unknown(f"variant of task {spec.name!r}:", variant, spec.variants)
    if skip_bad:
        raise EdgewiseError(f"skip_bad (--skip-bad) is for one's own prompts; task {spec.name!r} makes its own")
    if examples is not None and examples > spec.most_examples:
        plural = "s" if spec.most_examples != 1 else ""
        raise EdgewiseError(
            f"task {spec.name!r} has {spec.most_examples:,} example{plural} at most, not {quoted(examples)}"
        )
    return spec


def load_task(
    task: str | Path | Sequence[Mapping[str, Any]] | Dataset,
    model: Decoder,
    *,
    examples: int | None = None,
    seed: int = 0,
    split: Split = "validation",
    variant: str = "default",
    name: str = "prompts",
    skip_bad: bool = False,
    ablation: str | None = None,
) -> Task:
    """Load a task for a model, and check on its prompts that edgewise reads the model right.

    Args:
        task: a built-in name (`edgewise tasks` lists them), a JSONL file of `clean`, `corrupt`, `answer`, `wrong`, or a
            list of dictionaries with these, or a `Dataset`.
        examples: how many prompt pairs; by default what the task suggests, or all rows of one's own.
        seed: of the prompts; the same seed gives the same prompts.
        split: `validation`, on which circuits are searched, or `test`, other prompts of the same kind.
        variant: how prompts are made, where the task has a choice (`paper`: as the original did, flaws included).
        name: what a task made of a list is called.
        skip_bad: leave out rows of one's own that are not right, with a warning, rather than refuse them.
        ablation: what one's own prompts are for, if it is known; with `resample`, pairs of two lengths are refused (or
            left out) here.

    Raises:
        EdgewiseError: an unknown task, split or variant; prompts that the model's tokenizer breaks; a broken file; too
            few prompts; or a model that the Decoder does not reproduce on these prompts.
    """
    if not isinstance(task, str | Path | Dataset) and (
        not name.strip() or "/" in name or len(name) > 100
    ):  # it names a folder later on
        raise EdgewiseError(f"a task's name should be a short word or two, without '/', not {quoted(name)}")
    spec = check_request(task if isinstance(task, str | Path) else None, examples, split, variant, seed, skip_bad)
    if spec is None:
        rows = _rows(task, name)
        loaded = build_own(model, rows, examples=examples, split=split, skip_bad=skip_bad, ablation=ablation)
        require_outputs(loaded, model)
        loaded = replace(loaded, prompts=loaded.prompts.to(model.device))
    else:
        count = spec.examples_for(model.name) if examples is None else examples
        loaded = make_task(spec, model, count, seed=seed, split=split, variant=variant)
    return read_right(loaded, model)


def read_right(task: Task, model: Decoder) -> Task:
    """The task, once edgewise is seen to read the model right on its prompts.

    Raises:
        EdgewiseError: the Decoder does not reproduce the model on them.
    """
    prompts = task.prompts
    rows = torch.linspace(0, len(prompts) - 1, min(len(prompts), MOST_CHECKED)).round().long().to(model.device)
    check(model, prompts.clean[rows], prompts.mask[rows])
    return replace(task, n_tokens=model.config.n_tokens)


def _rows(task: str | Path | Sequence[Mapping[str, Any]] | Dataset, name: str) -> Rows:
    if isinstance(task, Dataset):
        return read_dataset(task)
    return read_rows(Path(task)) if isinstance(task, str | Path) else rows_of(task, name)


def make_task(
    spec: TaskSpec,
    model: Decoder,
    examples: int,
    *,
    seed: int = 0,
    split: Split = "validation",
    variant: str = "default",
) -> Task:
    """A task that has a name, on a model's tokens and device; whether edgewise reads the model right is not checked.

    Raises:
        EdgewiseError: the model's tokenizer does not do for the task, or it has no output for an answer.
    """
    made = spec.build(model, examples=examples, seed=seed, split=split, variant=variant)
    require_outputs(made, model)
    left_out = {"left_out": list(made.left_out)} if made.left_out else {}
    return replace(
        made,
        prompts=made.prompts.to(model.device),
        ablation=spec.ablation,
        threshold=spec.threshold_for(model.name),
        settings={
            "task": spec.name,
            "examples": examples,
            "seed": seed,
            "split": split,
            "variant": variant,
            **left_out,
        },
        known_circuit=known_circuit(spec.name, model),
    )


def require_outputs(task: Task, model: Decoder) -> None:
    """Refuse answers that the model has no output for: some models put out fewer tokens than they read."""
    for ids in (task.prompts.answers, task.prompts.wrong):
        most = -1 if ids is None else int(ids.max())
        if most >= model.config.d_vocab:
            raise EdgewiseError(
                f"task {task.name!r} has an answer with the token id {most}, but model {model.name!r} has only "
                f"{model.config.d_vocab} outputs"
            )
