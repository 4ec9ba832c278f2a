"""`coterie train` and `coterie evaluate`."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coterie as coterie_package
from coterie.cli import train as command
from coterie.cli.output import Interrupted, Output
from coterie.data.mapping import Proposal
from coterie.settings import Settings

FAST = ("--resamples", 100, "--at", "5,10")


def test_training_prints_one_object_and_writes_the_run(coterie, orders, tmp_path):
    run = tmp_path / "run"
    result = coterie("train", orders, "--model", "ease", "--regularisation", 50, "--output", run, "--json", *FAST)
    assert result.code == 0, result.err
    told = result.json
    assert told["run"] == str(run)
    assert told["model"] == "ease"
    assert told["hyper_parameters"]["regularisation"] == 50
    assert told["scope"] == "simulation"
    assert told["data"]["clients"] == 3
    assert {"alone", "federated", "mix", "centralised", "popularity"} <= set(told["metrics"])
    assert "ndcg@10" in told["metrics"]["federated"]
    assert told["privacy"]["epsilon"] == "none"
    assert told["traffic"]["upload_bytes_per_client"] > 0
    assert (run / "manifest.json").exists()
    assert "upload per client" in result.err


def test_a_person_sees_tables_and_where_the_run_is(coterie, orders, tmp_path):
    run = tmp_path / "run"
    result = coterie("train", orders, "--output", run, *FAST)
    assert result.code == 0, result.err
    for part in ("What joining gives", "federated", "popularity", "no differential privacy", f"run folder: {run}"):
        assert part in result.out
    assert "Traceback" not in result.err


def test_the_config_file_is_obeyed(coterie, orders, tmp_path):
    config = tmp_path / "coterie.toml"
    config.write_text(f'[data]\nlogs = ["{orders}"]\n[model]\nname = "popularity"\n[evaluation]\ncompare = false\n')
    result = coterie("train", "--config", config, "--output", tmp_path / "run", "--json", *FAST)
    assert result.code == 0, result.err
    assert result.json["model"] == "popularity"


@pytest.fixture
def shop_export(tmp_path):
    """A log whose columns must be proposed."""
    path = tmp_path / "export.csv"
    lines = [
        f"{o},{sku},c{o % 7},2024-01-{1 + o % 28:02d}" for o in range(60) for sku in (f"0{o % 5}", f"1{o % 4}", "20")
    ]
    path.write_text("order_id,sku,customer_id,date\n" + "\n".join(lines) + "\n")
    return path


def test_unmapped_columns_need_agreement(coterie, shop_export, tmp_path):
    result = coterie("train", shop_export, "--output", tmp_path / "run")
    assert result.code == 2
    assert "--yes" in result.sentence
    assert "sku" in result.sentence
    assert not (tmp_path / "run").exists()


def test_yes_takes_the_proposal_and_the_run_remembers_it(coterie, shop_export, tmp_path):
    run = tmp_path / "run"
    result = coterie("train", shop_export, "--yes", "--output", run, "--json", *FAST)
    assert result.code == 0, result.err
    assert "item = sku" in result.err
    assert 'item_column = "sku"' in (run / "config.toml").read_text()
    again = coterie("evaluate", run, shop_export, "--json")
    assert again.code == 0, again.err


def test_a_person_is_asked(coterie, shop_export, tmp_path, monkeypatch):
    asked = []

    def agree(guess: Proposal, out) -> bool:
        asked.append(dict(guess.columns))
        return True

    monkeypatch.setattr(command, "_agreed", agree)
    assert coterie("train", shop_export, "--output", tmp_path / "run", *FAST).code == 0
    assert asked[0]["item"] == "sku"


def ask_on_a_terminal(arguments, answer, tmp_path):
    """Run a command whose input and notes are a terminal; `answer` or interrupt it. Returns code and text."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(Path(coterie_package.__file__).parents[1])}
    command = [sys.executable, "-m", "coterie", *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env=env
    ) as running:
        os.close(theirs)
        said = b""
        while b"[Y/n]" not in said:
            said += os.read(ours, 4096)
        if answer is None:
            time.sleep(0.3)
            running.send_signal(signal.SIGINT)
        else:
            os.write(ours, answer)
        try:
            code = running.wait(timeout=30)
        finally:
            running.kill()
        with contextlib.suppress(OSError):  # how Linux says that the other side has closed
            while part := os.read(ours, 4096):
                said += part
        os.close(ours)
        return code, said.decode()


