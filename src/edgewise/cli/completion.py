"""What Tab offers after an option: names, kept here because looking them up would wait for torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

TASKS = (
    *("ioi", "greater-than", "docstring", "induction", "gender-pronoun"),
    *("tracr-reverse", "tracr-xproportion", "or-gate"),
)
GETTABLE = ("smollm2",)
MODELS = (
    *("tiny-ioi", "tiny-greater-than", "tiny-docstring", "tiny-induction", "tiny-pronoun"),
    *("tracr-reverse", "tracr-xproportion", "tracr-xproportion-compiled", "or-gate"),
    *GETTABLE,
)
METHODS = (
    *("acdc", "exact", "edge-attribution", "edge-attribution-ig", "clean-corrupted", "relp"),
    *("bootstrapped-attribution", "attribution-patching", "information-flow", "head-importance", "edge-pruning"),
    *("uniform-gradient-sampling", "subnetwork-probing", "ensemble"),
    *("eap", "eap-ig", "atp", "hisp", "ugs", "sp"),
)
METRICS = (
    "kl_div",
    "logit_diff",
    "logit_diff_max",
    "log_prob_diff",
    "prob_diff",
    "nll",
    "match_nll",
    "l2",
    "frac_correct",
)
SHAPES = (
    *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "pythia-160m", "pythia-1.4b", "pythia-6.9b", "smollm2-135m"),
    *("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b", "gemma-2-2b", "gemma-2-9b", "qwen3-8b"),
)
ABLATIONS = ("resample", "zero", "mean", "mean-clean", "mean-positional", "noise", "optimal")


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The completion of an option that takes one of these, or something else: the shell adds files itself."""
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]  # typer goes by its name


def runs(incomplete: str) -> list[str]:
    """The run folders that a path begins, those in runs/ from the start, and folders that may hold some."""
    return _paths(incomplete, ())


def circuits(incomplete: str) -> list[str]:
    """Run folders, and circuit files."""
    return _paths(incomplete, (".json", ".pt", ".pkl"))


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    typed, slash, last = incomplete.rpartition("/")
    above = Path(f"{typed}{slash}" or ".").expanduser()
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(above.iterdir()):
            name = f"{typed}{slash}{path.name}"
            if not path.name.startswith(last) or path.name.startswith("."):
                continue
            if (path / "run.json").is_file() or path.name.endswith(endings):
                found.append(name)
            elif path.is_dir():
                found += (_paths("runs/", endings) if name == "runs" else []) or [f"{name}/"]
    return found
