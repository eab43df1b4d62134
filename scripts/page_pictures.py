"""Make the pictures of the page in docs/pictures, in Debian's Chromium.

    python scripts/page_pictures.py [--real RUN] [--keep FOLDER]

Runs are made on the models that edgewise brings, but for a real model's: `--real` names a run folder of 300 edges in
SmolLM2-135M (`edgewise discover ioi --model smollm2 --method edge-attribution-ig --edges 300 --metric logit_diff`).
Pictures have at most 256 colours, so that they stay small.
"""

from __future__ import annotations

import argparse
import io
import runpy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import edgewise as ew
from edgewise.reports.page import make_page, measure, read_sources, write_gallery
from edgewise.runs import load_again

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))
COLOURS, FREQUENT = 256, 96
WIDE, PHONE = (1440, 900), (390, 844)
GAP = 8
"""Between pictures on one sheet."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="the folder of a run in a real model")
    parser.add_argument("--keep", type=Path, help="keep runs and pages in this folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        home = options.keep or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        browser = playwright.chromium.launch(executable_path=BENCHMARK["CHROMIUM"], args=["--headless", "--no-sandbox"])

        def opened(file: Path, state: str, size: tuple[int, int], dark: bool) -> Page:
            width, height = size
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            page.goto(file.resolve().as_uri() + state)
            return page

        def shoot(
            name: str,
            file: Path,
            *,
            state: str = "",
            size: tuple[int, int] = WIDE,
            dark: bool = False,
            act: Callable[[Page], Any] | None = None,
            part: str | None = None,
        ) -> None:
            """A picture of a page in a state, of its first screen or of one part of it."""
            page = opened(file, state, size, dark)
            page.wait_for_timeout(500)
            if act:
                act(page)
            page.wait_for_timeout(700)
            taken = page.locator(part).screenshot() if part else page.screenshot()
            page.close()
            keep(name, Image.open(io.BytesIO(taken)).convert("RGB"))

        def sheet(name: str, file: Path, state: str = "") -> None:
            """One picture of a page on a screen and on a phone, light and dark, at half its size."""
            shots = []
            for (width, height), dark in ((WIDE, False), (WIDE, True), (PHONE, False), (PHONE, True)):
                page = opened(file, state, (width, height), dark)
                page.wait_for_timeout(1200)
                shots.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize((width // 2, height // 2)))
                page.close()
            width = sum(shot.width for shot in shots) + GAP * (len(shots) - 1)
            whole = Image.new("RGB", (width, max(shot.height for shot in shots)), "#9aa3ad")
            left = 0
            for shot in shots:
                whole.paste(shot, (left, 0))
                left += shot.width + GAP
            keep(f"sheet-{name}", whole)

        small(home, shoot, sheet)
        if options.real is not None:
            real(home, options.real, shoot, sheet)
        browser.close()


def keep(name: str, picture: Image.Image) -> None:
    """Write a picture of few colours: the most frequent as they are, of the others the nearest of a wide choice."""
    colours, each, counts = np.unique(
        np.asarray(picture).reshape(-1, 3).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    wide = picture.quantize(COLOURS - FREQUENT, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = np.concatenate([colours[np.argsort(-counts)[:FREQUENT]], np.reshape(wide, (-1, 3))])
    nearest = ((colours[:, None] - palette[None]) ** 2).sum(-1).argmin(1)
    few = Image.fromarray(nearest[each].reshape(picture.height, picture.width).astype(np.uint8), "P")
    few.putpalette(palette.astype(np.uint8).ravel().tolist())
    file = PICTURES / f"{name}.png"
    few.save(file, optimize=True)
    print(f"{name}.png: {file.stat().st_size / 1000:.0f} kB")


def small(home: Path, shoot: Callable[..., None], sheet: Callable[..., None]) -> None:
    """Pages of runs on the models that edgewise brings."""
    acdc = made(home / "acdc", "ioi", threshold=0.01)
    ioi = paged(home / "ioi.html", [acdc])
    shoot("report-page", ioi)
    sheet("run", ioi, "#node=a3.h1")
    shoot("report-page-phone", ioi, size=PHONE)
    shoot("report-dark", ioi, dark=True, state="#node=a3.h1")
    shoot("report-meaning", ioi, act=lambda page: page.locator(".figures .what").nth(2).click())
    shoot("report-slider", ioi, state="#stop=70")
    shoot("report-attention", ioi, act=lambda page: page.locator("[data-head='a3.h1']").click(), part="#attention")
    shoot("report-faithful", ioi, part="#faithfulness")
    spans = made(home / "spans", "ioi", threshold=0.01, positions="spans")
    sheet("spans", paged(home / "spans.html", [spans]))
    shoot("report-spans", home / "spans.html", state="#edge=input->a3.h1<v>@S2".replace(">", "%3E"))
    others = [
        made(home / "eap-ig", "ioi", method="edge-attribution-ig", edges=31),
        made(home / "acdc-high", "ioi", threshold=0.1),
    ]
    three = paged(home / "three.html", [acdc, *others])
    shoot("report-compare", three)
    sheet("compare", three)
    shoot("report-compare-own", three, state="#edges-of=1")
    known = made(home / "reverse", "tracr-reverse", method="edge-attribution-ig", edges=12)
    shoot("report-known", paged(home / "reverse.html", [known]))
    sheet("known", home / "reverse.html")
    large = home / "known-ioi"
    page = paged(home / "known.html", [large if large.exists() else BENCHMARK["write_known_run"](large)], model=False)
    shoot("report-1041", page, state="#strongest=all")
    shoot("report-1041-chosen", page, state="#around=a9.h9&node=a9.h9")


def real(home: Path, run: Path, shoot: Callable[..., None], sheet: Callable[..., None]) -> None:
    """Pages of a run in a model of thirty layers."""
    page = paged(home / "real.html", [run])
    shoot("report-page-large", page)
    sheet("large", page)
    shoot("report-page-large-dark", page, dark=True)
    shoot("report-phone", page, size=PHONE, state="#node=a23.h3")
    shoot("report-around", page, state="#around=a23.h3&node=a23.h3")
    shoot("report-shared-heads", page, state="#strongest=all")
    shoot("report-table", page, part="#table")
    folder = home / "gallery"
    if not folder.exists():
        runs = [run, *(home / name for name in ("acdc", "spans", "eap-ig", "acdc-high", "reverse", "known-ioi"))]
        write_gallery(folder, [(source, {}) for one in runs for source in read_sources([one])])
    shoot("report-gallery", folder / "index.html", size=(1200, 760))
    sheet("gallery", folder / "index.html")


def made(folder: Path, task: str, **options: Any) -> Path:
    """The folder of a run of a task on its own model."""
    if not folder.exists():
        model = ew.load_model(task if task.startswith("tracr") else f"tiny-{task}")
        ew.discover(model, ew.load_task(task, model), command=["edgewise", "discover", task], **options).save(folder)
    return folder


def paged(file: Path, runs: Sequence[Path], *, model: bool = True) -> Path:
    if file.exists():
        return file
    sources = read_sources(runs)
    found: list[dict[str, Any]] = []
    for source in sources:
        split = source.settings["task"].get("split", "validation")
        found.append(measure(source, *load_again(source.folder, source.settings, split=split)) if model else {})
    file.write_text(make_page(sources, found))
    return file


if __name__ == "__main__":
    main()
