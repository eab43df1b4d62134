"""The trained models that come with the package do what they were trained for, and say how they were made."""

import json

import pytest

from edgewise import load_model, load_task
from edgewise.evaluation import answers_of
from edgewise.models.load import BUILT_IN, SHIPPED
from edgewise.tasks import TASKS

TRAINED = {"ioi", "greater-than", "docstring", "induction", "gender-pronoun"}


def test_every_behaviour_has_a_model_that_runs_offline():
    folders = {path.name for path in SHIPPED.iterdir() if path.is_dir()}
    assert {TASKS[task].model for task in TRAINED} == folders
    assert {spec.model for spec in TASKS.values()} <= set(BUILT_IN)


def test_together_they_are_at_most_ten_megabytes():
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()]
    assert 1_000_000 < sum(sizes) <= 10_000_000


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
def test_how_each_was_made_is_recorded(name):
    record = json.loads((SHIPPED / name / "training.json").read_text())
    assert record["settings"]["seed"] >= 0
    assert record["seconds"] > 1
    assert record["final_loss"] > 0
    assert record["versions"]["torch"]
    held_out = [figures["accuracy"] for key, figures in record["figures"].items() if key.startswith("held_out")]
    assert held_out
    assert all(0.98 <= accuracy <= 1 for accuracy in held_out)
    readme = (SHIPPED / name / "README.md").read_text()
    assert readme.startswith(f"# {name}\n")
    assert f"{record['parameters']:,} parameters" in " ".join(readme.split())


@pytest.mark.parametrize("task", sorted(TRAINED))
@pytest.mark.parametrize("seed", [0, 5])
def test_each_does_its_task_on_test_prompts_of_any_seed(task, seed):
    model = load_model(TASKS[task].model)
    loaded = load_task(task, model, examples=60, split="test", seed=seed)
    said = answers_of(model, loaded)
    right, places = sum(one.right for one in said), sum(one.places for one in said)
    assert places >= 60
    assert right / places >= 0.97
