"""A vault keeps what it was given, survives kills and full disks, and is not fooled by what was put in its place."""

from __future__ import annotations

import base64
import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import ConfigError, DataError, EnvironmentFault, MissingExtra
from coterie.federation import filelock, vaulthead
from coterie.federation.vault import Vault
from coterie.federation.vaultkey import PASSPHRASE, VaultKey
from coterie.types import LocalStore
from tests.contracts.localstore import LocalStoreContract
from tests.federation.keeper import STEPS, Order, keeper, known, open_vault

SECRET = b"what nobody else may read: user 4711 bought a kettle"


class TestVaultStore(LocalStoreContract):
    def open(self, folder: Path) -> LocalStore:
        return open_vault(folder).store("job-1.0")


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return open_vault(tmp_path)


def objects(vault: Vault) -> list[Path]:
    return sorted((vault.folder / "objects").iterdir())


def copy_of(vault: Vault) -> Path:
    return Path(shutil.copytree(vault.folder, vault.folder.parent / "copy"))


def put_back(vault: Vault, copy: Path) -> None:
    shutil.rmtree(vault.folder)
    copy.rename(vault.folder)


# --- what it keeps --------------------------------------------------------------------------------------------------


def test_what_was_put_is_there_for_the_next_process(vault: Vault, tmp_path: Path) -> None:
    assert (vault.get("a"), vault.arrays("a"), vault.record("a")) == (None, None, None)
    vault.put("a", b"bytes")
    vault.put_arrays("a", {"x": np.arange(3.0)})
    vault.put_record("a", {"seen": {"0": 3}, "text": "é"})
    for each in (vault, open_vault(tmp_path)):
        assert each.get("a") == b"bytes"
        assert each.record("a") == {"seen": {"0": 3}, "text": "é"}
        found = each.arrays("a")
        assert found is not None
        assert np.array_equal(found["x"], np.arange(3.0))
        assert each.names() == ["a", "arrays/a", "record/a"]
        assert each.names("record/") == ["record/a"]
        assert each.changes == 3


def test_an_object_is_replaced_and_removed_without_a_trace_of_the_old_one(vault: Vault) -> None:
    vault.put("a", b"1")
    vault.put("a", b"2")
    assert vault.get("a") == b"2"
    assert [path.name for path in objects(vault)] == ["a.2.age"]
    vault.put_all({"a": None, "b/c": b"3"})
    assert (vault.get("a"), vault.get("b/c")) == (None, b"3")
    assert [path.name for path in objects(vault)] == ["b~c.3.age"]


def test_a_job_is_forgotten_whole(vault: Vault) -> None:
    vault.store("job").stage("x", np.ones(1))
    vault.store("job").commit(0, 0)
    vault.put_record("job", {})
    vault.put_record("other", {})
    vault.forget("job")
    vault.forget("unknown")
    assert vault.names() == ["record/other"]


