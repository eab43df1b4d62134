"""Every command that README and the docs show is one that edgewise understands, and runs, or says what it needs.

A command is a line of an indented block or of a fenced `bash` block, or what stands in backquotes at the start of a
table's row. What stands under `<!-- needs: ... -->` is not run here (where words follow in brackets, what has one of
them), nor is what names a model that does not come with edgewise. All others are run, page by page, in a folder that
has what the page supposes: runs, prompts, groups.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import transformers
import typer

from edgewise.cli import main
from edgewise.cli.commands import every_command
from edgewise.models import BUILT_IN
from edgewise.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
PROGRAMS = ("edgewise", "python", "make", "pip", "git")


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it, and what it needs, if anything."""

    page: str
    words: tuple[str, ...]
    needs: str = ""

    @property
    def line(self) -> str:
        return shlex.join(self.words)


def commands(page: Path) -> list[Shown]:
    """The commands of a page, in order."""
    found: list[Shown] = []
    needs, fenced, before = "", "", ""
    for line in re.sub(r"\\\n *", "", page.read_text()).splitlines():
        if fence := re.match(r"```(\w*)", line):
            fenced = "" if fenced else fence[1] or "text"
        marked = re.fullmatch(r"<!-- needs: (.+) -->", line)
        if marked:
            needs = marked[1]
        elif line and not line.startswith((" ", "|", "```", "#")) and not fenced:
            needs = ""  # prose ends what is marked
        row = re.match(r"\| `([^`]+)` \|", line)
        typed = row[1] if row else line.strip() if (line.startswith("    ") and not fenced) or fenced == "bash" else ""
        if typed.partition(" ")[0] in PROGRAMS and not (line.startswith("    ") and before.startswith(("*", "- "))):
            words = shlex.split(re.split(r" {3,}|  #", typed)[0], comments=True)
            what, only = re.fullmatch(r"(.*?)(?: \((.+)\))?", needs).groups()  # type: ignore[union-attr]
            applies = only is None or any(word in typed for word in only.split(", "))
            found.append(Shown(page.name, tuple(words), what if what and applies else of_the_hub(words)))
        before = line
    return found


def of_the_hub(words: list[str]) -> str:
    """The model that a command names, if it does not come with edgewise."""
    names = [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("--model", "-m")]
    names += words[2:3] if words[:2] == ["edgewise", "check"] else []
    return next((name for name in names if name not in BUILT_IN), "")


EVERY = [one for page in PAGES for one in commands(page)]


def test_there_are_commands_to_hold_the_pages_to():
    assert len(EVERY) > 100
    assert len([one for one in EVERY if not one.needs]) > 60
    assert {one.words[1] for one in EVERY if one.words[0] == "edgewise" and len(one.words) > 1} > {"discover", "report"}


WHOLE: Any = typer.main.get_command(every_command())


def understood(words: Sequence[str]) -> None:
    """Fail for a command or an option that there is not, and for an option without its value."""
    command, arguments = WHOLE, list(words)
    while commands := getattr(command, "commands", {}):
        if not arguments or arguments[0] not in commands:
            break
        command, arguments = commands[arguments[0]], arguments[1:]
    assert command is not WHOLE or not arguments or arguments[0].startswith("-"), f"no such command: {words}"
    command.make_parser(command.context_class(command)).parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_understood(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for one in commands(page):
        program, *rest = one.words
        if program == "edgewise":
            understood(rest)
            if rest[:1] == ["discover"] and len(rest) > 1 and "." not in rest[1] and not rest[1].startswith("-"):
                assert rest[1] in TASKS, one.line
        elif program == "make":
            assert rest[0] in targets, one.line
        elif program == "python" and rest[0] != "-m":
            assert (ROOT / rest[0]).exists(), one.line


def test_what_is_misspelt_is_not_understood():
    for words in (("discover", "ioi", "--treshold", "1"), ("discover", "ioi", "--threshold"), ("discovr", "ioi")):
        with pytest.raises(Exception, match=r"[Nn]o such|requires an argument"):
            understood(words)


GROUPS = 'early = ["a0.h0", "a0.h1"]\nlate = ["a3.h1"]\n'


@pytest.fixture(scope="module")
def supposed(tmp_path_factory):
    """A folder with what pages suppose: runs of IOI, prompts, texts, groups, a circuit file."""
    folder = tmp_path_factory.mktemp("supposed")
    pair = re.search(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert pair is not None
    (folder / "prompts.jsonl").write_text(pair[1])
    texts = [json.loads(pair[1])[side] for side in ("clean", "corrupt")]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "mine.toml").write_text(GROUPS)
    searches = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    assert searches is not None
    (folder / "searches.toml").write_text(searches[1])
    transformers.GPT2Config(n_layer=4, n_head=4, n_embd=16, architectures=["GPT2LMHeadModel"]).save_pretrained(
        folder / "my-model"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        few = ("--examples", "16", "--quiet")
        assert not shell(patch, "discover", "ioi", *few)
        for method in ("eap-ig", "exact"):
            assert not shell(patch, "discover", "ioi", "--method", method, "--edges", "31", *few)
    for name, made in (("acdc", "ioi-acdc"), ("eap-ig", "ioi-edge-attribution-ig"), ("acdc-high", "ioi-exact")):
        shutil.copytree(folder / "runs" / made, folder / "runs" / name)
    shutil.copy(folder / "runs" / "ioi-exact" / "circuit.json", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_needs_nothing_runs(page, supposed, tmp_path, monkeypatch, capsys):
    shutil.copytree(supposed, tmp_path, dirs_exist_ok=True)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    failed = []
    for one in commands(page):
        if one.needs or one.words[0] not in ("edgewise", "python"):
            continue
        if one.words[0] == "edgewise":
            code = shell(monkeypatch, *one.words[1:])
        else:
            code = subprocess.run([sys.executable, *one.words[1:]], capture_output=True, check=False).returncode
        said = capsys.readouterr().err[-600:]
        if code:
            failed.append(f"{one.line}: {said}")
    assert not failed, "\n".join(failed)


def shell(monkeypatch, *words):
    """The exit code of a command of edgewise."""
    monkeypatch.setattr(sys, "argv", ["edgewise", *words])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0
