"""Supervised processes: kept running, logged, explained, and gone with whoever started them."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from coterie.engines.flower import tether
from coterie.engines.flower.logs import LARGEST, RotatingLog
from coterie.engines.flower.processes import Child, stop_all
from tests.flowernet import alive, until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(100)"]


def told(status: int, lines: Sequence[str]) -> str:
    return f"status {status}, last line {lines[-1] if lines else None}"


@contextmanager
def started(child: Child) -> Iterator[Child]:
    child.start()
    try:
        yield child
    finally:
        child.stop()


def child_of(folder: Path, command: Sequence[str], **more: object) -> Child:
    return Child("one", lambda: command, folder / "one.log", environment=os.environ, explain=told, **more)  # type: ignore[arg-type]


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    reasons: list[str] = []
    with started(child_of(tmp_path, SLEEP, ended=reasons.append)) as child:
        until(lambda: "up" in (tmp_path / "one.log").read_text() if (tmp_path / "one.log").exists() else False)
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: child.pid not in (None, first))
        assert child.restarts == 1
        assert reasons == ["status -9, last line up"]
        assert child.facts() == {"name": "one", "pid": child.pid, "restarts": 1, "last_error": reasons[0]}
    assert child.pid is None


def test_one_that_keeps_failing_is_given_longer_and_longer_pauses(tmp_path: Path) -> None:
    times: list[float] = []
    command = [sys.executable, "-c", "import time; print(time.monotonic())"]
    with started(child_of(tmp_path, command, seen=lambda line: times.append(float(line)))):
        until(lambda: len(times) == 3)
    assert 0.5 < times[1] - times[0] < times[2] - times[1]


def test_one_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    with started(child_of(tmp_path, ["/no/such/program"])) as child:
        until(lambda: child.last_error)
    assert child.last_error == "status 1, last line /no/such/program: No such file or directory"
    assert child.last_error in (tmp_path / "one.log").read_text()


def test_a_kick_is_no_failure(tmp_path: Path) -> None:
    reasons: list[str] = []
    with started(child_of(tmp_path, SLEEP, ended=reasons.append)) as child:
        until(lambda: child.pid)
        first = child.pid
        child.kick()
        until(lambda: child.pid not in (None, first))
        assert (child.restarts, child.last_error, reasons) == (1, "", [])


def test_stopping_ends_what_it_started_too(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "print(child.pid, flush=True); time.sleep(100)"
    )
    lines: list[str] = []
    stubborn = child_of(tmp_path, [sys.executable, "-c", program], seen=lines.append)
    with started(stubborn):
        until(lambda: lines)
        pids = [stubborn.pid, int(lines[0])]
        stubborn.stop(0.5)
    until(lambda: not any(alive(pid) for pid in pids if pid))


def test_several_are_stopped_at_once(tmp_path: Path) -> None:
    children = [child_of(tmp_path / str(number), SLEEP) for number in range(3)]
    for child in children:
        child.start()
    until(lambda: all(child.pid for child in children))
    stop_all(children)
    assert [child.pid for child in children] == [None] * 3


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from coterie.engines.flower.processes import Child\n"
        "child = Child('one', lambda: sys.argv[2:], Path(sys.argv[1]), environment=os.environ, explain=lambda *_: '')\n"
        "child.start()\n"
        "while not child.pid: time.sleep(0.01)\n"
        "time.sleep(0.5); print(child.pid, flush=True); time.sleep(100)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path / "log"), *SLEEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))


def test_where_the_kernel_does_not_help_a_guard_does() -> None:
    """The guard, as a child of a process that is killed."""
    command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(100)"]
    folder = str(Path(tether.__file__).parent)
    guard = f"import os, sys; sys.path.insert(0, {folder!r}); import tether; tether.guard(os.getppid(), {command})"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {guard!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        until(lambda: not alive(pid))


def test_logs_are_private_and_of_bounded_size(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "logs" / "one.log")
    log.write("\x1b[92mINFO \x1b[0m: began")
    log.write("")
    (line,) = (tmp_path / "logs" / "one.log").read_text().splitlines()
    assert line.endswith("Z INFO : began")
    assert stat.S_IMODE((tmp_path / "logs" / "one.log").stat().st_mode) == 0o600
    log.write("x" * LARGEST)
    log.write("after")
    log.close()
    assert (tmp_path / "logs" / "one.log.1").stat().st_size > LARGEST
    assert (tmp_path / "logs" / "one.log").read_text().endswith("Z after\n")


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    RotatingLog(tmp_path / "taken" / "one.log").write("lost")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel, which elsewhere has no such call")
def test_the_command_takes_the_place_of_its_tether(tmp_path: Path) -> None:
    with started(child_of(tmp_path, SLEEP)) as child:
        until(lambda: child.pid and alone(Path(f"/proc/{child.pid}/cmdline").read_bytes()))


def alone(command: bytes) -> bool:
    """Whether a process is the command, and no longer what ties it to its parent."""
    return b"time.sleep(100)" in command and b"tether" not in command
