"""A node's requests to the coordinator before it is connected: one HTTPS request, checked against the invitation's CA.

It honours HTTPS_PROXY and NO_PROXY, as all of a node's connections do.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

from coterie.errors import DataError, PeerError

ENROL, LEAVE, ROSTER = "/coterie/v1/enrol", "/coterie/v1/leave", "/coterie/v1/roster"

SKEW_AHEAD, SKEW_BEHIND = 5.0, 300.0  # seconds by which a node's clock may be off: its signatures carry the time
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_LARGEST = 16 << 20  # bytes of an answer


def ask(address: str, ca: Path, path: str, body: bytes | None = None, seconds: float = 30.0) -> bytes:
    """The coordinator's answer to a request: a POST of `body`, or a GET where there is none.

    Args:
        address: host:port.
        ca: the CA of the invitation, PEM; no other is trusted.
        path: `ENROL`, `LEAVE` or `ROSTER`.
        body: what is posted; None for a GET.
        seconds: how long each step may take.

    Raises:
        PeerError: the coordinator cannot be reached, is not who it should be, or refuses; says why and what to do.
        DataError: the CA is no certificate.
    """
    request = urllib.request.Request(f"https://{address}{path}", body, {"content-type": "application/octet-stream"})
    try:
        with _opener(address, ca).open(request, timeout=seconds) as reply:
            content: bytes = reply.read(_LARGEST)
            return content
    except urllib.error.HTTPError as error:
        with error:
            raise PeerError(f"{address} refuses: {_detail(error)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise PeerError(f"{address}: {_words(error)}") from None


def trouble(address: str, ca: Path, seconds: float = 10.0) -> str:
    """Why the coordinator cannot be reached, in words; empty where it can."""
    request = urllib.request.Request(f"https://{address}/", method="GET")
    try:
        _opener(address, ca).open(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        with error:
            return _clock(error.headers.get("date", "")) if error.code == http.client.NOT_FOUND else _detail(error)
    except (OSError, http.client.HTTPException) as error:
        return _words(error)
    return "it answers, but not as a coordinator does; check address and port"


def _clock(date: str) -> str:
    """What is wrong with this machine's clock, by that of the coordinator; empty where Flower would take no offence."""
    try:
        ahead = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return ""
    if -SKEW_BEHIND < ahead < SKEW_AHEAD:
        return ""
    word = "ahead of" if ahead > 0 else "behind"
    return f"this machine's clock is {abs(ahead):.0f} s {word} the coordinator's; set the one that is wrong"


def _opener(address: str, ca: Path) -> urllib.request.OpenerDirector:
    """By the environment's proxy, if there is one; but none stands between processes of one machine."""
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise DataError(f"{ca}: not a CA certificate (PEM): {error}; restore it from the invitation") from None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if address.rpartition(":")[0] in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _words(error: Exception) -> str:
    """What went wrong with a connection, and what to do."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _certificate(reason)
    if isinstance(reason, ssl.SSLError):
        return f"it does not speak TLS as it should ({reason.reason or reason}); check address and port"
    if isinstance(reason, socket.gaierror):
        return "there is no such host; check the address and this machine's name service"
    if isinstance(reason, TimeoutError):
        return "no answer in time; check the address, firewalls and HTTPS_PROXY"
    if isinstance(reason, ConnectionRefusedError):
        return "nobody listens there; check address and port, and that the coordinator runs"
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return f"cannot be reached ({text}); check the address, the network and HTTPS_PROXY"


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
        return "its certificate has expired; the coordinator has to renew it (or this machine's clock is wrong)"
    if error.verify_code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
        return "its certificate is not valid yet; set this machine's clock"
    if error.verify_code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        return "its certificate is for another address; use the one in the invitation"
    return (
        f"its certificate is not of the invitation's CA ({error.verify_message}); somebody may stand between, or the "
        "coordinator has a new CA: ask it for a new invitation"
    )


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(10_000))["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"status {error.code} ({error.reason}); is this the address of a coordinator?"
