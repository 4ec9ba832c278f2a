"""Joining: what a node sends with its invitation's token, and what the coordinator answers.

The request is signed by the identity that it is about, so nobody can enrol a key that they do not hold. The answer is
signed by the coordinator, whose identity the invitation carries. Asking twice is harmless: the same node with the same
keys gets the same answer, so an answer that was lost on its way costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from coterie.errors import ConfigError, DataError, PeerError
from coterie.federation.envelope import canonical
from coterie.federation.identity import Identities, check_transport
from coterie.federation.invitation import TOKEN_BYTES, Invitation
from coterie.federation.roster import check_name
from coterie.federation.sealed import opened, parsed, sealed
from coterie.secure.keys import PUBLIC_BYTES, Identity, fingerprint

Standing: TypeAlias = Literal["pending", "approved", "revoked"]
"""Of a member: enrolled and waiting for the operator's approval; in the roster; out for good."""

STANDINGS: tuple[Standing, ...] = ("pending", "approved", "revoked")
_REQUEST, _ANSWER = "enrolment", "enrolment answer"
_NODE = "a node that enrols"


@dataclass(frozen=True)
class Enrolment:
    """A node's request to join: the token of its invitation, and its public keys."""

    name: str
    token: bytes
    public: bytes
    transport: str

    @property
    def fingerprint(self) -> str:
        """What is compared of its identity: 32 hexadecimal characters."""
        return fingerprint(self.public)

    @classmethod
    def read(cls, text: bytes, federation: str) -> Enrolment:
        """A request that came in, checked: signed by the identity that it names, and meant for this federation.

        Raises:
            PeerError: it is not; says what is wrong.
        """
        values = parsed(_REQUEST, text, _NODE)
        try:
            public, token = bytes.fromhex(values["public"]), bytes.fromhex(values["token"])
            if len(public) != PUBLIC_BYTES or len(token) != TOKEN_BYTES:
                raise ValueError("a key or token has another length than 32 bytes")
            request = cls(check_name(values["name"]), token, public, check_transport(values["transport"]))
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError, DataError) as error:
            raise PeerError(f"{_NODE}: the request is malformed ({error}); upgrade whichever side is older") from None
        if opened(_REQUEST, values, public, _NODE).get("federation") != federation:
            raise PeerError(f"{request.name}: asks to join another federation; check the address in its invitation")
        return request


def request(invitation: Invitation, identities: Identities) -> bytes:
    """What a node sends to join."""
    content = {
        "federation": invitation.fingerprint,
        "name": invitation.member,
        "token": invitation.token.hex(),
        "public": identities.public.hex(),
        "transport": identities.transport_public,
    }
    return canonical(sealed(_REQUEST, content, identities.identity))


def answer(name: str, standing: Standing, identity: Identity) -> bytes:
    """The coordinator's answer: where the node stands now."""
    return canonical(sealed(_ANSWER, {"name": name, "standing": standing}, identity))


def refusal(reason: str, identity: Identity) -> bytes:
    """The coordinator's answer to a request that it refuses, with the reason as one sentence."""
    return canonical(sealed(_ANSWER, {"refused": reason}, identity))


def read_answer(text: bytes, invitation: Invitation) -> Standing:
    """Where the node stands, as the invitation's coordinator says.

    Raises:
        PeerError: it refuses, with its reason; or the answer is not the coordinator's, or about somebody else.
    """
    source = f"the coordinator at {invitation.address}"
    content = opened(_ANSWER, parsed(_ANSWER, text, source), invitation.coordinator, source)
    if reason := content.get("refused"):
        raise PeerError(f"{source} refuses: {reason}")
    return _standing(content, invitation.member, source)


def _standing(content: Mapping[str, Any], name: str, source: str) -> Standing:
    for standing in STANDINGS:
        if content == {"name": name, "standing": standing}:
            return standing
    raise PeerError(
        f"{source}: its answer is not about '{name}' or says nothing that this version knows; upgrade Coterie"
    )
