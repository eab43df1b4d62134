"""The ACDC paper's Tables 2 and 3: areas under its ROC curves, as published."""

from __future__ import annotations

# Rows as printed: metric, task; columns: ACDC, HISP, SP by edges, then by nodes.
_CORRUPTED = """
kl_div     docstring          .982 .805 .937  .950 .881 .928
kl_div     greater-than       .853 .693 .806  .890 .642 .827
kl_div     ioi                .869 .789 .823  .880 .668 .842
task       docstring          .972 .821 .942  .938 .889 .941
task       greater-than       .461 .706 .812  .766 .631 .811
task       ioi                .589 .836 .707  .777 .728 .797
l2         tracr-xproportion  .679 .679 .525  .750 .909 .818
l2         tracr-reverse      .200 .577 .193  .312 .750 .375
"""
_ZERO = """
kl_div     docstring          .906 .805 .428  .837 .881 .420
kl_div     greater-than       .701 .693 .163  .887 .642 .134
kl_div     ioi                .539 .792 .486  .458 .671 .605
task       docstring          .929 .821 .482  .825 .889 .398
task       greater-than       .491 .706 .639  .783 .631 .522
task       ioi                .447 .836 .393  .424 .728 .479
l2         tracr-xproportion  1.000 .679 .829  1.000 .909 1.000
l2         tracr-reverse      1.000 .577 .801  1.000 .750 1.000
"""
METHODS_IN_PAPER = ("acdc", "head-importance", "subnetwork-probing")
TASK_METRICS = {"docstring": "logit_diff_max", "greater-than": "prob_diff", "ioi": "logit_diff"}

Cell = tuple[str, str, str, str, str]
"""Ablation, task, metric, method, and `edges` or `nodes`."""


def _read(ablation: str, table: str) -> dict[Cell, float]:
    cells: dict[Cell, float] = {}
    for line in table.split("\n"):
        if not line:
            continue
        metric, task, *numbers = line.split()
        metric = TASK_METRICS[task] if metric == "task" else metric
        columns = [(method, counted) for counted in ("edges", "nodes") for method in METHODS_IN_PAPER]
        for (method, counted), number in zip(columns, numbers, strict=True):
            cells[ablation, task, metric, method, counted] = float(number)
    return cells


PUBLISHED_AUC: dict[Cell, float] = {**_read("resample", _CORRUPTED), **_read("zero", _ZERO)}
"""All 96 areas (pessimistic staircase) by ablation, task, metric, method, and what is counted."""

WITHOUT_UNFINISHED: dict[Cell, tuple[int, float]] = {
    ("resample", "greater-than", "prob_diff", "acdc", "edges"): (7, 0.436),
    ("zero", "greater-than", "kl_div", "acdc", "edges"): (4, 0.608),
    ("resample", "tracr-xproportion", "l2", "acdc", "edges"): (2, 0.600),
    ("resample", "tracr-xproportion", "l2", "acdc", "nodes"): (2, 0.727),
}
"""How many published runs had not finished, and what published areas become without them."""
