"""Path patching, against the source model's own modules run along one path, and against circuits and whole runs."""

import oracle
import pytest
import tiny
import torch
from family_models import InFloat64, family

from edgewise.errors import EdgewiseError
from edgewise.evaluation import patch_paths
from edgewise.graph import Circuit
from edgewise.graph.names import parse_path
from edgewise.models import load_model
from edgewise.patching import Experiment
from edgewise.patching.paths import path_logits
from edgewise.tasks import load_task

KINDS = ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2", "falcon-groups", "deepseek_v2"]
"""Own heads, groups, parallel blocks, a norm behind attention, norms across heads, groups beside MLPs, latent heads."""
LONG = [
    "input->logits",
    "a1.h1->logits",
    "m0->logits",
    "input->a0.h1<q>",
    "a0.h1->a1.h2<q>",
    "a0.h1->a1.h2<q>->logits",
    "a0.h0->m1",
    "a0.h3->m0->a1.h0<q>->logits",
    "input->a0.{g}1<k>->a1.{g}0<v>->logits",
    "input->a0.{g}1<v>->a1.{g}1<k>",
    "input->m0->a1.{g}1<k>->m1->logits",
    "input->a0.h2<q>->m1->logits",
    "m0->a1.{g}0<v>->m1",
]


class Run:
    """A source model's run, layer by layer, in which some inputs read something more."""

    def __init__(self, source, graph, more=None):
        self.source, self.graph, self.more = source, graph, more or {}
        self.outputs, self.before, self.between = dict(zip(["input"], source.embedding(False), strict=True)), [], []
        stream = self.outputs["input"]
        for layer in range(graph.n_layers):
            self.before.append(stream)
            heads, constant = self.heads(layer, self.more)
            self.outputs |= {f"a{layer}.h{head}": one for head, one in enumerate(heads)}
            after = stream + sum(heads) + constant
            self.between.append(stream if graph.parallel else after)
            self.outputs[f"m{layer}"] = self.mlp(layer, self.more)
            stream = after + self.outputs[f"m{layer}"]
        self.final = stream

    def heads(self, layer, more):
        letter = "g" if self.graph.n_kv_heads < self.graph.n_heads else "h"
        streams = [
            [self.before[layer] + more.get(f"a{layer}.{name}{head}<{kind}>", 0) for head in range(count)]
            for kind, name, count in (("q", "h", self.source.head), ("k", letter, self.source.shared))
        ]
        values = [self.before[layer] + more.get(f"a{layer}.{letter}{head}<v>", 0) for head in range(self.source.shared)]
        return self.source.heads(layer, *streams, values)

    def mlp(self, layer, more):
        return self.source.mlp(layer, self.between[layer] + more.get(f"m{layer}", 0))


def along(run, change, place):
    """What the nodes that read `place` write otherwise if they alone read `change` more there."""
    if place.kind == "mlp":
        return run.mlp(place.layer, {place.name: change}) - run.outputs[place.name]
    heads, _ = run.heads(place.layer, {place.name: change})
    share = run.graph.share if place.shared else 1
    members = range(place.head * share, (place.head + 1) * share)
    return sum(heads[head] - run.outputs[f"a{place.layer}.h{head}"] for head in members)


def oracle_path(experiment, name, restore=False):
    """A path's logits by hooks on the source model: one step after another, every other node as in the run."""
    model, graph, prompts = experiment.decoder, experiment.graph, experiment.task.prompts
    sides = [(prompts.clean, prompts.mask), (prompts.corrupt, prompts.corrupt_mask)]
    run, other = (Run(oracle.Source(model, *side), graph) for side in (sides[::-1] if restore else sides))
    path = parse_path(name)
    carried = 0 if experiment.ablation == "zero" else other.outputs[path.start.name]
    change = carried - run.outputs[path.start.name]
    for place in path.reads[:-1]:
        change = along(run, change, place)
    last = path.reads[-1]
    final = run.final + change if last.kind == "logits" else Run(run.source, graph, {last.name: change}).final
    return run.source.logits(final)[prompts.scored_rows, prompts.scored_positions]


def paths_in(graph):
    letter = "g" if graph.n_kv_heads < graph.n_heads else "h"
    names = [name.format(g=letter) for name in LONG]
    # In parallel blocks no head comes before its own layer's MLP.
    return [
        name for name in names if not (graph.parallel and ("h3->m0" in name or "<k>->m1" in name or name[-2:] == "m1"))
    ]


def near(found, wanted):
    return torch.allclose(found, wanted, rtol=1e-7, atol=1e-8 * float(wanted.abs().max()))


