"""Single circuits of the ACDC paper, with what it says of each: its figures 1, 6, 15 and 16, table 4, the OR gate of
appendix M, what tracr's programs come to, points of its sweeps, and the references of its plots (no edge, the known
circuit, all edges).

A circuit is a declaration: what is searched or taken, and the published numbers. `paper_findings.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgewise.discovery import Order
from edgewise.runs.paper_rows import RESET_SEEDS
from edgewise.tasks.known import heads_named

Taken = Literal["acdc", "no edge", "known", "all edges"]
EDGES, HEADS, PRECISION, TRUE_RATE = "edges", "heads", "precision", "true positive rate"
IN_KNOWN, TYPES, NAMED = "heads of the known circuit", "component types", "nodes that the paper names"
"""What is measured of a circuit besides metrics on prompts."""


@dataclass(frozen=True)
class PaperCircuit:
    """One circuit of the paper.

    Attributes:
        figure: what it belongs to.
        circuit: found by ACDC, or taken: none or all of the graph's edges, or the task's known circuit.
        published: by what is measured (a metric on test prompts, or one of the names above), the number as printed.
            Metrics are as a search has them, lower being better: a logit difference of 4.1 is -4.1.
        nodes: nodes that the paper names as found.
        why: a reason why a number may differ, by what is measured; under "" for all.
        threshold, metric, order, absolute, heads: of the search.
        connected: edges on no path from the embedding to the logits are taken off, as for the paper's figure 1.
        model, variant, examples, fold, permuted, offline: as in `PaperRow`.
    """

    figure: str
    task: str
    model: str
    published: Mapping[str, str]
    circuit: Taken = "acdc"
    threshold: float = 0.0
    metric: str = "kl_div"
    ablation: str = "resample"
    nodes: tuple[str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)
    order: Order = Order()  # noqa: RUF009 - frozen
    absolute: bool = False
    heads: Literal["split", "whole"] = "split"
    connected: bool = False
    variant: str = "default"
    examples: int | None = None
    fold: bool = False
    permuted: int | None = None
    offline: bool = False

    @property
    def key(self) -> str:
        """The circuit's folder."""
        search = [self.metric, f"{self.threshold:g}"] if self.circuit == "acdc" else [self.circuit.replace(" ", "-")]
        changed = [
            *(["heads-reverse"] if self.order.heads == "reverse" else []),
            *(["as-published"] if self.variant == "published" else []),
            *(["reset"] if self.permuted is not None else []),
        ]
        return "-".join([self.figure, self.task, self.ablation, *search, *changed])

    @property
    def seconds(self) -> float:
        """What it takes, roughly."""
        return 1.0 if self.offline or self.circuit != "acdc" else 900.0


_GPT2: dict[str, Any] = dict(model="gpt2", fold=True)
_DOCSTRING: dict[str, Any] = dict(model="attn-only-4l", fold=True)
_INDUCTION: dict[str, Any] = dict(model="redwood_attn_2l", variant="paper")
_LOW_TO_HIGH = Order(heads="reverse")
_SWEPT = "the number of the sweep's stored point"


