"""What is asked for: a search, in a model, on a task.

Each field is declared here. Its help is what the shell shows; `cli/options.py` makes the shell's options of the fields,
`discover` takes those of a search as keywords, and `to_dict` gives what `run.json` keeps of them. Importing this does
not wait for torch.
"""

# ruff: noqa: RUF009 - `asked` gives a field, which dataclass takes apart

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from edgewise.errors import EdgewiseError, check_seed, quoted
from edgewise.runs.search_request import SearchRequest, asked

if TYPE_CHECKING:
    from edgewise.models import Decoder
    from edgewise.tasks import Task, TaskSpec


def _dataset(text: str) -> Any:
    """A field of prompts from a dataset."""
    return asked(None, text, panel="Prompts from a dataset")


@dataclass(frozen=True)
class ModelRequest:
    """In which model; as `load_model` takes it."""

    model: str | None = asked(
        None,
        "A built-in model, a Hugging Face id, a folder, or a .gguf file. Default: the task's own.",
        flags=("--model", "-m"),
        completes="MODELS",
    )
    device: str | None = asked(None, "cpu, cuda, cuda:0, ..., mps. Default: CUDA where there is one.")
    dtype: str | None = asked(None, "float32 (default), float64, bfloat16 or float16.")
    fold_value_biases: bool = asked(
        False,
        "Count heads' value biases to their layer, so that they stay when a head is removed under zero ablation (as in "
        "the paper's runs on GPT-2).",
    )
    fold_norm_biases: bool = asked(
        False,
        "Before that, count the biases of norms to the maps that read them: with both, zero ablation and --permuted "
        "are what they are in TransformerLens.",
    )
    permuted: int | None = asked(
        None, "A control: shuffle the model's heads and neurons with this seed, and compare with the model as it was."
    )
    revision: str | None = asked(None, "Branch, tag or commit of a model from the Hugging Face hub.")
    trust_layout: bool = asked(
        False, "Read a model of an unknown family like the known one whose modules it has, if it computes the same."
    )
    device_map: str | Mapping[str, Any] | None = asked(
        None,
        "Instead of a device, for a model that does not fit on one: auto, balanced, balanced_low_0, sequential, "
        "cpu-offload, disk-offload, or a JSON file of modules and devices.",
    )
    memory_per_device: str | Mapping[str, Any] | None = asked(
        None, "With a device map by size (auto): the most that weights may take on each, as in 0=20GB,cpu=60GB."
    )
    offload_folder: str | None = asked(
        None, "Where weights are written that go to disk and are not in the checkpoint as they are needed."
    )
    offload_activations: bool = asked(
        False,
        "Keep what is recorded of the model in the CPU's memory, and bring it to the GPU component by component.",
    )

    def check(self) -> None:
        """Raise an EdgewiseError for what needs no model to be refused."""
        if self.permuted is not None:
            check_seed(self.permuted, "the seed of a permutation (--permuted)")

    def load(self, task: TaskSpec | None = None, variant: str = "default") -> Decoder:
        """The model; by default that of `task`.

        Raises:
            EdgewiseError: as `load_model`, or there is no default.
        """
        from edgewise.models import load_model, permuted

        name = self.model
        if name is None:
            if task is None:
                raise EdgewiseError("prompts from a file need a model: say which with --model")
            name = task.default_model(variant)
        dtype: Any = self.dtype  # checked by load_model
        loaded = load_model(
            name,
            device=self.device,
            dtype=dtype,
            revision=self.revision,
            fold_value_biases=self.fold_value_biases,
            fold_norm_biases=self.fold_norm_biases,
            trust_layout=self.trust_layout,
            device_map=self.device_map,
            memory_per_device=self.memory_per_device,
            offload_folder=self.offload_folder,
            offload_activations=self.offload_activations,
        )
        return loaded if self.permuted is None else permuted(loaded, self.permuted)


