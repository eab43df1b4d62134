"""What Tab offers: the names that there are, without waiting for torch."""

from __future__ import annotations

import json
import subprocess
import sys

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


OFFERED = {
    "edgewise discover tracr": ["tracr-reverse", "tracr-xproportion"],
    "edgewise discover ioi --method edge": ["edge-attribution", "edge-attribution-ig", "edge-pruning"],
    "edgewise evaluate runs/x --ablation me": ["mean", "mean-clean", "mean-positional"],
    "edgewise show runs/ioi": ["runs/ioi-acdc"],
    "edgewise report runs/ioi-acdc ru": ["runs/ioi-acdc", "runs/mine", "runs/old/"],
    "edgewise draw c": ["circuit.json"],
    "edgewise compare runs/old/": ["runs/old/first"],
}
CODE = f"""
import contextlib, io, json, os, sys
sys.argv = ["edgewise"]
os.environ["_EDGEWISE_COMPLETE"] = "complete_bash"
offered = {{}}
for typed in {list(OFFERED)!r}:
    os.environ.update(COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        from edgewise.cli import main
        main()
    offered[typed] = printed.getvalue().split()
print(json.dumps([offered, "torch" in sys.modules]))
"""


def test_the_shell_is_offered_them(tmp_path) -> None:
    """All in one process, as each start of one takes longer than what Tab waits for."""
    for run in ("runs/ioi-acdc", "runs/mine", "runs/old/first", "other/of-mine"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "run.json").touch()
    (tmp_path / "circuit.json").touch()
    (tmp_path / "code.py").touch()
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [OFFERED, False]
