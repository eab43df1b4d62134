"""A head's parts are what the source model's own attention makes of them: each is put into it, and the pattern read."""

import sys

import oracle
import pytest
import tiny
import torch
from family_models import CONFIGS, InFloat64, family, source

from edgewise.discovery import head_parts
from edgewise.errors import EdgewiseError
from edgewise.models import load_model
from edgewise.patching import Experiment
from edgewise.tasks import load_task

HEAD, LAYER = 2, 1
INTERVENED = ["gpt2", "llama", "qwen3", "gpt_neox", "bloom", "gemma2", "olmo2"]
"""LayerNorm, groups and rotation, norms by head, beside an MLP, slopes, a norm behind attention, norms across heads."""


def made(name):
    """A model in float64, its scores not bounded, as a bounded one's could not be read off the pattern."""
    model = source(name, torch.float64)
    for module in model.modules():
        if hasattr(module, "attn_logit_softcapping"):
            module.attn_logit_softcapping = None
    return load_model(model)


class Hooked:
    """The source model's own attention of one layer, whose queries, keys and values are put in from outside."""

    def __init__(self, model, prompts):
        self.source = oracle.Source(model, prompts.clean, prompts.mask)
        self.component = self.source.attention[LAYER]
        projection = self.component.source.projection
        (self.attention,) = [one for one in model.source.modules() if projection in one.children()]
        self.maps = oracle._projections(self.attention, self.source.head, self.source.shared)
        norm = self.component.source.norm
        self.norm = None if norm is self.attention else norm
        self.seen = {}
        watched = [module for module, _, _ in self.maps] + ([] if self.norm is None else [self.norm])
        watched += [one for one in (self.head_norm("q"), self.head_norm("k")) if one is not None]
        watched += [self.component.source.block] if self.component.after is not None else []
        hooks = [(module, side, self.keep(module, side)) for module in watched for side in (True, False)]
        self.pattern_of(*hooks)

    def keep(self, module, reads):
        return lambda x: self.seen.__setitem__((module, reads), x.clone())

    def head_norm(self, kind):
        return getattr(self.attention, f"{kind}_norm", None)

    def frozen(self, module):
        """A norm with the scale of this run: each number of its input by what it was multiplied by."""
        x, y = self.seen[module, True], self.seen[module, False]
        bias = getattr(module, "bias", None)
        bias = 0 if bias is None else bias
        centred = "LayerNorm" in type(module).__name__

        def apart(part):
            return part - part.mean(dim=-1, keepdim=True) if centred else part

        factor = (y - bias) / apart(x)
        return (lambda part: apart(part) * factor), bias + torch.zeros_like(y)

    def made_of(self, kind, parts):
        """What a stream's parts, and then biases, bring to all queries (keys, values) of the module that makes them."""
        module, make, _ = next(one for one in self.maps if self.width(one, kind))
        norm, bias = ((lambda part: part), 0 * parts[0]) if self.norm is None else self.frozen(self.norm)
        nothing = make(0 * parts[0])
        found = [*(make(norm(part)) - nothing for part in parts), make(bias)]
        head_norm = self.head_norm(kind)
        if head_norm is not None:
            scaled, _ = self.frozen(head_norm)
            found = [scaled(one.reshape(self.seen[head_norm, True].shape)) for one in found]
        return head_norm or module, found

    def width(self, one, kind):
        columns = one[2](kind, 0, one[1](torch.zeros(1, 1, self.source.model.config.d_model).double()).shape[-1])
        return columns.stop > columns.start

    def put(self, module, kind, made):
        """A hook that has `made` instead of queries (keys, values), and leaves what else the module makes."""
        head_norm = self.head_norm(kind)
        own = next(one[2] for one in self.maps if self.width(one, kind))

        def replaced(out):
            if module is head_norm:
                return made
            new = out.clone()
            for number in range(self.source.head if kind == "q" else self.source.shared):
                columns = own(kind, number, out.shape[-1])
                new[..., columns] = made[..., columns]
            return new

        return (module, False, replaced)

    def pattern_of(self, *hooks):
        """The layer's attention pattern of one head, `[batch, query pos, key pos]`, in a run with these hooks."""
        caught = []
        handle = self.attention.register_forward_hook(lambda _, __, out: caught.append(out[1]))
        self.source.run(*hooks)
        handle.remove()
        return caught[0][:, HEAD]


