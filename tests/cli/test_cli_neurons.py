"""`--level neuron` on the shell."""


def test_a_run_by_neurons_from_discovery_to_comparison(shell):
    asked = ("discover", "greater-than", "--examples", 8, "--level", "neuron", "--neurons", 12)
    found = shell.works(*asked, "--method", "exact", "--within", 30, "--out", "run").out
    for words in (
        "kept 12 of 768 neurons, beside all heads and edges",
        "with every neuron ablated",
        "scored by exact, shortlist 30",
        "12 neurons taken",
        "strongest neurons",
        "of 384",
        "m0.n",
    ):
        assert words in found
    scored = shell.json(*asked, "--method", "eap", "--out", "scored")
    assert scored["n_neurons"] == len(scored["neurons"]) == 12
    assert shell.json("evaluate", "scored", "--quick")["n_neurons"] == 12
    shown = shell.works("evaluate", "run", "--circuits", 29, "--resamples", 0).out
    for words in ("12 of 768 neurons", "29 random circuits of 12 neurons", "the same neurons in a permuted network"):
        assert words in shown
    compared = shell.works("compare", "run", "scored").out
    assert "overlap of neurons" in compared
    assert "neurons of run" in compared
    assert "12 of 768 neurons" in shell.works("resume", "run").out


def test_what_takes_no_neurons_says_so(shell):
    asked = ("discover", "greater-than", "--examples", 2, "--level", "neuron", "--method", "eap")
    assert "say how many neurons" in shell.refuses(*asked)
    assert "say among which" in shell.refuses("discover", "or-gate", "--level", "neuron", "--neurons", 1)
    assert "has no MLPs, so no neurons" in shell.refuses(
        "discover", "induction", "--level", "neuron", "--method", "eap", "--neurons", 1
    )
    shell.works(*asked, "--threshold", 0.01, "--out", "run")
    assert "no picture of a circuit of neurons" in shell.refuses("draw", "run")
    assert "no page of a circuit of neurons" in shell.refuses("report", "run")
    assert "no submission of a circuit of neurons" in shell.refuses("export", "run", "--out", "files")
    assert "not neurons" in shell.refuses("plan", "or-gate", "--level", "neuron")
