"""`edgewise` as someone types it, but in this process: fast enough for hundreds of commands."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from edgewise.cli import main

_MADE: dict[tuple[str, ...], tuple[bytes, bytes, dict[str, bytes | None]]] = {}
"""By what was typed: the folder it was typed in, what it printed, and the files it made."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which has to be one JSON object on one line, by JSON's own rules."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return strict_json(self.out)


def strict_json(text: str) -> dict[str, Any]:
    """JSON as its standard has it: without the NaN and Infinity that Python's own reader lets through."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


class Shell:
    """A working folder to type commands in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        folder.mkdir()
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        monkeypatch.chdir(folder)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "LINES", "EDGEWISE_CONFIG"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", "100")

    def __call__(self, *arguments: object) -> Finished:
        """Run `edgewise` with these arguments."""
        self._monkeypatch.setattr(sys, "argv", ["edgewise", *map(str, arguments)])
        self._capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        printed = self._capsys.readouterr()
        assert code is None or isinstance(code, int)
        return Finished(code or 0, printed.out, printed.err)

    def works(self, *arguments: object) -> Finished:
        """Run a command that has to succeed."""
        finished = self(*arguments)
        assert finished.code == 0, finished.err
        return finished

    def json(self, *arguments: object) -> dict[str, Any]:
        """The object that a command prints with `--json`."""
        return self.works(*arguments, "--json").json

    def made(self, *arguments: object) -> dict[str, Any]:
        """What `json` gives for a command that makes files in the working folder, run once for all tests that type it.

        What it reads has to be the same in all of them.
        """
        key, here = tuple(map(str, arguments)), str(self.folder).encode()
        if key not in _MADE:
            before = self.everything()
            found = json.dumps(self.json(*arguments)).encode()
            files = {name: data for name, data in self.everything().items() if name not in before}
            _MADE[key] = here, found, files
        there, found, files = _MADE[key]
        for name, data in files.items():
            path = self.folder / name
            if data is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(data.replace(there, here) if path.suffix == ".json" else data)
        return json.loads(found.replace(there, here))

    def refuses(self, *arguments: object) -> str:
        """Run a command that has to be refused in a sentence, with exit code 2, leaving all as it was.

        Returns:
            The sentence.
        """
        before = self.everything()
        finished = self(*arguments)
        assert finished.code == 2, finished.err
        assert finished.out == ""
        assert self.everything() == before
        assert "Traceback" not in finished.err
        # A model of random weights is warned about before it turns out to be broken too.
        lines = [line for line in finished.err.splitlines() if not line.startswith("edgewise: warning: the model gets")]
        assert len(lines) == 1, finished.err
        start, sentence = lines[0][:10], lines[0][10:]
        assert start == "edgewise: "
        return sentence

    def rejects_usage(self, *arguments: object) -> str:
        """Run a command that the option parser has to turn down, with exit code 2, leaving all as it was."""
        before = self.everything()
        finished = self(*arguments)
        assert finished.code == 2
        assert finished.out == ""
        assert self.everything() == before
        assert "Traceback" not in finished.err
        return finished.err

    def everything(self) -> dict[str, bytes | None]:
        """All that lies in the working folder, hidden things included: names, and the bytes of files."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
        }
