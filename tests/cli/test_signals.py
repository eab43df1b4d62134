"""Ctrl-C, SIGTERM and SIGHUP: each ends a command once, and none while something is being saved."""

import signal
import time
from contextlib import contextmanager

import pytest

from edgewise.cli import entry, signals
from edgewise.cli.printing import Kept, exit_code, kept_if_stopped
from edgewise.discovery import Interrupted


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_being_asked_to_end_ends_with_the_signals_own_code(sent, code):
    before = signal.getsignal(sent)
    with pytest.raises(SystemExit) as ended, signals.listening():
        signal.raise_signal(sent)
    assert ended.value.code == code
    assert signal.getsignal(sent) is before


def test_a_signal_that_was_switched_off_stays_off():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.listening():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_is_heard_only_if_the_first_takes_too_long(monkeypatch):
    with signals.listening():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(signals, "AGAIN_AFTER", 0.01)
        time.sleep(0.02)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_is_being_saved_is_saved_before_the_end(capsys):
    done = []

    def save():
        with signals.listening(), signals.saving():
            signal.raise_signal(signal.SIGINT)
            done.append("saved")

    with pytest.raises(Kept) as ended:
        save()
    assert (done, ended.value.code) == (["saved"], 130)
    assert "interrupted when everything had been written" in capsys.readouterr().err


def test_a_signal_after_the_end_changes_nothing_of_it(monkeypatch, capsys):
    @contextmanager
    def listening():
        try:
            yield
        finally:
            raise KeyboardInterrupt  # as Python's own handler does, which is back by then

    def run(words):
        raise Kept(130)

    monkeypatch.setattr(entry, "listening", listening)
    monkeypatch.setattr(entry, "_run", run)
    with pytest.raises(Kept) as ended:
        entry.main()
    assert ended.value.code == 130
    assert "nothing was written" not in capsys.readouterr().err


@pytest.mark.parametrize("cause", [None, SystemExit(143), KeyboardInterrupt()])
def test_a_sweep_ends_with_the_code_of_what_stopped_it(tmp_path, cause, capsys):
    stop = Interrupted.__new__(Interrupted)
    stop.__cause__ = cause
    with pytest.raises(Kept) as ended, kept_if_stopped(tmp_path):
        raise stop
    assert ended.value.code == (143 if isinstance(cause, SystemExit) else 130)
    assert exit_code(SystemExit(129)) == 129
    assert "the same command goes on" in capsys.readouterr().err
