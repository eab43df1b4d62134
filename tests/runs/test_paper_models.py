"""The paper's rows on models that it has from the hub: tiny ones of the same shape, in the same files, run them all."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from tiny import NO_SHARED, SHARED

from edgewise.reports.tables import reproduction_markdown
from edgewise.runs import paper
from edgewise.runs.paper_circuits import CIRCUITS
from edgewise.runs.paper_rows import ROWS, PaperRow

FEW = {"ioi": 2, "greater-than": 2, "docstring": 2, "induction": 4}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Two attention-only models in TransformerLens' layout, with the paper's shapes."""
    if not (SHARED / "tokenizers").exists():
        pytest.skip(NO_SHARED)
    folder = tmp_path_factory.mktemp("weights")
    made = {"attn-only-4l": attention_only, "redwood_attn_2l": redwood}
    return {name: str(make(folder / name)) for name, make in made.items()}


def gpt2(folder: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_positions=16, n_embd=12, n_layer=12, n_head=12))
    louder(dict(model.named_parameters()))
    model.save_pretrained(folder)
    GPT2TokenizerFast.from_pretrained(SHARED / "tokenizers" / "gpt2").save_pretrained(folder)
    return folder


def lens(folder: Path, n_layers: int, d_vocab: int, n_ctx: int, positions: str) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    config = dict(n_layers=n_layers, d_model=8, n_ctx=n_ctx, d_head=2, n_heads=8, d_vocab=d_vocab, attn_only=True)
    config.update(act_fn=None, normalization_type="LN", positional_embedding_type=positions)
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    shapes = {"embed.W_E": (d_vocab, 8), "pos_embed.W_pos": (n_ctx, 8), "ln_final.w": (8,), "ln_final.b": (8,)}
    for layer in range(n_layers):
        at = f"blocks.{layer}."
        shapes |= {f"{at}attn.W_{letter}": (8, 8, 2) for letter in "QKV"} | {f"{at}attn.W_O": (8, 2, 8)}
        shapes |= {f"{at}attn.b_{letter}": (8, 2) for letter in "QKV"} | {f"{at}attn.b_O": (8,)}
        shapes |= {f"{at}ln1.w": (8,), f"{at}ln1.b": (8,)}
    shapes |= {"unembed.W_U": (8, d_vocab), "unembed.b_U": (d_vocab,)}
    save_file(
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    return folder


def attention_only(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    lens(folder, 4, 48262, 80, "standard")
    vocabulary = json.loads((SHARED / "tokenizers/gpt2/vocab.json").read_text())
    kept = {token: index for token, index in vocabulary.items() if index < 48261}
    merges = [
        tuple(line.split()) for line in (SHARED / "tokenizers/gpt2/merges.txt").read_text().splitlines()[1:] if line
    ]
    whole = Tokenizer(models.BPE({**kept, "<bos>": 48261}, [one for one in merges if "".join(one) in kept]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<bos>").save_pretrained(folder)
    return folder


def redwood(folder: Path) -> Path:
    lens(folder, 2, 50259, 310, "shortformer")
    generator = torch.Generator().manual_seed(1)
    torch.save(torch.randint(50259, (8, 310), generator=generator), folder / "validation_data.pt")
    marked = torch.rand((8, 310), generator=generator) < 0.01
    marked[:, 20] = True
    torch.save(marked, folder / "mask_repeat_candidates.pkl", pickle_module=pickle)
    return folder


def louder(parameters: dict[str, torch.Tensor]) -> None:
    """Weights at which every part matters."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.add_((0.1 if "wte" in name else 0.5) * torch.randn_like(parameter))


def in_small(monkeypatch, keep) -> None:
    """The paper's rows as they are declared, on few prompts and at thresholds at which a search soon ends."""
    rows = [
        dataclasses.replace(row, examples=FEW[row.task], thresholds=(50.0, 40.0), lambdas=(1.0,), steps=2)
        for row in ROWS
        if row.task in FEW and keep(row)
    ]
    circuits = [
        dataclasses.replace(row, examples=FEW[row.task], threshold=50.0 + index)  # whatever it would have kept
        for index, row in enumerate(CIRCUITS)
        if row.task in FEW and keep(row)
    ]
    monkeypatch.setattr(paper, "ROWS", tuple(rows))
    monkeypatch.setattr(paper, "CIRCUITS", tuple(circuits))


def run(folder: Path, weights: dict[str, str], **options) -> paper.Reproduction:
    figures = [figure for figure in paper.FIGURES if figure != paper.OWN_MODELS]
    return paper.reproduce(folder, figures=figures, weights=weights, offline=True, **options)


@pytest.mark.slow
def test_every_row_runs_when_its_weights_are_there(weights, tmp_path, monkeypatch):
    in_small(monkeypatch, lambda row: True)
    every = {**weights, "gpt2": str(gpt2(tmp_path / "gpt2"))}
    found = run(tmp_path, every, methods=["acdc"])
    (whole,) = (one for one in found.findings if one.figure == "fig-1")
    assert "read off the figure" in whole.measures[0].note
    (types,) = (one.groups for one in found.findings if one.key.startswith("fig-16-greater-than-resample-prob"))
    assert [one.group for one in types] == ["heads 0.3, 0.5", "head 0.1", "early MLPs", "mid heads", "late MLPs"]
    assert found.missing == ()
    assert len(found.findings) == len(paper.CIRCUITS) > 40
    for one in found.findings:
        assert all(measure.ours is not None for measure in one.measures), one
    ran = [cell for cell in found.cells if cell.ours is not None]
    assert len(ran) == sum(cell.method == "acdc" for cell in found.cells) == 2 * (12 + 12 + 1)
    assert {cell.table for cell in ran} == {"tables-2-3", "reset", "fig-5"}
    assert {curve.key for curve in found.curves} == {row.key for row in paper.ROWS}
    page = reproduction_markdown(found)
    assert "| fig-16 | greater-than | corrupted | ACDC by prob_diff at " in page
    assert "mid heads" in page


@pytest.mark.slow
def test_a_row_of_each_kind_runs_when_its_weights_are_there(weights, tmp_path, monkeypatch):
    def keep(row):
        if isinstance(row, PaperRow):
            return row.permuted is not None and (row.ablation, row.metric) == ("resample", "logit_diff_max")
        named = ("table-4-docstring-resample-known", "fig-6-induction-zero")
        return row.key.startswith(named) or (row.figure, row.task, row.circuit) == (
            "references",
            "docstring",
            "all edges",
        )

    in_small(monkeypatch, keep)
    found = run(tmp_path, weights, methods=["acdc"])
    assert found.missing == ()
    by_key = {one.key: {measure.what: measure for measure in one.measures} for one in found.findings}
    assert by_key["table-4-docstring-resample-known"]["edges"].ours == 37
    assert by_key["table-4-docstring-resample-known"]["edges"].note == ""
    (edges,) = (one["edges"] for key, one in by_key.items() if key.startswith("fig-6"))
    assert (edges.published, edges.ours) == ("10", 0)
    assert "before September 2023" in edges.note
    assert {(cell.table, cell.task) for cell in found.cells if cell.ours is not None} == {("reset", "docstring")}
    reset = found.curves[0].references
    trained = by_key["references-docstring-resample-all-edges"]["logit_diff_max"].ours
    shuffled = by_key["references-docstring-resample-all-edges-reset"]["logit_diff_max"].ours
    assert reset.reset == reset.full == pytest.approx(shuffled, abs=1e-4)
    assert abs(trained - shuffled) > 1e-3


@pytest.mark.slow
def test_weights_of_another_shape_are_refused_in_a_line_of_their_own(weights, tmp_path, monkeypatch):
    in_small(monkeypatch, lambda row: row.task == "docstring" and row.key.endswith(("known", "logit_diff_max")))
    other = shutil.copytree(weights["attn-only-4l"], tmp_path / "other")
    lens(other, 2, 48262, 80, "standard")
    found = run(tmp_path, {"attn-only-4l": str(other)}, methods=["acdc"])
    assert len(found.missing) == 2
    assert all("is not of the shape in which people know the circuit of 'docstring'" in why for _, why in found.missing)
    known = [one for one in found.findings if one.circuit == "known circuit"]
    assert {measure.note for one in known for measure in one.measures} == {
        f"nobody knows the task's circuit in {other}"
    }