def _figures() -> Iterator[PaperCircuit]:
    yield PaperCircuit(
        "fig-1",
        "ioi",
        **_GPT2,
        published={HEADS: "9", IN_KNOWN: "9", NAMED: "16"},
        threshold=0.0575,
        heads="whole",
        connected=True,
        examples=50,
        nodes=(
            *heads_named("3.0", "5.5", "8.6", "8.10", "9.6", "9.9", "10.0", "10.6", "10.10"),
            *("m0", "m1", "m2", "m3", "m5", "m6", "input"),
        ),
        why={"": "read off the figure, whose prompts had several templates and the paper's code has one"},
    )
    yield PaperCircuit(
        "fig-6",
        "induction",
        **_INDUCTION,
        published={NAMED: "3"},
        threshold=0.5623,
        nodes=heads_named("1.5", "1.6", "0.0"),
        order=_LOW_TO_HIGH,
    )
    zero = "of before September 2023, when zero ablation left position embeddings in place; with that change 12 edges"
    yield PaperCircuit(
        "fig-6",
        "induction",
        **_INDUCTION,
        ablation="zero",
        published={EDGES: "10", "kl_div": "2.7655", NAMED: "2"},
        threshold=0.71,
        nodes=heads_named("1.6", "0.0"),
        order=_LOW_TO_HIGH,
        why={"": zero},
    )
    yield PaperCircuit(
        "fig-15",
        "ioi",
        **_GPT2,
        published={EDGES: "443", NAMED: "4"},
        threshold=0.00398,
        nodes=heads_named("10.7", "11.10", "9.2", "11.11"),
        why={EDGES: "443 is the figure's; the stored sweep has 417 at this threshold"},
    )
    yield PaperCircuit(
        "fig-16",
        "greater-than",
        **_GPT2,
        metric="prob_diff",
        published={EDGES: "68", PRECISION: "1.000", TYPES: "5"},
        threshold=0.01585,
        why={
            EDGES: "68 is the abstract's; stored points have 59 edges at 0.01778 and 79 at 0.00825",
            PRECISION: "by the abstract, in Hanna et al.'s own circuit, which is larger than the 262 edges; by those "
            "stored points have .881 and .848",
        },
    )
    yield PaperCircuit(
        "fig-16",
        "greater-than",
        **_GPT2,
        published={EDGES: "59", PRECISION: "1.000", TRUE_RATE: "0.225"},
        threshold=0.01585,
        why={"": _SWEPT},
    )
    other = "the table's prompts are not the stored test prompts, on which the whole model has 0.875 for 0.48 here"
    table: dict[str, Any] = dict(task="docstring", **_DOCSTRING, why={"kl_div": other, "logit_diff_max": other})
    yield PaperCircuit(
        "table-4", **table, circuit="all edges", published={EDGES: "1377", "kl_div": "0", "logit_diff_max": "-0.48"}
    )
    yield PaperCircuit(
        "table-4", **table, threshold=0.005, published={EDGES: "258", "kl_div": "0.33", "logit_diff_max": "-0.58"}
    )
    yield PaperCircuit(
        "table-4",
        **table,
        threshold=0.095,
        published={EDGES: "34", "kl_div": "1.2", "logit_diff_max": "1.7", NAMED: "6"},
        nodes=heads_named("0.5", "1.4", "2.0", "3.0", "3.6", "1.0"),
    )
    yield PaperCircuit(
        "table-4",
        **table,
        metric="logit_diff_max",
        threshold=0.067,
        published={EDGES: "98", "kl_div": "0.67", "logit_diff_max": "-0.32"},
    )
    yield PaperCircuit(
        "table-4", **table, circuit="known", published={EDGES: "37", "kl_div": "1.1", "logit_diff_max": "1.6"}
    )
    yield PaperCircuit(
        "table-4",
        "docstring",
        **_DOCSTRING,
        ablation="zero",
        metric="logit_diff_max",
        threshold=0.067,
        published={EDGES: "177", "kl_div": "3.35", "logit_diff_max": "2.895"},
        why={"": "stored by the paper's code; zero ablation changed in September 2023"},
    )


def _programs() -> Iterator[PaperCircuit]:
    """What ACDC finds at any small threshold: the paper's appendix I, and runs of its code."""
    left = "of 15 and 10 edges; as published, corrupted positions stayed in place, and 3 and 6 are found"
    for task, threshold, zero, put_right, as_published in (
        ("tracr-reverse", 0.01, "15", "9", "3"),
        ("tracr-xproportion", 0.001, "10", "9", "6"),
    ):
        own: dict[str, Any] = dict(task=task, model=task, metric="l2", threshold=threshold, offline=True)
        yield PaperCircuit(
            "appendix-i", **own, ablation="zero", published={EDGES: zero, TRUE_RATE: "1", PRECISION: "1"}
        )
        yield PaperCircuit("appendix-i", **own, published={EDGES: put_right, PRECISION: "1"})
        own["model"] = "tracr-xproportion-compiled" if task == "tracr-xproportion" else task
        yield PaperCircuit(
            "appendix-i",
            **own,
            variant="published",
            published={EDGES: as_published, PRECISION: "1"},
            why={EDGES: left},
        )
    for order, head in ((Order(), "a0.h0"), (_LOW_TO_HIGH, "a0.h1")):
        yield PaperCircuit(
            "appendix-m",
            "or-gate",
            "or-gate",
            published={EDGES: "2", NAMED: "2"},
            threshold=0.01,
            metric="l2",
            ablation="zero",
            nodes=(head, "m0"),
            order=order,
            offline=True,
        )