@pytest.mark.parametrize(
    ("answer", "code", "part"), [(b"n\n", 2, "--yes"), (None, 130, "interrupted")], ids=["no", "Ctrl-C"]
)
def test_a_terminal_is_asked_and_may_refuse(shop_export, tmp_path, answer, code, part):
    left, said = ask_on_a_terminal(["train", shop_export, "--output", tmp_path / "run"], answer, tmp_path)
    assert "sku" in said
    assert part in said.split("[Y/n]")[1]
    assert left == code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "no log was given"),
        (("nowhere.csv",), "nowhere.csv"),
        (("LOG", "--user-column", "customr"), "customr"),
        (("LOG", "--model", "eas"), "did you mean 'ease'?"),
        (("LOG", "--model", "popularity", "--regularisation", "1"), "regularisation"),
        (("LOG", "--regularisation", "-1"), "regularisation"),
        (("LOG", "--seed", "-1"), "seed"),
        (("LOG", "--seed", "x"), "--seed must be a whole number, got 'x'"),
        (("LOG", "--split", "cart"), "did you mean 'carts'?"),
        (("LOG", "--at", "0"), "at least 1"),
        (("LOG", "--test-share", "0.9", "--valid-share", "0.2"), "below 1"),
        (("LOG", "--since", "yesterday"), "yesterday"),
        (("LOG", "--non-products", "["), "non_products"),
        (("LOG", "--epsilon", "-4"), "epsilon must be a positive number or 'none', got '-4'"),
        (("LOG", "--min-clients", "9"), "min_clients"),
        (("LOG", "--config", "nowhere.toml"), "nowhere.toml"),
        (("LOG", "--resume", "nowhere"), "--resume"),
        (("--resume", "nowhere"), "nowhere"),
        (("LOG", "--test", "nowhere.csv"), "nowhere.csv"),
        (("LOG", "--min-item-rows", "100000"), "cleaning"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_every_mistake_is_one_sentence(coterie, orders, tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    result = coterie("train", *(orders if one == "LOG" else one for one in arguments))
    assert result.code == 2, result.err
    assert part in result.sentence


def test_a_full_output_folder_is_refused(coterie, orders, tmp_path):
    (tmp_path / "something").write_text("mine")
    result = coterie("train", orders, "--output", tmp_path)
    assert result.code == 2
    assert "not empty" in result.sentence


def test_a_finished_run_cannot_be_resumed(coterie, finished):
    assert "finished" in coterie("train", "--resume", finished[0]).sentence


def test_evaluate_measures_on_another_log(coterie, finished, orders):
    run, _ = finished
    told = coterie("evaluate", run, orders, "--at", "3", "--json").json
    assert told["run"] == str(run)
    assert set(told["metrics"]) == {"federated", "popularity", "mix"}
    assert "hit_rate@3" in told["metrics"]["federated"]
    assert told["cases"]["evaluated"] > 0
    shown = coterie("evaluate", run, orders)
    assert shown.code == 0
    assert "federated" in shown.out


@pytest.mark.parametrize("log", ["nowhere.csv", "."])
def test_evaluate_refuses_a_log_that_is_none(coterie, finished, tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    assert coterie("evaluate", finished[0], log).code == 2


def damaged(folder, how):
    if how == "a file changed":
        with (folder / "model.safetensors").open("ab") as model:
            model.write(b"x")
    elif how == "a file gone":
        (folder / "catalogue.parquet").unlink()
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    elif how == "half a manifest":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text[: len(text) // 2])
    elif how == "another signer":
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content | {"public_key": "00" * 32}))


@pytest.mark.parametrize("how", ["a file changed", "a file gone", "no manifest", "half a manifest", "another signer"])
@pytest.mark.parametrize("asked", ["evaluate", "recommend"])
def test_a_damaged_run_is_refused(coterie, finished, orders, tmp_path, how, asked):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    damaged(folder, how)
    result = (
        coterie("evaluate", folder, orders) if asked == "evaluate" else coterie("recommend", folder, "--basket", "A")
    )
    assert result.code == 2
    assert str(folder) in result.sentence


def test_another_key_must_be_trusted_by_name(coterie, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "elsewhere"))
    refused = coterie("recommend", finished[0])
    assert refused.code == 2
    fingerprint = refused.sentence.split("--trust ")[1].split()[0].rstrip(".")
    assert coterie("recommend", finished[0], "--trust", fingerprint).code == 0
    assert coterie("recommend", finished[0], "--trust", "any").code == 0
    assert coterie("recommend", finished[0], "--trust", "0" * 32).code == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupted_training_says_how_it_goes_on(coterie, orders, tmp_path, monkeypatch, as_json):
    folder = tmp_path / "my run"
    given = ("train", orders, "--model", "popularity", "--output", folder, *FAST, *(["--json"] if as_json else []))

    def stopped(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("coterie.experiment.train.run_training", stopped)
        assert "--resume" not in coterie(*given).err  # nothing is there yet
    with monkeypatch.context() as patch:
        patch.setattr("coterie.experiment.train.write_reports", stopped)
        result = coterie(*given)
    assert result.code == 130
    sentence = f"interrupted; `coterie train --resume '{folder}'` continues"
    if as_json:
        assert result.json == {"error": {"type": "Interrupted", "message": sentence}, "exit_code": 130}
    else:
        assert result.sentence == sentence


def test_the_folder_that_a_training_chose_is_known_when_it_is_interrupted(orders, tmp_path, monkeypatch):
    folder = tmp_path / "chosen"
    folder.mkdir()
    (folder / "config.toml").write_text("")

    def stopped(*_args, notify, **_more):
        notify("folder", {"path": str(folder)})
        raise KeyboardInterrupt

    monkeypatch.setattr("coterie.experiment.train.run_training", stopped)
    with pytest.raises(Interrupted, match=f"--resume {folder}"):
        command.follow(Settings(), Output(as_json=False))
