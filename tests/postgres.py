"""A PostgreSQL server of the tests' own: started in a temporary folder, gone when they end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "s3cret/pass@word"
USER = "reader"
REQUIRED = "COTERIE_REQUIRE_SERVICES"  # set to 1 where a missing server is a failure and no reason to skip


@dataclass(frozen=True)
class Server:
    """A running server with one superuser, whose password it demands."""

    port: int

    def url(self, password: str | None = PASSWORD) -> str:
        secret = "" if password is None else ":" + password.replace("/", "%2F").replace("@", "%40")
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/postgres"

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of an empty database, which is gone afterwards."""
        import psycopg

        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            try:
                yield self.url().removesuffix("postgres") + name
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed or cannot be run."""
    on_path = shutil.which("pg_ctl")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    usable = [folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()]
    return usable[0] if usable else None


@contextmanager
def postgres() -> Iterator[Server]:
    """Start a server on a free port of the loopback interface, and stop it. Root hands it to another user.

    Skips where PostgreSQL or its driver is not installed, unless services are required.
    """
    binaries = programs()
    if os.environ.get(REQUIRED) != "1":
        if binaries is None:
            pytest.skip(f"PostgreSQL is not installed; {REQUIRED}=1 makes this a failure")
        pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    assert binaries is not None, "PostgreSQL is not installed: apt-get install postgresql"
    root = Path(tempfile.mkdtemp(prefix="coterie-pg-"))
    owner = _owner()
    try:
        (root / "password").write_text(PASSWORD)
        if owner is not None:
            for path in (root, root / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        port = _free_port()
        secret = ("-U", USER, "-A", "scram-sha-256", f"--pwfile={root / 'password'}")
        _run(owner, root, binaries / "initdb", "-D", root / "data", "-E", "UTF8", "--locale=C", "--no-sync", *secret)
        options = f"-h 127.0.0.1 -p {port} -k {root} -c fsync=off -c timezone=America/New_York"
        _run(owner, root, binaries / "pg_ctl", "-D", root / "data", "-w", "-l", root / "log", "-o", options, "start")
        try:
            yield Server(port)
        finally:
            _run(owner, root, binaries / "pg_ctl", "-D", root / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _owner() -> pwd.struct_passwd | None:
    """Who runs the server: root may not."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _run(owner: pwd.struct_passwd | None, root: Path, *command: object) -> None:
    ids = {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    out = root / "out"
    with out.open("wb") as sink:  # a pipe would stay open as long as the server runs
        done = subprocess.run([str(part) for part in command], cwd=root, stdout=sink, stderr=sink, check=False, **ids)
    assert done.returncode == 0, out.read_text("utf-8", "replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
