"""InterpBench's files: a configuration in a pickle that is read and never run, and TransformerLens' weights."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import mib_data
import pytest
import torch

from edgewise.errors import EdgewiseError
from edgewise.models import load_model
from edgewise.models.interp_bench import MOST_BYTES, read_config

FIELDS = {"n_layers": 2, "act_fn": "gelu", "eps": 1e-5, "seed": None, "use_split_qkv_input": True, "big": 10**12}
PLAIN = {**FIELDS, "init": [1, -2.5, ["a"]], "dtype": "float32", "device": "cpu", "tokenizer_name": "gpt2"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_configuration_is_read_whether_it_is_an_object_or_its_fields(protocol, tmp_path, monkeypatch):
    library = types.ModuleType("transformer_lens_of_old")
    config = type("HookedTransformerConfig", (), {"__module__": library.__name__})
    library.HookedTransformerConfig = config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, library.__name__, library)
    fields = {**FIELDS, "init": (1, -2.5, ["a"]), "dtype": torch.float32, "device": torch.device("cpu")}
    one = config()
    vars(one).update(fields)
    for value in (fields, one):
        (path := tmp_path / "ll_model_cfg.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
        assert read_config(path, "mine") == PLAIN


class _Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_nothing_in_a_pickle_is_run_and_what_is_no_configuration_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ll_model_cfg.pkl"
    path.write_bytes(pickle.dumps({"n_layers": _Code()}))
    assert read_config(path, "mine")["n_layers"] == "ran"
    assert not Path("ran").exists()
    again: list[object] = ["a"]
    for _ in range(60):
        again = [again, again]
    for data, why in (
        (b"no pickle", "is no pickle of plain values"),
        (pickle.dumps([1, 2]), "holds no configuration"),
        (pickle.dumps({1: 2}), "holds no configuration"),
        (pickle.dumps({"n_layers": b"bytes"}), "it has the opcode"),
        (pickle.dumps({"n_layers": again}), "it has too many values"),
        (pickle.dumps({"a": "b" * MOST_BYTES}), "too many for a configuration"),
    ):
        path.write_bytes(data)
        with pytest.raises(EdgewiseError, match=f"model 'mine': its ll_model_cfg.pkl .*{why}"):
            read_config(path, "mine")


def test_a_folder_of_interpbench_is_a_model(tmp_path):
    folder = tmp_path / "interpbench"
    mib_data.write_interp_bench(folder)
    model = load_model(folder)
    state = torch.load(folder / "ioi_all_splits" / "ll_model_100_100_80.pth", weights_only=True)
    assert model.graph(ports=False).describe() == "2 layers of 2 heads"
    assert model.tokenizer is not None
    assert torch.equal(model.source.state_dict()["embed.W_E"], state["embed.W_E"])
    (folder / "ll_model_other.pth").touch()
    with pytest.raises(
        EdgewiseError, match=r"the weights of model .* cannot be read"
    ):  # beside the configuration first
        load_model(folder)
    (folder / "ll_model_third.pth").touch()
    with pytest.raises(EdgewiseError, match=r"it has several \(ll_model_other.pth, ll_model_third.pth\)"):
        load_model(folder)
