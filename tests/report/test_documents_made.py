"""Documents about runs of every kind: what is known is in them, what is unknown is said to be, nothing is invented."""

import json
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from coterie.errors import ConfigError, RunError
from coterie.federation.policy import Policy
from coterie.privacy.ledger_statement import Account, RunSpent, Statement
from coterie.report import documents
from coterie.report.documents import FORMATS, KINDS, Stored

EVIL = '<img src=x onerror="alert(1)"> [nobody] | shop'
DRAFTS = [kind for kind in KINDS if kind not in ("run", "model-card", "privacy-card")]
OPEN_PRIVACY = {
    "unit": "user", "epsilon": "none", "delta": None, "noise": "none", "aggregation": "plain", "masks": "none",
    "neighbours": "add-or-remove-one", "rounds": 1, "min_clients": 1, "statement": "no differential privacy",
    "parts": [{"name": "gram", "size": 55, "l2": 2.0, "linf": 1.0, "round": 0, "noise_std": 0.0}],
}  # fmt: skip
NOISED = OPEN_PRIVACY | {
    "epsilon": 2.0, "delta": 1e-6, "noise": "distributed", "aggregation": "secure", "masks": "real",
    "accountant": "pld", "sampler": "all", "epsilon_spent": 1.75, "epsilon_towards_coordinator": 1.75, "attempts": 3,
    "noise_source": "operating system", "releasable": True, "max_colluding": 1, "max_users": 1000, "guests": "drop",
    "noise_multiplier": 2.5, "holds_against": "a server that lies", "items_from": "the items file",
    "statement": "epsilon 2 at delta 1e-06",
    "account": {"name": "shop", "epsilon": 3.25, "limit": 10.0, "remaining": 6.75},
}  # fmt: skip
OPEN = {
    "run": "runs/first", "model": "ease", "scope": "simulation", "hyper_parameters": {"regularisation": 100.0},
    "seed": 7, "data": {"users": 1200, "guests": 3, "items": 30, "baskets": 900, "interactions": 9000, "clients": 2},
    "metrics": {"federated": {"ndcg@10": 0.21}, "alone": {"ndcg@10": 0.19}, "popularity": {"ndcg@10": 0.1}},
    "intervals": {"federated": {"ndcg@10": [0.2, 0.22]}},
    "per_client": [
        {"client": EVIL, "users": 1000, "cases": 5, "federated": {"ndcg@10": 0.3}, "alone": {"ndcg@10": 0.2}},
        {"client": "east", "users": 200, "cases": 3, "federated": {"ndcg@10": 0.3}, "alone": {"ndcg@10": 0.4}},
    ],
    "comparison": {"sentence": "joining helps 1 of 2 clients"},
    "cleaning": [{"step": "returns", "why": "no purchase", "dropped": 4, "changed": 0, "examples": ["user-4711"]}],
    "split": {"method": "carts", "note": "later baskets"}, "caveats": ["one retailer's data"],
    "traffic": {"upload_bytes_per_client": 2000, "download_bytes_per_client": None}, "timing": {"train_s": 1.0},
    "privacy": OPEN_PRIVACY,
}  # fmt: skip
SEALED = OPEN | {
    "data": {"users": None, "items": 30, "clients": 2, "one_user_each": False}, "per_client": [], "comparison": None,
    "metrics_noise": {"federated": {"ndcg@10": 0.02}}, "intervals": {}, "cleaning": [], "privacy": NOISED,
    "counts": {"users": 1190.5, "users_noise": 14.0, "baskets": 880.0, "baskets_noise": 30.0},
}  # fmt: skip
DEVICES = OPEN | {"data": {"users": 60, "guests": 2, "clients": 62, "items": 3}, "per_client": []}
AT_HOME = {"run": "runs/kept", "model": "ease", "scope": "federation", "client": "north", "job": "weekly"}
JOINT = SEALED | {"scope": "federation", "members": ["north", "east"], "job": "weekly", "engine": "flower"}
JOINT |= {"privacy": NOISED | {"account": None, "partners": "Two of 3 members can subtract."}}
RUNS = {"open": OPEN, "joint": JOINT, "sealed": SEALED, "devices": DEVICES, "kept at home": AT_HOME, "empty": {}}
ON = date(2026, 3, 1)
CONFIG = '[data]\nuser_column = "CustomerID"\nitem_column = "StockCode"\n[evaluation]\nconfidence = 0.9\n'


