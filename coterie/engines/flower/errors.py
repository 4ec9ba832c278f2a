"""What Flower's processes say when they end, in one sentence with a remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNKNOWN_KEY = "the coordinator does not know this node's key (yet); it has to approve the node, or has revoked it"
PORT_TAKEN = "its port is taken by another process; another one is tried"

_CODE = re.compile(r"Exit Code: (\d+)")
_NO_LINE = re.compile(r"^\s*$|For more information|^\s*(File \"|\^|raise |~)")

# The first that fits counts: what Flower reports comes before what Python does.
_SENTENCES: tuple[tuple[str, str], ...] = (
    (r"certificate has expired", "the coordinator's certificate has expired; it has to make a new one"),
    (
        r"Hostname mismatch|IP address mismatch|doesn't match",
        "the coordinator's certificate is for another address; use the one in the invitation",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        (
            "the coordinator's certificate is not of the invitation's CA; somebody may stand between, or the "
            "coordinator has a new CA: ask it for a new invitation"
        ),
    ),
    (
        r"WRONG_VERSION_NUMBER|record layer failure|HTTP_REQUEST",
        "the other side does not speak TLS; check address and port",
    ),
    (r"Failed to activate SuperNode", UNKNOWN_KEY),
    (
        r"SuperNode terminated gracefully",
        "the coordinator takes this node's signatures no longer: it has revoked its key, or a clock is wrong",
    ),
    (r"Exit Code: 302", "the transport key is not usable; restore the folder, or join again"),
    (r"Exit Code: 60[45]", "a certificate or key file is missing; restore the folder"),
    (r"Exit Code: 606", "the two sides have versions of Flower that do not fit; upgrade the older one"),
    (r"Exit Code: 105", "the database was made by another version of Flower; move it away, it is made anew"),
    (
        r"database disk image is malformed|file is not a database",
        "its database is damaged; move the file away, it is made anew",
    ),
    (r"database or disk is full|No space left on device", "the disk is full; free some space"),
    (r"database is locked", "another process uses its database; stop that one"),
    (r"[Aa]ddress already in use", PORT_TAKEN),
    (r"KEY_VALUES_MISMATCH|key values mismatch", "certificate and key do not belong together; make both anew"),
    (r"Permission denied", "a file or port may not be used by this user"),
    (r"MemoryError|Cannot allocate memory", "the machine has no memory left"),
    (r"No module named 'flwr", "Flower is not installed: pip install 'coterie[flower]'"),
)


def explain(status: int, lines: Sequence[str]) -> str:
    """Why a process ended: `status` as of `subprocess` (negative: a signal), `lines` its last ones."""
    text = "\n".join(lines)
    for pattern, sentence in _SENTENCES:
        if re.search(pattern, text):
            return sentence
    if status < 0:
        return f"it was ended by signal {-status}; it is started again"
    last = next((line.strip() for line in reversed(lines) if not _NO_LINE.search(line)), "")
    code = _CODE.search(text)
    return f"it ended with status {code.group(1) if code else status}{f': {last[:200]}' if last else ''}; see its log"
