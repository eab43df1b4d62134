"""`edgewise clusters` on the command line."""

TASK = ("gender-pronoun", "--examples", "6", "--metric", "logit_diff", "--edges", "10")


def test_a_tasks_prompts_are_grouped(shell):
    found = shell.json("clusters", *TASK)
    assert sorted(row for group in found["groups"] for row in group["prompts"]) == list(range(6))
    assert all(len(group["edges"]) == 10 for group in found["groups"])
    assert 0 < found["p_value"] <= 1
    shown = shell.works("clusters", *TASK, "-q").out
    assert "of scores shuffled over prompts" in shown


def test_what_cannot_be_grouped_is_refused(shell):
    assert "at least 4, not 2" in shell.refuses("clusters", "gender-pronoun", "--examples", "2")
    assert "has 1 to" in shell.refuses("clusters", *TASK[:-1], "0")
