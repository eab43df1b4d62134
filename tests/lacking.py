"""What a test may lack, and what would bring it. No torch: what hands out the tests of a parallel run reads it too."""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"

NO_SHARED = "the shared models and prompts are not beside the clone"
NO_CHROMIUM = "there is no Chromium"
NO_BUNDLER = "the page's bundler is not installed"

WHAT_BRINGS_IT = {
    NO_SHARED: "they come with the project's own checkout, in ../shared",
    NO_CHROMIUM: "apt-get install chromium",
    NO_BUNDLER: "cd web && npm ci",
}
"""By the reason for which a test was skipped, what its user would do about it."""
