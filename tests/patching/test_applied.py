"""A circuit in place of a live model's forward pass: its logits are a circuit run's, and generation goes by them."""

import oracle
import peft
import pytest
import tiny
import torch
from family_models import CONFIGS, InFloat64, family

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, NeuronCircuit, complement, of_nodes
from edgewise.models import load_model
from edgewise.models.decoder import positions_of
from edgewise.patching import Ablation, Experiment
from edgewise.patching.applied import TextCircuit

TOKENS = torch.tensor([[5, 9, 2, 31, 8], [7, 7, 1, 30, 4]])


def random(model, seed=0, share=0.6, **kind):
    return oracle.random_circuit(model.graph(**kind), seed, share)


GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=-1)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_gives_the_circuits_logits(name):
    with InFloat64():
        model = family(name, torch.float64)
        task = tiny.task(list(CONFIGS).index(name), rows=2, longest=4)
        prompts, case = task.prompts, Experiment(model, task, ablation="zero")
        circuit = oracle.random_circuit(case.graph, 1, 0.6)
        with circuit.applied(model) as live:
            found = live(input_ids=prompts.clean, attention_mask=prompts.mask.long()).logits
        assert torch.allclose(found[prompts.scored_rows, prompts.scored_positions], case.logits(circuit), atol=1e-9)
        with Circuit.full(case.graph).applied(model) as live:
            every = live(input_ids=prompts.clean, attention_mask=prompts.mask.long()).logits
        own = live(input_ids=prompts.clean, attention_mask=prompts.mask.long()).logits
        assert torch.allclose(every[prompts.mask], own[prompts.mask], atol=1e-5)


def generates(name):
    """Greedily, by the circuit's own logits; by the whole graph as the model itself, which keeps a cache."""
    with InFloat64():
        model = family(name, torch.float64)
        circuit = random(model, 1)
        run, steps = TextCircuit(circuit, model), TOKENS[:, :3]
        for _ in range(2):
            steps = torch.cat((steps, run.logits(steps)[:, -1:].argmax(dim=-1)), dim=1)
        with circuit.applied(model) as live:
            on = live.generate(TOKENS[:, :3], max_new_tokens=2, **GREEDY)
        assert on.tolist() == steps.tolist()
        own = live.generate(TOKENS[:, :3], max_new_tokens=4, use_cache=True, **GREEDY)
        with Circuit.full(circuit.graph).applied(model):
            again = live.generate(TOKENS[:, :3], max_new_tokens=4, **GREEDY)
        assert own.tolist() == again.tolist()