def senders(model, prompts):
    """What each sender before the layer adds to the stream in the source model's run, and the constants."""
    run = oracle.Source(model, prompts.clean, prompts.mask)
    graph = model.graph()
    stream = sum(run.embedding(False))
    found, constants = [stream], 0 * stream
    for layer in range(LAYER):
        heads, constant = run.heads(layer, [stream] * run.head, [stream] * run.shared, [stream] * run.shared)
        after = stream + sum(heads) + constant
        mlp = run.mlp(layer, stream if graph.parallel else after)
        found += [*heads, mlp]
        constants, stream = constants + constant, after + mlp
    return [*found, constants]


def above(pattern, base, places, seen):
    """Scores less their mean over the keys that are seen, from patterns with a score and without."""
    rows, at = places
    scores = pattern[rows, at].log() - base[rows, at].log()
    scores = torch.where(seen, scores, 0.0)
    return torch.where(seen, scores - scores.sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True), 0.0)


@pytest.mark.parametrize("name", INTERVENED)
def test_each_part_gives_the_score_that_the_source_model_makes_of_it_alone(name):
    with InFloat64(), torch.no_grad():
        model, task = made(name), tiny.task(rows=2)
        found = head_parts(Experiment(model, task), f"a{LAYER}.h{HEAD}")
        prompts = task.prompts
        places, seen = (prompts.scored_rows, prompts.scored_positions), found.seen
        parts, hooked = senders(model, prompts), Hooked(model, prompts)
        assert len(found.parts) == len(parts) + 1
        (q_module, q_parts), (k_module, k_parts) = hooked.made_of("q", parts), hooked.made_of("k", parts)

        def pattern(q=None, k=None):
            hooks = [
                hooked.put(module, kind, part)
                for module, kind, part in ((q_module, "q", q), (k_module, "k", k))
                if part is not None
            ]
            return hooked.pattern_of(*hooks)

        nothing = pattern(q=0 * q_parts[0])
        # The whole score, then by part of the query, then by part of the key.
        sides = [(found.scores, pattern())]
        sides += [(found.query_side[:, number], pattern(q=part)) for number, part in enumerate(q_parts)]
        sides += [(found.key_side[:, number], pattern(k=part)) for number, part in enumerate(k_parts)]
        for ours, theirs in sides:
            wanted = above(theirs, nothing, places, seen)
            got = torch.where(seen, ours - (ours * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True), 0.0)
            assert torch.allclose(got, wanted, atol=1e-7)
        assert (found.query_side.abs().amax(dim=(0, 2)) > 1e-3).sum() >= 6
        pairs = [(0, 0), (3, 1), (5, 4), (0, len(parts)), (len(parts), 0)]
        for row, column in pairs:
            wanted = above(pattern(q=q_parts[row], k=k_parts[column]), nothing, places, seen)
            wanted = wanted.gather(1, found.keys[:, None]).mean()
            assert found.above_mean[row, column].item() == pytest.approx(wanted.item(), abs=1e-7)


