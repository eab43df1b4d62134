"""`edgewise plan`, and memory limits from the shell."""

import re

import pytest
import tiny

from edgewise.discovery import acdc
from edgewise.discovery import plan as plans
from edgewise.discovery.plan import estimate
from edgewise.models import load_model
from edgewise.patching import Costs, Experiment, OutOfMemoryError, parse_size, plan_memory
from edgewise.patching.memory import size, size_option
from edgewise.tasks import load_task


def test_a_plan_says_edges_memory_and_time(shell, monkeypatch):
    monkeypatch.setattr(plans, "TRIED_SECONDS", 1e9)
    plan = shell.json("plan", "ioi")
    assert plan["n_edges"] == 527
    assert plan["n_inputs"] == 4 * 13 + 1
    memory = plan["memory"]
    assert 0 < memory["recorded"] < memory["smallest"] < memory["largest"] < memory["limit"]
    assert all(seconds > 0 for seconds in plan["seconds_per_candidate"].values())
    found = shell.made("discover", "ioi")
    kept = sum(edge.endswith("->logits") for edge in found["edges"])
    assert plan["edges_into_logits"] == {"all": 21, "kept": kept}
    assert [one["tests"] for one in plan["estimates"]] == [found["tests"]]
    assert list(shell.folder.iterdir()) == [shell.folder / "runs"], "a plan writes nothing"


def test_a_search_cut_short_is_planned_from_there(shell, monkeypatch):
    monkeypatch.setattr(plans, "TRIED_SECONDS", 0.0)
    plan = shell.json("plan", "ioi")
    assert plan["edges_into_logits"]["all"] < 21
    least, likely, perhaps = (one["tests"] for one in plan["estimates"])
    assert least <= likely <= perhaps
    assert least <= shell.made("discover", "ioi")["tests"]
    shown = shell.works("plan", "ioi").out
    assert re.search(r"at the least +[\d,]+ .*\n +likely +[\d,]+ .*\n +perhaps +[\d,]+ ", shown)


def test_a_plan_reads_like_one(shell, monkeypatch):
    monkeypatch.setattr(plans, "TRIED_SECONDS", 1e9)
    shown = shell("plan", "ioi", "--threshold", "1.0", "--no-ports")
    assert shown.code == 0
    assert "491 edges into 53 inputs" not in shown.out
    assert "479 edges into 53 inputs" in shown.out
    assert "MB recorded, " in shown.out
    assert "if every edge stays" in shown.out
    assert "edges into the logits stay" in shown.out
    assert "tried to its end" in shown.out


