"""Apps on sockets that somebody else holds, in a process of their own: renewed certificates, and who is not served."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from coterie.engines.flower.loopback import LoopbackTls
from tests.flowernet import until

PROGRAM = """
import sys
from pathlib import Path
from coterie.engines.flower import serving
from coterie.engines.flower.asgi import answer
from coterie.engines.flower.users import Users

async def app(scope, receive, send):
    await answer(send, 200, b"served")

serving.RENEWED = 0.1
folder, first, second, foreign = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
paths = f"{folder}/loopback.pem", f"{folder}/loopback.key"
serving.serve(
    serving.Served(app, first, *paths, users=Users.of(int(sys.argv[5])), stopping=Path(folder, "stopping").touch),
    serving.Served(app, second, *paths, users=Users(1, True, foreign)),
)
"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, int, "subprocess.Popen[bytes]"]]:
    """Ports of the same app twice: the first listens to us, the second to nobody, and the process."""
    LoopbackTls.make(folder)
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        arguments = [folder, first.fileno(), second.fileno(), folder / "no such list", ports[0]]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            pass_fds=[first.fileno(), second.fileno()],
            cwd=Path(__file__).parents[2],
        )
        try:
            yield *ports, process
        finally:
            process.kill()
            process.wait()


def get(port: int, folder: Path) -> bytes:
    context = ssl.create_default_context(cafile=folder / "loopback.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def certificate(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=30)


def test_apps_are_served_until_the_process_is_told_to_end(tmp_path: Path) -> None:
    with served(tmp_path) as (port, foreign, process):
        assert get(port, tmp_path) == b"served"
        with pytest.raises((http.client.HTTPException, OSError)):
            get(foreign, tmp_path)  # whose process we are cannot be seen there, so it may be another user's
        before = certificate(port)
        assert before.strip() == (tmp_path / "loopback.pem").read_text().strip()
        LoopbackTls.make(tmp_path)
        until(lambda: certificate(port) != before)
        assert get(port, tmp_path) == b"served"
        (tmp_path / "loopback.pem").write_text("damaged")
        time.sleep(0.3)
        assert certificate(port)  # the old one serves on
        assert not (tmp_path / "stopping").exists()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
        assert (tmp_path / "stopping").exists()
