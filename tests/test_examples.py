"""The examples run as they stand: scripts by their own `main`, notebooks from the first cell to the last."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
pytestmark = pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")


def run(name, monkeypatch, capsys, tmp_path, *arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    return capsys.readouterr().out


def test_there_are_five_scripts_that_take_a_model_and_three_notebooks():
    assert len(SCRIPTS) == 5
    assert all('"--model"' in path.read_text() for path in SCRIPTS.values())
    assert len(NOTEBOOKS) == 3


@pytest.mark.slow
def test_a_circuit_is_found_evaluated_and_kept(monkeypatch, capsys, tmp_path):
    said = run("find_a_circuit", monkeypatch, capsys, tmp_path)
    assert "of 527 edges" in said
    assert (tmp_path / "runs" / "example" / "report.html").stat().st_size > 50_000


def test_the_same_on_a_small_model(monkeypatch, capsys, tmp_path):
    said = run("find_a_circuit", monkeypatch, capsys, tmp_path, "--model", "or-gate", "--task", "or-gate")
    assert re.search(r"^<Run: acdc on or-gate in or-gate; 2 of \d+ edges", said, re.MULTILINE)
    assert (tmp_path / "runs" / "example" / "circuit.json").exists()


def test_prompts_of_ones_own(monkeypatch, capsys, tmp_path):
    said = run("own_prompts", monkeypatch, capsys, tmp_path, "--edges", "20")
    assert "16 prompt pairs" in said
    assert re.search(r"right on 100\.0% \(model 100\.0%\)", said)
    assert len(re.findall(r"^  \S+->\S+  [+-]\d+\.\d{3}$", said, re.MULTILINE)) == 5


def test_methods_are_compared(monkeypatch, capsys, tmp_path):
    asked = ("--task", "induction", "--sizes", "5", "9", "--methods", "eap", "random", "--plot", "plot.png")
    said = run("compare_methods", monkeypatch, capsys, tmp_path, *asked)
    assert len(re.findall(r"^  (?:edge-attribution|random) .*% recovered$", said, re.MULTILINE)) == 4
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_transcoders_are_trained_and_their_features_searched(monkeypatch, capsys, tmp_path):
    asked = ("--features", "40", "--steps", "40", "--texts", "16", "--examples", "4", "--within", "10")
    said = run("features_of_a_model", monkeypatch, capsys, tmp_path, *asked, "--threshold", "0.01")
    assert len(re.findall(r"^layer \d: .* of 40 features active at a time, .* unexplained$", said, re.MULTILINE)) == 2
    assert re.search(r"^<Run: acdc on gender-pronoun in tiny-pronoun; \d+ of 82 features", said, re.MULTILINE)
    assert (tmp_path / "transcoders" / "layer_1.safetensors").exists()


def test_a_head_is_followed(monkeypatch, capsys, tmp_path):
    said = run("follow_a_head", monkeypatch, capsys, tmp_path, "--examples", "4")
    assert said.startswith("a3.h1 matters most")
    assert len(re.findall(r"costs [+-]\d\.\d{3}", said)) == 4


def cells_of(path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    return nbformat.read(path, as_version=4).cells


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_need_one_install_line_and_name_their_model_once(path):
    code = [cell for cell in cells_of(path) if cell.cell_type == "code"]
    installs = [cell for cell in code if "pip install" in cell.source]
    assert [cell.metadata.get("tags") for cell in installs] == [["install"]]
    assert installs[0] is code[0]
    assert len(installs[0].source.splitlines()) == 1
    assert [cell.metadata.get("tags") for cell in code if "MODEL =" in cell.source] == [["parameters"]]
    assert not any(cell.outputs for cell in code), "what a notebook shows is made when it is run"
    for cell in code[1:]:
        ast.parse(cell.source)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_on_the_small_model(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = 'MODEL = "tiny-ioi"'
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [one for one in shown if one.output_type == "error"]
    kinds = {kind for one in shown for kind in one.get("data", {})}
    if path.stem == "click_and_look":
        assert "application/vnd.jupyter.widget-view+json" in kinds
    else:
        assert "text/html" in kinds
    if path.stem == "find_a_circuit":
        assert any("<iframe" in one.get("data", {}).get("text/html", "") for one in shown)
        assert (tmp_path / "runs" / "ioi" / "run.json").exists()