def test_nothing_of_it_can_be_read_without_the_key(vault: Vault) -> None:
    vault.put("name", SECRET)
    vault.put_record("r", {"text": SECRET.decode()})
    files = [path for path in vault.folder.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        assert b"kettle" not in path.read_bytes()
    assert vault.folder.stat().st_mode & 0o777 == 0o700


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.binary(max_size=5)), max_size=8))
def test_it_is_a_dictionary(steps: list[tuple[str, bytes | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected: dict[str, bytes] = {}
        vault = open_vault(Path(folder))
        for name, content in steps:
            vault.put_all({name: content})
            expected.pop(name, None)
            if content is not None:
                expected[name] = content
        again = open_vault(Path(folder))
        again.check()
        assert {name: again.get(name) for name in again.names()} == expected


@pytest.mark.parametrize("name", ["", "../up", "a//b", "/a", "a b", "a~b", "é", ".hidden", "x" * 201])
def test_a_name_that_could_lead_elsewhere_is_refused(vault: Vault, name: str) -> None:
    with pytest.raises(DataError, match="a vault cannot keep"):
        vault.put(name, b"")
    assert objects(vault) == []


def test_stores_of_one_job_see_each_others_commits_and_jobs_are_apart(vault: Vault, tmp_path: Path) -> None:
    mine, other, theirs = vault.store("a"), open_vault(tmp_path).store("a"), vault.store("b")
    mine.stage("x", np.array([1]))
    mine.commit(0, 0)
    seen = other.get("x")
    assert seen is not None
    assert seen.tolist() == [1]
    assert theirs.get("x") is None
    other.stage("y", np.array([2]))
    other.commit(0, 1)
    assert {name: value.tolist() for name, value in mine.arrays().items()} == {"x": [1], "y": [2]}
    with pytest.raises(ValueError, match="read-only"):
        mine.arrays()["y"][0] = 3


def test_threads_and_processes_take_turns(vault: Vault, tmp_path: Path) -> None:
    vault.put_record("n", {"n": 0})

    def count(own: Vault) -> None:
        for _ in range(10):
            with own.alone():
                found = own.record("n")
                assert found is not None
                own.put_record("n", {"n": found["n"] + 1})

    threads = [threading.Thread(target=count, args=(one,)) for one in (vault, vault, open_vault(tmp_path))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vault.record("n") == {"n": 30}


def test_a_vault_that_somebody_holds_is_waited_for_and_then_named(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock.locked.__wrapped__, "__defaults__", (0.05,))  # type: ignore[attr-defined]
    with (
        filelock.locked(vault.folder / "lock", "test"),
        pytest.raises(EnvironmentFault, match=r"the vault .*: another process has held .*lock for 0\.05 seconds"),
    ):
        vault.names()
    assert vault.names() == []


# --- its key --------------------------------------------------------------------------------------------------------


def test_the_key_is_made_on_first_use_for_its_owner_alone_and_is_one_of_age(vault: Vault, tmp_path: Path) -> None:
    import pyrage

    key = tmp_path / "vault.key"
    assert key.stat().st_mode & 0o777 == 0o600
    created, public, secret = key.read_text().splitlines()
    assert created.startswith("# created: 2")
    identity = pyrage.x25519.Identity.from_str(secret)
    assert public == f"# public key: {identity.to_public()}"
    vault.put("a", SECRET)
    assert pyrage.decrypt(objects(vault)[0].read_bytes(), [identity]) == SECRET


def test_another_key_is_refused_and_a_lost_one_is_not_replaced(vault: Vault, tmp_path: Path) -> None:
    vault.put("a", b"x")
    with pytest.raises(DataError, match=r"head\.age: .*other\.key does not decrypt it"):
        Vault(vault.folder, VaultKey.open(tmp_path / "other.key", create=True))
    (tmp_path / "vault.key").unlink()
    with pytest.raises(ConfigError, match=r"vault\.key: no such key file; restore it"):
        open_vault(tmp_path)
    assert not (tmp_path / "vault.key").exists()


def test_a_head_by_somebody_who_knows_the_public_key_is_refused(vault: Vault, tmp_path: Path) -> None:
    import pyrage

    public = (tmp_path / "vault.key").read_text().splitlines()[1].split()[-1]
    recipient = pyrage.x25519.Recipient.from_str(public)
    for forged in (
        b'{"head":{"format":1,"vault":"x","changes":9,"objects":{}},"mac":"00"}',
        b"[]",
        b"{",
        b'{"head":1}',
    ):
        (vault.folder / "head.age").write_bytes(pyrage.encrypt(forged, [recipient]))
        with pytest.raises(DataError, match=r"head\.age: not the head of a vault of this key"):
            open_vault(tmp_path)


def test_a_vault_of_a_newer_version_says_so(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(vaulthead, "FORMAT", 2)
        vaulthead.write_head(vault.folder / "head.age", vaulthead.Head("x"), vault._key)
    with pytest.raises(DataError, match="of format 2, and this version of Coterie knows format 1; upgrade"):
        open_vault(tmp_path)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"AGE-SECRET-KEY-1NO\n", b"\xff\n", b"age1abc\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vault.key").write_bytes(content)
    (tmp_path / "vault.key").chmod(0o600)
    with pytest.raises(DataError, match=r"vault\.key: .*restore the vault's key file"):
        open_vault(tmp_path)


def test_a_key_that_others_may_read_is_refused(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "vault.key").chmod(0o640)
    with pytest.raises(DataError, match=r"vault\.key: a secret that others may read \(mode 0640\); run: chmod 600"):
        open_vault(tmp_path)


def test_whoever_comes_second_in_making_the_key_has_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, real, answers = VaultKey.open(tmp_path / "k", create=True), Path.exists, iter([False])
    # It was not there when the second one looked, and is when that one writes.
    monkeypatch.setattr(Path, "exists", lambda self: next(answers, real(self)))
    second = VaultKey.open(tmp_path / "k", create=True)
    assert second.mac(b"x") == first.mac(b"x")


def test_a_passphrase_protects_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    vault = open_vault(tmp_path)
    vault.put("a", SECRET)
    assert b"AGE-SECRET-KEY" not in (tmp_path / "vault.key").read_bytes()
    assert open_vault(tmp_path).get("a") == SECRET
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(ConfigError, match=f"protected by a passphrase; put it into .* {PASSPHRASE}"):
        open_vault(tmp_path)


def test_a_key_file_that_age_protected_is_opened_by_its_passphrase_alone(tmp_path: Path) -> None:
    key = VaultKey.open(tmp_path / "plain", create=True)
    (tmp_path / "k").write_bytes(age_with_passphrase((tmp_path / "plain").read_bytes(), b"correct horse"))
    (tmp_path / "k").chmod(0o600)
    assert VaultKey.open(tmp_path / "k", "correct horse").mac(b"x") == key.mac(b"x")
    with pytest.raises(DataError, match="the passphrase does not open it"):
        VaultKey.open(tmp_path / "k", "battery staple")


def test_a_passphrase_is_neither_ignored_nor_empty(tmp_path: Path) -> None:
    VaultKey.open(tmp_path / "k", create=True)
    with pytest.raises(ConfigError, match="this key file has no passphrase, though one was given"):
        VaultKey.open(tmp_path / "k", "correct horse")
    with pytest.raises(ConfigError, match="the passphrase is empty"):
        VaultKey.open(tmp_path / "new", "", create=True)
    assert not (tmp_path / "new").exists()


def test_without_pyrage_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyrage", None)
    with pytest.raises(MissingExtra, match="pip install 'coterie\\[atrest\\]'"):
        open_vault(tmp_path)
    assert list(tmp_path.rglob("*")) == []


def age_with_passphrase(content: bytes, passphrase: bytes) -> bytes:
    """The format of age (https://age-encryption.org/v1) by hand, with a cheap scrypt: an oracle, and quick."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)

    def text(value: bytes) -> bytes:
        return base64.b64encode(value).rstrip(b"=")

    wrap = Scrypt(b"age-encryption.org/v1/scrypt" + salt, 32, n=2**6, r=8, p=1).derive(passphrase)
    body = ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, b"")
    header = b"age-encryption.org/v1\n-> scrypt " + text(salt) + b" 6\n" + text(body) + b"\n---"
    mac = hmac.HMAC(HKDF(hashes.SHA256(), 32, None, b"header").derive(file_key), hashes.SHA256())
    mac.update(header)
    payload = ChaCha20Poly1305(HKDF(hashes.SHA256(), 32, nonce, b"payload").derive(file_key))
    return header + b" " + text(mac.finalize()) + b"\n" + nonce + payload.encrypt(bytes(11) + b"\1", content, b"")


# --- what others did to it ------------------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-1], lambda content: b""])
def test_a_damaged_object_or_head_is_refused_by_name(
    vault: Vault, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    vault.put("a", b"x")
    (path,) = objects(vault)
    path.write_bytes(damage(path.read_bytes()))
    again = open_vault(tmp_path)
    for call in (again.check, lambda: again.get("a")):
        with pytest.raises(DataError, match=r"a\.1\.age: altered, truncated, or put back to an older version"):
            call()
    head = vault.folder / "head.age"
    head.write_bytes(damage(head.read_bytes()))
    with pytest.raises(DataError, match=r"head\.age: .*vault\.key does not decrypt it"):
        open_vault(tmp_path)


def test_objects_that_changed_places_are_refused(vault: Vault, tmp_path: Path) -> None:
    vault.put("mine", b"1")
    vault.put("yours", b"2")
    first, second = objects(vault)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(DataError, match="put back to an older version"):
        open_vault(tmp_path).check()


def test_an_object_that_was_put_back_or_taken_away_is_refused(vault: Vault, tmp_path: Path) -> None:
    vault.put("a", b"old")
    old = objects(vault)[0].read_bytes()
    vault.put("a", b"new")
    (path,) = objects(vault)
    path.write_bytes(old)
    with pytest.raises(DataError, match="older version"):
        open_vault(tmp_path).get("a")
    path.unlink()
    with pytest.raises(DataError, match=r"a\.2\.age: missing; restore the whole vault"):
        open_vault(tmp_path)


def test_a_missing_head_is_refused_while_there_are_objects(vault: Vault, tmp_path: Path) -> None:
    vault.put("a", b"x")
    (vault.folder / "head.age").unlink()
    for call in (vault.names, lambda: open_vault(tmp_path)):
        with pytest.raises(DataError, match=r"head\.age: missing, but there are objects"):
            call()


def test_an_older_head_alone_is_refused(vault: Vault, tmp_path: Path) -> None:
    vault.put("a", b"1")
    old = (vault.folder / "head.age").read_bytes()
    vault.put("a", b"2")
    (vault.folder / "head.age").write_bytes(old)
    with pytest.raises(DataError, match=r"a\.1\.age: missing"):
        open_vault(tmp_path)


def test_an_older_head_that_misses_two_new_objects_is_refused(vault: Vault, tmp_path: Path) -> None:
    old = (vault.folder / "head.age").read_bytes()
    vault.put("a", b"1")
    vault.put("b", b"2")
    (vault.folder / "head.age").write_bytes(old)
    with pytest.raises(DataError, match="an older copy: it knows 0 changes, and there is an object of change 2"):
        open_vault(tmp_path)


def test_the_head_before_a_new_object_is_taken_for_an_unfinished_change_as_the_page_says(
    vault: Vault, tmp_path: Path
) -> None:
    old = (vault.folder / "head.age").read_bytes()
    vault.put("a", b"1")
    (vault.folder / "head.age").write_bytes(old)
    again = open_vault(tmp_path)
    assert (again.names(), objects(again)) == ([], [])
    with pytest.raises(DataError, match="0 changes are in it, and the egress log knows of 1"):
        again.confirm(1, "the egress log")


def test_a_vault_that_goes_back_while_it_is_open_is_refused(vault: Vault) -> None:
    vault.put("a", b"1")
    copy = copy_of(vault)
    vault.put("a", b"2")
    put_back(vault, copy)
    with pytest.raises(DataError, match=r"put back to an older copy while it was in use \(1 changes, 2 were seen\)"):
        vault.get("a")


def test_another_vault_of_the_same_key_in_its_place_is_refused(vault: Vault, tmp_path: Path) -> None:
    vault.put("a", b"1")
    other = Vault.open(tmp_path / "copy", tmp_path / "vault.key")
    for _ in range(3):
        other.put("a", b"2")
    put_back(vault, other.folder)
    with pytest.raises(DataError, match="put back"):
        vault.get("a")


def test_a_whole_older_vault_is_noticed_by_what_was_noted_elsewhere_and_by_nothing_else(
    vault: Vault, tmp_path: Path
) -> None:
    vault.put_record("attempts", {"0": 1})
    copy = copy_of(vault)
    vault.put_record("attempts", {"0": 2})
    noted = vault.changes
    vault.confirm(noted, "the egress log")
    put_back(vault, copy)
    again = open_vault(tmp_path)
    again.check()
    assert again.record("attempts") == {"0": 1}
    with pytest.raises(DataError, match="an older copy: 1 changes are in it, and line 7 of the egress log knows of 2"):
        again.confirm(noted, "line 7 of the egress log")


# --- kills and full disks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_state_before_or_after_and_says_so(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str, at: int
) -> None:
    vault.put_all({"a": b"1", "b": b"1"})
    real, calls = getattr(owner, call), iter(range(100))

    def full(*arguments: object) -> object:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(owner, call, full)
        if (call, at) == ("replace", 3):  # only three files are renamed
            vault.put_all({"a": b"2", "b": b"2"})
        else:
            with pytest.raises(EnvironmentFault, match="cannot be written: No space left on device"):
                vault.put_all({"a": b"2", "b": b"2"})
    for each in (vault, open_vault(tmp_path)):
        each.check()
        assert (each.get("a"), each.get("b")) in ((b"1", b"1"), (b"2", b"2"))
    vault.put("a", b"3")
    assert open_vault(tmp_path).get("a") == b"3"


def test_a_disk_that_fails_in_the_last_step_is_believed_by_what_is_on_it(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vault.alone(), monkeypatch.context() as broken:
        real, calls = os.fsync, iter(range(100))

        def late(handle: int) -> None:
            real(handle)
            if next(calls) == 3:  # the folder of the head, after its rename
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        broken.setattr(os, "fsync", late)
        with pytest.raises(EnvironmentFault, match="Input/output error"):
            vault.put("a", b"1")
        assert vault.get("a") == b"1"
        vault.put("a", b"2")
    assert vault.get("a") == b"2"
    assert vault.changes == 2


def test_killed_at_any_point_nothing_that_was_kept_is_lost(tmp_path: Path) -> None:
    with keeper() as program:
        assert program.run(Order("vault", str(tmp_path)))["code"] == 0
        kills, before = program.points(Order("vault", str(tmp_path))), 2 * STEPS
        assert {name.split()[1] for name, _ in kills} == {"fsync", "replace", "unlink"}
        spared = 0
        for kill in kills:
            told = len(known(tmp_path))
            code = program.run(Order("vault", str(tmp_path), kill))["code"]
            assert code in (0, -signal.SIGKILL)
            spared += code == 0  # a commit that the last victim had made is not made again: fewer points
            vault = open_vault(tmp_path)
            vault.check()
            after, x = vault.record("done"), vault.store("job").get("x")
            assert after is not None
            assert x is not None
            kept = max([before, *known(tmp_path)[told:]])
            assert after["number"] in (kept, kept + 1)
            assert x.tolist() in ([n] * n for n in (after["number"], after["number"] + 1))
            assert len(objects(vault)) == 2
            before = after["number"]
    assert len(kills) - spared > STEPS * 8


def test_killed_while_it_is_made_it_is_made_again(tmp_path: Path) -> None:
    with keeper() as program:
        (tmp_path / "whole").mkdir()
        for number, kill in enumerate(program.points(Order("vault", str(tmp_path / "whole")))):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert program.run(Order("vault", str(folder), kill))["code"] == -signal.SIGKILL
            vault = open_vault(folder)
            vault.check()
            done = (vault.record("done") or {"number": 0})["number"]
            assert done in (len(known(folder)), len(known(folder)) + 1)
