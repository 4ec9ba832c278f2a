"""A member that leaves says so itself, with its own signature: nobody else can put it out in its name."""

from __future__ import annotations

from coterie.errors import PeerError
from coterie.federation.envelope import canonical
from coterie.federation.roster import Roster
from coterie.federation.sealed import opened, parsed, sealed
from coterie.secure.keys import Identity

_KIND = "leave"


def leaving(name: str, federation: str, identity: Identity) -> bytes:
    """What a member sends to leave."""
    return canonical(sealed(_KIND, {"name": name, "federation": federation}, identity))


def read_leaving(text: bytes, federation: str, roster: Roster) -> str:
    """Who leaves: a member of the roster, by the signature of its own identity.

    Raises:
        PeerError: it is not signed by the member that it names, or is about another federation.
    """
    values = parsed(_KIND, text, "a node that leaves")
    member = roster.member(str(values.get("name")))
    if opened(_KIND, values, member.public, member.name).get("federation") != federation:
        raise PeerError(f"{member.name}: leaves another federation than this one")
    return member.name
