"""What documents are filled from: a run's result, settings, manifest and rounds, its account, a node's policy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from coterie.errors import RunError
from coterie.federation.policy import Policy
from coterie.files import read_bytes
from coterie.privacy.ledger_statement import RunSpent, Statement
from coterie.report import reading
from coterie.report.card import Card, card_of, one_user_each
from coterie.report.rounds import round_records
from coterie.settings import read_toml

PLOTS = {"Metric by round": "metric-by-round.svg", "Gain by client": "gain-by-client.svg"}
"""Plots of a run folder, by caption."""


class Documented(Protocol):
    """What can be documented: `coterie.experiment.run.Run`, or `Stored`."""

    @property
    def result(self) -> Mapping[str, Any]: ...

    @property
    def path(self) -> Path | None: ...


@dataclass(frozen=True)
class Stored:
    """A run on disk without its model. Whoever reads it has checked its signature."""

    path: Path
    result: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Stored:
        """The run in a folder.

        Raises:
            RunError: its result is missing or no JSON object.
        """
        return cls(folder, read_object(folder / "result.json"))


@dataclass(frozen=True)
class Facts:
    """Everything that is known of one run; what is unknown is empty or None, and documents say so.

    `account` is what the ledger says now of the account that paid, None where it was not asked. `policy` is that of the
    node that keeps these documents.
    """

    result: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    rounds: Sequence[Mapping[str, Any]] = ()
    plots: Mapping[str, Path] = field(default_factory=dict)
    account: Statement | None = None
    policy: Policy | None = None
    on: date = field(default_factory=lambda: datetime.now(UTC).date())

    @classmethod
    def of(
        cls,
        run: Documented,
        *,
        account: Statement | None = None,
        policy: Policy | None = None,
        on: date | None = None,
    ) -> Facts:
        """What is known of a run: its result, and what stands in its folder where it has one.

        Raises:
            CoterieError: a file of the folder cannot be read.
        """
        folder, today = run.path, on or datetime.now(UTC).date()
        if folder is None:
            return cls(run.result, account=account, policy=policy, on=today)
        config = folder / "config.toml"
        drawn = {caption: folder / "plots" / name for caption, name in PLOTS.items()}
        return cls(
            result=run.result,
            config=read_toml(config) if config.exists() else {},
            manifest=_optional(folder / "manifest.json"),
            inputs=_optional(folder / "inputs.json"),
            rounds=round_records(folder),
            plots={caption: path for caption, path in drawn.items() if path.exists()},
            account=account,
            policy=policy,
            on=today,
        )

    # --- the run --------------------------------------------------------------------------------------------------

    @property
    def model(self) -> str | None:
        """The model's name."""
        return self.result.get("model")

    @property
    def data(self) -> Mapping[str, Any]:
        """Counts of what was trained on; null where noise hides them."""
        return self.result.get("data") or {}

    @property
    def finished(self) -> str | None:
        """The day on which the run was signed, as YYYY-MM-DD."""
        when = self.manifest.get("signed_at")
        return None if not isinstance(when, str) else when[:10]

    @property
    def simulation(self) -> bool:
        """Whether one process held all logs."""
        return self.result.get("scope") == "simulation"

    @property
    def kept_at_home(self) -> bool:
        """Whether this is what one organisation made of a federation for itself."""
        return self.result.get("scope") == "federation" and self.result.get("client") is not None

    @cached_property
    def public_result(self) -> dict[str, Any]:
        """The result without the example rows of cleaning, which name users: fit to be handed on with a report."""
        steps = [{k: v for k, v in one.items() if k != "examples"} for one in self.result.get("cleaning") or []]
        return {**self.result, "cleaning": steps}

    @property
    def columns(self) -> dict[str, str]:
        """Column by role, as the settings name them."""
        data = self.config.get("data") or {}
        return {
            key.removesuffix("_column"): str(name) for key, name in data.items() if key.endswith("_column") and name
        }

    @property
    def tracker(self) -> str | None:
        """The tracking server that the run was sent to when it was finished, as its settings name it."""
        named = (self.config.get("tracking") or {}).get("track")
        return None if named is None else str(named)

    # --- privacy --------------------------------------------------------------------------------------------------

    @property
    def privacy(self) -> Mapping[str, Any]:
        """The ``privacy`` object of the result; empty where it has none."""
        return self.result.get("privacy") or {}

    @cached_property
    def card(self) -> Card | None:
        """The privacy card's facts; None where the result states none."""
        return card_of(self.result) if self.privacy else None

    @property
    def epsilon(self) -> float | None:
        """The promise; None without one, and where the noise was only simulated."""
        promised = self.card is not None and self.card.promised and not self.simulated_noise
        return reading.known(self.privacy.get("epsilon")) if promised else None

    @property
    def simulated_noise(self) -> bool:
        """Whether the noise came from the seed, and so protects nobody."""
        return self.privacy.get("releasable") is False

    @property
    def secure(self) -> bool:
        """Whether the server saw sums over all clients alone."""
        return self.privacy.get("aggregation") == "secure" and self.privacy.get("masks") == "real"

    @property
    def raw(self) -> list[str]:
        """What left although no epsilon covers it."""
        return [str(one["what"]) for one in self.privacy.get("left") or [] if not one.get("charged")]

    @property
    def account_name(self) -> str | None:
        """The account that paid; None where nothing was charged."""
        if self.account is not None:
            return self.account.account.name
        name = (self.privacy.get("account") or {}).get("name")
        return None if name is None else str(name)

    @property
    def own_spending(self) -> RunSpent | None:
        """This run's part of the account, where the ledger was asked and knows the run."""
        name = self.inputs.get("run")
        return next((one for one in (self.account.runs if self.account else ()) if one.run == name), None)

    # --- who takes part -------------------------------------------------------------------------------------------

    @property
    def devices(self) -> bool:
        """Whether every client is one user's device, so that no organisations stand behind them."""
        return one_user_each(self.result)

    @cached_property
    def parties(self) -> tuple[str, ...]:
        """The organisations, by name; none where clients are devices, or are not named."""
        if self.devices:
            return ()
        named = list(self.result.get("members") or [])
        named += [str(row["client"]) for row in self.result.get("per_client") or []]
        named += self.result.get("clients_without_cases") or []
        named += [str(self.result["client"])] if self.result.get("client") else []
        named += self.manifest.get("clients") or []
        named += list(self.policy.pinned) if self.policy else []
        return tuple(dict.fromkeys(map(str, named)))

    @property
    def n_parties(self) -> int | None:
        """How many organisations take part; None where that is unknown, or where clients are devices."""
        if self.devices:
            return None
        return self.data.get("clients") or len(self.parties) or None


def certainty(epsilon: float) -> float:
    """How sure somebody who thought the odds even can become of one user's presence, at this epsilon (delta aside).

    >>> round(certainty(1.0), 2), certainty(1000.0)
    (0.73, 1.0)
    """
    return 1 / (1 + math.exp(-epsilon))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a run folder.

    Raises:
        RunError: it is missing, truncated, or no object.
    """
    if not path.exists():
        raise RunError(f"{path}: missing; restore the run folder or train again")
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise RunError(f"{path}: truncated or not JSON ({error}); restore the run folder or train again") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: holds {type(content).__name__}, not an object; restore the run folder or train again")
    return content


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
