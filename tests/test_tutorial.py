"""The tutorial runs from its first cell to its last, and prints what stands in it."""

import ast
import base64
import contextlib
import io
import json
import re
from pathlib import Path

from printed import same_but_for_rounding

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def run_cell(source: str, names: dict) -> tuple[str, object]:
    """What a cell prints, and the value of its last line if that is an expression that no semicolon ends."""
    tree = ast.parse(source)
    last = tree.body[-1]
    shown = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if isinstance(last, ast.Expr) and not source.rstrip().endswith(";"):
            tree.body.pop()
            exec(compile(tree, "cell", "exec"), names)
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        else:
            exec(compile(tree, "cell", "exec"), names)
    return printed.getvalue(), shown


def test_the_tutorial_runs_and_shows_what_stands_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(TUTORIAL.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict = {"__name__": "tutorial"}
    pictures = 0
    for cell in cells:
        printed, shown = run_cell("".join(cell["source"]), names)
        streams = [output for output in cell["outputs"] if output["output_type"] == "stream"]
        stands = "".join("".join(output["text"]) for output in streams)
        assert same_but_for_rounding(printed, stands), (printed, stands)
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                pictures += 1
                told = re.findall(r"<title>[^<]*-&gt;[^<]*</title>", "".join(data["image/svg+xml"]))
                assert len(told) == 20
                drawn = re.findall(r"<title>[^<]*-&gt;[^<]*</title>", shown._repr_svg_())  # type: ignore[attr-defined]
                assert same_but_for_rounding("\n".join(drawn), "\n".join(told))
            if "image/png" in data:
                pictures += 1
                assert base64.b64decode(data["image/png"])[:4] == shown._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
    assert pictures == 5
    assert (tmp_path / "reverse.png").stat().st_size > 10_000
    assert (tmp_path / "runs" / "ioi" / "report.html").stat().st_size > 50_000
