"""The tests as other machines would run them: one cell after the other, whatever fails, and a table at the end.

A processor without AVX-512 or AVX2, another number of threads, a PyTorch without oneDNN, MKL's own kernels for any
processor: each sums in another order, so float32 results differ in their last digits, and no test may depend on those.
The oldest PyTorch that pyproject.toml admits, the newest that there is, and other Pythons get environments of their
own, `.venv-CELL`; `newest` is the newest PyTorch on Python 3.13 at once. Each cell's output is kept in
`portable/CELL.log`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "portable"


@dataclass(frozen=True)
class Cell:
    """Settings of the environment, or another Python or PyTorch."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    torch: str | None = None

    def interpreter(self) -> str:
        """The Python to run the tests with, in an environment made for this cell if it needs one of its own.

        Raises:
            LookupError: there is no such Python here, or its packages cannot be had.
        """
        if self.python is None and self.torch is None:
            return sys.executable
        made = ROOT / f".venv-{self.name}" / "bin" / "python"
        if not made.exists():
            base = sys.executable if self.python is None else find_python(self.python)
            subprocess.run([base, "-m", "venv", str(made.parents[1])], check=True)
        # PyTorch pins some of what it needs itself, in every version otherwise.
        own = re.compile(r"(torch|sympy)==") if self.torch else None
        kept = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not (own and own.match(line))]
        constraints = made.parents[1] / "constraints.txt"
        constraints.write_text("\n".join(kept) + "\n")
        packages = [self.torch or "torch", "--editable", ".[dev]"]
        install = [str(made), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", *packages]
        done = subprocess.run(
            install, cwd=ROOT, env={**os.environ, "PIP_CONSTRAINT": str(constraints)}, capture_output=True, text=True
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise LookupError(said[-1] if said else "pip failed")
        return str(made)


def find_python(version: str) -> str:
    """An interpreter of this version, on the path or pyenv's."""
    on_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in [*([on_path] if on_path else []), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]:
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True).returncode == 0:
            return candidate
    raise LookupError(f"there is no Python {version} here")


def oldest_torch() -> str:
    """The oldest PyTorch that pyproject.toml admits, `torch==2.6.0`."""
    found = re.search(r'"torch>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    assert found is not None
    return f"torch=={found[1]}.0"


CELLS = (
    Cell("one-thread", {"EDGEWISE_THREADS": "1", "OMP_NUM_THREADS": "1"}),
    Cell("two-threads", {"EDGEWISE_THREADS": "2", "OMP_NUM_THREADS": "2"}),
    Cell("onednn-avx2", {"DNNL_MAX_CPU_ISA": "AVX2"}),
    Cell("onednn-sse41", {"DNNL_MAX_CPU_ISA": "SSE41"}),
    Cell("onednn-off", {"EDGEWISE_ONEDNN": "off"}),
    Cell("aten-default", {"ATEN_CPU_CAPABILITY": "default"}),
    Cell("mkl-compatible", {"MKL_CBWR": "COMPATIBLE"}),
    Cell("torch-oldest", torch=oldest_torch()),
    Cell("torch-newest", torch="torch"),
    Cell("python-3.12", python="3.12"),
    Cell("python-3.13", python="3.13"),
    Cell("newest", python="3.13", torch="torch"),
)


def run(cell: Cell, tests: list[str]) -> tuple[str, str, float]:
    """Run the tests in one cell.

    Returns:
        `passed`, `FAILED`, `STOPPED` (pytest was ended from outside, so the rest never ran) or `not had`; pytest's
        closing line or the reason; and seconds.
    """
    start = time.monotonic()
    try:
        python = cell.interpreter()
    except (LookupError, subprocess.CalledProcessError) as error:
        return "not had", str(error), time.monotonic() - start
    log = LOGS / f"{cell.name}.log"
    with log.open("w") as file:
        command = [python, "-m", "pytest", "-v", "-n", "2", "--dist", "loadfile", "-m", "not slow", *tests]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **cell.settings}, stdout=file, stderr=subprocess.STDOUT
        )
    lines = log.read_text().splitlines()
    stopped = done.returncode < 0
    # A run that was stopped has no list of failures at its end, only a line for every test.
    for line in lines:
        if re.search(r"\] (FAILED|ERROR) ", line) if stopped else line.startswith(("FAILED", "ERROR")):
            print("   ", line, flush=True)
    seconds = time.monotonic() - start
    if stopped:
        return "STOPPED", f"by signal {-done.returncode}", seconds
    return "passed" if done.returncode == 0 else "FAILED", closing_line(lines), seconds


def closing_line(lines: list[str]) -> str:
    """The line of pytest's counts, `3 failed, 2946 passed in 1140.20s`, which what was skipped may follow."""
    counts = [line for line in lines if re.search(r"\d+ (passed|failed|errors?)\b.* in [\d.]+s", line)]
    return (counts or lines or [""])[-1].strip("= ")


def main() -> int:
    """Run the cells asked for; 1 if tests failed in any, or were stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [cell.name for cell in CELLS]
    parser.add_argument("--cells", nargs="+", choices=names, default=names, metavar="CELL", help=", ".join(names))
    parser.add_argument("--tests", nargs="+", default=[], help="files or folders of tests; all by default")
    asked = parser.parse_args()
    LOGS.mkdir(exist_ok=True)
    table = []
    for cell in (cell for cell in CELLS if cell.name in asked.cells):
        print(f"{cell.name} ...", flush=True)
        table.append((cell.name, *run(cell, asked.tests)))
    print()
    for name, outcome, said, seconds in table:
        print(f"{name:16}{outcome:9}{seconds / 60:6.1f} min  {said}")
    return int(any(outcome in ("FAILED", "STOPPED") for _, outcome, _, _ in table))


if __name__ == "__main__":
    sys.exit(main())
