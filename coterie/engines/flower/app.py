"""The Flower app of every federation: a stub that names modules which both sides have installed. No code travels.

Its bytes are the same on every machine and in every release, so a node knows the one app that it will answer for by its
hash, and never unpacks what it was sent.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping

SHA256 = "a839718e40bb1b8bd8744d03d313e9322115f84c793f32a1a782bb0ce83a1831"
"""Of the stub's bytes; a node refuses any other app."""

_PROJECT = b"""\
[project]
name = "coterie"
version = "1.0.0"
description = "Carries the messages of a federation"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "coterie"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "coterie.engines.flower.serverapp:app"
clientapp = "coterie.engines.flower.clientapp:app"
"""
_LICENSE = b"Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0\n"


def stub() -> bytes:
    """The app as Flower's bundle."""
    return bundle({"pyproject.toml": _PROJECT, "LICENSE": _LICENSE})


def bundle(files: Mapping[str, bytes]) -> bytes:
    """A Flower app bundle (FAB) of these files, stored without compression, which libraries do differently."""
    listed = [f"{name},{hashlib.sha256(content).hexdigest()},{8 * len(content)}" for name, content in files.items()]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**files, ".info/CONTENT": "\n".join(listed).encode()}.items():
            entry = zipfile.ZipInfo(name)  # of 1980, with no rights
            entry.create_system = 3
            archive.writestr(entry, content)
    return written.getvalue()
