"""`--force`: a run takes the place of another one, when it is finished and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.errors import EdgewiseError
from edgewise.runs.folder import RunFolder, require_free

OLD = {"run.json": "old", "trace.jsonl": "old"}
NEW = {"run.json": "new", "circuit.json": "new"}


def held(path: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in path.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with RunFolder.claim(tmp_path / "run") as folder:
        return folder.finish(OLD)


def test_the_old_run_stays_until_the_new_one_is_whole(old: Path) -> None:
    with RunFolder.claim(old, force=True) as folder:
        assert held(old) == OLD
        assert folder.finish(NEW) == old
    assert held(old) == NEW
    assert list(old.parent.iterdir()) == [old]


def test_a_run_that_fails_leaves_the_old_one(old: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder.claim(old, force=True):
        raise ZeroDivisionError
    assert held(old) == OLD
    assert list(old.parent.iterdir()) == [old]


def test_without_force_nothing_is_replaced_and_the_refusal_names_it(old: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"holds another run; .* or replace it with force \(--force\)"):
        require_free(old)


def test_only_a_run_is_replaced_and_only_if_it_holds_nothing_else(old: Path, tmp_path: Path) -> None:
    (old / "notes.txt").write_text("mine")
    with pytest.raises(EdgewiseError, match="holds another run"):
        require_free(old, force=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(EdgewiseError, match="is not empty"):
        require_free(other, force=True)


def test_force_is_no_trouble_where_nothing_is(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run", force=True) as folder:
        assert held(folder.finish(NEW)) == NEW