@pytest.mark.parametrize("name", INTERVENED)
def test_each_tokens_value_adds_what_the_source_model_makes_of_it_alone(name):
    with InFloat64(), torch.no_grad():
        model, task = made(name), tiny.task(rows=2)
        found = head_parts(Experiment(model, task), f"a{LAYER}.h{HEAD}")
        prompts = task.prompts
        rows, at = prompts.scored_rows, prompts.scored_positions
        parts, hooked = senders(model, prompts), Hooked(model, prompts)
        module, v_parts = hooked.made_of("v", parts)
        block = hooked.component.source
        weight = block.projection.weight if name == "gpt2" else block.projection.weight.T
        weight = weight.unflatten(0, (hooked.source.head, -1))[HEAD]
        norm = model.source_norm or model.final_norm
        seen = {}
        hooked.source.run(
            (norm, True, lambda x: seen.__setitem__("x", x.clone())),
            (norm, False, lambda y: seen.__setitem__("y", y.clone())),
        )
        hooked.seen |= {(norm, True): seen["x"], (norm, False): seen["y"]}
        final, _ = hooked.frozen(norm)
        after = (lambda x: x) if hooked.component.after is None else hooked.frozen(block.block)[0]
        unembedding = model.source.get_output_embeddings().weight
        right = torch.stack([unembedding[one].mean(dim=0) for one in prompts.answers])
        direction = right - torch.stack([unembedding[one].mean(dim=0) for one in prompts.wrong])
        for number in (0, 2, 5, len(parts) - 1, len(parts)):
            for token in (0, 1, 3):
                alone = torch.zeros_like(v_parts[number])
                alone[:, token] = v_parts[number][:, token]
                z = []
                hooked.source.run(
                    hooked.put(module, "v", alone), (block.projection, True, lambda x, z=z: z.append(x.clone()))
                )
                written = z[0].flatten(2).unflatten(-1, (hooked.source.head, -1))[:, :, HEAD] @ weight
                wanted = (final(after(written * block.factor))[rows, at] * direction).sum(dim=-1)
                assert torch.allclose(found.values[:, number, token], wanted, atol=1e-8)
        assert (found.values.abs().amax(dim=(0, 2)) > 1e-4).sum() >= 6


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_add_up_in_every_family(name):
    with InFloat64():
        experiment = Experiment(family(name, torch.float64), tiny.task(rows=2))
        found = head_parts(experiment, f"a{LAYER}.h{HEAD}")
        for side in (found.query_side, found.key_side):
            assert torch.allclose(side.sum(dim=1), found.scores, atol=1e-9)
            assert (side.abs().amax(dim=(0, 2)) > 1e-6).sum() >= 5
        assert torch.allclose(found.values.sum(dim=(1, 2)), found.direct, atol=1e-9)
        assert found.pairs.sum().item() == pytest.approx(
            found.scores.gather(1, found.keys[:, None]).mean().item(), abs=1e-9
        )
        bounded = "gemma2" in name
        assert any("bounds scores by 1.5" in note for note in found.notes) == bounded
        assert any("ALiBi" in note for note in found.notes) == (name in ("bloom", "falcon-alibi"))
        assert any("sink" in note for note in found.notes) == (name == "gpt_oss")


