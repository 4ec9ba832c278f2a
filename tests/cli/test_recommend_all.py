"""`coterie recommend --all`: one table for every item, or for every user of a log."""

import polars as pl
import pytest

import coterie as package
from coterie.experiment import recommend_all as module
from coterie.experiment.recommend_all import recommend_all
from coterie.experiment.run import load


@pytest.fixture
def run(finished):
    return load(finished[0], "any")


def read(path):
    return pl.read_csv(path, schema_overrides={"item": pl.String}) if path.suffix == ".csv" else pl.read_parquet(path)


def expected(name, asker, suggestions):
    return [
        {
            name: asker,
            "rank": rank,
            "suggestion": one.item,
            "score": pytest.approx(one.score, rel=1e-6),
            "title": one.title,
        }
        for rank, one in enumerate(suggestions, start=1)
    ]


@pytest.mark.parametrize("name", ["recs.csv", "recs.parquet", "new folder/recs.CSV"])
def test_the_companions_of_each_item_are_those_of_a_basket_of_it(coterie, run, tmp_path, name, monkeypatch):
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 7 * len(run.items))
    out = tmp_path / name
    told = coterie("recommend", run.path, "--all", "--output", out, "--k", 4, "--json")
    assert told.code == 0, told.err
    assert told.json["rows"] == 4 * len(run.items)
    table = read(out) if name != "new folder/recs.CSV" else pl.read_csv(out)
    assert table.columns == ["item", "rank", "suggestion", "score", "title"]
    rows = [row for item in run.items for row in expected("item", item, run.recommend([item], k=4))]
    assert table.to_dicts() == rows
    assert [one.name for one in out.parent.iterdir()] == [out.name]
    assert "suggesting for each item" in told.err


def test_the_users_of_a_log_get_what_their_past_baskets_say(coterie, run, orders, tmp_path):
    out = tmp_path / "users.parquet"
    told = coterie("recommend", run.path, "--all", "--history", orders, "--output", out, "--k", 3)
    assert told.code == 0, told.err
    table = read(out)
    users = pl.read_parquet(orders)["user"].drop_nulls().unique().sort().to_list()
    assert table["user"].unique(maintain_order=True).to_list() == users
    for user in users[::17]:
        alone = coterie("recommend", run.path, "--history", orders, "--user", user, "--k", 3, "--json").json
        mine = table.filter(pl.col("user") == user)
        assert mine["suggestion"].to_list() == [row["item"] for row in alone["recommendations"]]
        assert mine["score"].to_list() == pytest.approx([row["score"] for row in alone["recommendations"]], rel=1e-6)


def test_whom_nobody_knows_gets_what_is_popular(coterie, run, tmp_path):
    log = tmp_path / "log.csv"
    columns = "user,item,time,value,basket,client,title"
    log.write_text(f"{columns}\nnew,no-such,2025-01-01,1,b1,shop1,x\nold,{run.items[3]},2025-01-01,1,b2,shop1,y\n")
    out = tmp_path / "users.csv"
    assert coterie("recommend", run.path, "--all", "--history", log, "--output", out, "--k", 3).code == 0
    table = pl.read_csv(out)
    popular = [one.item for one in run.recommend([], k=3)]
    assert table.filter(pl.col("user") == "new")["suggestion"].to_list() == popular
    history = [one.item for one in run.recommend([], k=3, history=[[run.items[3]]])]
    assert table.filter(pl.col("user") == "old")["suggestion"].to_list() == history


def test_without_baskets_users_get_what_they_do_not_have(coterie, tmp_path):
    rows = [(f"u{n}", f"film{(n * k) % 12}", 1 + (n + k) % 5) for n in range(1, 40) for k in range(1, 6)]
    films = tmp_path / "films.csv"
    films.write_text("user,item,rating\n" + "".join(f"{u},{i},{v}\n" for u, i, v in rows))
    for model in ("ease", "mf"):
        folder, out = tmp_path / model, tmp_path / f"{model}.csv"
        coterie("train", films, "--model", model, "--output", folder)
        assert coterie("recommend", folder, "--all", "--history", films, "--output", out).code == 0
        table = pl.read_csv(out)
        for user in ("u1", "u5", "u7"):  # who rated nothing twice
            mine = table.filter(pl.col("user") == user)
            alone = coterie("recommend", folder, "--user", user, "--history", films, "--json").json["recommendations"]
            assert set(mine["suggestion"]) == {row["item"] for row in alone}
            assert sorted(mine["score"]) == pytest.approx(sorted(row["score"] for row in alone), rel=1e-5, abs=1e-6)


def test_a_client_suggests_of_its_own_catalogue(coterie, run, tmp_path):
    client, out = min(run.clients), tmp_path / "recs.csv"
    assert coterie("recommend", run.path, "--all", "--client", client, "--output", out, "--k", 2).code == 0
    table = pl.read_csv(out)
    own = [run.items[i] for i in run.clients[client].items]
    assert table["item"].unique(maintain_order=True).to_list() == own
    rows = [row for item in own for row in expected("item", item, run.recommend([item], k=2, client=client))]
    assert table.to_dicts() == rows


def test_more_than_there_are(run, tmp_path):
    rows = recommend_all(run, tmp_path / "recs.parquet", k=10_000)
    assert rows == len(run.items) * (len(run.items) - 1)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--all",), "--all writes a table and needs --output"),
        (("--output", "OUT"), "--output belongs to --all"),
        (("--all", "--output", "OUT", "--basket", "x"), "--all and --basket do not fit together"),
        (("--all", "--output", "OUT", "--user", "x"), "--all and --user do not fit together"),
        (("--all", "--output", "OUT", "--explain"), "--all and --explain do not fit together"),
        (("--all", "--output", "recs.xlsx"), "recs.xlsx: the name must end in .csv or .parquet"),
        (("--all", "--output", "OUT", "--client", "shop9"), "no model of its own for client 'shop9'"),
        (("--all", "--output", "OUT", "--history", "nowhere.csv"), "nowhere.csv"),
        (("--all", "--output", "OUT", "--k", "0"), "--k"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(coterie, run, tmp_path, arguments, part):
    out = tmp_path / "recs.csv"
    result = coterie("recommend", run.path, *(out if one == "OUT" else one for one in arguments))
    assert result.code == 2
    assert part in result.sentence
    assert list(tmp_path.iterdir()) == []


def test_a_log_without_users_is_refused(run, tmp_path):
    guests = package.InteractionLog(
        pl.DataFrame({"user": [None], "item": ["a"]}, schema={"user": pl.String, "item": pl.String})
    )
    with pytest.raises(package.errors.DataError, match="has no users, only guests"):
        recommend_all(run, tmp_path / "recs.csv", history=guests)


def test_what_cannot_be_written_leaves_the_old_file(coterie, run, tmp_path, monkeypatch):
    out = tmp_path / "recs.csv"
    out.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coterie.experiment.tablefile.put_in_place", full)
    result = coterie("recommend", run.path, "--all", "--output", out)
    assert result.code == 1
    assert "recs.csv: cannot be written: No space left on device" in result.sentence
    assert out.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["recs.csv"]
