"""Run a command that ends when whoever started it ends, even by SIGKILL: ``tether.py PARENT COMMAND...``.

It is run as a file by a bare interpreter, so it imports nothing of Coterie. On Linux the kernel is asked to kill the
command with its parent; elsewhere this process stays, looks after its parent, and passes signals on.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command, or its guard."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0:
        if os.getppid() != parent:  # it ended before the kernel was asked
            raise SystemExit(1)
        try:
            os.execv(command[0], command)  # noqa: S606 - a command of ours
        except OSError as error:
            raise SystemExit(f"{command[0]}: {error.strerror}") from None
    guard(parent, command)


def guard(parent: int, command: list[str]) -> None:
    """Run the command until it ends or the parent does; signals and the exit status are its own."""
    with subprocess.Popen(command, close_fds=False) as child:  # noqa: S603 - a command of ours
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: child.send_signal(number))
        while child.poll() is None:
            if os.getppid() != parent:
                child.kill()
            time.sleep(0.2)
        raise SystemExit(child.returncode if child.returncode >= 0 else 128 - child.returncode)


if __name__ == "__main__":
    main()
