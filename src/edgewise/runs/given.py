"""What a user gives to hold a run against: a true circuit, which its folder keeps, and groups of nodes.

Reading a run folder's, or a file's but in torch's form, does not wait for torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph import Circuit, OutputCircuit, load_circuit
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.eap_json import to_dict
from edgewise.graph.groups import Groups, read_groups
from edgewise.runs.reading import read_run

if TYPE_CHECKING:
    from edgewise.runs.run import Run
    from edgewise.tasks import GivenCircuit, Task, Truth

KNOWN = "known.json"
"""The file of a run folder that holds the true circuit that its user gave."""
_UNNAMED = "a circuit of one's own"


def check_known(known: object) -> None:
    """Refuse what can be no true circuit, before anything is loaded.

    Raises:
        EdgewiseError: it is neither a circuit, a run, nor the path of one.
    """
    if isinstance(known, str | Path):
        if not str(known):
            raise EdgewiseError("the known circuit (--known) is empty")
        if not Path(known).expanduser().exists():
            raise EdgewiseError(f"the known circuit {str(known)!r}: there is no such run folder or circuit file")
    elif not (hasattr(known, "edges") or hasattr(known, "circuit")):
        raise EdgewiseError(f"a known circuit (--known) is a circuit, a run, or the path of one, not {quoted(known)}")


def known_of(known: str | Path | Circuit | Run | Truth) -> GivenCircuit:
    """The true circuit that a user gave, called by its file's name.

    Raises:
        EdgewiseError: it is none, or empty; or a run whose search was stopped, whose circuit holds what was not tested.
    """
    from edgewise.tasks import GivenCircuit, Truth

    check_known(known)
    if isinstance(known, Truth):
        return known if isinstance(known, GivenCircuit) else GivenCircuit(known.source, known.circuit)
    record: Mapping[str, Any] = getattr(known, "record", {})
    if isinstance(known, str | Path):
        path = Path(known).expanduser()
        name = path.resolve().name
        if path.is_dir():
            record, circuit = read_run(path)
        else:
            circuit = read_circuit(path, "the known circuit")
    else:
        folder = getattr(known, "folder", None)
        name = _UNNAMED if folder is None else Path(folder).resolve().name
        circuit = known if isinstance(known, Circuit) else known.circuit
    require_edges(circuit, "nothing can be held against the edges")
    if isinstance(circuit, OutputCircuit):
        circuit = circuit.of_edges()
    if not record.get("finished", True):
        raise EdgewiseError(
            f"the search of the run {name!r} was stopped, so that its circuit still holds every edge that it had not "
            "come to; it is no known circuit"
        )
    return GivenCircuit(name, circuit)


def read_circuit(path: Path, what: str = "the circuit") -> Circuit:
    """The circuit of a run folder, or of a file of EAP-IG, AutoCircuit or Edge Pruning: JSON, or what torch saved.

    Raises:
        EdgewiseError: as `read_run`, `load_circuit` and `load_pt`.
    """
    if path.is_dir():
        return read_run(path)[1]
    if path.suffix not in (".pt", ".pkl"):
        return load_circuit(path, what)
    from edgewise.runs.mib_export import load_pt  # the forms that need torch

    return load_pt(path)


def name_of(known: object) -> str:
    """What a run's settings say of a true circuit: its path, or that it had none."""
    if isinstance(known, str | Path):
        return str(known)
    return str(getattr(known, "source", getattr(known, "folder", _UNNAMED)))


def kept_known(task: Task) -> dict[str, str]:
    """The file of a true circuit that the user gave, by its name; no file for others."""
    from edgewise.tasks import GivenCircuit

    known = task.known_circuit
    return {KNOWN: json.dumps(to_dict(known.circuit))} if isinstance(known, GivenCircuit) else {}


def known_in(folder: Path, settings: Mapping[str, Any]) -> GivenCircuit | None:
    """The true circuit that a run folder keeps, if its user gave one.

    Raises:
        EdgewiseError: the file is missing or broken.
    """
    if settings.get("known") is None:
        return None
    from edgewise.tasks import GivenCircuit

    return GivenCircuit(Path(str(settings["known"])).name, load_circuit(folder / KNOWN, "the known circuit of the run"))


def groups_in(settings: Mapping[str, Any]) -> Groups:
    """The groups of nodes in a run's settings, if its user gave any.

    Raises:
        EdgewiseError: they are none.
    """
    if settings.get("groups") is None:
        return {}
    if not isinstance(settings["groups"], Mapping):
        raise EdgewiseError("the run's settings are broken: 'groups' should be an object of names and nodes")
    try:
        return read_groups(settings["groups"])
    except EdgewiseError as error:
        raise EdgewiseError(f"the run's settings are broken: {error}") from None
