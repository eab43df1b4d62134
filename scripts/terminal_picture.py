"""Draw what a command prints in a terminal, as an SVG for the docs.

    python scripts/terminal_picture.py docs/discover-ioi.svg edgewise discover ioi

The command is really run, in a scratch folder, and its standard output is drawn as it came.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    program = Path(sys.executable).parent / options.command[0]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [str(program), *options.command[1:]],
            cwd=scratch,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text(f"$ {shlex.join(options.command)}", style="bold"))
        console.print(Text.from_ansi(done.stdout))
        drawing = console.export_svg(title="edgewise", theme=MONOKAI)
    # Fonts from a server would make the picture depend on the network; the fallback is the reader's own monospace.
    drawing = re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL)
    options.picture.write_text(drawing)


if __name__ == "__main__":
    main()
