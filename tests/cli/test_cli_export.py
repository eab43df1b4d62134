"""`edgewise export` in the forms of other tools, on the command line."""

import json
import re

RUN = ("discover", "ioi", "--examples", "4", "--threshold", "0.1", "--out", "run")


def test_a_run_is_exported_and_compared_with_itself(shell):
    found = shell.made(*RUN)
    plain = sum(not re.search(r"<[qkv]>->", name) for name in found["edges"])
    for form, file in (("eap-ig", "graph.json"), ("autocircuit", "scores.json"), ("edge-pruning", "edges.json")):
        finished = shell.works("export", "run", "--form", form, "--out", form)
        assert f"written to {form}" in finished.out
        pair = shell.json("compare", "run", f"{form}/{file}")["pairs"][0]
        assert (pair["common"], pair["only_first"], pair["only_second"]) == (plain, 0, 0)
    told = shell.json("export", "run", "--format", "circuit-tracer", "--out", "graph", "--name", "mine")
    assert told == {"folder": "graph", "form": "circuit-tracer", "files": ["mine.json", "graph-metadata.json"]}
    graph = json.loads((shell.folder / "graph" / "mine.json").read_text())
    assert graph["metadata"]["prompt_tokens"][0] == "Then"
    assert "writes this form and does not read it" in shell.refuses("compare", "run", "graph/mine.json")


def test_what_cannot_be_exported_is_refused(shell):
    shell.made(*RUN)
    for named, why in (
        (("run", "run", "--form", "eap-ig"), "is of one run, and 2 are named"),
        (("run", "--form", "eap-ig", "--name", "x"), "--name is for the forms"),
        (("run", "--form", "edge-pruning", "--file", "pt"), "leave --file out"),
    ):
        assert why in shell.refuses("export", *named, "--out", "out")
    assert "choose another" in shell.refuses("export", "run", "--form", "eap-ig", "--out", "run")
