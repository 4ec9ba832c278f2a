"""Every setting of a deployment, by section: what `coterie serve --config serve.toml` reads.

`coterie serve` has a flag for what is asked most; everything else stands in the file, which `coterie init --serve`
writes with every key explained.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from coterie.privacysettings import Section

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServerSettings(Section):
    """Where the service listens."""

    host: str = Field("127.0.0.1", description="Address to listen at. Beyond loopback, keys are always asked for.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen at; 0 takes a free one.")
    workers: int = Field(
        1, ge=1, le=64, description="Processes that answer, each with the model in its memory; about one for each core."
    )
    tls_certificate: str | None = Field(
        None, description="Certificate chain (PEM) for HTTPS.", examples=["tls/cert.pem"]
    )
    tls_key: str | None = Field(None, description="Its private key (PEM).", examples=["tls/key.pem"])
    behind_proxy: bool = Field(
        False,
        description="A proxy of yours on this machine ends TLS and sets X-Forwarded-For and "
        "X-Forwarded-Proto; without it "
        "or a certificate, an address beyond loopback is refused.",
    )
    public_url: str | None = Field(
        None,
        description="How browsers reach the service, where that is not host and port.",
        examples=["https://rec.example.org"],
    )

    @model_validator(mode="after")
    def _whole(self) -> ServerSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or neither")
        if self.host not in LOOPBACK and self.tls_certificate is None and not self.behind_proxy:
            raise ValueError(
                f"host {self.host!r} is reachable from other machines; give tls_certificate and tls_key, or set "
                "behind_proxy = true where your own proxy ends TLS"
            )
        return self


class StoreSettings(Section):
    """Where items, events, keys and roll-outs are kept, and for how long."""

    address: str = Field(
        "coterie-serving.sqlite",
        description="An SQLite file, a postgresql:// URL, or env:NAME for a URL in a variable.",
    )
    events_days: int | None = Field(
        730, ge=1, description="Events older than this are deleted, every hour and at start. None: never."
    )
    guest_events_days: int | None = Field(90, ge=1, description="The same for events without a user.")
    receipts_days: int | None = Field(3650, ge=1, description="How long receipts of erasures are kept.")


class ModelSettings(Section):
    """Which runs are served."""

    trust: str | None = Field(None, description="Fingerprint of a signer to trust besides this installation's own key.")
    allow: tuple[Literal["unsigned", "tampered", "older"], ...] = Field(
        (), description="Serve runs that are unsigned, changed since they were signed, or older than the one before."
    )
    runs: str | None = Field(None, description="Folder of the runs that the dashboard lists. Default: that of the run.")
    reload_seconds: float = Field(0.25, gt=0, le=60, description="How often the store is asked for changes by others.")


class AnswerSettings(Section):
    """How questions are answered."""

    max_k: int = Field(100, ge=1, le=1000, description="Most suggestions in one answer.")
    max_basket: int = Field(1000, ge=1, le=10_000, description="Most items in one basket.")
    exploration: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of answers in which one suggestion is drawn at random, to learn from. Off: 0.",
    )
    privacy: Literal["plain", "browser", "noisy"] = Field(
        "plain",
        description="plain: baskets come to the server. browser: pages download the model and the "
        "basket stays there; the "
        "server answers no baskets. noisy: suggestions are drawn with noise, so that an answer says "
        "little about any one item "
        "of the basket.",
    )
    epsilon_per_answer: float = Field(
        20.0, gt=0, description="noisy: epsilon of one answer, for one item of the basket."
    )
    epsilon_per_user: float = Field(
        400.0,
        gt=0,
        description="noisy: what a user's answers may spend in `epsilon_days`; then answers are popular items.",
    )
    epsilon_days: float = Field(30.0, gt=0, description="noisy: the period of `epsilon_per_user`.")


class AccessSettings(Section):
    """Who may ask, and how much."""

    keys: Literal["auto", "always"] = Field(
        "auto",
        description="auto: on loopback no key is asked for until the first one is made. always: never without a key.",
    )
    cors: tuple[str, ...] = Field(
        (),
        description="Further origins whose pages may call, as https://shop.example.org; origins "
        "of publishable keys may.",
    )
    request_bytes: int = Field(1_000_000, ge=1_000, description="Largest body of a request.")
    batch: int = Field(1_000, ge=1, le=100_000, description="Most events or items in one request.")
    publishable_per_minute: int = Field(
        600, ge=1, description="Requests a minute of one address with a publishable key."
    )
    secret_per_minute: int = Field(120_000, ge=1, description="Requests a minute of one secret key.")
    failures_per_minute: int = Field(
        30, ge=1, description="Wrong keys a minute of one address, after which it has to wait."
    )
    session_hours: float = Field(12.0, gt=0, description="How long a login to the dashboard holds.")


class PeopleSettings(Section):
    """What is kept of whom."""

    consent: Literal["opt-out", "opt-in"] = Field(
        "opt-out",
        description="opt-out: events of users are kept unless they object. opt-in: only those of "
        "users who have consented.",
    )


class LogSettings(Section):
    """The log of requests: JSON lines without ids of users or items."""

    requests: bool = Field(True, description="One line for each request.")
    file: str | None = Field(None, description="File to write to, by default stderr.", examples=["serving.log"])


class FederationView(Section):
    """A coordinator whose status the dashboard shows."""

    coordinator: str | None = Field(None, description="The coordinator's folder.", examples=["federation"])
    ledger: str | None = Field(None, description="The ledger to show: a file or a URL. Default: this installation's.")


class ServeConfig(Section):
    """All of it."""

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    model: ModelSettings = ModelSettings()
    answers: AnswerSettings = AnswerSettings()
    access: AccessSettings = AccessSettings()
    people: PeopleSettings = PeopleSettings()
    log: LogSettings = LogSettings()
    federation: FederationView = FederationView()
    expressions: dict[str, str] = Field(
        {},
        description="Expressions over item fields by name, for `filter` and `boost`: "
        "publishable keys may use no others.",
        examples=[{"vegan": "'vegan' in tags", "cheap": "price < 20.0"}],
    )
