"""A run is what its signer signed, or it is refused; a key is made once and read by its owner alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coterie.errors import EnvironmentFault, RunError
from coterie.experiment.signing import (
    MANIFEST,
    RAW,
    Examined,
    examine_folder,
    fingerprint,
    own_key,
    sign_folder,
    verify_folder,
)
from coterie.files import home

MINE, THEIRS = "mine", "theirs"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the key of whoever runs it."""
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / MINE))
    return tmp_path / MINE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small run folder, signed here."""
    path = tmp_path / "run"
    (path / "clients").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "clients" / "00000.safetensors").write_bytes(b"own")
    (path / "config.toml").write_text("[run]\n", "utf-8")
    sign_folder(path, {"model": {"name": "cart", "regularisation": 5.0}, "clients": ["ö"]})
    return path


def signer(folder: Path) -> str:
    return fingerprint(bytes.fromhex(manifest(folder)["public_key"]))


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return content


def change(folder: Path, **values: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps({**manifest(folder), **values}), "utf-8")


def test_a_signed_folder_is_verified_and_its_facts_come_back(folder: Path) -> None:
    found = verify_folder(folder)
    assert found["model"] == {"name": "cart", "regularisation": 5.0}
    assert found["clients"] == ["ö"]
    assert set(found["files"]) == {"model.safetensors", "clients/00000.safetensors", "config.toml"}


def test_whitespace_and_order_of_the_manifest_do_not_matter(folder: Path) -> None:
    shuffled = dict(reversed(manifest(folder).items()))
    (folder / MANIFEST).write_text(json.dumps(shuffled, indent=7), "utf-8")
    assert verify_folder(folder)["clients"] == ["ö"]


def test_what_json_changes_on_the_way_is_still_signed(folder: Path) -> None:
    sign_folder(folder, {"sizes": {9: 1, 10: 2}, "pair": (1, 2), "share": 0.1 + 0.2})
    assert verify_folder(folder)["sizes"] == {"9": 1, "10": 2}


@pytest.mark.parametrize("name", ["model.safetensors", "clients/00000.safetensors", "config.toml"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=f"{name}: changed since it was signed"):
        verify_folder(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "clients" / "00000.safetensors").unlink()
    with pytest.raises(RunError, match=r"00000\.safetensors: missing, but the manifest lists it"):
        verify_folder(folder)


def test_a_manifest_below_the_folder_is_a_file_like_any_other(folder: Path) -> None:
    (folder / "clients" / MANIFEST).write_text("{}")
    sign_folder(folder, {})
    (folder / "clients" / MANIFEST).write_text("[]")
    with pytest.raises(RunError, match="changed since it was signed"):
        verify_folder(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"clients": []},
        {"model": {"name": "ease"}},
        {"files": {}},
        {"extra": 1},
        {"signature": "00" * 64},
        {"signature": "not hexadecimal"},
        {"signature": 5},
        {"public_key": "00" * 32},
        {"public_key": "00"},
        {"public_key": None},
    ],
)
@pytest.mark.parametrize("trust", [None, "any"])
def test_a_changed_manifest_is_refused_whoever_is_trusted(
    folder: Path, values: dict[str, Any], trust: str | None
) -> None:
    change(folder, **values)
    with pytest.raises(RunError, match="the signature does not match its content; the run was changed"):
        verify_folder(folder, trust)


@pytest.mark.parametrize("missing", ["signature", "public_key"])
def test_an_unsigned_manifest_is_refused(folder: Path, missing: str) -> None:
    content = manifest(folder)
    del content[missing]
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")
    with pytest.raises(RunError, match="the signature does not match"):
        verify_folder(folder, "any")


@pytest.mark.parametrize("content", ["", '{"files": {"a"', "[]", '{"files": []}', "\x00"])
def test_a_truncated_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content, "utf-8")
    with pytest.raises(RunError, match=r"manifest\.json: (truncated or not JSON|not a manifest of a run)"):
        verify_folder(folder)


def test_an_unfinished_run_names_how_to_finish_it(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(RunError, match=f"has no manifest.json; finish it with: coterie train --resume {folder}"):
        verify_folder(folder)


def test_any_other_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        verify_folder(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="it is not a run folder"):
        verify_folder(tmp_path / "empty")


def test_an_unknown_signer_is_refused_until_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signer(folder)
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / THEIRS))
    with pytest.raises(RunError, match=f"signed by the unknown key {key}; if you trust its owner, pass --trust {key}"):
        verify_folder(folder)
    with pytest.raises(RunError, match="unknown key"):
        verify_folder(folder, "0" * 32)
    assert verify_folder(folder, key) == verify_folder(folder, "any")
    assert not (tmp_path / THEIRS).exists()  # reading makes no identity
    (tmp_path / THEIRS).mkdir()
    (tmp_path / THEIRS / "trusted_keys").write_text(f"{'1' * 32}\n{key}\n")
    assert verify_folder(folder)["clients"] == ["ö"]


def test_a_run_signed_again_by_someone_else_is_theirs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("COTERIE_HOME", str(tmp_path / THEIRS))
        (folder / "model.safetensors").write_bytes(b"poisoned")
        sign_folder(folder, {})
        assert verify_folder(folder)["files"]
    with pytest.raises(RunError, match="unknown key"):
        verify_folder(folder)


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_only_its_owner_reads_the_key(folder: Path, own_home: Path) -> None:
    assert (own_home / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in own_home.iterdir()] == ["identity.pem"]


def test_the_key_is_made_once_and_used_again(folder: Path, own_home: Path) -> None:
    before = (own_home / "identity.pem").read_bytes()
    first = signer(folder)
    sign_folder(folder, {})
    assert signer(folder) == first
    assert (own_home / "identity.pem").read_bytes() == before


RACER = """
import sys, time
from pathlib import Path
from coterie.experiment.signing import MANIFEST, sign_folder
folder, go = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir()
while not go.exists():
    time.sleep(0.001)
