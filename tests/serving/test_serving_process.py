"""The whole service as a process: what a shop meets, and what happens when it is killed, reloaded and kept busy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from tests.serving.service import PATIENCE, Service, serving, trained

NOW = datetime.now(UTC).isoformat()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs over the same items, the second signed later."""
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "first")
    trained(folder / "second", seed=1)
    return folder


def event(number: int, **content: Any) -> dict[str, Any]:
    return {"eventId": f"e{number}", "type": "view", "time": NOW, "item": "A00001", "user": "u1", **content}


def suggested(client: httpx.Client, items: list[str], **options: Any) -> list[str]:
    reply = client.post("/v1/recommend/basket", json={"items": items, **options})
    assert reply.status_code == 200, reply.text
    return [one["item"] for one in reply.json()["items"]]


def test_a_stock_of_zero_disappears_within_a_second(runs: Path, tmp_path: Path) -> None:
    with serving(runs / "first", tmp_path / "store.sqlite") as (_, client):
        first = suggested(client, ["A00001", "A00002"])[0]
        assert client.put(f"/v1/items/{first}", json={"title": "First", "stock": 3}).status_code == 200
        assert suggested(client, ["A00001", "A00002"])[0] == first
        client.patch(f"/v1/items/{first}", json={"stock": 0})
        assert first not in suggested(client, ["A00001", "A00002"], k=100)


def test_two_processes_on_one_store_heed_each_other(runs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with serving(runs / "first", store) as (_, one), serving(runs / "first", store) as (_, two):
        first = suggested(two, ["A00001"])[0]
        one.put(f"/v1/items/{first}", json={"stock": 0})
        told = time.monotonic()
        while first in suggested(two, ["A00001"]):
            assert time.monotonic() - told < 20
        assert first not in suggested(one, ["A00001"])


def test_no_event_that_was_acknowledged_is_lost_by_a_kill(runs: Path, tmp_path: Path) -> None:
    store, acknowledged = tmp_path / "store.sqlite", list[str]()
    for turn in range(3):
        with Service(runs / "first", store) as service:
            writers = [
                threading.Thread(target=write_until_dead, args=(service, turn, n, acknowledged)) for n in range(4)
            ]
            for one in writers:
                one.start()
            time.sleep(0.7)
            service.kill()
            for one in writers:
                one.join()
    assert len(acknowledged) > 30
    with serving(None, store) as (_, client):
        held = {one["eventId"] for one in client.get("/v1/users/u1/export").json()["events"]}
    assert not set(acknowledged) - held


def write_until_dead(service: Service, turn: int, writer: int, acknowledged: list[str]) -> None:
    with service.client() as client:
        for number in range(10_000):
            try:
                sent = event(0, eventId=f"{turn}-{writer}-{number}")
                if client.post("/v1/events", json=sent).status_code == 200:
                    acknowledged.append(sent["eventId"])
            except httpx.TransportError:
                return


def test_a_reload_under_load_drops_nothing(runs: Path, tmp_path: Path) -> None:
    store, versions, failures = tmp_path / "store.sqlite", set[int](), list[str]()
    stop = threading.Event()

    def ask(service: Service) -> None:
        with service.client() as client:
            while not stop.is_set():
                reply = client.post("/v1/recommend/basket", json={"items": ["A00001"]})
                if reply.status_code != 200:
                    failures.append(reply.text)
                else:
                    versions.add(reply.json()["version"])

    with serving(runs / "first", store) as (service, _):
        askers = [threading.Thread(target=ask, args=(service,)) for _ in range(4)]
        for one in askers:
            one.start()
        rollout("swap", runs / "second", "--store", store)
        begun = time.monotonic()
        while len(versions) < 2:
            assert time.monotonic() - begun < PATIENCE
            time.sleep(0.05)
        rollout("back", "--store", store)
        time.sleep(2)
        stop.set()
        for one in askers:
            one.join()
        assert suggested_version(service) == 1
    assert failures == []
    assert versions == {1, 2}


def suggested_version(service: Service) -> int:
    with service.client() as client:
        return int(client.post("/v1/recommend/popular", json={}).json()["version"])


def rollout(*words: Any) -> None:
    command = [sys.executable, "-m", "coterie", "rollout", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)


def test_a_day_of_traffic_leaves_memory_flat(runs: Path, tmp_path: Path) -> None:
    """Users, baskets and expressions that never come twice must not pile up anywhere."""
    with serving(runs / "first", tmp_path / "store.sqlite") as (service, client):
        traffic(client, range(400))
        before = service.memory()
        traffic(client, range(400, 2400))
        assert service.memory() - before < 24 << 20


def traffic(client: httpx.Client, numbers: range) -> None:
    for n in numbers:
        items = [f"A{(n * 7 + i) % 120 + 1:05d}" for i in range(5)]
        question = {"items": items, "filter": f"!(price > {n}.5)", "explain": n % 3 == 0}
        assert client.post("/v1/recommend/basket", json=question).status_code == 200
        assert client.post("/v1/recommend/user", json={"user": f"u{n}"}).status_code == 200
        assert client.post("/v1/events", json=event(n, user=f"u{n}", item=items[0])).status_code == 200


def test_several_processes_share_the_port_and_one_that_dies_comes_again(runs: Path, tmp_path: Path) -> None:
    with serving(runs / "first", tmp_path / "store.sqlite", "--workers", "2") as (service, client):
        first = suggested(client, ["A00001"])[0]
        client.put(f"/v1/items/{first}", json={"stock": 0})
        until(lambda: all(first not in asked_anew(service) for _ in range(8)))
        workers = children(service.process.pid)
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len(set(children(service.process.pid)) - {workers[0]}) == len(workers))
        assert first not in asked_anew(service)
        answered = 'coterie_answers_total{fallback="none",kind="basket",version="1"}'
        until(lambda: metric(service, answered) > 8)
        assert service.stop()[0] == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def asked_anew(service: Service) -> list[str]:
    """Over a connection of its own: any of the processes may answer."""
    with service.client() as client:
        return suggested(client, ["A00001"])