def stored(folder: Path, result: dict) -> Stored:
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.toml").write_text(CONFIG)
    (folder / "inputs.json").write_text(json.dumps({"run": "first-1a2b"}))
    signed = {"signed_at": "2026-02-03T04:05:06+00:00", "coterie": "9.9", "clients": [], "public_key": "00" * 32}
    (folder / "manifest.json").write_text(json.dumps(signed))
    return Stored.read(folder)


@pytest.fixture(params=RUNS)
def run(request, tmp_path):
    return stored(tmp_path, RUNS[request.param])


def statement() -> Statement:
    when = datetime(2026, 2, 3, tzinfo=UTC)
    spent = (RunSpent("first-1a2b", "ease", 1.75, 3, 1, when, when), RunSpent("other", "ials", 3.0, 1, 1, when, when))
    account = Account("shop", 1e-6, limit=12.0, period_limit=5.0, period_days=30.0)
    return Statement(account, 4.5, 4.75, 7.25, 1.75, 2.0, 3.0, spent, ())


class Page(HTMLParser):
    """Tags in order, every one closed."""

    VOID = frozenset({"meta", "path", "use", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("kind", KINDS)
def test_every_document_of_every_run_is_a_sound_page_that_loads_nothing(run, kind):
    page = documents.render(run, kind, "html", on=ON)
    tags = Page(page).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert dict(tags)["html"]["lang"] == "en"
    assert not re.search(r"""(?:src|href)="(?!#)|url\((?!#)|@import|<script|<img""", page)
    assert sum(tag == "h1" for tag, _ in tags) == 1
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags)
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in tags if tag == "th")
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= set(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_all_formats_say_the_same(run, kind):
    made = json.loads(documents.render(run, kind, "json", on=ON))
    assert (made["format"], made["version"], made["document"]) == ("coterie-document", 1, kind)
    text = documents.render(run, kind, "md", on=ON)
    page = "" if kind == "run" else documents.render(run, kind, "html", on=ON)
    for section in made["sections"]:
        assert f"## {section['title']}" in text
        for field in section["fields"]:
            assert set(field) == {"key", "label", "status", "text", "value", "source"}
            assert f"<dt>{field['label']}</dt>" in page.replace("&#39;", "'") or kind == "run"
    assert all(f"**[{what}]**" in text for what in made["to_fill_in"])
    assert page.count("<mark>[") >= len(made["to_fill_in"])


@pytest.mark.parametrize("kind", DRAFTS)
def test_drafts_are_marked_on_top_and_in_their_name(run, kind, tmp_path):
    for format in FORMATS:
        assert documents.file_name(kind, format).startswith("DRAFT-")
    text = documents.render(run, kind, "md")
    assert text.startswith("> **DRAFT – not legal advice**")
    page = documents.render(run, kind, "html")
    assert "<title>DRAFT: " in page
    assert page.index("not legal advice") < page.index("<h1>")
    made = json.loads(documents.render(run, kind, "json"))
    assert made["draft"] is True
    assert "not legal advice" in made["notice"]
    assert len(made["to_fill_in"]) > 8


@pytest.mark.parametrize("kind", DRAFTS)
def test_who_is_responsible_is_never_invented(run, kind):
    text = documents.render(run, kind, "md")
    if kind == "gdpr-30":
        assert "**[controller: name and contact]**" in text
        assert "**[data protection officer, if any: name and contact]**" in text
    assert not re.search(r"\bNone\b(?![:.])|\bnull\b|\bnan\b", text)


def test_article_30_has_all_its_items():
    made = documents.document(documents.Facts(OPEN), "gdpr-30")
    assert [section.key for section in made.sections][:7] == list("abcdefg")
    assert all(section.title.startswith(f"({section.key})") for section in made.sections[:7])


def test_article_35_and_the_pipl_have_all_their_items():
    keys = {section.key for section in documents.document(documents.Facts(OPEN), "gdpr-35").sections}
    assert {"a", "b", "c", "d"} <= keys
    pipl = documents.document(documents.Facts(OPEN), "pipl").sections
    assert {"55", "56-1", "56-2", "56-3"} <= {section.key for section in pipl}
    (triggers,) = [section for section in pipl if section.key == "55"]
    assert len(triggers.fields) == 5


def test_the_ledger_is_quoted_as_it_stands_now(tmp_path):
    run = stored(tmp_path, SEALED)
    for kind in ("gdpr-30", "gdpr-35", "gdpr-26", "pipl", "privacy-card"):
        made = json.loads(documents.render(run, kind, "json", account=statement(), on=ON))
        values = {field["key"]: field["value"] for section in made["sections"] for field in section["fields"]}
        shown = {key: values[key] for key in ("account", "epsilon_limit", "epsilon_remaining", "this_run")}
        assert shown == {"account": "shop", "epsilon_limit": 12.0, "epsilon_remaining": 7.25, "this_run": 1.75}
        assert values["period_remaining"] == 3.0
    notice = documents.render(run, "privacy-notice", "md", account=statement())
    assert "have come to 4.5 so far. We do not let it grow beyond 12." in notice


def test_without_the_ledger_the_runs_own_record_stands(tmp_path):
    made = documents.render(stored(tmp_path, SEALED), "gdpr-30", "md")
    assert "the run's own record, as it ended" in made
    assert "3.25" in made
    assert "Nothing was charged" in documents.render(stored(tmp_path, OPEN), "gdpr-30", "md")


def test_a_policy_puts_its_limits_and_partners_into_the_arrangement(tmp_path):
    policy = Policy(max_epsilon_total=6.0, min_clients=4, peers={"north": "ab" * 16})
    made = documents.render(stored(tmp_path, AT_HOME), "gdpr-26", "md", policy=policy)
    assert "| limit of this party's node, for life | 6.0 |" in made
    assert "north" in made
    assert "at most epsilon 6.0 for life" in documents.render(stored(tmp_path, OPEN), "gdpr-35", "md", policy=policy)


def test_parties_are_named_as_they_are_and_nobody_is_a_party_where_clients_are_devices(tmp_path):
    arrangement = documents.render(stored(tmp_path, OPEN), "gdpr-26", "html")
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt; [nobody] | shop" in arrangement
    assert "<mark>[nobody]</mark>" not in arrangement
    assert "Probably not needed:" in documents.render(stored(tmp_path, DEVICES), "gdpr-26", "md")
    assert "| east | **[name, address, contact]** |" in documents.render(stored(tmp_path, JOINT), "gdpr-26", "md")
    unnamed = documents.render(stored(tmp_path, SEALED), "gdpr-26", "md")
    assert "party 2: **[name of party 2]**" in unnamed
    assert "party 3" not in unnamed


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("privacy parameter epsilon", "2"),
        ("bounded or unbounded", "Unbounded"),
        ("unit of privacy", "Each person at one client"),
        ("central, distributed or local", "Distributed"),
        ("holds against", "a server that lies"),
        ("floating point", "integers"),
        ("timing", "no constant-time code"),
        ("who may read the run folder and the logs", "not stated"),
        ("what this means for one person", "88 % sure"),
        ("noise over one person's bound", "2.5"),
    ],
)
def test_the_privacy_card_answers(tmp_path, label, words):
    card = documents.render(stored(tmp_path, SEALED), "privacy-card", "md")
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {label} |")]
    assert words in row


