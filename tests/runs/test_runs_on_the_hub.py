"""Runs on the hub: a local stand-in keeps what is committed, and the hub's own cache gives it back."""

import json
from types import SimpleNamespace

import huggingface_hub
import pytest

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.runs.hub import card, published, split_address

COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of one folder, laid out as the cache of the real one; what was asked of it."""
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    class Api:
        def __init__(self, library_name):
            assert library_name == "edgewise"

        def create_repo(self, repository, *, private, exist_ok):
            asked.append((repository, private))

        def create_commit(self, repository, operations, *, commit_message, revision):
            home = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
            for one in operations:
                path = home / "snapshots" / COMMIT / one.path_in_repo
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(one.path_or_fileobj)
            (home / "refs").mkdir(exist_ok=True)
            (home / "refs" / (revision or "main")).write_text(COMMIT)
            asked.append(commit_message)
            return SimpleNamespace(commit_url=f"https://hub/{repository}/{COMMIT}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return SimpleNamespace(asked=asked, files=tmp_path / "cache" / "models--some--run" / "snapshots" / COMMIT)


@pytest.fixture(scope="module")
def run():
    model = ew.load_model("tracr-reverse")
    return ew.discover(model, ew.load_task("tracr-reverse", model), threshold=0.01)


def test_a_run_comes_back_from_the_hub(run, hub):
    assert run.push_to_hub("some/run", private=True) == f"https://hub/some/run/{COMMIT}"
    assert hub.asked == [("some/run", True), "tracr-reverse: a circuit by edgewise"]
    back = ew.load_run("hub:some/run")
    assert back.circuit == run.circuit
    assert [one.edge for one in back.trace] == [one.edge for one in run.trace]
    assert back.record["result"] == json.loads(json.dumps(run.record["result"]))
    assert back.evaluate().value == pytest.approx(run.metric, abs=1e-9)
    run.push_to_hub("some/run", revision="second")
    assert ew.load_run("hub:some/run@second").circuit == run.circuit


def test_what_is_pushed_says_nothing_of_this_machine(run, hub, tmp_path):
    typed = {**run.record, "command": ["edgewise", "discover", "/home/me/prompts.jsonl"]}
    typed["settings"] = {**typed["settings"], "model": {**typed["settings"]["model"], "folder": "/home/me/model"}}
    assert "/home/me" not in json.dumps(published(typed))
    assert typed["settings"]["model"]["folder"] == "/home/me/model"
    run.push_to_hub("some/run")
    assert sorted(path.name for path in hub.files.iterdir()) == ["README.md", "circuit.json", "run.json", "trace.jsonl"]


def test_the_card_says_what_was_found(run, hub):
    run.push_to_hub("some/run")
    text = (hub.files / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: edgewise\ntags:\n- edgewise\n")
    assert 'ew.load_run("hub:some/run")' in text
    assert f"| size | 15 of {run.circuit.graph.n_edges:,} edges |" in text
    assert "| method | `acdc`, threshold 0.01 |" in text
    assert "base_model" not in text
    assert all(f"    {name}\n" in text for name in run.circuit.names())
    on_hub = {**run.record, "settings": {**run.record["settings"], "model": {**run.record["settings"]["model"]}}}
    on_hub["settings"]["model"]["name"] = "openai-community/gpt2"
    assert "base_model: openai-community/gpt2\n" in card(on_hub, "some/run", [])
    assert "… and 3 more" in card(on_hub, "some/run", ["m0->logits"] * 53)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("hub:run", "written owner/name, not 'run'"),
        ("hub:a/b/c", "written owner/name"),
        ("hub:../run", "written owner/name"),
        ("hub:some/run@", "ends where a revision should stand"),
        ("hub:some/run@../x", "not the name of a branch"),
        ("hub:some/other", "cannot be fetched: the Hugging Face hub cannot be reached .* its cache has no copy"),
    ],
)
def test_what_cannot_be_fetched_is_refused(hub, address, why):
    with pytest.raises(EdgewiseError, match=why):
        ew.load_run(address)


def test_an_address_may_name_a_revision():
    assert split_address("hub:some/run") == ("some/run", None)
    assert split_address("hub:some/run@v1.0/x") == ("some/run", "v1.0/x")


def test_a_hub_that_refuses_is_said_in_a_sentence(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EdgewiseError, match=r"cannot be put into 'some/run' on the Hugging Face hub: .*hf auth login"):
        run.push_to_hub("some/run")
    with pytest.raises(EdgewiseError, match="written owner/name"):
        run.push_to_hub("run")
