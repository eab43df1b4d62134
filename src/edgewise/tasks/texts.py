"""Texts on a model's tokens, to take the mean of every node over.

A JSONL file, each line of which is a text, `{"text": "…"}`, or a row of prompts (jsonl.py), which stands for two: its
clean and its corrupted prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgewise.errors import EdgewiseError, listed, quoted, shorten
from edgewise.files import decode, read_bytes
from edgewise.json_files import parse_json
from edgewise.models import Decoder
from edgewise.tasks.jsonl import digest, is_text, row_of
from edgewise.tasks.own_prompts import MOST_CHARACTERS, MOST_TOKENS
from edgewise.tasks.task import pad
from edgewise.tasks.tokens import check_length, conversation, encode_all, encode_bare, unknown_words

WHAT = "the texts to take the mean over"


@dataclass(frozen=True)
class Texts:
    """Texts on a model's tokens.

    Attributes:
        tokens, mask: `[texts, pos]`, padded on the right.
        settings: what finds them again: `file` and its `sha256`; and how many `texts` and `tokens` they are.
    """

    tokens: Tensor
    mask: Tensor
    settings: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.tokens)


def read_texts(model: Decoder, given: str | Path | Mapping[str, Any]) -> Texts:
    """The texts of a file, on the model's device.

    Args:
        given: its path, or the `settings` of texts that were read before: `file` and `sha256`.

    Raises:
        EdgewiseError: there is no such file, it has changed since, or some lines are no text that the model can read
            (the message lists them).
    """
    path = Path(given["file"] if isinstance(given, Mapping) else given).expanduser()
    data = read_bytes(path, WHAT)
    sha256 = digest(data)
    if isinstance(given, Mapping) and given["sha256"] != sha256:
        raise EdgewiseError(f"{WHAT}, {str(path)!r}, have changed since the run was made")
    lines = [one for one in enumerate(decode(data, path, WHAT).split("\n"), start=1) if one[1].strip()]
    if not lines:
        raise EdgewiseError(f"{WHAT}: {str(path)!r} is empty: it needs at least one line of JSON")
    ids: list[list[int]] = []
    bad: list[str] = []
    for number, line in lines:
        try:
            ids += _encoded(model, number, line)
        except EdgewiseError as error:
            bad.append(f"line {number}: {str(error).removeprefix(': ')}")
    if bad:
        raise EdgewiseError(
            f"{WHAT}: {len(bad):,} of the {len(lines):,} lines of {str(path)!r} cannot be used:{listed(bad)}"
        )
    tokens, mask = pad(ids, max(map(len, ids)))
    settings = {"file": str(path.resolve()), "sha256": sha256, "texts": len(ids), "tokens": int(mask.sum())}
    return Texts(tokens.to(model.device), mask.to(model.device), settings)


def _encoded(model: Decoder, number: int, line: str) -> list[list[int]]:
    """Token ids of what a line holds: one text, or two prompts."""
    value, rendered = parse_json(line, ""), False
    if isinstance(value, dict) and "text" in value and "clean" not in value and "messages" not in value:
        if not is_text(value["text"]):
            raise EdgewiseError(f"'text' should be text, not {shorten(repr(value['text']))}")
        texts = [value["text"]]
    elif isinstance(value, dict):
        row = row_of(number, line)
        rendered = row.messages is not None
        texts = [row.text.clean, row.text.corrupt]
        if row.messages is not None:
            texts = [conversation(model, messages) for messages in row.messages]
    else:
        raise EdgewiseError(f"should be an object with 'text', or a row of prompts, not a {type(value).__name__}")
    reads = model.config.n_context or MOST_TOKENS
    for text in texts:
        if len(text) > MOST_CHARACTERS * reads:
            raise EdgewiseError(
                f"has {len(text):,} characters, and model {model.name!r} reads at most {reads:,} tokens"
            )
    found = encode_bare(model, texts) if rendered else encode_all(model, texts)
    for text, ids in zip(texts, found, strict=True):
        check_length(model, ids, f"the text {quoted(text, 40)}")
        if unknown_words(model, ids):
            raise EdgewiseError(f"the tokenizer has no word for part of {quoted(text, 40)}")
    return found
