"""How large a page of 1,041 edges is, how fast it opens, and how soon it answers a click, in Debian's Chromium.

    python benchmarks/page.py [--out FOLDER]

The circuit is the known one of IOI in GPT-2 small's graph (1,041 edges), written as the run of a method that scores
edges, so that the slider has something to do: its own edges have scores above 1, all others below, at random.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from edgewise.graph import Circuit
from edgewise.graph.eap_json import to_dict
from edgewise.reports.page import make_page, read_sources
from edgewise.runs.reading import FORM
from edgewise.tasks.known import IOI

CHROMIUM = "/usr/bin/chromium"
TIMES = 5
NODES = ("a9.h9", "m10", "a10.h0", "m8", "a8.h6", "m9")
"""What is pointed at and clicked; all on the screen as the page opens."""


def write_known_run(folder: Path) -> Path:
    """The known IOI circuit as a run folder, with scores drawn at random."""
    known = IOI.circuit
    drawn = np.random.default_rng(0).random(known.edges.shape)
    ports = known.ports.astype(np.float64)
    circuit = Circuit(known.graph, known.edges, known.ports, drawn + known.edges, ports)
    record: dict[str, Any] = {
        "form": FORM,
        "finished": True,
        "date": None,
        "command": None,
        "settings": {
            "method": "by hand",
            "threshold": 1.0,
            "ablation": "resample",
            "metric": "kl_div",
            "task": {"task": "ioi", "examples": 100},
            "model": {"name": "gpt2", "dtype": "float32", "fingerprint": ""},
        },
        "graph": asdict(circuit.graph),
        "result": {
            "n_edges": circuit.n_edges,
            "n_edges_connected": circuit.n_edges_connected,
            "n_graph_edges": circuit.graph.n_edges,
            "metric": 0.0,
            "metric_full": 0.0,
            "metric_ablated": 0.0,
            "known_circuit": asdict(IOI.compare(circuit)),
            "scoring": {"rule": "threshold"},
        },
        "versions": {},
    }
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "circuit.json").write_text(json.dumps(to_dict(circuit)))
    (folder / "trace.jsonl").write_text("")
    return folder


def answer_time(page: Page, act: Callable[[], object]) -> float:
    """Milliseconds from an input event to the second frame after it: by then the graph has been drawn anew."""
    page.evaluate("window.answered = 0")
    act()
    page.wait_for_timeout(300)
    return page.evaluate("window.answered")


WATCH = """(kinds) => kinds.forEach((kind) => window.addEventListener(kind, (event) => {
  const painted = () => { window.answered = Math.max(window.answered, performance.now() - event.timeStamp); };
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(painted)));
}, { capture: true }))"""
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
PLACE = "(name) => { const at = document.querySelector('#graph')._cyreg.cy.nodes(`[label = '${name}']`); "
PLACE += "const { x, y } = at.renderedPosition(); return [x, y]; }"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, help="keep the page in this folder")
    chosen = options.parse_args()
    if not Path(CHROMIUM).exists():
        print(f"no Chromium at {CHROMIUM}, so the page is not measured")
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = write_known_run(Path(scratch) / "known-ioi")
        started = time.perf_counter()
        sources = read_sources([run])
        text = make_page(sources, [{}])
        made = time.perf_counter() - started
        folder = chosen.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "known-ioi.html"
        file.write_text(text)
        print(f"{sources[0].circuit.n_edges:,} edges: {len(text.encode()) / 1e6:.2f} MB, made in {made:.1f} s")
        print(f"{os.cpu_count()} CPU cores; load {os.getloadavg()[0]:.1f} when this began")
        measure(file)


def measure(file: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        loads = []
        for _ in range(TIMES):
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready]")
            loads.append(page.evaluate(PAINTED))
        print(f"opens in {statistics.median(loads):.0f} ms (until the first picture stands; at most {max(loads):.0f})")
        at = page.locator("#graph").bounding_box()
        assert at is not None

        def click(name: str) -> None:
            x, y = page.evaluate(PLACE, name)
            page.mouse.click(at["x"] + x, at["y"] + y)

        box = page.locator("#slider").bounding_box()
        assert box is not None

        def along(to: float) -> tuple[float, float]:
            return box["x"] + 9 + (box["width"] - 18) * to, box["y"] + box["height"] / 2

        def slide(to: float) -> None:
            page.mouse.click(*along(to))

        def drag(to: float) -> None:
            page.mouse.move(*along(to))

        def point(name: str) -> None:
            x, y = page.evaluate(PLACE, name)
            page.mouse.move(at["x"] + x, at["y"] + y)

        page.evaluate(WATCH, ["mousemove"])
        say("pointing at a node", [answer_time(page, lambda name=name: point(name)) for name in NODES])
        page.mouse.move(5, 5)
        page.evaluate(WATCH, ["mousedown", "keydown", "input"])
        say(
            "clicking a node",
            [answer_time(page, lambda name=name: click(name)) for name in NODES],
        )
        page.keyboard.press("Escape")
        page.locator("#search").focus()
        say(
            "a letter in the search",
            [answer_time(page, lambda letter=letter: page.keyboard.press(letter)) for letter in "a9.h9"],
        )
        page.locator("#search").fill("")
        page.wait_for_timeout(200)
        say("a kind off and on", [answer_time(page, lambda: page.locator("#kind-mlp").click()) for _ in range(4)])
        slide(0.6)
        page.mouse.down()
        say("dragging the slider", [answer_time(page, lambda to=to: drag(to)) for to in (0.58, 0.55, 0.52, 0.5, 0.47)])
        page.mouse.up()
        say("jumping along the slider", [answer_time(page, lambda to=to: slide(to)) for to in (0.1, 0.9, 0.5, 0.3)])
        page.locator("#slider").focus()
        say("the slider by a key", [answer_time(page, lambda: page.keyboard.press("ArrowRight")) for _ in range(4)])
        browser.close()


def say(what: str, times: list[float]) -> None:
    print(f"{what}: {statistics.median(times):.0f} ms (at most {max(times):.0f})")


if __name__ == "__main__":
    main()
