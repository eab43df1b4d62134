"""What README and docs show is true: their Python runs, their prompts load, their figures come out."""

import json
import re
import sys
from pathlib import Path

import pytest
from printed import stands_in

from edgewise.cli import main
from edgewise.tasks.jsonl import read_rows

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language):
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL))
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_python_shown_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("block", blocks("json"))
def test_prompts_shown_are_prompts_that_load(block, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(block)
    rows = read_rows(tmp_path / "prompts.jsonl").good
    assert rows[0].text.clean != rows[0].text.corrupt


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)|<img src=\"([^\"]+)", page.read_text()):
        name, _, anchor = "".join(target).partition("#")
        if name.startswith("http"):
            continue
        there = page.parent / name if name else page
        assert there.exists(), name
        assert not anchor or anchor in anchors(there), (name, anchor)


def anchors(page):
    """What can stand behind `#` in a link to a page."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["edgewise", *arguments, "--json"])
    main_exit = None
    try:
        main()
    except SystemExit as end:
        main_exit = end.code
    assert not main_exit
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("circuits", [0, pytest.param(100, marks=pytest.mark.slow)])
def test_the_table_of_the_readme_comes_out(circuits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text() + (ROOT / "docs" / "tasks.md").read_text()
    found = run(monkeypatch, capsys, "discover", "ioi")
    assert stands_in(readme, f"{found['n_edges']} of 527 edges kept, `kl_div` {found['metric']:.4f}")
    assert found["metric_ablated"] == pytest.approx(10.0, abs=0.05)
    much = ["--circuits", str(circuits)] if circuits else ["--quick"]
    on_test = run(monkeypatch, capsys, "evaluate", "runs/ioi-acdc", "--split", "test", *much)
    if circuits:
        tests = {test["name"]: test for test in on_test["hypotheses"]["tests"]}
        assert tests["sufficiency"]["statistic"] == 1, "better than all random circuits of its size"
        assert tests["minimality"]["passed"] is True, "no edge too many"
    assert stands_in(readme, f"`kl_div` {on_test['metric']:.4f}, {-on_test['metrics']['frac_correct']['circuit']:.0%}")
    sized = run(monkeypatch, capsys, "discover", "ioi", "--edges", "20")
    assert stands_in(readme, f"{sized['n_edges']} edges at threshold {sized['settings']['threshold']:.3f}")
    overlap = run(monkeypatch, capsys, "compare", "runs/ioi-acdc", "runs/ioi-acdc-2")["pairs"][0]
    assert f"{overlap['common']} edges in both, {overlap['only_first']} in the first only" in readme
    for task in ("greater-than", "docstring", "gender-pronoun"):
        found = run(monkeypatch, capsys, "discover", task)
        row = next(line for line in readme.splitlines() if f"`edgewise discover {task}`" in line)
        assert f"{found['n_edges']} of " in row
        assert stands_in(row, f"`kl_div` {found['metric']:.4f} ({found['metric_ablated']:.3g} ablated)")
    assert f"{run(monkeypatch, capsys, 'discover', 'induction')['n_edges']} of 105 edges" in readme
    assert run(monkeypatch, capsys, "discover", "induction", "--permuted", "0")["metric"] > 5
    for task, edges in (("tracr-reverse", 15), ("tracr-xproportion", 10)):
        assert run(monkeypatch, capsys, "discover", task)["n_edges"] == edges
    assert run(monkeypatch, capsys, "discover", "or-gate")["edges"] == ["a0.h0->m0", "m0->logits"]
    assert run(monkeypatch, capsys, "discover", "or-gate", "--head-order", "reverse")["edges"][0] == "a0.h1->m0"
    assert run(monkeypatch, capsys, "check", "tiny-ioi")["difference"] < 2e-6
    units = (ROOT / "docs" / "units.md").read_text()
    for option, edges in ((["--positions", "spans"], "3,162"), (["--heads", "whole"], "207")):
        found = run(monkeypatch, capsys, "discover", "ioi", *option)
        assert stands_in(units, f"{found['n_edges']} of {edges} | {found['metric']:.4f}")
    assert "36 of 3,162 edges kept" in readme


def test_what_is_said_of_paths_and_heads_comes_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text() + (ROOT / "docs" / "tasks.md").read_text()
    page = (ROOT / "docs" / "paths.md").read_text()
    typed = re.findall(r"^    (a3.h1->logits|input->\S+) +(\S+) +(\S+) +(\S+)%$", page, re.MULTILINE)
    assert len(typed) == 4
    options = [word for name, *_ in typed for word in ("--path", name)]
    found = run(monkeypatch, capsys, "patch", "ioi", "--metric", "logit_diff", *options)
    for (name, after, fall, lost), one in zip(typed, found["paths"][:-1], strict=True):
        assert one["paths"] == [name]
        assert -one["after"] == pytest.approx(float(after), abs=2e-4)
        assert one["effect"] == pytest.approx(float(fall), abs=2e-4)
        assert 100 * one["share"] == pytest.approx(float(lost), abs=0.06)
    assert f"`logit_diff` {typed[0][1]} (5.4210 the model), {typed[0][3]}% lost" in readme
    assert -found["before"] == pytest.approx(5.4210, abs=2e-4)
    head = run(monkeypatch, capsys, "patch", "ioi", "--head", "a3.h1")
    places = range(len(head["keys"]))
    assert set(head["keys"]) == {10}, "the repeated name"
    looks = sum(head["pattern"][place][10] for place in places) / len(places)
    by_token = sum(head["values"][place][0][10] for place in places) / len(places)
    adds = sum(head["direct"]) / len(places)
    assert f"repeated name ({looks:.2f} of its attention) and writes against it: {by_token:.3f} of {adds:.3f}" in readme
    above = sum(map(sum, head["above_mean"]))
    constant = head["above_mean"][head["parts"].index("constants")][0]
    assert f"({looks:.2f} of its attention, in all 32 prompts)" in page
    assert f"of the {adds:.2f} that it adds" in page
    assert f"{by_token:.2f} are the embedding" in page
    assert f"stands out by {above:.1f} above the mean key, and {constant:.1f} of" in page
