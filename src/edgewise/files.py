"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all: a reader sees the old file or the new one, never a part of it."""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise EdgewiseError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except OSError as error:
        Path(partial).unlink(missing_ok=True)
        raise EdgewiseError(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of `path`; `what` names the thing in the error, as in "the circuit"."""
    try:
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


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`, or an error that names the line where the JSON breaks."""
    try:
        value = json.loads(read_text(path, what))
    except json.JSONDecodeError as error:
        raise EdgewiseError(f"{what} {str(path)!r} is not valid JSON: line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise EdgewiseError(f"{what} {str(path)!r} is nested too deeply to be read") from None
    if not isinstance(value, dict):
        raise EdgewiseError(f"{what} {str(path)!r} should hold a JSON object, not a {type(value).__name__}")
    return value
