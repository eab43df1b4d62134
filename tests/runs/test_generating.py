"""Runs applied to a live model, and text under a circuit beside the model's own."""

import pytest
import tiny
import torch

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.patching import Ablation, Experiment
from edgewise.patching.applied import TextCircuit
from edgewise.runs.generating import generate

PROMPT = "When John and Mary went to the store, John gave a drink to"
CORRUPT = "When Alice and Peter went to the store, Sarah gave a drink to"


@pytest.fixture(scope="module")
def loaded():
    model = ew.load_model("tiny-ioi")
    return model, ew.load_task("ioi", model, examples=4)


def test_a_run_is_applied_with_its_own_ablation(tmp_path):
    model, task = tiny.gpt2(layers=1), tiny.task()
    run = ew.discover(model, task, threshold=0.05, ablation="mean")
    wanted = Experiment(model, task, ablation="mean").logits(run.circuit)
    with run.applied() as live:
        found = live(task.prompts.clean).logits[task.prompts.scored_rows, task.prompts.scored_positions]
    assert torch.allclose(found, wanted, atol=1e-5)
    with run.applied("zero", model=model.source, complement=True) as live:
        rest = live(task.prompts.clean).logits
    assert torch.allclose(rest, TextCircuit(~run.circuit, model, "zero").logits(task.prompts.clean), atol=1e-5)


def test_a_loaded_run_is_applied_with_the_constants_that_it_kept(tmp_path, loaded):
    model, task = loaded
    (tmp_path / "texts.jsonl").write_text('{"text": "When John and Mary went to the store"}')
    texts = str(tmp_path / "texts.jsonl")
    run = ew.discover(model, task, threshold=0.5, mean_over=texts)
    folder = run.save(tmp_path / "run")
    (tmp_path / "texts.jsonl").unlink()
    again, tokens = ew.load_run(folder), task.prompts.clean[:1]
    with again.applied(model=model) as live, torch.no_grad():
        found = live(tokens).logits[0, -1]
    with again.applied("mean", model=model) as live, torch.no_grad():
        assert torch.equal(live(tokens).logits[0, -1], found)
    wanted = Experiment(model, task, ablation=Ablation("mean", constants=run.constants)).logits(run.circuit)[0]
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_run_under_resample_says_what_it_needs(loaded):
    model, task = loaded
    run = ew.discover(model, task, threshold=0.3)
    with pytest.raises(EdgewiseError, match="new text has none: give one as corrupt"), run.applied():
        pass
    with run.applied(corrupt=task.text[0].corrupt) as live, torch.no_grad():
        found = live(task.prompts.clean[:1]).logits[0, -1]
    assert torch.allclose(found, Experiment(model, task).logits(run.circuit)[0], atol=1e-4)


def test_the_whole_graph_goes_on_as_the_model_and_its_complement_does_not(loaded):
    model, task = loaded
    found = generate(model, Circuit.full(model.graph()), PROMPT, ablation="mean", task=task, complement=True, tokens=3)
    assert list(found) == ["model", "circuit", "complement"]
    own = found["model"]
    assert own.text.startswith(" Mary")
    assert (found["circuit"].tokens, found["circuit"].as_model) == (own.tokens, 3)
    assert found["circuit"].probabilities == pytest.approx(own.probabilities, abs=1e-4)
    assert found["complement"].tokens != own.tokens
    assert found["complement"].as_model < 3


def test_the_model_itself_generates_the_same_greedily(loaded):
    model, _ = loaded
    ids = torch.tensor([model.tokenizer(PROMPT)["input_ids"]])
    own = model.source.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    found = generate(model, Circuit.full(model.graph()), PROMPT, tokens=4)["model"]
    assert list(found.tokens) == own[0, ids.shape[1] :].tolist()


def test_tokens_are_drawn_by_the_seed(loaded):
    model, _ = loaded
    circuit = Circuit.full(model.graph())
    one, again, other = (
        generate(model, circuit, "Then, John", tokens=5, temperature=5.0, seed=seed)["model"].tokens
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"tokens": 0}, "at least one token"),
        ({"temperature": -1.0}, "0 or more, not -1.0"),
        ({"seed": -1}, "the seed"),
        ({"prompt": "Then, " * 16}, "has 32 tokens, as many as model 'tiny-ioi' reads"),
        ({"corrupt": "When"}, "has 1 tokens and the prompt 1"),
    ],
)
def test_what_cannot_be_generated_is_refused(loaded, named, why):
    with pytest.raises(EdgewiseError, match=why):
        generate(loaded[0], Circuit.full(loaded[0].graph()), **{"prompt": PROMPT, **named})
