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
With many edges Bonferroni's correction asks less of each, so that large circuits look minimal more easily: take more
random circuits for them.

s is a score per example, higher being better: minus a metric that compares answers (a logit difference), not one that
measures the distance from the model, by which the model always wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgewise.errors import EdgewiseError, unknown
from edgewise.evaluation.by_example import ByExample
from edgewise.evaluation.random_circuits import inflated, random_circuit
from edgewise.evaluation.share import share_of_way
from edgewise.graph import Circuit
from edgewise.graph.circuit import Floats
from edgewise.patching import Experiment
from edgewise.tasks import METRICS, Metric, mean_over_places, metrics_of

REFERENCES = ("outside", "whole")
SCORES = ("logit_diff", "logit_diff_max", "prob_diff", "nll")
"""Metrics that make a score, the one to use first."""

FEWEST_FOR_HSIC = 5
"""Fewer examples have too few permutations."""

StepProgress = Callable[[int, int], None]
"""Called with how many circuits were run, and of how many."""


@dataclass(frozen=True)
class Options:
    """How the tests are made.

    Attributes:
        level: a p-value below it rejects.
        epsilon: how far from even the circuit's chance of outdoing the model may be.
        quantile: the share of random circuits that has to be outdone.
        circuits: how many random circuits.
        reference: where the random circuits of the partial necessity test are drawn: `outside` the circuit, or from the
            `whole` graph.
        permutations: of the independence test.
        seed: of everything random.
    """

    level: float = 0.05
    epsilon: float = 0.1
    quantile: float = 0.9
    circuits: int = 100
    reference: str = "outside"
    permutations: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise EdgewiseError(f"a seed is a whole number of 0 or more, not {self.seed}")
        if not 0 < self.level < 1 or not 0 < self.quantile < 1 or not 0 <= self.epsilon < 0.5:
            raise EdgewiseError("level and quantile are between 0 and 1, epsilon from 0 to below 1/2")
        if self.reference not in REFERENCES:
            raise unknown("reference", self.reference, REFERENCES)
        fewest = int(np.ceil(np.log(self.level) / np.log(self.quantile)))
        if self.circuits < fewest:
            raise EdgewiseError(
                f"with fewer than {fewest} random circuits no test at level {self.level} can find that a circuit "
                f"outdoes {self.quantile:.0%} of them; {self.circuits} were asked for"
            )
        if self.permutations < 1 / self.level:
            raise EdgewiseError(
                f"the independence test at level {self.level} needs at least "
                f"{int(np.ceil(1 / self.level))} permutations"
            )


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
        effects: every edge of the circuit, the least needed first.
        random: `recovered` of each random circuit of the circuit's size, in the experiment's metric.
        random_edges: the fewest and the most edges that they have.
    """

    score: str
    tests: tuple[Test, ...]
    effects: tuple[EdgeEffect, ...]
    random: tuple[float, ...]
    random_edges: tuple[int, int]


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
    """
    options = options or Options()
    circuit.require_graph(experiment.graph)
    if len(experiment.task) < 2:
        raise EdgewiseError(f"tests over examples need at least 2 prompt pairs; task {experiment.task.name!r} has 1")
    return _Tests(experiment, circuit, options, progress).all()


