"""Writes src/edgewise/cli/listed.json: what `edgewise tasks` and `methods` list without waiting for torch."""

import json

from edgewise.cli.listed import FILE, made

FILE.write_text(json.dumps(made(), indent=1) + "\n", encoding="utf-8")
