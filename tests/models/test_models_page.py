"""docs/models.md lists the families that there are, with edge counts that follow from their shapes."""

import re
from pathlib import Path

from family_models import CONFIGS

from edgewise.graph import Graph
from edgewise.models.families.table import FAMILIES

ROW = re.compile(r"^\| `(\w+)` \| ([^|]*)\| [^|]+ \| (\d+) x (\d+)(?:/(\d+))? \| ([\d,]+) \|$", re.MULTILINE)
PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_every_family_is_on_the_page_and_tested():
    assert {row[0] for row in ROW.findall(PAGE)} == set(FAMILIES) == {name.split("-")[0] for name in CONFIGS}


def test_edge_counts_are_those_of_the_shapes():
    for _, words, layers, heads, shared, count in ROW.findall(PAGE):
        n_layers, n_heads, n_kv = int(layers), int(heads), int(shared or heads)
        before = 0
        edges = 0
        for _layer in range(n_layers):
            inputs = n_heads + 2 * n_kv
            senders = 1 + before
            edges += inputs * senders + inputs  # and a port edge each
            edges += senders + (0 if "side by side" in words and "in turn" not in words else n_heads)
            before += n_heads + 1
        edges += 1 + before
        parallel = edges - n_layers * n_heads
        assert int(count.replace(",", "")) in (edges, parallel), words
        graph = Graph(n_layers, n_heads, n_kv, ports=True)
        assert graph.n_edges in (edges, edges + n_layers * n_heads)
