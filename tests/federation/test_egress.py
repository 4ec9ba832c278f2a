"""An egress log holds every message that left, survives kills and full disks, and tells what was done to it."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import DataError, EnvironmentFault
from coterie.federation import filelock
from coterie.federation.egress import Anchor, EgressLog, read, verify
from coterie.federation.egressline import Head, head_of, line_of, text_of
from tests.federation.keeper import STEPS, Order, keeper, known

MESSAGE = {
    "kind": "sum",
    "bytes": 3,
    "sha256": hashlib.sha256(b"abc").hexdigest(),
    "contains": "this organisation's sums, masked",
    "masked": True,
    "epsilon": 0.5,
}


def log_of(folder: Path, lines: int) -> Path:
    """The log of a node that sent so many messages."""
    path = folder / "egress.jsonl"
    log = EgressLog(path)
    for number in range(lines):
        log.append("job", number, **MESSAGE)  # type: ignore[arg-type]
    return path


@contextmanager
def quick_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def found(path: Path) -> tuple[int | None, str]:
    said = verify(path)
    return said.line, said.reason


# --- what it says ---------------------------------------------------------------------------------------------------


def test_a_line_says_what_left_and_names_the_line_before(tmp_path: Path) -> None:
    noon = datetime(2025, 6, 1, 14, 0, 0, 120_000, timezone(timedelta(hours=2)))
    log = EgressLog(tmp_path / "new" / "egress.jsonl", clock=lambda: noon)
    first = log.append(None, None, "enrol", 10, "ab" * 32, "a public key", masked=False, epsilon=None)
    second = log.append("weekly.1", 3, "sum", 20, "cd" * 32, "sums", masked=True, epsilon=math.inf, vault=7)
    raw = lines_of(log.path)
    assert json.loads(raw[0]) == {
        "line": 1,
        "time": "2025-06-01T12:00:00.120Z",
        "job": None,
        "round": None,
        "kind": "enrol",
        "bytes": 10,
        "sha256": "ab" * 32,
        "contains": "a public key",
        "masked": False,
        "epsilon": None,
        "vault": None,
        "previous": "0" * 64,
    }
    assert json.loads(raw[1])["previous"] == hashlib.sha256(raw[0].rstrip(b"\n")).hexdigest()
    assert (json.loads(raw[1])["epsilon"], second.epsilon) == ("unbounded", math.inf)
    assert list(read(log.path)) == [first, second]
    assert (log.last(), EgressLog(log.path).last()) == (second, second)


def test_a_new_log_is_empty_and_whole(tmp_path: Path) -> None:
    log = EgressLog(tmp_path / "egress.jsonl")
    assert log.last() is None
    assert str(verify(log.path)) == "0 lines are as written, and none is missing"
    log.append("job", 0, **MESSAGE)  # type: ignore[arg-type]
    assert str(verify(log.path)) == "1 line is as written, and none is missing"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("job", ""),
        ("job", "two\nlines"),
        ("round", -1),
        ("round", True),
        ("kind", "Sum!"),
        ("kind", ""),
        ("bytes", -1),
        ("bytes", 1.5),
        ("sha256", "ab"),
        ("contains", ""),
        ("contains", "\x1b[31m"),
        ("contains", "x" * 501),
        ("masked", 1),
        ("epsilon", -0.1),
        ("epsilon", math.nan),
        ("epsilon", True),
        ("vault", -1),
    ],
)
def test_what_a_log_does_not_hold_is_refused_and_nothing_is_written(tmp_path: Path, name: str, value: Any) -> None:
    path = log_of(tmp_path, 1)
    before = (path.read_bytes(), head_of(path).read_bytes())
    with pytest.raises(DataError, match=f"an egress log does not hold {name} = "):
        EgressLog(path).append(**{"job": "job", "round": 0, **MESSAGE, name: value})
    assert (path.read_bytes(), head_of(path).read_bytes()) == before


def test_what_a_later_version_adds_to_a_line_is_passed_over(tmp_path: Path) -> None:
    path = log_of(tmp_path, 1)
    (line,) = read(path)
    assert line_of(json.dumps({**json.loads(text_of(line)), "attempt": 3}).encode()) == line


def test_a_vault_that_is_behind_the_last_line_sends_nothing(tmp_path: Path) -> None:
    log = EgressLog(tmp_path / "egress.jsonl")
    log.append("job", 0, **MESSAGE, vault=7)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"the vault has seen 6 changes, and 7 when the last message left"):
        log.append("job", 0, **MESSAGE, vault=6)  # type: ignore[arg-type]
    log.append("job", 0, **MESSAGE, vault=7)  # type: ignore[arg-type]
    assert verify(log.path).lines == 2


def test_several_writers_take_turns(tmp_path: Path) -> None:
    path = log_of(tmp_path, 0)

    def write(log: EgressLog) -> None:
        for number in range(15):
            log.append("job", number, **MESSAGE)  # type: ignore[arg-type]

    shared = EgressLog(path)
    threads = [threading.Thread(target=write, args=(log,)) for log in (shared, shared, EgressLog(path))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (verify(path).ok, verify(path).lines) == (True, 45)


def test_processes_take_turns(tmp_path: Path) -> None:
    with keeper() as first, keeper() as second:
        for program in (first, second):
            program.start(Order("egress", str(tmp_path)))
        assert [program.answer()["code"] for program in (first, second)] == [0, 0]
    assert (verify(tmp_path / "egress.jsonl").ok, sorted(known(tmp_path))) == (True, list(range(1, 2 * STEPS + 1)))


def test_a_log_that_somebody_holds_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log_of(tmp_path, 1)
    monkeypatch.setattr(filelock.locked.__wrapped__, "__defaults__", (0.05,))  # type: ignore[attr-defined]
    with (
        filelock.locked(path.with_name("egress.jsonl.lock"), "test"),
        pytest.raises(EnvironmentFault, match=r"the egress log .*: another process has held .* for 0\.05 seconds"),
    ):
        EgressLog(path)


# --- what was done to it --------------------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(lines_of(path))))


def altered(lines: list[bytes], at: int, old: bytes = b'"bytes":3', new: bytes = b'"bytes":4') -> list[bytes]:
    assert old in lines[at - 1]
    return [*lines[: at - 1], lines[at - 1].replace(old, new), *lines[at:]]


@pytest.mark.parametrize("at", [1, 4, 6])
def test_an_altered_line_is_named(tmp_path: Path, at: int) -> None:
    path = log_of(tmp_path, 6)
    edit(path, lambda lines: altered(lines, at))
    line, reason = found(path)
    assert line == at
    assert reason == f"altered: {f'line {at + 1}' if at < 6 else 'the head'} has another hash of it"


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_line_whose_link_was_altered_is_named_and_not_its_neighbour(tmp_path: Path, at: int) -> None:
    path = log_of(tmp_path, 6)
    link = json.loads(lines_of(path)[at - 1])["previous"]
    edit(path, lambda lines: altered(lines, at, link.encode(), ("f" * 64).encode()))
    line, reason = found(path)
    assert line == at
    assert reason.startswith("altered")


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_line_whose_number_was_altered_is_named(tmp_path: Path, at: int) -> None:
    path = log_of(tmp_path, 6)
    edit(path, lambda lines: altered(lines, at, b'{"line":%d,' % at, b'{"line":9,'))
    assert found(path) == (at, f"altered: it follows line {at - 1}, and calls itself line 9")


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize(
    "text", [b"{}\n", b"\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"line":' + b"9" * 5000 + b"}\n"]
)
def test_what_is_no_line_is_named(tmp_path: Path, at: int, text: bytes) -> None:
    path = log_of(tmp_path, 4)
    edit(path, lambda lines: [*lines[: at - 1], text, *lines[at:]])
    assert found(path) == (at, "not a line of an egress log: altered, or written by hand")
    with pytest.raises(DataError, match=f"line {at}: not a line of an egress log"):
        list(read(path))


@pytest.mark.parametrize(("first", "count"), [(1, 1), (1, 2), (3, 1), (3, 3), (4, 2)])
def test_removed_lines_are_named(tmp_path: Path, first: int, count: int) -> None:
    path = log_of(tmp_path, 6)
    edit(path, lambda lines: lines[: first - 1] + lines[first - 1 + count :])
    assert found(path) == (first, f"removed: line {first + count} stands in its place")


def test_lines_out_of_order_are_named(tmp_path: Path) -> None:
    path = log_of(tmp_path, 6)
    edit(path, lambda lines: [lines[0], lines[3], lines[1], lines[2], *lines[4:]])
    assert found(path) == (2, "out of order: line 4 stands in its place, and line 2 at place 3")


def test_a_line_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = log_of(tmp_path, 4)
    edit(path, lambda lines: [*lines[:3], lines[1], lines[3]])
    assert found(path) == (4, "line 2 stands here a second time")


def test_a_line_put_in_by_hand_is_named_though_it_follows(tmp_path: Path) -> None:
    path = log_of(tmp_path, 4)
    edit(path, lambda lines: [*lines[:2], *altered(lines, 3)[2:3], *lines[2:]])
    assert found(path) == (3, "another line 3 stands at place 4: one of them was written by hand")


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_log_that_was_cut_off_is_named(tmp_path: Path, left: int) -> None:
    path = log_of(tmp_path, 6)
    edit(path, lambda lines: lines[:left])
    assert found(path) == (left + 1, f"cut off: lines {left + 1} to 6 are missing")
    with pytest.raises(DataError, match="does not end as its head says, so nothing is appended and nothing leaves"):
        EgressLog(path)


@pytest.mark.parametrize("whole", [True, False])
def test_lines_appended_by_hand_are_named_though_they_follow(tmp_path: Path, whole: bool) -> None:
    path = log_of(tmp_path, 3)
    before = head_of(path).read_bytes()
    EgressLog(path).append("job", 9, **MESSAGE)  # type: ignore[arg-type]
    head_of(path).write_bytes(before)
    edit(path, lambda lines: lines if whole else [*lines[:3], lines[3][:-5]])
    assert found(path) == (4, "appended by hand, or the head is an older copy: it knows 3 lines")
    with pytest.raises(DataError, match="does not end as its head says"):
        EgressLog(path)


def test_a_log_without_its_head_or_a_head_without_its_log_is_not_gone_on_with(tmp_path: Path) -> None:
    path = log_of(tmp_path, 3)
    head = head_of(path).read_bytes()
    head_of(path).unlink()
    assert verify(path).line == 4
    assert re.fullmatch("whether lines were cut off here cannot be told: .*head is missing", verify(path).reason)
    with pytest.raises(DataError, match=r"egress\.jsonl\.head: missing, so whether the log is whole cannot be told"):
        EgressLog(path)
    head_of(path).write_bytes(head)
    path.unlink()
    assert found(path) == (1, "cut off: lines 1 to 3 are missing")
    with pytest.raises(DataError, match="does not end as its head says"):
        EgressLog(path)
    head_of(path).unlink()
    with pytest.raises(DataError, match="no such egress log"):
        verify(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"lines": 3', b'"lines": 4', "not the head of an egress log"),
        (b'"lines": 3', b'"lines": true', "not the head of an egress log"),
        (b'"format": 1', b'"format": 2', "of format 2, and this version knows 1; upgrade"),
        (b'"last"', b'"least"', "not the head of an egress log"),
        (b"{", b"", "not the head of an egress log"),
    ],
)
def test_a_head_that_is_none_is_named(tmp_path: Path, old: bytes, new: bytes, says: str) -> None:
    path = log_of(tmp_path, 3)
    content = head_of(path).read_bytes()
    assert old in content
    head_of(path).write_bytes(content.replace(old, new, 1))
    assert verify(path).line == 4
    assert says in verify(path).reason
    with pytest.raises(DataError, match=says):
        EgressLog(path)


def test_a_head_of_another_length_is_named(tmp_path: Path) -> None:
    path = log_of(tmp_path, 3)
    head = Head.read(head_of(path))
    Head(3, head.before + 1, head.last).write(head_of(path))
    assert found(path) == (3, "the head beside the log is not of this log: it has another length")


def test_who_rewrites_log_and_head_is_found_out_by_what_was_noted_elsewhere_and_by_nothing_else(tmp_path: Path) -> None:
    path = log_of(tmp_path, 5)
    noted = EgressLog(path).anchor()
    assert verify(path).anchor == noted == Anchor.read(f" {noted}\n")
    EgressLog(path).append("job", 9, **MESSAGE)  # type: ignore[arg-type]
    assert verify(path, noted).ok

    for left, reason in ((3, "cut off, and the head with it: 5 lines were noted elsewhere"), (7, "not the line that")):
        path.unlink()
        head_of(path).unlink()
        log_of(tmp_path, left)
        assert verify(path).ok
        said = verify(path, noted)
        assert said.line == min(left + 1, 5)
        assert said.reason.startswith(reason)


def test_what_a_verified_log_says_is_its_anchor(tmp_path: Path) -> None:
    path = log_of(tmp_path, 2)
    anchor = verify(path).anchor
    assert anchor is not None
    assert str(anchor) == f"2:{hashlib.sha256(lines_of(path)[1][:-1]).hexdigest()}"
    assert verify(path, Anchor.read("0:" + "0" * 64)).ok
    for text in ("", "2", "2:ab", "x:" + "0" * 64, "-1:" + "0" * 64, "1" * 30 + ":" + "0" * 64):
        with pytest.raises(DataError, match="is no anchor of an egress log"):
            Anchor.read(text)


def test_a_copy_can_be_verified_by_who_may_not_write(tmp_path: Path) -> None:
    path = log_of(tmp_path, 2)
    path.with_name("egress.jsonl.lock").unlink()
    before = sorted(one.name for one in tmp_path.iterdir())
    assert verify(path).ok
    assert sorted(one.name for one in tmp_path.iterdir()) == before


# --- fuzz -----------------------------------------------------------------------------------------------------------

SIX = 6
_EDITS = st.one_of(
    st.tuples(st.just("remove"), st.integers(0, SIX - 1), st.just(0)),
    st.tuples(st.just("move"), st.integers(0, SIX - 1), st.integers(0, SIX - 1)),
    st.tuples(st.just("repeat"), st.integers(0, SIX - 1), st.integers(0, SIX)),
    st.tuples(st.just("cut"), st.integers(0, SIX - 1), st.just(0)),
)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return log_of(tmp_path_factory.mktemp("six"), SIX)


@contextmanager
def copied(six: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        path = folder / six.name
        path.write_bytes(six.read_bytes())
        head_of(path).write_bytes(head_of(six).read_bytes())
        yield path


def edited(lines: list[bytes], edit: tuple[str, int, int]) -> list[bytes]:
    what, at, to = edit
    if what == "cut":
        return lines[:at]
    rest = lines[:at] + lines[at + 1 :] if what in ("remove", "move") else lines
    return rest if what == "remove" else [*rest[:to], lines[at], *rest[to:]]


@given(st.lists(_EDITS, min_size=1, max_size=3))
def test_no_order_of_lines_but_the_written_one_passes(six: Path, edits: list[tuple[str, int, int]]) -> None:
    with copied(six) as path:
        lines = before = lines_of(six)
        for one in edits:
            lines = edited(lines, one) if one[1] < len(lines) else lines
        path.write_bytes(b"".join(lines))
        said = verify(path)
        assert said.ok == (lines == before)
        if not said.ok:
            assert said.line is not None
            first = next((n for n, pair in enumerate(zip(lines, before, strict=False), 1) if pair[0] != pair[1]), None)
            assert said.line == (first or min(len(lines), SIX) + 1)


@settings(max_examples=300)
@given(st.data())
def test_no_byte_can_be_changed_put_in_or_taken_out(six: Path, data: st.DataObject) -> None:
    content = six.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    drop = data.draw(st.integers(0, 3))
    put = data.draw(st.binary(max_size=3) | st.sampled_from([b"\n", b" ", b"\r", b"0", b"\0"]))
    changed = content[:at] + put + content[at + drop :]
    with copied(six) as path:
        path.write_bytes(changed)
        said = verify(path)
        assert said.ok == (changed == content)
        if not said.ok:
            touched = content[:at].count(b"\n") + 1
            assert said.line in (touched, touched + 1), (said, touched)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_head_is_no_head_or_says_the_same(six: Path, data: st.DataObject) -> None:
    content = head_of(six).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    put = data.draw(st.binary(max_size=2))
    with copied(six) as path:
        head_of(path).write_bytes(content[:at] + put + content[at + 1 :])
        said = verify(path)
        if said.ok:
            assert Head.read(head_of(path)) == Head.read(head_of(six))
        else:
            assert said.line in (SIX, SIX + 1)


@settings(max_examples=100)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_is_in_the_files_there_is_an_answer(log: bytes, head: bytes) -> None:
    with quick_folder() as folder:
        path = folder / "egress.jsonl"
        path.write_bytes(log)
        head_of(path).write_bytes(head)
        assert not verify(path).ok
        with pytest.raises(DataError):
            EgressLog(path)


# --- crashes and full disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [False, True])
def test_a_last_line_that_a_crash_cut_short_anywhere_is_completed(tmp_path: Path, zeros: bool) -> None:
    path = log_of(tmp_path, 3)
    content, last = path.read_bytes(), len(lines_of(path)[-1])
    for missing in range(1, last + 1):
        path.write_bytes(content[:-missing] + (bytes(missing) if zeros else b""))
        said = verify(path)
        assert (said.line, said.mendable) == (3, True), missing
        assert said.reason == "missing or cut short; the head has it, and the node's next start completes it"
        log = EgressLog(path)
        assert path.read_bytes() == content
    log.append("job", 3, **MESSAGE)  # type: ignore[arg-type]
    assert (verify(path).ok, verify(path).lines) == (True, 4)


def test_a_last_line_that_is_not_provably_torn_is_left_as_it_is(tmp_path: Path) -> None:
    path = log_of(tmp_path, 3)
    content = path.read_bytes()
    for left in (content[:-9] + b"x", content[:-9] + b"\n", content[:-1] + b"xx"):
        path.write_bytes(left)
        assert (verify(path).line, verify(path).mendable) == (3, False)
        with pytest.raises(DataError, match="does not end as its head says"):
            EgressLog(path)
        assert path.read_bytes() == left


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_full_disk_is_said_and_the_line_is_there_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    path = log_of(tmp_path, 2)
    log, real, calls = EgressLog(path), os.fsync, iter(range(9))

    def full(handle: int) -> None:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFault, match="cannot be written: No space left on device"):
            log.append("job", 2, **MESSAGE)  # type: ignore[arg-type]
    assert EgressLog(path).last() == log.last()
    assert verify(path).lines == (2 if at == 0 else 3)
    log.append("job", 3, **MESSAGE)  # type: ignore[arg-type]
    assert verify(path).ok


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to tell which file is synced")
def test_the_head_is_durable_before_the_line_and_the_line_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = log_of(tmp_path, 1), os.fsync
    synced: list[str] = []

    def noted(handle: int) -> None:
        real(handle)
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        synced.append(re.sub(r"^\.(.*\.head)\..*", r"\1", name))

    monkeypatch.setattr(os, "fsync", noted)
    EgressLog(path).append("job", 1, **MESSAGE)  # type: ignore[arg-type]
    assert synced == ["egress.jsonl.head", tmp_path.name, "egress.jsonl"]


def test_killed_at_any_point_every_line_that_was_written_is_there(tmp_path: Path) -> None:
    path = tmp_path / "egress.jsonl"
    with keeper() as program:
        assert program.run(Order("egress", str(tmp_path)))["code"] == 0
        kills = program.points(Order("egress", str(tmp_path)))
        for kill in kills:
            before, told = verify(path).lines, len(known(tmp_path))
            assert program.run(Order("egress", str(tmp_path), kill))["code"] == -signal.SIGKILL
            left = verify(path)
            assert left.ok or left.mendable
            EgressLog(path)
            assert verify(path).ok
            assert [line.line for line in read(path)] == list(range(1, verify(path).lines + 1))
            kept = max([before, *known(tmp_path)[told:]])
            assert kept <= verify(path).lines <= kept + 1
    assert len(kills) > STEPS * 6


def test_killed_while_it_is_begun_it_begins_again(tmp_path: Path) -> None:
    with keeper() as program:
        (tmp_path / "whole").mkdir()
        for number, kill in enumerate(program.points(Order("egress", str(tmp_path / "whole")))):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert program.run(Order("egress", str(folder), kill))["code"] == -signal.SIGKILL
            lines = EgressLog(folder / "egress.jsonl").anchor().lines
            assert max([0, *known(folder)]) <= lines <= len(known(folder)) + 1
            assert verify(folder / "egress.jsonl").ok
