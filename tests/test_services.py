"""The systemd units of the package: systemd accepts them, they run commands that there are, and they allow little."""

from __future__ import annotations

import configparser
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.services import program

UNITS = sorted(Path(str(files("coterie"))).joinpath("systemd").glob("*.service"))
NAMES = ("coterie-coordinator.service", "coterie-node@.service")
PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "run-as-a-service.md").read_text("utf-8")
PROGRAM = "/opt/coterie/bin/coterie"
VERIFY = ("--man=no", "--recursive-errors=no")


class Keys(configparser.RawConfigParser):
    """A unit file as sections of keys: of a key that stands there several times, all values in one."""

    def __init__(self, text: str) -> None:
        super().__init__(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        lines: dict[str, str] = {}
        for number, line in enumerate(text.splitlines()):
            key, equals, value = line.partition("=")
            if not equals or line.startswith("#"):
                key, value = f"\0{number}", line
            lines[key] = f"{lines[key]} {value}" if key in lines else value
        self.read_string("\n".join(v if k.startswith("\0") else f"{k}={v}" for k, v in lines.items()))

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture(params=NAMES)
def unit(request: Any, tmp_path: Path) -> Path:
    """A unit as it would be installed, but with a program that every machine has."""
    source = next(path for path in UNITS if path.name == request.param)
    copy = tmp_path / source.name.replace("@", "@north")
    copy.write_text(source.read_text("utf-8").replace(PROGRAM, "/bin/true"), "utf-8")
    return copy


@pytest.fixture(params=NAMES)
def keys(request: Any) -> Keys:
    return Keys(next(path for path in UNITS if path.name == request.param).read_text("utf-8"))


def test_the_package_has_the_two_units() -> None:
    assert tuple(path.name for path in UNITS) == NAMES


def test_systemd_accepts_it(unit: Path) -> None:
    found = analyzed("verify", *VERIFY, str(unit))
    assert (found.returncode, found.stderr) == (0, "")


def test_systemd_would_not_accept_a_mistake(unit: Path) -> None:
    """The test above can fail."""
    unit.write_text(unit.read_text("utf-8").replace("Restart=on-failure", "Restart=sometimes"), "utf-8")
    assert "sometimes" in analyzed("verify", *VERIFY, str(unit)).stderr


def test_systemd_calls_it_little_exposed(unit: Path) -> None:
    found = analyzed("security", "--offline=true", "--threshold=15", str(unit))  # tenths, of 0 to 10
    assert found.returncode == 0, found.stdout


def test_it_runs_a_command_that_there_is(keys: Keys) -> None:
    from coterie.cli import app

    start, *words = keys["Service"]["ExecStart"].split()
    assert start == PROGRAM
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    with command.make_context(command.name, list(words)) as context:
        folder = context.params.get("file") or context.params["folder"]
    assert str(folder).startswith("%S/coterie/")


def test_it_writes_to_its_own_folder_and_nowhere_else(keys: Keys) -> None:
    service = keys["Service"]
    folder = service["StateDirectory"]
    assert service["ExecStart"].endswith(f"%S/{folder}")
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == f"%S/{folder}"
    assert service["CacheDirectory"] == folder
    assert (service["ProtectSystem"], service["StateDirectoryMode"], service["UMask"]) == ("strict", "0700", "0077")
    assert f"HOME=%S/{folder} COTERIE_HOME=%S/{folder}" in service["Environment"]


def test_it_comes_again_unless_its_settings_are_wrong(keys: Keys) -> None:
    from coterie.errors import ConfigError, PeerError

    service = keys["Service"]
    assert (service["Restart"], keys["Unit"]["StartLimitIntervalSec"]) == ("on-failure", "0")
    assert service["RestartPreventExitStatus"] == str(ConfigError.exit_code)
    assert service["RestartPreventExitStatus"] != str(PeerError.exit_code)


def test_both_are_hardened_alike() -> None:
    yes = ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictSUIDSGID", "RestrictNamespaces")
    both = [Keys(path.read_text("utf-8"))["Service"] for path in UNITS]
    for key in (*yes, "CapabilityBoundingSet", "SystemCallFilter", "RestrictAddressFamilies", "ProtectProc"):
        assert both[0][key] == both[1][key], key
    assert all(both[0][key] == "yes" for key in yes)
    assert both[0]["CapabilityBoundingSet"] == ""


def test_what_must_not_be_forbidden_is_not(keys: Keys) -> None:
    """Kernels are compiled while the program runs, and the ledger reads the machine's boot from /proc."""
    assert {"MemoryDenyWriteExecute", "ProcSubset"}.isdisjoint(keys["Service"])


def test_the_page_says_where_things_are(keys: Keys) -> None:
    service = keys["Service"]
    for text in (service["StateDirectory"], service["CacheDirectory"]):
        assert f"/{text.replace('%i', 'NAME')}`" in PAGE
    assert f"`{service['EnvironmentFile'].removeprefix('-').replace('%i', 'NAME')}`" in PAGE
    if "LoadCredential" in service:
        id, _, source = service["LoadCredential"].partition(":")
        assert f"/etc/credstore/{source.replace('%i', 'north')}" in PAGE
        assert f'key_file = "/run/credentials/coterie-node@north.service/{id}"' in PAGE


def test_the_page_tells_the_exposure_that_systemd_does(unit: Path) -> None:
    told = re.search(r"`systemd-analyze security` \((\d+)\) calls it ([\d.]+)", PAGE)
    assert told is not None
    version = analyzed("--version").stdout.split()[1]
    if version != told[1]:
        pytest.skip(f"the page has the figure of systemd {told[1]}, and this is {version}")
    assert f": {told[2]} OK" in analyzed("security", "--offline=true", str(unit)).stdout


def analyzed(*words: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says."""
    command = [program("systemd-analyze", "systemd"), "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)
