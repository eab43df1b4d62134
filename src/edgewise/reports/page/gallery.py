"""Pages of many runs in one folder, with a first page that leads to them: a site for any web host, or for no host."""

from __future__ import annotations

import base64
import html
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise import __version__
from edgewise.errors import EdgewiseError
from edgewise.evaluation.share import share_of_way
from edgewise.files import partial_of
from edgewise.reports.miniature import miniature
from edgewise.reports.page.data import page_data
from edgewise.reports.page.html import policy_hash, render
from edgewise.reports.page.listed import Coming
from edgewise.reports.page.source import Source
from edgewise.reports.words import metric_number, percent

INDEX = "index.html"
MOST_NAME = 60
"""Letters of a page's file name."""


@dataclass(frozen=True)
class Card:
    """What the first page says of one circuit."""

    file: str
    task: str
    model: str
    how: str
    size: str
    recovered: str
    measured: str
    picture: str


def require_free_folder(path: Path) -> None:
    """Raise an EdgewiseError if a gallery cannot be made at `path`."""
    if path.exists() or path.is_symlink():
        raise EdgewiseError(f"{str(path)!r} is there already; nothing is overwritten, so choose another with --out")
    if not path.parent.is_dir():
        raise EdgewiseError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")


def write_gallery(path: Path, runs: Iterable[tuple[Source, Mapping[str, Any]]]) -> list[Path]:
    """Write a folder with a page for each run and `index.html`, whole or not at all.

    Args:
        path: the folder, which is not there yet.
        runs: each run, and what `measure` gave for it. They may be over different graphs.

    Returns:
        The files, the first page first.

    Raises:
        EdgewiseError: there is something at `path` already, or it cannot be written, or there is no run.
    """
    require_free_folder(path)
    partial = partial_of(path)
    try:
        partial.mkdir()
        cards: list[Card] = []
        taken = {INDEX}
        for source, measured in runs:
            file = _file_name(source.label, taken)
            data: dict[str, Any] = page_data([source], [measured], __version__) | {"gallery": INDEX}
            (partial / file).write_text(render(data, source.label), encoding="utf-8")
            cards.append(_card(file, source, data["runs"][0]))
        if not cards:
            raise EdgewiseError("there is no run to make a gallery of")
        (partial / INDEX).write_text(_index(cards), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise EdgewiseError(f"cannot write {str(path)!r}: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return [path / INDEX, *(path / card.file for card in cards)]


def _file_name(label: str, taken: set[str]) -> str:
    """A name that any file system and any web host takes, and no other page has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.")[:MOST_NAME] or "run"
    number, name = 1, f"{plain}.html"
    while name.lower() in taken:
        number += 1
        name = f"{plain}-{number}.html"
    taken.add(name.lower())
    return name


def _card(file: str, source: Source, run: Mapping[str, Any]) -> Card:
    result, settings = source.result, source.settings
    full, ablated, own = (float(result[name]) for name in ("metric_full", "metric_ablated", "metric"))
    share = share_of_way(own, ablated, full)
    strength = Coming.of(source).strength
    what = "nodes" if source.real.whole_nodes else "edges"
    return Card(
        file,
        task=str(run["task"]),
        model=str(run["model"]),
        how=str(run["method"]) + ("" if source.finished else ", interrupted"),
        size=f"{result['n_edges']:,} of {result['n_graph_edges']:,} {what}",
        recovered="–" if share is None else percent(share),
        measured=f"{settings['metric']} {metric_number(settings['metric'], own)}",
        picture=miniature(source.circuit, np.where(np.isfinite(strength), strength, 0.0)),
    )


def _index(cards: list[Card]) -> str:
    """The first page. It runs nothing and loads nothing; pictures stand in it as data."""
    title = f"{len(cards)} circuit{'' if len(cards) == 1 else 's'}"
    policy = f"default-src 'none'; style-src {policy_hash(STYLE)}; img-src data:; base-uri 'none'; form-action 'none'"
    body = "\n".join(_card_html(card) for card in cards)
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title} · edgewise</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{title}</h1><p>What each model needs for its task: edges between its heads and MLPs, found and measured.</p>
</header>
<main>
<ul>
{body}
</ul>
</main>
<footer>edgewise {html.escape(__version__)}</footer>
</body>
</html>
"""
    return page.encode("utf-8", "replace").decode()


def _card_html(card: Card) -> str:
    words = {name: html.escape(value) for name, value in vars(card).items() if name != "picture"}
    picture = base64.b64encode(card.picture.encode("utf-8", "replace")).decode()
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{words[key]}</dd></div>"
        for name, key in (("method", "how"), ("size", "size"), ("recovered", "recovered"), ("metric", "measured"))
    )
    return (
        f'<li><a href="{words["file"]}"><img alt="" width="320" height="190" src="data:image/svg+xml;base64,{picture}">'
        f"<h2>{words['task']} <span>in</span> {words['model']}</h2></a><dl>{rows}</dl></li>"
    )


STYLE = """
:root { --page: #ffffff; --ink: #1c2430; --soft: #5a6573; --line: #dfe4ea; --accent: #0b57c2;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181e; --ink: #e8ecf1; --soft: #a3aebb; --line: #2b333d; --accent: #7db4ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 20px 24px 50px; background: var(--page); color: var(--ink);
  font: 15px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 24px; margin: 0; letter-spacing: -0.01em; }
header p { margin: 2px 0 18px; color: var(--soft); }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 18px;
  grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); }
li { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
li:hover { border-color: var(--accent); }
a { color: inherit; text-decoration: none; display: block; }
a:hover h2 { color: var(--accent); }
a:focus-visible { outline: 2.5px solid var(--accent); outline-offset: -3px; border-radius: 10px; }
img { display: block; width: 100%; height: auto; background: #ffffff; border-bottom: 1px solid var(--line); }
h2 { font-size: 17px; font-weight: 650; margin: 9px 14px 2px; overflow-wrap: anywhere; }
h2 span { font-weight: 400; color: var(--soft); }
dl { margin: 0 14px 12px; font-size: 13.5px; }
dl div { display: flex; justify-content: space-between; gap: 14px; padding: 2px 0; }
dt { color: var(--soft); }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
footer { margin-top: 30px; color: var(--soft); font-size: 12.5px; }
"""
