"""`edgewise draw`: from a run folder or a circuit file to a picture."""

import json
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from edgewise.graph import load_circuit, save_circuit


@pytest.fixture(scope="module")
def ioi(tmp_path_factory):
    """A run folder with scores."""
    import edgewise as ew

    model = ew.load_model("tiny-ioi")
    found = ew.discover(model, ew.load_task("ioi", model), threshold=0.01)
    return found.save(tmp_path_factory.mktemp("runs") / "ioi")


@pytest.fixture
def run(ioi, shell):
    return shutil.copytree(ioi, shell.folder / "ioi")


def words(path) -> str:
    return " ".join(element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("text"))


def test_a_run_is_drawn_into_its_folder_and_says_what_it_is(shell, run):
    out = shell.works("draw", "ioi").out
    assert out == "drawn to ioi/circuit.svg\n"
    text = words(run / "circuit.svg")
    assert "ioi in tiny-ioi" in text
    assert "acdc at threshold 0.01; 31 of 527 edges; kl_div 0.03646 (10 with every edge ablated)" in text
    assert "rise of kl_div without it" in text
    for node in load_circuit(run / "circuit.json").nodes():
        assert node in text


def test_a_circuit_file_of_any_tool_is_drawn_too(shell, run):
    shutil.copy(run / "circuit.json", "found.json")
    shell.works("draw", "found.json")
    assert "found.json 31 of 527 edges" in words(shell.folder / "found.svg")


def test_the_ending_says_as_what_it_is_written(shell, run):
    for name, start in (("a.svg", b"<svg"), ("a.png", b"\x89PNG"), ("a.PDF", b"%PDF")):
        shell.works("draw", "ioi", "--out", name)
        assert (shell.folder / name).read_bytes().startswith(start)


def test_only_so_many_edges_are_drawn(shell, run):
    shell.works("draw", "ioi", "--edges", 5, "--title", "the <strongest>")
    text = words(run / "circuit.svg")
    assert "The 5 strongest edges are drawn; 15 weaker ones are left out." in text
    assert "the <strongest>" in text


def test_spans_are_columns_unless_they_are_not_wanted(shell):
    shell.works("discover", "tracr-reverse", "--positions", "each", "--out", "x")
    shell.works("draw", "x")
    shell.works("draw", "x", "--no-columns", "--out", "together.svg")
    shell.works("draw", "x", "--collapse")
    columns, together, groups = map(words, ("x/circuit.svg", "together.svg", "x/groups.svg"))
    assert "0 1 2 3" in columns
    assert columns.count("a3.h0") == 3
    assert together.count("a3.h0") == 1
    assert groups.count("fetches the letter") == 3


def test_the_components_that_people_know_have_colours(shell):
    shell.works("discover", "tracr-xproportion", "--out", "x")
    shell.works("draw", "x")
    assert "components marks the x averages" in words(shell.folder / "x/circuit.svg")


def edges_drawn(path) -> set[str]:
    titles = {element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("title")}
    return {name.split(":")[0] for name in titles if name and "->" in name}


def test_of_a_second_pass_that_was_stopped_what_it_removed_is_not_drawn(shell, run):
    record = json.loads((run / "run.json").read_text())
    record.update(finished=False, stopped={"why": "interrupted", "at": "logits"})
    (run / "run.json").write_text(json.dumps(record))
    lines = (run / "trace.jsonl").read_text().splitlines(keepends=True)
    kept = [one for one in map(json.loads, lines) if one["kept"] and "<" not in one["edge"].split("->")[0]]
    removed = {**kept[0], "kept": False}
    (run / "trace.jsonl").write_text("".join([*lines, json.dumps(removed) + "\n"]))
    circuit = load_circuit(run / "circuit.json").remove(removed["edge"])
    save_circuit(circuit, run / "circuit.json")
    shell.works("draw", "ioi")
    assert edges_drawn(run / "circuit.svg") == {one["edge"] for one in kept[1:]}


