"""What the two daemons are told: ``federation.toml`` of the coordinator and ``node.toml`` of a node.

Both files are written annotated (`federation_template`, `node_template`) and are a person's from then on: nothing
rewrites them. Relative paths in them start at the file's own folder, since a daemon has no other place to start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from coterie.annotated import annotated
from coterie.errors import ConfigError
from coterie.federation.address import LARGEST_PORT, check_address, split_address
from coterie.federation.jobsettings import JobSettings
from coterie.federation.roster import check_name
from coterie.privacysettings import LedgerSettings, Section
from coterie.settings import (
    AugmentSettings,
    CleanSettings,
    DataSettings,
    SplitSettings,
    build_as,
    is_database,
    read_toml,
)

COORDINATOR_FILE, NODE_FILE = "federation.toml", "node.toml"


class FederationSettings(Section):
    """Who this federation is, where nodes reach it, and what they may send."""

    name: str = Field(
        examples=["my federation"],
        min_length=1,
        max_length=64,
        description="What people call this federation; it stands in invitations and reports.",
    )
    address: str = Field(
        examples=["localhost:9443"],
        description="HOST:PORT at which nodes reach this coordinator from outside; it stands in invitations, and the "
        "server's certificate must be made out to it.",
    )
    listen_host: str = Field(
        "0.0.0.0",  # noqa: S104  # nodes come from other machines
        description="Address of this machine to listen on; 127.0.0.1 behind a reverse proxy on the same machine.",
    )
    listen_port: int | None = Field(
        None, ge=1, le=LARGEST_PORT, description="Port to listen on. Default: that of the address."
    )
    database: str = Field(
        "federation.sqlite",
        description="Where members, jobs and rounds are recorded: a file, or a postgresql:// URL, or env:NAME for it.",
    )
    invitation_days: float = Field(7.0, gt=0, le=90, description="How long an invitation may be used.")
    max_message_mb: int = Field(
        512, ge=1, le=2048, description="Largest message that a node may send, in MiB; larger ones are refused unread."
    )
    requests_per_minute: int = Field(
        6000, ge=60, description="Requests that one network address may make in a minute, before it has to wait."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=LARGEST_PORT, description="Port of 127.0.0.1 for Prometheus metrics. Default: none are served."
    )

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError(f"name must be characters that can be printed, without spaces around it, got {value!r}")
        return value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return check_address(value)

    @property
    def host(self) -> str:
        """The host that nodes reach: a name, or an IP address without brackets."""
        return split_address(self.address)[0]

    @property
    def listen(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return self.listen_host, self.listen_port or split_address(self.address)[1]


class TlsSettings(Section):
    """Your own certificate, where the one that `coterie coordinator init` makes will not do: all three, or none."""

    certificate: str | None = Field(
        None,
        examples=["tls/server.pem"],
        description="PEM file with the server's certificate, followed by intermediate ones.",
    )
    key: str | None = Field(None, examples=["tls/server.key"], description="PEM file with its private key.")
    ca: str | None = Field(
        None,
        examples=["tls/ca.pem"],
        description="PEM file with the certificate of the authority that signed it: the one that nodes will trust.",
    )

    @model_validator(mode="after")
    def _together(self) -> TlsSettings:
        given = {key: getattr(self, key) is not None for key in ("certificate", "key", "ca")}
        if any(given.values()) and not all(given.values()):
            missing = " and ".join(key for key, there in given.items() if not there)
            raise ValueError(f"[tls] needs certificate, key and ca together, or none of them: {missing} is missing")
        return self


class FederationConfig(Section):
    """The content of ``federation.toml``."""

    federation: FederationSettings
    tls: TlsSettings = TlsSettings()
    jobs: dict[str, JobSettings] = Field(
        default_factory=dict,
        examples=["weekly"],
        description="What is trained together: a table for each job, under a name of your choice. There is none yet; "
        "this is one with every key at its default.",
    )

    @field_validator("jobs")
    @classmethod
    def _names(cls, value: dict[str, JobSettings]) -> dict[str, JobSettings]:
        for name in value:
            _as_value(name, "a job's name")
        return value

    @classmethod
    def load(cls, path: Path) -> FederationConfig:
        """Read the file; its paths come out absolute.

        Raises:
            ConfigError: it is missing, is not TOML, or has an unknown key, a wrong value or an unknown model.
        """
        values = read_toml(path, "coterie coordinator init")
        found = build_as(cls, values, str(path))
        for name, job in found.jobs.items():
            job.check_model(f"{path}: [jobs.{name}.model]")
        return _beside(found, path.resolve().parent)


class NodeConfig(Section):
    """The content of ``node.toml``."""

    name: str = Field(examples=["my-shop"], description="What the federation calls this node; as in the invitation.")
    address: str = Field(examples=["localhost:9443"], description="HOST:PORT of the coordinator; as in the invitation.")
    account: str = Field(
        "default",
        min_length=1,
        description="The account of the ledger that pays for what this node contributes: one for all uses of these "
        "users' data. policy.toml says how much may be spent on it.",
    )
    ledger: str | None = Field(
        None,
        description="The ledger: a file, a postgresql:// URL, or env:NAME for it. Default: ledger.sqlite beside this "
        "installation's key.",
    )
    key_file: str | None = Field(
        None,
        examples=["vault.key"],
        description="File with the age key that protects this node's private state. Default: vault.key in this folder; "
        "kept elsewhere (a mounted secret), a stolen disk says nothing.",
    )
    identifier: str | None = Field(
        None,
        examples=["gtin"],
        description="Column of the items file with a GTIN or ISBN, by which others know these items. Default: a column "
        "called gtin, ean, upc, barcode or isbn, for catalogues that are agreed by hashes.",
    )
    shared_attributes: tuple[str, ...] = Field(
        (),
        examples=[["colour"]],
        description="Columns of the items file, besides the title, that may leave with item ids (catalogue union). An "
        "items file may hold purchase prices: by default none leave.",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="Where this node computes its contribution: on this machine, or on a Ray cluster."
    )
    ray_address: str | None = Field(
        None,
        examples=["ray-head:6379"],
        description="Address of the Ray cluster (engine ray). Default: one is started on this machine.",
    )
    data: DataSettings = DataSettings()
    clean: CleanSettings = CleanSettings()
    split: SplitSettings = SplitSettings()
    augment: AugmentSettings = AugmentSettings()

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return _as_value(value, "name")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return check_address(value)

    @model_validator(mode="after")
    def _cluster(self) -> NodeConfig:
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError(f"ray_address = '{self.ray_address}' needs engine = 'ray', got engine = '{self.engine}'")
        return self

    @property
    def ledger_settings(self) -> LedgerSettings:
        """The same as the section of `coterie.toml`."""
        return LedgerSettings(ledger=self.ledger, account=self.account)

    @classmethod
    def load(cls, path: Path) -> NodeConfig:
        """Read the file; its paths come out absolute.

        Raises:
            ConfigError: it is missing, is not TOML, or has an unknown key or a wrong value.
        """
        found = build_as(cls, read_toml(path, "coterie node join"), str(path))
        folder = path.resolve().parent
        data = found.data.model_copy(
            update={
                "logs": tuple(absolute(log, folder) for log in found.data.logs),
                **_absolute_keys(found.data, ("items", "users"), folder),
            }
        )
        split = found.split.model_copy(update=_absolute_keys(found.split, ("test", "valid", "candidates"), folder))
        own = _absolute_keys(found, ("ledger", "key_file"), folder)
        return found.model_copy(update={"data": data, "split": split, **own})


def federation_template(
    name: str | None = None, address: str | None = None, tls: Mapping[str, str] | None = None
) -> str:
    """An annotated ``federation.toml``; it loads as it stands. `tls` names the operator's own certificate."""
    values = {"federation": {key: value for key, value in (("name", name), ("address", address)) if value}}
    values["tls"] = dict(tls or {})
    return annotated(FederationConfig, FEDERATION_HEADING, values)


