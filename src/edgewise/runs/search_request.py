"""What a search is asked to be: its fields, what `run.json` keeps of them, and how they are read back."""

# ruff: noqa: RUF009 - `asked` gives a field, which dataclass takes apart

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from edgewise.errors import EdgewiseError, check_seed, quoted, unknown
from edgewise.runs.kinds import KINDS, WORDS, is_of, names_edges, names_texts

if TYPE_CHECKING:
    from torch import Tensor

    from edgewise.discovery import OrderMode
    from edgewise.graph import Circuit, Graph
    from edgewise.graph.by_node import Level
    from edgewise.graph.groups import GivenGroups
    from edgewise.models import Decoder
    from edgewise.patching import Ablation, Constants
    from edgewise.runs.cluster import Cluster
    from edgewise.runs.run import Run
    from edgewise.tasks import Metric, Reference, Task
    from edgewise.tasks.spans import Positions

AblationName = Literal["resample", "zero", "mean", "mean-clean", "mean-positional", "noise", "optimal"]
EngineName = Literal["incremental", "plain"]
Selection = Literal["at-most", "top", "greedy", "ilp"]
"""How scores become a circuit of so many edges."""
Heads = Literal["split", "whole"]
Shard = Literal["candidates", "prompts"]
"""What the workers of a search share out."""
Bytes = int
"""On the shell, a size such as `3GB`."""


def asked(default: Any, text: str, **shell: Any) -> Any:
    """A field; `shell` may have its `flags` there, and what it `completes` to, where the name does not say so."""
    return dataclasses.field(default=default, metadata={"help": text, **shell})


