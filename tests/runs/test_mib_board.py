"""The MIB benchmark's table: attribution, files and scores, cell by cell, kept on disk and gone on with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import mib_data
import numpy as np
import pytest

from edgewise.discovery import METHODS
from edgewise.errors import EdgewiseError
from edgewise.evaluation import mib_auroc, mib_scores
from edgewise.graph import Circuit, load_circuit
from edgewise.models import Decoder, load_model
from edgewise.patching import Experiment
from edgewise.runs import mib
from edgewise.runs.mib import MibBoard, run_mib
from edgewise.runs.mib_cells import CELLS, cells_of
from edgewise.runs.mib_export import MibCell, export_mib
from edgewise.runs.mib_plan import MibPlan
from edgewise.tasks.mib import MibRows, load_mib_task, mib_task


@dataclasses.dataclass
class Place:
    """Models and data to run on."""

    folder: Path
    models: Path
    data: Path
    reference: Circuit
    loaded: dict[str, Decoder]

    def plan(self, **asked: Any) -> MibPlan:
        own = dict(methods=("edge-attribution", "random"), tasks=("ioi",), models=(str(self.models / "words"),))
        return MibPlan(**{**own, "data": self.data, **asked})

    def run(self, out: str = "out", **asked: Any) -> MibBoard:
        return run_mib(self.folder / out, self.plan(**asked))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Circuit]:
    models, data = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("data")
    mib_data.save_gpt2(models / "words")
    mib_data.write_datasets(data)
    return models, data, mib_data.write_interp_bench(data / "interpbench")


@pytest.fixture
def place(files: tuple[Path, Path, Circuit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Models are loaded once for all tests."""
    models, data, reference = files

    def loaded(source: Any, **options: Any) -> Decoder:
        key = f"{source} {options}"
        if key not in _LOADED:
            _LOADED[key] = load_model(source, **options)
        return _LOADED[key]

    monkeypatch.setattr(mib, "load_model", loaded)
    return Place(tmp_path, models, data, reference, _LOADED)


_LOADED: dict[str, Decoder] = {}


@pytest.mark.parametrize("level", ["edge", "node"])
def test_a_cell_is_attributed_written_and_scored_as_the_parts_would(place: Place, level: Any) -> None:
    board = place.run(level=level, split="test", train_examples=5, examples=3)
    assert board.missing == ()
    model = next(iter(place.loaded.values()))
    train, test = (
        load_mib_task(MibRows.of(mib_task("ioi"), split, place.data), model, count)  # type: ignore[arg-type]
        for split, count in (("train", 5), ("test", 3))
    )
    experiment = Experiment(model, train, metric="logit_diff", graph=model.graph(ports=False, ungroup=True))
    for one in board.results:
        file = place.folder / "out" / "circuits" / f"{one.method}_patching_{level}" / "ioi_words" / "importances.json"
        assert one.file == str(file)
        circuit = load_circuit(file)
        if one.method != "random":
            scored = METHODS[one.method].scores(experiment, level=level).circuit
            assert np.array_equal(circuit.scores, scored.scores)
            assert np.ptp(circuit.scores) > 0
        assert one.scores == mib_scores(model, test, circuit)
        assert (one.official, one.title) == (False, "IOI, words")
        assert one.train["examples"] == 5
        again = export_mib([MibCell("ioi_words", circuit, True, False)], place.folder / one.method)
        assert (again / "ioi_words" / "importances.json").read_text() == file.read_text(), "a submission as it stands"
    assert {one.method for one in board.results} == {"edge-attribution", "random"}


def test_interpbench_is_held_against_its_own_circuit(place: Place) -> None:
    board = place.run(models=("interpbench",), methods=("edge-attribution-ig",))
    (one,) = board.results
    assert (one.cell, one.official, one.scores, one.scored_on) == ("ioi_interpbench", True, None, None)
    assert one.roc == mib_auroc(load_circuit(Path(one.file)), place.reference)
    assert 0 < one.roc.auroc < 1
    by_nodes = place.run(models=("interpbench",), level="node")
    assert by_nodes.results == ()
    assert by_nodes.missing[0] == (
        *("edge-attribution", "ioi_interpbench", "the benchmark's AUROC is about edges, not nodes"),
    )


