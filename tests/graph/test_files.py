"""Files are written whole or not at all, and what cannot be read is said in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise import files
from edgewise.errors import EdgewiseError
from edgewise.files import read_json, read_text, write_bytes, write_text


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


def test_json_that_is_broken_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(EdgewiseError, match=r"the run '.*run\.json' is not valid JSON: line 2: Expecting ':'"):
        read_json(path, "the run")
    path.write_text('["a"]')
    with pytest.raises(EdgewiseError, match="should hold a JSON object, not a list"):
        read_json(path, "the run")
    path.write_text('{"a": 1}')
    assert read_json(path, "the run") == {"a": 1}
