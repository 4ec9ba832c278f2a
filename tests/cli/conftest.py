"""Running commands in this process, and one small finished training that the tests share."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coterie.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there makes the parsing fail."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The error: one line on stderr, and no traceback."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert "Traceback" not in self.err
        return errors[0].removeprefix("error: ")


Coterie = Callable[..., Result]


@pytest.fixture
def coterie(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> Coterie:
    """Run `coterie ARGUMENTS`, as its entry point does."""
    monkeypatch.setenv("COTERIE_HOME", str(home))
    monkeypatch.delenv("COTERIE_DEBUG", raising=False)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(one) for one in arguments])
        captured = capsys.readouterr()
        return Result(left.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the signing key of these tests lives."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Orders of three small shops, with columns called as the roles are."""
    from coterie.cli.data import as_table, write_table
    from coterie.data.market import market

    path = tmp_path_factory.mktemp("orders") / "orders.parquet"
    write_table(as_table(market(shops=3, customers=60, items=30, baskets=400, seed=5).log), path)
    return path


@pytest.fixture(scope="session")
def finished(orders: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run folder, and what its training returned."""
    from coterie.experiment.train import run_training
    from coterie.settings import build

    folder = tmp_path_factory.mktemp("runs") / "run"
    columns = {f"{role}_column": role for role in ("user", "item", "time", "value", "basket", "client", "title")}
    asked = {
        "data": {"logs": [str(orders)], **columns},
        "evaluation": {"resamples": 100, "at": [5, 10]},
        "run": {"output": str(folder)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(home))
        done = run_training(build(asked, "test"))
    return folder, done.result
