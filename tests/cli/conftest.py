"""What the tests of the command line share: tiny models on disk, a prompt file, a folder to type commands in."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell
from word_models import save_models, write_prompts


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys) -> Shell:
    return Shell(tmp_path / "here", monkeypatch, capsys)


@pytest.fixture
def prompts(tmp_path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl")
