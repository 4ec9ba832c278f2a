"""MLflow gets what may be told of a run, whole and once; a server that fails costs no run."""

import json
from pathlib import Path

import pytest

from coterie.errors import ConfigError, EnvironmentFault, MissingExtra
from coterie.experiment import tracking
from coterie.experiment.released import released
from coterie.experiment.run import load
from coterie.experiment.tracking import content_of, send
from coterie.experiment.train import run_training, train_log
from coterie.settings import TrackingSettings, build

mlflow = pytest.importorskip("mlflow", reason="needs the extra 'track'")


@pytest.fixture(scope="module")
def orders(tmp_path_factory) -> Path:
    from coterie.cli.data import as_table, write_table
    from coterie.data.market import market

    path = tmp_path_factory.mktemp("tracked") / "orders.parquet"
    write_table(as_table(market(shops=3, customers=60, items=30, baskets=300, seed=3, messy=True).log), path)
    return path


def trained(orders: Path, name: str, **sections) -> Path:
    folder = orders.parent / name
    asked = {"data": {"logs": [str(orders)]}, "model": {"name": "ease"}, "run": {"output": str(folder)}, **sections}
    run_training(build(asked, "test"), accept_proposal=True)
    return folder


@pytest.fixture(scope="module")
def plain(orders) -> Path:
    return trained(orders, "plain")


@pytest.fixture(scope="module")
def noised(orders) -> Path:
    """Under epsilon, with the raw metrics of a simulation."""
    return trained(orders, "noised", plan={"epsilon": 4.0})


@pytest.fixture(scope="module")
def sealed(orders) -> Path:
    """Under epsilon, with metrics that were paid for."""
    return trained(orders, "sealed", plan={"epsilon": 4.0}, evaluation={"metrics_share": 0.2})


