"""What a node asks the coordinator over HTTPS outside of Flower: to join, to leave, for the roster."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from coterie.errors import PeerError

SECONDS = 30.0
REFUSED = 400


def ask(address: str, ca: Path, path: str, body: bytes | None = None) -> bytes:
    """Send `body` (None: a plain GET) to `path` at HOST:PORT, whose certificate the authority in `ca` must have signed.

    ``HTTPS_PROXY`` and ``NO_PROXY`` are heeded.

    Raises:
        PeerError: nobody answers there, it is somebody else, or the answer is a refusal; says which.
    """
    trusted = ssl.create_default_context(cafile=str(ca))
    method = "GET" if body is None else "POST"
    try:
        with httpx.Client(verify=trusted, timeout=SECONDS) as client:
            response = client.request(method, f"https://{address}{path}", content=body)
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise PeerError(
                f"{address}: its certificate is not signed by the federation's authority, or made out to another name "
                f"({error}); check the address, and ask the coordinator's operator for a new invitation"
            ) from None
        raise PeerError(
            f"{address}: cannot be reached ({error}); check the address, the network and HTTPS_PROXY"
        ) from None
    except httpx.HTTPError as error:
        raise PeerError(f"{address}: gave no answer ({type(error).__name__}: {error}); try again") from None
    if response.status_code >= REFUSED:
        raise PeerError(f"{address}: answered {response.status_code}: {response.text[:300].strip()}")
    return response.content
