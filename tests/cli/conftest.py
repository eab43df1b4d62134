"""What the tests of the command line share: tiny models on disk, a prompt file, a folder to type commands in."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import typer.main
from shell import Shell
from word_models import save_models, write_prompts

from edgewise.models import sources


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


_LOADED: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def built_in_models_are_loaded_once(monkeypatch):
    """Commands by the hundred ask for the same few models, and none of them changes what it has loaded."""
    from_folder = sources.Source.from_folder

    def loaded(self, folder):
        if self.name not in sources.BUILT_IN:
            return from_folder(self, folder)
        key = (self.name, self.dtype, folder)
        if key not in _LOADED:
            _LOADED[key] = from_folder(self, folder)
        return _LOADED[key]

    monkeypatch.setattr(sources.Source, "from_folder", loaded)


_parameters = functools.cache(typer.main.get_params_from_function)


@pytest.fixture(autouse=True)
def options_are_read_off_signatures_once(monkeypatch):
    """A process makes its options once, which takes longer than most of what is typed here."""
    monkeypatch.setattr(typer.main, "get_params_from_function", _parameters)


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys) -> Shell:
    return Shell(tmp_path / "here", monkeypatch, capsys)


@pytest.fixture
def prompts(tmp_path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl")
