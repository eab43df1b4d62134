"""What a circuit means, read off the source model alone.

Heads, MLPs and norms are the source model's own modules, run inside the source model with hooks that put something else
in: queries, keys and values that each come from a stream of their own, another input of an MLP, another final stream.
Of edgewise's reading only the names of modules are used, so that nothing it computes can hide in here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgewise.graph import Circuit, Graph, NeuronCircuit, OutputCircuit
from edgewise.models import Decoder
from edgewise.models.attention import Attention
from edgewise.models.components import MLP
from edgewise.patching import Experiment
from edgewise.patching.running import circuit_run
from edgewise.tasks import Prompts


class Source:
    """A source model on some prompts."""

    def __init__(self, model: Decoder, tokens: Tensor, mask: Tensor) -> None:
        self.model, self.tokens, self.mask = model, tokens, mask
        self.positions = torch.arange(tokens.shape[1])[None]
        self.attention = [one for one in model.components if isinstance(one, Attention)]
        self.mlps = [one for one in model.components if isinstance(one, MLP)]
        self.head, self.shared = self.attention[0].n_heads, self.attention[0].n_kv_heads

    def run(self, *hooks: tuple[nn.Module, bool, Callable[[Any], Any]]) -> Tensor:
        """Logits, with hooks (module, whether on what it reads, function) that see and may replace."""
        with ExitStack() as stack:
            for module, reads, function in hooks:
                if reads:

                    def before(_: Any, given: Any, named: Any, function: Any = function) -> Any:
                        key = None if given else next(iter(named))
                        new = function(given[0] if given else named[key])
                        if new is None:
                            return None
                        return ((new, *given[1:]), named) if given else (given, {**named, key: new})

                    handle = module.register_forward_pre_hook(before, with_kwargs=True)
                else:

                    def after(_: Any, __: Any, out: Any, function: Any = function) -> Any:
                        new = function(out if isinstance(out, Tensor) else out[0])
                        return new if new is None or isinstance(out, Tensor) else (new, *out[1:])

                    handle = module.register_forward_hook(after)
                stack.callback(handle.remove)
            return self.model.run_source(self.tokens, self.mask, self.positions)

    def _shaped(self, x: Tensor) -> Tensor:
        return x.reshape(*self.tokens.shape, -1)

    def heads(self, layer: int, q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """What each head adds, and what belongs to none, if heads (key/value heads) read these streams."""
        component = self.attention[layer]
        source, seen = component.source, {}
        (attention,) = [one for one in self.model.source.modules() if source.projection in one.children()]
        norm = (lambda x: x) if source.norm is attention else source.norm
        hooks = []
        latent = self._latent(attention, source.norm, k, v) if hasattr(attention, "expand_kv") else None
        for module, make, own in _projections(attention, self.head, self.shared):
            together = None
            for kind, streams in (("q", q), ("k", k), ("v", v)):
                for number, stream in enumerate(streams):
                    made = make(norm(stream))
                    together = torch.zeros_like(made) if together is None else together
                    columns = own(kind, number, made.shape[-1])
                    together[..., columns] = made[..., columns]
            hooks.append((module, False, lambda _, together=together: together))
        hooks.append((source.projection, True, lambda x: seen.__setitem__("z", x.clone())))
        hooks.append((source.projection, False, lambda x: seen.__setitem__("sum", x.clone())))
        hooks.append((source.block, False, lambda x: seen.__setitem__("added", x.clone())))
        with pytest.MonkeyPatch.context() as patch:
            if latent is not None:
                patch.setattr(attention, "expand_kv", lambda *_: latent)
            self.run(*hooks)
        z = seen["z"].flatten(2).unflatten(-1, (self.head, -1))
        projection = source.projection
        weight = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
        weight = weight.unflatten(0, (self.head, -1))
        bias = 0 * weight[0, 0] if projection.bias is None else projection.bias
        written = [z[:, :, head] @ weight[head] for head in range(self.head)]
        assert torch.allclose(sum(written) + bias, self._shaped(seen["sum"]))
        if source.block in (attention, projection) or component.after is None:  # no norm behind it
            return [one * source.factor for one in written], bias * source.factor
        # A norm multiplies every number of its input by something; each head's part of the sum by the same.
        gain = seen["added"] / seen["sum"]
        return [gain * (one + bias / self.head) for one in written], 0 * bias

    def _latent(self, attention: Any, norm: nn.Module, k: list[Tensor], v: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values `[batch, heads, pos, width]` that latent attention expands each head's stream to."""
        expand, found = attention.expand_kv, []
        with pytest.MonkeyPatch.context() as patch:
            for stream in (*k, *v):
                patch.setattr(attention, "expand_kv", lambda *given: found.append(expand(*given)) or found[-1])
                self.run((norm, True, lambda _, stream=stream: stream))
        keys, values = found[: len(k)], found[len(k) :]
        return (
            torch.stack([one[0][:, head] for head, one in enumerate(keys)], dim=1),
            torch.stack([one[1][:, head] for head, one in enumerate(values)], dim=1),
        )

    def mlp(self, layer: int, stream: Tensor) -> Tensor:
        """What an MLP adds if it reads this stream."""
        source, seen = self.mlps[layer].source, {}
        self.run(
            (source.norm, True, lambda x: stream.reshape(x.shape)),
            (source.block, False, lambda x: seen.__setitem__("added", x.clone())),
        )
        return self._shaped(seen["added"]) * source.factor

    def neurons(self, layer: int, stream: Tensor) -> tuple[Tensor, Tensor]:
        """What each hidden unit of an MLP adds, `[batch, pos, neurons, d_model]`, and what belongs to none."""
        source, seen = self.mlps[layer].source, {}
        outputs = [one for name, one in self.model.source.named_modules() if _OUT_OF_NEURONS.search(name)]
        projection = outputs[layer]
        self.run(
            (source.norm, True, lambda x: stream.reshape(x.shape)),
            (projection, True, lambda x: seen.__setitem__("hidden", x.clone())),
            (projection, False, lambda x: seen.__setitem__("sum", x.clone())),
            (source.block, False, lambda x: seen.__setitem__("added", x.clone())),
        )
        hidden, total, added = (self._shaped(seen[name]) for name in ("hidden", "sum", "added"))
        weight = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
        bias = 0 * weight[0] if projection.bias is None else projection.bias
        written = hidden[..., None] * weight
        assert torch.allclose(written.sum(dim=2) + bias, total)
        if not torch.equal(added, total):  # a norm stands behind it, which multiplies every number of the sum
            assert not bias.any()
            written = (added / total)[:, :, None] * written
        return written * source.factor, bias * source.factor

    def logits(self, final: Tensor) -> Tensor:
        """Logits if this is the final stream."""
        return self.run((self.model.source_norm or self.model.final_norm, True, lambda x: final))

    def embedding(self, split: bool) -> list[Tensor]:
        parts = list(self.model.embed_parts(self.tokens, self.positions))
        return parts if split else [sum(parts[1:], parts[0])]


