"""What answers at once: help, lists and refusals wait for none of the packages that take long to import."""

from __future__ import annotations

import io
import json
import subprocess
import sys

from edgewise.cli import early
from edgewise.cli.listed import FILE, made

HEAVY = ("numpy", "torch", "transformers", "matplotlib", "scipy", "pandas", "safetensors", "huggingface_hub")
AT_ONCE = (
    "",
    "--help",
    "--version",
    "discover --help",
    "models get --help",
    "evaluate --help",
    "discovr",
    "discover ioi --metod acdc",
    "discover ioi --threshold much",
    "discover ioi --method acd",
    "discover ioi --metric kldiv",
    "patch ioi --ablation resampel",
    "plan iio",
    "tasks",
    "methods --json",
)
CODE = f"""
import contextlib, io, json, sys
from edgewise.cli import main
loaded = {{}}
for typed in {AT_ONCE!r}:
    sys.argv = ["edgewise", *typed.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main()
    loaded[typed] = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps(loaded))
"""


def test_help_lists_and_refusals_import_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {typed: [] for typed in AT_ONCE}


def test_what_is_listed_is_what_there_is() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == made(), "run scripts/list_names.py"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_reads_what_is_loaded_before_torch_is_imported(shell, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", said := Terminal())
    monkeypatch.setitem(sys.modules, "edgewise.discovery", None)  # so that it cannot be imported
    for typed in (["discover", "ioi"], ["discover", "or-gate", "-m", "mine"], ["discover", "ioi", "--quiet"]):
        try:
            shell(*typed)
        except ImportError:
            continue
        raise AssertionError("it went on without what searches")
    assert said.getvalue() == "loading tiny-ioi ...\nloading mine ...\n"


def test_a_pipe_is_spared_what_is_loaded(capsys) -> None:
    early.waiting("loading tiny-ioi", quiet=False)
    assert capsys.readouterr() == ("", "")
