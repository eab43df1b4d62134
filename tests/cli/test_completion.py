"""What Tab offers: the names that there are, without waiting for torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgewise.cli import completion
from edgewise.discovery import ALIASES, METHODS
from edgewise.models import BUILT_IN, GETTABLE
from edgewise.models.shapes import SHAPES
from edgewise.patching import ABLATIONS
from edgewise.tasks import METRICS, TASKS


def test_the_names_offered_are_those_there_are() -> None:
    assert list(completion.TASKS) == list(TASKS)
    assert list(completion.MODELS) == [*BUILT_IN, *GETTABLE]
    assert list(completion.GETTABLE) == list(GETTABLE)
    assert list(completion.METHODS) == [*METHODS, *ALIASES]
    assert list(completion.METRICS) == list(METRICS)
    assert list(completion.ABLATIONS) == list(ABLATIONS)
    assert list(completion.SHAPES) == list(SHAPES)


CODE = """
import sys
sys.argv[0] = "edgewise"
try:
    from edgewise.cli.app import app
    import edgewise.cli
    app(prog_name="edgewise")
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("edgewise discover tracr", ["tracr-reverse", "tracr-xproportion"]),
        ("edgewise discover ioi --method edge", ["edge-attribution", "edge-attribution-ig", "edge-pruning"]),
        ("edgewise evaluate runs/x --ablation me", ["mean", "mean-clean", "mean-positional"]),
    ],
)
def test_the_shell_is_offered_them(typed: str, offered: list[str]) -> None:
    words = typed.split()
    environment = {**os.environ, "_EDGEWISE_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    environment["COMP_CWORD"] = str(len(words) - 1)
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == offered, done.stderr
    assert "AssertionError" not in done.stderr