@pytest.fixture(autouse=True)
def _stores_in_files(monkeypatch):
    """The store that takes no time to make; MLflow wants it to be allowed by name."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def at(folder: Path) -> tuple[TrackingSettings, "mlflow.MlflowClient"]:
    uri = (folder / "mlruns").as_uri()
    return TrackingSettings(track=f"mlflow:{uri}"), mlflow.MlflowClient(tracking_uri=uri)


def artefacts(client, run_id: str, into: Path) -> dict[str, str]:
    names = [one.path for one in client.list_artifacts(run_id)]
    return {name: Path(client.download_artifacts(run_id, name, str(into))).read_text("utf-8") for name in names}


def test_parameters_metrics_by_round_tags_and_artefacts_arrive(plain, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sent = send(plain, TrackingSettings(track=f"mlflow:{uri}"))
    client = mlflow.MlflowClient(tracking_uri=uri)
    assert (sent.experiment, sent.again, sent.withheld) == ("coterie", False, False)
    run, result = client.get_run(sent.run_id), load(plain).result
    assert (run.info.status, run.info.run_name) == ("FINISHED", "plain")
    assert run.data.params["model"] == "ease"
    assert run.data.params["model.regularisation"] == str(result["hyper_parameters"]["regularisation"])
    assert run.data.params["data.users"] == str(result["data"]["users"])
    for scheme in ("alone", "federated", "mix", "centralised", "popularity"):
        assert run.data.metrics[f"{scheme}/ndcg_at_10"] == pytest.approx(result["metrics"][scheme]["ndcg@10"])
    (watched,) = client.get_metric_history(sent.run_id, "selection/validation/ndcg_at_10")
    assert watched.step == 0
    (uploaded,) = client.get_metric_history(sent.run_id, "final/upload_bytes_per_client")
    assert uploaded.value == result["traffic"]["upload_bytes_per_round"]
    assert (run.data.tags["coterie.scope"], run.data.tags["coterie.epsilon"]) == ("simulation", "none")
    assert (tmp_path / "mlartifacts").is_dir(), "beside the database, not where the command was run"
    files = artefacts(client, sent.run_id, tmp_path)
    assert set(files) == {"report.html", "privacy-card.md", "result.json"}
    assert json.loads(files["result.json"])["metrics"] == result["metrics"]


def test_a_run_is_sent_once_and_an_attempt_that_failed_does_not_count(plain, tmp_path, monkeypatch):
    settings, client = at(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_text", full)
        with pytest.raises(EnvironmentFault, match="No space left") as caught:
            send(plain, settings)
    assert f"coterie report {plain} --track {settings.track}" in str(caught.value)
    first, second = send(plain, settings), send(plain, settings)
    assert (first.again, second.again) == (False, True)
    assert first.run_id == second.run_id
    found = client.search_runs([client.get_experiment_by_name("coterie").experiment_id])
    assert sorted(run.info.status for run in found) == ["FAILED", "FINISHED"]


def test_no_row_of_a_log_no_file_name_and_no_model_leaves(plain, tmp_path, orders):
    examples = [str(row) for step in load(plain).result["cleaning"] for row in step["examples"]]
    assert examples, "this log has something to clean"
    content = content_of(plain)
    everything = json.dumps([content.params, content.tags, content.artefacts])
    assert orders.name not in everything
    assert str(plain.parent) not in everything
    assert not any(one in everything for one in examples if len(one) > 5)
    assert not {"model.safetensors", "catalogue.parquet", "config.toml", "inputs.json"} & set(content.artefacts)


def test_under_noise_what_was_not_released_stays(noised, tmp_path):
    settings, client = at(tmp_path)
    sent = send(noised, settings)
    assert sent.withheld
    run, raw = client.get_run(sent.run_id), load(noised).result
    assert raw["metrics"]["federated"], "the run itself has raw metrics"
    noise = {f"final/noise_std/{part['name']}" for part in raw["privacy"]["parts"]}
    assert set(run.data.metrics) == {"epsilon_spent", "final/upload_bytes_per_client", *noise}
    assert {key for key in run.data.params if key.startswith("data.")} == {
        "data.items",
        "data.clients",
        "data.one_user_each",
    }
    assert run.data.tags["coterie.epsilon"] == "4.0"
    files = artefacts(client, sent.run_id, tmp_path)
    told = json.loads(files["result.json"])
    assert (told["metrics"], told["per_client"], told["cleaning"], told["split"]["note"]) == ({}, [], [], None)
    assert "users" not in told["data"]
    secret = [f"{value:.4f}" for scheme in raw["metrics"].values() if scheme for value in scheme.values()]
    assert not any(figure in files[name] for figure in set(secret) - {"0.0000", "1.0000"} for name in files)
    assert f"{raw['data']['users']} users" not in files["privacy-card.md"]
    assert "Epsilon 4" in files["privacy-card.md"]


def test_metrics_that_were_paid_for_are_sent_with_their_noise(sealed, tmp_path):
    settings, client = at(tmp_path)
    sent = send(sealed, settings)
    assert not sent.withheld
    metrics, result = client.get_run(sent.run_id).data.metrics, load(sealed).result
    assert metrics["federated/ndcg_at_10"] == pytest.approx(result["metrics"]["federated"]["ndcg@10"])
    assert metrics["federated/ndcg_at_10_noise_std"] == result["metrics_noise"]["federated"]["ndcg@10"]
    assert metrics["epsilon_spent"] == result["privacy"]["epsilon_spent"]


def test_of_a_run_without_privacy_facts_no_figure_is_told():
    told = released({"metrics": {"mix": {"ndcg@10": 0.5}}, "data": {"users": 7, "items": 3}, "client": "north"}, "kept")
    assert (told["metrics"], told["data"]) == ({}, {"items": 3})
    assert "client" not in told


def test_training_sends_its_run_when_it_is_finished(orders, tmp_path):
    settings, client = at(tmp_path)
    asked = {
        "data": {"logs": [str(orders)]},
        "model": {"name": "popularity"},
        "run": {"output": str(tmp_path / "run")},
        "tracking": {"track": settings.track},
    }
    done = run_training(build(asked, "test"), accept_proposal=True)
    assert done.tracked is not None
    assert client.get_run(done.tracked.run_id).data.params["model"] == "popularity"


def test_a_server_that_is_not_there_costs_no_run(orders, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "run"
    asked = {
        "data": {"logs": [str(orders)]},
        "model": {"name": "popularity"},
        "run": {"output": str(folder)},
        "tracking": {"track": "mlflow:http://127.0.0.1:9"},
    }
    with pytest.raises(EnvironmentFault, match="the run is finished and signed") as caught:
        run_training(build(asked, "test"), accept_proposal=True)
    assert f"coterie report {folder} --track mlflow:http://127.0.0.1:9" in str(caught.value)
    assert load(folder).metrics["federated"]
    assert not (folder / "checkpoint").exists()


def test_what_could_not_be_sent_is_refused_before_the_work(orders, monkeypatch):
    from coterie.data.readers import read_log

    asked = build({"data": {"logs": [str(orders)]}, "tracking": {"track": "mlflow"}}, "test")
    log = read_log([str(orders)], asked.data)
    with pytest.raises(ConfigError, match="name one with output"):
        train_log(log, asked)

    def missing():
        raise MissingExtra("track", "track")

    monkeypatch.setattr(tracking, "_mlflow", missing)
    asked = build({"run": {"output": "never"}, "tracking": {"track": "mlflow"}}, "test")
    with pytest.raises(MissingExtra, match=r"pip install 'coterie\[track\]'"):
        train_log(log, asked, folder=Path("never"))
    assert not Path("never").exists()


@pytest.mark.parametrize(
    "track", ["wandb", "mlflow:", "mlflow:https://me:secret@host/", "mlflow:postgresql://u:p@db/x"]
)
def test_a_tracker_must_be_one_and_hold_no_password(track):
    with pytest.raises(ConfigError, match="track must"):
        build({"tracking": {"track": track}}, "test")


def test_a_password_of_the_environment_is_not_repeated(plain, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(EnvironmentFault) as caught:
        send(plain, TrackingSettings(track="mlflow"))
    assert "secret" not in str(caught.value)