def test_what_is_done_is_not_done_again_and_goes_on_in_the_middle(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewise.evaluation.mib.PIECE_BYTES", 2**15)
    first = place.run(methods=("edge-attribution",))
    scores = place.folder / "out" / "scores" / "edge-attribution_patching_edge" / "ioi_words_validation_top.jsonl"
    lines = scores.read_text().splitlines(keepends=True)
    assert len(json.loads(lines[0])["pieces"]) > 1
    measured: list[int] = []
    scored = METHODS["edge-attribution"]
    value = Experiment.value
    monkeypatch.setattr(Experiment, "value", lambda self, circuit: measured.append(1) or value(self, circuit))
    monkeypatch.setitem(METHODS._things, "edge-attribution", dataclasses.replace(scored, score=_never))

    def same(board: MibBoard) -> bool:
        return [one.scores for one in board.results] == [one.scores for one in first.results]

    assert same(place.run(methods=("edge-attribution",)))
    assert not measured
    scores.write_text("".join(lines[:-2]) + lines[-2][:10])  # torn by a crash
    assert same(place.run(methods=("edge-attribution",)))
    assert len(measured) == 2, "the last two alone"
    assert [json.loads(line).get("measured") for line in scores.read_text().splitlines()] == [
        json.loads(line).get("measured") for line in lines
    ]


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("attributed again")


def test_what_was_made_otherwise_is_refused(place: Place) -> None:
    place.run(methods=("edge-attribution-ig",), train_examples=4)
    record = place.folder / "out" / "attribution" / "edge-attribution-ig_patching_edge" / "ioi_words.json"
    with pytest.raises(EdgewiseError, match=r"holds another attribution \(options steps 5 there, 3 here\); choose an"):
        place.run(methods=("edge-attribution-ig",), train_examples=4, options={"steps": 3})
    with pytest.raises(EdgewiseError, match=r"holds another attribution \(prompts examples 4 there, 8 here\)"):
        place.run(methods=("edge-attribution-ig",))
    with pytest.raises(EdgewiseError, match=r"holds another list of scores \(prompts examples 6 there, 2 here\)"):
        place.run(methods=("edge-attribution-ig",), train_examples=4, examples=2)
    file = place.folder / "out" / "circuits" / "edge-attribution-ig_patching_edge" / "ioi_words" / "importances.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(EdgewiseError, match=f"is not what the attribution '{record}' says; remove both"):
        place.run(methods=("edge-attribution-ig",), train_examples=4)


def test_cells_that_cannot_be_run_are_left_out_with_the_reason(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hashed: list[str] = []
    fingerprint = Decoder.fingerprint
    monkeypatch.setattr(Decoder, "fingerprint", lambda self: hashed.append(self.name) or fingerprint(self))
    board = place.run(tasks=("ioi", "mcqa"), models=("gpt2", str(place.models / "words")), methods=("random",))
    assert [one.cell for one in board.results] == ["ioi_words", "mcqa_words"]
    assert len(hashed) == 1, "the weights of a model are hashed once for all its cells"
    (none, no_cell, why), (_, no_model, because) = board.missing
    assert (none, no_cell, why) == ("", "mcqa_gpt2", "the benchmark has no such cell")
    assert no_model == "ioi_gpt2"
    assert because.startswith("cannot find model 'openai-community/gpt2'")
    board = place.run(data=place.models)
    assert board.missing[0][2].startswith(f"there is no folder {str(place.models / 'ioi')!r}")


def test_the_cells_are_those_of_the_benchmark() -> None:
    cells, missing = cells_of(None, None)
    assert [cell.name for cell in cells if cell.model != "interpbench"] == sorted(
        CELLS, key=lambda name: ["gpt2", "qwen2.5", "gemma2", "llama3"].index(name.split("_")[1])
    )
    assert len(CELLS) == 12
    assert missing == []
    assert {cell.dtype for cell in cells if cell.model in ("gpt2", "interpbench")} == {"float32"}
    assert {cell.dtype for cell in cells if cell.model not in ("gpt2", "interpbench")} == {"bfloat16"}
    (elsewhere,), _ = cells_of(["arc-challenge"], ["llama3=/models/llama"])
    assert (elsewhere.name, elsewhere.source, elsewhere.official) == ("arc-challenge_llama3", "/models/llama", True)
    for models, why in (
        (["a/words", "b/words"], "the models 'a/words' and 'b/words' would both be called 'words'"),
        (["lama3=x"], "unknown model of the MIB benchmark 'lama3'; did you mean 'llama3'?"),
        (["llama3="], "the model's name is empty"),
    ):
        with pytest.raises(EdgewiseError, match=why.replace("?", r"\?")):
            cells_of(None, models)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"methods": ("acdc",)}, "'acdc' decides about edges and ranks none, so the benchmark cannot score it"),
        ({"methods": ()}, "nothing to run without a method"),
        ({"methods": ("relp", "head-importance"), "level": "node"}, "'head-importance' scores queries, keys"),
        ({"level": "neuron"}, "unknown level of the benchmark's circuits 'neuron'"),
        ({"level": "node", "select": "ilp"}, "--select ilp chooses edges, and circuits are of nodes"),
        ({"select": "best"}, "unknown way to choose edges 'best'"),
        ({"split": "private"}, "unknown split 'private'"),
        ({"examples": 0}, "--examples should be a whole number from 1, not 0"),
        ({"options": {"steps": 3}}, "none of the methods edge-attribution, random takes 'steps'"),
        ({"data": Path("nowhere")}, "there is no folder 'nowhere' with the benchmark's data"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(EdgewiseError, match=why):
        dataclasses.replace(MibPlan(methods=("edge-attribution", "random")), **asked).check()
    assert MibPlan(methods=("information-flow",)).selection("information-flow") == "greedy"
    assert MibPlan(methods=("eap",)).methods == ("edge-attribution",)
