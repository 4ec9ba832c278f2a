"""A lock is one process's at a time, ends with it, and says whom one waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.errors import EnvironmentFault
from coterie.federation.filelock import locked, undisturbed

HOLD = """
import sys, time
from pathlib import Path
from coterie.federation.filelock import locked
with locked(Path(sys.argv[1]), "test"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it_even_if_it_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for way in (locked, undisturbed):
            with (
                pytest.raises(
                    EnvironmentFault, match=r"^the node: another process has held .*lock at this moment; call"
                ),
                way(lock, "the node", seconds=0),
            ):
                pass
        holder.send_signal(signal.SIGKILL)
        with locked(lock, "the node"):
            pass
    with locked(lock, "the node", seconds=0):
        pass


def test_readers_do_not_disturb_each_other_and_make_no_lock(tmp_path: Path) -> None:
    with undisturbed(tmp_path / "lock", "test"):
        assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "lock", "test"):
        pass
    with undisturbed(tmp_path / "lock", "test"), undisturbed(tmp_path / "lock", "test", seconds=0):
        pass
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(EnvironmentFault, match="no/lock: the lock cannot be made: No such file or directory"),
        locked(tmp_path / "no" / "lock", "test"),
    ):
        pass


def test_an_error_in_the_block_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "test"):
        raise ZeroDivisionError
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    with locked(tmp_path / "lock", "test", seconds=0):
        pass
    if before:
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
