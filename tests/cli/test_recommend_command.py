"""`coterie recommend` and `coterie demo`."""

import polars as pl
import pytest

from coterie.cli.recommend import split_basket
from coterie.experiment.run import load


@pytest.fixture
def run(coterie, finished):
    return load(finished[0])


def test_suggestions_with_ranks_scores_and_reasons(coterie, run):
    basket = list(run.items[:2])
    told = coterie("recommend", run.path, "--basket", ",".join(basket), "--k", 5, "--explain", "--json").json
    assert told["basket"] == basket
    assert told["unknown"] == []
    assert told["fallback"] is None
    rows = told["recommendations"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert not {row["item"] for row in rows} & set(basket)
    assert [row["item"] for row in rows] == run.rank([basket], k=5)[0]
    assert rows[0]["because"]
    assert all(set(reason) == {"term", "item", "share"} for row in rows for reason in row["because"])


def test_without_explain_no_reasons(coterie, run):
    told = coterie("recommend", run.path, "--basket", run.items[0], "--json").json
    assert all(row["because"] == [] for row in told["recommendations"])


def test_items_by_title_and_by_id_in_any_case(coterie, run):
    titles = [run.catalogue.title(item) for item in run.items]
    at = next(i for i, title in enumerate(titles) if titles.count(title) == 1)
    asked = coterie("recommend", run.path, "--basket", titles[at].upper(), "-b", run.items[-1].lower(), "--json").json
    assert asked["basket"] == [run.items[at], run.items[-1]]


def test_unknown_items_are_named_and_left_out(coterie, run):
    result = coterie("recommend", run.path, "--basket", f"{run.items[0]},no-such-item", "--json")
    assert result.code == 0
    assert result.json["unknown"] == ["no-such-item"]
    assert result.json["basket"] == [run.items[0]]
    assert "'no-such-item' is not in the catalogue" in result.err


@pytest.mark.parametrize(
    "basket", [(), ("--basket", "no-such-item"), ("--basket", "")], ids=["none", "unknown", "empty"]
)
def test_with_nothing_known_popularity_answers_and_says_so(coterie, run, basket):
    result = coterie("recommend", run.path, *basket, "--json")
    assert result.json["fallback"] == "popularity"
    assert [row["item"] for row in result.json["recommendations"]] == run.rank([[]], k=10)[0]
    assert "most popular" in result.err


def test_more_than_there_is(coterie, run):
    told = coterie("recommend", run.path, "--basket", run.items[0], "--k", 10_000, "--json").json
    assert len(told["recommendations"]) == len(run.items) - 1


def test_a_person_sees_a_table_with_titles(coterie, run):
    out = coterie("recommend", run.path, "--basket", run.items[0], "--k", 3, "--explain").out
    assert f"basket: {run.catalogue.title(run.items[0])} ({run.items[0]})" in out
    assert "because of" in out


def test_past_baskets_of_a_user_enter(coterie, run, orders):
    user = pl.read_parquet(orders)["user"].drop_nulls()[0]
    told = coterie("recommend", run.path, "--history", orders, "--user", user, "--json").json
    assert told["fallback"] is None
    assert told["recommendations"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--client", "shop9"), "shop9"),
        (("--user", "C0001"), "--history and --user belong together"),
        (("--history", "LOG", "--user", "nobody"), "nobody"),
        (("--history", "nowhere.csv", "--user", "C0001"), "nowhere.csv"),
    ],
    ids=["client", "user alone", "unknown user", "missing log"],
)
def test_every_mistake_is_one_sentence(coterie, run, orders, arguments, part):
    result = coterie("recommend", run.path, *(orders if one == "LOG" else one for one in arguments))
    assert result.code == 2
    assert part in result.sentence


def test_a_client_recommends_from_its_own_model(coterie, run):
    client = min(run.clients)
    told = coterie("recommend", run.path, "--client", client, "--json").json
    own = {run.items[i] for i in run.clients[client].items}
    assert {row["item"] for row in told["recommendations"]} <= own


def test_the_demo_ends_in_the_comparison_and_an_example(coterie, tmp_path, monkeypatch):
    monkeypatch.setattr("coterie.cli.demo.CUSTOMERS_PER_SHOP", 40)
    monkeypatch.setattr("coterie.cli.demo.BASKETS_PER_SHOP", 300)
    monkeypatch.setattr("coterie.cli.demo.ITEMS", 40)
    folder = tmp_path / "demo"
    result = coterie("demo", "--shops", 3, "--output", folder)
    assert result.code == 0, result.err
    for part in ("What joining gives", "what completes this basket?", "report.html", "planted"):
        assert part in result.out
    assert "whoever adds them up sees the total alone (secure aggregation). No noise" in " ".join(result.err.split())
    assert (folder / "run" / "report.html").exists()
    refused = coterie("demo", "--output", folder, "--json")
    assert refused.code == 2
    assert "not an empty folder" in refused.json["error"]["message"]


def test_what_a_user_without_baskets_has_is_known_and_not_suggested(coterie, tmp_path):
    rows = [(f"u{n}", f"film{(n * k) % 12}", 1 + (n + k) % 5) for n in range(1, 40) for k in range(1, 6)]
    text = "user,item,rating\n" + "".join(f"{u},{i},{v}\n" for u, i, v in rows)
    (tmp_path / "films.csv").write_text(text)
    own = {i for u, i, _ in rows if u == "u5"}
    for model in ("ease", "mf"):
        folder = tmp_path / model
        coterie("train", tmp_path / "films.csv", "--model", model, "--output", folder)
        found = coterie("recommend", folder, "--user", "u5", "--history", tmp_path / "films.csv", "--json").json
        assert {one["item"] for one in found["recommendations"]}.isdisjoint(own)
        assert set(found["basket"]) == own
        assert found["fallback"] is None
    assert coterie("recommend", tmp_path / "mf", "--json").json["fallback"] == "rating"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"Mug, large",PO-1', ["Mug, large", "PO-1"]),
        ('PO-1, "Mug, ""large"""', ["PO-1", 'Mug, "large"']),
        ('7" plate,PO-1', ['7" plate', "PO-1"]),
        ('"A" frame,PO-1', ['"A" frame', "PO-1"]),
        ('"open,PO-1', ['"open', "PO-1"]),
    ],
)
def test_a_basket_is_written_as_a_line_of_csv(run, value, words):
    assert split_basket(run, [value]) == ([], words)
