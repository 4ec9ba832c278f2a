"""`coterie rollout` and `coterie feedback`: what they print, write, and refuse."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from coterie.serving.config import PeopleSettings, StoreSettings
from coterie.serving.store import ServingStore
from coterie.serving.tokens import mint
from coterie.serving.words import Event, EventLine


@pytest.fixture
def runs(finished: tuple[Path, Any], coterie: Any, tmp_path: Path) -> list[Path]:
    """Two runs; the second was signed later."""
    from coterie.experiment.run import load

    folders = [shutil.copytree(finished[0], tmp_path / "runs" / "first"), tmp_path / "runs" / "second"]
    load(folders[0]).save(folders[1])
    return folders


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(where: Path) -> Any:
    opened = ServingStore.open(str(where), PeopleSettings(), StoreSettings())
    yield opened
    opened.close()


COMMANDS = [("rollout", one) for one in ("show", "start", "share", "finish", "back", "swap")]


@pytest.mark.parametrize("command", [("rollout",), *COMMANDS, ("feedback",), ("data", "from-store")], ids=" ".join)
def test_every_command_has_help(coterie: Any, command: tuple[str, ...]) -> None:
    result = coterie(*command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: {' '.join(('coterie', *command))}")


def test_from_the_first_run_to_a_roll_back(coterie: Any, store: ServingStore, where: Path, runs: list[Path]) -> None:
    def asked(*arguments: object) -> dict[str, Any]:
        done = coterie("rollout", *arguments, "--store", where, "--json")
        assert done.code == 0, done.err
        return {key: done.json[key] for key in ("champion", "challenger", "share", "previous")}

    assert asked("show")["champion"] is None
    assert asked("swap", runs[0])["champion"] == 1
    assert asked("start", runs[1], "--share", "0.1") == {"champion": 1, "challenger": 2, "share": 0.1, "previous": None}
    assert asked("share", "0.5")["share"] == 0.5
    shown = coterie("rollout", "show", "--store", where).out
    assert "champion, 50%" in shown
    assert "challenger, 50%" in shown
    assert asked("finish") == {"champion": 2, "challenger": None, "share": 0.0, "previous": 1}
    assert asked("back")["champion"] == 1
    done = coterie("rollout", "back", "--store", where)
    assert "nothing to go back to" in done.sentence
    assert coterie("rollout", "show", "--store", where, "--json").json["versions"][0]["run"] == str(runs[0])


def test_a_refused_run_is_one_sentence_and_changes_nothing(
    coterie: Any, store: ServingStore, where: Path, runs: list[Path], tmp_path: Path
) -> None:
    coterie("rollout", "swap", runs[1], "--store", where)
    before = store.rollout()
    refused = coterie("rollout", "start", runs[0], "--share", "0.1", "--store", where)
    assert refused.code == 2
    assert "before version 1 that answers now" in refused.sentence
    (runs[0] / "report.html").write_text("changed")
    assert "('tampered')" in coterie("rollout", "swap", runs[0], "--store", where).sentence
    assert store.rollout() == before
    assert len(store.versions()) == 1
    misspelt = coterie("rollout", "swap", runs[0], "--store", where, "--allow", "tamperd")
    assert "did you mean 'tampered'" in misspelt.sentence
    done = coterie("rollout", "swap", runs[0], "--store", where, "--allow", "tampered", "--allow", "older", "--json")
    assert done.json["versions"][1]["allowed"] == ["older", "tampered"]


def test_the_store_of_the_configuration_is_taken(coterie: Any, where: Path, store: Any, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(f'[store]\naddress = "{where}"\n')
    assert coterie("rollout", "show", "--config", tmp_path / "serve.toml", "--json").json["store"] == str(where)
    assert "there is no such store" in coterie("rollout", "show", "--store", tmp_path / "none.sqlite").sentence
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.parametrize("share", ["lots", "nan", "1.5", "-1"])
def test_a_wrong_share_is_one_sentence(coterie: Any, store: Any, where: Path, runs: list[Path], share: str) -> None:
    coterie("rollout", "swap", runs[0], "--store", where)
    refused = coterie("rollout", "start", runs[1], f"--share={share}", "--store", where)
    assert refused.code == 2
    assert "share must be" in refused.sentence


def test_feedback_tells_what_came_of_the_answers(coterie: Any, store: Any, where: Path, runs: list[Path]) -> None:
    told = coterie("feedback", "--store", where)
    assert "nothing to tell yet" in told.out
    assert "no answer was reported as shown" in told.err
    coterie("rollout", "swap", runs[0], "--store", where)
    events = list[Event]()
    for n in range(20):
        answer = mint(store.secret, 1, None, "champion")
        lines = tuple(EventLine(f"A{at}", position=at) for at in (1, 2, 3))
        events.append(Event(f"i{n}", "impression", 1_700_000_000_000_000 + n, lines, recommendation=answer))
        if n % 2:
            click = Event(f"c{n}", "click", 1_700_000_000_000_000 + n, (EventLine("A1"),), recommendation=answer)
            events.append(click)
    assert store.write_events(events).result().stored == 30
    found = coterie("feedback", "--store", where, "--json").json
    (version,) = found["versions"]
    assert (version["shown"], version["items_shown"], version["click_through"]["rate"]) == (20, 60, 0.5)
    assert version["click_through"]["low"] < 0.5 < version["click_through"]["high"]
    assert "50.00%" in coterie("feedback", "--store", where).out
    assert coterie("feedback", "--store", where, "--since", "2024-01-01", "--json").json["versions"] == []
    assert "--since must be a date" in coterie("feedback", "--store", where, "--since", "soon").sentence
