"""Files that ask for many runs."""

import json

import pytest

from edgewise.errors import EdgewiseError
from edgewise.runs.jobs import Job, read_jobs


def jobs_of(tmp_path, text, name="batch.toml"):
    (tmp_path / name).write_text(text)
    return read_jobs(tmp_path / name)


def test_a_list_stands_for_a_run_with_each_of_its_values(tmp_path):
    jobs = jobs_of(
        tmp_path,
        """
        [all]
        examples = 4
        ablation = "zero"
        [[run]]
        task = ["ioi", "greater-than"]
        threshold = [0.1, 0.5]
        [[run]]
        name = "mine"
        task = "induction"
        ablation = "mean"
        edges = 10
        seed = [3, 4]
        """,
    )
    assert [job.name for job in jobs] == [
        "ioi-acdc-threshold=0.1",
        "ioi-acdc-threshold=0.5",
        "greater-than-acdc-threshold=0.1",
        "greater-than-acdc-threshold=0.5",
        "mine-seed=3",
        "mine-seed=4",
    ]
    assert jobs[2].given == {"examples": 4, "ablation": "zero", "task": "greater-than", "threshold": 0.1}
    asked = jobs[4].request
    assert (asked.task.seed, asked.search.seed, asked.search.ablation, asked.task.examples) == (3, 3, "mean", 4)


def test_lines_of_json_do_as_well(tmp_path):
    rows = [{"task": "ioi", "edges": 5}, {"task": "ioi", "name": "other", "max_memory": "3GB"}]
    jobs = jobs_of(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "batch.jsonl")
    assert [job.name for job in jobs] == ["ioi-acdc", "other"]
    assert jobs[1].request.search.max_memory == 3 * 10**9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "asks for no run"),
        ("[[run", "is no TOML"),
        ("[runs]\n", "has 'runs' at its top; it takes"),
        ("run = 3\n", "should have .all. once"),
        ('[[run]]\ntask = "ioi"\ntreshold = 0.1\n', "run 1: unknown setting 'treshold'; did you mean 'threshold'"),
        ('[[run]]\ntask = "ioi"\nthreshold = []\n', "the list of threshold is empty"),
        ('[[run]]\ntask = "ioi"\nname = ["a"]\n', "one name, not a list"),
        ('[[run]]\ntask = "ioi"\nname = "/"\n', "its folder needs letters or digits"),
        ('[[run]]\ntask = "ioi"\n[[run]]\ntask = "ioi"\n', "two runs called 'ioi-acdc'"),
        ('[[run]]\ntask = "iio"\n', "run 'iio-acdc': unknown task 'iio'; did you mean 'ioi'"),
        ('[[run]]\ntask = "ioi"\nthreshold = "low"\n', "run 'ioi-acdc': --threshold should be a number"),
        ('[[run]]\ntask = "ioi"\nmethod = "eap"\nedges = 0\n', "should be at least 1, not 0"),
        ('[[run]]\ntask = "ioi"\nmax_memory = "lots"\n', "'lots' is no size of memory"),
        (f'[[run]]\ntask = "ioi"\nseed = {list(range(400))}\npasses = {list(range(300))}\n', "120,000 runs, more than"),
    ],
)
def test_what_no_run_can_be_is_refused(tmp_path, text, said):
    with pytest.raises(EdgewiseError, match=said):
        jobs_of(tmp_path, text)


@pytest.mark.parametrize(("text", "said"), [("{", "line 2, is no JSON"), ("[1]", "should be an object of settings")])
def test_a_line_that_is_no_run_is_named(tmp_path, text, said):
    with pytest.raises(EdgewiseError, match=said):
        jobs_of(tmp_path, '{"task": "ioi"}\n' + text, "batch.jsonl")


def test_a_path_in_a_name_is_its_last_part():
    assert Job("x", {"task": "ioi"}).request.task.task == "ioi"


def test_values_that_are_paths_name_folders(tmp_path):
    jobs = jobs_of(tmp_path, '[[run]]\ntask = "ioi"\nmodel = ["a/b", "c d"]\n')
    assert [job.name for job in jobs] == ["ioi-acdc-model=b", "ioi-acdc-model=c-d"]
