"""Tiny random models with tokenizers: GPT-2's own, and ones of whole words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny import NO_SHARED, SHARED

from edgewise.models import Decoder, load_model

UNKNOWN = "<unk>"


def shared(path: str) -> Path:
    if not (SHARED / path).exists():
        pytest.skip(NO_SHARED)
    return SHARED / path


@cache
def gpt2_with_random_weights(positions: int = 16) -> Decoder:
    """GPT-2's real tokenizer on a model that is as small as its vocabulary allows."""
    folder = shared("tokenizers/gpt2")
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50257, n_positions=positions, n_embd=8, n_layer=1, n_head=2)
    return load_model(GPT2LMHeadModel(config), tokenizer=GPT2TokenizerFast.from_pretrained(folder))


def model_of_words(
    words: Sequence[str], *, pieces: str = r"\w+|[^\w\s]", bos: str | None = None, positions: int = 64, tokens: int = 0
) -> Decoder:
    """A model whose tokens are `<unk>` and `words`; text is cut at whitespace and into what `pieces` matches.

    `bos` is one of the words, which the tokenizer names but does not put before a text. `tokens` is how many the model
    has, if not as many as the tokenizer.
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence as Steps
    from tokenizers.pre_tokenizers import Split, WhitespaceSplit
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([UNKNOWN, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Steps([WhitespaceSplit(), Split(Regex(pieces), "isolated")])
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=tokens or len(vocabulary), n_positions=positions, n_embd=8, n_layer=1, n_head=2)
    return load_model(
        GPT2LMHeadModel(config),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, bos_token=bos),
    )