sign_folder(folder, {})
"""


def test_eight_processes_at_once_make_one_key(tmp_path: Path, own_home: Path) -> None:
    folders = [tmp_path / f"run{at}" for at in range(8)]
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(one), str(tmp_path / "go")]) for one in folders]
    deadline = time.monotonic() + 60
    while not all(one.exists() for one in folders) and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [racer.wait(60) for racer in racers] == [0] * 8
    assert len({signer(one) for one in folders}) == 1
    assert all(verify_folder(one)["files"] == {} for one in folders)
    assert [path.name for path in own_home.iterdir()] == ["identity.pem"]


def _pem(key: Any, protection: serialization.KeySerializationEncryption) -> bytes:
    found: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a usable private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a usable private key"),
        (
            _pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"secret")),
            "not a usable private key",
        ),
        (_pem(X25519PrivateKey.generate(), serialization.NoEncryption()), "not an Ed25519 key"),
    ],
)
def test_a_broken_key_is_one_sentence(folder: Path, own_home: Path, content: bytes, message: str) -> None:
    (own_home / "identity.pem").write_bytes(content)
    with pytest.raises(EnvironmentFault, match=rf"identity\.pem: {message}.*; move it away and a new one is made"):
        sign_folder(folder, {})


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "file" / "inside"))
    with pytest.raises(EnvironmentFault, match=r"the signing key cannot be written .*; set COTERIE_HOME"):
        sign_folder(tmp_path / "run", {})


def test_the_home_is_found_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == tmp_path / MINE
    monkeypatch.delenv("COTERIE_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert home() == tmp_path / "config" / "coterie"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".config" / "coterie"


# --- despite a fault -------------------------------------------------------------------------------------------------


def test_examining_stops_at_the_first_fault_that_is_not_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by, theirs = signer(folder), folder.parent / THEIRS
    assert examine_folder(folder) == Examined(manifest(folder), by)
    (folder / "config.toml").write_text("changed")
    assert set(examine_folder(folder).faults) == {"tampered"}
    monkeypatch.setenv("COTERIE_HOME", str(theirs))
    assert set(examine_folder(folder).faults) == {"unsigned"}
    found = examine_folder(folder, despite=("unsigned",))
    assert list(found.faults) == ["unsigned", "tampered"]
    assert found.signer == by
    with pytest.raises(RunError, match=r"config\.toml: changed since it was signed"):
        found.refuse(("unsigned",))
    assert found.refuse(("unsigned", "tampered")) is found
    (folder / MANIFEST).unlink()
    assert examine_folder(folder) == Examined({}, None, {"unsigned": examine_folder(folder).faults["unsigned"]})
    with pytest.raises(RunError, match="no such run folder"):
        examine_folder(folder / "none", despite=("unsigned", "tampered"))


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "clients/../../outside"])
def test_a_manifest_names_no_file_outside_its_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("not of this run")
    content = {key: value for key, value in manifest(folder).items() if key not in ("signature", "public_key")}
    content["files"][name] = "0" * 64
    signing = own_key()
    content["public_key"] = signing.public_key().public_bytes(*RAW).hex()
    signed = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    (folder / MANIFEST).write_text(json.dumps({**content, "signature": signing.sign(signed).hex()}))
    with pytest.raises(RunError, match="which is no file of this folder"):
        verify_folder(folder)
