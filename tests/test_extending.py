"""What docs/extending.md shows works: methods, tasks and families of other packages, found by their entry points."""

import re
import sys
import warnings
from pathlib import Path

import pytest
import tiny
import torch
import transformers

import edgewise as ew
from edgewise.discovery import METHODS, Method
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.models import check
from edgewise.models.huggingface import ADAPTERS
from edgewise.tasks import TASKS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text()
REGISTRIES = (METHODS, TASKS, ADAPTERS)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package, as far as Python can tell: its modules and entry points are what is given."""

    def install(modules: dict[str, str], entry_points: str) -> None:
        (tmp_path / "my_package").mkdir()
        (tmp_path / "my_package" / "__init__.py").write_text("")
        for name, code in modules.items():
            (tmp_path / "my_package" / f"{name}.py").write_text(code)
        about = tmp_path / "my_package-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)

    for registry in REGISTRIES:  # as they are in a new process
        monkeypatch.setattr(registry, "_things", dict(registry))
        monkeypatch.setattr(registry, "_asked", False)
    yield install
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def entry_points(toml: str) -> str:
    """The entry points of a pyproject.toml as they stand in an installed package."""
    return re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", toml).replace('"', "")


def test_the_page_of_extensions_holds_for_an_installed_package(package):
    method, task, family = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    package({"method": method, "task": task, "family": family}, entry_points(toml))
    with warnings.catch_warnings():
        warnings.simplefilter("error", EdgewiseWarning)
        assert list(METHODS)[-1] == "change-size"
        model = ew.load_model("tiny-ioi")
        loaded = ew.load_task("who-gives", model)
    assert len(loaded) == 16
    found = ew.discover(model, loaded, method="change-size", edges=20, options={"power": 2.0})
    assert 0 < found.circuit.n_edges <= 20
    assert found.record["result"]["scoring"]["power"] == 2.0
    assert found.record["settings"]["task"]["task"] == "who-gives"

    class Config(transformers.LlamaConfig):
        model_type = "my-llama"

    torch.manual_seed(0)
    own = transformers.LlamaForCausalLM(
        Config(
            num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=32, vocab_size=tiny.VOCABULARY
        )
    )
    decoder = ew.load_model(own)
    assert decoder.config.architecture == "my-llama"
    check(decoder, torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool))


BROKEN = """[edgewise.methods]
no-module = my_package.nowhere:METHOD
no-name = my_package.method:MISSING
raises = my_package.raises:METHOD
no-method = my_package.method:OTHER
acdc = my_package.method:METHOD
"""


def test_a_broken_plug_in_gives_a_warning_that_names_it(package):
    code = "from edgewise.discovery import METHODS\nMETHOD, OTHER = METHODS['acdc'], 3\n"
    package({"method": code, "raises": "raise RuntimeError('not today')"}, BROKEN)
    own = list(METHODS._things)
    with pytest.warns(EdgewiseWarning) as heard:
        assert list(METHODS) == own
    said = [str(one.message) for one in heard]
    assert len(said) == 5
    for name, why in {
        "no-module": "No module named",
        "no-name": "MISSING",
        "raises": "not today",
        "no-method": "3 is no method (see docs/extending.md)",
        "acdc": "there is a method called 'acdc' already",
    }.items():
        (one,) = [sentence for sentence in said if f"the method '{name}' of package my-package" in sentence]
        assert why in one
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error")
        assert "acdc" in METHODS


def test_what_a_user_registers_is_known_and_a_name_taken_twice_is_refused(package):
    about = dict(summary="", cost="", paper="", when="")
    ew.register_method(Method(name="mine", **about))
    assert METHODS["mine"].options == {}
    for name in ("mine", "acdc", "eap", "random"):
        with pytest.raises(EdgewiseError, match=f"there is a method called '{name}' already"):
            ew.register_method(Method(name=name, **about))
    with pytest.raises(EdgewiseError, match="should be a short word or two, without '/'"):
        ew.register_method(Method(name="a/b", **about))
    with pytest.raises(EdgewiseError, match="there is a family called 'llama' already"):
        ew.register_family("llama", ADAPTERS["gpt2"])
    with pytest.raises(EdgewiseError, match="there is a task called 'ioi' already"):
        ew.register_task(TASKS["ioi"])
    with pytest.raises(EdgewiseError, match="7 is no task"):
        ew.register_task(7)  # type: ignore[arg-type]


def test_options_are_held_to_their_types_and_bounds():
    method = METHODS["subnetwork-probing"]
    method.check({"steps": 10, "learning_rate": 1, "variant": "published"})
    for options, message in (
        ({"lambda": 3}, "has no option 'lambda' (it takes: regularisation, steps, learning_rate, variant, seed)"),
        ({"steps": 0}, "steps of method 'subnetwork-probing' should be at least 1, not 0"),
        ({"steps": 10**7}, "steps of method 'subnetwork-probing' should be at most 1,000,000, not 10000000"),
        ({"steps": 2.5}, "steps of method 'subnetwork-probing' should be a whole number, not 2.5"),
        ({"seed": True}, "seed of method 'subnetwork-probing' should be a whole number, not True"),
        ({"learning_rate": float("nan")}, "learning_rate of method 'subnetwork-probing' should be"),
        ({"variant": "publishd"}, "unknown variant 'publishd'; did you mean 'published'"),
    ):
        with pytest.raises(EdgewiseError, match=re.escape(message)):
            method.check(options)
    METHODS["edge-pruning"].check({"target": None, "warm_start": False})
