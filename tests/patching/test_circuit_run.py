"""What a circuit run means, against a naive reading of its definition and against whole runs."""

from itertools import product

import pytest
import tiny
import torch
from oracle import random_circuit

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models import load_model
from edgewise.models.decoder import positions_of
from edgewise.patching import ABLATIONS, Experiment, ablate, circuit_run
from edgewise.tasks import load_task

RELATIVE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 0.15}
ALL_KINDS = ("gpt2", "llama", "parallel")
EVERY_ABLATION = [name for name in ABLATIONS if name != "mean-positional"]


def scored(logits, prompts):
    return logits[prompts.scored_rows, prompts.scored_positions]


def source_run(model, tokens, mask):
    return model.run_source(tokens, mask, positions_of(tokens)).double()


def close(ours, wanted, dtype):
    assert wanted.abs().max() > 0.1
    return (ours.double() - wanted.double()).abs().max() <= RELATIVE[dtype] * wanted.abs().max()


@pytest.mark.parametrize(
    ("family", "dtype", "ablation", "ports"),
    tiny.slow_unless(
        lambda family, dtype, ablation, ports: ablation == "resample" or (dtype == torch.float64 and ports),
        product(tiny.FAMILIES, RELATIVE, EVERY_ABLATION, (True, False)),
    ),
)
def test_all_edges_present_is_the_model(family, dtype, ablation, ports):
    model, task = tiny.FAMILIES[family](dtype=dtype), tiny.task()
    experiment = Experiment(model, task, ablation=ablation, ports=ports)
    wanted = scored(source_run(model, task.prompts.clean, task.prompts.mask), task.prompts)
    assert close(experiment.logits(Circuit.full(experiment.graph)), wanted, dtype)