def test_no_promise_no_certainty_and_no_meaning(tmp_path):
    for result in (OPEN, SEALED | {"privacy": NOISED | {"releasable": False}}):
        run = stored(tmp_path, result)
        made = json.loads(documents.render(run, "privacy-card", "json"))
        assert next(field for field in made["sections"][0]["fields"] if field["key"] == "epsilon")["value"] is None
        assert "Nothing bounds what somebody may learn" in documents.render(run, "privacy-card", "md")
        assert "called epsilon" not in documents.render(run, "privacy-notice", "md")
        assert "No differential privacy" in documents.render(run, "gdpr-30", "md")


def test_an_unknown_run_is_not_said_to_be_safe(tmp_path):
    card = documents.render(stored(tmp_path, AT_HOME), "privacy-card", "md")
    assert "**Privacy is not stated.**" in card
    assert "| privacy parameter epsilon | not stated |" in card


def test_metrics_come_with_their_noise_or_their_interval(tmp_path):
    assert "0.2100 ± 0.0200" in documents.render(stored(tmp_path, SEALED), "run", "md")
    assert "0.2100 (0.2000 to 0.2200)" in documents.render(stored(tmp_path, OPEN), "model-card", "md")
    assert "about 1,190, a noised count (standard deviation 14)" in documents.render(
        stored(tmp_path, SEALED), "run", "md"
    )


