"""Files that are written whole or not at all, and what a writer that was killed left behind.

What is being written lies beside its place under a hidden name that says whose it is: `.NAME.OWNER.partial`. A process
that is killed cannot take it away; the next one that writes to the same place does, if its owner no longer lives.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from pathlib import Path

from edgewise.errors import EdgewiseError

MOST_BYTES = 2**31
"""Of a file that is read whole."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all: a reader sees the old file or the new one, never a part of it."""
    partial = partial_of(path)
    try:
        # As any program's new file: what may be done with it is the user's umask's to say.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        raise EdgewiseError(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        _remove(partial)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def user_cache() -> Path:
    """What is kept between runs for this user: $EDGEWISE_CACHE, else a folder in the user's cache folder."""
    own = os.environ.get("EDGEWISE_CACHE")
    folder = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "edgewise"
    return folder.expanduser()


def partial_of(path: Path) -> Path:
    """A hidden place beside `path` for what is to become it, named after this process; it is not there yet.

    What processes that no longer live have left for the same `path` is removed.
    """
    remove_leftovers(path)
    own = f"{_machine()}-{os.getpid()}-{_started(os.getpid())}"
    return path.with_name(f".{path.name}.{own}-{secrets.token_hex(4)}.partial")


def take_place(finished: Path, path: Path) -> None:
    """Give a finished folder the name `path`; what is there makes room, and is removed when that is done.

    Raises:
        OSError: it cannot be done, and what was there is there again.
    """
    if not path.exists():
        finished.replace(path)
        return
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.replaced")  # no leftover of a kill
    path.replace(old)
    try:
        finished.replace(path)
    except OSError:
        old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what was to become `path` and whose process no longer lives.

    A process on another machine, or in another container, that shares the folder is taken to live.
    """
    named = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]+)-([0-9]+)-([0-9]+)-[0-9a-f]{8}\.partial")
    try:
        found = [(one, match) for one in path.parent.iterdir() if (match := named.fullmatch(one.name))]
    except OSError:
        return
    for leftover, match in found:
        if match[1] == _machine() and not _lives(int(match[2]), int(match[3])):
            _remove(leftover)


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """What tells this machine, and on Linux this container of it, from others that may share a folder with it."""
    try:
        processes = Path("/proc/self/ns/pid").readlink()
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:12]


def _started(process: int) -> int:
    """When a process of this machine began, in the kernel's ticks; 0 where the kernel does not say."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _lives(process: int, started: int) -> bool:
    """Whether a process of this machine still runs, and is not another one that has its number now."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it runs, as somebody else's
    return _started(process) in (0, started) or started == 0


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of `path`; `what` names the thing in the error, as in "the circuit"."""
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode) and not stat.S_ISDIR(kind.st_mode):
            raise EdgewiseError(f"{what} {str(path)!r} is no regular file")
        if kind.st_size > MOST_BYTES and stat.S_ISREG(kind.st_mode):
            raise EdgewiseError(f"{what} {str(path)!r} has {kind.st_size / 2**30:.1f} GiB, more than is read at once")
        return path.read_bytes()
    except FileNotFoundError:
        raise EdgewiseError(f"{what} {str(path)!r}: there is no such file") from None
    except IsADirectoryError:
        raise EdgewiseError(f"{what} {str(path)!r} is a folder, not a file") from None
    except OSError as error:
        raise EdgewiseError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from None


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of `path`; see `decode`."""
    return decode(read_bytes(path, what), path, what)


def decode(data: bytes, path: Path, what: str) -> str:
    """What `path` holds as UTF-8 text, without a byte order mark; line ends are left as they are."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EdgewiseError(f"{what} {str(path)!r} is not UTF-8 text (byte {error.start})") from None