class _Tests:
    """The runs that the tests share."""

    def __init__(
        self, experiment: Experiment, circuit: Circuit, options: Options, progress: StepProgress | None
    ) -> None:
        self.experiment, self.circuit, self.options, self.progress = experiment, circuit, options, progress
        self.metric = score_metric(experiment)
        self.compares = self.metric.name in SCORES
        self.by_example = ByExample(experiment.task)
        self.done, self.runs = 0, 4 * options.circuits + circuit.n_edges + 3

    def run(self, circuit: Circuit) -> tuple[Floats, float]:
        """Scores `[examples]` of a circuit, and its metric."""
        logits = self.experiment.logits(circuit)
        reference = self.experiment.reference
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.runs), self.runs)
        scores = self.by_example.means(-self.metric(logits, reference))[self.by_example.counts > 0]
        return scores, mean_over_places(self.experiment.metric(logits, reference))

    def all(self) -> Hypotheses:
        graph, options = self.circuit.graph, self.options
        self.model, full = self.run(Circuit.full(graph))
        self.found, own = self.run(self.circuit)
        self.rest, _ = self.run(~self.circuit)
        ablated = self.experiment.ablated()
        samples = [
            random_circuit(graph, self.circuit.n_edges, options.seed * 1_000_003 + number)
            for number in range(options.circuits)
        ]
        kept = [self.run(sample) for sample in samples]
        minimality, effects = self.minimality(own)
        tests = (
            self.equivalence(),
            self.independence(),
            minimality,
            self.sufficiency([scores for scores, _ in kept]),
            self.partial_necessity(),
        )
        shares = [share_of_way(value, ablated, full) for _, value in kept]
        sizes = [sample.n_edges for sample in samples]
        random = tuple(share for share in shares if share is not None)
        return Hypotheses(self.metric.name, tests, effects, random, (min(sizes), max(sizes)))

    def equivalence(self) -> Test:
        difference = self.found - self.model
        needed = fewest_examples(self.options)
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

    def minimality(self, own: float) -> tuple[Test, tuple[EdgeEffect, ...]]:
        if not self.circuit:
            return Test("minimality", None, 0.0, None, "the circuit has no edges"), ()
        generator = np.random.default_rng(self.options.seed)
        others: list[float] = []
        for _ in range(self.options.circuits):
            larger = inflated(self.circuit, generator)
            if larger is None:
                break
            with_path, edge = larger
            others.append(float(np.abs(self.run(with_path)[0] - self.run(with_path.remove(edge))[0]).mean()))
        effects = []
        for name in self.circuit.names():
            scores, value = self.run(self.circuit.remove(name))
            effects.append(EdgeEffect(name, value - own, float(np.abs(self.found - scores).mean())))
        if len(others) < self.options.circuits:
            effects.sort(key=lambda one: one.effect)
            return Test("minimality", None, 0.0, None, "no random path adds an edge to the circuit"), tuple(effects)
        p_values = [minimality_p_value(one.effect, np.array(others), self.options.quantile) for one in effects]
        level = self.options.level / len(effects)
        judged = [
            EdgeEffect(one.edge, one.rise, one.effect, needed=p_value >= level)
            for one, p_value in zip(effects, p_values, strict=True)
        ]
        needed = sum(bool(one.needed) for one in judged)
        passed = needed == len(judged)
        share = f"{self.options.quantile:.0%}"
        verdict = f"{needed:,} of {len(judged):,} edges pass for edges that matter more than {share} of random ones"
        smallest = min(1.0, min(p_values) * len(effects))
        test = Test("minimality", smallest, needed / len(judged), passed, verdict)
        return test, tuple(sorted(judged, key=lambda one: one.effect))

    def sufficiency(self, samples: list[Floats]) -> Test:
        own, losses = self.loss(self.found), np.array([self.loss(scores) for scores in samples])
        exact = int((losses <= self.rounding).sum())
        if own <= self.rounding and exact > (1 - self.options.quantile) * len(losses):
            why = f"{exact} of {len(losses)} random circuits of its size do exactly as the model does, as it does"
            return Test("sufficiency", None, 0.0, None, why)
        wins = int((own < losses - self.rounding).sum())
        return self.against_random("sufficiency", wins, "closer to the model than {} of its size")

    def partial_necessity(self) -> Test:
        graph, size, options = self.circuit.graph, self.circuit.n_edges, self.options
        outside = (~self.circuit if options.reference == "outside" else Circuit.full(graph)).connected()
        if size > outside.n_edges:
            why = f"only {outside.n_edges:,} edges outside the circuit lie on a path, fewer than it has"
            return Test("partial necessity", None, 0.0, None, why)
        losses = []
        for number in range(options.circuits):
            sample = random_circuit(graph, size, options.seed * 1_000_003 + number, outside)
            losses.append(self.loss(self.run(~sample)[0]))
        wins = int((self.loss(self.rest) > np.array(losses)).sum())
        return self.against_random("partial necessity", wins, "missed more than {} of its size")

    @property
    def rounding(self) -> float:
        """Scores closer than this are the same."""
        return 1e-6 * max(1.0, float(np.abs(self.model).max()))

    def loss(self, scores: Floats) -> float:
        """Mean over examples of | s - s(M) |."""
        return float(np.abs(scores - self.model).mean())

    def against_random(self, name: str, wins: int, words: str) -> Test:
        circuits = self.options.circuits
        p_value = better_p_value(wins, circuits, self.options.quantile)
        verdict = words.format(f"{wins} of {circuits} random circuits")
        return Test(name, p_value, wins / circuits, p_value < self.options.level, verdict)


def fewest_examples(options: Options) -> int:
    """With how many examples the equivalence test can reject at all."""
    examples = 1
    while equivalence_p_value(0.0, examples, options.epsilon) >= options.level:
        examples += 1
    return examples


def equivalence_p_value(outdone: float, examples: int, epsilon: float) -> float:
    """The largest chance, while | P(s(C) > s(M)) - 1/2 | <= epsilon, of a share as far from 1/2 as the one seen.

    Args:
        outdone: on how many examples the circuit outdoes the model, ties counting half.
    """
    from scipy.stats import binom

    counts = np.arange(examples + 1)
    far = np.abs(counts / examples - 0.5) >= abs(outdone / examples - 0.5) - 1e-12
    return float(min(1.0, binom.pmf(counts[far], examples, 0.5 + epsilon).sum()))


def minimality_p_value(effect: float, others: Floats, quantile: float) -> float:
    """The chance of outdoing no more random edges than this, if it outdid a share of `quantile` of them."""
    from scipy.stats import binomtest

    return float(binomtest(int((effect > others).sum()), len(others), quantile, alternative="less").pvalue)


def better_p_value(wins: int, circuits: int, quantile: float) -> float:
    """The chance of outdoing as many random circuits as this, if it outdid a share of `quantile` of them."""
    from scipy.stats import binomtest

    return float(binomtest(wins, circuits, quantile, alternative="greater").pvalue)


def hsic_test(x: Floats, y: Floats, permutations: int, seed: int) -> tuple[float, float]:
    """The Hilbert-Schmidt independence criterion of two samples, and its permutation p-value (Gretton et al. 2007).

    Gaussian kernels as wide as the median distance between a sample's values. A sample that does not vary is
    independent of everything.

    Args:
        x, y: `[examples]`.
    """
    one, other = _centred_kernel(x), _centred_kernel(y)
    if one is None or other is None:
        return 0.0, 1.0
    n = len(x)
    observed = float((one * other).sum()) / (n - 1) ** 2
    generator = np.random.default_rng(seed)
    at_least = 0
    for _ in range(permutations):
        order = generator.permutation(n)
        at_least += float((one * other[order][:, order]).sum()) / (n - 1) ** 2 >= observed * (1 - 1e-12)
    return observed, (1 + at_least) / (1 + permutations)


def _centred_kernel(values: Floats) -> Floats | None:
    distances = np.abs(values[:, None] - values[None, :])
    apart = distances[np.triu_indices(len(values), 1)]
    width = float(np.median(apart)) or float(apart.mean())
    if width < 1e-9 * max(1.0, float(np.abs(values).max())):
        return None
    kernel = np.exp(-(distances**2) / (2 * width**2))
    return kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
