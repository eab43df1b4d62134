"""Word-level tokenizers, and rows of tokens filled in from templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN = "[PAD]", "[UNK]"


def vocabulary(*lists: Iterable[str]) -> dict[str, int]:
    """Padding and unknown first, then the words of the lists in their order, each once."""
    return {word: index for index, word in enumerate(dict.fromkeys([PAD, UNKNOWN, *(w for ws in lists for w in ws)]))}


def build_tokenizer(
    ids: dict[str, int], pattern: str, joins: Sequence[tuple[str, str]], positions: int, bos: str | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the matches of `pattern`; what lies between them, such as spaces, is dropped.

    Args:
        joins: regular expressions and what takes their place in decoded text, whose tokens stand a space apart.
        bos: a token for the start of a prompt; the tokenizer has it, but does not add it.
    """
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    # The vocabulary has no "##" pieces; the first decoder is here because it puts spaces between tokens.
    replacements = [decoders.Replace(Regex(found), instead) for found, instead in joins]
    backend.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), *replacements]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        unk_token=UNKNOWN,
        pad_token=PAD,
        padding_side="right",
        model_max_length=positions,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


class Templates:
    """Prompts with slots, as rows of tokens `[templates, pos]` padded on the right.

    A template is a text with slots such as `{name}`; `slots` are all slots there are, in their order.
    """

    def __init__(self, texts: Sequence[str], slots: Sequence[str], ids: dict[str, int], pattern: str) -> None:
        split = [re.findall(r"\{\w+\}|" + pattern, text) for text in texts]
        rows = [[-1 - slots.index(p[1:-1]) if p.startswith("{") else ids[p] for p in pieces] for pieces in split]
        longest = max(len(row) for row in rows)
        self.pad = ids[PAD]
        self.rows = torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])
        self.lengths = torch.tensor([len(row) for row in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def fill(self, which: Tensor, values: Tensor) -> Tensor:
        """Tokens `[count, pos]` of the templates `which` `[count]` with slots filled with `values` `[count, slots]`."""
        tokens = self.rows[which]
        return torch.where(tokens < 0, values.gather(1, (-1 - tokens).clamp_min(0)), tokens)


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, rows: Tensor) -> None:
    """The tokens that a model is trained on are those a user gets by encoding the text, BOS aside."""
    special = tokenizer.all_special_ids
    for row in rows.tolist():
        bare = [token for token in row if token not in special]
        text = str(tokenizer.decode(bare))
        assert tokenizer.encode(text, add_special_tokens=False) == bare, text
