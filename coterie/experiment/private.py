"""What a training must heed where its plan promises differential privacy: whose rows count, and what may decide."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import polars as pl

from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.data.sql import digest_of
from coterie.errors import ConfigError, DataError, PlanError
from coterie.experiment.books import LedgerBooks
from coterie.experiment.fitting import Notify
from coterie.experiment.itemsfile import listed_items
from coterie.experiment.signing import own_key
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.privacysettings import PlanSettings
from coterie.settings import Settings

ASSORTMENT = (
    "The list of items is taken to be public, as an assortment is; it was read from the log, so an item that one user "
    "alone ever had would give that user away. --items FILE names the assortment instead."
)

RAW = "raw metrics, counts of rows, and what each client keeps"
WHY = "a simulation shows what no federation would"


def is_sealed(settings: Settings, plan: Plan) -> bool:
    """Whether nothing that comes from private logs is shown but noised, charged sums: metrics are paid for too."""
    return plan.private and settings.evaluation.metrics_share > 0


def quietly(notify: Notify) -> Notify:
    """A listener that is told what goes on, but no figure that comes from a log."""

    def told(kind: str, content: Mapping[str, Any]) -> None:
        if kind == "step":
            notify(kind, {"text": content["text"], "done": 0, "total": None})
        elif kind in ("folder", "warning"):
            notify(kind, content)

    return told


def plan_of(settings: PlanSettings) -> Plan:
    """The plan that settings describe.

    Raises:
        PlanError: it promises what it cannot hold.
    """
    values = settings.model_dump()
    return Plan(neighbours=values.pop("adjacency"), **values)


def refuse_free_decisions(settings: Settings, plan: Plan) -> None:
    """Refuse what would be decided from private logs without being charged.

    Raises:
        ConfigError: tuning that is not paid for, or early stopping, under a plan with noise.
    """
    if not plan.private:
        return
    if settings.model.get("tune") and not settings.evaluation.metrics_share:
        raise ConfigError(
            "tune = true decides by validation metrics, which come from private logs and must be paid for: set "
            "metrics_share (such as --metrics-share 0.1), or set the hyper-parameters yourself"
        )
    if settings.clean.normalise_values == "user-mean" and plan.guests == "basket":
        raise ConfigError(
            "normalise_values = 'user-mean' takes the mean over all guests at once, and with guests = 'basket' each of "
            "their baskets is a unit of its own; use guests = 'drop'"
        )
    if settings.run.patience:
        raise ConfigError(
            "patience (early stopping) looks at validation metrics, which come from private logs and are not covered "
            "by epsilon; set the number of rounds"
        )


def books_of(settings: Settings, plan: Plan, log: InteractionLog, run: str, model: str) -> LedgerBooks | None:
    """The ledger that the training is charged to; None where nothing is promised that could be spent.

    Raises:
        CoterieError: the ledger cannot be opened.
    """
    if not plan.private or plan.simulated_noise:
        return None
    ledger, delta = Ledger.open(settings.ledger.ledger), float(plan.delta or 0)
    account = ledger.account(settings.ledger.account, delta)
    return LedgerBooks(ledger, account.name, run, delta, model, fingerprint_of(log))


def fingerprint_of(log: InteractionLog) -> str:
    """A digest of the log's content, keyed with this installation's key: evidence to its owner, noise to others."""
    key = own_key().private_bytes_raw()
    return hmac.new(key, digest_of(log.frame, log.texts).encode(), hashlib.sha256).hexdigest()


def rows_that_count(log: InteractionLog, plan: Plan) -> InteractionLog:
    """The rows of units that privacy protects: guests are dropped, or each of their baskets is a unit.

    Raises:
        DataError: nothing is left.
        PlanError: a user appears at more clients than the plan bounds.
    """
    if not plan.private:
        return log
    if plan.guests == "drop":
        log = log.with_frame(log.frame.filter(pl.col("user").is_not_null()))
        if not len(log):
            raise DataError(
                f"{log.source}: no row has a user, and a guest is nobody whom epsilon could protect; --guests basket "
                "makes each basket without a user a unit of its own"
            )
    _refuse_spread(log.frame, log.source, plan)
    return log


def cases_that_count(cases: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """The questions whose answers a noised sum may hold: those of units that privacy protects, as `rows_that_count`.

    Raises:
        DataError: nothing is left.
        PlanError: a user is asked at more clients than the plan bounds.
    """
    if plan.guests == "drop":
        cases = cases.filter(pl.col("user").is_not_null())
        if not len(cases):
            raise DataError(
                "no held-out question has a user, and metrics that are paid for are means over users; --guests basket "
                "makes each basket without a user a unit of its own"
            )
    _refuse_spread(cases, "held-out questions", plan)
    return cases


def _refuse_spread(rows: pl.DataFrame, source: str, plan: Plan) -> None:
    if plan.max_clients_per_user > 1 and "client" in rows.columns:
        spread = rows.filter(pl.col("user").is_not_null()).group_by("user").agg(pl.col("client").n_unique().alias("n"))
        if len(spread) and int(spread["n"].max() or 0) > plan.max_clients_per_user:  # type: ignore[arg-type]
            raise PlanError(
                f"{source}: a user appears at more clients than max_clients_per_user = "
                f"{plan.max_clients_per_user}; raise it, or keep each user's rows at fewer clients"
            )


def assortment_of(log: InteractionLog, settings: Settings, plan: Plan) -> Catalogue | None:
    """The catalogue that an items file lists; None where the log's own items must do."""
    if not plan.private or settings.data.items is None:
        return None
    return Catalogue.listed(listed_items(settings, log))
