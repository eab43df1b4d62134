"""What is known by name: edgewise's own, what installed packages bring, and what a user registers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from edgewise.errors import EdgewiseError, EdgewiseWarning, first_line, quoted

Thing = TypeVar("Thing")


class Registry(Mapping[str, Thing], Generic[Thing]):
    """Things of one kind by name, edgewise's own first.

    Other packages bring theirs by entry points, which are loaded when anything is first looked up here: so a package
    may import edgewise, and whoever needs none of them waits for none. One that is broken is left out with a warning.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        fits: Callable[[Any], bool],
        own: Mapping[str, Thing],
        reserved: Collection[str] = (),
    ) -> None:
        """
        Args:
            kind: what they are, for messages: `method`.
            group: the entry points' group: `edgewise.methods`.
            fits: whether something is of the kind.
            reserved: names that mean something else already.
        """
        self.kind, self.group, self._fits, self._reserved = kind, group, fits, reserved
        self._things, self._asked = dict(own), False

    def add(self, name: str, thing: Thing) -> None:
        """Make `thing` known as `name`.

        Raises:
            EdgewiseError: the name is taken or is none, or the thing is of another kind.
        """
        if not self._fits(thing):
            raise EdgewiseError(f"{quoted(thing)} is no {self.kind} (see docs/extending.md)")
        if not isinstance(name, str) or not name.strip() or "/" in name:
            raise EdgewiseError(f"a {self.kind}'s name should be a short word or two, without '/', not {quoted(name)}")
        if name in self._everything() or name in self._reserved:
            raise EdgewiseError(f"there is a {self.kind} called {name!r} already; choose another name")
        self._things[name] = thing

    def _everything(self) -> dict[str, Thing]:
        if not self._asked:
            self._asked = True  # before they are loaded: what they import may look here
            for entry in entry_points(group=self.group):
                try:
                    thing = entry.load()
                    self.add(getattr(thing, "name", entry.name), thing)
                except (Exception, SystemExit) as error:  # whatever another package's code raises
                    package = f" of package {entry.dist.name}" if entry.dist is not None else ""
                    warnings.warn(
                        f"the {self.kind} {entry.name!r}{package} cannot be used: {first_line(error)}",
                        EdgewiseWarning,
                        stacklevel=4,
                    )
        return self._things

    def __getitem__(self, name: str) -> Thing:
        return self._everything()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._everything())

    def __len__(self) -> int:
        return len(self._everything())
