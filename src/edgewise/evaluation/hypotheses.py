"""Hypothesis tests of a circuit (Shi et al. 2024, "Hypothesis Testing the Circuit Hypothesis in LLMs").

Three tests ask whether a circuit is ideal, and a small p-value says that it is not:

* equivalence: circuit and model outdo each other equally often, | P(s(C) > s(M)) - 1/2 | < epsilon;
* independence: what is left when the circuit is ablated scores independently of the model;
* minimality: removing any edge of the circuit changes more than removing a random edge added to it.

Two ask whether it is better than chance, and a small p-value says that it is:

* sufficiency: it is closer to the model than random circuits of its size, more often than `quantile`; a tie is no win,
  and where random circuits do exactly as the model does too, the test cannot tell;
* partial necessity: ablating it takes the model further away than ablating random circuits of its size, by default
  those that share no edge with it (in a small graph hardly any other random circuit misses what the model needs).

Random circuits are made of random paths from the embedding to the logits, until they have as many edges (a few more).
Of a circuit of whole nodes everything is said of nodes instead: random circuits are the embedding and as many other
nodes, drawn at random, and the embedding stays when a circuit is ablated.
With many edges Bonferroni's correction asks less of each, so that large circuits look minimal more easily: take more
random circuits for them.

s is a score per example, higher being better: minus a metric that compares answers (a logit difference), not one that
measures the distance from the model, by which the model always wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.evaluation.by_example import ByExample
from edgewise.evaluation.effort import FEWEST_PAIRS, Options, Share, affordable
from edgewise.evaluation.p_values import (
    better_p_value,
    equivalence_p_value,
    fewest_examples,
    hsic_test,
    minimality_p_value,
)
from edgewise.evaluation.random_circuits import inflated, parts_of, random_like, without_part
from edgewise.evaluation.share import share_of_way
from edgewise.graph import Circuit, complement, of_nodes
from edgewise.graph.circuit import Floats
from edgewise.patching import Experiment
from edgewise.tasks import METRICS, Metric, mean_over_places, metrics_of

SCORES = ("logit_diff", "logit_diff_max", "log_prob_diff", "prob_diff", "nll")
"""Metrics that make a score, the one to use first."""

FEWEST_FOR_HSIC = 5
"""Fewer examples have too few permutations."""

StepProgress = Callable[[int, int], None]
"""Called with how many circuits were run, and of how many."""


@dataclass(frozen=True)
class Test:
    """What one test found.

    Attributes:
        name: `equivalence`, `independence`, `minimality`, `sufficiency` or `partial necessity`.
        p_value: None where the test could not be made; then `verdict` says why.
        statistic: what it rests on: the share of examples on which the circuit outdoes the model; HSIC; the share of
            edges that are needed; the share of random circuits that are outdone.
        passed: whether the circuit came out well; None where the test could not be made.
        verdict: in words.
    """

    __test__ = False  # not one of pytest's

    name: str
    p_value: float | None
    statistic: float
    passed: bool | None
    verdict: str


@dataclass(frozen=True)
class EdgeEffect:
    """What removing one edge does to a circuit.

    Attributes:
        rise: how much the experiment's metric rises, signed.
        effect: mean over examples of | s(C) - s(C without it) |.
        needed: whether the minimality test keeps it (after Bonferroni's correction); None if that was not made.
    """

    edge: str
    rise: float
    effect: float
    needed: bool | None = None


@dataclass(frozen=True)
class Hypotheses:
    """All tests of one circuit.

    Attributes:
        score: the metric whose negative is s.
        effects: every edge (node, of a circuit of whole nodes) that was tried, the least needed first.
        random: `recovered` of each random circuit of the circuit's size, in the experiment's metric.
        random_edges: the fewest and the most edges (nodes) that they have.
        left_out: what was not tried for want of time, in words; None if everything was.
        unit: what circuits are made of: `edges` or `nodes`.
    """

    score: str
    tests: tuple[Test, ...]
    effects: tuple[EdgeEffect, ...]
    random: tuple[float, ...]
    random_edges: tuple[int, int]
    left_out: str | None = None
    unit: str = "edges"


class TestsInterrupted(KeyboardInterrupt):
    """The tests were stopped before their end; `found` holds what follows from the runs made until then."""

    __test__ = False

    def __init__(self, found: Hypotheses) -> None:
        super().__init__("interrupted")
        self.found = found


def score_metric(experiment: Experiment) -> Metric:
    """The metric that the tests take as score: the first that compares answers, else the experiment's own."""
    has = metrics_of(experiment.task)
    return next((METRICS[name] for name in SCORES if METRICS[name] in has), experiment.metric)


def run_tests(
    experiment: Experiment, circuit: Circuit, options: Options | None = None, *, progress: StepProgress | None = None
) -> Hypotheses:
    """Make every test. It takes a circuit run per edge and about four per random circuit.

    Raises:
        EdgewiseError: the circuit is over another graph, or there are fewer than 2 examples.
        TestsInterrupted: Ctrl-C (or SIGTERM, where that ends the program); it holds what was found until then.
    """
    options = options or Options()
    circuit = circuit.on(experiment.graph)
    if len(experiment.task) < 2:
        raise EdgewiseError(f"tests over examples need at least 2 prompt pairs; task {experiment.task.name!r} has 1")
    tests = _Tests(experiment, circuit, options, progress)
    tests.start()
    try:
        tests.compare()
    except (KeyboardInterrupt, SystemExit) as stop:
        raise TestsInterrupted(tests.judged("tried until interrupted")) from stop
    return tests.judged(f"tried in about {options.seconds or 0:.0f} s")


class _Tests:
    """The runs that the tests share, and what was found in those made so far."""

    def __init__(
        self, experiment: Experiment, circuit: Circuit, options: Options, progress: StepProgress | None
    ) -> None:
        self.experiment, self.circuit, self.options, self.progress = experiment, circuit, options, progress
        self.metric = score_metric(experiment)
        self.compares = self.metric.name in SCORES
        self.by_example = ByExample(experiment.task)
        graph = circuit.graph
        self.unit = circuit.unit
        whole = type(circuit).full(graph)
        if circuit.whole_nodes:
            whole = of_nodes(graph, np.ones(len(graph.sources), dtype=bool))
        outside = complement(circuit) if options.reference == "outside" else whole
        self.outside = outside if circuit.whole_nodes else outside.connected()
        room = circuit.size <= self.outside.size
        fits = not circuit.whole_nodes or circuit.size >= graph.n_embeddings
        circuits = options.circuits * fits
        self.asked = Share(circuits, circuits * room, options.circuits * bool(circuit), circuit.size)
        self.share, self.done = self.asked, 0
        self.random: list[tuple[int, Floats, float]] = []  # edges, scores and metric of random circuits
        self.without_random: list[float] = []  # loss when a random circuit is ablated
        self.random_edges: list[float] = []  # effect of a random edge added to the circuit
        self.effects: dict[str, EdgeEffect] = {}
        self.no_path = False

    def run(self, circuit: Circuit) -> tuple[Floats, float]:
        """Scores `[examples]` of a circuit, and its metric."""
        logits = self.experiment.logits(circuit)
        reference = self.experiment.reference
        scores = self.by_example.means(-self.metric(logits, reference))[self.by_example.counts > 0]
        return scores, mean_over_places(self.experiment.metric(logits, reference))

    def told(self) -> None:
        """One more run has been made."""
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.share.runs), self.share.runs)

    def start(self) -> None:
        """The model, the circuit and what is left without it; and how much of the rest there is time for."""
        self.model, self.full = self.run(Circuit.full(self.circuit.graph))
        started = time.perf_counter()
        self.found, self.own = self.run(self.circuit)
        self.rest, _ = self.run(complement(self.circuit))
        each = (time.perf_counter() - started) / 2
        self.ablated = self.experiment.ablated()
        options = self.options
        if options.seconds is not None:
            asked = self.asked
            share = affordable(options.seconds / each, options.circuits, asked.edges, options.fewest)
            self.share = replace(share, necessity=min(share.necessity, asked.necessity))

    def compare(self) -> None:
        """Random circuits, edges of the circuit and random ones beside them, random circuits ablated."""
        share = self.share
        seeds = [self.options.seed * 1_000_003 + number for number in range(self.options.circuits)]
        for seed in seeds[: share.sufficiency]:
            sample = random_like(self.circuit, seed)
            self.random.append((sample.size, *self.run(sample)))
            self.told()
        self.compare_edges(share)
        for seed in seeds[: share.necessity]:
            sample = random_like(self.circuit, seed, self.outside)
            self.without_random.append(self.loss(self.run(complement(sample))[0]))
            self.told()

    def compare_edges(self, share: Share) -> None:
        generator = np.random.default_rng(self.options.seed)
        for _ in range(share.pairs):
            larger = inflated(self.circuit, generator)
            if larger is None:
                self.no_path = True
                break
            with_path, edge = larger
            change = self.run(with_path)[0] - self.run(without_part(with_path, edge))[0]
            self.random_edges.append(float(np.abs(change).mean()))
            self.told()
            self.told()
        # In an order of chance, so that those tried until there is no more time are a sample of all.
        names = np.random.default_rng([self.options.seed, 1]).permutation(
            np.array(parts_of(self.circuit), dtype=object)
        )
        for name in names[: share.edges]:
            scores, value = self.run(without_part(self.circuit, name))
            effect = float(np.abs(self.found - scores).mean())
            self.effects[name] = EdgeEffect(name, value - self.own, effect)
            self.told()

    def judged(self, why: str) -> Hypotheses:
        """What follows from the runs made so far; `why` says when there were no more."""
        minimality, effects = self.minimality()
        tests = (self.equivalence(), self.independence(), minimality, self.sufficiency(), self.partial_necessity())
        shares = [share_of_way(value, self.ablated, self.full) for _, _, value in self.random]
        sizes = [size for size, _, _ in self.random] or [0]
        random = tuple(share for share in shares if share is not None)
        between = min(sizes), max(sizes)
        return Hypotheses(self.metric.name, tests, effects, random, between, self.left_out(why), self.unit)

    def left_out(self, why: str) -> str | None:
        asked = self.asked
        tried = (
            (len(self.random), asked.sufficiency, "random circuits"),
            (len(self.without_random), asked.necessity, "random circuits ablated"),
            (len(self.random_edges), asked.pairs * (not self.no_path), f"random {self.unit}"),
            (len(self.effects), asked.edges, f"{self.unit} of the circuit"),
        )
        words = [f"{made:,} of {of:,} {what}" for made, of, what in tried if made < of]
        return f"{why}: {', '.join(words)}" if words else None

    def equivalence(self) -> Test:
        difference = self.found - self.model
        needed = fewest_examples(self.options.epsilon, self.options.level)
        if not self.compares or len(difference) < needed:
            why = f"{self.metric.name} is a distance from the model, so no circuit can outdo it"
            if self.compares:
                why = f"needs at least {needed} examples to find a difference; there are {len(difference)}"
            return Test("equivalence", None, 0.0, None, why)
        close = np.abs(difference) <= self.rounding
        outdone = float(((difference > 0) & ~close).sum() + close.sum() / 2)
        p_value = equivalence_p_value(outdone, len(difference), self.options.epsilon)
        passed = p_value >= self.options.level
        share = outdone / len(difference)
        words = f"the circuit outdoes the model on {share:.0%} of examples (ties count half)"
        verdict = f"{words}: {'no difference found' if passed else 'not equivalent'}"
        return Test("equivalence", p_value, share, passed, verdict)

    def independence(self) -> Test:
        if not self.compares or len(self.model) < FEWEST_FOR_HSIC:
            why = f"{self.metric.name} is the same for the model on every example"
            if self.compares:
                why = f"needs at least {FEWEST_FOR_HSIC} examples; there are {len(self.model)}"
            return Test("independence", None, 0.0, None, why)
        statistic, p_value = hsic_test(self.rest, self.model, self.options.permutations, self.options.seed)
        passed = p_value >= self.options.level
        verdict = "the score without the circuit depends on the model's"
        if passed:
            verdict = (
                f"found no dependence of the score without the circuit on the model's ({len(self.model)} examples)"
            )
        return Test("independence", p_value, statistic, passed, verdict)

    def minimality(self) -> tuple[Test, tuple[EdgeEffect, ...]]:
        order = [self.effects[name] for name in parts_of(self.circuit) if name in self.effects]
        effects = sorted(order, key=lambda one: one.effect)
        others = np.array(self.random_edges)
        if not self.circuit:
            return Test("minimality", None, 0.0, None, f"the circuit has no {self.unit}"), ()
        if self.no_path:
            why = f"it has every {self.unit[:-1]}"
            if self.unit == "edges":
                why = "no random path adds an edge to the circuit"
            return Test("minimality", None, 0.0, None, why), tuple(effects)
        if not effects or len(others) < min(FEWEST_PAIRS, self.options.circuits):
            return Test("minimality", None, 0.0, None, NOT_MADE), tuple(effects)
        p_values = [minimality_p_value(one.effect, others, self.options.quantile) for one in effects]
        level = self.options.level / len(effects)
        judged = [replace(one, needed=p_value >= level) for one, p_value in zip(effects, p_values, strict=True)]
        needed = sum(bool(one.needed) for one in judged)
        share = f"{self.options.quantile:.0%}"
        tried, unit = "" if len(judged) == self.circuit.size else " tried", self.unit
        verdict = (
            f"{needed:,} of {len(judged):,} {unit}{tried} pass for {unit} that matter more than {share} of random ones"
        )
        smallest = min(1.0, min(p_values) * len(effects))
        return Test("minimality", smallest, needed / len(judged), needed == len(judged), verdict), tuple(judged)

    def sufficiency(self) -> Test:
        own, losses = self.loss(self.found), np.array([self.loss(scores) for _, scores, _ in self.random])
        exact = int((losses <= self.rounding).sum())
        if own <= self.rounding and exact > (1 - self.options.quantile) * len(losses):
            why = f"{exact} of {len(losses)} random circuits of its size do exactly as the model does, as it does"
            return Test("sufficiency", None, 0.0, None, why)
        wins = int((own < losses - self.rounding).sum())
        return self.against_random("sufficiency", wins, len(losses), "closer to the model than {} of its size")

    def partial_necessity(self) -> Test:
        if not self.asked.necessity:
            why = f"only {self.outside.n_edges:,} edges outside the circuit lie on a path, fewer than it has"
            if self.unit in ("neurons", "features"):
                why = f"{self.outside.size:,} {self.unit} are outside the circuit, fewer than it has"
            if self.unit == "nodes":
                why = f"with the embedding, {self.outside.size:,} nodes are outside the circuit, fewer than it has"
            return Test("partial necessity", None, 0.0, None, why)
        losses = np.array(self.without_random)
        wins = int((self.loss(self.rest) > losses).sum())
        return self.against_random("partial necessity", wins, len(losses), "missed more than {} of its size")

    @property
    def rounding(self) -> float:
        """Scores closer than this are the same."""
        return 1e-6 * max(1.0, float(np.abs(self.model).max()))

    def loss(self, scores: Floats) -> float:
        """Mean over examples of | s - s(M) |."""
        return float(np.abs(scores - self.model).mean())

    def against_random(self, name: str, wins: int, circuits: int, words: str) -> Test:
        if circuits < self.options.fewest:
            return Test(name, None, 0.0, None, NOT_MADE)
        p_value = better_p_value(wins, circuits, self.options.quantile)
        verdict = words.format(f"{wins} of {circuits} random circuits")
        return Test(name, p_value, wins / circuits, p_value < self.options.level, verdict)


NOT_MADE = "not made: too little was run for it"
"""The verdict of a test for which there was no time."""
