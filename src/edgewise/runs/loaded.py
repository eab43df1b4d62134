"""A run that comes back from its folder, each part of it when it is asked for."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from edgewise.discovery import Discovery
from edgewise.errors import EdgewiseError
from edgewise.files import read_bytes
from edgewise.graph import Circuit, Decision
from edgewise.models import Decoder
from edgewise.models.dictionary_files import with_dictionary
from edgewise.patching import Constants
from edgewise.runs.constants import read_constants
from edgewise.runs.folder import FILES
from edgewise.runs.given import groups_in, known_in
from edgewise.runs.hub import PREFIX, fetch_run, split_address
from edgewise.runs.reading import read_run, read_trace
from edgewise.runs.request import ModelRequest, Request, SearchRequest, TaskRequest
from edgewise.runs.run import Run
from edgewise.runs.scores import load_scores
from edgewise.tasks import Task
from edgewise.tasks.jsonl import digest


class LoadedRun(Run):
    """A run from its folder: record and circuit at once; trace, scores, model and task when they are asked for.

    Attributes:
        folder: where it is.
    """

    folder: Path

    def __init__(self, folder: Path) -> None:
        record, circuit = read_run(folder)
        vars(self).update(folder=folder, record=record, _circuit=circuit)  # a Run is frozen

    def __getattr__(self, name: str) -> Any:
        """What a fresh run has from the start, for the first time."""
        settings = vars(self).get("record", {}).get("settings", {})
        if name in ("model", "task"):
            model, task = load_again(self.folder, settings, split=settings["task"].get("split", "validation"))
            vars(self).update(model=model, task=task)
        elif name == "_trace":
            vars(self)["_trace"] = read_trace(self.folder, self.circuit.graph)
        elif name == "_constants":
            vars(self)["_constants"] = read_constants(self.folder, settings)
        elif name == "discovery":
            vars(self)["discovery"] = self._found()
        else:
            raise AttributeError(f"a run has no {name!r}")
        return vars(self)[name]

    def _found(self) -> Discovery:
        result, threshold = self.record["result"], self.record["settings"].get("threshold")
        size = f"n_{self.circuit.unit}"
        tried = tuple((one["threshold"], one[size]) for one in result["tried"])
        told = {name: result[name] for name in ("metric_full", "metric_ablated", "seconds", "tests")}
        told["passes"] = tuple((one["tests"], one[size]) for one in result.get("passes", ()))
        metric, at = result["metric_in_search"], math.nan if threshold is None else threshold
        return Discovery(circuit=self.circuit, trace=self.trace, metric=metric, threshold=at, tried=tried, **told)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoadedRun) and (self.folder, self.record) == (other.folder, other.record)

    __hash__ = None  # type: ignore[assignment] - a record can change

    @property
    def circuit(self) -> Circuit:
        return self._circuit

    @property
    def trace(self) -> tuple[Decision, ...]:
        return self._trace

    @property
    def scores(self) -> Circuit | None:
        path = self.folder / "scores.safetensors"
        return load_scores(path, self.circuit.graph) if path.is_file() else None

    @property
    def constants(self) -> Constants | None:  # type: ignore[override] - a fresh run's is a field
        return self._constants

    @property
    def task_name(self) -> str:
        return Path(self.record["settings"]["task"]["task"]).stem

    def files(self) -> dict[str, str | bytes]:
        return {name: read_bytes(self.folder / name, name) for name in FILES if (self.folder / name).is_file()}


def load_run(folder: str | Path) -> Run:
    """A run as it was saved, with all that it had when it was fresh.

    Record and circuit are read now; `trace`, `scores`, `model` and `task` when they are first asked for. Model and task
    are loaded by their names, and refused if they have changed since.

    Args:
        folder: a run folder, or `hub:owner/name` of the Hugging Face hub, with `@revision` if not the latest.

    Raises:
        EdgewiseError: it is no run folder, a file is missing or broken, it is of a newer form, or cannot be fetched.
    """
    if isinstance(folder, str) and folder.startswith(PREFIX):
        folder = fetch_run(*split_address(folder))
    return LoadedRun(Path(folder).expanduser())


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
    revision: str | None = None,
    trust_layout: bool = False,
    searching: bool = False,
) -> tuple[Decoder, Task]:
    """Model and task of a run, except where the user asks for others; refused if they have changed since.

    A known circuit and groups that the run's user gave come along on any task.

    Args:
        searching: the run's search is to go on, rather than its circuit to be measured.
    """
    ran_on, ran_with = settings["task"], settings["model"]
    if model is None and revision is None:
        revision = ran_with.get("revision")
    same_weights = model is None and dtype in (None, ran_with["dtype"]) and revision == ran_with.get("revision")
    changed: dict[str, Any] = {
        "fold_value_biases": ran_with.get("folded_value_biases", False),
        "fold_norm_biases": ran_with.get("folded_norm_biases", False),
        "permuted": ran_with.get("permuted_seed"),
    }
    trust_layout = trust_layout or (model is None and "read_as" in ran_with)
    spread: dict[str, Any] = {}
    if model is not None:
        changed["permuted"] = None
    else:
        model = ran_with.get("folder") or ran_with.get("gguf", {}).get("file") or ran_with["name"]
        dtype = dtype or ran_with["dtype"]
        if device is None:
            laid_out = ("device_map", "offload_folder", "offload_activations")
            spread = {one: ran_with[one] for one in laid_out if one in ran_with}
    name = rows = None
    skip_bad = False
    if task is None or task == ran_on["task"]:
        if split == "test" and examples is not None and examples < ran_on["examples"]:
            # The test prompts come after the run's own: those of a smaller number would be among the searched ones.
            examples, rows = ran_on["examples"], examples
        name = Path(ran_on["task"]).stem
        task, split, kept = _prompts_of(run, ran_on, examples, split, "" if searching else _BY_TASK)
        skip_bad = bool(ran_on.get("skip_bad")) and not kept
        examples = ran_on["examples"] if examples is None else examples
        seed = ran_on.get("seed", 0) if seed is None else seed
        variant = ran_on.get("variant", "default") if variant is None else variant
    asked = Request(
        ModelRequest(model, device, dtype, revision=revision, trust_layout=trust_layout, **changed, **spread),
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
        raise EdgewiseError(
            f"model {what}{'' if searching else '; to measure the circuit on it all the same, name it with --model'}"
        )
    if "dictionary" in ran_with:
        loaded = _with_dictionary(loaded, run, ran_with["dictionary"])
    if rows is not None:
        prompts = prompts.first(rows)
    if (known := known_in(run, settings)) is not None:
        prompts = dataclasses.replace(prompts, known_circuit=known)
    prompts = dataclasses.replace(prompts, groups=groups_in(settings))
    return loaded, prompts if name is None else dataclasses.replace(prompts, name=name)


def _with_dictionary(model: Decoder, run: Path, kept: dict[str, Any]) -> Decoder:
    """The model taken apart by the dictionary of a run, which has to be as it was."""
    if "path" not in kept:
        raise EdgewiseError(
            f"{str(run)!r} does not say where the dictionary lies that its features are of: take the model apart by it "
            "(by_feature), and measure the circuit on that"
        )
    opened = with_dictionary(model, kept["path"], kept.get("hooks"))
    now, then = opened.origin["dictionary"]["fingerprint"], kept.get("fingerprint")
    if now != then:
        raise EdgewiseError(
            f"the dictionary {kept['path']!r} has changed since {str(run)!r} was made (fingerprint {now}, then {then})"
        )
    return opened


_BY_TASK = "; to measure the circuit on it all the same, name it with --task"


def _prompts_of(
    run: Path, ran_on: dict[str, Any], examples: int | None, split: str, otherwise: str
) -> tuple[str, str, bool]:
    """Task and split to load for a run, and whether that is the run's own copy.

    A user's own prompts are those kept with the run, unless others are wanted.
    """
    if "sha256" not in ran_on:
        return ran_on["task"], split, False
    kept = run / "prompts.jsonl"
    if split == ran_on.get("split", "validation") and kept.is_file() and (examples or 0) <= ran_on["examples"]:
        if "kept_sha256" in ran_on:
            _same_prompts(str(kept), ran_on["kept_sha256"], run, otherwise)
        return str(kept), "validation", True  # every row that was kept is of the run's split
    if "file" not in ran_on:
        came = "came from a dataset" if "dataset" in ran_on else "were given as a list"
        raise EdgewiseError(
            f"the prompts of {str(run)!r} {came}, and it keeps only those that were searched: measure on "
            "others with --task FILE"
        )
    _same_prompts(ran_on["file"], ran_on["sha256"], run, otherwise)
    return ran_on["file"], split, False


def _same_prompts(task: str, wanted: str, run: Path, otherwise: str) -> None:
    if digest(read_bytes(Path(task), "the prompt file")) != wanted:
        raise EdgewiseError(f"the prompt file {task!r} has changed since {str(run)!r} was made{otherwise}")
