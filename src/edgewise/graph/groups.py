"""Groups of nodes by name ("supernodes"): a user's own, from a file or a dictionary, or those of a known circuit."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, near_matches, quoted
from edgewise.files import read_text
from edgewise.graph.circuit import Circuit
from edgewise.graph.graph import Graph
from edgewise.graph.names import parse_node
from edgewise.json_files import parse_json

Groups = Mapping[str, tuple[str, ...]]
"""The nodes of each group, by its name; a node is in one group at most."""
GivenGroups = str | Path | Mapping[str, Sequence[str]]
"""Groups as a user gives them: a file, or names and nodes."""
MOST_NAME = 100
"""Characters of a group's name."""


@dataclass(frozen=True)
class GroupFound:
    """How much of a group of components a circuit has."""

    group: str
    found: tuple[str, ...]
    members: tuple[str, ...]


def read_groups(given: GivenGroups, graph: Graph | None = None) -> dict[str, tuple[str, ...]]:
    """Groups from a JSON or TOML file of names and lists of nodes, or from such a dictionary.

    Args:
        graph: the one whose nodes they are to be.

    Raises:
        EdgewiseError: there is no such file, or it holds something else; a group without a name or a node, or with the
            name of a node; something that is no node (of `graph`); or a node that comes twice.
    """
    if isinstance(given, Mapping):
        what, groups = "the groups", given
    elif isinstance(given, str | Path):
        path = Path(given).expanduser()
        what = f"the groups in {str(path)!r}"
        groups = _in_file(path, what)
    else:
        raise EdgewiseError(f"groups are a file or a dictionary of names and nodes, not {quoted(given)}")
    if not groups:
        raise EdgewiseError(f'{what}: there is none; a group is written "name": ["a0.h1", "m0"]')
    home: dict[str, str] = {}
    for name, nodes in groups.items():
        _check_name(name, what)
        where = f"{what}: group {name!r}"
        if not isinstance(nodes, list | tuple) or not all(isinstance(node, str) for node in nodes):
            raise EdgewiseError(f'{where} should be a list of nodes, as in ["a0.h1", "m0"], not {quoted(nodes)}')
        if not nodes:
            raise EdgewiseError(f"{where} is empty")
        for node in nodes:
            _check_node(node, where, graph)
            if node in home:
                twice = "twice" if home[node] == name else f"and so has {home[node]!r}; a node is in one group at most"
                raise EdgewiseError(f"{where} has {node!r} {twice}")
            home[node] = name
    return {name: tuple(nodes) for name, nodes in groups.items()}


def group_of(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The group of each node that is in one."""
    return {node: group for group, nodes in groups.items() for node in nodes}


def groups_found(groups: Groups, circuit: Circuit) -> tuple[GroupFound, ...]:
    """What a circuit has of every group."""
    there = set(circuit.nodes())
    return tuple(
        GroupFound(group, tuple(node for node in members if node in there), tuple(members))
        for group, members in groups.items()
    )


def _in_file(path: Path, what: str) -> dict[str, Any]:
    if path.suffix.lower() not in (".json", ".toml"):
        raise EdgewiseError(f"the groups' file name {str(path)!r} should end in .json or .toml")
    text = read_text(path, "the groups")
    if path.suffix.lower() == ".toml":
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise EdgewiseError(f"{what}: not valid TOML: {error}") from None
    found = parse_json(text, what)
    if not isinstance(found, dict):
        raise EdgewiseError(f"{what} should be an object of names and nodes, not a {type(found).__name__}")

    def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, nodes in pairs:
            if name in found:
                raise EdgewiseError(f"{what}: group {quoted(name)} is there twice")
            found[name] = nodes
        return found

    return json.loads(text, object_pairs_hook=each_once)


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_NAME:
        raise EdgewiseError(f"{what}: a group's name is a text of 1 to {MOST_NAME} characters, not {quoted(name)}")
    try:
        parse_node(name)
    except EdgewiseError:
        return
    raise EdgewiseError(f"{what}: group {name!r} has the name of a node; call it something else")


def _check_node(node: str, where: str, graph: Graph | None) -> None:
    try:
        parse_node(node)
    except EdgewiseError as error:
        near = near_matches(node, _nodes(graph)) if graph is not None else ""
        raise EdgewiseError(f"{where}: {error}{near}") from None
    if graph is not None and node != "logits" and node not in graph.source_index:
        raise EdgewiseError(
            f"{where}: this graph ({graph.describe()}) has no node {quoted(node)}{near_matches(node, _nodes(graph))}"
        )


def _nodes(graph: Graph) -> tuple[str, ...]:
    return (*graph.source_index, "logits")
