"""Every setting of a training, by section: the one place that the command line, `coterie.toml` and the docs share.

A field's description is its help text; its flag is its name with dashes (``client_column`` is ``--client-column``), so
names are unique across sections. Unknown keys are refused with the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from coterie.privacysettings import LedgerSettings, PlanSettings, Section
from coterie.settingscheck import build_as, describe, read_toml

__all__ = [
    "AugmentSettings",
    "CleanSettings",
    "ClientSettings",
    "DataSettings",
    "EvaluationSettings",
    "RunSettings",
    "Settings",
    "SplitSettings",
    "TrackingSettings",
    "build",
    "build_as",
    "describe",
    "fields",
    "is_database",
    "read_toml",
    "sections",
]


def is_database(log: str) -> bool:
    """Whether a log's name is a database: a URL, or ``env:NAME`` for the URL in an environment variable."""
    return "://" in log or log.startswith("env:")


def _require_file(key: str, name: str | None) -> None:
    """Databases hold logs alone; what such a URL may give away is not repeated."""
    if name is not None and is_database(name):
        raise ValueError(f"{key} must be a file, got a database; a query can mark held-out rows (part_column)")


class DataSettings(Section):
    """What to read, and which column means what."""

    logs: tuple[str, ...] = Field(
        (), description="Log files, database URLs, or env:NAME for a URL in a variable. Several are several clients."
    )
    query: str | None = Field(
        None, description="What to ask the logs that are databases: a SELECT statement, or @FILE that holds one."
    )
    user_column: str | None = Field(None, description="Column with the user (customer, member, session) id.")
    item_column: str | None = Field(None, description="Column with the item (product, article, movie) id.")
    time_column: str | None = Field(None, description="Column with the time of the interaction.")
    value_column: str | None = Field(None, description="Column with a quantity or a rating.")
    basket_column: str | None = Field(None, description="Column with the basket (order, invoice, receipt) id.")
    client_column: str | None = Field(
        None, description="Column with the client (shop, country, site) that holds the row."
    )
    title_column: str | None = Field(None, description="Column with the item's text, for titles and text similarity.")
    items: str | None = Field(None, description="File with one row per item: id, title and attributes.")
    users: str | None = Field(None, description="File with one row per user: id and attributes.")
    format: Literal["auto", "parquet", "csv", "udata", "baskets", "recbole", "shopify", "woocommerce", "magento"] = (
        Field(
            "auto",
            description="File format: parquet, csv (any delimiter, plain or gzip), udata (MovieLens u.data or "
            "ratings.dat), baskets (one basket per line), recbole (atomic files), or an order export of shopify, "
            "woocommerce or magento.",
        )
    )
    delimiter: str | None = Field(
        None, description="Column delimiter of text files; found from the header if not given."
    )
    encoding: str = Field(
        "auto", description="Encoding of text files, such as utf-8, cp1252 or gb18030; auto finds it from the bytes."
    )
    decimal: Literal["auto", "point", "comma"] = Field(
        "auto", description="Decimal mark of values in text files; auto decides it for each column."
    )
    timezone: str = Field(
        "UTC", description="Time zone of times without an offset, such as Europe/Berlin; times are stored as UTC."
    )
    basket_from: Literal["none", "user-day", "user"] = Field(
        "none",
        description="Without a basket column: make one basket per user and day, or one per user.",
    )

    @model_validator(mode="after")
    def _files(self) -> DataSettings:
        for key in ("items", "users"):
            _require_file(key, getattr(self, key, None))
        return self


