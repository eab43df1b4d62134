"""Runs on the Hugging Face hub: a run folder's files in a repository, with a card made of the record.

    run.push_to_hub("owner/name")
    ew.load_run("hub:owner/name")
    ew.load_run("hub:owner/name@revision")

A repository holds what a run folder holds, and README.md. Only files that a run folder can hold are ever fetched, and
none of them is code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError, first_line, quoted
from edgewise.runs.folder import FILES

if TYPE_CHECKING:
    from edgewise.runs.run import Run

PREFIX = "hub:"
CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[\w][\w./-]{0,199}")


def push_run(run: Run, repository: str, *, private: bool = False, revision: str | None = None) -> str:
    """Put a run into a repository of the hub, which is made if there is none, in one commit.

    Where the model lies on this machine is left out of the record.

    Args:
        repository: `owner/name`.
        private: only when the repository is made.
        revision: the branch to commit to; by default the main one.

    Returns:
        The commit's address.

    Raises:
        EdgewiseError: no such name, nobody is logged in, or the hub cannot be reached or refuses.
    """
    import huggingface_hub

    _check_name(repository)
    files = {name: content for name, content in run.files().items() if name in FILES}
    record = published(run.record)
    files["run.json"] = json.dumps(record, indent=2) + "\n"
    files[CARD] = card(record, repository, run.circuit.names())
    operations = [
        huggingface_hub.CommitOperationAdd(name, content if isinstance(content, bytes) else content.encode())
        for name, content in files.items()
    ]
    api = huggingface_hub.HfApi(library_name="edgewise")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository, operations, commit_message=f"{_task(record)}: a circuit by edgewise", revision=revision
        )
    except Exception as error:  # the hub's own errors and the network's, of many kinds
        raise EdgewiseError(
            f"the run cannot be put into {repository!r} on the Hugging Face hub: {first_line(error)} (log in with: hf "
            "auth login)"
        ) from None
    return str(done.commit_url)


def fetch_run(repository: str, revision: str | None = None) -> Path:
    """The run folder of a repository of the hub, from its cache if it is there.

    Raises:
        EdgewiseError: no such name, no such repository or revision, or the hub cannot be reached and its cache has no
            copy.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    _check_name(repository)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise EdgewiseError(f"{quoted(revision)} is not the name of a branch, a tag or a commit")
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        why = "the Hugging Face hub cannot be reached (or HF_HUB_OFFLINE is set), and its cache has no copy"
    except Exception as error:  # the hub's own errors and the network's, of many kinds
        why = first_line(error)
    raise EdgewiseError(f"the run {PREFIX}{repository} cannot be fetched: {why}")


def split_address(address: str) -> tuple[str, str | None]:
    """`hub:owner/name@revision` as repository and revision.

    Raises:
        EdgewiseError: it names no repository.
    """
    repository, at, revision = address.removeprefix(PREFIX).partition("@")
    _check_name(repository)
    if at and not revision:
        raise EdgewiseError(f"{quoted(address)} ends where a revision should stand")
    return repository, revision or None


def _check_name(repository: object) -> None:
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        raise EdgewiseError(f"a repository of the hub is written owner/name, not {quoted(repository)}")


def published(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what it says of this machine: where the model lies, and how the search was typed."""
    settings = dict(record["settings"])
    settings["model"] = {**settings["model"], "folder": None}
    if "dictionary" in settings["model"]:
        kept = settings["model"]["dictionary"].items()
        settings["model"]["dictionary"] = {name: value for name, value in kept if name != "path"}
    return {**record, "settings": settings, "command": None}


def card(record: Mapping[str, Any], repository: str, names: list[str]) -> str:
    """README.md: what was searched where, what came out, how to load it."""
    settings, result = record["settings"], record["result"]
    model, metric = settings["model"]["name"], settings["metric"]
    unit = f"{settings.get('level') or 'edge'}s"
    size = result.get(f"n_{unit}", result["n_edges"])
    most = result.get(f"n_graph_{unit}", result["n_graph_edges"])
    head = ["---", "library_name: edgewise", "tags:", "- edgewise", "- circuit", "- mechanistic-interpretability"]
    if _REPOSITORY.fullmatch(model):
        head.append(f"base_model: {model}")
    rows = [
        ("model", f"`{_plain(model)}` ({settings['model'].get('architecture', '')}, {settings['model']['dtype']})"),
        ("fingerprint of its weights", f"`{settings['model']['fingerprint']}`"),
        ("task", f"`{_task(record)}`, {settings['task'].get('examples', '')} prompt pairs"),
        ("method", f"`{settings['method']}`" + _at(settings)),
        ("ablation", f"`{settings['ablation']}`"),
        ("size", f"{size:,} of {most:,} {unit}"),
        (f"`{metric}` of the circuit (lower is better)", f"{result['metric']:.4f}"),
        (f"`{metric}` of the model", f"{result['metric_full']:.4f}"),
        (f"`{metric}` with everything ablated", f"{result['metric_ablated']:.4f}"),
    ]
    if result.get("recovered") is not None:
        rows.append(("recovered", f"{result['recovered']:.1%}"))
    if not record.get("finished", True):
        rows.append(("note", "the search was stopped; the circuit still holds what it had not come to"))
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    shown = [f"    {_plain(name)}" for name in names[:50]]
    more = [f"    … and {len(names) - 50:,} more"] if len(names) > 50 else []
    return "\n".join(
        [
            *head,
            "---",
            "",
            f"# A circuit for {_task(record)} in {_plain(model)}",
            "",
            "Found with edgewise. Load it in Python:",
            "",
            "```python",
            "import edgewise as ew",
            f'run = ew.load_run("{PREFIX}{repository}")',
            "print(run.circuit, run.evaluate())",
            "```",
            "",
            "| | |",
            "|---|---|",
            *[f"| {name} | {value} |" for name, value in rows],
            "",
            f"## Its {unit}",
            "",
            *shown,
            *more,
            "",
            f"Made on {record.get('date', 'an unknown day')} with {versions or 'unknown versions'}.",
            "",
        ]
    )


def _task(record: Mapping[str, Any]) -> str:
    return _plain(Path(str(record["settings"]["task"].get("task", "prompts"))).stem)


def _at(settings: Mapping[str, Any]) -> str:
    given = {name: settings.get(name) for name in ("threshold", "edges", "share")}
    return "".join(f", {name} {value:g}" for name, value in given.items() if value is not None)


def _plain(text: str) -> str:
    """A name in Markdown, which must not end a cell or begin another line."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text).replace("|", "\\|")
