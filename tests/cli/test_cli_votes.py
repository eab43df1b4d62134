"""`edgewise discover --orders` and `--bootstrap` on the command line."""

RUN = ("discover", "gender-pronoun", "--examples", "6", "--orders", "2", "--votes", "0.9", "--out", "run")


def test_a_search_is_made_again_and_shown_again(shell):
    found = shell.made(*RUN)
    told = found["stability"]
    assert (told["what"], told["vote"], len(told["searches"])) == ("orders", 0.9, 2)
    assert all(share in (0.5, 1.0) for share in told["shares"].values())
    shown = shell.works("show", "run").out
    assert "2 searches in random orders of edges" in shown
    assert "90.0% or more (--votes)" in shown
    assert shell.json("show", "run")["stability"] == told
    pair = shell.json("compare", "run", "run/votes.json")["pairs"][0]
    kept = sum(share == 1.0 for share in told["shares"].values())
    assert pair["common"] + pair["only_second"] == kept


def test_what_cannot_be_searched_again_is_refused_before_a_search(shell):
    for named, why in (
        (("--votes", "0.5"), "give --orders or --bootstrap"),
        (("--orders", "3", "--bootstrap", "3"), "in other orders (--orders) or on other examples (--bootstrap): one"),
        (("--orders", "3", "--method", "eap", "--edges", "5"), "only ACDC depends on an order"),
        (("--bootstrap", "1"), "at least 2 times"),
    ):
        assert why in shell.refuses("discover", "gender-pronoun", *named)
