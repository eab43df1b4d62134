"""Models whose weights are offloaded: the same numbers, brought when they are needed and let go again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import accelerate
import family_models
import numpy as np
import pytest
import tiny
import torch
from tiny import near
from twins import same_found

from edgewise.discovery import METHODS, acdc
from edgewise.errors import EdgewiseError
from edgewise.models import Decoder, load_model
from edgewise.models.control import fold_value_biases, permuted
from edgewise.models.forward import forward
from edgewise.models.guard import check
from edgewise.models.placed import PlacedAttention, PlacedMLP
from edgewise.patching import Experiment
from edgewise.runs import load_run
from edgewise.runs.run import describe_model

TASK = tiny.task(rows=3, longest=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("llama")
    tiny.llama(layers=2, bias=True).source.save_pretrained(to)  # type: ignore[operator] - a transformers model
    return to


@pytest.fixture(scope="module")
def whole(folder: Path) -> Decoder:
    return load_model(folder)


@pytest.fixture(scope="module")
def offloaded(folder: Path) -> Decoder:
    return load_model(folder, device_map="disk-offload")


def on_disk(model: Any, folder: Path) -> Decoder:
    """A live model that accelerate has offloaded to disk, whole."""
    accelerate.disk_offload(model, folder, execution_device="cpu")
    return load_model(model)


def decisions(decoder: Decoder) -> list[tuple[str, bool, Any]]:
    """Every decision of a search, and the metric after it; weights that lie elsewhere in memory may round otherwise."""
    found = acdc(Experiment(decoder, TASK), 0.02)
    return [(one.edge, one.kept, near(one.after)) for one in found.trace]


def same_decisions(ours: Decoder, theirs: Decoder) -> bool:
    return [(one.edge, one.kept, one.after) for one in acdc(Experiment(ours, TASK), 0.02).trace] == decisions(theirs)


def test_an_offloaded_model_is_the_same_model(whole: Decoder, offloaded: Decoder) -> None:
    assert isinstance(offloaded.components[0], PlacedAttention)
    assert isinstance(offloaded.components[1], PlacedMLP)
    assert offloaded.fingerprint() == whole.fingerprint()
    assert repr(offloaded).split(":", 1)[1] == repr(whole).split(":", 1)[1]
    check(offloaded, TASK.prompts.clean, TASK.prompts.mask)


def test_a_search_of_an_offloaded_model_decides_the_same(whole: Decoder, offloaded: Decoder) -> None:
    assert same_decisions(offloaded, whole)
    kept = [one for _, one, _ in decisions(whole)]
    assert any(kept)
    assert not all(kept)


@pytest.mark.parametrize("method", ["edge-attribution", "relp"])
def test_scores_by_gradients_of_an_offloaded_model_are_the_same(
    whole: Decoder, offloaded: Decoder, method: str
) -> None:
    found = [METHODS[method].scores(Experiment(one, TASK, metric="kl_div")) for one in (whole, offloaded)]
    ours, theirs = (one.circuit.scores for one in found)
    assert ours is not None
    assert theirs is not None
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    assert (ours != 0).any()


def test_weights_that_were_brought_are_let_go(offloaded: Decoder) -> None:
    first, second = offloaded.components[0], offloaded.components[2]
    assert isinstance(first, PlacedAttention)
    assert isinstance(second, PlacedAttention)
    held = first.home.held
    assert held.most == held.spread.size_of(held.spread.leaves(first.home.path))
    # In a pass with gradients too, where autograd would keep them until the way back.
    stream = torch.randn(1, 4, 32, requires_grad=True)
    at, here = torch.arange(4)[None], list[weakref.ref[torch.Tensor]]()
    out = first.project("q", stream[:, :, None], at)
    here.append(weakref.ref(held.component(first.home, "read").tensors[0]))
    for component in offloaded.components[1:]:
        if isinstance(component, PlacedMLP):
            component.act({"mlp": stream[:, :, None]}, None)
    second.project("q", stream[:, :, None], at)
    assert here[0]() is None  # at once: what waits for the garbage collector takes room
    assert sum(key[0].bytes_of(key[1]) for key in held._held) <= held.most
    # And brought again for the way back.
    before = held.brought
    (gradient,) = torch.autograd.grad(out.sum(), stream)
    assert held.brought > before
    assert gradient.abs().max() > 0


def test_the_embedding_comes_once_and_stays(offloaded: Decoder) -> None:
    assert not offloaded.unembedding.weight.is_meta
    assert offloaded.device == torch.device("cpu")
    run = forward(offloaded, TASK.prompts.clean, TASK.prompts.mask)
    assert run.streams[-1].isfinite().all()


def test_layers_that_do_not_fit_go_to_disk(folder: Path, whole: Decoder) -> None:
    placed = load_model(folder, device_map="auto", memory_per_device="cpu=40KB")
    there = placed.origin["device_map"]
    assert set(there.values()) == {"cpu", "disk"}
    assert same_decisions(placed, whole)
    assert describe_model(placed)["device_map"] == there


def test_a_device_map_may_be_a_file(folder: Path, whole: Decoder, tmp_path: Path) -> None:
    layers = {"model.layers.0": "disk", "model.layers.1": "cpu"}
    around = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    (tmp_path / "map.json").write_text(json.dumps({**around, **layers}))
    placed = load_model(folder, device_map=tmp_path / "map.json")
    assert placed.fingerprint() == whole.fingerprint()
    assert placed.origin["device_map"]["model.layers.0"] == "disk"


def test_a_run_says_where_its_weights_were_and_loads_them_there(
    folder: Path, tmp_path: Path, offloaded: Decoder
) -> None:
    from edgewise import discover, load_task

    run = discover(offloaded, load_task("induction", offloaded, examples=2), threshold=1.0, out=tmp_path / "run")
    assert run.record["settings"]["model"]["device_map"]["model.layers.0"] == "disk"
    assert isinstance(load_run(tmp_path / "run").model.components[0], PlacedAttention)


def test_value_biases_of_an_offloaded_model_are_folded_and_its_mlps_opened(whole: Decoder, offloaded: Decoder) -> None:
    from edgewise.models.neurons import by_neuron

    for change in (fold_value_biases, by_neuron):
        theirs, ours = (change(one) for one in (whole, offloaded))
        prompts = TASK.prompts
        runs = [forward(one, prompts.clean, prompts.mask) for one in (theirs, ours)]
        assert torch.allclose(runs[0].streams[-1], runs[1].streams[-1], rtol=1e-5, atol=1e-5)
        assert [one.shape for one in runs[0].codes] == [one.shape for one in runs[1].codes]
        check(ours, prompts.clean, prompts.mask)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (dict(device_map="outo"), "did you mean 'auto'"),
        (dict(device_map="disk-offload", device="cpu"), "not both"),
        (dict(device_map={"": "gpu"}), "no device"),
        (dict(device_map={"": 7}), "CUDA devices"),
        (dict(device_map={}), "empty"),
        (dict(device_map="auto", memory_per_device="cpu:3GB"), "0=20GB,cpu=60GB"),
        (dict(device_map="auto", memory_per_device="cpu=lots"), "no size of memory"),
        (dict(device_map="disk-offload", memory_per_device="cpu=3GB"), "by size"),
        (dict(memory_per_device="cpu=3GB"), "--device-map"),
        (dict(device_map={"model.layers.0": "disk"}), "cannot be laid out"),
        (dict(device_map="cpu-offload"), "with a GPU"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU cannot do")
def test_a_device_map_that_is_none_is_refused(folder: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgewiseError, match=said):
        load_model(folder, **how)


def test_what_a_device_map_is_not_for_is_refused(offloaded: Decoder) -> None:
    with pytest.raises(EdgewiseError, match="comes with edgewise"):
        load_model("tracr-reverse", device_map="auto")
    with pytest.raises(EdgewiseError, match="leave device out"):
        load_model(offloaded.source, device="cpu")
    with pytest.raises(EdgewiseError, match="cannot be shuffled"):
        permuted(offloaded, 0)


def test_without_accelerate_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(EdgewiseError, match=r"pip install 'edgewise\[accelerate\]'"):
        load_model(folder, device_map="auto")


@pytest.mark.slow
@pytest.mark.parametrize("name", family_models.CONFIGS)
def test_every_family_can_be_offloaded(name: str, tmp_path: Path) -> None:
    whole = family_models.family(name)
    offloaded = on_disk(family_models.source(name), tmp_path)
    check(offloaded, TASK.prompts.clean, TASK.prompts.mask)
    assert offloaded.fingerprint() == whole.fingerprint()
    assert same_decisions(offloaded, whole)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize(
    "how",
    [
        dict(method="acdc", engine="plain", threshold=0.02),
        dict(method="acdc", level="node", threshold=0.02),
        dict(method="acdc", within=30, passes=2, threshold=0.02),
        dict(method="acdc", ablation="mean", threshold=0.02),
        dict(method="exact", level="neuron", neurons=5),
        dict(method="edge-attribution-ig", edges=20),
        dict(method="edge-attribution-ig", level="neuron", neurons=5),
        dict(method="head-importance", edges=20),
        dict(method="attribution-patching", edges=20),
        dict(method="information-flow", edges=20),
        dict(method="subnetwork-probing", edges=20, options={"steps": 5}),
        dict(method="edge-pruning", edges=20, options={"steps": 5}),
    ],
    ids=lambda how: "-".join(str(one) for one in how.values() if isinstance(one, str)),
)
def test_every_method_and_engine_finds_the_same_in_an_offloaded_model(
    family: str, how: dict[str, Any], tmp_path: Path
) -> None:
    from edgewise import discover

    models = family_models.family(family), on_disk(family_models.source(family), tmp_path)
    ours, theirs = (discover(one, TASK, metric="kl_div", **how) for one in models)
    same_found(ours, theirs)


MEASURED = """
import json, sys
from pathlib import Path
import tiny, torch
from edgewise.discovery import METHODS, acdc
from edgewise.models import load_model
from edgewise.patching import Experiment

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

