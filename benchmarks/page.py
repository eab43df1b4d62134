"""How large pages are, how fast they open, and how soon they answer, in Debian's Chromium.

    python benchmarks/page.py [--run FOLDER] [--page FILE] [--out FOLDER]

Two circuits, written as runs of a method that scores edges, so that the slider has something to do: the known one of
IOI in GPT-2 small's graph (1,041 edges), and 3,000 edges in 30 layers of 9 heads over 3 key/value heads, at random.
Each is measured as it opens, with its strongest paths, and with everything shown. `--run` measures a run of one's own,
`--page` a page that is there already (of several runs, or of a gallery).

Times are milliseconds from an input to the second frame after it, by when the strongest lines stand on the screen (of
very many, the weak ones come in the frames after that), and beside them what the page's own thread computed in all,
which says the same on a machine that does other things, too. Each is the median of several.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from edgewise.graph import Circuit, Graph
from edgewise.graph.eap_json import to_dict
from edgewise.reports.page import make_page, read_sources
from edgewise.reports.page.order import entering
from edgewise.runs.reading import FORM
from edgewise.tasks.known import IOI

CHROMIUM = "/usr/bin/chromium"
TIMES = 5
NODES = 6
"""What is pointed at and clicked."""
SETTLED = 700
"""Milliseconds after which a page that has opened is left in peace."""


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
    return _written(folder, record, circuit)


def write_large_run(folder: Path, edges: int = 3000) -> Path:
    """A circuit in the shape of a small model of today: nodes of different weight, and the strongest paths between."""
    graph = Graph(30, 9, n_kv_heads=3, ports=True)
    drawn = np.random.default_rng(0)
    senders = np.array([0.3 if node.kind != "head" else 1.0 for node in graph.sources])
    senders = np.where(senders == 0.3, 0.3 + 0.4 * drawn.random(len(senders)), drawn.random(len(senders)) ** 4)
    readers = drawn.random(len(graph.inputs)) ** 2
    senders[0], readers[-1] = 1.0, 1.0
    scores = np.where(graph.edges, np.outer(senders, readers) * (0.2 + drawn.random(graph.edges.shape)), 0.0)
    entered = entering(graph, scores)
    every = np.sort(np.concatenate([entered.edges[graph.edges], entered.ports[graph.port_edges]]))
    circuit = entered.at(graph, float(every[-edges])).with_scores(scores, np.zeros(len(graph.inputs)))
    record: dict[str, Any] = {
        "form": FORM,
        "settings": {
            "method": "by hand",
            "ablation": "resample",
            "metric": "kl_div",
            "task": {"task": "none", "examples": 100},
            "model": {"name": "large", "dtype": "float32", "fingerprint": ""},
        },
        "graph": asdict(graph),
        "result": {
            "n_edges": circuit.n_edges,
            "n_graph_edges": graph.n_edges,
            "metric": 0.1,
            "metric_full": 0.0,
            "metric_ablated": 1.0,
            "scoring": {"rule": "threshold"},
        },
    }
    return _written(folder, record, circuit)


def _written(folder: Path, record: dict[str, Any], circuit: Circuit) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "circuit.json").write_text(json.dumps(to_dict(circuit)))
    (folder / "trace.jsonl").write_text("")
    return folder


WATCH = """(kinds) => kinds.forEach((kind) => window.addEventListener(kind, (event) => {
  const painted = () => { window.answered = Math.max(window.answered, performance.now() - event.timeStamp); };
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(painted)));
}, { capture: true }))"""
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
PLACES = """() => { const sheet = document.querySelector("#graph .sheet").getBoundingClientRect();
  return document.querySelector("#graph").graph.standing()
    .map((one) => [one.label, sheet.left + one.box[0], sheet.top + one.box[1]])
    .filter(([label, x, y]) => /^[am]\\d/.test(label) && y > 0 && y < innerHeight - 20 && x < innerWidth); }"""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, help="keep the pages in this folder")
    options.add_argument("--run", type=Path, action="append", help="measure the page of this run instead")
    options.add_argument("--page", type=Path, action="append", default=[], help="measure this page instead")
    chosen = options.parse_args()
    if not Path(CHROMIUM).exists():
        print(f"no Chromium at {CHROMIUM}, so the page is not measured")
        return
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        runs = chosen.run or []
        if not runs and not chosen.page:
            runs = [write_known_run(home / "known-ioi"), write_large_run(home / "thirty-layers")]
        print(f"{os.cpu_count()} CPU cores; load {os.getloadavg()[0]:.1f} when this began")
        for file in chosen.page:
            print(f"\n{file.name}: {file.stat().st_size / 1e6:.2f} MB")
            measure(file)
        for run in runs:
            started = time.perf_counter()
            sources = read_sources([run])
            text = make_page(sources, [{}])
            made = time.perf_counter() - started
            folder = chosen.out or home
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{run.resolve().name}.html"
            file.write_text(text)
            edges = sources[0].circuit.n_edges
            print(f"\n{run.name}: {edges:,} edges: {len(text.encode()) / 1e6:.2f} MB, made in {made:.1f} s")
            measure(file)


class Watched:
    """A page whose answers are timed."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def computed(self) -> float:
        """Milliseconds that the page's thread has computed so far."""
        found = self.devtools.send("Performance.getMetrics")["metrics"]
        return 1000 * next(one["value"] for one in found if one["name"] == "TaskDuration")

    def answer(self, act: Callable[[], object]) -> tuple[float, float]:
        """Milliseconds until the second frame after an input, by when the graph is drawn anew, and those computed.

        What is computed later, such as the rest of very many lines and the tables below, counts in the second alone.
        """
        self.page.evaluate("window.answered = 0")
        before = self.computed()
        act()
        self.page.wait_for_timeout(600)
        return self.page.evaluate("window.answered"), self.computed() - before

    def say(self, what: str, acts: Sequence[Callable[[], object]]) -> None:
        say(what, [self.answer(act) for act in acts])


