"""What the ACDC paper published as areas under its ROC curves: Tables 2 and 3, its reset networks, and its figure 5."""

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
# Reset networks: not printed; from the points of the paper's code at 6894cd80 (June 2023), the last with all of them.
_RESET_CORRUPTED = """
kl_div     docstring          .322 .643 .459  .438 .613 .448
kl_div     greater-than       .414 .354 .597  .354 .474 .518
kl_div     ioi                .370 .264 .435  .311 .470 .393
task       docstring          .458 .470 .546  .487 .464 .570
task       greater-than       .000 .345 .315  .000 .460 .295
task       ioi                .405 .244 .497  .450 .437 .434
l2         tracr-xproportion  .000 .679 .329  .000 .909 .557
l2         tracr-reverse      .000 .656 .278  .000 .750 .355
"""
_RESET_ZERO = """
kl_div     docstring          .384 .643 .631  .458 .613 .636
kl_div     greater-than       .468 .354 .517  .546 .474 .425
kl_div     ioi                .393 .264 .419  .384 .470 .344
task       docstring          .554 .470 .708  .626 .464 .705
task       greater-than       .000 .345 .450  .000 .460 .414
task       ioi                .344 .244 .494  .398 .437 .443
l2         tracr-xproportion  .000 .679 .071  .000 .909 .318
l2         tracr-reverse      .000 .656 .278  .000 .750 .355
"""
METHODS_IN_PAPER = ("acdc", "head-importance", "subnetwork-probing")
TASK_METRICS = {"docstring": "logit_diff_max", "greater-than": "prob_diff", "ioi": "logit_diff"}

TABLES, INDUCTION, ABSOLUTE, RESET = "tables-2-3", "fig-4", "fig-5", "reset"
"""Names of what rows of areas and curves belong to."""

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

RESET_AUC: dict[Cell, float] = {**_read("resample", _RESET_CORRUPTED), **_read("zero", _RESET_ZERO)}
"""The same on reset networks."""

ABSOLUTE_AUC: dict[Cell, float] = {
    ("resample", "ioi", "logit_diff", "acdc", "edges"): 0.716,
    ("resample", "ioi", "logit_diff", "acdc", "nodes"): 0.874,
}
"""ACDC by the absolute difference (figure 5; data of the paper's code at 30d17b3f)."""

AREAS: dict[str, dict[Cell, float]] = {TABLES: PUBLISHED_AUC, RESET: RESET_AUC, ABSOLUTE: ABSOLUTE_AUC}

WITHOUT_UNFINISHED: dict[Cell, tuple[int, float]] = {
    ("resample", "greater-than", "prob_diff", "acdc", "edges"): (7, 0.436),
    ("zero", "greater-than", "kl_div", "acdc", "edges"): (4, 0.608),
    ("resample", "tracr-xproportion", "l2", "acdc", "edges"): (2, 0.600),
    ("resample", "tracr-xproportion", "l2", "acdc", "nodes"): (2, 0.727),
}
"""How many published runs had not finished, and what published areas become without them."""
