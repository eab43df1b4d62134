"""What the site of the docs has beside docs/*.md: README as its first page, the changelog, the tutorial's cells.

MkDocs calls these (`hooks` in mkdocs.yml). Links out of docs/, which hold in the repository, are led to where the same
stands on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "docs/tutorial.ipynb": "docs/tutorial.md"}
"""Files of the repository that are pages under another name."""
_LINK = re.compile(r"""(?P<before>\]\(|src="|href=")(?P<to>[^)"#\s]+)(?P<after>[)"#])""")
_SHIM = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"></script>')
_NOTE = re.compile(r"(?:(?<=\| )|(?<=\] )|^)\[(\d+)\](?!\()", re.MULTILINE)
"""`[1]` in a table or before a note: no link."""
_WORDS = re.compile(r"(?<!!)\[([^\]]+)\]\(gone:\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files."""
    for name, page in (("README.md", "index.md"), ("CHANGELOG.md", "changelog.md")):
        files.append(File.generated(config, page, content=_led((ROOT / name).read_text(encoding="utf-8"), ".")))
    short = _led((ROOT / "llms.txt").read_text(encoding="utf-8"), ".").replace(".md)", ".html)")
    files.append(File.generated(config, "llms.txt", content=short))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        text, pictures = notebook_page(Path(notebook.abs_src_path or ""), Path(page).stem)
        files.append(File.generated(config, page, content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, posixpath.join(posixpath.dirname(page), name), content=data))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead a page's links to where they lead on the site."""
    if page.file.src_uri in ("index.md", "changelog.md"):
        return markdown
    markdown = _NOTE.sub(r"\\[\1\\]", markdown)
    return _led(markdown, posixpath.join("docs", posixpath.dirname(page.file.src_uri)))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Let pages that are opened from disk search too, by a script of our own: the theme would fetch one."""
    return _SHIM.sub(lambda _: f"<script>{(ROOT / 'scripts' / 'docs_worker.js').read_text()}</script>", output)


def notebook_page(path: Path, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with its pictures by file name."""
    notebook = nbformat.read(path, as_version=4)
    exported = MarkdownExporter().from_notebook_node(notebook, resources={"unique_key": name, "output_files_dir": ""})
    text, resources = exported[0], exported[1]
    return text, dict(resources.get("outputs", {}))


def _led(text: str, folder: str) -> str:
    """Markdown of a file in a folder of the repository, its links as they are on the site.

    What is no page keeps its words and loses its link.
    """

    def lead(found: re.Match[str]) -> str:
        to = found["to"]
        if re.match(r"[a-z]+:", to):
            return found[0]
        target = posixpath.normpath(posixpath.join(folder, to))
        target = ELSEWHERE.get(target, target)
        if target in ELSEWHERE.values() and not target.startswith("docs/"):
            on_site = target
        elif target.startswith("docs/"):
            on_site = target.removeprefix("docs/")
        else:
            return f"{found['before']}gone:{found['after']}" if found["after"] == ")" else found[0]
        start = posixpath.relpath(folder, "docs") if folder.startswith("docs") else "."
        return f"{found['before']}{posixpath.relpath(on_site, start)}{found['after']}"

    return _WORDS.sub(r"\1", _LINK.sub(lead, text))
