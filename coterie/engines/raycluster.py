"""Being in a Ray cluster: one of our own on this machine for a while, or one that runs already.

A cluster of our own listens on this machine alone, asks for a token, and keeps what its memory cannot hold in a folder
that is this user's alone and is removed with it. One that is joined is as private as it was set up to be.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coterie import __version__
from coterie.engines.simulation import at_most_all
from coterie.errors import ConfigError, EnvironmentFault, MissingExtra

ANSWER_SECONDS = 5.0  # that the head of a cluster may take to answer
PROBE_SECONDS = 120.0  # that a node may take to start its first worker
SETTINGS = b"\x04"  # the kind of the frame with which both sides of HTTP/2, and so of gRPC, begin
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + b"\0\0\0\0\0"
LONGEST_TEMP = 28  # characters of a folder in which Ray's sockets, whose paths are limited, still find room


@contextmanager
def in_cluster(address: str | None, workers: int, store_bytes: int | None) -> Iterator[int]:
    """Be in a cluster; how many workers may work at the same time. See `coterie.engines.ray.open_cluster`."""
    if find_spec("ray") is None:
        raise MissingExtra("engine = 'ray'", "ray")
    with _MEMBERSHIP.entered(address, workers, store_bytes):
        yield _at_once(workers)


@contextmanager
def translated() -> Iterator[None]:
    """What a worker raised as it was raised there; Ray's own errors as one sentence."""
    from ray import exceptions

    try:
        yield
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, ImportError | exceptions.RaySystemError):
            raise EnvironmentFault(
                f"a worker of Ray cannot read what it is sent ({_first_sentence(error.cause)}); install the same "
                "packages on all nodes"
            ) from error
        raise error.cause from error
    except (exceptions.OutOfDiskError, exceptions.ObjectStoreFullError) as error:
        raise EnvironmentFault(
            f"Ray has no room left for rows and sums ({_first_sentence(error)}); free disk space, or add nodes"
        ) from error
    except exceptions.RayError as error:
        raise EnvironmentFault(f"Ray failed ({type(error).__name__}: {_first_sentence(error)}); train again") from error


class _Membership:
    """A process is in one cluster at a time: whoever comes first enters it, whoever goes last leaves it."""

    def __init__(self) -> None:
        self._lock, self._inside, self._left = threading.Lock(), 0, ExitStack()

    @contextmanager
    def entered(self, address: str | None, workers: int, store_bytes: int | None) -> Iterator[None]:
        with self._lock:
            if not _is_inside(address):
                self._left.enter_context(_started(workers, store_bytes) if address is None else _joined(address))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._left.close()


_MEMBERSHIP = _Membership()


@contextmanager
def _started(workers: int, store_bytes: int | None) -> Iterator[None]:
    """Be in a cluster of one's own on this machine."""
    temporary = tempfile.TemporaryDirectory(prefix="coterie-ray-", dir=_short_temp(), ignore_cleanup_errors=True)
    with temporary as folder, _environment(_private_environment()):
        options = {
            "num_cpus": at_most_all(workers),
            "include_dashboard": False,
            "object_store_memory": store_bytes,
            "_temp_dir": str(Path(folder) / "ray"),  # Ray lets everybody into its folder, but nobody into ours
        }
        with _connected("Ray cannot be started on this machine", "--engine local does without it", "local", options):
            yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Be in a cluster that runs."""
    remedy = "start one (ray start --head), or leave ray_address out"
    if address != "auto":
        _refuse_other_services(address)
        remedy = (
            "name the port of its head (6379 unless it was told otherwise), join it on one of its machines, and set "
            "RAY_AUTH_TOKEN where it asks for a token"
        )
    with _connected(f"ray_address {address}: cannot be joined", remedy, address, {}):
        _refuse_other_versions(address)
        yield


@contextmanager
def _connected(what: str, remedy: str, address: str, options: Mapping[str, Any]) -> Iterator[None]:
    import ray

    with _quiet():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            ray.shutdown()
            raise EnvironmentFault(f"{what} ({_first_sentence(error)}); {remedy}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Ray's own words on workers that are lost: it prints them on stdout, which belongs to the result."""
    worker, switch = import_module("ray._private.worker"), "_worker_logs_enabled"
    before = getattr(worker, switch, True)
    setattr(worker, switch, False)
    try:
        yield
    finally:
        setattr(worker, switch, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_inside(address: str | None) -> bool:
    """Whether this process is in a cluster already."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise ConfigError(
            f"ray_address {address}: this process is in the cluster at {here} already; name that one, or leave it with "
            "ray.shutdown() first"
        )
    return True


def _at_once(workers: int) -> int:
    import ray

    cores = int(ray.cluster_resources().get("CPU", 0))
    if not cores:
        raise EnvironmentFault("the Ray cluster has no CPU for workers; start nodes with --num-cpus of 1 or more")
    return min(workers or cores, cores)


@functools.cache
def _private_environment() -> Mapping[str, str]:
    """What Ray reads while a cluster of our own runs: on this machine alone, nobody without the token, no telemetry.

    The same for all clusters of this process, because Ray reads some of it once, when it is imported.

    Raises:
        ConfigError: that has happened, so that the cluster would be open to others.
    """
    if "ray" in sys.modules:
        raise ConfigError(
            "engine = 'ray': Ray was imported before it could be told to serve this machine alone; call ray.init() "
            "first, and the training uses that cluster, or train in a process of its own"
        )
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with it Ray listens on 127.0.0.1, on every system
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns of what it will do to GPUs, of which none is used
    }


def _short_temp() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_TEMP or os.name != "posix" else "/tmp"  # noqa: S108 - the folder in it is ours


def _refuse_other_services(address: str) -> None:
    """Refuse an address at which no Ray cluster can be: Ray itself would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as link:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            link.sendall(GREETING)
            answer = link.recv(9)
    except OSError as error:
        raise EnvironmentFault(
            f"ray_address {address}: nothing answers there ({error.strerror or error}); start the cluster "
            "(ray start --head), or correct the address"
        ) from None
    if answer[3:4] != SETTINGS:
        raise EnvironmentFault(
            f"ray_address {address}: what answers there is no Ray cluster; name the port of its head, 6379 unless it "
            "was told otherwise"
        )


def _refuse_other_versions(address: str) -> None:
    """Refuse a cluster with a node that would not sum as this process does."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def version() -> str | None:
        try:
            return str(import_module("coterie").__version__)
        except ImportError:
            return None

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    asked = {
        name: ray.remote(num_cpus=0, max_retries=0)(version)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))
        .remote()
        for name in nodes
    }
    for name, reference in asked.items():
        with translated():
            found = ray.get(reference, timeout=PROBE_SECONDS)
        if found != __version__:
            raise EnvironmentFault(
                f"ray_address {address}: node {nodes[name]} has "
                f"{'no Coterie' if found is None else f'Coterie {found}'}; install coterie[ray]=={__version__} there"
            )


def _first_sentence(error: BaseException) -> str:
    """What an error says first, of all the lines that Ray's have."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.partition(". ")[0].rstrip(".:")
