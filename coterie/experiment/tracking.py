"""A finished run, told to MLflow: parameters, metrics by round, final metrics, tags, report and privacy card.

What is sent is what `coterie.experiment.released` lets go; never a log, a model, or what clients keep. A run is signed
before anything is sent, so a tracking server that fails costs nothing: the run can be sent again, and is sent once.
MLflow's own reports about its use are switched off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from coterie.errors import ConfigError, EnvironmentFault, MissingExtra
from coterie.experiment.released import all_was_released, released
from coterie.report import reading
from coterie.report.card import privacy_card
from coterie.report.documents import Facts, Stored
from coterie.report.html import report_page
from coterie.settings import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "coterie"
"""The experiment that runs go to, unless MLFLOW_EXPERIMENT_NAME names another."""
SIGNATURE = "coterie.signature"
AT_ONCE = 100  # parameters or metrics in one request; MLflow takes no more parameters

_SENT_SETTINGS = ("split", "clients", "augment", "plan", "evaluation")
_KEPT_SETTINGS = frozenset({"test", "valid", "candidates"})  # names of files
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_NO_REPORTS = "MLFLOW_DISABLE_TELEMETRY"
_SECRET = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Content:
    """What is sent of a run. `metrics` are (name, value, step); `artefacts` are texts by file name."""

    name: str
    params: Mapping[str, str]
    metrics: Sequence[tuple[str, float, int]]
    tags: Mapping[str, str]
    artefacts: Mapping[str, str]


@dataclass(frozen=True)
class Tracked:
    """Where a run was sent to. `again` says that it was there already, and nothing was sent."""

    uri: str
    experiment: str
    run_id: str
    withheld: bool
    again: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.__dict__}


def check_tracking(settings: TrackingSettings, folder: Path | None) -> None:
    """Refuse before the work what could not be sent after it.

    Raises:
        MissingExtra: MLflow is not installed.
        ConfigError: the run is to be made in memory.
    """
    if settings.track is None:
        return
    if folder is None:
        raise ConfigError("track sends a run folder, and this run has none; name one with output")
    _mlflow()


def send(folder: Path, settings: TrackingSettings) -> Tracked:
    """Send a signed run; one that is there already is not sent again.

    Raises:
        MissingExtra: MLflow is not installed.
        EnvironmentFault: the tracking server or its store failed; names the folder, and how to send it again.
    """
    content = content_of(folder)
    with _quiet():
        mlflow = _mlflow()
        uri = settings.uri or mlflow.get_tracking_uri()
        try:
            return _sent(mlflow.MlflowClient(tracking_uri=uri), uri, content)
        except (mlflow.exceptions.MlflowException, OSError, SQLAlchemyError) as error:
            told = textwrap.shorten(_SECRET.sub("//", str(error)), 300, placeholder=" …")
            raise EnvironmentFault(
                f"{folder}: the run is finished and signed, but MLflow at {_SECRET.sub('//', uri)} did not take it "
                f"({told}); send it again with: coterie report {folder} --track {settings.track}"
            ) from None


def content_of(folder: Path) -> Content:
    """What is sent of the run in `folder`.

    Raises:
        RunError: its result is missing or damaged.
    """
    facts = Facts.of(Stored.read(folder))
    told = released(facts.result, folder.name)
    return Content(
        name=folder.name,
        params=_params(facts, told),
        metrics=[*_by_round(facts), *_final(told, len(facts.rounds))],
        tags=_tags(facts, told),
        artefacts=_artefacts(facts, told),
    )


def _params(facts: Facts, told: Mapping[str, Any]) -> dict[str, str]:
    """What was asked: the model with its hyper-parameters, and settings that name no file."""
    found: dict[str, Any] = {"model": told.get("model"), "engine": told.get("engine"), "seed": told.get("seed")}
    found |= {f"model.{key}": value for key, value in (told.get("hyper_parameters") or {}).items()}
    for section in _SENT_SETTINGS:
        given = facts.config.get(section) or {}
        found |= {f"{section}.{key}": value for key, value in given.items() if key not in _KEPT_SETTINGS}
    found |= {f"data.{key}": value for key, value in (told.get("data") or {}).items()}
    return {key: _text(value) for key, value in found.items() if value is not None}


def _by_round(facts: Facts) -> Iterator[tuple[str, float, int]]:
    """What is known of each round: metrics on validation, and what was sent. Under noise there are no such metrics."""
    for record in facts.rounds:
        stage, step = record["stage"], int(record["round"])
        for name, value in (record.get("validation") or {}).items() if all_was_released(facts.result) else ():
            yield from _metric(f"{stage}/validation/{name}", value, step)
        yield from _metric(f"{stage}/upload_bytes_per_client", record.get("upload_bytes_per_client"), step)
        for part in record.get("parts") or ():
            yield from _metric(f"{stage}/noise_std/{part['name']}", part.get("noise_std"), step)


def _final(told: Mapping[str, Any], step: int) -> Iterator[tuple[str, float, int]]:
    """Every metric of every scheme, the noise in it, and what privacy was spent."""
    for table, suffix in (("metrics", ""), ("metrics_noise", "_noise_std")):
        for scheme, values in (told.get(table) or {}).items():
            for name, value in (values or {}).items():
                yield from _metric(f"{scheme}/{name}{suffix}", value, step)
    yield from _metric("epsilon_spent", (told.get("privacy") or {}).get("epsilon_spent"), step)
    for name, value in (told.get("timing") or {}).items():
        yield from _metric(name, value, step)


def _metric(name: str, value: Any, step: int) -> Iterator[tuple[str, float, int]]:
    """One metric where it is a number; MLflow allows no @ in names."""
    number = reading.known(value)
    if number is not None:
        yield re.sub(r"[^\w\-. /]", "_", name.replace("@", "_at_")), number, step


def _tags(facts: Facts, told: Mapping[str, Any]) -> dict[str, str]:
    privacy = told.get("privacy") or {}
    found = {
        SIGNATURE: facts.manifest.get("signature"),
        "coterie.version": facts.manifest.get("coterie"),
        "coterie.scope": told.get("scope"),
        "coterie.epsilon": privacy.get("epsilon"),
        "coterie.delta": privacy.get("delta"),
        "coterie.noise": privacy.get("noise"),
        "coterie.aggregation": privacy.get("aggregation"),
        "coterie.releasable": facts.manifest.get("releasable"),
        "coterie.withheld": None if all_was_released(facts.result) else "figures that no epsilon covers",
        "mlflow.note.content": privacy.get("statement"),
    }
    return {key: _text(value) for key, value in found.items() if value is not None}


def _artefacts(facts: Facts, told: Mapping[str, Any]) -> dict[str, str]:
    found = {
        "report.html": report_page(told, facts.plots if all_was_released(facts.result) else {}),
        "result.json": json.dumps(told, indent=2, allow_nan=False) + "\n",
    }
    return found | ({"privacy-card.md": privacy_card(told)} if facts.privacy else {})


def _sent(client: MlflowClient, uri: str, content: Content) -> Tracked:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = _experiment(client, name, uri)
    told = partial(Tracked, _SECRET.sub("//", uri), name, withheld="coterie.withheld" in content.tags)
    if found := _earlier(client, experiment, content):
        return told(found, again=True)
    run_id = client.create_run(experiment, run_name=content.name, tags=dict(content.tags)).info.run_id
    try:
        _fill(client, run_id, content)
    except BaseException:
        with contextlib.suppress(Exception):  # what is told is the fault that came first
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return told(run_id)


def _fill(client: MlflowClient, run_id: str, content: Content) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    params = [Param(key, value) for key, value in content.params.items()]
    metrics = [Metric(key, value, now, step) for key, value, step in content.metrics]
    for start in range(0, max(len(params), len(metrics)), AT_ONCE):
        client.log_batch(
            run_id, metrics=metrics[start : start + AT_ONCE], params=params[start : start + AT_ONCE], synchronous=True
        )
    for name, text in content.artefacts.items():
        client.log_text(run_id, text, name)


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment's id. Of a database in a file the artefacts are kept beside it, not where the command was run."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    beside = None
    if uri.startswith("sqlite:///"):
        beside = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=beside))


def _earlier(client: MlflowClient, experiment: str, content: Content) -> str | None:
    """The id under which this very run was sent before, whole."""
    signature = content.tags.get(SIGNATURE)
    if signature is None:
        return None
    asked = f"tags.`{SIGNATURE}` = '{signature}' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment], filter_string=asked, max_results=1)
    return str(found[0].info.run_id) if found else None


def _mlflow() -> Any:
    """The library, without its reports about its own use.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault(_NO_REPORTS, "true")
    with _quiet():
        try:
            import mlflow
            import mlflow.exceptions
        except ImportError:
            raise MissingExtra("track", "track") from None
    return mlflow


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow with less patience than by default, unless the environment says otherwise, and without its own notices."""
    given = {key: value for key, value in _PATIENCE.items() if key not in os.environ}
    os.environ.update(given)
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies: nobody here can act on them
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for key in given:
            os.environ.pop(key, None)


def _text(value: Any) -> str:
    """A value as MLflow keeps it."""
    return value if isinstance(value, str) else json.dumps(value)
