"""The model and the task that a command is asked for, or that a run was made with."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError
from edgewise.files import read_bytes
from edgewise.runs.request import ModelRequest, Request, SearchRequest, TaskRequest

if TYPE_CHECKING:
    from edgewise.graph import Circuit
    from edgewise.models import Decoder
    from edgewise.tasks import Task


def load_again(
    run: Path,
    settings: dict[str, Any],
    *,
    split: str,
    task: str | None = None,
    model: str | None = None,
    examples: int | None = None,
    seed: int | None = None,
    variant: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> tuple[Decoder, Task]:
    """Model and task of a run, except where the user asks for others; refused if they have changed since."""
    ran_on, ran_with = settings["task"], settings["model"]
    same_weights = model is None and dtype in (None, ran_with["dtype"])
    folded, permuted = ran_with.get("folded_value_biases", False), ran_with.get("permuted_seed")
    if model is not None:
        permuted = None
    else:
        model = ran_with.get("folder") or ran_with["name"]
        dtype = dtype or ran_with["dtype"]
    name = rows = None
    skip_bad = False
    if task is None or task == ran_on["task"]:
        if split == "test" and examples is not None and examples < ran_on["examples"]:
            # The test prompts come after the run's own: those of a smaller number would be among the searched ones.
            examples, rows = ran_on["examples"], examples
        name = Path(ran_on["task"]).stem
        task, split, kept = _prompts_of(run, ran_on, examples, split)
        skip_bad = bool(ran_on.get("skip_bad")) and not kept
        examples = ran_on["examples"] if examples is None else examples
        seed = ran_on.get("seed", 0) if seed is None else seed
        variant = ran_on.get("variant", "default") if variant is None else variant
    asked = Request(
        ModelRequest(model, device, dtype, folded, permuted),
        TaskRequest(task, examples, skip_bad, seed or 0, variant or "default", split),
        SearchRequest(ablation=settings["ablation"]),
    )
    loaded, prompts = asked.load(searching=skip_bad)
    now, then = loaded.fingerprint() if same_weights else "", ran_with["fingerprint"]
    if same_weights and now != then:
        what = f"{loaded.name!r} has other weights now than when {str(run)!r} was made (fingerprint {now}, then {then})"
        if ":" not in then:
            what = (
                f"{loaded.name!r} may have other weights now: {str(run)!r} was made by an older edgewise, whose "
                f"fingerprint ({then}) looked at a sample of them"
            )
        raise EdgewiseError(f"model {what}; to measure the circuit on it all the same, name it with --model")
    if rows is not None:
        prompts = prompts.first(rows)
    return loaded, prompts if name is None else dataclasses.replace(prompts, name=name)


def _prompts_of(run: Path, ran_on: dict[str, Any], examples: int | None, split: str) -> tuple[str, str, bool]:
    """Task and split to load for a run, and whether that is the run's own copy.

    A user's own prompts are those kept with the run, unless others are wanted.
    """
    if "sha256" not in ran_on:
        return ran_on["task"], split, False
    kept = run / "prompts.jsonl"
    if split == ran_on.get("split", "validation") and kept.is_file() and (examples or 0) <= ran_on["examples"]:
        if "kept_sha256" in ran_on:
            _same_prompts(str(kept), ran_on["kept_sha256"], run)
        return str(kept), "validation", True  # every row that was kept is of the run's split
    if "file" not in ran_on:
        raise EdgewiseError(
            f"the prompts of {str(run)!r} were given as a list, and it keeps only those that were searched: measure on "
            "others with --task FILE"
        )
    _same_prompts(ran_on["file"], ran_on["sha256"], run)
    return ran_on["file"], split, False


def _same_prompts(task: str, wanted: str, run: Path) -> None:
    from edgewise.tasks.jsonl import digest

    if digest(read_bytes(Path(task), "the prompt file")) != wanted:
        raise EdgewiseError(
            f"the prompt file {task!r} has changed since {str(run)!r} was made; to measure the circuit on it all the "
            "same, name it with --task"
        )


def load_any_circuit(path: Path) -> Circuit:
    """The circuit of a run folder, of a file in EAP-IG's JSON form, or of its `.pt` form."""
    from edgewise.graph import load_circuit
    from edgewise.runs import load_run

    path = some_path(path, "the circuit")
    if path.is_dir():
        return load_run(path)[1]
    if path.suffix != ".pt":
        return load_circuit(path)
    from edgewise.runs.mib_export import load_pt  # the one form that needs torch

    return load_pt(path)


def some_path(path: Path, what: str) -> Path:
    # Typer turns an empty text into the current folder, which may have been meant beside some other empty text.
    if str(path) == "." and "" in sys.argv and "." not in sys.argv:
        raise EdgewiseError(f"{what} is empty")
    return path