def test_what_the_head_writes_in_all_is_its_direct_effect_on_the_answers():
    model, task = tiny.gpt2(dtype=torch.float64), tiny.task()
    experiment, prompts = Experiment(model, task), task.prompts
    found = head_parts(experiment, "a1.h1")
    run = oracle.Source(model, prompts.clean, prompts.mask)
    stream = sum(run.embedding(False))
    heads, constant = run.heads(0, *[[stream] * 4] * 3)
    stream = stream + sum(heads) + constant
    stream = stream + run.mlp(0, stream)
    heads, _ = run.heads(1, *[[stream] * 4] * 3)
    norm, here = model.source.transformer.ln_f, (prompts.scored_rows, prompts.scored_positions)
    final = []
    run.run((norm, True, lambda x: final.append(x.clone())))
    scale = (final[0].var(dim=-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
    written = (heads[1] - heads[1].mean(dim=-1, keepdim=True)) * scale * norm.weight
    logits = (written @ model.source.lm_head.weight.T)[here]
    right, wrong = (logits.gather(1, ids).mean(dim=1) for ids in (prompts.answers, prompts.wrong))
    assert torch.allclose(found.direct, right - wrong, atol=1e-10)
    assert found.direct.abs().min() > 1e-4


def test_positions_of_ones_own():
    model, task = tiny.llama(dtype=torch.float64), tiny.task(rows=3)
    experiment = Experiment(model, task)
    found = head_parts(experiment, "a2.h1", query=3, key=1)
    assert found.queries.tolist() == [3, 3, 3]
    assert found.keys.tolist() == [1, 1, 1]
    assert found.rows.tolist() == [0, 1, 2]
    assert found.values is None
    assert found.seen.sum(dim=1).tolist() == [4, 4, 4]
    assert found.pairs.sum().item() == pytest.approx(found.scores[:, 1].mean().item(), abs=1e-6)
    usual = head_parts(experiment, "a2.h1")
    assert usual.queries.tolist() == task.prompts.scored_positions.tolist()
    assert usual.keys.tolist() == usual.pattern.argmax(dim=1).tolist()
    assert not torch.equal(usual.pairs, found.pairs)


def test_in_pieces_of_rows_it_is_the_same():
    model, task = tiny.llama(dtype=torch.float64), tiny.task(rows=5)
    experiment = Experiment(model, task)
    whole = head_parts(experiment, "a2.h1")
    experiment.row_bytes = 1
    again = head_parts(experiment, "a2.h1")
    for name in ("scores", "pairs", "above_mean", "values", "key_side"):
        assert torch.allclose(getattr(whole, name), getattr(again, name), atol=1e-6)
    assert whole.rows.tolist() == again.rows.tolist() == [0, 1, 2, 3, 4]


def test_the_answer_is_compared_with_all_where_there_are_no_wrong_ones():
    model = load_model("tiny-induction")
    task = load_task("induction", model, examples=4)
    assert task.prompts.wrong is None
    found = head_parts(Experiment(model, task), "a1.h0")
    assert len(found.direct) == len(task.prompts.scored_rows)
    assert torch.allclose(found.values.sum(dim=(1, 2)), found.direct, atol=1e-4)
    numbers = load_model("tracr-reverse")
    found = head_parts(Experiment(numbers, load_task("tracr-reverse", numbers)), "a3.h0")
    assert found.values is None


class ByPower(torch.nn.Module):
    """A norm whose root is written as a power."""

    def forward(self, x):
        return x * (x.square().mean(dim=-1, keepdim=True) + 1e-5) ** -0.5


def test_a_norm_whose_scale_cannot_be_held_is_refused():
    model = tiny.llama(dtype=torch.float64)
    experiment = Experiment(model, tiny.task())
    for component in model.components:
        if component.kinds != ("mlp",):
            object.__setattr__(component, "norm", ByPower())
    with pytest.raises(EdgewiseError, match=r"do not add up to them .* a norm whose scale edgewise cannot hold"):
        head_parts(experiment, "a1.h1")


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("m1", {}, "'m1' is not a head, so it has no attention scores"),
        ("input", {}, "'input' is not a head"),
        ("a1.h7", {}, "has no node 'a1.h7'"),
        ("a1.h1<q>", {}, "is a place where a head reads, not a node"),
        ("a1.h1", {"query": 5}, "position 5 is not there in every prompt; the shortest has 4 tokens, 0 to 3"),
        ("a1.h1", {"query": -1}, "position -1 is not there in every prompt"),
        ("a1.h1", {"query": 2, "key": 3}, "the token at position 2 of prompt 1 does not see position 3"),
        ("a1.h1", {"key": 99}, "does not see position 99"),
    ],
)
def test_what_is_not_there_is_refused(head, options, message):
    experiment = Experiment(tiny.gpt2(), tiny.task())
    with pytest.raises(EdgewiseError, match=message):
        head_parts(experiment, head, **options)


def test_too_much_to_hold_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules[head_parts.__module__], "MOST_BYTES", 1000)
    with pytest.raises(EdgewiseError, match=r"would take .*; use fewer prompts"):
        head_parts(Experiment(tiny.gpt2(), tiny.task()), "a1.h1")


def test_a_head_of_the_first_layer_reads_the_embedding_alone():
    experiment = Experiment(tiny.gpt2(), tiny.task())
    found = head_parts(experiment, "a0.h0")
    assert found.parts == ("input", "constants", "bias")
    assert found.scores.shape == experiment.task.prompts.clean.shape
    assert not found.pairs[1].any()
    split = head_parts(Experiment(tiny.gpt2(), tiny.task(split_embedding=True)), "a0.h0")
    assert split.parts == ("tok", "pos", "constants", "bias")
    assert torch.allclose(split.pairs[:2].sum(dim=0)[2:], found.pairs[0, 1:], atol=1e-4)
