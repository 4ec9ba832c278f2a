"""Files are whole or not there, whatever fails on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from coterie import files
from coterie.errors import DataError, EnvironmentFault, RunError
from coterie.files import (
    append_line,
    read_arrays,
    read_bytes,
    require_private,
    sha256_of,
    write_arrays,
    write_bytes,
    write_private,
    write_text,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(*args: object, **kwargs: object) -> None:
    raise FULL


def test_what_is_written_is_read_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "é.txt"
    write_text(path, "grüße\n")
    assert read_bytes(path).decode() == "grüße\n"
    write_bytes(path, b"new")
    assert read_bytes(path) == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["é.txt"]


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    path = tmp_path / "model.safetensors"
    write_bytes(path, b"old")
    with monkeypatch.context() as broken:
        broken.setattr(owner, call, fail)
        with pytest.raises(EnvironmentFault, match=f"{path}: cannot be written: No space left on device") as caught:
            write_bytes(path, b"new")
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_content_is_durable_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(handle: int) -> None:
        calls.append("fsync")
        sync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_bytes(tmp_path / "f", b"x")
    assert calls == ["fsync", "replace", "fsync"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "f", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_keeps_files_private_keeps_these_private(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "f", b"x")
        append_line(tmp_path / "g", "x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "fg"] == [mode, mode]


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_what_is_private_is_its_owners_alone_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"one")
        write_private(tmp_path / "key", b"two")
    finally:
        os.umask(before)
    require_private(tmp_path / "key")
    assert ((tmp_path / "key").stat().st_mode & 0o777, (tmp_path / "key").read_bytes()) == (0o600, b"two")
    (tmp_path / "key").chmod(0o604)
    with pytest.raises(
        DataError, match=rf"{tmp_path}/key: a secret that others may read \(mode 0604\); run: chmod 600"
    ):
        require_private(tmp_path / "key")
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        require_private(tmp_path / "nothing")


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_a_secret_that_somebody_else_owns_may_be_read_by_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private(tmp_path / "key", b"one")
    (tmp_path / "key").chmod(0o440)
    with pytest.raises(DataError, match="mode 0440"):
        require_private(tmp_path / "key")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "key").stat().st_uid + 1)
    require_private(tmp_path / "key")
    for mode in (0o460, 0o444):
        (tmp_path / "key").chmod(mode)
        with pytest.raises(DataError, match=f"mode {mode:04o}"):
            require_private(tmp_path / "key")


def test_of_two_that_make_a_private_file_one_is_told(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "key", b"second", replace=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"first")]


def test_a_private_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match="the folder cannot be made"):
        write_private(tmp_path / "file" / "key", b"x")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFault, match="key: cannot be written: No space left on device"):
        write_private(tmp_path / "key", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match=f"^{tmp_path}/file: the folder cannot be made: "):
        write_bytes(tmp_path / "file" / "inside", b"x")
    with pytest.raises(EnvironmentFault, match=f"^{tmp_path}/file: the folder cannot be made: "):
        append_line(tmp_path / "file" / "inside", "x")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_bytes(tmp_path, b"x")


def test_lines_are_appended(tmp_path: Path) -> None:
    for line in ("one", "zwei é", "three"):
        append_line(tmp_path / "new" / "m.jsonl", line)
    assert (tmp_path / "new" / "m.jsonl").read_text("utf-8") == "one\nzwei é\nthree\n"


@pytest.mark.parametrize(("left", "kept"), [("", ""), ("tor", ""), ("one\ntor", "one\n"), ("one\n", "one\n")])
def test_a_line_that_a_crash_left_torn_is_dropped(tmp_path: Path, left: str, kept: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(left)
    append_line(path, "next")
    assert path.read_text() == f"{kept}next\n"


def test_a_full_disk_while_appending_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFault, match="cannot be written: No space left on device"):
        append_line(tmp_path / "m.jsonl", "x")


def test_reading_what_is_not_there_names_it(tmp_path: Path) -> None:
    for read in (read_bytes, sha256_of):
        with pytest.raises(EnvironmentFault, match=f"{tmp_path / 'no'}: cannot be read: No such file"):
            read(tmp_path / "no")
        with pytest.raises(EnvironmentFault, match="cannot be read"):
            read(tmp_path)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    write_bytes(tmp_path / "f", content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def arrays() -> dict[str, np.ndarray]:
    return {
        "b": np.arange(6, dtype=np.int64).reshape(2, 3),
        "a": np.array(3, np.int64),
        "strided": np.arange(12, dtype=np.float32).reshape(3, 4).T[::2],
        "empty": np.zeros((0, 4)),
        "read_only": np.frombuffer(b"\x01\x02", np.int8),
    }


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    write_arrays(tmp_path / "m.safetensors", arrays())
    back = read_arrays(tmp_path / "m.safetensors")
    assert back.keys() == arrays().keys()
    for name, value in arrays().items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape)
        assert np.array_equal(back[name], value)


def test_equal_arrays_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    write_arrays(tmp_path / "1", arrays())
    write_arrays(tmp_path / "2", dict(reversed(arrays().items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_truncated_file_of_arrays_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.safetensors"
    write_arrays(path, arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=f"{path}: truncated or not a safetensors file .*; train again or restore it"):
        read_arrays(path)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises(RunError, match="not a safetensors file"):
        read_arrays(tmp_path / "m")


def test_missing_arrays_and_unreadable_ones_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file; the run folder is not complete"):
        read_arrays(tmp_path / "m")
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        read_arrays(tmp_path)


def test_nothing_here_is_read_with_pickle() -> None:
    assert "pickle" not in Path(files.__file__).read_text("utf-8")
