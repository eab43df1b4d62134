"""Files are written whole or not at all, and what cannot be read is said in words."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgewise import files
from edgewise.errors import EdgewiseError
from edgewise.files import read_text, write_bytes, write_text
from edgewise.json_files import part, read_json
from edgewise.runs import RunFolder


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "Zürich → 東京\n")
    assert read_text(tmp_path / "file.txt", "the file") == "Zürich → 東京\n"
    assert (tmp_path / "file.txt").read_bytes() == "Zürich → 東京\n".encode()
    write_bytes(tmp_path / "file.txt", b"shorter")
    assert (tmp_path / "file.txt").read_bytes() == b"shorter"
    assert listing(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), RuntimeError("something else")], ids=["ctrl-c", "other"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    write_text(tmp_path / "circuit.json", "the old one")
    seen: list[list[str]] = []

    def interrupt(_: int) -> None:
        seen.append(listing(tmp_path))
        raise trouble

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(type(trouble)):
        write_text(tmp_path / "circuit.json", "the new one, half of it")
    assert len(seen) == 1
    assert len(seen[0]) == 2  # it was interrupted half-way, with a second file beside the old one
    assert listing(tmp_path) == ["circuit.json"]
    assert (tmp_path / "circuit.json").read_text() == "the old one"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_text(tmp_path / "circuit.json", "the old one")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(files.os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(EdgewiseError, match=r"cannot write .*circuit\.json: No space left on device"):
        write_text(tmp_path / "circuit.json", "the new one")
    assert listing(tmp_path) == ["circuit.json"]
    assert (tmp_path / "circuit.json").read_text() == "the old one"


def test_a_folder_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"cannot write .*absent/circuit\.json: No such file or directory"):
        write_text(tmp_path / "absent" / "circuit.json", "text")
    assert listing(tmp_path) == []


def test_writing_over_a_folder_is_refused_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(EdgewiseError, match=r"cannot write .*folder: Is a directory"):
        write_text(tmp_path / "folder", "text")
    assert listing(tmp_path) == ["folder"]
    assert listing(tmp_path / "folder") == ["kept"]


def test_files_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(EdgewiseError, match=r"the prompts '.*absent\.txt': there is no such file"):
        read_text(tmp_path / "absent.txt", "the prompts")
    with pytest.raises(EdgewiseError, match=r"the prompts '.*' is a folder, not a file"):
        read_text(tmp_path, "the prompts")
    with pytest.raises(EdgewiseError, match=r"the prompts '.*latin1\.txt' is not UTF-8 text \(byte 1\)"):
        read_text(tmp_path / "latin1.txt", "the prompts")
    with pytest.raises(EdgewiseError, match=r"the prompts '.*' cannot be read: Not a directory"):
        read_text(tmp_path / "latin1.txt" / "below", "the prompts")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(EdgewiseError, match=r"the circuit '.*' is no regular file"):
            read_text(path, "the circuit")


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_what_may_be_done_with_a_file_is_the_umasks_to_say(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "text")
        with RunFolder.claim(tmp_path / "run") as claimed:
            claimed.finish({"run.json": "{}"})
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "run", "run/run.json")]
    assert modes == [0o666 & ~umask, 0o777 & ~umask, 0o666 & ~umask]


# --- what a killed process left ------------------------------------------------------------------------------------

KILLED = "import sys, os; from pathlib import Path; from edgewise.files import partial_of; "


def leave(path: Path, then: str) -> subprocess.Popen[str]:
    """A process that has begun to write `path`, as a file and as a folder, and what it does then."""
    code = KILLED + (
        "path = Path(sys.argv[1]); partial_of(path).write_text('half'); folder = partial_of(path); folder.mkdir(); "
        f"(folder / 'half').touch(); print('there', flush=True); {then}"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    killed, living = leave(tmp_path / "run", "os.kill(os.getpid(), 9)"), leave(tmp_path / "run", "sys.stdin.read(1)")
    try:
        killed.wait()
        mine = {f".run.{name}.partial" for name in ("mine", "0123456789ab-99999999-1-00000000")}
        for name in (*mine, ".run-2.x.partial"):
            (tmp_path / name).touch()
        assert len(listing(tmp_path)) == 7
        write_text(tmp_path / "run", "whole")
        left = set(listing(tmp_path)) - mine - {".run-2.x.partial", "run"}
        assert len(left) == 2
        assert all(f"-{living.pid}-" in name for name in left)
    finally:
        living.kill()
        living.wait()
    write_text(tmp_path / "run", "whole")
    assert set(listing(tmp_path)) == {*mine, ".run-2.x.partial", "run"}, (
        "another machine's processes are not known here"
    )


def test_another_process_with_a_dead_ones_number_is_not_taken_for_it(tmp_path: Path) -> None:
    own = files.partial_of(tmp_path / "run")
    machine, number, started, token = own.name.removeprefix(".run.").removesuffix(".partial").split("-")
    other = own.with_name(f".run.{machine}-{number}-{int(started) + 1}-{token}.partial")
    own.touch()
    other.touch()
    files.remove_leftovers(tmp_path / "run")
    assert own.exists()
    assert other.exists() == (started == "0"), "a system that does not say when a process began leaves it"


# --- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ('{"result": {"n_edges": ' + "1" * 5000 + "}}", r"'result.n_edges' is a number of 5,000 digits; at most 300"),
        ('{"a": [1, 2.5, -' + "9" * 400 + "]}", r"'a\[2\]' is a number of 400 digits"),
        ('{"a": {"m0->logits": NaN}}', r"'a.m0->logits' is 'NaN', which is no finite number"),
        ('{"a": -Infinity}', "'a' is '-Infinity', which is no finite number"),
        ('{"a": 1, "b": 1e999}', "'b' is '1e999', which is no finite number"),
        ('{"a": ' + "[" * 60 + "]" * 60 + "}", "nested too deeply"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
    ids=["long", "overflow", "nan", "infinite", "too large", "deep", "deeper"],
)
def test_json_is_read_within_bounds_and_the_field_is_named(tmp_path: Path, text: str, trouble: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(EdgewiseError, match=rf"^the run '.*run\.json': {trouble}"):
        read_json(tmp_path / "run.json", "the run")


def test_a_part_of_the_wrong_kind_is_named_and_not_quoted_whole() -> None:
    value = {"a": {"b": "x" * 100_000, "c": True, "d": 3}}
    with pytest.raises(
        EdgewiseError, match=r"^it is broken: 'a.b' should be a number, not \"x+\.\.\. \(100,002 char"
    ) as long:
        part(value, "a.b", float, "it")
    assert len(str(long.value)) < 300
    for path, kind, why in (("a.c", int, "a whole number, not true"), ("a.d.e", int, "'a.d.e' is missing")):
        with pytest.raises(EdgewiseError, match=why):
            part(value, path, kind, "it")
    assert part(value, "a.d", float, "it") == 3


def test_json_that_is_broken_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(EdgewiseError, match=r"the run '.*run\.json': not valid JSON: line 2: Expecting ':'"):
        read_json(path, "the run")
    path.write_text('["a"]')
    with pytest.raises(EdgewiseError, match="should hold a JSON object, not a list"):
        read_json(path, "the run")
    path.write_text('{"a": 1}')
    assert read_json(path, "the run") == {"a": 1}
