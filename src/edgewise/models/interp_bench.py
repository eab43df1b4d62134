"""InterpBench's models (Gupta et al. 2024): TransformerLens' state dict, with its configuration in a pickle.

`ll_model_cfg.pkl` holds a `HookedTransformerConfig`, or its fields as a dictionary. It is read as text is, one opcode
after another: the few that make plain values do so, and a class or function is never more than its name.
"""

from __future__ import annotations

import itertools
import pickletools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError
from edgewise.files import read_bytes

CONFIG = "ll_model_cfg.pkl"
WEIGHTS = "ll_model*.pth"
TOKENIZER = "gpt2"
"""Of a model that names none: InterpBench's IOI is on GPT-2's tokens."""
MOST_BYTES, MOST_VALUES = 2**20, 10_000
_MARK = object()


@dataclass
class _Made:
    """What something of a name would have made of arguments and a state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The fields of a pickled configuration that are plain values; a dtype or device is its name.

    Raises:
        EdgewiseError: it holds something else.
    """
    data = read_bytes(path, "the configuration")
    if len(data) > MOST_BYTES:
        raise EdgewiseError(f"model {name!r}: its {path.name} has {len(data):,} bytes, too many for a configuration")
    try:
        found = _plain(_read(data), itertools.count())
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EdgewiseError(f"model {name!r}: its {path.name} is no pickle of plain values ({error})") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise EdgewiseError(f"model {name!r}: its {path.name} holds no configuration")
    # The field is None where the model was trained on tokens that somebody else made.
    return {**found, "tokenizer_name": found.get("tokenizer_name") or TOKENIZER}


def weights_in(folder: Path, name: str) -> Path:
    """The state dict beside a configuration, or the only one in a folder beside it.

    Raises:
        EdgewiseError: there is none, or there are several.
    """
    found = sorted(folder.glob(WEIGHTS)) or sorted(folder.glob(f"*/{WEIGHTS}"))
    if len(found) != 1:
        what = f"several ({', '.join(str(one.relative_to(folder)) for one in found)})" if found else "none"
        raise EdgewiseError(f"model {name!r} should have one file of weights called {WEIGHTS}, and it has {what}")
    return found[0]


def _plain(value: Any, so_far: Iterator[int]) -> Any:
    if next(so_far) > MOST_VALUES:  # what a pickle says once, it can refer to again and again
        raise ValueError("it has too many values")
    if isinstance(value, _Made):
        value = value.state or (value.arguments[0] if value.arguments else value.name.rpartition(".")[2])
    if isinstance(value, dict):
        return {key: _plain(one, so_far) for key, one in value.items()}
    return [_plain(one, so_far) for one in value] if isinstance(value, list | tuple) else value


_VALUES = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "INT", "LONG"),
    *("LONG1", "BINFLOAT", "FLOAT"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _read(data: bytes) -> Any:
    """What a pickle of plain values is of.

    Raises:
        ValueError, IndexError, KeyError, TypeError, AttributeError: it has other opcodes, or makes no sense.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = max(index for index, one in enumerate(stack) if one is _MARK)
        found = stack[at + 1 :]
        del stack[at:]
        return found

    def pairs(into: dict[Any, Any], flat: Sequence[Any]) -> None:
        into.update(zip(flat[::2], flat[1::2], strict=True))

    for opcode, argument, _ in pickletools.genops(data):
        kind: str = opcode.name
        if kind in ("PROTO", "FRAME"):
            continue
        if kind == "STOP":
            return stack.pop()
        if kind == "MARK":
            stack.append(_MARK)
        elif kind in _VALUES:
            stack.append(argument)
        elif kind in _CONSTANTS:
            stack.append(_CONSTANTS[kind])
        elif kind in _EMPTY:
            stack.append(_EMPTY[kind]())
        elif kind in _TUPLES:
            stack[-_TUPLES[kind] :] = [tuple(stack[-_TUPLES[kind] :])]
        elif kind in ("TUPLE", "LIST"):
            stack.append({"TUPLE": tuple, "LIST": list}[kind](since_mark()))
        elif kind == "DICT":
            flat = since_mark()
            stack.append({})
            pairs(stack[-1], flat)
        elif kind == "APPEND":
            one = stack.pop()
            stack[-1].append(one)
        elif kind == "APPENDS":
            many = since_mark()
            stack[-1].extend(many)
        elif kind == "SETITEM":
            value, key = stack.pop(), stack.pop()
            pairs(stack[-1], [key, value])
        elif kind == "SETITEMS":
            flat = since_mark()
            pairs(stack[-1], flat)
        elif kind == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif kind in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument)] = stack[-1]  # type: ignore[arg-type] - a number
        elif kind in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument)])  # type: ignore[arg-type] - a number
        elif kind == "GLOBAL":
            stack.append(_Made(str(argument).replace(" ", ".")))
        elif kind == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_Made(f"{module}.{name}"))
        elif kind in ("REDUCE", "NEWOBJ"):
            arguments, what = stack.pop(), stack.pop()
            first = arguments[0].name if arguments and isinstance(arguments[0], _Made) else what.name
            stack.append(_Made(first, tuple(one for one in arguments if not isinstance(one, _Made))))
        elif kind == "BUILD":
            state = stack.pop()
            pairs(stack[-1].state, [part for item in dict(state).items() for part in item])
        else:
            raise ValueError(f"it has the opcode {kind}")
    raise ValueError("it has no end")
