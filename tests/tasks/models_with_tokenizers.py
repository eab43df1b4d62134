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


@cache
def gemma_like(left_out: tuple[str, ...] = (), puts_bos: bool = True, dummy_prefix: bool = False) -> Decoder:
    """A random Llama with a tokenizer as Gemma's: `▁` for spaces, digits by themselves, bytes for the rest, BOS first.

    Its words are those of the five tasks but for `left_out`, which fall into letters. `dummy_prefix` puts a space
    before every text, as Llama 2's does.
    """
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import Unigram
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from edgewise.tasks import word_lists

    words = {
        *(word for name, value in vars(word_lists).items() if name.isupper() for word in value if not word.isdigit()),
        *"lasted from the year to and went gave a he she self is really great friend isn".split(),
    }
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [(one, -9.0) for one in "▁0123456789abcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWZ.,:()'\n\""]
    pieces += [(f"▁{word}", -3.0) for word in sorted(words - {*left_out})]
    pieces += [(word, -4.0) for word in ("Then", "The", "So", "def", "param", "'t", '"""', "    ")]
    model = Unigram([(one, 0.0) for one in specials] + pieces, 3, True)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *steps] if dummy_prefix else steps)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    if puts_bos:
        tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(specials) + len(pieces),
        max_position_embeddings=256,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    names = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), specials, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    return load_model(LlamaForCausalLM(config), tokenizer=fast)
