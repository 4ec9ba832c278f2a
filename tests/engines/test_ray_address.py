"""Clusters that cannot be reached, settings that name none, and how the work is dealt: here no cluster runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

from coterie.engines import raycluster
from coterie.engines.ray import open_cluster
from coterie.engines.shares import LEAST, SMALL, shares_of
from coterie.engines.spans import Span, span_of
from coterie.errors import ConfigError, EnvironmentFault, MissingExtra
from coterie.settings import build
from coterie.types import UserBlock


def block_of(sizes: list[int]) -> UserBlock:
    """Users with so many interactions each."""
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return UserBlock(1, ptr, ptr, np.zeros(int(ptr[-1]), np.int32))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raycluster, "find_spec", lambda name: None)
    message = r"engine = 'ray' needs the extra 'ray': pip install 'coterie\[ray\]'"
    with pytest.raises(MissingExtra, match=message), open_cluster():
        pass


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    message = rf"^ray_address {address}: nothing answers there \(Connection refused\); start the cluster \(ray start"
    with pytest.raises(EnvironmentFault, match=message), open_cluster(address):
        pass


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_an_address_of_something_else_is_refused_at_once() -> None:
    def answer() -> None:
        with server.accept()[0] as link:
            link.recv(100)
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(EnvironmentFault, match="what answers there is no Ray cluster"), open_cluster(address):
            pass
        thread.join()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_where_no_cluster_runs_there_is_none_to_find_nor_one_opened_to_all() -> None:
    lines = """
        from coterie.engines.ray import open_cluster
        from coterie.errors import CoterieError
        for address in ("auto", None):  # the first has Ray imported
            try:
                open_cluster(address).__enter__()
            except CoterieError as error:
                print(type(error).__name__, error)
    """
    words = [sys.executable, "-c", textwrap.dedent(lines)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(words, env=clean, capture_output=True, text=True, timeout=120, check=True)
    alone, late = done.stdout.splitlines()
    found = "EnvironmentFault ray_address auto: cannot be joined (Could not find any running Ray instance); start one"
    assert alone.startswith(found)
    assert late.startswith("ConfigError engine = 'ray': Ray was imported before it could be told to serve this machine")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"engine": "flower"}, "engine"),
        ({"ray_address": "auto"}, "ray_address must come with engine = 'ray', got engine = 'local'"),
        ({"engine": "ray", "ray_address": "10.0.0.5"}, "ray_address must be auto or HOST:PORT"),
        ({"engine": "ray", "ray_address": "ray://10.0.0.5:10001"}, "ray_address must be auto or HOST:PORT"),
        ({"engine": "ray", "ray_address": "10.0.0.5:99999"}, "ray_address must be auto or HOST:PORT"),
    ],
)
def test_settings_that_name_no_cluster_are_refused(run: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"run": run}, "test")


@pytest.mark.parametrize("address", ["auto", "10.0.0.5:6379", "head.example.com:6379", "[fd00::5]:6379"])
def test_settings_that_name_a_cluster_are_taken(address: str) -> None:
    assert build({"run": {"engine": "ray", "ray_address": address}}, "test").run.ray_address == address


@pytest.mark.parametrize(("size", "each"), [(SMALL, 4), (SMALL + 1, 1)])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_all_workers_get_about_as_much_to_do(size: int, each: int, workers: int) -> None:
    users = block_of([10] * (10 * LEAST))
    shares = shares_of([span_of(users, "user_sum")], 10**9, workers, size)
    assert len(shares) == workers * each
    work = [sum(part.interactions for part in share.parts) for share in shares]
    assert max(work) <= 1.1 * min(work)
    assert covered([part for share in shares for part in share.parts]) == [(0, users.n_users)]


def test_parts_are_neither_larger_than_a_block_nor_too_small_to_send() -> None:
    users = block_of([10] * LEAST)
    parts = [part for share in shares_of([span_of(users, "user_sum")], 3_000, 2, 8) for part in share.parts]
    assert max(part.interactions for part in parts) == 3_000
    parts = [part for share in shares_of([span_of(users, "user_sum")], 10**9, 1000, 8) for part in share.parts]
    assert min(part.interactions for part in parts) == LEAST


def test_organisations_are_not_mixed_and_their_own_updates_not_cut() -> None:
    users = block_of([50] * 1000)
    spans = [Span(users, 0, 400), Span(users, 400, 400), Span(users, 400, 1000)]
    parts = [part for share in shares_of(spans, 7_000, 2, 8) for part in share.parts]
    assert covered(parts) == [(0, 1000)]
    assert all(part.stop <= 400 or part.start >= 400 for part in parts)
    whole = [Span(users, 0, 400, whole=True), Span(users, 400, 1000, whole=True)]
    (first,), (second,) = (share.parts for share in shares_of(whole, 7_000, 2, 8))
    assert [(first.start, first.stop), (second.start, second.stop)] == [(0, 400), (400, 1000)]


def covered(parts: list[Span]) -> list[tuple[int, int]]:
    """The stretches of users that are covered, where no user is covered twice."""
    ends = sorted((part.start, part.stop) for part in parts if part.n_users)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ends))
    found = [ends[0]]
    for start, stop in ends[1:]:
        if start == found[-1][1]:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found