class CleanSettings(Section):
    """What to drop or rewrite before training. Each step reports how many rows it dropped and why."""

    preset: Literal["auto", "none", "retail"] = Field(
        "auto",
        description="Which steps run by default: retail (guest ids, codes, non-products, returns, duplicates) or none "
        "(missing ids only); auto takes retail where the log has baskets and quantities.",
    )
    guest_ids: tuple[str, ...] | None = Field(
        None, description="User ids that stand for guests, such as 0 or -1; never treated as one user."
    )
    item_case: Literal["keep", "codes", "upper", "lower"] | None = Field(
        None,
        description="Letter case of item ids; codes upper-cases ids of ASCII characters with a digit and no space.",
    )
    drop_duplicates: bool | None = Field(None, description="Drop rows that repeat another row in every column.")
    drop_returns: bool | None = Field(
        None,
        description="A negative quantity cancels the same user's earlier purchases of that item; both are dropped.",
    )
    non_products: str | None = Field(
        None, description="Regular expression: item ids that match in full are not products (postage, fees, vouchers)."
    )
    max_user_rows: int | None = Field(None, ge=1, description="Drop users with more rows than this (bots, resellers).")
    max_user_quantile: float | None = Field(
        None, gt=0, lt=1, description="Drop users with more rows than this quantile of all users."
    )
    max_basket_items: int | None = Field(None, ge=2, description="Drop baskets with more distinct items than this.")
    max_basket_quantile: float | None = Field(
        None, gt=0, lt=1, description="Drop baskets with more distinct items than this quantile of all baskets."
    )
    min_user_rows: int = Field(0, ge=0, description="Drop users with fewer rows (k-core with min_item_rows).")
    min_item_rows: int = Field(0, ge=0, description="Drop items with fewer rows (k-core with min_user_rows).")
    max_items: int | None = Field(None, ge=1, description="Keep only this many items, the most frequent ones.")
    since: str | None = Field(None, description="Drop rows before this time (ISO 8601).")
    until: str | None = Field(None, description="Drop rows at or after this time (ISO 8601).")
    min_value: float | None = Field(None, description="Drop rows with a smaller value (rating threshold).")
    normalise_values: Literal["none", "binary", "minmax", "user-mean"] = Field(
        "none", description="Rewrite values: all 1, to [0, 1], or minus the user's mean."
    )
    normalise_text: bool = Field(
        True, description="Unicode NFKC, one space between words, no control characters in texts."
    )


class SplitSettings(Section):
    """What is held out for validation and test."""

    split: Literal["auto", "carts", "next-basket", "time", "last", "random-rows", "random-users", "given", "none"] = (
        Field(
            "auto",
            description="How to hold out: carts (leave one item out of each later basket), next-basket (all items of "
            "later baskets), time (everything after a cut), last (each user's last item), random-rows, random-users, "
            "given (files or a part column), none. auto: given if files are given, carts with baskets, last with "
            "times, else random-rows.",
        )
    )
    test: str | None = Field(None, description="File with the test rows, or cases with columns cart and target.")
    valid: str | None = Field(None, description="File with the validation rows, or cases.")
    candidates: str | None = Field(
        None, description="File with the items to rank per test user (user, item rows, or NCF .negative format)."
    )
    part_column: str | None = Field(None, description="Column that says train, valid or test.")
    test_share: float = Field(0.2, gt=0, lt=1, description="Share held out for the test.")
    valid_share: float = Field(0.1, ge=0, lt=1, description="Share held out for validation; 0 for none.")
    max_targets: int = Field(5, ge=1, description="Most items left out, one at a time, per basket.")

    @model_validator(mode="after")
    def _shares(self) -> SplitSettings:
        if self.test_share + self.valid_share >= 1:
            raise ValueError(
                f"test_share + valid_share must be below 1, got {self.test_share} + {self.valid_share}: nothing is "
                "left to train on"
            )
        return self

    @model_validator(mode="after")
    def _files(self) -> SplitSettings:
        for key in ("test", "valid", "candidates"):
            _require_file(key, getattr(self, key))
        return self


class ClientSettings(Section):
    """Who the clients are."""

    clients: Literal["auto", "column", "files", "users", "shops"] = Field(
        "auto",
        description="column (client_column), files (each log is a client), users (every user is a client) or shops "
        "(simulated). auto: column or files where given, else shops where their number is set, else users.",
    )
    shops: int | None = Field(None, ge=1, description="Number of simulated shops that the users are dealt to.")
    skew: float = Field(1.0, ge=0, description="How much the simulated shops differ in what they sell; 0: not at all.")


class AugmentSettings(Section):
    """Rows to add to the training data, made from those that are there. None by default; never to held-out rows."""

    sub_baskets: int = Field(
        0, ge=0, le=100, description="Random parts to add per basket of three items or more, as baskets of their own."
    )
    keep_share: float = Field(0.5, gt=0, lt=1, description="Share of a basket's items that such a part keeps.")
    crops: int = Field(
        0, ge=0, le=100, description="Random stretches in order of time to add per basket longer than crop_length."
    )
    crop_length: int = Field(20, ge=2, description="Items of such a stretch.")


