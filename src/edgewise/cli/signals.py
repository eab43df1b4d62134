"""Being asked to end: Ctrl-C, a closed terminal (SIGHUP) and SIGTERM, each once, and never in the middle of a save."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from edgewise.cli.printing import Kept

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

AGAIN_AFTER = 10.0
"""Seconds in which a command that was asked to end is not asked again, so that it can keep what it has."""


class _Asked:
    """The handler: the first signal ends the command, another one only if that takes too long."""

    def __init__(self) -> None:
        self.at = -AGAIN_AFTER
        self.saving = False
        self.late: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self.at < AGAIN_AFTER:
            return
        if self.saving:
            self.late = number
            return
        self.at = now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


_asked = _Asked()


@contextmanager
def listening() -> Iterator[None]:
    """Turn each ending signal into one exception; a signal that whoever started us has switched off stays off."""
    global _asked
    _asked, before = _Asked(), {}
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does, and shells for what runs in the background
            before[number] = signal.signal(number, _asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def saving() -> Iterator[None]:
    """What is done here is done whole: who asks for an end meanwhile gets it afterwards."""
    _asked.saving = True
    try:
        yield
    finally:
        _asked.saving = False
    if _asked.late is not None:
        typer.echo("edgewise: interrupted when everything had been written", err=True)
        raise Kept(128 + _asked.late)


def deaf() -> None:
    """At the very end: a signal now simply ends the process, rather than raise in the middle of its shutting down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
