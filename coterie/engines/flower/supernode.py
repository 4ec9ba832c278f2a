"""Flower's SuperNode as a process that ends when anything in it has failed, so that it is started again.

By itself it lives on without its heartbeat, or with nothing but its web server, when a thread of it has died.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback

from flwr.supernode.cli.flower_supernode import flower_supernode


def main() -> None:
    """Run it with the arguments of ``flower-supernode``."""
    threading.excepthook = _failed
    status: object = 1
    try:
        flower_supernode()
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it
        traceback.print_exc()
    _end(status)


def _failed(arguments: threading.ExceptHookArgs) -> None:
    traceback.print_exception(arguments.exc_value)
    _end(1)


def _end(status: object) -> None:
    """End at once: other threads may wait for what never comes."""
    if isinstance(status, str):
        print(status, file=sys.stderr)  # noqa: T201 - as Python itself does with SystemExit
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    main()
