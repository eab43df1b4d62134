"""Plots: what stands on their axes, which points they show, and that the same numbers are the same file."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgewise.discovery import HeadParts
from edgewise.errors import EdgewiseError
from edgewise.reports.head_plots import head_plot
from edgewise.reports.plots import heat_plot, roc_plot, size_plot, threshold_plot
from edgewise.reports.sweep_plots import shades

MAPS = SimpleNamespace(
    heads=np.array([[0.5, -2.0, 0.0], [1.0, 0.001, 4.0]]),
    mlps=np.array([0.1, 0.2]),
    embedding=np.array([3.0]),
    positions=np.array([[0.0, 1.0, 2.0, -1.0], [0.5, 0.0, 0.0, 0.0]]),
)
CURVES = {"ACDC": [(100, 0.01), (10, 1.0), (0, 9.0)], "a & $b$ <c>": [(20, 0.5)]}


def words(plot) -> str:
    return " ".join(text.get_text() for text in plot.findobj(lambda artist: hasattr(artist, "get_text")))


def line(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


def test_a_roc_plot_has_every_point_and_a_staircase_that_climbs():
    plot = roc_plot({"ACDC": [(0.2, 0.9), (0.0, 0.5), (0.3, 0.8)]}, title="IOI")
    axes = plot.axes[0]
    assert line(axes, "ACDC").get_xydata().tolist() == [[0.0, 0.5], [0.2, 0.9], [0.3, 0.8]]
    stairs = next(one for one in axes.lines if one.get_drawstyle() == "steps-post")
    assert stairs.get_xydata().tolist() == [[0, 0], [0, 0.5], [0.2, 0.9], [0.3, 0.9], [1, 1]]
    assert axes.get_xlabel() == "false positive rate (share of other edges)"
    assert axes.get_ylabel() == "true positive rate (share of true edges)"
    with pytest.raises(EdgewiseError, match="rates of 'x' should be between 0 and 1"):
        roc_plot({"x": [(0.5, 1.2)]})


def test_sizes_stand_on_a_logarithmic_axis_with_level_lines_for_model_and_ablation():
    plot = size_plot(CURVES, metric="kl_div", full=0.0, ablated=9.0, known=(40, 0.3))
    axes = plot.axes[0]
    assert axes.get_xscale() == "log"
    assert line(axes, "ACDC").get_xydata().tolist() == [[10, 1.0], [100, 0.01]], "a circuit of no edge has no place"
    assert line(axes, "known circuit").get_xydata().tolist() == [[40, 0.3]]
    assert axes.get_ylabel() == "KL divergence from the model (nats)"
    for said in ("whole model", "every edge ablated", "edges in the circuit", "a & $b$ <c>"):
        assert said in words(plot)
    assert "whole model" not in words(size_plot(CURVES, metric="kl_div", full=0.0, log=True))
    with pytest.raises(EdgewiseError, match="no circuit with an edge"):
        size_plot({"a": [(0, 1.0)]}, metric="kl_div")


def test_points_are_darker_by_what_gave_them_and_a_reset_network_is_a_line():
    points = {"ACDC": [(10, 1.0), (100, 0.01), (0, 9.0)], "random": [(10, 8.0)]}
    plot = size_plot(points, metric="kl_div", reset=7.5, shades={"ACDC": [1.0, 0.0, 0.5]}, shaded_by="darker: more")
    axes = plot.axes[0]
    (shaded,) = (one for one in axes.collections if len(one.get_offsets()))
    assert shaded.get_offsets().tolist() == [[10, 1.0], [100, 0.01]]
    dark, light = (face[:3].sum() for face in shaded.get_facecolors())
    assert dark < light
    assert any(one.get_ydata()[0] == 7.5 for one in axes.lines)
    assert "reset network" in words(plot)
    assert "darker: more" in words(plot)


def test_a_sweeps_points_are_shaded_by_threshold_on_a_log_scale_and_not_by_size():
    assert shades("threshold", [0.01, 1.0, 0.1]) == pytest.approx([0.0, 1.0, 0.5])
    assert shades("lambda", [0.0, 0.1, 10.0]) == pytest.approx([0.0, 0.0, 1.0])
    assert shades("units masked", [0, 5, 10]) == pytest.approx([0.0, 0.5, 1.0])
    assert shades("threshold", [0.3]) == [1.0]
    assert shades("edges", [1, 2]) is None


def test_heat_maps_have_layers_from_bottom_to_top_and_one_scale():
    plot = heat_plot(MAPS, metric="logit_diff", tokens=["The", " cat", "\n", "$"])
    nodes, positions = (axes.images[0] for axes in plot.axes[:2])
    assert np.array_equal(nodes.get_array(), np.column_stack([MAPS.heads, MAPS.mlps]))
    assert np.array_equal(positions.get_array(), MAPS.positions)
    assert nodes.origin == positions.origin == "lower"
    assert nodes.get_clim() == positions.get_clim() == (-4.0, 4.0)
    assert [label.get_text() for label in plot.axes[0].get_xticklabels()] == ["0", "1", "2", "MLP"]
    assert [label.get_text() for label in plot.axes[1].get_xticklabels()] == ["The", " cat", "\\n", "$"]
    assert "fall of logit_diff (logits)" in words(plot)
    assert "embedding 3" in words(plot)


def test_heat_maps_of_attention_only_models_and_split_embeddings():
    maps = SimpleNamespace(heads=MAPS.heads, mlps=np.zeros(0), embedding=np.array([1.0, 2.5]), positions=MAPS.positions)
    plot = heat_plot(maps, metric="own")
    assert plot.axes[0].images[0].get_array().shape == (2, 3)
    assert "tokens 1, positions 2.5" in words(plot)


def test_a_sweep_has_size_and_metric_over_the_same_thresholds():
    plot = threshold_plot([0.1, 0.001, 0.01], [5, 50, 20], [1.0, 0.1, 0.3], metric="l2", ablated=2.0)
    top, bottom = plot.axes
    assert top.lines[0].get_xydata().tolist() == [[0.001, 50], [0.01, 20], [0.1, 5]]
    assert bottom.lines[0].get_xydata().tolist() == [[0.001, 0.1], [0.01, 0.3], [0.1, 1.0]]
    assert bottom.get_xlabel() == "threshold (logits²)"
    assert top.get_xlim() == bottom.get_xlim()
    assert threshold_plot([0.1], [0], [1.0], metric="l2").axes[0].get_ylim()[0] == 0
    with pytest.raises(EdgewiseError, match="1 thresholds, 2 sizes and 1 metrics"):
        threshold_plot([0.1], [1, 2], [1.0], metric="l2")
    with pytest.raises(EdgewiseError, match="above 0"):
        threshold_plot([0.0], [1], [1.0], metric="l2")


@pytest.mark.parametrize("suffix", [".svg", ".png", pytest.param(".pdf", marks=pytest.mark.slow)])
def test_the_same_numbers_are_the_same_file_byte_for_byte(suffix, tmp_path):
    calls = (
        lambda path: roc_plot({"$a": [(0.1, 0.5)]}, path=path),
        lambda path: size_plot(CURVES, metric="kl_div", path=path),
        lambda path: heat_plot(MAPS, metric="kl_div", path=path),
        lambda path: threshold_plot([0.1, 1], [5, 1], [1, 2], metric="kl_div", path=path),
    )
    start = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}[suffix]
    for call in calls if suffix == ".svg" else calls[1:3]:
        one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
        call(one)
        call(other)
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes().startswith(start)


def test_names_with_markup_or_dollars_are_words_in_the_file(tmp_path):
    size_plot(CURVES, metric="<script>", title="$x$", path=tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<script>" not in text
    assert "a &amp; $b$ &lt;c" in text


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(EdgewiseError, match=r"should end in .svg, .png or .pdf, not '.jpg'"):
        roc_plot({}, path=tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_a_plot():
    assert roc_plot({})._repr_png_().startswith(b"\x89PNG")


def test_a_heads_maps_add_up_and_name_the_strongest_parts():
    names = (*(f"a0.h{number}" for number in range(20)), "constants", "bias")
    torch.manual_seed(0)
    above, sides = torch.randn(22, 22, dtype=torch.float64), torch.randn(3, 22, 4, dtype=torch.float64)
    above[7] += 50
    seen = torch.ones(3, 4, dtype=torch.bool)
    seen[0, 3] = False
    places = torch.zeros(3, dtype=torch.long)
    nothing, values = torch.zeros(3, 4), torch.randn(3, 22, 4, dtype=torch.float64)
    parts = HeadParts(
        "a1.h0", names, places, places, places, nothing, nothing, seen, sides, sides * seen[:, None], above, above, (),
        values, torch.zeros(3),
    )  # fmt: skip
    plot = head_plot(parts, tokens=["a", "b", "c", "d"])
    pairs, _, answers = [axes for axes in plot.axes if axes.get_title()]
    rows = [label.get_text() for label in pairs.get_yticklabels()]
    assert "a0.h7" in rows
    assert rows[-1] == "others"
    assert len(rows) == 13
    for axes, total in ((pairs, above.sum()), (answers, values.mean(dim=0).sum())):
        shown = axes.images[0].get_array()
        assert shown.sum() == pytest.approx(total.item(), abs=1e-9)
    # What all keys have in common is left out: the keys that a query sees have a mean of nothing.
    alone = HeadParts(**{**vars(parts), "seen": torch.ones(3, 4, dtype=torch.bool), "key_side": sides})
    by_key = next(axes for axes in head_plot(alone).axes if axes.get_title() == "score by key")
    assert abs(by_key.images[0].get_array().sum(axis=1)).max() < 1e-9
    assert [label.get_text() for label in answers.get_xticklabels()] == ["a", "b", "c", "d"]
