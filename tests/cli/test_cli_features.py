"""`--level feature` on the shell."""

from __future__ import annotations

import dictionaries
import pytest
from dictionaries import tensors
from safetensors.torch import save_file

import edgewise as ew
from edgewise.models.dictionary import Place


@pytest.mark.filterwarnings("ignore::edgewise.EdgewiseWarning")
def test_a_run_by_features_from_discovery_to_comparison(shell, tmp_path):
    model = ew.load_model("tiny-greater-than")
    save_file(tensors(dictionaries.random(model, Place(0, "normed"), features=20)), tmp_path / "any.safetensors")
    hooks = ("--dictionary-hooks", "blocks.0.mlp.hook_in,blocks.0.hook_mlp_out")
    asked = (
        "discover",
        "greater-than",
        "--examples",
        4,
        "--level",
        "feature",
        "--dictionary",
        tmp_path / "any.safetensors",
    )
    assert "does not say where its features are" in shell.refuses(*asked, "--features", 3, "--method", "eap")
    found = shell.works(*asked, *hooks, "--within", 10, "--features", 4, "--method", "exact", "--out", "run").out
    for words in (
        "of 21 features, beside all heads and edges",
        "scored by exact, shortlist 10",
        "features explain on these prompts: m0 ",
        "strongest",
    ):
        assert words in found
    searched = shell.works(*asked, *hooks, "--within", 10, "--threshold", 0.01, "--out", "searched").out
    assert "searched within 10 features" in searched
    scored = shell.json(*asked, *hooks, "--features", 4, "--method", "eap", "--out", "scored")
    assert scored["n_features"] == len(scored["features"]) == 4
    assert shell.json("evaluate", "scored", "--quick")["n_features"] == 4
    shown = shell.works("evaluate", "run", "--circuits", 29, "--resamples", 0).out
    assert "no permuted network: dictionaries are of the model as it is" in shown
    assert "overlap of features" in shell.works("compare", "run", "scored").out
    assert "of 21 features" in shell.works("show", "run").out
    assert "no picture of a circuit of features" in shell.refuses("draw", "run")
    assert "no page of a circuit of features" in shell.refuses("report", "run")
    assert "not features" in shell.refuses("plan", "greater-than", "--level", "feature")
