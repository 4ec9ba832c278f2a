"""An invitation: one file that holds all that one organisation needs to join, once, before it expires.

It carries a token that only the coordinator knows besides (which keeps its hash alone), the certificate to trust, and
the coordinator's public identity. The coordinator's signature keeps its parts together; that the identity is the right
one, no file can prove: whoever joins compares the fingerprint with what the coordinator's operator says by another way.
"""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from coterie.errors import ConfigError, DataError, PeerError
from coterie.federation.address import check_address
from coterie.federation.roster import check_name
from coterie.federation.sealed import SIGNATURE, opened, sealed
from coterie.files import read_bytes, write_private
from coterie.secure.keys import PUBLIC_BYTES, Identity, fingerprint, sha256

TOKEN_BYTES = 32
FORMAT = 1
_KIND = "invitation"
_FIELDS = ("format", "federation", "member", "address", "fingerprint", "coordinator", "token", "expires", "ca")
_HEADING = """\
# An invitation to the federation "{federation}", for {member} alone, usable once until {expires}.
# Whoever has this file can take that place: send it by a way that others cannot read, and delete it after use.
#
#     coterie node join THIS_FILE
#
# Before you join, ask the coordinator's operator for the fingerprint, by another way than this file came:
#     {fingerprint}

"""


@dataclass(frozen=True)
class Invitation:
    """One organisation's invitation.

    Args:
        federation: what people call the federation.
        member: what the node will be called.
        address: HOST:PORT of the coordinator.
        coordinator: its public identity, 32 bytes.
        ca: certificate of the authority to trust, as PEM.
        token: the secret that is used up by joining, 32 bytes.
        expires: until when (to the second, UTC).
    """

    federation: str
    member: str
    address: str
    coordinator: bytes
    ca: str
    token: bytes
    expires: datetime

    @property
    def fingerprint(self) -> str:
        """What is compared of the coordinator's identity: 32 hexadecimal characters."""
        return fingerprint(self.coordinator)

    def write(self, path: Path, identity: Identity) -> None:
        """Sign the invitation as its coordinator and write it, for its owner's eyes alone.

        Raises:
            ConfigError: there is such a file already (an invitation is not written over another).
            EnvironmentFault: it cannot be written.
        """
        content = sealed(_KIND, self._content(), identity)
        text = _HEADING.format(**content) + tomli_w.dumps(content, multiline_strings=True)
        try:
            write_private(path, text.encode(), replace=False)
        except FileExistsError:
            raise ConfigError(f"{path}: exists already; name another file for this invitation") from None

    @classmethod
    def read(cls, path: Path) -> Invitation:
        """Read an invitation and check that its parts belong together.

        Raises:
            DataError: it is missing, no invitation, of another version, or altered.
            EnvironmentFault: it cannot be read.
        """
        values = _parsed(path)
        try:
            invitation = _invitation(values)
            opened(_KIND, values, invitation.coordinator, str(path))
        except PeerError:
            raise DataError(f"{path}: the invitation was altered or damaged on its way; ask for it again") from None
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise DataError(f"{path}: the invitation is malformed ({error}); ask for it again") from None
        return invitation

    def check(self, now: datetime | None = None) -> None:
        """Check that the invitation has not expired.

        Raises:
            DataError: it has, by this machine's clock.
        """
        at = now or datetime.now(UTC)
        if at > self.expires:
            raise DataError(
                f"the invitation for {self.member} expired at {self.expires:%Y-%m-%d %H:%M} UTC, and this machine's "
                f"clock says {at.astimezone(UTC):%Y-%m-%d %H:%M}; ask for a new one, or set the clock if it is wrong"
            )

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "federation": self.federation,
            "member": self.member,
            "address": self.address,
            "fingerprint": self.fingerprint,
            "coordinator": self.coordinator.hex(),
            "token": self.token.hex(),
            "expires": self.expires.astimezone(UTC).isoformat(timespec="seconds"),
            "ca": self.ca,
        }


def new_token() -> bytes:
    """A fresh token, from the operating system."""
    return secrets.token_bytes(TOKEN_BYTES)


def token_hash(token: bytes) -> str:
    """What the coordinator keeps of a token: it is 32 random bytes, so one SHA-256 (hexadecimal) hides it."""
    return sha256(token).hex()


def _parsed(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such invitation; check its name")
    try:
        values = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not an invitation, or damaged on its way ({error}); ask for it again") from None
    if (version := values.get("format", FORMAT)) != FORMAT:
        raise DataError(
            f"{path}: an invitation of format {version!r}, and this version knows {FORMAT}; upgrade Coterie"
        )
    if missing := [key for key in (*_FIELDS, SIGNATURE) if key not in values]:
        raise DataError(f"{path}: not a whole invitation ({', '.join(missing)} missing); ask for it again")
    return values


def _invitation(values: Mapping[str, Any]) -> Invitation:
    coordinator, token = bytes.fromhex(values["coordinator"]), bytes.fromhex(values["token"])
    if len(coordinator) != PUBLIC_BYTES or len(token) != TOKEN_BYTES:
        raise ValueError("its key or token has another length than 32 bytes")
    if values["fingerprint"] != fingerprint(coordinator):
        raise ValueError("its fingerprint is not that of its coordinator")
    expires = datetime.fromisoformat(values["expires"])
    if expires.tzinfo is None or not isinstance(values["federation"], str) or not isinstance(values["ca"], str):
        raise ValueError("a value is of the wrong kind")
    check_address(values["address"])
    return Invitation(
        values["federation"],
        check_name(values["member"]),
        values["address"],
        coordinator,
        values["ca"],
        token,
        expires,
    )
