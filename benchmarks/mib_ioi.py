"""Prompts of edgewise's own IOI task in the columns of the MIB benchmark's dataset `ioi`, for where that cannot be had.

    python benchmarks/mib_ioi.py FOLDER
    edgewise mib --task ioi --model tiny-ioi --data FOLDER

Writes FOLDER/ioi/train.jsonl, validation.jsonl and test.jsonl: names, places and things drawn evenly, the indirect
object first, each row once in all splits together. They are not the benchmark's prompts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewise.tasks.ioi import TEMPLATE
from edgewise.tasks.word_lists import IOI_NAMES, IOI_OBJECTS, IOI_PLACES

COUNTS = {"train": 100, "validation": 50, "test": 50}


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """So many rows, no two of the same prompt."""
    draw, seen = random.Random(seed), set()
    while len(seen) < count:
        io, subject, *others = draw.sample(IOI_NAMES, 5)
        place, thing = draw.choice(IOI_PLACES), draw.choice(IOI_OBJECTS)

        def said(*names: str, place: str = place, thing: str = thing) -> str:
            return TEMPLATE.format(
                **dict(zip(("first", "second", "giver"), names, strict=True)), place=place, thing=thing
            )

        def other(prompt: str, right: str, wrong: str) -> dict[str, Any]:
            return {"prompt": prompt, "choices": [right, wrong], "answerKey": 0}

        prompt = said(io, subject, subject)
        if prompt in seen:
            continue
        seen.add(prompt)
        drawn = dict(zip(("random_a", "random_b", "random_c"), others, strict=True))
        yield {
            "template": TEMPLATE,
            "metadata": {"subject": subject, "indirect_object": io, **drawn, "object": thing, "place": place},
            "prompt": prompt,
            "choices": [io, subject],
            "answerKey": 0,
            "abc_counterfactual": other(said(*others), io, subject),
            "s2_io_flip_counterfactual": other(said(io, subject, io), subject, io),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    folder = asked.folder / "ioi"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = rows(sum(COUNTS.values()))
    for split, count in COUNTS.items():
        text = "".join(f"{json.dumps(next(drawn))}\n" for _ in range(count))
        (folder / f"{split}.jsonl").write_text(text, "utf-8")
    print(f"written to {folder}: {', '.join(f'{count} {split}' for split, count in COUNTS.items())}")


if __name__ == "__main__":
    main()
