"""`edgewise show`: a run again, from its folder alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SEARCHES = {
    "acdc": ["tracr-reverse"],
    "known-circuit-and-scores": ["ioi", "--method", "eap", "--edges", "40", "--examples", "8"],
    "nodes": ["ioi", "--level", "node", "--edges", "6", "--examples", "8"],
    "groups": ["ioi", "--method", "eap", "--edges", "40", "--examples", "8", "--groups", "groups.json"],
}


@pytest.mark.parametrize("search", SEARCHES)
def test_a_run_is_shown_as_discover_printed_it(shell, search) -> None:
    (shell.folder / "groups.json").write_text(json.dumps({"first": ["a0.h0", "a0.h1"], "late": ["m3"]}))
    printed = shell.works("discover", *SEARCHES[search], "--out", "run", "--quiet")
    assert shell.works("show", "run").out == printed.out
    assert "written to run" in printed.out


def test_its_json_is_discovers(shell) -> None:
    printed = shell.works("discover", "tracr-reverse", "--out", "run", "--quiet", "--json")
    assert shell.json("show", "run") == printed.json


@pytest.fixture
def edit(shell):
    shell.made("discover", "tracr-reverse", "--out", "run", "--quiet")

    def change(**parts):
        path = shell.folder / "run" / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))

    return change


def test_it_waits_for_no_torch(shell, edit) -> None:
    code = (
        "import sys; sys.argv = ['edgewise', 'show', 'run']\nfrom edgewise.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=shell.folder)
    assert done.stdout.endswith("written to run\nset()\n")


def test_of_a_stopped_search_it_says_how_far_it_came(shell, edit) -> None:
    stopped = {"why": "interrupted", "at": "m0", "decided": 3, "of": 33, "tests": 3, "whole": False}
    edit(finished=False, stopped=stopped)
    said = shell.works("show", "run").out
    assert said.startswith("interrupted. 3 of 33 edges were decided, up to m0; that much is kept in run")
    assert "edgewise resume run" in said
    shown = shell.json("show", "run")
    assert (shown["finished"], shown["stopped"]) == (False, stopped)


def test_of_a_search_under_way_too(shell, edit) -> None:
    far = {"decided": 1200, "of": 32923, "kept": 5, "tests": 1100}
    edit(finished=False, under_way=far)
    (shell.folder / "run" / "circuit.json").unlink()  # which it has when it has ended
    said = shell.works("show", "run").out
    assert "has not ended: 1,200 of 32,923 edges are decided" in said
    assert "edgewise resume run" in said
    assert shell.json("show", "run")["under_way"] == far


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"result": {}}, "the run record of 'run' is broken: 'scoring' is missing"),
        ({"form": 99}, "written by another version of edgewise"),
        ({"settings": []}, "settings"),
    ],
)
def test_a_broken_record_is_refused(shell, edit, parts, sentence) -> None:
    edit(**parts)
    assert sentence in shell.refuses("show", "run")


def test_what_is_no_run_is_refused(shell) -> None:
    assert "'nothing' is not a run folder" in shell.refuses("show", "nothing")