def test_of_a_search_that_was_stopped_what_it_had_kept_is_drawn(shell, run):
    record = json.loads((run / "run.json").read_text())
    record.update(finished=False, stopped={"why": "interrupted", "at": "m1", "decided": 300, "of": 527, "tests": 90})
    (run / "run.json").write_text(json.dumps(record))
    lines = (run / "trace.jsonl").read_text().splitlines(keepends=True)
    (run / "trace.jsonl").write_text("".join(lines[:40]))
    shell.works("draw", "ioi")
    text = words(run / "circuit.svg")
    assert "The search was stopped at m1, 300 of 527 edges decided: these are the edges it had kept" in text
    kept = [json.loads(line)["edge"] for line in lines[:40] if json.loads(line)["kept"]]
    found = edges_drawn(run / "circuit.svg")
    assert 0 < len(found) < 20
    assert found == {name for name in kept if "<" not in name.split("->")[0]}


def test_what_cannot_be_drawn_is_refused_in_a_sentence(shell, run):
    assert shell.refuses("draw", "ion") == "'ion': there is no such run folder or circuit file"
    assert "should end in .svg, .png or .pdf, not '.jpeg'" in shell.refuses("draw", "ioi", "--out", "a.jpeg")
    assert "--edges should be at least 1, not 0" in shell.refuses("draw", "ioi", "--edges", 0)
    (shell.folder / "there.svg").write_text("mine")
    assert "is there already; nothing is overwritten" in shell.refuses("draw", "ioi", "--out", "there.svg")
    assert "cannot write" in shell.refuses("draw", "ioi", "--out", "nowhere/a.svg")
    (shell.folder / "empty").mkdir()
    assert "is not a run folder: it has no run.json" in shell.refuses("draw", "empty")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run, record: (run / "circuit.json").unlink(), "there is no such file"),
        (lambda run, record: record.update(form=99), "written by another version of edgewise"),
        (lambda run, record: record.update(settings={}), "is broken"),
        (lambda run, record: record["result"].update(known_circuit={"groups": 3}), "is broken"),
        (lambda run, record: record.update(finished=False, unread=(run / "trace.jsonl").unlink()), "no such file"),
        (
            lambda run, record: record.update(finished=False, x=(run / "trace.jsonl").write_text("{}")),
            "line 1 is bro",
        ),
    ],
)
def test_a_broken_run_is_refused_in_a_sentence(shell, run, change, message):
    record = json.loads((run / "run.json").read_text())
    change(run, record)
    (run / "run.json").write_text(json.dumps(record))
    assert message in shell.refuses("draw", "ioi")


def test_a_circuit_in_torchs_form_is_drawn_like_any_other(shell, run):
    shell.works("export", "ioi", "--file", "pt", "--out", "submission")
    (path,) = (shell.folder / "submission").rglob("*.pt")
    shell.works("draw", path)
    assert path.with_suffix(".svg").read_text().startswith("<svg")


def test_a_title_may_be_empty_and_has_a_bound(shell, run, monkeypatch):
    assert "at most 500 characters, not 100,000" in shell.refuses("draw", "ioi", "--title", "x" * 100_000)
    monkeypatch.chdir(run)
    shell.works("draw", ".", "--title", "")
    assert (run / "circuit.svg").is_file()
    assert "the run is empty" in shell("draw", "").err


def test_names_that_hold_markup_are_words(shell, run):
    bad = "<script>alert(1)</script>&\"'"
    record = json.loads((run / "run.json").read_text())
    record["settings"]["task"]["task"] = record["settings"]["model"]["name"] = bad
    record["settings"]["metric"] = record["settings"]["method"] = bad
    (run / "run.json").write_text(json.dumps(record))
    shell.works("draw", "ioi")
    text = (run / "circuit.svg").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text or "script&gt;" in text
    ElementTree.fromstring(text)


def test_its_json_says_where_the_drawing_is(shell, run):
    told = shell.json("draw", "ioi", "--edges", 5, "--out", "five.svg")
    assert told == {"file": "five.svg", "circuit": "ioi", "unit": "edges", "size": 31, "strongest": 5}
    assert (shell.folder / "five.svg").is_file()


def test_drawing_does_not_wait_for_torch(run):
    code = (
        "import sys; sys.argv = ['edgewise', 'draw', 'ioi']\nfrom edgewise.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=run.parent)
    assert done.stdout == "drawn to ioi/circuit.svg\nset()\n"
