"""The page in a notebook, in Chromium: what is clicked in the frame is what Python reads."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny

import edgewise as ew

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
notebook_view = pytest.importorskip("edgewise.reports.notebook_view", reason="anywidget is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

NOTEBOOK = """<!doctype html><body><div id="out"></div><script type="module">
%s
const values = JSON.parse(document.getElementById("values").textContent);
const model = { sent: [], get: (name) => values[name], set(name, value) { values[name] = value; },
  save_changes() { this.sent.push(values.selected); } };
window.model = model;
window.forget = view.render({ model, el: document.getElementById("out") });
</script>
<script type="application/json" id="values">%s</script></body>"""


@pytest.fixture(scope="module")
def run() -> ew.Run:
    model = ew.load_model("tiny-ioi")
    return ew.discover(model, ew.load_task("ioi", model, examples=8), threshold=0.05)


@pytest.mark.skipif(CHROMIUM is None, reason=tiny.NO_CHROMIUM)
def test_what_is_clicked_in_the_page_is_selected_in_the_notebook(run, tmp_path):
    # In a thread of its own: kernels that other tests have started leave an event loop to this one.
    with ThreadPoolExecutor(1) as other:
        other.submit(_click, run, tmp_path).result()


def _click(run, tmp_path):
    view = run.show(prompts=1)
    values = {name: getattr(view, name) for name in ("html", "height", "sandbox", "selected")}
    written = json.dumps(values).replace("<", "\\u003c")
    script = Path(notebook_view.__file__).with_name("page").joinpath("view.js").read_text()
    module = script.replace("export default", "const view =")
    (tmp_path / "notebook.html").write_text(NOTEBOOK % (module, written))
    said: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "notebook.html").as_uri())
        inside = page.frame_locator("iframe")
        inside.locator("html[data-ready]").wait_for(timeout=20_000)
        selected = "() => window.model.get('selected')"

        inside.locator("#search").fill("a3.h1")
        inside.locator("#search").press("Enter")
        page.wait_for_function(f"({selected})() === 'a3.h1'")
        inside.locator("#search").fill("a0.h1->logits")
        inside.locator("#search").press("Enter")
        page.wait_for_function(f"({selected})() === 'a0.h1->logits'")
        inside.locator("#search").press("Escape")
        inside.locator("#graph").press("Escape")
        page.wait_for_function(f"({selected})() === null")
        sent = page.evaluate("() => window.model.sent.length")

        # A click on the drawing itself.
        frame = page.frames[1]
        x, y = frame.evaluate(
            "() => { const sheet = document.querySelector('#graph .sheet').getBoundingClientRect();"
            " const [left, top] = document.querySelector('#graph').graph.standing()"
            ".find((one) => one.names.includes('a0.h3')).box;"
            " return [sheet.left + left, sheet.top + top]; }"
        )
        box = page.locator("iframe").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + x, box["y"] + y)
        page.wait_for_function(f"({selected})() === 'a0.h3'")
        assert page.evaluate("() => window.model.sent.length") == sent + 1

        # Messages of anybody else are not heard, nor any once the view is gone.
        page.evaluate("() => window.postMessage({ edgewise: 'selected', name: 'evil' }, '*')")
        page.evaluate("() => window.forget()")
        inside.locator("#graph").press("Escape")
        page.wait_for_timeout(100)
        assert page.evaluate(selected) == "a0.h3"
        chromium.close()
    assert said == []


def test_python_reads_and_watches_what_is_selected(run):
    view = run.show(prompts=1, height=400)
    assert (view.selected, view.height) == (None, 400)
    assert view.html.startswith("<!doctype html>")
    seen: list[str] = []
    view.observe(lambda change: seen.append(change["new"]), "selected")
    view.set_state({"selected": "a3.h1"})  # as the browser does
    assert view.selected == "a3.h1"
    assert seen == ["a3.h1"]
    assert repr(view) == "<View: a3.h1 is chosen>"
