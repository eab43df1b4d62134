"""The models that come with edgewise, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