CASES = [(name, "resample") for name in KINDS] + [("gpt2", "zero")]
CASES += [pytest.param("gemma2", "zero", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_a_path_is_what_the_source_models_own_modules_make_of_it(name, ablation):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task(), ablation=ablation)
        paths = paths_in(experiment.graph)
        for path in paths[:: {"gpt2": 1, "deepseek_v2": 5}.get(name, 2)]:  # other modules take long
            found = path_logits(experiment, [path])
            assert near(found, oracle_path(experiment, path)), path
            moved = (found - experiment.reference.logits).abs().max()
            assert moved > 1e-5 * experiment.reference.logits.abs().max(), path


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2"])
def test_restoring_a_path_is_patching_it_in_the_run_on_the_corrupted_prompts(name):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task())
        for path in paths_in(experiment.graph)[1::3]:
            patched = path_logits(experiment, [path], restore=True)
            assert near(patched, oracle_path(experiment, path, restore=True)), path
        effects = patch_paths(experiment, *paths_in(experiment.graph)[:2], restore=True)
        assert effects[0].before == pytest.approx(experiment.ablated(), rel=1e-9)
        assert effects[0].other == pytest.approx(experiment.full(), abs=1e-9)
        assert len(effects) == 3


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2"])
def test_edges_patched_together_are_a_circuit_without_them(name):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task())
        graph = experiment.graph
        for seed in range(3):
            circuit = oracle.random_circuit(graph, seed, 0.8)
            gone = graph.names(graph.edges & ~circuit.edges, graph.port_edges & ~circuit.ports)
            assert any(edge.partition("<")[0] == edge.split("->")[1] for edge in gone), "a port edge among them"
            assert near(path_logits(experiment, gone), experiment.logits(circuit))


def every_path(graph, name="input", writer="input"):
    """All paths from the embedding, or on from some input's node, to the logits."""
    found, open_ = [], [(name, writer)]
    while open_:
        name, writer = open_.pop()
        row = graph.source_index[writer]
        for column, place in enumerate(graph.inputs):
            if graph.edges[row, column]:
                longer = f"{name}->{place.name}"
                if place.kind == "logits":
                    found.append(longer)
                else:
                    open_.append((longer, graph.sources[graph.nodes_reading(place)[0]].name))
    return found


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", pytest.param("olmo2", marks=pytest.mark.slow)])
def test_all_paths_together_are_the_run_on_the_corrupted_prompts(name):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task())
        paths = every_path(experiment.graph)
        assert len(paths) > 100
        prompts = experiment.task.prompts
        corrupted = oracle.Source(experiment.decoder, prompts.corrupt, prompts.corrupt_mask).run()
        corrupted = corrupted[prompts.scored_rows, prompts.scored_positions]
        assert near(path_logits(experiment, paths), corrupted)
        # No path less will do.
        assert not near(path_logits(experiment, paths[:-1]), corrupted)
        if name == "llama":
            assert near(path_logits(experiment, paths, restore=True), experiment.reference.logits)


def test_a_path_that_is_the_end_of_another_takes_its_place():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task())
    short, long = "a1.h0->m2->logits", "a0.h0->a1.h0<q>->m2->logits"
    alone = path_logits(experiment, [short])
    assert torch.equal(alone, path_logits(experiment, [short, long]))
    assert not near(alone, path_logits(experiment, [long]))


def test_an_open_path_holds_the_one_straight_to_the_logits():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task())
    everywhere, straight = "a0.h0->a1.h0<q>", "a0.h0->a1.h0<q>->logits"
    found = path_logits(experiment, [everywhere])
    assert near(found, path_logits(experiment, [everywhere, straight]))
    assert not near(found, path_logits(experiment, [straight]))


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_an_open_path_is_all_paths_that_go_on_from_it(name):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task())
        for path, writer in (("input->a0.h2<q>", "a0.h2"), ("input->m0", "m0"), ("a0.h1->a1.h3<q>", "a1.h3")):
            on = every_path(experiment.graph, path, writer)
            found = path_logits(experiment, on)
            assert near(found, path_logits(experiment, [path]))
            if len(on) > 1:
                assert not near(found, path_logits(experiment, on[1:]))


def test_one_head_of_a_group_may_read_a_key_of_its_own():
    experiment = Experiment(tiny.llama(dtype=torch.float64), tiny.task())
    assert experiment.graph.share == 2
    apart = Experiment(
        experiment.decoder, experiment.task, graph=experiment.decoder.graph(ungroup=True)
    )  # gives every head its own
    for kind in "kv":
        (one,) = [path_logits(experiment, [f"a0.h1->a1.h2<{kind}>"])]
        assert near(one, path_logits(apart, [f"a0.h1->a1.h2<{kind}>"]))
        both = path_logits(experiment, [f"a0.h1->a1.h2<{kind}>", f"a0.h1->a1.h3<{kind}>"])
        assert near(both, path_logits(experiment, [f"a0.h1->a1.g1<{kind}>"]))
        assert not near(both, one)
    with pytest.raises(EdgewiseError, match=r"in the path 'a0.h1->a1.g1<k>': .* has no input 'a1.g1<k>'"):
        path_logits(apart, ["a0.h1->a1.g1<k>"])


