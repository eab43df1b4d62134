"""Defaults of one's own: `edgewise.toml`, or the file that EDGEWISE_CONFIG names."""

from __future__ import annotations

import json

import pytest

from edgewise.cli.commands import callbacks
from edgewise.cli.defaults import options_of


@pytest.fixture
def toml(shell):
    def write(text, name="edgewise.toml"):
        (shell.folder / name).write_text(text)

    return write


def searched(shell, *typed):
    """The record of a search that is typed like this."""
    shell.works("discover", "tracr-reverse", *typed)
    (found,) = shell.folder.glob("runs/*/run.json")
    return json.loads(found.read_text())


def test_a_commands_own_defaults_outrank_those_of_all(shell, toml) -> None:
    toml("[all]\nquiet = true\nexamples = 2\nseed = 7\n[discover]\nexamples = 4\nthreshold = 0.3")
    record = searched(shell)
    settings = record["settings"]
    assert (settings["threshold"], settings["task"]["examples"], settings["order_seed"]) == (0.3, 4, 7)


def test_what_is_typed_outranks_both(shell, toml) -> None:
    toml("[all]\nablation = 'mean'\n[discover]\nexamples = 4\nports = false")
    settings = searched(shell, "--examples=3", "--ports", "--ablation", "zero", "-q")["settings"]
    assert (settings["task"]["examples"], settings["ports"], settings["ablation"]) == (3, True, "zero")


@pytest.mark.parametrize(
    ("text", "typed"), [("[discover]\nedges = 9", ["--threshold", "0.2"]), ("[all]\nshare = 0.5", ["--threshold=0.2"])]
)
def test_one_way_to_say_the_size_leaves_no_room_for_a_default_of_another(shell, toml, text, typed) -> None:
    toml(text)
    settings = searched(shell, *typed, "-q")["settings"]
    assert (settings["threshold"], settings["edges"]) == (0.2, None)


def test_nor_does_a_default_of_the_command_for_one_of_all(shell, toml) -> None:
    toml("[all]\nedges = 9\n[discover]\nthreshold = 0.2")
    assert searched(shell, "-q")["settings"]["edges"] is None


def test_the_recorded_command_finds_the_same_without_the_file(shell, toml) -> None:
    toml("[discover]\nports = false\nmax-memory = '1GB'\nthreshold = 0.25\nquiet = true")
    record = searched(shell)
    command = record["command"]
    assert command[:3] == ["edgewise", "discover", "tracr-reverse"]
    assert sorted(" ".join(command[3:]).split(" --")) == ["--no-ports", "max-memory 1GB", "threshold 0.25"]
    (shell.folder / "edgewise.toml").unlink()
    shell.works(*command[1:], "--out", "again", "-q")
    again = json.loads((shell.folder / "again" / "run.json").read_text())
    assert again["settings"] == record["settings"]


def test_the_variable_names_another_file_or_none(shell, toml, monkeypatch) -> None:
    toml("[tasks]\njson = true", "mine.toml")
    monkeypatch.setenv("EDGEWISE_CONFIG", "mine.toml")
    assert json.loads(shell.works("tasks").out)[0]["name"] == "ioi"
    toml("[tasks]\njsn = true")
    monkeypatch.setenv("EDGEWISE_CONFIG", "")
    assert "ioi" in shell.works("tasks").out
    monkeypatch.setenv("EDGEWISE_CONFIG", "nowhere.toml")
    assert "nowhere.toml" in shell.refuses("tasks")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[discover]\nthreshhold = 1",
            "edgewise.toml, [discover]: there is no option 'threshhold'; did you mean 'thre",
        ),
        ("[discovr]\n", "edgewise.toml: there is no command 'discovr'; did you mean 'discover'? (or [all], for all"),
        ("[all]\nmodle = 'x'", "edgewise.toml, [all]: there is no option 'modle'; did you mean 'model'"),
        ("model = 'x'", "edgewise.toml: there is no command 'model'"),
        ("discover = 1", "edgewise.toml: 'discover' should be a table of options, [discover]"),
        ("[discover]\nexamples = 'many'", "[discover]: examples should be a whole number, not 'many'"),
        ("[discover]\nexamples = 1.5", "[discover]: examples should be a whole number, not 1.5"),
        ("[discover]\nports = 1", "[discover]: ports should be true or false, not 1"),
        ("[discover]\nmodel = ['a']", "[discover]: model should be a text, not ['a']"),
        ("[discover]\nedges = true", "[discover]: edges should be a whole number, not True"),
        ("[discover\n", "edgewise.toml is not TOML"),
    ],
)
def test_what_there_is_not_is_refused_whatever_command_is_typed(shell, toml, text, sentence) -> None:
    toml(text)
    assert sentence in shell.refuses("tasks")


def test_every_option_of_every_command_can_have_a_default() -> None:
    names = {name: set(options_of(command)) for name, command in callbacks().items()}
    assert {"model", "threshold", "lambda", "ports", "json", "max-memory", "variant"} <= names["discover"]
    assert {"run", "circuit", "task"}.isdisjoint(names["show"] | names["draw"] | names["discover"])
    assert {"task", "quick", "minutes"} <= names["evaluate"]
