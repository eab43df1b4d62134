"""Tiny random models saved in Hugging Face layout, each with a tokenizer of whole words, and prompts for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

UNKNOWN = "<unk>"
WORDS = "the a girl boy named Lily Max Sue went home ran . She He it".split()

LONGEST = 32
"""Tokens that the models of `tiny` read at most."""

ROWS: list[dict[str, Any]] = [
    {
        "clean": "the girl named Lily ran .",
        "corrupt": "the boy named Lily ran .",
        "answer": " She",
        "wrong": " He",
    },
    {
        "clean": "the boy named Max went home .",
        "corrupt": "the girl named Max went home .",
        "answer": "He",
        "wrong": ["She", "it"],
    },
    {
        "clean": "a girl named Sue ran home .",
        "corrupt": "a boy named Sue ran home .",
        "answer": "She",
        "wrong": ["He"],
    },
]


def save_models(folder: Path) -> Path:
    """`folder` with the models `gpt2` (2 layers of 2 heads) and `llama` (2 layers of 4 heads, 2 key/value heads)."""
    save_gpt2(folder / "gpt2")
    tiny.llama(layers=2).source.save_pretrained(folder / "llama")
    save_tokenizer(folder / "llama")
    return folder


def save_gpt2(folder: Path, **changes: float) -> Path:
    """A GPT-2 of 2 layers of 2 heads; `changes` are written into all of a named parameter, NaN for example."""
    model = tiny.gpt2(layers=2, heads=2).source
    with torch.no_grad():
        for name, value in changes.items():
            model.get_parameter(name).fill_(value)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_unstable_gpt2(folder: Path, *, bias: bool) -> Path:
    """A GPT-2 of one layer whose norms divide zero by zero once nothing flows in.

    Without a bias on what attention writes, nothing at all flows where every edge is cut.
    """
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1,
        n_head=2,
        n_embd=16,
        vocab_size=40,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        layer_norm_epsilon=0.0,
        initializer_range=0.4,
    )
    model = transformers.GPT2LMHeadModel(config)
    if bias:
        with torch.no_grad():
            model.transformer.h[0].attn.c_proj.bias.normal_()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    vocabulary = {word: index for index, word in enumerate([UNKNOWN, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN).save_pretrained(folder)


def write_prompts(path: Path, rows: Sequence[dict[str, Any] | str] = ROWS) -> Path:
    """A prompt file; a row that is a string goes in as it stands."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path
