"""`--level node` on the shell: every command says nodes where it says edges of other runs."""


def test_a_run_by_nodes_is_said_in_nodes_by_every_command(shell):
    found = shell.works("discover", "or-gate", "--level", "node", "--threshold", 0.05, "--out", "run")
    assert "of 4 nodes" in found.out
    assert "4 nodes tested" in found.out
    assert "with every node ablated" in found.out
    assert "strongest nodes" in found.out
    shell.works("draw", "run", "--out", "picture.svg")
    assert "nodes, each with all that it writes" in (shell.folder / "picture.svg").read_text()
    assert "of 4 nodes" in shell.works("evaluate", "run", "--quick").out
    assert "4 of 4 nodes are tested" in shell.works("plan", "or-gate", "--level", "node").out
    assert shell.json("plan", "or-gate", "--level", "node")["tests"] == 4
    scored = shell.json("discover", "or-gate", "--level", "node", "--method", "exact", "--edges", 3, "--out", "scored")
    assert scored["nodes"] == ["input", "m0"]  # either input of the gate does without the other
    assert scored["n_nodes"] == 2
    compared = shell.works("compare", "run", "scored")
    assert "overlap of nodes" in compared.out
    exported = shell.works("export", "scored", "--out", "files")
    assert "importances of 4 nodes" in exported.out
    shell.works("report", "run", "--out", "page.html")
    assert "circuit of whole nodes" in (shell.folder / "page.html").read_text()


def test_scores_of_nodes_are_evaluated_by_nodes(shell):
    given = ("greater-than", "--examples", 8, "--level", "node", "--method", "exact", "--edges", 5, "--out", "run")
    shell.works(*("discover", *given))
    shown = shell.works("evaluate", "run", "--circuits", 29, "--resamples", 0).out
    for words in (
        "5 of 11 nodes",
        "of 5 nodes",
        "29 random circuits of 5 nodes",
        "share of nodes",
        "the same nodes in",
    ):
        assert words in shown
    assert shell.json("evaluate", "run", "--quick")["n_nodes"] == 5


def test_what_has_no_nodes_is_refused(shell):
    assert "not whole nodes (--level node); these can: acdc" in shell.refuses(
        "discover", "or-gate", "--level", "node", "--method", "sp", "--threshold", 0.1
    )
    assert "unknown level 'layer'" in shell.refuses("discover", "or-gate", "--level", "layer")
    shell.works("discover", "or-gate", "--threshold", 0.05, "--out", "edges")
    assert "chooses among whole nodes" in shell.refuses("discover", "or-gate", "--level", "node", "--within", "edges")