def say(what: str, found: Sequence[tuple[float, float]]) -> None:
    waited, computed = ([one[at] for one in found] for at in (0, 1))
    print(
        f"{what}: {statistics.median(waited):.0f} ms (at most {max(waited):.0f}); "
        f"{statistics.median(computed):.0f} ms computed (at most {max(computed):.0f})"
    )


def measure(file: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        watched = Watched(page)
        said: list[str] = []
        asked: set[str] = set()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        loads, computed = [], []
        for _ in range(TIMES):
            page.goto("about:blank")
            before = watched.computed()
            page.goto(file.resolve().as_uri())
            page.wait_for_selector("html[data-ready]")
            loads.append(page.evaluate(PAINTED))
            computed.append(watched.computed() - before)
        print(
            f"opens in {statistics.median(loads):.0f} ms (until the first picture stands; at most {max(loads):.0f}); "
            f"{statistics.median(computed):.0f} ms computed"
        )
        beside = asked - {file.resolve().as_uri(), "about:blank"}
        name = page.evaluate("document.querySelector('#graph').graph.nameSize()")
        print(f"  {len(said)} messages in the console, {len(beside)} requests; names of {name:.0f} px and more")
        watch = ("pointermove", "click", "keydown", "input", "change")
        page.evaluate(WATCH, watch)
        answers(watched)
        whole = page.locator("#show-all")
        if whole.is_visible():
            firsts = []
            for _ in range(TIMES):
                page.reload()
                page.wait_for_selector("html[data-ready]")
                page.wait_for_timeout(SETTLED)
                page.evaluate(WATCH, watch)
                firsts.append(watched.answer(whole.click))
            say("  showing everything, the first time", firsts)
            watched.say("  the strongest alone, and everything again", [whole.click] * (2 * NODES))
            answers(watched, "everything shown, ")
        browser.close()


def answers(watched: Watched, when: str = "") -> None:
    page = watched.page
    places = {name: (x, y) for name, x, y in page.evaluate(PLACES)}
    step = max(1, len(places) // NODES)
    nodes = list(places.values())[::step][:NODES]
    watched.say(f"  {when}pointing at a node", [lambda at=at: page.mouse.move(*at) for at in nodes])
    page.mouse.move(5, 5)
    watched.say(f"  {when}clicking a node", [lambda at=at: page.mouse.click(*at) for at in nodes])
    page.keyboard.press("Escape")
    page.locator("#search").focus()
    watched.say(
        f"  {when}a letter in the search", [lambda letter=letter: page.keyboard.press(letter) for letter in "a9.h"]
    )
    page.locator("#search").fill("")
    watched.say(f"  {when}a kind off and on", [page.locator("#kind-mlp, #kind-v").last.click] * NODES)
    if not when or not page.locator("#slider").is_visible():
        return
    page.locator("#slider").focus()
    watched.say("  the slider by a key", [lambda: page.keyboard.press("ArrowLeft")] * NODES)
    page.locator("#as-found").click()


if __name__ == "__main__":
    main()