@pytest.mark.parametrize("name", ["bloom", "gemma2", "deepseek_v2"])
def test_generation_goes_by_the_circuits_logits(name):
    generates(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_generation_of_every_family_goes_by_the_circuits_logits(name):
    generates(name)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_kind_of_layout_gives_the_circuits_logits(name):
    model, task = tiny.FAMILIES[name](dtype=torch.float64), tiny.task(3)
    prompts, case = task.prompts, Experiment(model, task, ablation="zero")
    circuit = oracle.random_circuit(case.graph, 2, 0.7)
    for chosen in (circuit, Circuit.full(case.graph), Circuit.empty(case.graph)):
        with chosen.applied(model, "zero") as live:
            found = live(prompts.clean, attention_mask=prompts.mask)
        found = getattr(found, "logits", found)[prompts.scored_rows, prompts.scored_positions]
        assert torch.allclose(found, case.logits(chosen), atol=1e-9)
    own = model.run_source(prompts.clean, prompts.mask, positions_of(prompts.clean))
    assert torch.allclose(TextCircuit(Circuit.full(case.graph), model).logits(prompts.clean)[0], own[0], atol=1e-9)


def test_it_is_what_the_source_models_own_modules_say():
    model, task = tiny.gpt2(layers=2, dtype=torch.float64), tiny.task(1, rows=2)
    case = Experiment(model, task, ablation="resample")
    circuit = oracle.random_circuit(case.graph, 4, 0.6)
    wanted = oracle.oracle_logits(case, circuit)
    for row in range(2):
        length = int(task.prompts.mask[row].sum())
        corrupt = task.prompts.corrupt[row, :length].tolist()
        with circuit.applied(model.source, corrupt=corrupt) as live:
            found = live(task.prompts.clean[row : row + 1, :length]).logits[0, -1]
        assert torch.allclose(found, wanted[row], atol=1e-9)


def test_the_corrupted_run_goes_on_with_the_texts_own_tokens():
    model = tiny.llama(layers=2, dtype=torch.float64)
    circuit, corrupt = random(model), [4, 9, 2]
    run = TextCircuit(Circuit.empty(circuit.graph), model, corrupt=corrupt)
    other = torch.tensor([[*corrupt, *TOKENS[0, 3:].tolist()]])
    assert torch.allclose(run.logits(TOKENS[:1]), TextCircuit(Circuit.full(circuit.graph), model).logits(other))
    with pytest.raises(EdgewiseError, match=r"has 3 tokens and the text only 2: .* as long or go on beyond it"):
        run.logits(TOKENS[:, :2])


def test_padding_on_the_left_changes_nothing():
    model = tiny.gpt2(layers=2, dtype=torch.float64)
    circuit = random(model)
    with circuit.applied(model) as live:
        alone = live(TOKENS[1:, :3]).logits[0]
        padded = torch.tensor([TOKENS[0].tolist(), [0, 0, *TOKENS[1, :3].tolist()]])
        mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
        together = live(padded, attention_mask=mask, logits_to_keep=3).logits
        assert together.shape[1] == 3
        assert torch.allclose(together[1], alone, atol=1e-9)
        ends = live.generate(padded, attention_mask=mask, max_new_tokens=3, do_sample=False)
        again = live.generate(TOKENS[1:, :3], max_new_tokens=3, do_sample=False, pad_token_id=0)
        assert ends[1, 5:].tolist() == again[0, 3:].tolist()
        with pytest.raises(EdgewiseError, match="padding before or behind them alone"):
            live(TOKENS, attention_mask=torch.tensor([[1, 0, 1, 1, 1], [1] * 5]))


def test_a_circuit_and_its_complement_of_every_unit():
    model, task = tiny.gpt2(layers=2, dtype=torch.float64), tiny.task(2, ragged=False)
    prompts, graph = task.prompts, model.graph(ports=False)
    nodes = of_nodes(graph, torch.arange(len(graph.sources)).numpy() % 2 == 0)
    edges = random(model, 5, ports=False)
    for circuit in (edges, nodes):
        case = Experiment(model, task, ablation="mean-clean", graph=graph)
        with circuit.applied(model, "mean-clean", task=task, complement=True) as live:
            found = live(prompts.clean).logits[:, -1]
        assert torch.allclose(found, case.logits(complement(circuit)), atol=1e-9)
        assert circuit.complement() == complement(circuit)
    case = Experiment(model, task, ablation="mean", neurons=True)
    empty = NeuronCircuit.empty(case.graph)
    with empty.add("m0.n3", "m1.n7").applied(model, "mean", task=task) as live:
        found = live(prompts.clean).logits[:, -1]
    assert torch.allclose(found, case.logits(empty.add("m0.n3", "m1.n7")), atol=1e-9)


def test_constants_and_what_is_learned_go_everywhere():
    model, task = tiny.gpt2(layers=1, dtype=torch.float64), tiny.task(2)
    case = Experiment(model, task, ablation="optimal")
    circuit = oracle.random_circuit(case.graph, 1, 0.5)
    wanted = case.logits(circuit)
    for ablation in (case.carried, case.carried.constants, Ablation("optimal", constants=case.carried.constants)):
        with circuit.applied(model, ablation) as live:
            found = live(task.prompts.clean).logits
        assert torch.allclose(found[task.prompts.scored_rows, task.prompts.scored_positions], wanted, atol=1e-9)


def test_a_live_model_is_left_as_it_was_whatever_happens():
    model = tiny.gpt2(layers=2)
    live, circuit = model.source, random(model)
    before, cached = live(TOKENS).logits, live.generation_config.use_cache
    with pytest.raises(EdgewiseError, match="no cache"), circuit.applied(live):
        live(TOKENS, use_cache=True)
    with circuit.applied(live):
        assert not torch.allclose(live(TOKENS).logits, before)
    assert torch.equal(live(TOKENS).logits, before)
    assert live.generation_config.use_cache == cached
    assert "forward" not in vars(live)


def test_a_peft_models_adapter_is_in_the_circuit():
    torch.manual_seed(0)
    base = tiny.gpt2(layers=2).source
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["c_attn"], init_lora_weights=False))
    circuit = Circuit.full(load_model(adapted).graph())
    own = adapted.generate(input_ids=TOKENS, max_new_tokens=3, do_sample=False, pad_token_id=0)
    wanted = adapted(input_ids=TOKENS).logits
    with circuit.applied(adapted):
        assert torch.allclose(adapted(input_ids=TOKENS).logits, wanted, atol=1e-4)
        again = adapted.generate(input_ids=TOKENS, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert own.tolist() == again.tolist()


def test_a_cache_and_what_a_circuit_does_not_give_are_refused():
    model = tiny.llama(layers=2)
    with random(model).applied(model) as live:
        for given, why in (
            ({"use_cache": True}, r"no cache of keys and values: leave use_cache and past_key_values out"),
            ({"output_attentions": True}, r"takes no output_attentions"),
            ({"labels": TOKENS}, "takes no labels"),
            ({"position_ids": TOKENS}, "counts positions 0, 1, 2"),
            ({"attention_mask": torch.ones(1, 1, 5, 5)}, r"a mask of real tokens \[2, 5\], not \[1, 1, 5, 5\]"),
        ):
            with pytest.raises(EdgewiseError, match=why):
                live(TOKENS, **given)
        with pytest.raises(EdgewiseError, match="no cache of keys and values"):
            live.generate(TOKENS, max_new_tokens=2, use_cache=True, pad_token_id=0)
        with pytest.raises(EdgewiseError, match="give input_ids, not embeddings"):
            live(inputs_embeds=torch.zeros(1, 2, 32))
        with pytest.raises(EdgewiseError, match="tokens 0 to 39, and the text has 5 to 99"):
            live(torch.tensor([[5, 99]]))
        with pytest.raises(EdgewiseError, match="33 tokens are too many"):
            live(torch.ones(1, 33, dtype=torch.long))
        with pytest.raises(EdgewiseError, match="applied to this model already"), random(model).applied(live):
            pass
        assert live(TOKENS, return_dict=False)[0].shape == (2, 5, tiny.VOCABULARY)


@pytest.mark.parametrize(
    ("ablation", "named", "why"),
    [
        ("resample", {}, "new text has none: give one as corrupt"),
        ("mean", {}, "give the task, or the constants of a run"),
        ("mean-positional", {}, "nothing about new text"),
        ("noise", {}, "nothing about new text"),
        ("zero", {"corrupt": [1, 2]}, "a corrupted prompt is for ablation 'resample', not 'zero'"),
        ("zeros", {}, "did you mean 'zero'"),
        ("resample", {"corrupt": [[1, 2], [1]]}, "all of them have one length"),
        ("resample", {"corrupt": [1, 99]}, "tokens that the model lacks"),
    ],
)
def test_what_says_nothing_about_new_text_is_refused(ablation, named, why):
    model = tiny.gpt2(layers=1)
    with pytest.raises(EdgewiseError, match=why), random(model).applied(model, ablation, **named):
        pass


def test_another_models_circuit_is_refused():
    model = tiny.gpt2(layers=1)
    with pytest.raises(EdgewiseError, match=r"2 layers of 4 heads.* has 1 layer of 4 heads"):
        TextCircuit(random(tiny.gpt2(layers=2)), model)
    with pytest.raises(EdgewiseError, match="tells positions apart"):
        TextCircuit(random(model, spans=("a", "b")), model)
    with pytest.raises(EdgewiseError, match="not to a str"), random(model).applied("gpt2"):
        pass
