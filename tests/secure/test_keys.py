"""Primitives give the published vectors, and everything derived is bound to its round and parties."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ProtocolViolation
from coterie.secure import keys
from coterie.secure.keys import AgreementKey, Identity

CONTEXT, SHARED = bytes(range(32)), bytes(range(32, 64))
P = 2**255 - 19


def test_x25519() -> None:
    """RFC 7748, 5.2, first vector."""
    key = AgreementKey(bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"))
    other = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert key.agree(other).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_hkdf() -> None:
    """RFC 5869, test case 1."""
    got = keys.hkdf(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42, salt=bytes(range(13)))
    assert got.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_ed25519() -> None:
    """RFC 8032, 7.1, test 1."""
    one = Identity(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert one.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert one._key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465"
        "5141438e7a100b"
    )


def test_hmac() -> None:
    """RFC 4231, test case 2."""
    got = keys.hmac_sha256(b"Jefe", b"what do ya want for nothing?")
    assert got.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_gmac() -> None:
    """AES-GCM test case 13 of McGrew and Viega: nothing at all under key and nonce zero."""
    assert keys.gmac(bytes(32), 0, b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"


def test_sha256() -> None:
    """FIPS 180-4: "abc"."""
    assert keys.sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "low_order",
    [
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        (P - 1).to_bytes(32, "little"),
        P.to_bytes(32, "little"),
        (P + 1).to_bytes(32, "little"),
    ],
)
def test_a_key_that_forces_an_all_zero_secret_is_refused(low_order: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="low order"):
        AgreementKey().agree(low_order)


def test_an_all_zero_secret_is_refused_even_where_the_library_lets_it_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lenient:
        def exchange(self, _: object) -> bytes:
            return bytes(32)

    key = AgreementKey()
    monkeypatch.setattr(key, "_key", Lenient())
    with pytest.raises(ProtocolViolation, match="all zero"):
        key.agree(AgreementKey().public)


def test_both_sides_agree() -> None:
    one, other = AgreementKey(), AgreementKey()
    assert one.agree(other.public) == other.agree(one.public)
    assert keys.mask_key(SHARED, CONTEXT, 3, 7) == keys.mask_key(SHARED, CONTEXT, 7, 3)


DERIVED: list[Callable[[bytes, bytes, int, int], bytes]] = [
    keys.mask_key,
    keys.sealing_key,
    lambda shared, context, one, other: keys.self_mask_key(shared, context, one),
    lambda shared, context, one, other: keys.commitment(shared, context, one),
    lambda shared, context, one, other: keys.channel_key(shared, context, one),
]


@pytest.mark.parametrize("byte", range(0, 32, 5))
@pytest.mark.parametrize("derive", DERIVED)
def test_what_is_derived_depends_on_every_byte_of_secret_and_context(
    derive: Callable[[bytes, bytes, int, int], bytes], byte: int
) -> None:
    def altered(content: bytes) -> bytes:
        return content[:byte] + bytes([content[byte] ^ 1]) + content[byte + 1 :]

    found = derive(SHARED, CONTEXT, 1, 2)
    assert len(found) == 32
    assert len({found, derive(altered(SHARED), CONTEXT, 1, 2), derive(SHARED, altered(CONTEXT), 1, 2)}) == 3
    assert derive(SHARED, CONTEXT, 3, 2) != found


def test_each_purpose_and_direction_has_a_key_of_its_own() -> None:
    found = [derive(SHARED, CONTEXT, 1, 2) for derive in DERIVED] + [keys.sealing_key(SHARED, CONTEXT, 2, 1)]
    assert len(set(found)) == len(found)


@given(content=st.binary(max_size=50), bit=st.integers(0, 511))
def test_a_signature_holds_for_its_statement_alone(content: bytes, bit: int) -> None:
    one = Identity()
    signature = one.sign(b"survivors", CONTEXT, content)
    keys.verify(one.public, signature, b"survivors", CONTEXT, content)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    for public, given_signature, what, context, said in [
        (Identity().public, signature, b"survivors", CONTEXT, content),
        (one.public, bytes(flipped), b"survivors", CONTEXT, content),
        (one.public, signature, b"advertisement", CONTEXT, content),
        (one.public, signature, b"survivors", SHARED, content),
        (one.public, signature, b"survivors", CONTEXT, content + b"x"),
        (one.public, signature[:-1], b"survivors", CONTEXT, content),
    ]:
        with pytest.raises(ProtocolViolation, match="signature"):
            keys.verify(public, given_signature, what, context, said)


def test_what_is_sealed_opens_for_its_round_sender_and_recipient_alone() -> None:
    sealed = keys.seal(SHARED, b"shares", CONTEXT, 1, 2)
    assert keys.unseal(SHARED, sealed, CONTEXT, 1, 2) == b"shares"
    for key, content, context, sender, recipient in [
        (CONTEXT, sealed, CONTEXT, 1, 2),
        (SHARED, sealed[:-1] + bytes([sealed[-1] ^ 1]), CONTEXT, 1, 2),
        (SHARED, sealed, SHARED, 1, 2),
        (SHARED, sealed, CONTEXT, 2, 1),
        (SHARED, sealed, CONTEXT, 1, 3),
    ]:
        with pytest.raises(ProtocolViolation, match=f"client {sender}"):
            keys.unseal(key, content, context, sender, recipient)


def test_an_erased_key_is_zeros_and_of_no_more_use() -> None:
    key = AgreementKey()
    held = key.secret
    key.erase()
    assert held == bytes(32)
    with pytest.raises(ProtocolViolation, match="erased"):
        key.agree(AgreementKey().public)


def test_no_two_keys_are_the_same() -> None:
    assert len({AgreementKey().public for _ in range(20)} | {Identity().public for _ in range(20)}) == 40