@dataclass(frozen=True)
class SearchRequest:
    """What to search, and how: the keywords of `discover`, where each is described."""

    method: str = asked("acdc", "See: edgewise methods.", completes="METHODS")
    level: Level = asked(
        "edge",
        "edge; node: circuits of whole heads and MLPs, each with all that it writes; neuron: of hidden units of MLPs; "
        "or feature: of features of a --dictionary; the last two beside all heads and edges.",
    )
    threshold: float | None = asked(
        None,
        "Keep an edge if the metric rises by at least this much without it (methods that score edges: if its score is "
        "at least this). Default: the task's; a file has none.",
    )
    edges: int | None = asked(
        None, "Instead of a threshold: a circuit of at most this many edges (of nodes, with --level node)."
    )
    share: float | None = asked(
        None, "The same as a share of the graph's edges (nodes, neurons, features), as in 0.05."
    )
    neurons: int | None = asked(None, "With --level neuron, instead of a threshold: the best so many of all.")
    features: int | None = asked(None, "With --level feature, likewise: at most so many, errors counted.")
    dictionary: str | Path | None = asked(
        None,
        "With --level feature: the transcoders or SAEs whose features these are, a file or folder as SAELens, "
        "circuit-tracer or Gemma Scope have it.",
    )
    dictionary_hooks: str | None = asked(
        None,
        "Where its features are, if its files do not say: blocks.3.hook_resid_post, or of a transcoder what it reads "
        "and writes, blocks.3.hook_mlp_in,blocks.3.hook_mlp_out.",
    )
    select: Selection = asked(
        "at-most",
        "How scores become that many edges: at-most (pruned to at most so many), top (so many, then pruned), greedy "
        "(so many, grown from the logits, then pruned), ilp (at most so many, of the largest sum of scores, by integer "
        "programming); the last three do not count port edges.",
    )
    ablation: AblationName | None = asked(
        None,
        "What an absent edge carries: resample, zero, mean, mean-clean, mean-positional, noise, optimal (see: edgewise "
        "methods). Default: the task's.",
        completes="ABLATIONS",
    )
    mean_over: str | Path | Mapping[str, Any] | None = asked(
        None,
        "With ablation mean, which it stands for: a JSONL file of texts or of prompts, over which the mean is taken.",
    )
    ablation_seed: int = asked(0, "Seed of ablation noise, and of what ablation optimal learns.")
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = asked(
        None, "What is measured; lower is better. Default: the task's.", completes="METRICS"
    )
    seed: int = 0  # on the shell, the task's
    ports: bool = asked(True, "Test whether heads need their q, k and v at all, as the paper does.")
    heads: Heads = asked("split", "Edges lead into a head's query, key and value (split), or into the head (whole).")
    positions: Positions = asked(
        "together", "Edges hold at all positions (together), at each by itself, or at the task's spans of them."
    )
    layer_order: OrderMode = asked("normal", "Parents' layers late to early (normal), reverse, or shuffle.")
    head_order: OrderMode = asked("normal", "Parents' heads high to low (normal), reverse, or shuffle.")
    absolute: bool = asked(False, "Compare the size of the change, not the signed change.")
    within: int | str | Path | Circuit | Run | None = asked(
        None,
        "Search among the best so many edges (nodes) by attribution with integrated gradients, or among those of a run "
        "or a circuit file; all others are ablated from the start. With --level neuron or feature, which need it for "
        "ACDC: the neurons (features) that are tried, or by method exact measured.",
    )
    budget: float | None = asked(None, "An edge goes only if the metric as a whole, too, is below this without it.")
    passes: int = asked(1, "How often the edges that are left are tried, from the logits back.")
    engine: EngineName = asked(
        "incremental", "incremental, or plain: one whole circuit run per tested edge, to check the other one."
    )
    max_memory: Bytes | None = asked(
        None, "Memory to use beyond the model's weights, as in 3GB. Default: what the machine has."
    )
    workers: int | None = asked(
        None,
        "ACDC: so many workers, each with the model, measure what one would, by Ray on this machine (edgewise[ray]).",
    )
    ray: str | None = asked(
        None, "Join a Ray cluster for them, as in auto or ray://head:10001. Default: Ray is started here."
    )
    cpus: float = asked(1.0, "With workers: CPUs that each takes.")
    gpus: float = asked(0.0, "With workers: GPUs that each takes; 0.5 lets two share one.")
    shard: Shard = asked("candidates", "What workers share out: candidates, or prompts, where there are many of those.")
    groups: GivenGroups | None = asked(
        None, "Groups of nodes of your own: a JSON or TOML file of names and lists of nodes."
    )
    known: str | Path | Circuit | Run | None = asked(
        None, "The true circuit to hold what is found against: a circuit file or a run. Default: the task's, if any."
    )
    options: Mapping[str, Any] | None = None  # on the shell, those of cli/options.py

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # a number of numpy's or torch's, which JSON does not have
                object.__setattr__(self, name, value.item())
        if isinstance(self.within, str) and self.within.isdecimal():
            object.__setattr__(self, "within", int(self.within))
        if self.mean_over is not None and self.ablation is None:
            object.__setattr__(self, "ablation", "mean")

    def check(self) -> None:
        """Refuse what could not be asked for on any model and task.

        Raises:
            EdgewiseError: a value of the wrong kind, an unknown name, a threshold that is no number or below 0 where
                that means nothing, both of threshold and edges, a seed or a number of steps out of bounds, or an option
                that the method lacks.
        """
        from edgewise.discovery import METHODS, ORDER_MODES, check_budget, check_options, method_named, require_level
        from edgewise.graph.by_node import Level
        from edgewise.graph.groups import read_groups
        from edgewise.patching import ABLATIONS
        from edgewise.runs.given import check_known
        from edgewise.tasks import METRICS
        from edgewise.tasks.spans import POSITIONS

        for one in dataclasses.fields(self):
            kind, value = KINDS.get(str(one.type).removesuffix(" | None"), str), getattr(self, one.name)
            if value is None and one.default is None:
                continue
            if one.name == "options" and not isinstance(value, Mapping):
                raise EdgewiseError(f"a method's options should be given by name, not as {quoted(value)}")
            if one.name == "metric" and not (isinstance(value, str) or callable(value)):
                raise EdgewiseError(f"a metric is a name or a function, not {quoted(value)}")
            if one.name == "within" and not names_edges(value):
                raise EdgewiseError(
                    "a shortlist (--within) is a number of edges from 1, a circuit, a run, or the path of one, not "
                    f"{quoted(value)}"
                )
            if one.name == "mean_over" and not names_texts(value):
                raise EdgewiseError(
                    f"texts to take the mean over (--mean-over) are the path of a JSONL file, not {quoted(value)}"
                )
            if one.name == "known":
                check_known(value)
            elif one.name == "groups":
                read_groups(self.groups or {})
            elif one.name == "dictionary":
                if not isinstance(value, str | Path) or not Path(value).expanduser().exists():
                    raise EdgewiseError(
                        f"the dictionary (--dictionary), {quoted(str(value), 500)}: there is no such file or folder"
                    )
            elif one.name not in ("metric", "options", "within", "mean_over") and not is_of(value, kind):
                raise EdgewiseError(f"--{one.name.replace('_', '-')} should be {WORDS[kind]}, not {quoted(value)}")
        method = METHODS[method_named(self.method)]
        acdc = method.name == "acdc"
        sized = self.edges is not None or self.share is not None
        if (self.threshold, self.edges, self.share, self.neurons, self.features).count(None) < 4:
            raise EdgewiseError("give a threshold or a number of edges (or a share of them), not both")
        if self.share is not None and not 0 < self.share <= 1:
            raise EdgewiseError(f"--share should be above 0 and at most 1, not {self.share}")
        if self.level not in get_args(Level):
            raise unknown("level", self.level, get_args(Level))
        if self.level != "edge":
            require_level(method.name, self.level)
            if (self.heads, self.positions) != ("split", "together"):
                raise EdgewiseError(
                    f"--heads and --positions say what edges are, and with --level {self.level} none are chosen"
                )
            if self.select != "at-most":
                raise EdgewiseError(
                    f"selection {self.select!r} chooses edges, and {self.level}s need no such choice; use at-most"
                )
        self._check_units(method.name)
        self._check_workers(method.name)
        if self.select not in get_args(Selection):
            raise unknown("selection", self.select, get_args(Selection))
        if self.select != "at-most" and (acdc or not sized):
            raise EdgewiseError(f"selection {self.select!r} is for methods that score edges, with --edges or --share")
        if self.select != "at-most" and method.units:
            raise EdgewiseError(
                f"selection {self.select!r} would split what method {method.name!r} scores as one; use at-most"
            )
        if self.absolute and not method.sized:
            raise EdgewiseError(
                f"method {method.name!r} has no use for --absolute: its scores' signs are their meaning"
            )
        if not acdc and (self.engine, self.layer_order, self.head_order) != ("incremental", "normal", "normal"):
            raise EdgewiseError(f"--engine, --layer-order and --head-order are ACDC's; method {method.name!r} has none")
        shortlisted = self.of_units and method.name == "exact"
        if not acdc and (None if shortlisted else self.within, self.budget, self.passes) != (None, None, 1):
            raise EdgewiseError(f"--within, --budget and --passes are ACDC's; method {method.name!r} has none")
        check_budget(self.budget, self.passes)
        method.check(self.options or {})
        check_seed(self.seed)
        check_seed(self.ablation_seed, "the ablation's seed (--ablation-seed)")
        check_options(threshold=self.threshold, edges=self.edges, engine=self.engine)
        if self.threshold is not None and self.threshold < 0 and (acdc or self.absolute):
            raise EdgewiseError(
                f"the threshold should be 0 or more, not {self.threshold}: an edge that the metric is better without "
                "is in no circuit"
            )
        if self.heads not in get_args(Heads):
            raise unknown("way to read heads", self.heads, get_args(Heads))
        if self.positions not in POSITIONS:
            raise unknown("way to tell positions apart", self.positions, POSITIONS)
        for order in (self.layer_order, self.head_order):
            if order not in ORDER_MODES:
                raise unknown("order", order, ORDER_MODES)
        if self.ablation is not None and self.ablation not in ABLATIONS:
            raise unknown("ablation", self.ablation, ABLATIONS)
        if isinstance(self.mean_over, str | Path) and not Path(self.mean_over).expanduser().exists():
            given = quoted(str(self.mean_over), 500)
            raise EdgewiseError(f"the texts to take the mean over (--mean-over), {given}: there is no such file")
        if self.mean_over is not None and self.ablation != "mean":
            raise EdgewiseError(
                f"--mean-over is for ablation 'mean'; ablation {self.ablation!r} takes no mean over texts"
            )
        if isinstance(self.metric, str) and self.metric not in METRICS:
            raise unknown("metric", self.metric, METRICS)

    @property
    def of_units(self) -> bool:
        """Whether circuits are of neurons or features, and have every edge."""
        return self.level in ("neuron", "feature")

    @property
    def count(self) -> int | None:
        """How many edges, nodes, neurons or features are wanted, if a number is."""
        return {"neuron": self.neurons, "feature": self.features}.get(self.level, self.edges)

    def _check_units(self, method: str) -> None:
        """Refuse what is asked about neurons and features at other levels, and about edges where there are such."""
        for level, number in (("neuron", self.neurons), ("feature", self.features)):
            if number is not None and self.level != level:
                raise EdgewiseError(f"--{level}s is for circuits of {level}s: give --level {level}, or --edges")
            if number is not None and number < 1:
                raise EdgewiseError(f"--{level}s should be at least 1, not {number}")
        if self.dictionary is not None and self.level != "feature":
            raise EdgewiseError("--dictionary has the features of circuits of features: give --level feature")
        if self.dictionary is None and self.dictionary_hooks is not None:
            raise EdgewiseError("--dictionary-hooks says where the features of a --dictionary are: give that, too")
        if not self.of_units:
            return
        units = f"{self.level}s"
        if self.edges is not None:
            raise EdgewiseError(f"--edges counts edges or nodes; with --level {self.level} the number is --{units}")
        if self.known is not None or self.groups is not None:
            raise EdgewiseError(
                f"--known and --groups are about edges and nodes, all of which a circuit of {units} has (--level "
                f"{self.level})"
            )
        if method != "acdc":
            return
        if self.within is None:
            raise EdgewiseError(
                f"ACDC tries {units} one by one: say among which, as in --within 200, the best 200 by attribution"
            )
        if (self.layer_order, self.head_order) != ("normal", "normal"):
            raise EdgewiseError(f"--layer-order and --head-order are of heads and edges, not of {units}")
        if self.workers is not None or self.ray is not None:
            raise EdgewiseError(f"a search of {units} is not shared out among workers (--workers, --ray)")

    def _check_workers(self, method: str) -> None:
        """Refuse workers that there cannot be, and what is said about them where there are none."""
        if self.shard not in get_args(Shard):
            raise unknown("way to share a search out", self.shard, get_args(Shard))
        if self.workers is None and self.ray is None:
            if self.shard != "candidates":
                raise EdgewiseError("--shard is about workers: say how many with --workers")
        elif method != "acdc":
            raise EdgewiseError(
                f"--workers and --ray share out a search of ACDC; method {method!r} takes a few passes in one process"
            )
        self.cluster()

    def cluster(self) -> Cluster | None:
        """Where the search is shared out; None where it is not.

        Raises:
            EdgewiseError: what Ray could not be asked for, or Ray is not installed.
        """
        from edgewise.runs.cluster import Cluster

        return Cluster.asked(self.workers, self.ray, self.cpus, self.gpus)

    def check_size(self, suggested: float | None) -> None:
        """Refuse a search that nothing tells how much to keep; `suggested` is the task's own threshold.

        Raises:
            EdgewiseError: there is neither a threshold nor a number of edges, where the method needs one.
        """
        from edgewise.discovery import METHODS, method_named

        method = METHODS[method_named(self.method)]
        if self.count is not None or self.share is not None:
            return
        if self.of_units and self.threshold is None:
            units = f"{self.level}s"
            raise EdgewiseError(f"say how many {units} the circuit should have (--{units}), or give a --threshold")
        if "target" in method.options:
            raise EdgewiseError(f"method {method.name!r} needs --edges: the size that its masks are pressed to")
        if self.threshold is not None or method.rounds:
            return
        if not method.metric_units:
            raise EdgewiseError(f"method {method.name!r} needs --edges, or --threshold in its own units")
        if suggested is None:
            raise EdgewiseError(
                "the task suggests no threshold: give --threshold (0.01 is a start for kl_div) or --edges"
            )

    @property
    def with_ports(self) -> bool:
        """Whether the graph has port edges: not where heads or nodes are whole, which lack no query, key or value."""
        return self.ports and self.level == "edge" and self.heads == "split"

    def graph(self, model: Decoder, task: Task) -> Graph:
        """The graph that is searched.

        Raises:
            EdgewiseError: the task's positions, or the model's neurons or features, cannot be told apart as asked.
        """
        from edgewise.tasks.spans import told_apart

        model = self.opened(model)
        _, spans = told_apart(task, self.positions)
        split, whole = task.split_embedding, self.heads == "whole"
        return model.graph(ports=self.with_ports, split_embedding=split, whole_heads=whole, spans=spans)

    def opened(self, model: Decoder) -> Decoder:
        """The model as its circuits need it: taken apart by neuron, or by the features of a dictionary.

        A model that is taken apart by features already is taken as it is.

        Raises:
            EdgewiseError: it cannot be; the dictionary cannot be read or is of another model; or the model is taken
                apart otherwise than asked.
        """
        from edgewise.models.dictionary_files import with_dictionary
        from edgewise.models.feature_mlp import has_features, taken_apart

        if self.dictionary is not None:
            return with_dictionary(model, self.dictionary, self.dictionary_hooks)
        if self.level == "feature" and not has_features(model):
            raise EdgewiseError("a circuit of features needs transcoders or SAEs: say where they are with --dictionary")
        return taken_apart(model, features=self.level == "feature") if self.of_units or has_features(model) else model

    def settled(self, task: Task, graph: Graph) -> Self:
        """The same with nothing left to the method or to the task, but for ablation and metric; a share as a number."""
        from edgewise.discovery import METHODS, method_named
        from edgewise.graph.groups import read_groups

        method = METHODS[method_named(self.method)]
        whole = {"edge": graph.n_edges, "node": len(graph.sources)}.get(self.level, graph.n_neurons)
        count = self.count if self.share is None else max(1, int(self.share * whole))
        edges = None if self.of_units else count
        options = {
            **method.options,
            **({"seed": self.seed} if "seed" in method.options else {}),
            **(self.options or {}),
        }
        if "target" in options and options["target"] is None:
            options["target"] = edges
        threshold = self.threshold
        if threshold is None and count is None and not method.rounds:
            threshold = task.threshold
        groups = None if self.groups is None else read_groups(self.groups, graph)
        settled = {"threshold": threshold, "edges": edges, "share": None, "options": options, "groups": groups}
        if self.of_units:
            settled[f"{self.level}s"] = count
        return replace(self, method=method.name, ports=self.with_ports, **settled)

    def ablating(self, model: Decoder, task: Task, constants: Constants | None = None) -> Ablation:
        """The ablation that is asked for, with the texts that a mean is taken over.

        Args:
            constants: those that it has, if it has been worked out before; texts are not read then.

        Raises:
            EdgewiseError: there are no such texts, they have changed, or the model cannot read them.
        """
        from edgewise.patching import Ablation
        from edgewise.tasks import read_texts

        over = None if self.mean_over is None or constants is not None else read_texts(model, self.mean_over)
        return Ablation(self.ablation or task.ablation, self.ablation_seed, over, constants)

    def to_dict(self) -> dict[str, Any]:
        """The search in the settings of `run.json`; a metric of one's own by its name; not how it is made."""
        from edgewise.graph.groups import read_groups
        from edgewise.runs.given import name_of

        given = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        if self.edges is None or self.method == "acdc":
            given["select"] = None
        if self.metric is not None and not isinstance(self.metric, str):
            given["metric"] = getattr(self.metric, "name", None) or getattr(self.metric, "__name__", "custom")
        if self.within is not None and not isinstance(self.within, int):
            given["within"] = str(self.within) if isinstance(self.within, str | Path) else _path_of(self.within)
        if self.mean_over is not None:
            given["mean_over"] = dict(self.mean_over) if isinstance(self.mean_over, Mapping) else str(self.mean_over)
        if self.known is not None:
            given["known"] = name_of(self.known)
        if self.groups is not None:
            given["groups"] = {name: list(nodes) for name, nodes in read_groups(self.groups).items()}
        for name in ("share", "neurons", "features", "groups", "known"):
            if given[name] is None:
                del given[name]
        for name in (*_HOW, *_OF_MODEL):
            del given[name]
        return {_IN_RECORD.get(name, name): value for name, value in given.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The search of a run again, from the settings of its `run.json`; a known circuit is in the run's folder.

        Raises:
            EdgewiseError: the run used a metric of the user's own; or the settings lack something, or hold what `check`
                refuses.
        """
        from edgewise.runs.given import groups_in
        from edgewise.runs.reading import wanted
        from edgewise.tasks import METRICS

        given = {}
        for one in dataclasses.fields(cls):
            name = _IN_RECORD.get(one.name, one.name)
            if name in settings:
                given[one.name] = settings[name]
            elif one.name not in _LATER:
                raise EdgewiseError(f"the run's settings are broken: {name!r} is missing")
        metric, edges, options = given["metric"], given["edges"], given["options"]
        if metric not in (None, *METRICS):
            raise EdgewiseError(f"the run used a metric of its own, {metric!r}, so it cannot be searched again")
        if given.get("within") == _UNNAMED:
            raise EdgewiseError("the run was searched within a circuit that it does not name; give it again")
        groups_in(settings)  # which a record has by their names, never as a file
        given["select"], given["known"] = given.get("select") or "at-most", None
        if wanted(given) is not None:
            given["threshold"] = None  # what the search came to
        if isinstance(options, Mapping):  # what follows from the rest goes, so that it does when that is changed
            follow = {"seed": given["seed"], "target": edges}
            given["options"] = {
                name: value for name, value in options.items() if name not in follow or value != follow[name]
            }
        request = cls(**given)
        try:
            request.check()
        except EdgewiseError as error:
            raise EdgewiseError(f"the run's settings are broken: {error}") from None
        return request


_UNNAMED = "(a circuit)"
_HOW = ("max_memory", "workers", "ray", "cpus", "gpus", "shard")
"""How the search is carried out, which changes nothing that is found."""
_OF_MODEL = ("dictionary", "dictionary_hooks")
"""What the record says of the model, which comes back with it."""
_LATER = (
    *_HOW,
    *_OF_MODEL,
    *("level", "select", "share", "neurons", "features", "within", "budget", "passes"),
    *("heads", "positions", "mean_over", "ablation_seed", "groups", "known"),
)
"""What records may lack: what is not always said, and what older ones did not know."""


def _path_of(within: object) -> str:
    """Where a run that was loaded lies; other objects have no name."""
    return str(getattr(within, "folder", _UNNAMED))


_IN_RECORD = {"seed": "order_seed", "options": "method_options"}