class EvaluationSettings(Section):
    """What is measured."""

    at: tuple[int, ...] = Field((5, 10, 20), description="Cut-offs k of the ranking metrics.")
    compare: bool = Field(True, description="Also train alone, mix, centralised and popularity, and compare.")
    catalogue: Literal["auto", "own", "all"] = Field(
        "auto",
        description="Rank each client's own catalogue, or all items; auto: own for clients that are organisations.",
    )
    history: bool = Field(True, description="Let a known user's past baskets enter at scoring time.")
    resamples: int = Field(1000, ge=100, le=100_000, description="Bootstrap resamples of the confidence intervals.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the confidence intervals.")

    metrics_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Under privacy: share of the noise budget that pays for metrics, which then leave as a noised sum "
        "alone; 0: raw metrics of a simulation, outside epsilon.",
    )

    @field_validator("at")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(k < 1 for k in value):
            raise ValueError(f"at must name cut-offs of at least 1, got {list(value)}")
        return tuple(sorted(set(value)))


class RunSettings(Section):
    """How to run."""

    seed: int = Field(0, ge=0, description="Seed of every random stream of the run.")
    output: str | None = Field(None, description="Run folder; by default runs/<date>-<model>.")
    engine: Literal["local", "ray"] = Field(
        "local",
        description="Who sums what clients contribute: this process (local), or worker processes of Ray, here or on a "
        "cluster (ray). Results do not depend on it.",
    )
    ray_address: str | None = Field(
        None,
        description="The Ray cluster to use with engine = ray: HOST:PORT of its head, asked for on a machine of the "
        "cluster, or auto for the one that runs here. By default one is started on this machine for the training.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="Threads of the kernels, and with engine = ray worker processes; 0 takes all cores. Results do not "
        "depend on it.",
    )
    patience: int = Field(
        0,
        ge=0,
        description="Early stopping: end after this many rounds without a better validation metric, and train with as "
        "many rounds as were best; 0 for all rounds.",
    )
    block: int = Field(
        2_000_000, ge=1, le=2**40, description="Interactions per block; bounds the memory. Results do not depend on it."
    )

    @field_validator("ray_address")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value is None or value == "auto":
            return value
        host, _, port = value.rpartition(":")
        if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise ValueError(
                f"ray_address must be auto or HOST:PORT of the cluster's head, such as 10.0.0.5:6379, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _cluster(self) -> RunSettings:
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError(f"ray_address must come with engine = 'ray', got engine = '{self.engine}'")
        return self


class TrackingSettings(Section):
    """Whom to tell of finished runs. Nobody by default."""

    track: str | None = Field(
        None,
        description="Send the finished run to MLflow: mlflow, or mlflow:URI of a tracking server or database. Sent are "
        "parameters, metrics by round, final metrics, report and privacy card; under privacy only what was released; "
        "never logs, nor models.",
        examples=["mlflow:https://mlflow.example.org"],
    )

    @field_validator("track")
    @classmethod
    def _tracker(cls, value: str | None) -> str | None:
        name, colon, uri = (value or "mlflow").partition(":")
        if name != "mlflow" or (colon and not uri):
            raise ValueError(f"track must be mlflow or mlflow:URI, such as mlflow:https://host, got {value!r}")
        if "@" in uri.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "track must not hold a password: settings are kept with the run; give mlflow alone, with the URI in "
                "MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value

    @property
    def uri(self) -> str | None:
        """Where MLflow is; None where MLflow's own settings say."""
        return (self.track or "").partition(":")[2] or None


class Settings(Section):
    """A whole training: the content of `coterie.toml`."""

    data: DataSettings = DataSettings()
    clean: CleanSettings = CleanSettings()
    split: SplitSettings = SplitSettings()
    clients: ClientSettings = ClientSettings()
    augment: AugmentSettings = AugmentSettings()
    model: dict[str, Any] = Field(
        default_factory=lambda: {"name": "cart"}, description="Model name, tune, and the model's hyper-parameters."
    )
    plan: PlanSettings = PlanSettings()
    ledger: LedgerSettings = LedgerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    run: RunSettings = RunSettings()
    tracking: TrackingSettings = TrackingSettings()


def sections() -> Iterator[tuple[str, type[Section]]]:
    """The sections with fixed fields, in the order of `coterie.toml` (``model`` has its fields from the models)."""
    for name, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield name, info.annotation


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting with a fixed place as (section, key, field)."""
    for name, section in sections():
        for key, info in section.model_fields.items():
            yield name, key, info


def build(
    values: Mapping[str, Any], source: str, flags: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> Settings:
    """Check nested `values` and build the settings of a training; see `build_as`."""
    return build_as(Settings, values, source, flags)