Path(sys.argv[1] + "/warm").mkdir(exist_ok=True)
tiny.llama(layers=1).source.save_pretrained(sys.argv[1] + "/warm")
warm = load_model(sys.argv[1] + "/warm", device_map=json.loads(sys.argv[2]))
task = tiny.task(rows=2, longest=4)
METHODS["edge-attribution"].scores(Experiment(warm, task))
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = load_model(sys.argv[1], device_map=json.loads(sys.argv[2]))
experiment = Experiment(model, task)
scores = METHODS["edge-attribution"].scores(experiment).circuit.scores
found = acdc(experiment, 1e9)
fingerprint = model.fingerprint()
print(json.dumps({
    "peak": status("VmHWM") - before,
    "found": [[one.edge, one.kept, one.after] for one in found.trace],
    "scores": scores.tolist(),
    "fingerprint": fingerprint,
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
def test_a_search_takes_less_memory_than_the_weights(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    shape: dict[str, Any] = dict(num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2, hidden_size=512)
    shape |= dict(intermediate_size=2048, vocab_size=tiny.VOCABULARY, max_position_embeddings=32, bos_token_id=0)
    config = transformers.LlamaConfig(**shape)
    model = transformers.LlamaForCausalLM(config)
    weights = sum(one.nbytes for one in model.parameters())
    model.save_pretrained(tmp_path)
    del model

    def run(device_map: str | None) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path), json.dumps(device_map)],
            env={**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parents[1]), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    whole, offloaded = run(None), run("disk-offload")
    assert [one[:2] for one in offloaded["found"]] == [one[:2] for one in whole["found"]]
    assert np.allclose(offloaded["scores"], whole["scores"], rtol=1e-3, atol=1e-6)
    assert offloaded["fingerprint"] == whole["fingerprint"]
    assert whole["peak"] > weights
    assert offloaded["peak"] < weights / 2
