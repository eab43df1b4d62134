"""The methods: each is one module here, whose `METHOD` says everything about it."""

from __future__ import annotations

from edgewise.discovery.method import Method
from edgewise.discovery.methods import (
    acdc,
    attribution_patching,
    bootstrapped_attribution,
    clean_corrupted,
    edge_attribution,
    edge_attribution_ig,
    edge_pruning,
    ensemble,
    exact,
    head_importance,
    information_flow,
    relp,
    subnetwork_probing,
    uniform_gradient_sampling,
)
from edgewise.errors import EdgewiseError, unknown
from edgewise.graph.by_node import Level
from edgewise.registry import Registry

_OWN = (
    *(acdc, exact, edge_attribution, edge_attribution_ig, clean_corrupted, relp, bootstrapped_attribution),
    *(attribution_patching, information_flow, head_importance, edge_pruning, uniform_gradient_sampling),
    *(subnetwork_probing, ensemble),
)
RANDOM = "random"
"""What sweeps call circuits of random paths, which no method may be called."""

ALIASES = {module.METHOD.short: module.METHOD.name for module in _OWN if module.METHOD.short is not None}
"""Names that papers use, for the method of the full name."""

METHODS: Registry[Method] = Registry(
    "method",
    "edgewise.methods",
    lambda thing: isinstance(thing, Method),
    {module.METHOD.name: module.METHOD for module in _OWN},
    (*ALIASES, RANDOM),
)


def register_method(method: Method) -> None:
    """Make a method known by its name, to `discover`, `sweep` and the command line of this process.

    Raises:
        EdgewiseError: the name is taken.
    """
    METHODS.add(getattr(method, "name", ""), method)


def require_level(name: str, level: Level) -> None:
    """Refuse a method, by its full name, that cannot find circuits of a level.

    Raises:
        EdgewiseError: it cannot; the message names those that can.
    """
    method = METHODS[name]
    if not method.finds(level):
        does = f"scores {'queries, keys, values and MLPs' if method.units else 'edges'}"
        wanted = "whole nodes" if level == "node" else f"{level}s"
        able = [other for other, one in METHODS.items() if one.finds(level)]
        raise EdgewiseError(f"method {name!r} {does}, not {wanted} (--level {level}); these can: {', '.join(able)}")


def method_named(name: str) -> str:
    """The full name of a method, which is what records hold.

    Raises:
        EdgewiseError: there is no such method.
    """
    full = ALIASES.get(name.lower(), name)
    if full not in METHODS:
        raise unknown("method", name, (*METHODS, *ALIASES))
    return full
