"""What `pip install` gets: small, whole, and enough by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgewise as ew

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without the network by the backend that is installed."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("edgewise-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel unpacked where nothing else of the clone is, beside the packages of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder)
    return folder


def test_it_is_small_and_holds_all_of_the_package_and_nothing_else(wheel):
    assert wheel.stat().st_size < 10 * 2**20
    assert wheel.name.startswith(f"edgewise-{ew.__version__}-py3-none-any")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "edgewise"
    ours = {
        f"edgewise/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= names
    assert {name.partition("/")[0] for name in names} == {"edgewise", f"edgewise-{ew.__version__}.dist-info"}
    for needed in ("py.typed", "reports/page/built/page.js", "reports/page/view.js", "cli/listed.json"):
        assert f"edgewise/{needed}" in names
    assert any(name.endswith(".safetensors") for name in names), "the models that come along"
    assert f"edgewise-{ew.__version__}.dist-info/licenses/LICENSE" in names


def test_the_wheel_alone_finds_a_circuit_and_writes_its_page(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}

    def edgewise(*words: str) -> str:
        program = "import sys; from edgewise.__main__ import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import edgewise; print(edgewise.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed) in where.stdout
    assert re.search(r"kept 31 of 527 edges", edgewise("discover", "ioi", "--threshold", "0.01"))
    edgewise("report", "runs/ioi-acdc")
    assert (tmp_path / "runs" / "ioi-acdc" / "report.html").stat().st_size > 100_000
