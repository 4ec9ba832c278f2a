"""The keys of a party: made once, private, and refused when they are not what they should be."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from coterie.errors import ConfigError, DataError, EnvironmentFault
from coterie.federation.identity import IDENTITY, TRANSPORT, Identities, check_transport
from coterie.secure.keys import fingerprint, verify

PEM, PKCS8, PLAIN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


def test_keys_are_made_once_and_stay(tmp_path: Path) -> None:
    made = Identities.open(tmp_path / "deep" / "keys", create=True)
    again = Identities.open(tmp_path / "deep" / "keys", create=True)
    assert (made.public, made.transport_public) == (again.public, again.transport_public)
    assert made.fingerprint == fingerprint(made.public)
    verify(made.public, again.identity.sign(b"test", bytes(32)), b"test", bytes(32))


def test_two_parties_have_different_keys(tmp_path: Path) -> None:
    one, other = (Identities.open(tmp_path / name, create=True) for name in "ab")
    assert one.public != other.public
    assert one.transport_public != other.transport_public


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
@pytest.mark.parametrize("name", [IDENTITY, TRANSPORT])
def test_only_their_owner_may_read_them(tmp_path: Path, name: str) -> None:
    before = os.umask(0)
    try:
        Identities.open(tmp_path, create=True)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    (tmp_path / name).chmod(0o640)
    with pytest.raises(DataError, match=rf"{name}: a secret that others may read \(mode 0640\); run: chmod 600 "):
        Identities.open(tmp_path)


def test_many_that_make_them_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Identities.open(tmp_path, create=True), range(8)))
    assert len({(one.public, one.transport_public) for one in made}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {IDENTITY, TRANSPORT}


def test_the_transport_key_is_what_flower_reads(tmp_path: Path) -> None:
    made = Identities.open(tmp_path, create=True)
    private = serialization.load_ssh_private_key(made.transport_path.read_bytes(), None)
    public = serialization.load_ssh_public_key(made.transport_public.encode())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public


@pytest.mark.parametrize("name", [IDENTITY, TRANSPORT])
def test_a_missing_key_is_said_and_not_made(tmp_path: Path, name: str) -> None:
    Identities.open(tmp_path, create=True)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: no such key; .*`coterie node join` makes one, or restore"):
        Identities.open(tmp_path)
    assert not (tmp_path / name).exists()


def _rsa() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(PEM, PKCS8, PLAIN)


def _with_password() -> bytes:
    secret = serialization.BestAvailableEncryption(b"hush")
    return ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, secret)


def _p256() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (IDENTITY, lambda: b"not a key"),
        (IDENTITY, lambda: b""),
        (IDENTITY, _rsa),
        (IDENTITY, _with_password),
        (TRANSPORT, lambda: b"not a key"),
        (TRANSPORT, _p256),
        (TRANSPORT, _rsa),
    ],
)
def test_what_is_no_such_key_is_one_sentence(tmp_path: Path, name: str, content) -> None:
    Identities.open(tmp_path, create=True)
    (tmp_path / name).write_bytes(content())
    with pytest.raises(DataError, match=f"{name}: not a usable .* key .*; restore it from a backup") as caught:
        Identities.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match="the folder cannot be made"):
        Identities.open(tmp_path / "file" / "keys", create=True)


def test_a_transport_key_has_one_spelling(tmp_path: Path) -> None:
    line = Identities.open(tmp_path, create=True).transport_public
    assert check_transport(f"{line} somebody@somewhere") == line


@pytest.mark.parametrize("line", ["", "AAAA", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp384 AAAA", "ä"])
def test_what_is_no_transport_key_is_refused(line: str) -> None:
    with pytest.raises(DataError, match="a transport key must be an OpenSSH line"):
        check_transport(line)


def test_another_curve_is_no_transport_key() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    with pytest.raises(DataError, match="ecdsa-sha2-nistp384"):
        check_transport(line)
