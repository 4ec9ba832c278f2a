"""What browser tests and the pictures of the documentation look at: a deployment in use, with several runs behind it.

Everything is real but the orders: the runs are trained, articles and events go through the API, members enrol.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

import coterie
from coterie.data.market import market
from tests.federation.partners import enrolment
from tests.serving.service import PATIENCE, Service

CUSTOMER = "C0017"  # of whom events are stored
PARTNERS = ("north", "east", "south")
KEYED = "keyed.sqlite"


@dataclass(frozen=True)
class Stage:
    """Two deployments: an `open` one on loopback that is in use, and one that asks for a key: this one."""

    folder: Path
    open: Service
    keyed: Service
    key: str

    @property
    def keyed_store(self) -> Path:
        """The store of the deployment that asks for a key."""
        return self.folder / KEYED


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Both deployments, with everything they have in `folder`; what is there already is used again."""
    if not (folder / "runs" / "changed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with chdir(folder):
            train_all(Path("runs"))
            federate(Path("federation"))
    key = made_key(folder / KEYED, "operator", "--scope", "dashboard", "--scope", "users")
    with chdir(folder):
        shop = Service(Path("runs/first"), "store.sqlite", "--coordinator", "federation")
        keyed = Service(Path("runs/first"), KEYED)
    with shop, keyed:
        put_items(shop)
        use(shop)
        yield Stage(folder, shop, keyed, key)


def log_of_shops() -> coterie.InteractionLog:
    """The orders of four shops."""
    return market(shops=4, customers=250, items=120, baskets=1800, seed=3, messy=True).log


def train_all(folder: Path) -> None:
    """Runs of several kinds: with curves, under epsilon, and one that was changed since it was signed."""
    log, clean = log_of_shops(), {"clean": {"preset": "retail"}}
    coterie.train(log, "mf", rounds=12, test="carts", seed=0, output=folder / "rounds", settings=clean)
    private = coterie.Plan(epsilon=4.0)
    coterie.train(log, "subspace", plan=private, test="carts", seed=0, output=folder / "private", settings=clean)
    coterie.train(log, "cart", test="carts", seed=0, output=folder / "first", settings=clean)
    shutil.copytree(folder / "first", folder / "changed")
    (folder / "changed" / "result.json").write_text("{}")


def federate(folder: Path) -> None:
    """A coordinator's folder with three members and a job that waits for them."""
    from coterie.federation.identity import Identities
    from coterie.federation.journal import FederationJournal
    from coterie.federation.members import Members
    from coterie.storage import Storage

    said("coordinator", "init", "--folder", str(folder), "--name", "three shops")
    database = str(folder / "federation.sqlite")
    members = Members.open(database, Identities.open(folder).fingerprint)
    for name in PARTNERS:
        members.enrol(enrolment(name, members.invite(name, timedelta(days=7))))
    for name in PARTNERS[:2]:
        members.approve(name)
    journal = FederationJournal(Storage.open(database, "federation"))
    journal.add("together/0", "together", {"model": {"name": "ease"}}, str(folder / "runs" / "together-0"))


def put_items(service: Service) -> None:
    """What the shop knows of its articles."""
    rows = log_of_shops().texts.iter_rows(named=True)
    items = [
        {
            "id": row["item"],
            "title": row["title"],
            "price": row["price"],
            "currency": "EUR",
            "stock": 5 + at % 20,
            "attributes": {"category": row["category"]},
        }
        for at, row in enumerate(rows)
    ]
    post(service, "/v1/items", {"put": items})


def use(service: Service, visits: int = 120) -> None:
    """Customers ask, look, click and buy: the same ones each time, so that a second call stores nothing new."""
    items = sorted(log_of_shops().texts["item"])
    for visit in range(visits):
        cart = [items[visit % 40], items[(7 * visit + 3) % 90]]
        answer = post(service, "/v1/recommend/basket", {"items": cart, "k": 5})
        post(service, "/v1/events", {"events": list(happened(visit, answer))})


def happened(visit: int, answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What one visitor did: all look, a third click and put it into the cart, a sixth buy."""
    shown = [{"item": one["item"], "position": at + 1} for at, one in enumerate(answer["items"])]
    place = shown[visit % 3]
    user = CUSTOMER if visit % 12 == 0 else f"C{visit:04}"
    for number, (kind, content) in enumerate([
        ("impression", {"items": shown}),
        ("click", place),
        ("add-to-cart", {"item": place["item"]}),
        ("purchase", {"items": [{"item": place["item"], "quantity": 1}], "basket": f"b{visit}"}),
    ]):  # fmt: skip
        if visit % (1, 3, 3, 6)[number] == 0:
            yield {
                "eventId": f"v{visit}-{number}",
                "type": kind,
                "time": (datetime.now(UTC) - timedelta(hours=visit)).isoformat(),
                "user": user,
                "recommendationId": answer["recommendationId"],
                **content,
            }


def made_key(store: Path, *words: str) -> str:
    """A new key of the deployment with this store."""
    return str(said("keys", "create", *words, "--store", str(store))["key"])


def said(*words: str) -> dict[str, Any]:
    """What a command prints with --json."""
    command = [sys.executable, "-m", "coterie", *words, "--json"]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


def post(service: Service, path: str, content: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question that must succeed."""
    reply = httpx.post(service.address + path, json=content, timeout=PATIENCE)
    assert reply.is_success, reply.text
    return dict(reply.json())
