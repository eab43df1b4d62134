"""Options that several commands take, each declared and described once.

Those of a request are made from its fields (`edgewise.runs.request`); a command takes them by `asks`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from edgewise.cli import completion
from edgewise.cli.completion import ABLATIONS, METRICS, MODELS, names
from edgewise.cli.early import refuse_unknown, say_loading
from edgewise.errors import EdgewiseError
from edgewise.runs.request import ModelRequest, Request, SearchRequest, TaskRequest

_MODEL, _TASK, _SEARCH = (dataclasses.fields(one) for one in (ModelRequest, TaskRequest, SearchRequest))
_SEED = [one.name for one in _SEARCH].index("seed")  # is the prompts' and the search's
# In the order in which help lists them.
_FIELDS = {
    one.name: one for one in (_TASK[0], _MODEL[0], *_SEARCH[:_SEED], *_TASK[1:], *_SEARCH[_SEED + 1 :], *_MODEL[1:])
}
_TYPES: dict[str, Any] = {"bool": bool, "int": int, "float": float}  # all else is text


def _option(name: str, text: str | None = None) -> Any:
    """How the shell shows a field, with its own help or another."""
    field = _FIELDS[name]
    known = field.metadata.get("completes")
    shown: dict[str, Any] = {
        "help": (text or field.metadata["help"]).replace("[", "\\["),  # rich takes these for markup
        "autocompletion": names(getattr(completion, known)) if known else None,
    }
    if name == "task":
        return typer.Argument(metavar="[TASK]", show_default=False, **shown)
    if panel := field.metadata.get("panel"):
        shown["rich_help_panel"] = panel
    flags = field.metadata.get("flags", ())
    if isinstance(field.default, bool):
        flag = name.replace("_", "-")
        flags = (f"--{flag}/--no-{flag}" if field.default else f"--{flag}",)
    return typer.Option(*flags, **shown)


def _parameters(name: str, text: str | None) -> list[inspect.Parameter]:
    if name == "options":
        return [_parameter(one, annotation, None) for one, annotation in METHOD_OPTIONS.items()]
    field = _FIELDS[name]
    kind = _TYPES.get(str(field.type).removesuffix(" | None"), str)
    annotation = Annotated[kind | None if field.default is None else kind, _option(name, text)]
    return [_parameter(name, annotation, field.default)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def asks(*search: str, **helps: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, instead of its parameter `asked`, an argument or option for each field of that `Request`.

    Args:
        search: the fields of a search to take; without any, all.
        helps: more of them, each with another help than its own.
    """
    known = {one.name for one in _SEARCH}
    left_out = {"split", *((known - {"seed", *search, *helps}) if search else ())}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        own = inspect.signature(command).parameters
        asked = [one for name in _FIELDS if name not in left_out for one in _parameters(name, helps.get(name))]
        parameters = asked[:2]  # task and model stand first
        for name in own:
            parameters += asked[2:] if name == "asked" else [_parameter(name, hints[name], own[name].default)]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            kept = {name: given.pop(name) for name in own if name in given}
            refuse_unknown(given)
            say_loading(given, quiet=kept.get("quiet", False))
            command(asked=_request(given), **kept)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _request(given: dict[str, Any]) -> Request:
    """What was asked for on the shell."""
    options = {name.removeprefix("method_"): given[name] for name in METHOD_OPTIONS if given.get(name) is not None}
    given["options"] = options or None
    return Request.of(given)


RevisionOption = Annotated[str | None, _option("revision")]
TrustLayoutOption = Annotated[bool, _option("trust_layout")]
DeviceOption = Annotated[str | None, _option("device")]
MaxMemoryOption = Annotated[str | None, _option("max_memory")]
DtypeOption = Annotated[str | None, _option("dtype")]
WorkersOption = Annotated[int | None, _option("workers")]
RayOption = Annotated[str | None, _option("ray")]
CpusOption = Annotated[float, _option("cpus")]
GpusOption = Annotated[float, _option("gpus")]
ShardOption = Annotated[str, _option("shard")]
MANY_WORKERS = "Make so many searches at a time, by Ray on this machine. Default: one after another, without it."
ManyWorkersOption = Annotated[int | None, _option("workers", MANY_WORKERS)]
RunModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Measure on another model. Default: the run's; of a file, the task's.",
        autocompletion=names(MODELS),
    ),
]
RunMetricOption = Annotated[
    str | None,
    typer.Option(help="What is measured first. Default: the run's, or the task's.", autocompletion=names(METRICS)),
]
RunAblationOption = Annotated[
    str | None,
    typer.Option(
        help="What an absent edge carries. Default: the run's, or the task's.", autocompletion=names(ABLATIONS)
    ),
]
RunExamplesOption = Annotated[
    int | None, typer.Option(help="Prompt pairs to use. Default: the run's; of a file, the task's.")
]
GroupsOption = Annotated[str | None, _option("groups")]
KnownOption = Annotated[str | None, _option("known")]
RunDtypeOption = Annotated[
    str | None, typer.Option(help="float32, float64, bfloat16 or float16. Default: the run's, or float32.")
]
PathOption = Annotated[
    str | None, typer.Option(help="edge-attribution-ig: what moves along the path, inputs (default) or activations.")
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        help="edge-attribution-ig: points of the path (5); subnetwork-probing, edge-pruning, "
        "uniform-gradient-sampling: steps (3000, 300, 300)."
    ),
]
LambdaOption = Annotated[
    float | None,
    typer.Option(
        "--lambda",
        help="subnetwork-probing, uniform-gradient-sampling: weight of the regulariser (50, 0.001); more keeps less.",
    ),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(help="subnetwork-probing, edge-pruning, uniform-gradient-sampling: Adam's rate (0.001, 0.1, 0.1)."),
]
MembersOption = Annotated[
    str | None,
    typer.Option(help="ensemble: methods, by commas (edge-attribution-ig, clean-corrupted, relp)."),
]
AverageOption = Annotated[str | None, typer.Option(help="ensemble: of ranks (rank, the default) or of scores (score).")]
AgreementOption = Annotated[
    float | None,
    typer.Option(help="bootstrapped-attribution: share of draws that agree about a score's sign (0.95)."),
]
MethodVariantOption = Annotated[
    str | None,
    typer.Option(help="head-importance, subnetwork-probing: published, as the paper's numbers were made."),
]
METHOD_OPTIONS: dict[str, Any] = {
    "path": PathOption,
    "steps": StepsOption,
    "regularisation": LambdaOption,
    "learning_rate": LearningRateOption,
    "members": MembersOption,
    "average": AverageOption,
    "agreement": AgreementOption,
    "method_variant": MethodVariantOption,
}
"""A search's `options` on the shell, where a task has a variant too."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def names_in(text: str, option: str) -> list[str]:
    """The names in an option that takes several, by commas.

    Raises:
        EdgewiseError: there is none, or one comes twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise EdgewiseError(f"{option} names nothing")
    for name in names:
        if names.count(name) > 1:
            raise EdgewiseError(f"{option} names {name!r} twice")
    return names
