"""What a recipe for a shipped model has to say, and what all of them share: the record, README.md and the folder."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from edgewise.models.plain_transformer import PlainTransformer
from training.loop import OPTIMIZER, SPARSITY, Settings

Model = TypeVar("Model", bound=nn.Module)
Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Recipe(Generic[Model]):
    """How to make one shipped model.

    Attributes:
        task: the behaviour, in words.
        purpose: what README.md says the model learned, after its size.
        loss: what is minimised, in words.
        held_out: what training never sees, in words.
        prompts: what training.json records of how prompts are made.
        build_model: an untrained model, from torch's own random numbers.
        batch_loss: draws a batch (model, step, settings, generator) and gives its loss.
        evaluate: every figure that training.json records; `held_out` has the `accuracy` that counts.
        bars: what has to be reached for the model to be written: name, reached, needed.
        rows: README.md's table: what was measured on, how many prompts, result.
        tokenizer: None for a model of token ids.
    """

    name: str
    task: str
    purpose: str
    loss: str
    held_out: str
    prompts: dict[str, Any]
    settings: Settings
    build_model: Callable[[], Model]
    batch_loss: Callable[[Model, int, Settings, torch.Generator], Tensor]
    evaluate: Callable[[Model], Figures]
    bars: Callable[[Figures], Sequence[tuple[str, float, float]]]
    rows: Callable[[Figures], Sequence[tuple[str, int, str]]]
    tokenizer: Callable[[], PreTrainedTokenizerFast] | None = None


def build_gpt2(
    tokenizer: PreTrainedTokenizerFast, *, layers: int, heads: int, width: int, positions: int, deviation: float
) -> GPT2LMHeadModel:
    """An untrained GPT-2 without dropout. `deviation` of its weights: GPT-2's 0.02 is made for wider models."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        initializer_range=deviation,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # A sentence has neither a start nor an end token.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )
    return GPT2LMHeadModel(config)


def gpt2_logits(model: GPT2LMHeadModel, tokens: Tensor) -> Tensor:
    """Logits `[rows, pos, vocabulary]`; padding stands on the right, where no other token sees it."""
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits


def _architecture(model: nn.Module) -> dict[str, Any]:
    if isinstance(model, GPT2LMHeadModel):
        config = model.config
        return {
            "model": "GPT2LMHeadModel",
            "layers": config.n_layer,
            "heads": config.n_head,
            "width": config.n_embd,
            "positions": config.n_positions,
            "vocabulary": config.vocab_size,
            "tied_embeddings": config.tie_word_embeddings,
            "initializer_range": config.initializer_range,
        }
    assert isinstance(model, PlainTransformer)
    return {"model": "attention-only transformer in TransformerLens' format"} | transformer_lens_config(model)


def transformer_lens_config(model: PlainTransformer) -> dict[str, Any]:
    """The model's config under TransformerLens' field names."""
    config = model.config
    return {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_ctx": config.n_context,
        "d_head": config.d_head,
        "n_heads": config.n_heads,
        "d_mlp": config.d_mlp or None,
        "d_vocab": config.d_vocab,
        "d_vocab_out": config.d_vocab_out,
        "act_fn": config.activation if config.d_mlp else None,
        "attn_only": config.d_mlp == 0,
        "normalization_type": config.normalization,
        "positional_embedding_type": config.positions,
        "attention_dir": "causal" if config.causal else "bidirectional",
        "eps": config.epsilon,
        "use_attn_scale": config.attention_scale,
    }


def training_record(
    recipe: Recipe[Any], model: nn.Module, settings: Settings, figures: Figures, losses: list[float], seconds: float
) -> dict[str, Any]:
    """What training.json holds."""
    return {
        "task": recipe.task,
        "architecture": _architecture(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "settings": asdict(settings),
        "learning_rate_schedule": f"{settings.warmup_steps} steps of linear warm-up, then a cosine to zero",
        "optimizer": OPTIMIZER,
        "sparsity": SPARSITY,
        "loss": recipe.loss,
        "final_loss": sum(losses[-100:]) / len(losses[-100:]),
        "final_loss_is": "the mean of the last 100 steps",
        "seconds": round(seconds, 1),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "prompts": recipe.prompts,
        "held_out": recipe.held_out,
        "accuracy": figures["held_out"]["accuracy"],
        "figures": figures,
    }


def _readme(recipe: Recipe[Any], record: dict[str, Any]) -> str:
    shape, settings = record["architecture"], record["settings"]
    layers, heads = shape.get("layers", shape.get("n_layers")), shape.get("heads", shape.get("n_heads"))
    kind = "A GPT-2" if shape["model"] == "GPT2LMHeadModel" else "An attention-only transformer"
    threads = f"{settings['threads']} CPU thread{'s' if settings['threads'] != 1 else ''}"
    what = (
        f"{kind} of {layers} layers of {heads} heads, {record['parameters']:,} parameters, for one behaviour: "
        f"{recipe.task}. {recipe.purpose} It is of no use for anything else."
    )
    how = (
        f"makes this folder: {settings['steps']} steps of {settings['batch']} prompts, {record['seconds']:.0f} seconds "
        f"on {threads}. A group-lasso step on what each head and MLP writes keeps the circuit small. Held out: "
        f"{recipe.held_out}."
    )
    table = "\n".join(f"| {on} | {prompts} | {result} |" for on, prompts, result in recipe.rows(record["figures"]))
    return f"""\
# {recipe.name}

{textwrap.fill(what, 110)}

    python scripts/train_shipped.py {recipe.name}

{textwrap.fill(how, 110)}

| measured on | prompts | result |
|---|---|---|
{table}

training.json has the settings and every figure. Licence: MIT.
"""


def _save_model(model: nn.Module, folder: Path) -> None:
    if isinstance(model, GPT2LMHeadModel):
        model.save_pretrained(folder)
        return
    assert isinstance(model, PlainTransformer)
    (folder / "config.json").write_text(json.dumps(transformer_lens_config(model), indent=2) + "\n", encoding="utf-8")
    weights = {name: weight.detach().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_folder(out: Path, recipe: Recipe[Any], model: nn.Module, record: dict[str, Any]) -> None:
    """Write beside `out`, then move into place, so that a failure leaves the folder that was there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{recipe.name}-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        _save_model(model, new)
        if recipe.tokenizer is not None:
            recipe.tokenizer().save_pretrained(new)
        (new / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (new / "README.md").write_text(_readme(recipe, record), encoding="utf-8")
        for file in new.iterdir():
            file.chmod(0o644)  # weights are saved readable by their owner alone
        if out.exists():
            out.rename(old)
        new.rename(out)