def node_template(name: str | None = None, address: str | None = None, preset: str | None = None, **data: Any) -> str:
    """An annotated ``node.toml``; it loads as it stands. `data` are keys of its section [data]."""
    given = {key: value for key, value in (("name", name), ("address", address)) if value}
    clean = {} if preset is None else {"preset": preset}
    return annotated(NodeConfig, NODE_HEADING, {**given, "data": data, "clean": clean})


FEDERATION_HEADING = (
    "A federation's coordinator: `coterie coordinator start` reads this file, and nothing ever rewrites it.\n\n"
    "Keys that are commented out have no value; what follows # then is an example. Relative paths start at the folder "
    "of this file."
)
NODE_HEADING = (
    "A node of a federation, one organisation: `coterie node start` reads this file, and nothing ever rewrites it. "
    "What the node may take part in is said in policy.toml.\n\n"
    "Keys that are commented out have no value; what follows # then is an example. Relative paths start at the folder "
    "of this file."
)


def absolute(name: str, folder: Path) -> str:
    """A file's name as an absolute path, from `folder` on; a database's URL as it is."""
    return name if is_database(name) else str(folder / Path(name).expanduser())


def _beside(config: FederationConfig, folder: Path) -> FederationConfig:
    """The configuration with absolute paths."""
    database = {"database": absolute(config.federation.database, folder)}
    jobs = {name: job.model_copy(update=_absolute_keys(job, ("items",), folder)) for name, job in config.jobs.items()}
    tls = _absolute_keys(config.tls, ("certificate", "key", "ca"), folder)
    return config.model_copy(
        update={
            "federation": config.federation.model_copy(update=database),
            "tls": config.tls.model_copy(update=tls),
            "jobs": jobs,
        }
    )


def _absolute_keys(section: Section, keys: tuple[str, ...], folder: Path) -> Mapping[str, str]:
    given = {key: getattr(section, key) for key in keys}
    return {key: absolute(value, folder) for key, value in given.items() if value is not None}


def _as_value(name: str, what: str) -> str:
    """`check_name` inside pydantic, which wants a ValueError."""
    try:
        return check_name(name, what)
    except ConfigError as error:
        raise ValueError(str(error)) from None
