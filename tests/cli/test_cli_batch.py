"""`edgewise batch` from the shell."""

import json

import pytest

GOOD = '[all]\nthreshold = 0.1\n[[run]]\ntask = ["or-gate", "tracr-reverse"]\n'
BATCH = f'{GOOD}[[run]]\nname = "bad"\ntask = "ioi"\nmodel = "x"\n'


@pytest.fixture
def batch(shell):
    path = shell.folder / "searches.toml"
    path.write_text(BATCH)
    return path


def test_runs_are_made_once_and_the_failed_ones_again(shell, batch):
    shown = shell("batch", batch)
    assert shown.code == 2
    assert "1 of 3  or-gate-acdc: done in" in shown.err
    assert "3 of 3  bad: failed: cannot find model 'x'" in shown.err
    assert shown.err.strip().endswith("the same command tries them again")
    assert "tracr-reverse-acdc: " in shown.out
    folder = shell.folder / "runs" / "searches"
    assert {one.name for one in folder.iterdir() if one.name[0] != "."} == {
        *("batch.json", "batch.csv", "or-gate-acdc", "tracr-reverse-acdc")
    }
    assert shell.json("evaluate", folder / "or-gate-acdc", "--quick")["n_edges"] > 0
    batch.write_text(GOOD)
    again = shell.json("batch", batch, "--quiet")
    assert [(one["name"], one["how"]) for one in again["runs"]] == [
        ("or-gate-acdc", "there"),
        ("tracr-reverse-acdc", "there"),
    ]
    assert (
        again["runs"][1]["edges"]
        == json.loads((folder / "tracr-reverse-acdc" / "run.json").read_text())["result"]["n_edges"]
    )


def test_a_log_has_a_line_now_and_then_not_one_a_run(shell):
    names = "".join(f'[[run]]\nname = "r{number}"\ntask = "or-gate"\nseed = {number}\n' for number in range(4))
    (shell.folder / "many.toml").write_text(f"[all]\nthreshold = 0.1\n{names}")
    err = shell.works("batch", "many.toml").err
    assert [line.split()[0] for line in err.splitlines()] == ["1", "4"]


def test_a_part_of_the_runs_for_a_job_array(shell, batch):
    assert [one["run"] for one in shell.json("batch", batch, "--dry-run", "--only", "2/2")["runs"]] == [
        "tracr-reverse-acdc"
    ]
    assert [one["run"] for one in shell.json("batch", batch, "--dry-run", "--only", "1/2")["runs"]] == [
        "or-gate-acdc",
        "bad",
    ]
    assert "or-gate-acdc: threshold 0.1, task or-gate" in shell.works("batch", batch, "--dry-run").out
    assert list(shell.folder.iterdir()) == [batch], "nothing is written"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "3/2"], "--only should be like 3/8, the third of eight parts, not '3/2'"),
        (["--only", "all"], "--only should be like 3/8"),
        (["--workers", "0"], "--workers should be at least 1, not 0"),
        (["--retries", "-1"], "--retries should be 0 or more, not -1"),
        (["--out", "searches.toml"], "is a file; choose another"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(shell, batch, arguments, said):
    shown = shell("batch", batch, *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert list(shell.folder.iterdir()) == [batch]


def test_a_batch_that_is_not_there_is_said(shell):
    shown = shell("batch", "nowhere.toml")
    assert shown.code == 2
    assert "nowhere.toml" in shown.err