def test_a_port_begins_a_path():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task())
    circuit = Circuit.full(experiment.graph)
    ports = circuit.ports.copy()
    ports[experiment.graph.input_index["a1.h0<v>"]] = False
    wanted = experiment.logits(Circuit(experiment.graph, circuit.edges, ports))
    assert near(path_logits(experiment, ["a1.h0<v>->a1.h0"]), wanted)
    # Nothing but the rest of the head's ways is missing on the one straight to the logits.
    ways = [
        f"a1.h0<v>->a1.h0->{place.name}"
        for place in experiment.graph.inputs
        if (place.layer >= 2 or place.name == "m1")
    ]
    assert near(path_logits(experiment, [*ways, "a1.h0<v>->a1.h0->logits"]), wanted)


def test_a_path_in_pieces_of_rows_is_the_same():
    experiment = Experiment(tiny.llama(dtype=torch.float64), tiny.task(rows=5))
    path = "input->a0.g1<k>->a1.h0<q>->logits"
    whole = path_logits(experiment, [path])
    small = experiment.within(None)
    small.row_bytes = 1
    assert small.rows_at_once() == 1
    assert near(path_logits(small, [path]), whole)


def test_split_embeddings_start_paths_apart():
    experiment = Experiment(tiny.plain(dtype=torch.float64), tiny.task(split_embedding=True))
    assert not near(path_logits(experiment, ["tok->m0"]), experiment.reference.logits)
    # Positions are the same on both prompts.
    assert near(path_logits(experiment, ["pos->m0"]), experiment.reference.logits)
    with pytest.raises(EdgewiseError, match="has no sending node 'input'"):
        path_logits(experiment, ["input->m0"])


def test_effects_and_shares():
    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task(), metric="logit_diff")
    told = []
    one, other, both = patch_paths(
        experiment, "a2.h1->logits", "m2->logits", progress=lambda done, of: told.append((done, of))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    full, ablated = experiment.full(), experiment.ablated()
    for effect, edges in ((one, ["a2.h1->logits"]), (other, ["m2->logits"]), (both, ["a2.h1->logits", "m2->logits"])):
        circuit = Circuit.full(experiment.graph)
        present = circuit.edges.copy()
        for edge in edges:
            present[experiment.graph.locate(edge)] = False
        wanted = experiment.value(Circuit(experiment.graph, present, circuit.ports))
        assert effect.paths == tuple(edges)
        assert effect.before == pytest.approx(full, rel=1e-12)
        assert effect.after == pytest.approx(wanted, rel=1e-9)
        assert effect.effect == effect.after - effect.before
        assert effect.share == pytest.approx((wanted - full) / (ablated - full), rel=1e-6)


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ([], {}, "say which path is patched"),
        (["a0.h0"], {}, "'a0.h0' is not a path; a path is written"),
        (["a0.h0->a1.h0"], {}, "'a1.h0' reads in three places"),
        (["a0.h0->a1.h9<q>"], {}, "has no input 'a1.h9<q>'"),
        (["a9.h0->m1"], {}, "has no sending node 'a9.h0'"),
        (["a1.h0->a1.h1<q>"], {}, "a1.h0 does not come before a1.h1<q>"),
        (["a0.h0->a2.h1<q>->m1->logits"], {}, "in the path .*: there is no edge 'a2.h1->m1'"),
        (["logits->m1"], {}, "nothing reads the logits, so no path begins there"),
        (["m0->logits->m1"], {}, "nothing reads the logits, so a path ends there"),
        (["m0->logits", "m0->logits"], {}, "the path 'm0->logits' is there twice"),
        (["a0.h0<q>->logits"], {}, "goes through its own head, 'a0.h0'"),
        (["m0->logits"], {"restore": True, "ablation": "zero"}, "goes with ablation 'resample', not 'zero'"),
    ],
)
def test_what_is_no_path_is_refused(paths, options, message):
    ablation = options.pop("ablation", "resample")
    experiment = Experiment(tiny.gpt2(), tiny.task(), ablation=ablation)
    with pytest.raises(EdgewiseError, match=message):
        patch_paths(experiment, *paths, **options)


def test_the_shipped_models_story_of_ioi_goes_by_paths():
    model = load_model("tiny-ioi")
    experiment = Experiment(model, load_task("ioi", model, examples=16), metric="logit_diff")
    (straight,) = patch_paths(experiment, "a3.h1->logits")
    assert straight.share is not None
    assert straight.share > 0.5