def test_the_report_as_json_has_the_result_and_no_row_of_a_log(tmp_path):
    text = documents.render(stored(tmp_path, OPEN), "run", "json")
    made = json.loads(text)
    assert made["result"]["metrics"] == OPEN["metrics"]
    assert made["rounds"] == []
    assert "user-4711" not in text


def test_columns_of_the_log_are_named(tmp_path):
    assert "`CustomerID`" in documents.render(stored(tmp_path, OPEN), "gdpr-30", "md")


def test_documents_that_somebody_may_have_filled_in_are_not_replaced(tmp_path):
    run = stored(tmp_path / "run", OPEN)
    first = documents.write(run, "all", "md", tmp_path / "out", on=ON)
    assert [one.path.name for one in first] == [documents.file_name(kind, "md") for kind in KINDS]
    (tmp_path / "out" / "DRAFT-gdpr-30.md").write_text("filled in")
    (tmp_path / "out" / "run.md").unlink()
    with pytest.raises(ConfigError, match=r"model-card\.md: exists already"):
        documents.write(run, "all", "md", tmp_path / "out")
    assert not (tmp_path / "out" / "run.md").exists(), "all of them or none"
    documents.write(run, "gdpr-30", "md", tmp_path / "out", force=True)
    assert (tmp_path / "out" / "DRAFT-gdpr-30.md").read_text().startswith("> **DRAFT")


def test_what_there_is_not_is_refused(tmp_path):
    run = stored(tmp_path, OPEN)
    with pytest.raises(ConfigError, match="did you mean 'gdpr-35'"):
        documents.render(run, "gdpr-36", "md")
    with pytest.raises(ConfigError, match="format must be one of"):
        documents.render(run, "run", "pdf")  # type: ignore[arg-type]
    (tmp_path / "result.json").write_text("[1]")
    with pytest.raises(RunError, match="holds list, not an object"):
        Stored.read(tmp_path)


def test_a_tracking_server_is_a_recipient(tmp_path):
    run = stored(tmp_path, OPEN)
    assert "nothing was sent anywhere by it" in documents.render(run, "gdpr-30", "md")
    (tmp_path / "config.toml").write_text('[tracking]\ntrack = "mlflow:https://tracker.example.org"\n')
    record = documents.render(run, "gdpr-30", "md")
    assert "The tracking server `mlflow:https://tracker.example.org` received" in record
    assert "nothing else was sent anywhere by it" in record