def metric(service: Service, name: str) -> float:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def children(pid: int) -> list[int]:
    """The processes that answer: the parent's children, but for Python's own resource tracker."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    rows = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return [int(number) for number, command in rows if "spawn_main" in command]


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_who_never_comes_to_the_end_of_a_head_is_let_go(runs: Path, tmp_path: Path) -> None:
    with serving(runs / "first", tmp_path / "store.sqlite") as (service, client):
        port = int(service.address.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port)) as slow,
            socket.create_connection(("127.0.0.1", port)) as big,
        ):
            slow.sendall(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
            with contextlib.suppress(OSError):
                for n in range(40):
                    big.sendall(b"GET / HTTP/1.1\r\n" if n == 0 else b"X-Large: " + b"a" * 8000 + b"\r\n")
                    time.sleep(0.01)
            big.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionResetError):
                assert big.recv(100).startswith(b"HTTP/1.1 400")
            slow.settimeout(PATIENCE)
            assert slow.recv(100) == b""
        assert client.get("/health/live").status_code == 200


def test_it_stops_as_asked_and_goes_on_with_what_it_served_last(runs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with Service(runs / "first", store) as service:
        code, errors = service.stop()
    assert code == 0, errors
    with Service(None, store) as service:
        assert service.said["run"] == str(runs / "first") or Path(service.said["run"]).name == "first"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "there is no such store"),
        (("--host", "0.0.0.0"), "tls_certificate"),
        (("--port", "99999"), "port"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(flags: tuple[str, ...], said: str, runs: Path, tmp_path: Path) -> None:
    run = () if not flags else (str(runs / "first"),)
    command = [sys.executable, "-m", "coterie", "serve", *run, "--store", str(tmp_path / "s.sqlite"), *flags, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 2, ended.stderr
    message = json.loads(ended.stdout)["error"]["message"]
    assert said in message
