"""The bar of a search in a notebook."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import tiny
import tqdm.auto

import edgewise as ew
from edgewise.discovery import Progress
from edgewise.runs import bar
from edgewise.runs.bar import told


class Heard(tqdm.auto.tqdm):
    """A bar that is drawn on no terminal and remembers what it was told."""

    made: list[Heard]

    def __init__(self, **options: object) -> None:
        super().__init__(**options, file=SimpleNamespace(write=lambda text: None, flush=lambda: None))  # type: ignore[arg-type]
        self.made.append(self)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Heard]:
    monkeypatch.setattr(Heard, "made", [], raising=False)
    monkeypatch.setattr("tqdm.auto.tqdm", Heard)
    monkeypatch.setattr(bar, "SECONDS", 0)
    return Heard.made


def notebook(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


@pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
def test_a_notebook_has_a_bar_unless_told_otherwise_and_a_script_only_if_it_asks(bars, monkeypatch):
    model = tiny.gpt2(layers=2)
    task = tiny.task()
    notebook(monkeypatch, None)
    ew.discover(model, task, threshold=0.1)
    assert not bars
    ew.discover(model, task, threshold=0.1, progress=True)
    assert len(bars) == 1
    assert bars[0].n == bars[0].total == model.graph().n_edges
    assert bars[0].desc == f"acdc on {task.name}"
    notebook(monkeypatch, SimpleNamespace(kernel=object()))
    ew.discover(model, task, threshold=0.1, progress=False)
    assert len(bars) == 1
    ew.discover(model, task, threshold=0.1)
    assert len(bars) == 2


def test_a_bar_begins_again_with_each_part_and_is_gone_in_the_end_whatever_happens(bars):
    def stop() -> None:
        with told(True, "acdc on ioi") as tell:
            assert tell is not None
            tell(Progress(1, 4, 0, 1, float("nan"), "prompts", float("nan")))
            tell(Progress(4, 4, 0, 4, float("nan"), "prompts", float("nan")))
            tell(Progress(10, 20, 3, 8, 0.5, "m0", 0.1, absent=10))
            assert (bars[1].n, bars[1].total) == (0, 10)
            tell(Progress(14, 20, 3, 8, 0.5, "m0", 0.1, absent=10))
            tell(Progress(12, 20, 3, 8, 0.5, "m0", 0.1, attempt=2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert [one.desc for one in bars] == ["acdc on ioi: prompts", "acdc on ioi", "acdc on ioi"]
    assert [one.n for one in bars] == [4, 4, 12]
    assert all(one.disable for one in bars), "closed"


def test_a_function_is_called_as_ever():
    heard = []
    with told(heard.append, "acdc") as tell:
        assert tell is not None
        tell(Progress(1, 2, 1, 1, 0.0, "m0", 0.1))
    assert len(heard) == 1