@dataclass(frozen=True)
class TaskRequest:
    """On which task; as `load_task` takes it."""

    task: str = asked("", "A built-in task (see: edgewise tasks) or a JSONL file.", completes="TASKS")
    examples: int | None = asked(None, "Prompt pairs to use. Default: the task's suggestion, or all rows of a file.")
    skip_bad: bool = asked(False, "Leave out rows of your own file that are not right, rather than refuse them.")
    seed: int = asked(0, "Seed of the prompts, of shuffled orders, and of learned masks.")
    variant: str = asked("default", "How the task's prompts are made (see: edgewise tasks).")
    split: str = asked("validation", "validation: the prompts a search uses; test: others like them.")
    dataset: str | None = _dataset(
        "Instead of a task: prompts from a Hugging Face dataset, or a Parquet, CSV or JSON file."
    )
    dataset_config: str | None = _dataset("The dataset's configuration.")
    dataset_split: str | None = _dataset("The dataset's split. Default: its only one, or train.")
    clean: str | None = _dataset(
        "Column of the clean prompts, as in prompt, meta.prompt, choices[0], choices[answerKey], or text with these "
        "in braces. Default: clean."
    )
    corrupt: str | None = _dataset("Likewise of the corrupted prompts. Default: corrupt.")
    answer: str | None = _dataset("Likewise of the answers, as in ' {choices[answerKey]}'. Default: answer, or none.")
    wrong: str | None = _dataset(
        "Likewise of wrong answers; choices[!answerKey] is all but one. Default: wrong, or none."
    )
    answer_tokens: str | None = _dataset("What counts of answers of several tokens: first, or all.")

    def check(self) -> TaskSpec | None:
        """The built-in task, or None for a file; an EdgewiseError for what needs no model to be refused."""
        from edgewise.tasks import check_request

        if self.dataset is None and self.task:
            given = [name for name in _OF_DATASET if getattr(self, name) is not None]
            if given:
                raise EdgewiseError(
                    f"--{given[0].replace('_', '-')} is for --dataset, and the task is {quoted(self.task)}"
                )
        elif self.dataset is None:
            raise EdgewiseError("say which task: a name (see: edgewise tasks), a JSONL file, or --dataset")
        elif self.task:
            raise EdgewiseError(f"give a task or a dataset, not both {quoted(self.task)} and {quoted(self.dataset)}")
        task = self.task if self.dataset is None else None
        return check_request(task, self.examples, self.split, self.variant, self.seed, self.skip_bad)

    def load(self, model: Decoder, ablation: str | None = None) -> Task:
        """The task, for a model and, if it is known, an ablation.

        Raises:
            EdgewiseError: as `load_task`.
        """
        from edgewise.tasks import Dataset, load_task

        task: str | Dataset = self.task
        if self.dataset is not None:
            columns = {name.removeprefix("dataset_"): getattr(self, name) for name in _OF_DATASET}
            task = Dataset(self.dataset, **columns)
        split: Any = self.split  # checked by load_task
        return load_task(
            task,
            model,
            examples=self.examples,
            skip_bad=self.skip_bad,
            seed=self.seed,
            variant=self.variant,
            split=split,
            ablation=ablation,
        )


_OF_DATASET = ("dataset_config", "dataset_split", "clean", "corrupt", "answer", "wrong", "answer_tokens")


@dataclass(frozen=True)
class Request:
    """A search in a model, on a task."""

    model: ModelRequest = ModelRequest()
    task: TaskRequest = TaskRequest()
    search: SearchRequest = SearchRequest()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """What values by the names of fields ask for; one that several parts have, the seed, is all of theirs.

        Raises:
            EdgewiseError: a limit of memory in words that is none.
        """
        if isinstance(given.get("max_memory"), str):
            from edgewise.patching import parse_size

            given = {**given, "max_memory": parse_size(given["max_memory"])}

        def part(kind: Any) -> Any:
            return kind(**{one.name: given[one.name] for one in fields(kind) if one.name in given})

        return cls(part(ModelRequest), part(TaskRequest), part(SearchRequest))

    @classmethod
    def names(cls) -> set[str]:
        """The names that `of` knows."""
        return {one.name for kind in (ModelRequest, TaskRequest, SearchRequest) for one in fields(kind)}

    def check(self) -> TaskSpec | None:
        """The built-in task, or None for a file; an EdgewiseError for what can be refused before anything is loaded."""
        spec = self.task.check()
        self.model.check()
        self.search.check()
        return spec

    def load(self, *, searching: bool = True) -> tuple[Decoder, Task]:
        """The model, and the task for it; unless `searching`, the ablation does not matter.

        Raises:
            EdgewiseError: as `check`, `load_model` and `load_task`.
        """
        model = self.model.load(self.check(), self.task.variant)
        return model, self.task.load(model, self.search.ablation or "resample" if searching else None)