# Task, ablation, then for each metric what it is with no edge, with the known circuit, and with all edges.
_REFERENCES = """
ioi resample kl_div 4.759 .4429 0 logit_diff -.016 -3.249 -4.112 nll ? 1.142 .515 frac_correct -.55 -.90 -1.00
ioi zero kl_div 13.08 14.72 0 logit_diff .031 .215 -4.112
greater-than resample kl_div 2.036 .0782 0 prob_diff .565 -.726 -.844
greater-than zero kl_div 11.38 15.98 0 prob_diff 0 0 -.844
docstring resample kl_div 3.247 1.149 0 logit_diff_max 5.734 1.561 -.875 nll ? 3.809 1.562
docstring zero kl_div 7.202 6.615 0 logit_diff_max 3.234 3.079 -.875
induction resample kl_div 15.69 ? 0 nll 16.73 ? 1.014
induction zero kl_div 11.34 ? 0 nll 12.26 ? 1.014
tracr-xproportion resample l2 .1744 0 0
tracr-xproportion zero l2 .1185 0 0
tracr-reverse resample l2 .5185 0 0
tracr-reverse zero l2 .3333 0 0
"""
_DRAWN = {
    (
        "tracr-reverse",
        "resample",
    ): "a draw says which prompt corrupts which: 0.4444, 0.5185 or 0.5926 by the seeds 0 to 11",
    ("tracr-xproportion", "resample"): "prompts are drawn: 0.1241 to 0.3081 by the seeds 0 to 99",
    ("tracr-xproportion", "zero"): "prompts are drawn: 0.0874 to 0.2074 by the seeds 0 to 99",
}
# The same of reset networks, with all edges: comparisons are with the network before it was shuffled.
_RESET = """
ioi            kl_div 10.33  logit_diff .273
greater-than   kl_div 16.26
docstring      kl_div 9.22   logit_diff_max 3.733
induction      kl_div 15.23
tracr-reverse  l2 .3333
"""
# Points of the published sweeps of ACDC that had finished: task, ablation, metric and threshold of the search, and what
# came out; T is the true positive rate, P precision.
_POINTS = """
ioi resample kl_div 0.01 edges 330 T .216 P .682 kl_div .5797 logit_diff -3.6227 nll 1.296
ioi resample kl_div 0.001 edges 698 T .371 P .553 kl_div .2608 logit_diff -4.0175 nll .7082
ioi zero kl_div 0.01 edges 1294 T .273 P .219 kl_div .8785 logit_diff -5.0141 nll 1.0577
greater-than resample kl_div 0.01 edges 79 T .275 P .911 kl_div .1899 prob_diff -.5189
greater-than resample prob_diff 0.0177828 edges 59 T .198 P .881 kl_div .4029 prob_diff -.4465
docstring resample kl_div 0.1 edges 34 T .703 P .765 kl_div 1.3517 logit_diff_max 2.0059 nll 4.1144
docstring resample logit_diff_max 0.1 edges 79 T .892 P .418 kl_div .7299 logit_diff_max -.1212 nll 2.3245
docstring zero logit_diff_max 0.1 edges 222 T .919 P .153 kl_div 3.822 logit_diff_max -.4951 nll 4.7979
induction resample kl_div 0.630957 edges 26 kl_div 8.3243 nll 9.3889
induction resample kl_div 0.1 edges 57 kl_div 1.9091 nll 2.9437
induction zero kl_div 0.630957 edges 12 kl_div 3.823 nll 4.7645
"""
_SHORT = {"T": TRUE_RATE, "P": PRECISION}
_MODELS: dict[str, dict[str, Any]] = {
    "ioi": _GPT2,
    "greater-than": _GPT2,
    "docstring": _DOCSTRING,
    "induction": _INDUCTION,
    "tracr-xproportion": dict(model="tracr-xproportion-compiled", variant="published", offline=True),
    "tracr-reverse": dict(model="tracr-reverse", variant="published", offline=True),
}


def _references() -> Iterator[PaperCircuit]:
    earlier = "of June 2023: zero ablation then left position embeddings in place"
    for line in _REFERENCES.strip().split("\n"):
        task, ablation, *rest = line.split()
        numbers = {rest[at]: rest[at + 1 : at + 4] for at in range(0, len(rest), 4)}
        for place, circuit in enumerate(("no edge", "known", "all edges")):
            published = {name: three[place] for name, three in numbers.items() if three[place] != "?"}
            if published:
                one = PaperCircuit("references", task, published=published, **_MODELS[task])
                one = replace(one, circuit=circuit, ablation=ablation, metric=next(iter(numbers)))
                late = ablation == "zero" and not one.offline and circuit != "all edges"
                yield replace(one, why={"": earlier if late else _DRAWN.get((task, ablation), "not explained")})
    for line in _RESET.strip().split("\n"):
        task, *rest = line.split()
        one = PaperCircuit("references", task, published=dict(zip(rest[::2], rest[1::2], strict=True)), **_MODELS[task])
        yield replace(one, circuit="all edges", metric=rest[0], permuted=RESET_SEEDS[task])


def _points() -> Iterator[PaperCircuit]:
    for line in _POINTS.strip().split("\n"):
        task, ablation, metric, threshold, *rest = line.split()
        published = {_SHORT.get(what, what): number for what, number in zip(rest[::2], rest[1::2], strict=True)}
        one = PaperCircuit("points", task, published=published, **_MODELS[task])
        order = _LOW_TO_HIGH if task == "induction" else Order()
        yield replace(one, ablation=ablation, metric=metric, threshold=float(threshold), order=order)


CIRCUITS: tuple[PaperCircuit, ...] = (*_figures(), *_points(), *_programs(), *_references())
