"""Small datasets with the columns of the MIB benchmark's, and a model of InterpBench's in its files."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Punctuation, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as Steps

from edgewise.graph import Circuit, Graph
from edgewise.graph.eap_json import to_dict
from edgewise.models.plain_config import PlainTransformerConfig
from edgewise.models.plain_transformer import PlainTransformer

NAMES = ("Mary", "John", "Tom", "Sue", "Kate", "Bob")
SPLITS = {"train": 8, "validation": 6, "test": 4}


def ioi_rows(count: int, seed: int, names: Sequence[str] = NAMES) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    template = "Then, {name_A} and {name_B} went to the {place}. {name_C} gave a {object} to"
    for _ in range(count):
        io, subject, a, b, c = draw.sample(names, 5)
        words = {"place": "store", "object": "drink"}

        def said(first: str, second: str, third: str, words: dict[str, str] = words) -> str:
            return template.format(name_A=first, name_B=second, name_C=third, **words)

        def other(prompt: str, right: str, wrong: str) -> dict[str, Any]:
            return {"prompt": prompt, "choices": [right, wrong], "answerKey": 0}

        yield {
            "template": template,
            "metadata": {
                **{"subject": subject, "indirect_object": io, "random_a": a, "random_b": b, "random_c": c},
                **words,
            },
            "prompt": said(io, subject, subject),
            "choices": [io, subject],
            "answerKey": 0,
            "abc_counterfactual": other(said(a, b, c), io, subject),
            "s2_io_flip_counterfactual": other(said(io, subject, io), subject, io),
        }


def _choices(labels: Sequence[str], texts: Sequence[str], key: int, question: str) -> dict[str, Any]:
    lines = "".join(f"{label}. {text}\n" for label, text in zip(labels, texts, strict=True))
    return {
        "prompt": f"Question: {question}\n{lines}Answer:",
        "choices": {"label": list(labels), "text": list(texts)},
        "answerKey": key,
    }


def choice_rows(count: int, seed: int, arc: bool = False) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    colors = ("red", "blue", "green", "black")
    for number in range(count):
        texts, key = draw.sample(colors, 4), draw.randrange(4)
        question = f"A box is {texts[key]}. What color is a box?"
        own = {"arc_id": f"Mercury_{number}", "question": question, "label": "ABCD"[key]} if arc else {}
        yield {
            **({} if arc else {"dataset": "copycolors", "dataset_specific_id": number}),
            **own,
            **_choices("ABCD", texts, key, question),
            "answerPosition_counterfactual": _choices("ABCD", texts[::-1], 3 - key, question),
            "symbol_counterfactual": _choices("EFGH", texts, key, question),
            "idx": number,
        }


def sum_rows(count: int, seed: int, operator: str) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    words = {"+": "plus", "-": "minus"}[operator]

    def made(one: int, other: int) -> dict[str, Any]:
        label = one + other if operator == "+" else one - other
        return {"label": label, "prompt": f"Q: How much is {one} {words} {other}? A: "}

    for number in range(count):
        one, other = draw.randint(5, 9), draw.randint(1, 4)
        row = made(one, other)
        changed = made(draw.randint(5, 9), draw.randint(1, 4))
        yield {
            "idx": number,
            "template": "Q: How much is {operand1} {word} {operand2}? A: ",
            "prompt": row["prompt"],
            "label": str(row["label"]),
            "operator": operator,
            "num_digit": 1,
            "random_counterfactual": changed,
            "operand1": one,
            "operand2": other,
        }


def write_datasets(folder: Path) -> Path:
    """All six datasets as JSONL files, as the hub has arithmetic and ARC."""
    for seed, (split, count) in enumerate(SPLITS.items()):
        for name, rows in (
            ("ioi", ioi_rows(count, seed)),
            ("copycolors_mcqa/4_answer_choices", choice_rows(count, seed)),
            ("arithmetic_addition", sum_rows(count, seed, "+")),
            ("arithmetic_subtraction", sum_rows(count, seed, "-")),
            ("arc_easy", choice_rows(count, seed + 10, arc=True)),
            ("arc_challenge", choice_rows(count, seed + 20, arc=True)),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            (folder / name / f"{split}.jsonl").write_text(text)
    return folder


WORDS = (
    *(
        "Then , and went to the store . gave a drink Question : Answer box is What color ? A B C D E F G H Q How much"
    ).split(),
    *("plus minus red blue green black").split(),
    *NAMES,
    *map(str, range(14)),
)


def save_tokenizer(folder: Path) -> int:
    """A tokenizer of whole words, with a BOS that it does not put before a text. Returns its number of tokens."""
    vocabulary = {word: index for index, word in enumerate(["<bos>", "<unk>", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Steps([WhitespaceSplit(), Punctuation()])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<bos>")
    fast.save_pretrained(folder)
    return len(vocabulary)


def save_gpt2(folder: Path) -> Path:
    """A random GPT-2 of 2 layers of 2 heads on those tokens."""
    tokens = save_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=tokens, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def write_interp_bench(folder: Path) -> Circuit:
    """A random model in InterpBench's files, with a reference circuit. Returns that."""
    (folder / "ioi_all_splits").mkdir(parents=True)
    tokens = save_tokenizer(folder)
    torch.manual_seed(1)
    sizes = dict(n_layers=2, n_heads=2, d_model=16, d_head=8, d_mlp=32, d_vocab=tokens)
    kinds: dict[str, Any] = dict(n_context=32, activation="gelu", normalization="LN", d_vocab_out=tokens)
    model = PlainTransformer(PlainTransformerConfig(**sizes, **kinds))
    state = {name: 0.4 * torch.randn_like(value) for name, value in model.state_dict().items()}
    torch.save(state, folder / "ioi_all_splits" / "ll_model_100_100_80.pth")
    config = {**sizes, "n_ctx": 32, "act_fn": "gelu", "normalization_type": "LN", "dtype": torch.float32, "seed": 3}
    (folder / "ll_model_cfg.pkl").write_bytes(pickle.dumps({**config, "device": "cuda", "tokenizer_name": None}))
    edges = ["input->m0", "m0->a1.h1<v>", "a1.h1->logits", "m0->a1.h1<q>", "input->a1.h1<k>"]
    reference = Circuit.from_names(Graph(2, 2, d_model=16), edges)
    (folder / "interpbench_graph.json").write_text(json.dumps(to_dict(reference)))
    return reference