@pytest.mark.parametrize("ports", [True, False])
@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_edge_present_is_the_corrupted_run_under_resampling(family, dtype, ports):
    model, task = tiny.FAMILIES[family](dtype=dtype), tiny.task()
    experiment = Experiment(model, task, ablation="resample", ports=ports)
    wanted = scored(source_run(model, task.prompts.corrupt, task.prompts.mask), task.prompts)
    assert close(experiment.logits(Circuit.empty(experiment.graph)), wanted, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama-with-biases", "plain", "plain-attention-only"])
def test_no_edge_present_leaves_only_biases_that_no_node_owns_under_zero_ablation(family, dtype):
    model, task = tiny.FAMILIES[family](dtype=dtype), tiny.task()
    experiment = Experiment(model, task, ablation="zero")
    constants = sum(layer.bias for layer in tiny.layers_of(model)).expand(len(task), -1)
    assert constants.abs().max() > 0.1
    assert close(experiment.logits(Circuit.empty(experiment.graph)), model.logits(constants), dtype)


@pytest.mark.parametrize("family", ["gpt2", "llama", "plain"])
def test_no_edge_present_leaves_mean_activations_under_mean_ablation(family):
    model, task = tiny.FAMILIES[family](dtype=torch.float64), tiny.task(paired=False)
    kept = []
    for layer_index in range(model.config.n_layers):
        kept.append(_block_outputs(model, task.prompts.corrupt, task.prompts.corrupt_mask, layer_index))
    real = task.prompts.corrupt_mask
    embedding = model.embed(task.prompts.corrupt)[0][real].mean(dim=0)
    final = embedding + sum(output[real].mean(dim=0) for pair in kept for output in pair)
    experiment = Experiment(model, task, ablation="mean")
    wanted = model.logits(final.expand(len(task), -1))
    assert close(experiment.logits(Circuit.empty(experiment.graph)), wanted, torch.float64)


def _block_outputs(model, tokens, mask, index):
    """What attention and MLP of a layer add to the residual stream in the source model, biases included."""
    caught = {}
    if model.config.architecture == "transformer-lens":
        block = model.source.blocks[index]
        parts = (block.attn, block.mlp)
    else:
        body = model.source.transformer.h if model.config.architecture == "gpt2" else model.source.model.layers
        block = body[index]
        parts = (block.attn if model.config.architecture == "gpt2" else block.self_attn, block.mlp)
    handles = [
        part.register_forward_hook(lambda _, __, out, number=number: caught.__setitem__(number, out))
        for number, part in enumerate(parts)
    ]
    source_run(model, tokens, mask)
    for handle in handles:
        handle.remove()
    return tuple(out[0] if isinstance(out, tuple) else out for out in (caught[0], caught[1]))


def naive_logits(model, experiment, circuit):
    """Design section 4, read word by word: one node, one input and one sender at a time."""
    graph, prompts, layers = circuit.graph, experiment.task.prompts, tiny.layers_of(model)
    ablated = ablate(model, prompts, experiment.carried, experiment.task.split_embedding)
    positions, allowed = positions_of(prompts.clean), tiny.first_allowed(model, prompts.mask)
    ablated_z, ablated_mlp = tiny.by_layer(model, ablated.codes)
    share = model.config.n_heads // graph.n_kv_heads if graph.n_kv_heads < model.config.n_heads else 1
    model_share = model.config.n_heads // model.config.n_kv_heads

    def ablated_output(node, row):
        if node.kind == "head":
            return layers[node.layer].write(ablated_z[node.layer])[:, :, node.head]
        return ablated_mlp[node.layer][:, :, 0] if node.kind == "mlp" else ablated.embedding[row]

    def constants(place):
        layers_before = graph.n_layers if place.kind == "logits" else place.layer
        if place.kind == "mlp" and not graph.parallel:
            layers_before += 1
        return sum((layers[index].bias for index in range(layers_before)), torch.zeros_like(layers[0].bias))

    def stream(column, only_ablated=False):
        place = graph.inputs[column]
        total = constants(place).expand(*prompts.clean.shape, -1).clone()
        for row in range(graph.n_senders(place)):
            present = circuit.edges[row, column] and not only_ablated
            total = total + (outputs[row] if present else ablated_output(graph.sources[row], row))
        return total

    def head_part(layer, kind, column, kv_head, head):
        port_absent = graph.ports and not circuit.ports[column]
        x = stream(column, only_ablated=port_absent)[:, :, None]
        if kind == "q":
            return layer.query(x, positions)[:, :, head]
        return (layer.key(x, positions) if kind == "k" else layer.value(x))[:, :, kv_head]

    embedding = model.embed(prompts.clean, split=graph.split_embedding)
    outputs = list(embedding)
    for node in graph.sources[graph.n_embeddings :]:
        layer = layers[node.layer]
        if node.kind == "mlp":
            outputs.append(layer.mlp(stream(graph.input_index[node.name])))
            continue
        letter = "g" if share > 1 else "h"
        reads = node.head // share
        columns = [graph.input_index[f"{node.name}<q>"]]
        columns += [graph.input_index[f"a{node.layer}.{letter}{reads}<{kind}>"] for kind in ("k", "v")]
        q, k, v = (
            head_part(layer, kind, column, node.head // model_share, node.head)[:, :, None]
            for kind, column in zip("qkv", columns, strict=True)
        )
        z = layer.attend(q, k, v, allowed)
        outputs.append(z[:, :, 0] @ layer.output.weight[node.head])
    final = stream(len(graph.inputs) - 1)
    return model.logits(scored(final, prompts))


@pytest.mark.parametrize(
    ("family", "ports", "ablation"),
    tiny.slow_unless(
        lambda family, ports, ablation: (
            ablation == "resample" or (ports and (ablation == "zero" or family in ALL_KINDS))
        ),
        product(tiny.FAMILIES, (True, False), EVERY_ABLATION),
    ),
)
def test_any_circuit_runs_as_the_definition_says(family, ports, ablation):
    model = tiny.FAMILIES[family](dtype=torch.float64)
    for seed, share in ((0, 0.3), (1, 0.8)):
        split = model.config.position_embedding and seed == 1
        experiment = Experiment(model, tiny.task(seed, split_embedding=split), ablation=ablation, ports=ports)
        circuit = random_circuit(experiment.graph, seed, share)
        wanted = naive_logits(model, experiment, circuit)
        assert close(experiment.logits(circuit), wanted, torch.float64)
        far = experiment.logits(Circuit.full(experiment.graph))
        assert not torch.allclose(wanted, far, atol=1e-3), "the circuit should differ from the model"


def test_a_graph_with_a_key_and_value_input_per_query_head_runs_as_the_definition_says():
    model = tiny.llama(dtype=torch.float64)
    graph = model.graph(ungroup=True)
    assert graph.n_kv_heads == 4
    experiment = Experiment(model, tiny.task(), graph=graph)
    circuit = random_circuit(graph, 5, 0.5)
    assert close(experiment.logits(circuit), naive_logits(model, experiment, circuit), torch.float64)


def test_shared_edges_mean_the_same_as_one_edge_per_query_head():
    model, task = tiny.llama(dtype=torch.float64), tiny.task()
    shared = Experiment(model, task, ports=False)
    circuit = random_circuit(shared.graph, 3, 0.6)
    per_head = Experiment(model, task, graph=model.graph(ports=False, ungroup=True))
    names = []
    for name in circuit.names():
        group = name.split("->")[1]
        if ".g" in group:
            number = int(group.split(".g")[1].split("<")[0])
            names += [name.replace(f".g{number}<", f".h{head}<") for head in (2 * number, 2 * number + 1)]
        else:
            names.append(name)
    assert len(names) > len(circuit.names())
    expanded = Circuit.from_names(per_head.graph, names)
    assert close(per_head.logits(expanded), shared.logits(circuit), torch.float64)


def test_edges_outside_any_path_change_nothing():
    model, task = tiny.gpt2(dtype=torch.float64), tiny.task()
    experiment = Experiment(model, task)
    circuit = random_circuit(experiment.graph, 8, 0.15)
    connected = circuit.connected()
    assert connected.n_edges < circuit.n_edges
    assert close(experiment.logits(connected), experiment.logits(circuit), torch.float64)


def test_running_in_pieces_gives_the_same():
    model, task = tiny.llama(dtype=torch.float64), tiny.task(rows=5)
    whole = Experiment(model, task)
    circuit = random_circuit(whole.graph, 1, 0.5)
    wanted = whole.logits(circuit)
    whole.row_bytes = 1
    assert whole.rows_at_once() == 1
    assert torch.allclose(whole.logits(circuit), wanted, atol=1e-10)


def test_soft_masks_lie_between_and_have_the_gradient_of_finite_differences():
    model, task = tiny.gpt2(dtype=torch.float64, layers=2, heads=2), tiny.task()
    graph = model.graph()
    prompts = task.prompts
    ablated = ablate(model, prompts, "resample", False)
    torch.manual_seed(0)
    edges = torch.from_numpy(graph.edges.copy()).double() * torch.rand(graph.edges.shape, dtype=torch.float64)
    ports = torch.from_numpy(graph.port_edges.copy()).double() * torch.rand(len(graph.inputs), dtype=torch.float64)

    def loss(edges, ports):
        final = circuit_run(model, graph, prompts.clean, prompts.mask, ablated, edges, ports)
        return scored(final, prompts).pow(2).sum()

    edges.requires_grad_()
    ports.requires_grad_()
    loss(edges, ports).backward()
    assert edges.grad is not None
    assert ports.grad is not None
    step = 1e-6
    for tensor, gradient, entries in (
        (edges, edges.grad, [(0, 0), (1, len(graph.inputs) - 1), (2, graph.input_index["m0"]), (3, 9)]),
        (ports, ports.grad, [(0,), (3,), (9,)]),
    ):
        for entry in entries:
            up, down = tensor.detach().clone(), tensor.detach().clone()
            up[entry] += step
            down[entry] -= step
            pair = [(up, ports), (down, ports)] if tensor is edges else [(edges, up), (edges, down)]
            with torch.no_grad():
                difference = (loss(*pair[0]) - loss(*pair[1])) / (2 * step)
            assert gradient[entry] == pytest.approx(difference.item(), rel=1e-4, abs=1e-7)
    assert edges.grad[0].abs().sum() > 0.1
    assert ports.grad.abs().sum() > 0.01


def test_a_soft_mask_of_zeros_and_ones_is_the_hard_one():
    model, task = tiny.llama(dtype=torch.float64), tiny.task()
    experiment = Experiment(model, task)
    circuit = random_circuit(experiment.graph, 4, 0.5)
    prompts, ablated = task.prompts, ablate(model, task.prompts, "resample", False)
    edges, ports = torch.from_numpy(circuit.edges.copy()), torch.from_numpy(circuit.ports.copy())
    final = circuit_run(model, circuit.graph, prompts.clean, prompts.mask, ablated, edges.double(), ports.double())
    assert close(model.logits(scored(final, prompts)), experiment.logits(circuit), torch.float64)


def test_resampling_refuses_pairs_of_different_length_and_mean_does_not():
    model, task = tiny.gpt2(), tiny.task(paired=False)
    with pytest.raises(EdgewiseError, match="pair 1 has 6 and 1 tokens"):
        Experiment(model, task, ablation="resample")
    for ablation in ("mean", "zero"):
        assert Experiment(model, task, ablation=ablation).ablated() > 0.01


def test_positional_means_need_prompts_of_one_length():
    model = tiny.gpt2(dtype=torch.float64)
    with pytest.raises(EdgewiseError, match="these have 4 to 6 tokens"):
        Experiment(model, tiny.task(), ablation="mean-positional")
    task = tiny.task(ragged=False)
    experiment = Experiment(model, task, ablation="mean-positional")
    assert experiment.ablated() > 0.01
    kept = [_block_outputs(model, task.prompts.corrupt, task.prompts.mask, index) for index in range(3)]
    final = model.embed(task.prompts.corrupt)[0].mean(dim=0) + sum(out.mean(dim=0) for pair in kept for out in pair)
    wanted = model.logits(final[-1].expand(len(task), -1))
    assert close(experiment.logits(Circuit.empty(experiment.graph)), wanted, torch.float64)


def test_resampling_refuses_prompts_that_are_all_alike():
    model = load_model("or-gate")
    with pytest.raises(EdgewiseError, match="are the same"):
        Experiment(model, load_task("or-gate", model), ablation="resample")


def test_a_circuit_of_another_graph_is_refused():
    model = tiny.gpt2()
    experiment = Experiment(model, tiny.task())
    with pytest.raises(EdgewiseError, match="over another graph: 3 layers of 4 heads, where"):
        experiment.logits(Circuit.full(model.graph(ports=False)))
    with pytest.raises(EdgewiseError, match="over another graph: 2 layers"):
        Experiment(model, tiny.task(), graph=tiny.gpt2(layers=2).graph())


def test_a_users_own_metric_is_used_and_is_zero_for_no_change():
    def half_norm(logits, reference):
        return (logits - reference.logits).norm(dim=-1) / 2

    experiment = Experiment(tiny.gpt2(dtype=torch.float64), tiny.task(), metric=half_norm)
    assert experiment.metric.name == "half_norm"
    assert experiment.full() == pytest.approx(0, abs=1e-9)
    assert experiment.ablated() > 0.1
