"""Programs of the operating system that some tests need: skipped without, or failed where they are required."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "COTERIE_REQUIRE_SERVICES"  # set to 1 where a missing program is a failure and no reason to skip


def program(name: str, package: str) -> str:
    """The program's path; `package` is Debian's."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if found is None:
        missing(f"{name} is not installed (Debian: {package})")
    return str(found)


def missing(what: str) -> None:
    """Skip the test, or fail it."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{what}, and {REQUIRED} is set")
    pytest.skip(what)