_OUT_OF_NEURONS = re.compile(r"(mlp\.(c_proj|fc_out|dense_4h_to_h|fc2|down_proj)|layers\.\d+\.fc2)$")
"""What the families call an MLP's map out of its hidden layer."""


def _projections(
    attention: Any, heads: int, shared: int
) -> list[tuple[nn.Module, Callable[[Tensor], Tensor], Callable[..., slice]]]:
    """The modules that make queries, keys and values, how of a stream, and which of their columns are a head's."""
    nothing = slice(0, 0)
    if hasattr(attention, "kv_b_proj"):

        def query(kind: str, head: int, width: int) -> slice:
            return slice(head * width // heads, (head + 1) * width // heads) if kind == "q" else nothing

        def compressed(x: Tensor) -> Tensor:
            return attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(x)))

        whole = attention.q_lora_rank is None
        return [(attention.q_proj, attention.q_proj, query) if whole else (attention.q_b_proj, compressed, query)]
    if hasattr(attention, "q_proj"):
        found = []
        for letter, count in (("q", heads), ("k", shared), ("v", shared)):

            def own(kind: str, head: int, width: int, letter: str = letter, count: int = count) -> slice:
                each = width // count
                return slice(head * each, (head + 1) * each) if kind == letter else nothing

            module = getattr(attention, f"{letter}_proj")
            found.append((module, module, own))
        return found
    name = next(one for one in ("c_attn", "qkv_proj", "query_key_value") if hasattr(attention, one))

    def fused(kind: str, head: int, width: int) -> slice:
        each, share = width // (heads + 2 * shared), heads // shared
        if name == "query_key_value":
            group, place = (head // share, head % share) if kind == "q" else (head, share + "kv".index(kind))
            start = group * (share + 2) + place
        else:
            start = {"q": 0, "k": heads, "v": heads + shared}[kind] + head
        return slice(start * each, (start + 1) * each)

    return [(getattr(attention, name), getattr(attention, name), fused)]


def _outputs(source: Source, graph: Graph, noise: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """What every node adds in the source model's own run, in the graph's order, and each layer's constant.

    `noise` `[batch, pos, d_model]` is added to the embeddings of the tokens.
    """
    outputs = source.embedding(graph.split_embedding)
    if noise is not None:
        outputs[0] = outputs[0] + noise
    stream, constants = sum(outputs), []
    for layer in range(graph.n_layers):
        heads, constant = source.heads(
            layer, [stream] * source.head, [stream] * source.shared, [stream] * source.shared
        )
        constants.append(constant)
        after = stream + sum(heads) + constant
        mlp = [source.mlp(layer, stream if graph.parallel else after)] if graph.mlps else []
        outputs += heads + mlp
        stream = after + sum(mlp)
    return outputs, constants


def oracle_logits(experiment: Experiment, circuit: Circuit) -> Tensor:
    """The logits of a circuit at the scored places, one input and one sender at a time."""
    model, graph, prompts = experiment.decoder, circuit.graph, experiment.task.prompts
    clean = Source(model, prompts.clean, prompts.mask)
    ablated, constants = _ablated(experiment, graph)

    def stream(name: str) -> Tensor:
        """What is read at an input, at the positions of each of its spans by the edges that it has there."""
        if not graph.spans:
            return stream_at(name)
        by_span = [stream_at(f"{name}@{span}") for span in graph.spans]
        return torch.stack(by_span).gather(0, numbers[None, ..., None].expand(1, *by_span[0].shape))[0]

    def stream_at(name: str) -> Tensor:
        place, column = graph.input(name), graph.input_index[name]
        before = graph.n_layers if place.kind == "logits" else place.layer
        before += place.kind == "mlp" and not graph.parallel
        total = sum(constants[:before], torch.zeros_like(outputs[0]))
        read = not (graph.port_edges[column] and not circuit.ports[column])
        for row in range(graph.n_senders(place)):
            total = total + torch.where(read & carried(row, column), outputs[row], ablated[row])
        return total

    def carried(row: int, column: int) -> Tensor:
        """In which dimensions, `[d_model]` or one for all, an edge carries what its sender writes in this run."""
        there = torch.tensor([bool(circuit.edges[row, column])])
        if not isinstance(circuit, OutputCircuit):
            return there
        there = there & torch.from_numpy(circuit.outputs[row].copy())
        return ~there if circuit.inverted else there

    outputs = clean.embedding(graph.split_embedding)
    numbers = None if prompts.spans is None else prompts.spans.clamp_min(0)
    letter = "g" if graph.n_kv_heads < graph.n_heads else "h"
    for layer in range(graph.n_layers):
        if graph.whole_heads:
            q = k = v = [stream(f"a{layer}.h{head}") for head in range(graph.n_heads)]
        else:
            q = [stream(f"a{layer}.h{head}<q>") for head in range(graph.n_heads)]
            k, v = ([stream(f"a{layer}.{letter}{head}<{kind}>") for head in range(graph.n_kv_heads)] for kind in "kv")
        heads, _ = clean.heads(layer, q, k, v)
        outputs += heads
        if graph.mlps:
            outputs.append(clean.mlp(layer, stream(f"m{layer}")))
    return clean.logits(stream("logits"))[prompts.scored_rows, prompts.scored_positions]


def _ablated(experiment: Experiment, graph: Graph) -> tuple[list[Tensor], list[Tensor]]:
    """What every node carries where it is ablated, and each layer's constant."""
    model, prompts, ablation = experiment.decoder, experiment.task.prompts, experiment.ablation
    shape, clean = (*prompts.clean.shape, -1), ablation in ("mean-clean", "noise")
    tokens, mask = (prompts.clean, prompts.mask) if clean else (prompts.corrupt, prompts.corrupt_mask)
    if experiment.carried.over is not None:
        tokens, mask = experiment.carried.over.tokens, experiment.carried.over.mask
    source = Source(model, tokens, mask)
    noise = noise_of(source, prompts, experiment.carried.seed) if ablation == "noise" else None
    outputs, constants = _outputs(source, graph, noise)
    if ablation == "zero":
        outputs = [torch.zeros_like(one) for one in outputs]
    if ablation in ("mean", "mean-clean"):
        outputs = [one[mask].mean(dim=0).expand(shape) for one in outputs]
    if ablation == "optimal":  # what was learned is given; how a head's value reaches the stream is tested elsewhere
        learned = experiment.carried.constants
        assert learned is not None
        outputs = list(learned.embedding)
        for component, code in zip(model.components, learned.codes, strict=True):
            outputs += list(component.write(code[None, None])[0, 0])
        outputs = [one.expand(shape) for one in outputs]
    return outputs, constants


def noise_of(source: Source, prompts: Prompts, seed: int) -> Tensor:
    """Noise on the embedding, token by token: of three standard deviations, where the corrupted prompt differs.

    On every token where no token of any pair does, or where pairs are of two lengths.
    """
    places = [
        (row, at) for row, at in prompts.mask.nonzero().tolist() if prompts.clean[row, at] != prompts.corrupt[row, at]
    ]
    if not places or not torch.equal(prompts.mask, prompts.corrupt_mask):
        places = prompts.mask.nonzero().tolist()
    tokens = source.model.embed_parts(source.tokens, source.positions)[0]
    numbers = torch.cat([tokens[row, at] for row, at in places])
    sigma = 3 * ((numbers - numbers.mean()) ** 2).sum().div(len(numbers) - 1).sqrt()
    generator, noise = torch.Generator().manual_seed(seed), torch.zeros_like(tokens)
    for row in range(len(tokens)):
        mine = [at for other, at in places if other == row]
        if mine:
            drawn = torch.randn(len(mine), tokens.shape[-1], generator=generator, dtype=torch.float64)
            for at, one in zip(mine, drawn, strict=True):
                noise[row, at] = sigma * one
    return noise


def random_circuit(graph: Graph, seed: int, share: float) -> Circuit:
    """Every edge with a chance of `share`, port edges with one of at least 0.7."""
    generator = np.random.default_rng(seed)
    edges = graph.edges & (generator.random(graph.edges.shape) < share)
    return Circuit(graph, edges, graph.port_edges & (generator.random(len(graph.inputs)) < max(share, 0.7)))


def mask_gradients(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Minus the metric's gradient in every edge and port of a circuit run that has all of them."""
    graph, prompts = experiment.graph, experiment.task.prompts
    edges = torch.ones(len(graph.sources), len(graph.inputs), dtype=torch.float64, requires_grad=True)
    ports = torch.ones(len(graph.inputs), dtype=torch.float64, requires_grad=True)
    final = circuit_run(
        experiment.decoder,
        graph,
        prompts.clean,
        prompts.mask,
        experiment.ablated_activations,
        torch.where(torch.from_numpy(graph.edges.copy()), edges, 0.0),
        ports,
        prompts.spans,
    )
    logits = experiment.decoder.logits(final[prompts.scored_rows, prompts.scored_positions])
    value = experiment.metric(logits, experiment.reference).mean()
    found = torch.autograd.grad(value, (edges, ports), allow_unused=True)
    return tuple(-(one if one is not None else torch.zeros(len(graph.inputs))).numpy() for one in found)


def neuron_logits(experiment: Experiment, circuit: NeuronCircuit) -> Tensor:
    """The logits of a circuit of neurons at the scored places, every neuron's output written out by itself."""
    graph, prompts = experiment.graph, experiment.task.prompts
    clean = Source(experiment.decoder, prompts.clean, prompts.mask)
    ablated = _ablated_neurons(experiment)
    present = torch.from_numpy(circuit.neurons.copy())[:, :, None]

    def mixed(layer: int, own: Tensor) -> Tensor:
        return torch.where(present[layer], own, ablated[layer])

    return clean.logits(_through(clean, graph, mixed))[prompts.scored_rows, prompts.scored_positions]


def _through(
    source: Source, graph: Graph, neurons: Callable[[int, Tensor], Tensor], noise: Tensor | float = 0.0
) -> Tensor:
    """The final stream of the source model's own run, in which MLPs write what `neurons` makes of each of theirs."""
    stream = sum(source.embedding(False)) + noise
    for layer in range(graph.n_layers):
        heads, constant = source.heads(
            layer, [stream] * source.head, [stream] * source.shared, [stream] * source.shared
        )
        after = stream + sum(heads) + constant
        own, bias = source.neurons(layer, stream if graph.parallel else after)
        stream = after + neurons(layer, own).sum(dim=2) + bias
    return stream


def _ablated_neurons(experiment: Experiment) -> list[Tensor]:
    """What every neuron carries where it is ablated, by layer: `[batch or 1, pos or 1, neurons, d_model]`."""
    model, prompts, ablation = experiment.decoder, experiment.task.prompts, experiment.ablation
    if ablation == "optimal":  # what was learned is given, a number for each neuron
        learned = experiment.carried.constants
        assert learned is not None
        pairs = [pair for pair in zip(model.components, learned.codes, strict=True) if isinstance(pair[0], MLP)]
        return [component.write(torch.diag(code[0])[None, None]) for component, code in pairs]
    of_clean = ablation in ("mean-clean", "noise")
    tokens, mask = (prompts.clean, prompts.mask) if of_clean else (prompts.corrupt, prompts.corrupt_mask)
    source, found = Source(model, tokens, mask), []
    noise = noise_of(source, prompts, experiment.carried.seed) if ablation == "noise" else 0.0
    _through(source, experiment.graph, lambda layer, own: found.append(own) or own, noise)
    if ablation == "zero":
        return [torch.zeros_like(one) for one in found]
    if ablation in ("mean", "mean-clean"):
        return [one[mask].mean(dim=0)[None, None] for one in found]
    if ablation == "mean-positional":
        return [one.mean(dim=0, keepdim=True) for one in found]
    return found
