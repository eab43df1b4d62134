"""What Tab offers after an option: names alone, kept here because looking them up would wait for torch."""

from __future__ import annotations

TASKS = (
    *("ioi", "greater-than", "docstring", "induction", "gender-pronoun"),
    *("tracr-reverse", "tracr-xproportion", "or-gate"),
)
MODELS = ()
METHODS = ()
METRICS = ()
ABLATIONS = ("resample", "zero", "mean", "mean-positional")
