"""How good is it: what the model says, and what a circuit keeps of it."""

from edgewise.evaluation.ability import Ability, abilities
from edgewise.evaluation.answers import Said, answers_of
from edgewise.evaluation.bootstrap import Bootstrap, Interval, mean_jaccard
from edgewise.evaluation.compare import CircuitComparison, compare_circuits
from edgewise.evaluation.hypotheses import Hypotheses, run_tests
from edgewise.evaluation.measuring import Accuracy, Evaluation, Measured, Spread, evaluate, evaluate_in
from edgewise.evaluation.mib import MibRoc, MibScores, mib_auroc, mib_scores
from edgewise.evaluation.outcome import Outcome, outcome_of
from edgewise.evaluation.path_effects import PathEffect, patch_paths
from edgewise.evaluation.random_circuits import random_circuit
from edgewise.evaluation.roc import Counted, RocCurve, RocPoint, area_under, frontier, roc_curve, roc_point, roc_points

__all__ = [
    "Ability",
    "Accuracy",
    "Bootstrap",
    "CircuitComparison",
    "Counted",
    "Evaluation",
    "Hypotheses",
    "Interval",
    "Measured",
    "MibRoc",
    "MibScores",
    "Outcome",
    "PathEffect",
    "RocCurve",
    "RocPoint",
    "Said",
    "Spread",
    "abilities",
    "answers_of",
    "area_under",
    "compare_circuits",
    "evaluate",
    "evaluate_in",
    "frontier",
    "mean_jaccard",
    "mib_auroc",
    "mib_scores",
    "outcome_of",
    "patch_paths",
    "random_circuit",
    "roc_curve",
    "roc_point",
    "roc_points",
    "run_tests",
]
