"""The cells of the MIB benchmark's table, a task and a model each, and what its models are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import EdgewiseError, first_line, unknown
from edgewise.tasks.mib import HUB, MIB_TASKS, MibTask, mib_task

MODEL_NAMES = {
    "gpt2": "gpt2",
    "openai-community/gpt2": "gpt2",
    "Qwen/Qwen2.5-0.5B": "qwen2.5",
    "google/gemma-2-2b": "gemma2",
    "meta-llama/Llama-3.1-8B": "llama3",
}
"""By what they are on the hub, what the benchmark calls its models."""
INTERP_BENCH = "interpbench"
REFERENCE = "interpbench_graph.json"
TITLES = {
    "ioi": "IOI",
    "mcqa": "MCQA",
    "arithmetic_addition": "Arithmetic (+)",
    "arithmetic_subtraction": "Arithmetic (-)",
    "arc_easy": "ARC (easy)",
    "arc_challenge": "ARC (challenge)",
    "gpt2": "GPT-2",
    "qwen2.5": "Qwen-2.5",
    "gemma2": "Gemma-2",
    "llama3": "Llama-3.1",
    INTERP_BENCH: "InterpBench",
}
"""What the table calls tasks and models."""
_MODELS_OF = {
    "ioi": ("gpt2", "qwen2.5", "gemma2", "llama3"),
    "mcqa": ("qwen2.5", "gemma2", "llama3"),
    "arithmetic_addition": ("llama3",),
    "arithmetic_subtraction": ("llama3",),
    "arc_easy": ("gemma2", "llama3"),
    "arc_challenge": ("llama3",),
}


def cell_name(task: str, model: str) -> str:
    """The folder of a submission: `arc-easy_llama3`; of a task of one's own, its own name."""
    return f"{task.replace('_', '-') if task in MIB_TASKS else task}_{model}"


CELLS = tuple(cell_name(task, model) for task, models in _MODELS_OF.items() for model in models)
"""The folders of a submission, in the order of the table."""


@dataclass(frozen=True)
class Cell:
    """A task and a model.

    Attributes:
        model: what it is called in the table.
        source: what `load_model` takes; None for InterpBench's, where it is `interp_bench_folder`.
        dtype: what the benchmark runs it in.
        official: whether the benchmark has this cell.
    """

    task: MibTask
    model: str
    source: str | None
    dtype: str
    official: bool

    @property
    def name(self) -> str:
        return cell_name(self.task.name, self.model)

    @property
    def title(self) -> str:
        """`IOI, GPT-2`."""
        return f"{TITLES[self.task.name]}, {TITLES.get(self.model, self.model)}"

    def place(self, data: Path | None) -> str | Path:
        """Where its model is.

        Raises:
            EdgewiseError: as `interp_bench_folder`.
        """
        return interp_bench_folder(data) if self.source is None else self.source


def cells_of(tasks: Sequence[str] | None, models: Sequence[str] | None) -> tuple[list[Cell], list[tuple[str, str]]]:
    """The cells of some tasks and models, and those that the benchmark does not have, with that for a reason.

    Args:
        tasks: by default all.
        models: the benchmark's names, on the hub or elsewhere (`llama3=FOLDER`), or any that `load_model` takes, which
            have a cell for every task; by default all of the benchmark's.

    Raises:
        EdgewiseError: an unknown task, or two models of one name.
    """
    wanted = [mib_task(task) for task in tasks] if tasks is not None else list(MIB_TASKS.values())
    own = {short: source for source, short in MODEL_NAMES.items()} | {INTERP_BENCH: None}
    cells, missing = [], []
    called: dict[str, str] = {}
    for model in own if models is None else models:
        short, given, source = model.partition("=")
        if given and short not in own:
            raise unknown("model of the MIB benchmark", short, own)
        short = MODEL_NAMES.get(short, short if short in own else Path(short).name)
        if not short or (given and not source):
            raise EdgewiseError("the model's name is empty")
        if called.setdefault(short, model) != model:
            raise EdgewiseError(f"the models {called[short]!r} and {model!r} would both be called {short!r}")
        official = model in own or model in MODEL_NAMES or bool(given)
        for task in wanted:
            has = short in _MODELS_OF[task.name] or (short == INTERP_BENCH and task.name == "ioi")
            if not official or has:
                dtype = "bfloat16" if official and short not in ("gpt2", INTERP_BENCH) else "float32"
                cells.append(Cell(task, short, source or (own[short] if official else model), dtype, official))
            elif tasks is not None and models is not None:  # else it was not asked for by name
                missing.append((cell_name(task.name, short), "the benchmark has no such cell"))
    return cells, missing


def interp_bench_folder(data: Path | None) -> Path:
    """The folder with InterpBench's model and its reference circuit: `interpbench` in `data`, or the hub's.

    Raises:
        EdgewiseError: it is not there, or the hub cannot be reached.
    """
    if data is not None:
        folder = data.expanduser() / INTERP_BENCH
        if not folder.is_dir():
            raise EdgewiseError(f"there is no folder {str(folder)!r} with InterpBench's model")
        return folder
    import huggingface_hub

    name = f"{HUB}/{INTERP_BENCH}"
    files = ["ll_model_cfg.pkl", REFERENCE, "ioi_all_splits/ll_model_100_100_80.pth"]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=files))
    except Exception as error:  # the hub's own errors, of many kinds
        raise EdgewiseError(f"InterpBench's model ({name}) cannot be had: {first_line(error)}") from None