@tiny.needs_shared
def test_a_plan_for_a_file_without_a_threshold_tells_several_sizes(shell):
    folder = tiny.SHARED / "models" / "stories260k"
    plan = shell.json("plan", folder / "gender_pronoun.jsonl", "--model", folder)
    assert plan["edges_into_logits"] is None
    assert [one["share"] for one in plan["estimates"]] == [0.05, 0.2, 1.0]
    assert plan["estimates"][-1]["tests"] == plan["n_edges"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "iio"], "unknown task 'iio'; did you mean 'ioi'"),
        (["plan", "ioi", "--threshold", "nan"], "the threshold should be a finite number"),
        (["plan", "ioi", "--ablation", "resampel"], "unknown ablation"),
        (["plan", "ioi", "--max-memory", "lots"], "'lots' is no size of memory; write it like 3GB"),
        (["discover", "ioi", "--max-memory", "0GB"], "'0GB' is no size of memory"),
        (["discover", "ioi", "--max-memory", "-3GB"], "'-3GB' is no size of memory"),
        (["discover", "ioi", "--engine", "incremantal"], "unknown engine 'incremantal'; did you mean 'incremental'?"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(shell, arguments, said):
    shown = shell(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert list(shell.folder.iterdir()) == []


def test_too_little_memory_is_refused_with_the_smallest_setting_that_does(shell):
    shown = shell("discover", "ioi", "--max-memory", "12MB")
    assert (shown.code, shown.out) == (2, "")
    fewer = re.search(r"--examples (\d+)", shown.err)[1]
    assert list(shell.folder.iterdir()) == []
    smallest = re.search(r"start with is --max-memory (\w+)", shown.err)[1]
    assert "start with is" not in shell("discover", "ioi", "--max-memory", smallest, "--out", "start").err
    largest = re.search(r"any circuit is (\S+)$", shown.err.strip())[1]
    assert shell("discover", "ioi", "--max-memory", largest, "--out", "a").code == 0
    for examples, refused in ((int(fewer), False), (int(fewer) + 1, True)):
        shown = shell("discover", "ioi", "--max-memory", "12MB", "--examples", examples, "--out", f"with-{examples}")
        assert ("start with is" in shown.err) is refused


@pytest.mark.slow
def test_less_memory_means_smaller_batches_not_another_circuit(shell):
    free = shell.json("discover", "ioi", "--out", "free")
    largest = shell.json("plan", "ioi")["memory"]["largest"]
    bound = shell.json("discover", "ioi", "--out", "bound", "--max-memory", largest)
    assert bound["edges"] == free["edges"]
    assert bound["tests"] == free["tests"]


def test_a_circuit_that_outgrows_the_memory_ends_the_search_and_keeps_what_it_decided(shell, monkeypatch):
    def held(live):
        return 0 if len(live.nodes) < 5 else 10**12

    monkeypatch.setattr("edgewise.patching.live.LivePart.held", held)
    shown = shell("discover", "ioi", "--out", "run")
    assert shown.code == 2
    assert "the circuit in hand has grown so large" in shown.err
    assert "edges were decided" in shown.err
    kept = shell.json("evaluate", "run", "--quick")
    assert kept["finished"] is False
    assert 0 < kept["n_edges"] < 527


def test_both_engines_can_be_asked_for(shell):
    fast = shell.json("discover", "gender-pronoun", "--engine", "incremental", "--examples", "4")
    slow = shell.json("discover", "gender-pronoun", "--engine", "plain", "--examples", "4", "--max-memory", "5MB")
    assert fast["edges"] == slow["edges"]
    assert fast["tests"] == slow["tests"]
    assert fast["metric"] == tiny.near(slow["metric"])
    assert [fast["settings"]["engine"], slow["settings"]["engine"]] == ["incremental", "plain"]


@pytest.mark.parametrize(
    ("text", "count"),
    [("3GB", 3 * 10**9), ("512 MB", 512 * 10**6), ("1.5gib", 3 * 2**29), ("100", 100), ("7kb", 7000), ("1TiB", 2**40)],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("count", [1, 999, 10**6, 123_456_789, 10**9, 1_234_567_890, 10**10 + 1, 10**12])
def test_a_size_offered_as_an_option_is_enough_and_not_much_more(count):
    assert count <= parse_size(size_option(count)) <= max(1.11 * count, count + 10**6)
    assert size(count).split()[1] in ("kB", "MB", "GB")


@pytest.mark.slow
def test_the_plan_holds_what_a_search_really_takes():
    model = load_model("tiny-ioi")
    task = load_task("ioi", model, examples=4)
    plan = plan_memory(model, task, model.graph())
    with pytest.raises(OutOfMemoryError, match=r"needs .*, and the limit is"):
        plan.__class__(**{**vars(plan), "limit": plan.recorded}).candidates(1, 0, 0)
    tight = plan.__class__(**{**vars(plan), "limit": plan.smallest})
    assert tight.candidates(1, 0, 0) >= 1
    assert tight.candidates(1, 0, 0) < plan.candidates(1, 0, 0)
    everything = acdc(Experiment(model, task), -1e9, max_memory=plan.largest)
    assert everything.circuit.n_edges == model.graph().n_edges


def test_an_estimate_grows_with_the_share_and_counts_every_edge_at_the_whole():
    graph = load_model("tiny-ioi").graph()
    costs = Costs(sender=1.0, head=1.0, mlp=1.0, vocabulary=1.0)
    small, large = estimate(graph, costs, 0.1), estimate(graph, costs, 1.0)
    assert large.tests == graph.n_edges
    assert small.tests < large.tests
    assert small.seconds < large.seconds
    # Alone, the vocabulary is paid once per test.
    assert estimate(graph, Costs(0, 0, 0, 2.0), 0.5).seconds == pytest.approx(
        2.0 * estimate(graph, costs, 0.5).tests, rel=0.01
    )
