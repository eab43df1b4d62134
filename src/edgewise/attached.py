"""Methods of a class that a folder above it defines, such as what draws a circuit; imported when first asked for."""

from __future__ import annotations

import importlib
from typing import Any


class _Attached:
    """Stands for a method until the module that defines it is there and has put it in this one's place."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __get__(self, one: object, kind: type) -> Any:
        importlib.import_module(self.module)
        return getattr(kind if one is None else one, self.name)


def attach(kind: type, module: str, *names: str) -> None:
    """Let a class have methods that `module` sets on it when it is imported."""
    for name in names:
        setattr(kind, name, _Attached(module, name))
