"""Whether oneDNN or PyTorch's own products are used for large weights: measured once, kept, and said in records."""

import json

import pytest
import torch

from edgewise.models import matmul, products
from edgewise.models.matmul import fast_matmul

pytestmark = pytest.mark.skipif(matmul._LINEAR is None, reason="this PyTorch comes without oneDNN")


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """The file of what was measured, and how often that was."""
    monkeypatch.delenv("EDGEWISE_PRODUCTS")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(products, "REPEATS", 1)
    made, measured = [], products.measured
    monkeypatch.setattr(products, "measured", lambda onednn: made.append(1) or measured(onednn))
    products._chosen.cache_clear()
    yield tmp_path / "products.json", made
    products._chosen.cache_clear()


def test_it_is_measured_once_and_kept_for_the_next_process(measuring):
    file, made = measuring
    first = products.chosen(matmul._onednn_linear)
    (entry,) = json.loads(file.read_text()).values()
    assert entry["chosen"] == first
    assert entry["oneDNN"] > 0
    assert entry["default"] > 0
    products._chosen.cache_clear()  # as in the next process
    assert products.chosen(matmul._onednn_linear) == first
    other = "default" if first == "oneDNN" else "oneDNN"
    file.write_text(file.read_text().replace(f'"chosen": "{first}"', f'"chosen": "{other}"'))
    products._chosen.cache_clear()
    assert products.chosen(matmul._onednn_linear) == other
    assert len(made) == 1
    file.write_text("torn")
    products._chosen.cache_clear()
    assert products.chosen(matmul._onednn_linear) in ("oneDNN", "default")
    assert len(made) == 2


def test_without_a_folder_to_keep_it_in_a_choice_is_made_all_the_same(measuring, monkeypatch, tmp_path):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "a-file"))
    assert products.chosen(matmul._onednn_linear) in ("oneDNN", "default")


@pytest.mark.parametrize(("named", "detours"), [("onednn", 1), ("default", 0)])
def test_the_choice_is_about_large_weights_alone(named, detours, monkeypatch):
    monkeypatch.setenv("EDGEWISE_PRODUCTS", named)
    seen, linear = [], matmul._LINEAR
    monkeypatch.setattr(matmul, "_LINEAR", lambda x, *rest: seen.append(1) or linear(x, *rest))  # pyright: ignore[reportOptionalCall]
    draw = torch.Generator().manual_seed(0)
    large, small = (torch.randn(size, 512, generator=draw) for size in (512, 256))
    x = torch.randn(32, 512, generator=draw)
    with fast_matmul():
        found = x @ large.T
        assert len(seen) == detours
        assert torch.allclose(found, torch.nn.functional.linear(x, large), atol=1e-4)
        assert (x @ small.T).shape == (32, 256)
    assert len(seen) == detours + 2 - (named == "default")


@pytest.mark.parametrize(
    ("speeds", "wanted"), [((100, 105), "oneDNN"), ((100, 150), "default"), ((300, 100), "oneDNN")]
)
def test_the_default_is_taken_only_where_it_is_clearly_faster(speeds, wanted, monkeypatch):
    seconds = {}

    def now():
        return sum(seconds.values())

    def way(name, speed):
        def product(x, weight):
            seconds[name] = seconds.get(name, 0.0) + 1 / speed
            return x

        return product

    monkeypatch.setattr(products.time, "process_time", now)
    monkeypatch.setattr(torch.nn.functional, "linear", way("default", speeds[1]))
    assert products.measured(way("oneDNN", speeds[0]))["chosen"] == wanted
