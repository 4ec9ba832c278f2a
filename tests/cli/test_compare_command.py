"""`coterie compare`."""

import json

import pytest

FAST = ("--resamples", 100, "--simulated-noise", "--model", "popularity")
COLUMNS = 80


@pytest.fixture(scope="module")
def told(orders, home, tmp_path_factory):
    """One small table, as the command prints and writes it."""
    from coterie.cli import main

    folder = tmp_path_factory.mktemp("table") / "table"
    asked = [str(one) for one in ("compare", orders, "--epsilons", "none,4", "--output", folder, *FAST)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(home))
        with pytest.raises(SystemExit) as left:
            main(asked)
    assert left.value.code == 0
    return folder


def test_the_command_prints_one_object(coterie, orders):
    result = coterie("compare", orders, "--epsilons", "none,4", "--json", *FAST)
    assert result.code == 0, result.err
    assert result.json["metric"] == "ndcg@10"
    assert [row["epsilon"] for row in result.json["by_epsilon"]] == ["none", "same-rows", "4"]
    assert result.json["by_epsilon"][-1]["sentence"].startswith("At epsilon 4 joining helps")
    assert "training: epsilon 4" in result.err


def test_a_person_sees_tables_of_80_columns_and_a_sentence_for_each_epsilon(coterie, orders, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    result = coterie("compare", orders, "--epsilons", "none,8,4,1", *FAST)
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= COLUMNS
    for part in (
        "What joining is worth",
        "texts only",
        "mix, epsilon 8",
        "Without noise joining helps",
        "shop1",
        "eps 1",
    ):
        assert part in result.out
    assert "At epsilon 1 joining helps" in result.out
    assert "Simulated noise: no privacy" in result.out


def test_what_is_written_says_the_same_in_every_form(told):
    content = json.loads((told / "result.json").read_text("utf-8"))
    page = (told / "table.md").read_text("utf-8")
    assert {path.name for path in told.iterdir()} == {"result.json", "table.md", "table.csv", "by-epsilon.svg"}
    for row in content["by_epsilon"]:
        assert row["sentence"] in page
    for client in content["per_client"]:
        assert f"{client['mix']['4']['mean']:.4f}" in page


def test_a_folder_that_holds_something_is_refused_before_any_work(coterie, orders, told):
    result = coterie("compare", orders, "--output", told, *FAST)
    assert result.code == 2
    assert "not empty" in result.sentence
    assert "training" not in result.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epsilons", "8,nine"), "'nine'"),
        (("--epsilons", "8,8"), "twice"),
        (("--epsilon", "4"), "--epsilons"),
        (("--tune",), "tune"),
        (("--clients", "users"), "several organisations"),
    ],
)
def test_mistakes_are_one_sentence(coterie, orders, flags, message):
    result = coterie("compare", orders, *flags, *FAST)
    assert result.code == 2
    assert message in result.sentence


def test_a_settings_file_is_obeyed_and_its_epsilon_gives_way(coterie, orders, tmp_path):
    config = tmp_path / "coterie.toml"
    config.write_text(
        f'[data]\nlogs = ["{orders}"]\n[model]\nname = "popularity"\n[plan]\nepsilon = 2.0\nsimulated_noise = true\n'
        "[evaluation]\nresamples = 100\n"
    )
    result = coterie("compare", "--config", config, "--epsilons", "none", "--json")
    assert result.code == 0, result.err
    assert [row["epsilon"] for row in result.json["by_epsilon"]] == ["none"]
    assert "give way" in result.err
