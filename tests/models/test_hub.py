"""Models of the hub, as a local cache of it has them: which revision, and of what."""

import pytest
import tiny
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.models import load_model
from edgewise.runs import load_again
from edgewise.runs.request import ModelRequest


def hub(folder, monkeypatch, revisions):
    """A local cache of the hub in which `some/model` has these revisions, each a model, and no way to the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for number, (revision, model) in enumerate(revisions.items()):
        commit = f"{number:040x}"
        snapshot = folder / "models--some--model" / "snapshots" / commit
        model.source.save_pretrained(snapshot)
        vocabulary = {word: number for number, word in enumerate(["<unk>", revision, *"abcdefghijklmn"])}
        words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(snapshot)
        (folder / "models--some--model" / "refs").mkdir(exist_ok=True)
        (folder / "models--some--model" / "refs" / revision).write_text(commit)


def test_a_revision_of_the_hub_is_that_of_configuration_weights_and_tokenizer(tmp_path, monkeypatch):
    main, early = tiny.gpt2(), tiny.gpt2(seed=1, layers=2)
    hub(tmp_path / "hub", monkeypatch, {"main": main, "step-10": early})
    latest, asked = load_model("some/model"), load_model("some/model", revision="step-10")
    assert latest.fingerprint() == main.fingerprint()
    assert asked.fingerprint() == early.fingerprint()
    assert asked.config.n_layers == 2
    assert (latest.origin, asked.origin) == ({}, {"revision": "step-10"})
    assert "step-10" in asked.tokenizer.get_vocab()
    assert "step-10" not in latest.tokenizer.get_vocab()
    assert load_model("some/model", revision="step-10", dtype="float16").config.n_layers == 2
    by_commit = load_model("some/model", revision=f"{1:040x}")
    assert by_commit.fingerprint() == early.fingerprint()
    with pytest.raises(EdgewiseError, match="cannot find model 'some/model' in revision 'step-99'"):
        load_model("some/model", revision="step-99")


def test_a_run_on_a_revision_is_loaded_again_on_it(tmp_path, monkeypatch):
    hub(tmp_path / "hub", monkeypatch, {"main": tiny.gpt2(), "step-10": tiny.gpt2(seed=1)})
    model = ModelRequest("some/model", revision="step-10").load()
    run = ew.discover(model, ew.load_task("induction", model, examples=4), method="edge-attribution", edges=20)
    assert run.record["settings"]["model"]["revision"] == "step-10"
    run.save(tmp_path / "run")
    assert ew.load_run(tmp_path / "run").model.fingerprint() == model.fingerprint()
    again, _ = load_again(tmp_path / "run", run.record["settings"], split="validation", revision="main")
    assert again.fingerprint() != model.fingerprint()
