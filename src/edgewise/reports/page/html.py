"""The page itself: one HTML file that loads nothing and runs no word of what it shows.

What comes from users' data (prompts, names of models, tasks and files) goes in as JSON, in a script element of a kind
that browsers do not run, with every `<` escaped so that nothing in it can end that element. The page's own code, which
puts it on screen as text alone, is the only script that the page's content security policy lets run, by its hash; the
policy lets it load nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.files import write_text


def render(data: dict[str, Any], title: str) -> str:
    """The page that shows `data`."""
    built = resources.files("edgewise.reports.page") / "built"
    template, script, style = (
        (built / name).read_text(encoding="utf-8") for name in ("template.html", "page.js", "page.css")
    )
    parts = {
        "title": html.escape(title).encode("utf-8", "replace").decode(),  # a file name may hold half a character
        "policy": f"default-src 'none'; script-src {policy_hash(script)}; style-src {policy_hash(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        "style": style,
        "data": as_json(data),
        "script": script,
    }
    pieces = template.split("%%")
    # Every second piece is a name: what is put in is never searched for names itself.
    return "".join(piece if at % 2 == 0 else parts[piece] for at, piece in enumerate(pieces))


def as_json(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: without `<`, `>` and `&`, and without what ends a line in JavaScript."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text.encode("utf-8", "backslashreplace").decode()


def write_page(path: Path, page: str) -> None:
    """Write a page whole or not at all.

    Raises:
        EdgewiseError: something is there already, or it cannot be written.
    """
    require_free_file(path)
    write_text(path, page)


def require_free_file(path: Path) -> None:
    """Raise an EdgewiseError if a page cannot be written to `path`."""
    if path.exists() or path.is_symlink():
        what = "is a folder; name a file in it" if path.is_dir() else "is there already; nothing is overwritten, so "
        raise EdgewiseError(f"the file {str(path)!r} {what}{'' if path.is_dir() else 'choose another with --out'}")
    if not path.parent.is_dir():
        raise EdgewiseError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")


def policy_hash(text: str) -> str:
    """How a page's policy names a script or a style that may stand in it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
