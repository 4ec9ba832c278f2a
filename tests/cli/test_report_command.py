"""`coterie report`: documents are written and named, drafts say so, and a run reaches MLflow once."""

import json
from pathlib import Path

import pytest

from coterie.cli.report import DOCUMENTS, FORMATS
from coterie.report import documents


@pytest.fixture
def run(finished) -> Path:
    return finished[0]


def test_the_names_are_those_of_the_library():
    assert (*documents.KINDS, "all") == DOCUMENTS
    assert documents.FORMATS == FORMATS


def test_the_run_report_is_what_is_written_without_further_words(coterie, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = coterie("report", run)
    assert done.code == 0, done.err
    path = tmp_path / "documents" / run.name / "run.html"
    assert done.out.splitlines() == [f"wrote {path.relative_to(tmp_path)}"]
    assert path.read_text("utf-8") == (run / "report.html").read_text("utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_all_documents_are_written_and_drafts_say_what_is_left_to_write(coterie, run, tmp_path, format):
    done = coterie("report", run, "--document", "all", "--format", format, "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    told = done.json["documents"]
    assert [one["document"] for one in told] == list(documents.KINDS)
    assert {Path(one["path"]).name for one in told} == {path.name for path in (tmp_path / "out").iterdir()}
    assert all(one["draft"] == Path(one["path"]).name.startswith("DRAFT-") for one in told)
    assert all(one["to_fill_in"] for one in told if one["draft"])
    assert done.json["tracked"] is None


def test_parties_come_from_the_run(coterie, run, finished, tmp_path):
    done = coterie("report", run, "--document", "gdpr-26", "--format", "md", "--output", tmp_path)
    assert "draft, not legal advice" in done.out
    text = (tmp_path / "DRAFT-gdpr-26.md").read_text("utf-8")
    assert all(f"| {row['client']} |" in text for row in finished[1]["per_client"])


def test_several_documents_at_once_each_once(coterie, run, tmp_path):
    asked = ("--document", "pipl", "--document", "model-card", "--document", "pipl")
    done = coterie("report", run, *asked, "--format", "json", "--output", tmp_path, "--json")
    assert [one["document"] for one in done.json["documents"]] == ["pipl", "model-card"]


def test_nothing_that_exists_is_replaced_unless_it_is_said(coterie, run, tmp_path):
    assert coterie("report", run, "--output", tmp_path).code == 0
    again = coterie("report", run, "--output", tmp_path)
    assert again.code == 2
    assert "exists already" in again.sentence
    assert coterie("report", run, "--output", tmp_path, "--force").code == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--document", "model-crad"), "did you mean 'model-card'"),
        (("--format", "pdf"), "--format must be one of html, md, json, got 'pdf'"),
        (("--track", "wandb"), "track must be mlflow or mlflow:URI"),
        (("--track", "mlflow:https://me:secret@host"), "must not hold a password"),
        (("--policy", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(coterie, run, tmp_path, flags, sentence):
    done = coterie("report", run, "--output", tmp_path / "out", *flags)
    assert done.code == 2
    assert sentence in done.sentence
    assert "secret@" not in done.err
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_changed_gets_no_document(coterie, run, tmp_path):
    import shutil

    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({**result, "seed": 1}))
    done = coterie("report", copy, "--output", tmp_path / "out")
    assert done.code == 2
    assert "changed since it was signed" in done.sentence


def test_the_ledger_that_is_named_must_know_the_account(coterie, orders, tmp_path):
    private, books = tmp_path / "private", tmp_path / "books.sqlite"
    trained = coterie(
        "train", orders, "--yes", "--model", "popularity", "--epsilon", "3", "--split", "none", "--output", private,
        "--ledger", books, "--account", "shops",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert coterie("ledger", "limit", "shops", "--epsilon", "8", "--ledger", books).code == 0
    asked = ("report", private, "--document", "gdpr-30", "--format", "json", "--output", tmp_path / "out", "--force")
    for flags in ((), ("--ledger", books)):  # the run's settings name it, or the person does
        assert coterie(*asked, *flags).code == 0
        made = json.loads((tmp_path / "out" / "DRAFT-gdpr-30.json").read_text("utf-8"))
        values = {one["key"]: one["value"] for section in made["sections"] for one in section["fields"]}
        assert values["epsilon_limit"] == 8.0
        assert values["epsilon_spent"] + values["epsilon_remaining"] == pytest.approx(8.0)
        assert values["this_run"] == pytest.approx(values["epsilon_spent"])
    missing = coterie(*asked, "--ledger", tmp_path / "none.sqlite")
    assert missing.code == 2
    assert "none.sqlite" in missing.sentence
    books.unlink()
    assert coterie(*asked).code == 0
    assert "own record" in (tmp_path / "out" / "DRAFT-gdpr-30.json").read_text("utf-8")


def test_a_run_reaches_mlflow_once(coterie, run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'track'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    first = coterie("report", run, "--track", f"mlflow:{uri}", "--json")
    assert first.code == 0, first.err
    assert (first.json["documents"], first.json["tracked"]["again"]) == ([], False)
    again = coterie("report", run, "--track", f"mlflow:{uri}")
    assert "it was there already" in again.out
    client = mlflow.MlflowClient(tracking_uri=uri)
    assert len(client.search_runs([client.get_experiment_by_name("coterie").experiment_id])) == 1
